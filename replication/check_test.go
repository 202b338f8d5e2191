package replication

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// checkAtRest waits until nothing is under way and wants no broken invariant,
// with memory enough for one closer look at all of it, and with hardly any. (The race
// detector takes long over the half a million sums of Check, most of them nobody's.)
func checkAtRest(t testing.TB, n *Node) *CheckReport {
	t.Helper()
	var r *CheckReport
	waitFor(t, "the store to come to rest", func() bool {
		var err error
		if r, err = n.checkWithin(t.Context(), whole); err != nil {
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

// settleAll does what a start does.
func settleAll(t testing.TB, n *Node) {
	t.Helper()
	waitFor(t, "open transactions to be settled", func() bool {
		if err := n.sweep(0); err != nil {
			t.Fatal(err)
		}
		r, err := n.checkWithin(t.Context(), whole)
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
	if got := fmt.Sprint(ProblemKinds()); got != "[missing-data references names stray-data not-checked]" {
		t.Error(got)
	}
}

// nobody stages contents: they are all given up.
func nobody() (map[object.UploadID]bool, error) { return nil, nil }
