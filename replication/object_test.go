package replication

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// strayFile makes box/a/moved, whose inode lives in another partition than the
// directory a, with a mode and an owner of its own.
func strayFile(t *testing.T, n *Node) object.InodeID {
	t.Helper()
	a, b := apart(t, n)
	newFile(t, n, b, "moved", "old")
	if err := n.Rename(t.Context(), b, "moved", a, "moved", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	ino, err := n.Lookup(t.Context(), a, "moved")
	if err != nil || ino.ID.Partition() == a.Partition() {
		t.Fatalf("%v: the file did not move away from its inode", err)
	}
	mode, uid, gid := uint32(0o4751), uint32(7), uint32(8)
	if _, err := n.SetAttr(t.Context(), ino.ID, SetAttr{Mode: &mode, UID: &uid, GID: &gid}); err != nil {
		t.Fatal(err)
	}
	return ino.ID
}

func wantOwner(t *testing.T, i *object.Inode) {
	t.Helper()
	if i.Mode != 0o4751 || i.UID != 7 || i.GID != 8 {
		t.Fatalf("mode %o, owner %d:%d were not inherited", i.Mode, i.UID, i.GID)
	}
}

func TestPutInheritsFromAnotherPartition(t *testing.T) {
	for name, cond := range map[string]func(was *object.Inode) Conditions{
		"unconditional": func(*object.Inode) Conditions { return Conditions{} },
		"any":           func(*object.Inode) Conditions { return Conditions{IfMatch: []string{"*"}} },
		"conditional":   func(was *object.Inode) Conditions { return Conditions{IfMatch: []string{was.ETag()}} },
	} {
		t.Run(name, func(t *testing.T) {
			n, ctx := newNode(t)
			old := strayFile(t, n)
			was, err := n.Stat(ctx, "box", "a/moved")
			if err != nil {
				t.Fatal(err)
			}
			o, err := n.Put(ctx, "box", "a/moved", strings.NewReader("new"), PutOptions{Size: 3, Cond: cond(was.Inode)})
			if err != nil {
				t.Fatal(err)
			}
			wantOwner(t, o.Inode)
			if got := string(mustGet(t, n, "a/moved")); got != "new" || o.Inode.ID == old {
				t.Fatalf("%q in inode %s", got, o.Inode.ID)
			}
			waitFor(t, "the replaced inode to go", func() bool {
				_, err := n.GetAttr(ctx, old)
				return object.IsKind(err, object.KindStale)
			})
			// A mode that the caller gives stands, whatever was there.
			if o, err = n.Put(ctx, "box", "a/moved", strings.NewReader("x"), PutOptions{Size: 1, Mode: 0o600}); err != nil || o.Inode.Mode != 0o600 {
				t.Fatal(o.Inode, err)
			}
			checkAtRest(t, n)
		})
	}
}

// TestInheritedModeStandsStill: between the look at the old file and the swap
// nobody changes its mode, or the new file would have one that was there before.
func TestInheritedModeStandsStill(t *testing.T) {
	n, ctx := newNode(t)
	ino := strayFile(t, n)
	r, err := n.propose(ctx, ino.Partition(), &namespace.Command{Prepare: &namespace.Prepare{Decider: object.Control,
		Halves: []namespace.Half{{Hold: &namespace.Hold{Inode: ino, Still: true}}}}})
	if err != nil || r.Failed {
		t.Fatal(r, err)
	}
	mode, atime := uint32(0o600), int64(1)
	chmod := &namespace.Command{SetAttr: &namespace.SetAttr{Inode: ino, Mode: &mode}}
	if r, err := n.propose(ctx, ino.Partition(), chmod); err != nil || r.Meet == nil {
		t.Fatal("a mode was changed under a successor's eyes:", r, err)
	}
	touch := &namespace.Command{SetAttr: &namespace.SetAttr{Inode: ino, Atime: &atime}}
	if r, err := n.propose(ctx, ino.Partition(), touch); err != nil || r.Failed {
		t.Fatal("what nobody inherits was held up:", r, err)
	}
	// A chmod settles a transaction that nobody drives, and goes through.
	if i, err := n.SetAttr(ctx, ino, SetAttr{Mode: &mode}); err != nil || i.Mode != mode {
		t.Fatal(i, err)
	}
	checkAtRest(t, n)
}

func TestCrashWhileInheriting(t *testing.T) {
	for crashAt := 1; ; crashAt++ {
		crashed := crashOnce(t, crashOp{"put over a stray file", func(ctx context.Context, n *Node, tr crashTree) error {
			if _, err := n.Put(ctx, "box", "a/moved", strings.NewReader("new"), PutOptions{Size: 3}); err != nil {
				return err
			}
			o, err := n.Stat(ctx, "box", "a/moved")
			if err == nil && o.Inode.Mode != 0o644 {
				err = errors.New("another mode")
			}
			return err
		}, func(ctx context.Context, n *Node, tr crashTree) (string, error) {
			return tr.names(ctx, n, tr.a, "moved")
		}, "old1", "new1"}, crashAt)
		if !crashed {
			if crashAt < 4 {
				t.Fatalf("the PUT has only %d steps: is it no transaction?", crashAt)
			}
			return
		}
	}
}

// TestPutsOfAStrayFile race PUTs, chmods and reads over a file whose inode
// lives elsewhere at first.
func TestPutsOfAStrayFile(t *testing.T) {
	n, ctx := newNode(t)
	strayFile(t, n)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				o, err := n.Put(ctx, "box", "a/moved", strings.NewReader("new"), PutOptions{Size: 3})
				if err != nil {
					t.Error(err)
					return
				}
				if o.Inode.Mode != 0o4751 || o.Inode.UID != 7 {
					t.Errorf("mode %o, owner %d", o.Inode.Mode, o.Inode.UID)
				}
				if _, err := n.Stat(ctx, "box", "a/moved"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	checkAtRest(t, n)
}
