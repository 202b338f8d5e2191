package replication

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

var errCrash = errors.New("the coordinator crashed (test)")

// crashTree is what an operation that is broken off works on: directories a and b, of
// different partitions, below root.
type crashTree struct {
	root string // "" or a path
	a, b object.InodeID
}

func (tr crashTree) key(key string) string { return path.Join(tr.root, key) }

// plant makes the tree.
func plant(t testing.TB, n *Node, root string) crashTree {
	t.Helper()
	tr := crashTree{root: root}
	top := strings.Split(root, "/")
	if root == "" {
		top = nil
	}
	dir := func(names ...string) object.InodeID {
		return mkdirs(t, n, append(top[:len(top):len(top)], names...)...)
	}
	tr.a = dir("a")
	for i := 0; tr.b == 0 || tr.b.Partition() == tr.a.Partition(); i++ {
		tr.b = dir(fmt.Sprintf("b%d", i))
	}
	newFile(t, n, tr.a, "f", "f")
	newFile(t, n, tr.b, "g", "g")
	newFile(t, n, tr.a, "h", "h")
	newFile(t, n, tr.b, "moved", "old")
	dir("a", "sub")
	dir("a", "full")
	mustPut(t, n, tr.key("a/full/x"), []byte("x"))
	mustPut(t, n, tr.key("i/j/k/l"), []byte("x"))
	if _, _, err := n.Create(t.Context(), tr.b, "empty", NewNode{Type: object.TypeDirectory, Mode: 0o755}, true); err != nil {
		t.Fatal(err)
	}
	for _, mv := range []struct {
		from object.InodeID
		name string
		to   object.InodeID
	}{{tr.a, "h", tr.b}, {tr.b, "moved", tr.a}} {
		if err := n.Rename(t.Context(), mv.from, mv.name, mv.to, mv.name, RenameFlags{}); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// names is what a lookup finds: "-" nothing, "d" a directory, else a file's content
// and its number of names.
func (tr crashTree) names(ctx context.Context, n *Node, dir object.InodeID, name string) (string, error) {
	ino, err := n.Lookup(ctx, dir, name)
	switch {
	case object.IsKind(err, object.KindNotFound):
		return "-", nil
	case err != nil:
		return "", err
	case ino.Type == object.TypeDirectory:
		return "d", nil
	}
	r, err := n.OpenInode(ctx, ino.ID)
	if err != nil {
		return "", err
	}
	defer r.Close()
	var b strings.Builder
	err = r.WriteRange(ctx, &b, 0, r.Inode().Size)
	return fmt.Sprintf("%s%d", b.String(), ino.Nlink), err
}

// at is what a path below root leads to: "-" nothing, "+" something.
func (tr crashTree) at(ctx context.Context, n *Node, key string) (string, error) {
	_, err := n.Resolve(ctx, "box", tr.key(key))
	if object.IsKind(err, object.KindNotFound) {
		return "-", nil
	}
	return "+", err
}

// crashOp is an operation on two partitions.
type crashOp struct {
	name string
	do   func(ctx context.Context, n *Node, tr crashTree) error
	// look is what a reader sees of it: before when it did not happen, after when it did.
	look          func(ctx context.Context, n *Node, tr crashTree) (string, error)
	before, after string
}

// both puts two looks together.
func both(x, y string, err1, err2 error) (string, error) { return x + " " + y, errors.Join(err1, err2) }

// crashOps are those of which each step is tried.
func crashOps() []crashOp {
	type look = func(ctx context.Context, n *Node, tr crashTree) (string, error)
	inBoth := func(a, b string) look { // a name in a, and one in b
		return func(ctx context.Context, n *Node, tr crashTree) (string, error) {
			x, err1 := tr.names(ctx, n, tr.a, a)
			y, err2 := tr.names(ctx, n, tr.b, b)
			return both(x, y, err1, err2)
		}
	}
	return []crashOp{
		{"mkdir", func(ctx context.Context, n *Node, tr crashTree) error {
			_, _, err := n.Create(ctx, tr.b, "new", NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
			return err
		}, inBoth("sub", "new"), "d -", "d d"},
		{"rmdir", func(ctx context.Context, n *Node, tr crashTree) error { return n.Rmdir(ctx, tr.a, "sub") },
			inBoth("sub", "g"), "d g1", "- g1"},
		{"link", func(ctx context.Context, n *Node, tr crashTree) error {
			f, err := n.Lookup(ctx, tr.a, "f")
			if err != nil {
				return err
			}
			_, err = n.Link(ctx, f.ID, tr.b, "linked")
			return err
		}, inBoth("f", "linked"), "f1 -", "f2 f2"},
		{"rename", func(ctx context.Context, n *Node, tr crashTree) error {
			return n.Rename(ctx, tr.a, "f", tr.b, "g", RenameFlags{})
		}, inBoth("f", "g"), "f1 g1", "- f1"},
		{"rename dir over dir", func(ctx context.Context, n *Node, tr crashTree) error {
			return n.Rename(ctx, tr.a, "full", tr.b, "empty", RenameFlags{})
		}, func(ctx context.Context, n *Node, tr crashTree) (string, error) {
			x, err1 := tr.at(ctx, n, "a/full/x")
			into, err2 := n.Lookup(ctx, tr.b, "empty")
			if err := errors.Join(err1, err2); err != nil {
				return "", err
			}
			y, err := tr.names(ctx, n, into.ID, "x")
			return x + " " + y, err
		}, "+ -", "- x1"},
		{"unlink elsewhere", func(ctx context.Context, n *Node, tr crashTree) error { return n.Unlink(ctx, tr.b, "h") },
			inBoth("f", "h"), "f1 h1", "f1 -"},
		{"delete implicit", func(ctx context.Context, n *Node, tr crashTree) error {
			return n.Delete(ctx, "box", tr.key("i/j/k/l"), Conditions{})
		}, func(ctx context.Context, n *Node, tr crashTree) (string, error) { return tr.at(ctx, n, "i/j/k/l") }, "+", "-"},
		{"conditional put", func(ctx context.Context, n *Node, tr crashTree) error {
			o, err := n.Stat(ctx, "box", tr.key("a/moved"))
			if err != nil {
				return err
			}
			_, err = n.Put(ctx, "box", tr.key("a/moved"), strings.NewReader("new"), PutOptions{Size: 3, Cond: Conditions{IfMatch: []string{o.Inode.ETag()}}})
			return err
		}, inBoth("moved", "g"), "old1 g1", "new1 g1"},
	}
}

// copyOp is one more: it writes chunks, which may be on their way to other nodes for
// longer than its entries take.
func copyOp() crashOp {
	return crashOp{"copy", func(ctx context.Context, n *Node, tr crashTree) error {
		_, err := n.Copy(ctx, "box", tr.key("a/big"), "box", tr.key("copy/of/big"), CopyOptions{})
		return err
	}, func(ctx context.Context, n *Node, tr crashTree) (string, error) { return tr.at(ctx, n, "copy/of/big") }, "-", "+"}
}

// outcome is whether the operation happened, and an error when that is half, or not as
// it answered.
func (op *crashOp) outcome(ctx context.Context, n *Node, tr crashTree, answer error) (happened bool, err error) {
	got, err := op.look(ctx, n, tr)
	switch {
	case err != nil:
		return false, err
	case got != op.before && got != op.after:
		return false, fmt.Errorf("%s came about in part: %q, which was %q and should be %q", op.name, got, op.before, op.after)
	case answer == nil && got != op.after:
		return false, fmt.Errorf("%s succeeded and did not happen: %q", op.name, got)
	case answer != nil && !uncertain(answer) && got != op.before:
		return true, fmt.Errorf("%s happened (%q) and answered: %w", op.name, got, answer)
	}
	return got == op.after, nil
}

// TestCrashAtEveryStep lets the coordinator vanish before each step of each
// two-partition operation; whoever comes after must find, and leave, a sound tree.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, op := range append(crashOps(), copyOp()) {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			for crashAt := 1; ; crashAt++ {
				if !crashOnce(t, op, crashAt) {
					if crashAt < 3 {
						t.Fatalf("the operation has only %d steps: is it no transaction any more?", crashAt)
					}
					return
				}
			}
		})
	}
}

// vanishing is a hook of Node.step that lets nothing through from the crashAt-th
// entry on, counted in count.
func vanishing(count *atomic.Int32, crashAt int) func(object.PartitionID) error {
	return func(object.PartitionID) error {
		if count.Add(1) >= int32(crashAt) {
			return errCrash
		}
		return nil
	}
}

// undriven waits until the node drives no transaction.
func undriven(t testing.TB, n *Node) {
	t.Helper()
	waitFor(t, "driven transactions", func() bool { n.live.mu.Lock(); defer n.live.mu.Unlock(); return len(n.live.done) == 0 })
}

// crashOnce runs op with a crash before its crashAt-th entry; false: it has fewer.
func crashOnce(t *testing.T, op crashOp, crashAt int) bool {
	t.Helper()
	n, ctx := newNode(t)
	tr := plant(t, n, "")
	mustPut(t, n, "a/big", randomBytes(1, 200000))
	checkAtRest(t, n)

	var count atomic.Int32
	step := vanishing(&count, crashAt)
	n.step.Store(&step)
	err := op.do(ctx, n, tr)
	undriven(t, n)
	n.step.Store(nil)
	if count.Load() < int32(crashAt) {
		if err != nil {
			t.Fatalf("without a crash: %v", err)
		}
		checkAtRest(t, n)
		return false
	}
	settleAll(t, n)
	t.Logf("crash before entry %d: %v", crashAt, err)
	checkAtRest(t, n)
	if _, err := op.outcome(ctx, n, tr, err); err != nil {
		t.Fatalf("crash before entry %d: %v", crashAt, err)
	}
	// The same operation again must find a tree that it can work on.
	err = op.do(ctx, n, tr)
	if err != nil && !object.IsKind(err, object.KindNotFound) && !object.IsKind(err, object.KindExists) {
		t.Fatalf("crash before entry %d, then again: %v", crashAt, err)
	}
	checkAtRest(t, n)
	return true
}
