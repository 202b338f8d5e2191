package replication

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestSmallFilesNeverGoBack reads a small file, by content and by record, while it
// is replaced, written in place and given other modes: a reader never sees what was before
// something it saw, nor bytes of one version with the record of another.
func TestSmallFilesNeverGoBack(t *testing.T) {
	n, ctx := newNode(t)
	line := func(i int) []byte { return fmt.Appendf(nil, "%06d %s", i, strings.Repeat("x", i%97)) }
	mustPut(t, n, "d/k", line(0))
	var done atomic.Bool
	var acked atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last, change := int64(0), uint64(0)
			for !done.Load() {
				least := acked.Load()
				r, err := n.OpenObject(ctx, "box", "d/k")
				if err != nil {
					t.Error(err)
					return
				}
				got := readAll(t, r)
				var i int64
				fmt.Sscanf(string(got), "%d", &i)
				if !bytes.Equal(got, line(int(i))) || r.Inode().Size != int64(len(got)) {
					t.Errorf("torn: %q of %d bytes", got, r.Inode().Size)
				}
				if i < least || i < last || r.Inode().Change < change {
					t.Errorf("version %d (change %d) after %d (change %d); %d was acknowledged", i, r.Inode().Change, last, change, least)
				}
				last, change = i, r.Inode().Change
				r.Close()
				o, err := n.Stat(ctx, "box", "d/k")
				if err != nil {
					t.Error(err)
					return
				}
				if o.Inode.Change < change {
					t.Errorf("a record of change %d after a reader of change %d", o.Inode.Change, change)
				}
				change = o.Inode.Change
				o.Inode.Mode = 0 // it is ours
			}
		})
	}
	for i := 1; i <= 90; i++ {
		switch i % 3 {
		case 0:
			mustPut(t, n, "d/k", line(i))
		case 1:
			o, err := n.Stat(ctx, "box", "d/k")
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := n.Write(ctx, o.Inode.ID, 0, bytes.NewReader(line(i)), WriteOptions{Size: int64(len(line(i))), Truncate: true}); err != nil {
				t.Fatal(err)
			}
		case 2:
			o, err := n.Put(ctx, "box", "d/k", bytes.NewReader(line(i)), PutOptions{Size: -1})
			if err != nil {
				t.Fatal(err)
			}
			mode := uint32(0o600)
			if _, err := n.SetAttr(ctx, o.Inode.ID, SetAttr{Mode: &mode}); err != nil {
				t.Fatal(err)
			}
			if o, err = n.Stat(ctx, "box", "d/k"); err != nil || o.Inode.Mode != mode {
				t.Fatalf("mode %o after a change to %o: %v", o.Inode.Mode, mode, err)
			}
		}
		acked.Store(int64(i))
	}
	done.Store(true)
	wg.Wait()
	checkAtRest(t, n)
}

// TestSmallFilesByTheirNames: what a name led to is forgotten with the name.
func TestSmallFilesByTheirNames(t *testing.T) {
	n, ctx := newNode(t)
	gone := func(key string) {
		t.Helper()
		if _, err := n.OpenObject(ctx, "box", key); !object.IsKind(err, object.KindNotFound) {
			t.Fatalf("%s: %v", key, err)
		}
		if _, err := n.Stat(ctx, "box", key); !object.IsKind(err, object.KindNotFound) {
			t.Fatalf("%s: %v", key, err)
		}
	}
	is := func(key, content string, nlink uint32) {
		t.Helper()
		for range 2 { // from the store, then from memory
			if got := string(mustGet(t, n, key)); got != content {
				t.Fatalf("%s is %q, not %q", key, got, content)
			}
			if o, err := n.Stat(ctx, "box", key); err != nil || o.Inode.Nlink != nlink {
				t.Fatalf("%s: %v, %v", key, o.Inode, err)
			}
		}
	}
	gone("d/a")
	mustPut(t, n, "d/a", []byte("one"))
	is("d/a", "one", 1)
	if err := n.LinkObject(ctx, "box", "d/a", "box", "d/b"); err != nil {
		t.Fatal(err)
	}
	is("d/a", "one", 2)
	is("d/b", "one", 2)
	mustPut(t, n, "d/a", []byte("two"))
	is("d/a", "two", 1)
	is("d/b", "one", 1)
	if err := n.RenameObject(ctx, "box", "d/b", "box", "d/a", RenameFlags{Exchange: true}); err != nil {
		t.Fatal(err)
	}
	is("d/a", "one", 1)
	is("d/b", "two", 1)
	root := mkdirs(t, n)
	if err := n.Rename(ctx, root, "d", root, "e", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	gone("d/a")
	is("e/a", "one", 1)
	if err := n.Delete(ctx, "box", "e/a", Conditions{}); err != nil {
		t.Fatal(err)
	}
	gone("e/a")
	is("e/b", "two", 1)
	if err := n.Delete(ctx, "box", "e/b", Conditions{}); err != nil {
		t.Fatal(err)
	}
	gone("e/b")
	mustPut(t, n, "f", nil)
	is("f", "", 1)
}
