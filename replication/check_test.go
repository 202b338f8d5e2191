package replication

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// checkAtRest waits until nothing is under way and wants no broken invariant,
// with all the memory that a check may have and with hardly any.
func checkAtRest(t testing.TB, n *Node) *CheckReport {
	t.Helper()
	var r *CheckReport
	waitFor(t, "the store to come to rest", func() bool {
		var err error
		if r, err = n.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r.Open == 0 && r.Garbage == 0
	})
	if len(r.Problems) > 0 {
		t.Fatalf("%d problems, such as: %v", len(r.Problems), r.Problems[:min(10, len(r.Problems))])
	}
	waitFor(t, "the store to come to rest", func() bool {
		sliced, err := n.checkWithin(t.Context(), small)
		if err != nil {
			t.Fatal(err)
		}
		rest := sliced.Open == 0 && sliced.Garbage == 0
		if rest && len(sliced.Problems) > 0 {
			t.Fatalf("in slices %d problems, such as: %v", len(sliced.Problems), sliced.Problems[:min(10, len(sliced.Problems))])
		}
		return rest
	})
	return r
}

var errCrash = errors.New("the coordinator crashed (test)")

// TestCrashAtEveryStep lets the coordinator vanish before each step of each
// two-partition operation; whoever comes after must find, and leave, a sound tree.
func TestCrashAtEveryStep(t *testing.T) {
	ops := map[string]func(n *Node, ctx context.Context, a, b object.InodeID) error{
		"mkdir": func(n *Node, ctx context.Context, a, b object.InodeID) error {
			_, _, err := n.Create(ctx, b, "new", NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
			return err
		},
		"rmdir": func(n *Node, ctx context.Context, a, b object.InodeID) error { return n.Rmdir(ctx, a, "sub") },
		"link": func(n *Node, ctx context.Context, a, b object.InodeID) error {
			f, err := n.Lookup(ctx, a, "f")
			if err != nil {
				return err
			}
			_, err = n.Link(ctx, f.ID, b, "linked")
			return err
		},
		"rename": func(n *Node, ctx context.Context, a, b object.InodeID) error {
			return n.Rename(ctx, a, "f", b, "g", RenameFlags{})
		},
		"rename dir over dir": func(n *Node, ctx context.Context, a, b object.InodeID) error {
			return n.Rename(ctx, a, "full", b, "empty", RenameFlags{})
		},
		"unlink elsewhere": func(n *Node, ctx context.Context, a, b object.InodeID) error { return n.Unlink(ctx, b, "h") },
		"delete implicit": func(n *Node, ctx context.Context, a, b object.InodeID) error {
			return n.Delete(ctx, "box", "i/j/k/l", Conditions{})
		},
		"conditional put": func(n *Node, ctx context.Context, a, b object.InodeID) error {
			o, err := n.Stat(ctx, "box", "a/moved")
			if err != nil {
				return err
			}
			_, err = n.Put(ctx, "box", "a/moved", strings.NewReader("new"), PutOptions{Size: 3, Cond: Conditions{IfMatch: []string{o.Inode.ETag()}}})
			return err
		},
		"copy": func(n *Node, ctx context.Context, a, b object.InodeID) error {
			_, err := n.Copy(ctx, "box", "a/big", "box", "copy/of/big", CopyOptions{})
			return err
		},
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
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

// crashOnce runs op with a crash before its crashAt-th entry; false: it has fewer.
func crashOnce(t *testing.T, op func(n *Node, ctx context.Context, a, b object.InodeID) error, crashAt int) bool {
	t.Helper()
	cfg := testConfig(t)
	n := openNode(t, cfg)
	ctx := t.Context()
	if _, err := n.CreateBucket(ctx, "box", "me"); err != nil {
		t.Fatal(err)
	}
	a, b := apart(t, n)
	newFile(t, n, a, "f", "f")
	newFile(t, n, b, "g", "g")
	newFile(t, n, a, "h", "h")
	newFile(t, n, b, "moved", "old")
	mkdirs(t, n, "a", "sub")
	mkdirs(t, n, "a", "full")
	mustPut(t, n, "a/full/x", []byte("x"))
	mustPut(t, n, "a/big", randomBytes(1, 200000))
	mustPut(t, n, "i/j/k/l", []byte("x"))
	bDir := b
	if _, _, err := n.Create(ctx, bDir, "empty", NewNode{Type: object.TypeDirectory, Mode: 0o755}, true); err != nil {
		t.Fatal(err)
	}
	for _, mv := range []struct {
		from object.InodeID
		name string
		to   object.InodeID
	}{{a, "h", b}, {b, "moved", a}} {
		if err := n.Rename(ctx, mv.from, mv.name, mv.to, mv.name, RenameFlags{}); err != nil {
			t.Fatal(err)
		}
	}
	checkAtRest(t, n)

	var count atomic.Int32
	step := func() error {
		if count.Add(1) >= int32(crashAt) {
			return errCrash
		}
		return nil
	}
	n.step.Store(&step)
	err := op(n, ctx, a, b)
	waitFor(t, "driven transactions", func() bool { n.live.mu.Lock(); defer n.live.mu.Unlock(); return len(n.live.done) == 0 })
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
	// The same operation again must find a tree that it can work on.
	err = op(n, ctx, a, b)
	if err != nil && !object.IsKind(err, object.KindNotFound) && !object.IsKind(err, object.KindExists) {
		t.Fatalf("crash before entry %d, then again: %v", crashAt, err)
	}
	checkAtRest(t, n)
	return true
}

// settleAll does what a start does.
func settleAll(t testing.TB, n *Node) {
	t.Helper()
	waitFor(t, "open transactions to be settled", func() bool {
		if err := n.sweep(0); err != nil {
			t.Fatal(err)
		}
		r, err := n.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r.Open == 0
	})
	// What the crashed coordinator staged is nobody's now.
	if err := n.dropStaged(nobody); err != nil {
		t.Fatal(err)
	}
}

// TestRandomNamespaceKeepsInvariants runs clients against each other.
func TestRandomNamespaceKeepsInvariants(t *testing.T) {
	n, ctx := newNode(t)
	dirs := []object.InodeID{mkdirs(t, n)}
	for i := range 4 {
		dirs = append(dirs, mkdirs(t, n, fmt.Sprintf("d%d", i)))
	}
	done := make(chan error, 6)
	for w := range 6 {
		go func() {
			rnd := rand.New(rand.NewSource(int64(w)))
			for range 60 {
				d1, d2 := dirs[rnd.Intn(len(dirs))], dirs[rnd.Intn(len(dirs))]
				n1, n2 := fmt.Sprintf("n%d", rnd.Intn(5)), fmt.Sprintf("n%d", rnd.Intn(5))
				var err error
				switch rnd.Intn(7) {
				case 0:
					_, _, err = n.Create(ctx, d1, n1, NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
				case 1:
					err = n.Rmdir(ctx, d1, n1)
				case 2:
					err = n.Rename(ctx, d1, n1, d2, n2, RenameFlags{})
				case 3:
					var i *object.Inode
					if i, err = n.Lookup(ctx, d1, n1); err == nil {
						_, err = n.Link(ctx, i.ID, d2, n2)
					}
				case 4:
					err = n.Unlink(ctx, d1, n1)
				case 5:
					_, err = n.Put(ctx, "box", fmt.Sprintf("d%d/im/%s", rnd.Intn(4), n1), strings.NewReader(n1), PutOptions{Size: -1})
				case 6:
					_, _, err = n.Create(ctx, d1, n1, NewNode{Type: object.TypeRegular, Mode: 0o644}, true)
				}
				if object.IsKind(err, object.KindInternal) || object.IsKind(err, object.KindTimeout) || object.IsKind(err, object.KindCorrupt) {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 6 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	settleAll(t, n)
	checkAtRest(t, n)
}

// The names cross the wire.
func TestProblemKindNamesAreStable(t *testing.T) {
	if got := fmt.Sprint(ProblemKinds()); got != "[missing-data references names stray-data]" {
		t.Error(got)
	}
}

// nobody stages contents: they are all given up.
func nobody() (map[object.UploadID]bool, error) { return nil, nil }
