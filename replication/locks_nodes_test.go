package replication

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/replication/transport"
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

// exclusion has clients at all nodes take turns at one lock, some of them reading, while
// the leadership of its partition is moved about: never are two in who exclude each other,
// each gets its turn, and what is answered is so.
func exclusion(t *testing.T, nodes []*Node, ino object.InodeID, rounds int) {
	stop, moved := make(chan struct{}), make(chan int, 1)
	go func() {
		for moves := 0; ; {
			select {
			case <-stop:
				moved <- moves
				return
			default:
			}
			to := nodes[moves%len(nodes)].cfg.NodeID
			if _, err := nodes[0].TransferLeadership(t.Context(), ino.Partition(), to, time.Minute); err == nil {
				moves++
			}
		}
	}()
	var writers, readers atomic.Int32
	var g errgroup.Group
	for i := range 6 {
		l := newLocker(t, nodes[i%len(nodes)])
		g.Go(func() error {
			for round := range rounds {
				k := object.Lock{Class: object.LockPOSIX, Owner: 1, Exclusive: (i+round)%3 != 0, First: 100, Last: 200}
				if i == 5 {
					k.Exclusive = round%2 == 0
				}
				if err := l.wait(l.next(), l.n, ino, k); err != nil {
					return err
				}
				if k.Exclusive {
					if w, r := writers.Add(1), readers.Load(); w != 1 || r != 0 {
						return fmt.Errorf("%d write and %d read at once", w, r)
					}
				} else {
					readers.Add(1)
					if w := writers.Load(); w != 0 {
						return fmt.Errorf("one reads while %d write", w)
					}
				}
				runtime.Gosched()
				if k.Exclusive {
					writers.Add(-1)
				} else {
					readers.Add(-1)
				}
				for ctx := l.next(); ; {
					err := l.n.Unlock(ctx, ino, k)
					if err == nil {
						break
					}
					if !passing(err) {
						return err
					}
				}
			}
			return nil
		})
	}
	err := g.Wait()
	close(stop)
	t.Logf("the leadership was moved %d times", <-moved)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := nodes[0].TestLock(t.Context(), ino, object.Lock{Class: object.LockPOSIX, Exclusive: true, Last: object.LastByte}); err != nil || c != nil {
		t.Fatalf("a lock is left: %+v, %v", c, err)
	}
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

	t.Run("exclusion", func(t *testing.T) { exclusion(t, c.nodes, f, need.Size(4, 100)) })

	// A leader that stops while it tries a lock answers that this was canceled. That is no
	// CancelLock of the client's, who goes on; and one that is, is told.
	t.Run("canceled by the leader", func(t *testing.T) {
		leader := leaderOf(t, c.nodes, f.Partition())
		others := slices.DeleteFunc(slices.Clone(c.nodes), func(n *Node) bool { return n == leader })
		holder, w := newLocker(t, others[0]), newLocker(t, others[1])
		holder.lock(f, k)
		var stops atomic.Int32
		leader.net.HandleCall(methodLockWait, func(ctx context.Context, p transport.Peer, ask []byte) ([]byte, error) {
			if stops.Add(1) == 1 {
				return nil, &object.Error{Kind: object.KindCanceled, Err: context.Canceled}
			}
			return leader.serveLockWait(ctx, p, ask)
		})
		defer leader.net.HandleCall(methodLockWait, leader.serveLockWait)
		done := w.waits(f, k)
		queued(t, c.nodes, f, 1)
		undecided(t, done)
		quit := WithToken(t.Context(), Token{Session: w.session, Seq: w.seq})
		if granted, err := others[0].CancelLock(quit, f); err != nil || granted {
			t.Fatal(granted, err)
		}
		holder.unlock(f, k) // the queue is looked at
		wantKind(t, decided(t, "a wait that its client canceled", done), object.KindCanceled)
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
