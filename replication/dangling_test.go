package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// dangle plants, in directory a, a name of each given that leads to an inode
// of another partition which is gone, as after a partition that was restored alone.
func dangle(t *testing.T, n *Node, a, b object.InodeID, names ...string) {
	t.Helper()
	ctx := t.Context()
	for i, name := range names {
		f := newFile(t, n, b, "made elsewhere", "x")
		if err := n.Rename(ctx, b, "made elsewhere", a, name, RenameFlags{}); err != nil {
			t.Fatal(err)
		}
		lower := &namespace.Decide{Tx: namespace.TxID{First: a.Partition(), Seq: 1<<60 + uint64(f.ID)%1e6 + uint64(i)}, Lower: &namespace.Lower{Inode: f.ID}}
		r, err := n.propose(ctx, b.Partition(), &namespace.Command{Decide: lower})
		if err = errors.Join(err, r.Err()); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the inode to go", func() bool {
			_, err := n.GetAttr(ctx, f.ID)
			return object.IsKind(err, object.KindStale)
		})
	}
}

// quickly is a context for an operation that must not go round in circles.
func quickly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestNameOfAGoneInodeIsAnErrorThatSaysWhatToDo(t *testing.T) {
	n, _ := newNode(t)
	a, b := apart(t, n)
	dangle(t, n, a, b, "f")
	match := Conditions{IfMatch: []string{"something"}}
	for name, op := range map[string]func(ctx context.Context) error{
		"get":     func(ctx context.Context) error { _, err := n.OpenObject(ctx, "box", "a/f"); return err },
		"stat":    func(ctx context.Context) error { _, err := n.Stat(ctx, "box", "a/f"); return err },
		"resolve": func(ctx context.Context) error { _, err := n.Resolve(ctx, "box", "a/f"); return err },
		"open or create": func(ctx context.Context) error {
			_, _, err := n.Create(ctx, a, "f", NewNode{Type: object.TypeRegular, Mode: 0o644}, false)
			return err
		},
		"conditional put": func(ctx context.Context) error {
			_, err := n.Put(ctx, "box", "a/f", strings.NewReader("y"), PutOptions{Size: 1, Cond: match})
			return err
		},
		"conditional delete": func(ctx context.Context) error { return n.Delete(ctx, "box", "a/f", match) },
		"copy": func(ctx context.Context) error {
			_, err := n.Copy(ctx, "box", "a/f", "box", "copy", CopyOptions{})
			return err
		},
	} {
		err := op(quickly(t))
		if !object.IsKind(err, object.KindCorrupt) || !strings.Contains(err.Error(), "delete the name") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A kernel looks a name up before it drops it.
	ino, err := n.Lookup(quickly(t), a, "f")
	if err != nil || ino.Nlink != 0 || ino.Type != object.TypeRegular {
		t.Errorf("lookup: %+v, %v", ino, err)
	}
}

func TestNameOfAGoneInodeCanBeRepairedAndDropped(t *testing.T) {
	n, _ := newNode(t)
	a, b := apart(t, n)
	put := func(ctx context.Context, key string, o PutOptions) error {
		o.Size = 3
		_, err := n.Put(ctx, "box", key, strings.NewReader("new"), o)
		return err
	}
	for i, c := range []struct {
		name string
		op   func(ctx context.Context, name string) error
		want string
	}{
		{"put", func(ctx context.Context, name string) error { return put(ctx, "a/"+name, PutOptions{}) }, "new"},
		{"put of a mode", func(ctx context.Context, name string) error { return put(ctx, "a/"+name, PutOptions{Mode: 0o600}) }, "new"},
		{"put of a chunk", func(ctx context.Context, name string) error {
			big := strings.Repeat("b", 100<<10)
			_, err := n.Put(ctx, "box", "a/"+name, strings.NewReader(big), PutOptions{Size: int64(len(big))})
			if err == nil {
				err = put(ctx, "a/"+name, PutOptions{})
			}
			return err
		}, "new"},
		{"copy over", func(ctx context.Context, name string) error {
			if err := put(ctx, "source", PutOptions{}); err != nil {
				return err
			}
			_, err := n.Copy(ctx, "box", "source", "box", "a/"+name, CopyOptions{})
			return err
		}, "new"},
		{"delete", func(ctx context.Context, name string) error { return n.Delete(ctx, "box", "a/"+name, Conditions{}) }, ""},
		{"unlink", func(ctx context.Context, name string) error { return n.Unlink(ctx, a, name) }, ""},
		{"rename over", func(ctx context.Context, name string) error {
			newFile(t, n, a, "near", "new")
			return n.Rename(ctx, a, "near", a, name, RenameFlags{})
		}, "new"},
		{"rename over from elsewhere", func(ctx context.Context, name string) error {
			newFile(t, n, b, "far", "new")
			return n.Rename(ctx, b, "far", a, name, RenameFlags{})
		}, "new"},
		{"rename away and unlink", func(ctx context.Context, name string) error {
			if err := n.Rename(ctx, a, name, b, name, RenameFlags{}); err != nil {
				return err
			}
			return n.Unlink(ctx, b, name)
		}, ""},
	} {
		name := fmt.Sprint("f", i)
		dangle(t, n, a, b, name)
		if err := c.op(quickly(t), name); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		r, err := n.OpenObject(quickly(t), "box", "a/"+name)
		if c.want == "" {
			if !object.IsKind(err, object.KindNotFound) {
				t.Errorf("%s: the name is still there: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := string(readAll(t, r)); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
		r.Close()
	}
}

// A directory's name of that kind goes by rmdir, and by the key of its marker.
func TestNameOfAGoneDirectoryCanBeDropped(t *testing.T) {
	n, ctx := newNode(t)
	a := mkdirs(t, n, "a")
	for name, op := range map[string]func(ctx context.Context, name string) error{
		"rmdir":         func(ctx context.Context, name string) error { return n.Rmdir(ctx, a, name) },
		"delete marker": func(ctx context.Context, name string) error { return n.Delete(ctx, "box", "a/"+name+"/", Conditions{}) },
	} {
		for i := range 4 { // in several partitions, maybe the parent's own
			name := fmt.Sprint(name, i)
			d := mkdirs(t, n, "a", name)
			// Its inode goes, as rmdir makes it go, and the name stays.
			r, err := n.propose(ctx, d.Partition(), &namespace.Command{Prepare: &namespace.Prepare{Decider: d.Partition(),
				Halves: []namespace.Half{{Dead: &namespace.Dead{Dir: d}}}}})
			if err = errors.Join(err, r.Err()); err != nil {
				t.Fatal(err)
			}
			r, err = n.propose(ctx, d.Partition(), &namespace.Command{Finish: &namespace.Finish{Tx: r.Tx, Committed: true}})
			if err = errors.Join(err, r.Err()); err != nil {
				t.Fatal(err)
			}
			if err := op(quickly(t), name); err != nil {
				t.Error(name, err)
			}
			if _, err := n.Lookup(quickly(t), a, name); !object.IsKind(err, object.KindNotFound) {
				t.Errorf("%s: the name is still there: %v", name, err)
			}
		}
	}
	parent, err := n.GetAttr(ctx, a)
	if err != nil || parent.Nlink != 2 {
		t.Errorf("the parent has %d links, %v", parent.Nlink, err)
	}
	wantKind(t, n.Rmdir(ctx, a, "never"), object.KindNotFound)
}
