package replication

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// leaderOf is the node that leads a partition.
func leaderOf(t testing.TB, nodes []*Node, id object.PartitionID) (leader *Node) {
	t.Helper()
	eventually(t, fmt.Sprintf("a leader of partition %d", id), func() error {
		for _, n := range nodes {
			if !n.closing.Load() && n.parts[id].led() != nil {
				leader = n
				return nil
			}
		}
		return errors.New("none")
	})
	return leader
}

// TestLocksOfThreeNodes: locks go from node to node, circles over several leaders are
// broken, and who waits gets its turn although the leader goes; the session of one who is
// lost is fenced everywhere before its locks are given on, by whoever leads then.
func TestLocksOfThreeNodes(t *testing.T) {
	c := &crew{t: t}
	for i := range 3 {
		cfg := memberConfig(t, fmt.Sprintf("n%d", i+1))
		cfg.Partitions, cfg.LeasePeriod = 3, time.Hour // leases end where the test says so
		if i > 0 {
			cfg.Join = []string{c.nodes[0].cfg.Peer}
		}
		c.nodes = append(c.nodes, openMember(t, cfg))
	}
	if _, err := c.nodes[0].CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	settled(t, c.nodes[0])
	x, y := apart(t, c.nodes[0])
	f, g := newFile(t, c.nodes[0], x, "f", "x").ID, newFile(t, c.nodes[0], y, "g", "x").ID
	k := exclusive(1, 0, 9)

	var ls []*locker
	for _, n := range c.nodes {
		ls = append(ls, newLocker(t, n))
	}
	t.Run("hand-over", func(t *testing.T) {
		ls[0].lock(f, k)
		one := ls[1].waits(f, k)
		queued(t, c.nodes, f, 1)
		two := ls[2].waits(f, k)
		queued(t, c.nodes, f, 2)
		for i, done := range []<-chan error{one, two} {
			undecided(t, done)
			ls[i].unlock(f, k)
			if err := decided(t, "a lock that was given up at another node", done); err != nil {
				t.Fatal(err)
			}
		}
		ls[2].unlock(f, k)
	})
	t.Run("deadlock", func(t *testing.T) {
		deadlocked(t, c.nodes, []object.InodeID{f, g, newFile(t, c.nodes[0], x, "h", "x").ID}, ls)
	})

	// The leader of f goes while two wait; those at the other nodes get their turns.
	gone := leaderOf(t, c.nodes, f.Partition())
	left := slices.DeleteFunc(slices.Clone(c.nodes), func(n *Node) bool { return n == gone })
	holder, w1, w2 := newLocker(t, left[0]), newLocker(t, left[0]), newLocker(t, left[1])
	lost := newLocker(t, left[1])
	lost.lock(g, k)
	holder.lock(f, k)
	one, two := w1.waits(f, k), w2.waits(f, k)
	queued(t, c.nodes, f, 2)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	leaderOf(t, left, f.Partition())
	undecided(t, one)
	undecided(t, two)
	holder.unlock(f, k)
	select { // either is first: the new leader's queue is in the order in which they asked anew
	case err := <-one:
		if err != nil {
			t.Fatal(err)
		}
		undecided(t, two)
		w1.unlock(f, k)
		if err := decided(t, "the other's turn", two); err != nil {
			t.Fatal(err)
		}
		w2.unlock(f, k)
	case err := <-two:
		if err != nil {
			t.Fatal(err)
		}
		undecided(t, one)
		w2.unlock(f, k)
		if err := decided(t, "the other's turn", one); err != nil {
			t.Fatal(err)
		}
		w1.unlock(f, k)
	case <-time.After(2 * time.Minute):
		t.Fatal("nobody got the lock after its leader went")
	}

	// Renewals go to whoever leads now; who is silent is ended.
	for _, l := range []*locker{holder, w1, w2, lost} {
		if _, err := l.n.RenewLease(t.Context(), l.session); err != nil {
			t.Fatal(err)
		}
	}
	waits := w1.waits(g, k)
	queued(t, left, g, 1)
	undecided(t, waits)
	silent(t, left, lost.session)
	if err := decided(t, "the lock of who was lost", waits); err != nil {
		t.Fatal(err)
	}
	if count, _ := fenced(t, left[0], lost.session); count != len(left[0].parts) {
		t.Fatalf("a lock was given on while %d of %d partitions refused its owner", count, len(left[0].parts))
	}
	leaseGone(t, left[0], lost.session)
	ended(t, lost, g, x, y)
	if _, err := w1.n.RenewLease(t.Context(), w1.session); err != nil {
		t.Fatal(err)
	}
}
