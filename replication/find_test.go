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

// TestNameShowsOnlyItsOwn: between the look that finds an object under its key and the one
// that opens it, the object gets another name and is changed under that. A reader of the
// key must not see the change: no object of that key ever had it.
func TestNameShowsOnlyItsOwn(t *testing.T) {
	n, ctx := newNode(t)
	old, changed := bytes.Repeat([]byte("o"), object.MaxInline+1), bytes.Repeat([]byte("c"), object.MaxInline+1)
	write := func(id object.InodeID) {
		t.Helper()
		if _, _, err := n.Write(ctx, id, 0, bytes.NewReader(changed), WriteOptions{Size: int64(len(changed))}); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []struct {
		name string
		put  func(dir string) (key string, id object.InodeID)
	}{
		{"in its directory's partition", func(dir string) (string, object.InodeID) {
			return dir + "/k", mustPut(t, n, dir+"/k", old).Inode.ID
		}},
		{"in another partition", func(dir string) (string, object.InodeID) {
			for i := 0; ; i++ { // where a directory comes to is drawn
				from, key := fmt.Sprintf("%s/from%d/k", dir, i), fmt.Sprintf("%s/to%d/k", dir, i)
				id := mustPut(t, n, from, old).Inode.ID
				if err := n.RenameObject(ctx, "box", from, "box", key, RenameFlags{}); err != nil {
					t.Fatal(err)
				}
				if mkdirs(t, n, dir, fmt.Sprint("to", i)).Partition() != id.Partition() {
					return key, id
				}
			}
		}},
	} {
		for what, look := range map[string]func(key string) error{
			"open": func(key string) error {
				r, err := n.OpenObject(ctx, "box", key)
				if err == nil {
					if b := readAll(t, r); !bytes.Equal(b, old) && !bytes.Equal(b, changed) {
						t.Error("torn")
					}
					r.Close()
				}
				return err
			},
			"stat": func(key string) error {
				_, err := n.Stat(ctx, "box", key)
				return err
			},
		} {
			t.Run(what+" "+at.name, func(t *testing.T) {
				key, id := at.put(strings.ReplaceAll(t.Name(), "/", "-"))
				calls := 0
				once := func(f func()) {
					do := func() {
						n.between.Store(nil)
						calls++
						f()
					}
					n.between.Store(&do)
				}
				// Only changed: it is shown.
				once(func() { write(id) })
				if err := look(key); err != nil {
					t.Errorf("an object that was written meanwhile: %v", err)
				}
				once(func() {
					if err := n.RenameObject(ctx, "box", key, "box", key+"2", RenameFlags{}); err != nil {
						t.Error(err)
					}
					write(id)
				})
				err := look(key)
				n.between.Store(nil)
				if calls == 0 && what == "stat" {
					return // one look: nothing can come between
				}
				if calls != 2 || !object.IsKind(err, object.KindNotFound) {
					t.Errorf("after %d changes between two looks: %v", calls, err)
				}
			})
		}
	}
	checkAtRest(t, n)
}
