package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// locker is a client with a session, at a node.
type locker struct {
	t       testing.TB
	n       *Node
	session object.UploadID
	seq     uint64
}

// newLocker is a client whose session has a lease.
func newLocker(t testing.TB, n *Node) *locker {
	t.Helper()
	l := &locker{t: t, n: n, session: newUploadID()}
	if lease, err := n.OpenLease(t.Context(), l.session); err != nil || lease != n.cfg.LeasePeriod {
		t.Fatal(lease, err)
	}
	return l
}

// next is the context of the client's next mutation.
func (l *locker) next() context.Context {
	l.seq++
	return WithToken(l.t.Context(), Token{Session: l.session, Seq: l.seq})
}

func exclusive(owner uint64, first, last int64) object.Lock {
	return object.Lock{Class: object.LockPOSIX, Owner: owner, Exclusive: true, First: first, Last: last}
}

func (l *locker) lock(ino object.InodeID, k object.Lock) {
	l.t.Helper()
	if a, err := l.n.Lock(l.next(), ino, k, 0); err != nil || !a.Granted {
		l.t.Fatalf("%+v is not granted: %+v, %v", k, a.Conflict, err)
	}
}

func (l *locker) unlock(ino object.InodeID, k object.Lock) {
	l.t.Helper()
	if err := l.n.Unlock(l.next(), ino, k); err != nil {
		l.t.Fatal(err)
	}
}

// wait waits for a lock under one token, as a mount does, until it is decided.
func (l *locker) wait(ctx context.Context, n *Node, ino object.InodeID, k object.Lock) error {
	for {
		a, err := n.Lock(ctx, ino, k, MaxLockWait)
		if err != nil && !passing(err) || a.Granted {
			return err
		}
	}
}

// waits begins to wait; the result comes through the channel.
func (l *locker) waits(ino object.InodeID, k object.Lock) <-chan error {
	done, ctx := make(chan error, 1), l.next()
	go func() { done <- l.wait(ctx, l.n, ino, k) }()
	return done
}

// queued waits until so many wait for locks on an inode at its leader.
func queued(t testing.TB, nodes []*Node, ino object.InodeID, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d who wait", want), func() error {
		got := 0
		for _, n := range nodes {
			n.waiters.mu.Lock()
			if q := n.waiters.at[ino]; q != nil && !n.closing.Load() {
				for _, p := range q.places {
					if p.polls > 0 && !p.decided {
						got++
					}
				}
			}
			n.waiters.mu.Unlock()
		}
		if got != want {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

func decided(t testing.TB, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(2 * time.Minute):
		t.Fatalf("gave up waiting for %s", what)
		return nil
	}
}

func undecided(t testing.TB, c <-chan error) {
	t.Helper()
	select {
	case err := <-c:
		t.Fatalf("it is decided: %v", err)
	default:
	}
}

// lockNode is a node whose leases end only where a test says so.
func lockNode(t testing.TB) *Node {
	t.Helper()
	cfg := testConfig(t)
	cfg.LeasePeriod = time.Hour
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLocks: who has a lock keeps others out until it is given up; a repeated request
// says what the first did; who is not registered locks nothing.
func TestLocks(t *testing.T) {
	n := lockNode(t)
	ino := newFile(t, n, mkdirs(t, n), "f", "x").ID
	a, b := newLocker(t, n), newLocker(t, n)
	mine, theirs := exclusive(1, 0, 9), exclusive(1, 5, object.LastByte)
	first := a.next()
	for range 2 { // the second is a retry
		if got, err := n.Lock(first, ino, mine, 0); err != nil || !got.Granted {
			t.Fatal(got, err)
		}
	}
	late := b.next()
	got, err := n.Lock(late, ino, theirs, 0)
	if err != nil || got.Granted || got.Conflict == nil || got.Conflict.Session != a.session {
		t.Fatalf("%+v, %v", got, err)
	}
	if c, err := n.TestLock(t.Context(), ino, theirs); err != nil || c == nil || c.Session != a.session || c.Last != 9 {
		t.Fatal(c, err)
	}
	a.unlock(ino, mine)
	if c, err := n.TestLock(t.Context(), ino, theirs); err != nil || c != nil {
		t.Fatal(c, err)
	}
	if got, err := n.Lock(late, ino, theirs, 0); err != nil || got.Granted {
		t.Fatalf("what was refused is granted to a late attempt: %+v, %v", got, err)
	}
	if got, err := n.Lock(first, ino, mine, 0); err != nil || !got.Granted {
		t.Fatal(got, err)
	}
	b.lock(ino, theirs) // so the late attempt of a took nothing

	stranger := &locker{t: t, n: n, session: newUploadID()}
	_, err = n.Lock(stranger.next(), ino, mine, 0)
	wantKind(t, err, object.KindPrecondition)
	_, err = n.RenewLease(t.Context(), stranger.session)
	wantKind(t, err, object.KindPrecondition)
	_, err = n.Lock(t.Context(), ino, mine, 0)
	wantKind(t, err, object.KindInvalid)
	_, err = n.Lock(a.next(), ino, exclusive(1, 5, 4), 0)
	wantKind(t, err, object.KindInvalid)
	_, err = n.Lock(a.next(), object.NewInodeID(ino.Partition(), 1<<30, 0), mine, time.Second)
	wantKind(t, err, object.KindStale)
}

// TestLockWaits: those who wait get it in the order in which they came, as soon as it is
// given up; who waits no longer gets nothing.
func TestLockWaits(t *testing.T) {
	n := lockNode(t)
	ino := newFile(t, n, mkdirs(t, n), "f", "x").ID
	k := exclusive(1, 0, 9)
	holder := newLocker(t, n)
	holder.lock(ino, k)
	var all []*locker
	var done []<-chan error
	for i := range 3 {
		l := newLocker(t, n)
		all, done = append(all, l), append(done, l.waits(ino, k))
		queued(t, []*Node{n}, ino, i+1)
	}
	// One whose poll ends before it is its turn asks again, and keeps its place.
	short := newLocker(t, n)
	ctx := short.next()
	if a, err := n.Lock(ctx, ino, k, time.Millisecond); err != nil || a.Granted || a.Conflict == nil {
		t.Fatal(a, err)
	}
	// One that is canceled, while it waits and afterwards, is never granted.
	gone := newLocker(t, n)
	quit := gone.next()
	if a, err := n.Lock(quit, ino, k, time.Millisecond); err != nil || a.Granted {
		t.Fatal(a, err)
	}
	for range 2 {
		if granted, err := n.CancelLock(quit, ino); err != nil || granted {
			t.Fatal(granted, err)
		}
	}
	_, err := n.Lock(quit, ino, k, time.Minute)
	wantKind(t, err, object.KindCanceled)
	for i, l := range append([]*locker{holder}, all...) {
		for _, c := range done[i:] {
			undecided(t, c)
		}
		l.unlock(ino, k)
		if i < len(done) {
			if err := decided(t, "a lock that was given up", done[i]); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	if err := short.wait(ctx, n, ino, k); err != nil {
		t.Fatal(err)
	}
	if granted, err := n.CancelLock(ctx, ino); err != nil || !granted {
		t.Fatalf("it was granted before it was canceled: %v, %v", granted, err)
	}
	// Who may read together is let in together.
	reads := object.Lock{Class: object.LockPOSIX, Owner: 7, First: 3, Last: 3}
	x, y := all[0].waits(ino, reads), all[1].waits(ino, reads)
	queued(t, []*Node{n}, ino, 2)
	short.unlock(ino, k)
	for _, c := range []<-chan error{x, y} {
		if err := decided(t, "read locks", c); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the queue to be forgotten", func() bool {
		n.waiters.mu.Lock()
		defer n.waiters.mu.Unlock()
		return len(n.waiters.at) == 0
	})
}

// TestLockWaitNamesWhatIsInTheWay: also where the wait was over before its place was looked at.
func TestLockWaitNamesWhatIsInTheWay(t *testing.T) {
	n := lockNode(t)
	ino := newFile(t, n, mkdirs(t, n), "f", "x").ID
	k := exclusive(1, 0, 9)
	holder, l := newLocker(t, n), newLocker(t, n)
	holder.lock(ino, k)
	n.waiters.mu.Lock()
	n.waiters.at[ino] = &lockQueue{running: true} // a pass that never comes to an end
	n.waiters.mu.Unlock()
	a, err := n.Lock(l.next(), ino, k, 100*time.Millisecond)
	if err != nil || a.Granted || a.Conflict == nil || a.Conflict.Session != holder.session {
		t.Fatalf("%+v, %v", a, err)
	}
}

// deadlocked has three clients wait in a circle, the last one begun closing it, and wants
// that one to be refused and the others to get what they wait for.
func deadlocked(t *testing.T, nodes []*Node, inos []object.InodeID, ls []*locker) {
	t.Helper()
	k := exclusive(1, 0, 9)
	for i, l := range ls {
		l.lock(inos[i], k)
	}
	var done []<-chan error
	for i, l := range ls {
		done = append(done, l.waits(inos[(i+1)%len(inos)], k))
		if i < len(ls)-1 {
			queued(t, nodes, inos[(i+1)%len(inos)], 1)
		}
	}
	last := len(ls) - 1
	wantKind(t, decided(t, "who closed the circle", done[last]), object.KindDeadlock)
	for i := last - 1; i >= 0; i-- { // each waits for the one behind it
		undecided(t, done[i])
		ls[i+1].unlock(inos[i+1], k)
		if err := decided(t, "a lock that was in the circle", done[i]); err != nil {
			t.Fatal(i, err)
		}
	}
	for i, l := range ls {
		l.unlock(inos[i], k)
		l.unlock(inos[(i+1)%len(inos)], k)
	}
}

func TestDeadlockIsBroken(t *testing.T) {
	n := lockNode(t)
	x, y := apart(t, n)
	inos := []object.InodeID{newFile(t, n, x, "f", "x").ID, newFile(t, n, y, "f", "x").ID, newFile(t, n, y, "g", "x").ID}
	var ls []*locker
	for range inos {
		ls = append(ls, newLocker(t, n))
	}
	deadlocked(t, []*Node{n}, inos, ls)

	// Two who read and both want to write; and a third who waits for them is none of it.
	read := object.Lock{Class: object.LockPOSIX, Owner: 1, First: 0, Last: 9}
	ls[0].lock(inos[0], read)
	ls[1].lock(inos[0], read)
	outside := ls[2].waits(inos[0], exclusive(1, 3, 3))
	queued(t, []*Node{n}, inos[0], 1)
	first := ls[0].waits(inos[0], exclusive(1, 0, 9))
	queued(t, []*Node{n}, inos[0], 2)
	second := ls[1].waits(inos[0], exclusive(1, 0, 9))
	wantKind(t, decided(t, "the second who wants to write", second), object.KindDeadlock)
	undecided(t, first)
	ls[1].unlock(inos[0], read)
	if err := decided(t, "the first who wants to write", first); err != nil {
		t.Fatal(err)
	}
	undecided(t, outside)
	ls[0].unlock(inos[0], read)
	if err := decided(t, "who waited for both", outside); err != nil {
		t.Fatal(err)
	}
}

// TestCycles: a way back is found where there is one, and only there; of a cycle that is
// seen twice only what stood in both looks counts.
func TestCycles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const owners = 6
		var edges []lockEdge
		reach := [owners][owners]bool{}
		for i := range rapid.IntRange(1, 8).Draw(t, "edges") {
			e := lockEdge{Seq: uint64(i), Since: rapid.Int64Range(0, 3).Draw(t, "since"), Who: lockOwner{Owner: rapid.Uint64Range(0, owners-1).Draw(t, "who")}}
			for _, to := range rapid.SliceOfNDistinct(rapid.Uint64Range(0, owners-1), 0, 3, rapid.ID[uint64]).Draw(t, "for") {
				if to != e.Who.Owner {
					e.For = append(e.For, lockOwner{Owner: to})
					reach[e.Who.Owner][to] = true
				}
			}
			edges = append(edges, e)
		}
		for k := range owners {
			for i := range owners {
				for j := range owners {
					reach[i][j] = reach[i][j] || reach[i][k] && reach[k][j]
				}
			}
		}
		victims, some := 0, false
		for i := range edges {
			from := &edges[i]
			want := slices.ContainsFunc(from.For, func(w lockOwner) bool { return reach[w.Owner][from.Who.Owner] })
			way := cycle(edges, from)
			if (way != nil) != want {
				t.Fatalf("from %+v: way %v, want one: %v, in %+v", from, way, want, edges)
			}
			some = some || want
			for j, e := range way { // from the end to the beginning
				next := from.Who
				if j > 0 {
					next = way[j-1].Who
				}
				if !slices.Contains(e.For, next) {
					t.Fatalf("%+v does not wait for %+v", e, next)
				}
			}
			if way != nil && way[len(way)-1] != from {
				t.Fatalf("the way begins with %+v", way[len(way)-1])
			}
			if way != nil && slices.MaxFunc(way, younger) == from {
				victims++
			}
		}
		if some && victims == 0 {
			t.Fatalf("nobody gives way in %+v", edges)
		}
		if got := standing(edges, edges); len(got) != len(edges) {
			t.Fatal("what is the same in both looks stood")
		}
		moved := slices.Clone(edges)
		for i := range moved {
			moved[i].Since++
		}
		if got := standing(edges, moved); len(got) != 0 {
			t.Fatal("who began to wait anew did not wait all the time")
		}
	})
}

// silent makes the leader believe that it has not heard of a session for long.
func silent(t testing.TB, nodes []*Node, s object.UploadID) {
	t.Helper()
	eventually(t, "a leader that knows the session", func() error {
		for _, n := range nodes {
			n.leases.mu.Lock()
			_, knows := n.leases.heard[s]
			if knows && !n.closing.Load() {
				n.leases.heard[s] = time.Now().Add(-2 * n.cfg.LeasePeriod)
			}
			n.leases.mu.Unlock()
			if knows && !n.closing.Load() && n.parts[object.Control].led() != nil {
				return nil
			}
		}
		return errors.New("none")
	})
}

// fenced are the partitions that refuse a session, and whether its locks on some inodes are gone.
func fenced(t testing.TB, n *Node, s object.UploadID, inos ...object.InodeID) (count, dropped int) {
	t.Helper()
	for id := range n.ids(object.Control) {
		if err := n.inView(t.Context(), id, func(v *namespace.View) error {
			ended, err := v.SessionEnded(s)
			if ended {
				count++
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, ino := range inos {
		if err := n.inView(t.Context(), ino.Partition(), func(v *namespace.View) error {
			list, err := v.Locks(ino)
			if !slices.ContainsFunc(list, func(l object.Lock) bool { return l.Session == s }) {
				dropped++
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return count, dropped
}

func leaseGone(t testing.TB, n *Node, s object.UploadID) {
	t.Helper()
	eventually(t, "the session to be over", func() error {
		return n.inView(t.Context(), object.Control, func(v *namespace.View) error {
			if state, err := v.Lease(s); err != nil || state != 0 {
				return fmt.Errorf("it is in state %d: %w", state, err)
			}
			return nil
		})
	})
}

// ended wants a session to do nothing any more, in any partition.
func ended(t testing.TB, l *locker, ino object.InodeID, dirs ...object.InodeID) {
	t.Helper()
	_, err := l.n.RenewLease(t.Context(), l.session)
	wantKind(t, err, object.KindSessionEnded)
	_, err = l.n.OpenLease(t.Context(), l.session)
	wantKind(t, err, object.KindSessionEnded)
	_, err = l.n.Lock(l.next(), ino, exclusive(8, 50, 60), 0)
	wantKind(t, err, object.KindSessionEnded)
	_, _, err = l.n.Write(l.next(), ino, 0, strings.NewReader("late"), WriteOptions{Size: 4})
	wantKind(t, err, object.KindSessionEnded)
	for _, dir := range dirs {
		_, _, err = l.n.Create(l.next(), dir, "late", NewNode{Type: object.TypeDirectory}, true)
		wantKind(t, err, object.KindSessionEnded)
		_, err := l.n.CreateWith(l.next(), dir, "late", NewNode{}, strings.NewReader("late"), WriteOptions{Size: 4})
		wantKind(t, err, object.KindSessionEnded)
	}
}

// TestLostSession: one who is not heard of for a lease loses its locks, and nobody has them
// before all partitions refuse it; others are not touched.
func TestLostSession(t *testing.T) {
	n := lockNode(t)
	x, y := apart(t, n)
	f, g := newFile(t, n, x, "f", "x").ID, newFile(t, n, y, "g", "x").ID
	lost, next := newLocker(t, n), newLocker(t, n)
	k := exclusive(1, 0, 9)
	lost.lock(f, k)
	lost.lock(g, k)
	next.lock(g, exclusive(1, 20, 29))
	waits := next.waits(f, k)
	queued(t, []*Node{n}, f, 1)
	undecided(t, waits)
	silent(t, []*Node{n}, lost.session)
	if err := decided(t, "the lock of who was lost", waits); err != nil {
		t.Fatal(err)
	}
	if count, _ := fenced(t, n, lost.session); count != len(n.parts) {
		t.Fatalf("a lock was given on while %d of %d partitions refused its owner", count, len(n.parts))
	}
	leaseGone(t, n, lost.session)
	ended(t, lost, f, x, y)
	if _, err := n.RenewLease(t.Context(), next.session); err != nil {
		t.Fatal(err)
	}
	if content(t, n, f) != "x" {
		t.Fatal("who was lost wrote")
	}
	next.unlock(f, k)
	if err := n.CloseLease(t.Context(), next.session); err != nil {
		t.Fatal(err)
	}
	leaseGone(t, n, next.session)
	if _, dropped := fenced(t, n, next.session, f, g); dropped != 2 {
		t.Fatal("a closed session has locks")
	}
	ended(t, next, f, x, y)
}

// TestCancelAfterTheEnd: who cancels a request that was granted, and whose session was
// ended since, is not told that it has the lock: another one does.
func TestCancelAfterTheEnd(t *testing.T) {
	n := lockNode(t)
	f := newFile(t, n, mkdirs(t, n), "f", "x").ID
	l, other := newLocker(t, n), newLocker(t, n)
	k, ctx := exclusive(1, 0, 9), l.next()
	if a, err := n.Lock(ctx, f, k, time.Second); err != nil || !a.Granted {
		t.Fatal(a, err)
	}
	if err := n.CloseLease(t.Context(), l.session); err != nil {
		t.Fatal(err)
	}
	leaseGone(t, n, l.session)
	other.lock(f, k)
	granted, err := n.CancelLock(ctx, f)
	if granted {
		t.Fatal("two own the lock")
	}
	wantKind(t, err, object.KindSessionEnded)
}

// TestKnownSessionsAge: a node that remembers a session asks again before the marks of its
// end are gone; a lock for it would be nobody's to end.
func TestKnownSessionsAge(t *testing.T) {
	n := lockNode(t)
	f := newFile(t, n, mkdirs(t, n), "f", "x").ID
	l, k := newLocker(t, n), exclusive(1, 0, 9)
	l.lock(f, k)
	if err := n.CloseLease(t.Context(), l.session); err != nil {
		t.Fatal(err)
	}
	leaseGone(t, n, l.session)
	_, err := n.Lock(l.next(), f, k, 0)
	wantKind(t, err, object.KindSessionEnded)
	if err := n.endIdleSessions(time.Now().Add(time.Hour)); err != nil { // a day later
		t.Fatal(err)
	}
	n.leases.mu.Lock()
	if at, ok := n.leases.known[l.session]; ok {
		n.leases.known[l.session] = at.Add(-sessionIdle)
	}
	n.leases.mu.Unlock()
	a, err := n.Lock(l.next(), f, k, 0)
	if a.Granted {
		t.Fatal("a session without a lease has a lock")
	}
	wantKind(t, err, object.KindPrecondition)
}

// TestCrashWhileASessionEnds: whoever ends a session vanishes after each of its entries in
// turn. Until all partitions refuse the session none of its locks is free; then somebody
// goes on.
func TestCrashWhileASessionEnds(t *testing.T) {
	n := lockNode(t)
	x, y := apart(t, n)
	f, g := newFile(t, n, x, "f", "x").ID, newFile(t, n, y, "g", "x").ID
	k := exclusive(1, 0, 9)
	errVanished := object.Errorf(object.KindUnavailable, "vanished")
	full := 0
	for crash, over := 1, false; !over; crash++ {
		l := newLocker(t, n)
		l.lock(f, k)
		l.lock(g, k)
		var mu sync.Mutex
		left, hit := crash, false
		step := func(object.PartitionID) error {
			mu.Lock()
			defer mu.Unlock()
			if left--; left < 0 {
				hit = true
				return errVanished
			}
			return nil
		}
		n.step.Store(&step)
		if err := n.CloseLease(t.Context(), l.session); err != nil {
			t.Fatal(err)
		}
		gone := func() (gone bool) {
			if err := n.inView(t.Context(), object.Control, func(v *namespace.View) error {
				state, err := v.Lease(l.session)
				gone = state == 0
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return gone
		}
		waitFor(t, "the crash", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return hit || left == 0
		})
		count, dropped := fenced(t, n, l.session, f, g)
		if dropped > 0 && count != len(n.parts) {
			t.Fatalf("crash %d: %d of 2 locks are free while %d of %d partitions refuse their owner", crash, dropped, count, len(n.parts))
		}
		if count == len(n.parts) {
			full++
		}
		over = gone()
		n.step.Store(nil)
		n.leases.succeeded() // the next round need not wait
		leaseGone(t, n, l.session)
		if count, dropped := fenced(t, n, l.session, f, g); count != len(n.parts) || dropped != 2 {
			t.Fatalf("crash %d: %d partitions refuse the session, %d of its locks are free", crash, count, dropped)
		}
		ended(t, l, f, x, y)
		if crash > 50 {
			t.Fatal("it never ends")
		}
	}
	if full < 3 {
		t.Fatalf("only %d crashes came after the fence", full)
	}
}

// TestLeaseTable: what was heard counts in the term in which it was heard; what is being
// ended is not heard any more.
func TestLeaseTable(t *testing.T) {
	var l leases
	a, b := object.UploadID{1}, object.UploadID{2}
	const lease = time.Hour
	old := func(s object.UploadID) { l.heard[s] = time.Now().Add(-2 * lease) }
	if err := l.hear(1, a); err != nil {
		t.Fatal(err)
	}
	old(a)
	if got := l.expire(1, []object.UploadID{a, b}, lease); !slices.Equal(got, []object.UploadID{a}) {
		t.Fatalf("ended: %v", got)
	}
	wantKind(t, l.hear(1, a), object.KindSessionEnded)
	if err := l.hear(1, b); err != nil {
		t.Fatal(err)
	}
	old(b)
	if got := l.expire(2, []object.UploadID{a, b}, lease); len(got) != 0 {
		t.Fatalf("a new leader, who has heard nothing yet, ends %v", got)
	}
	if err := l.hear(2, a); err != nil {
		t.Fatal("a new leader has decided nothing", err)
	}
	old(b)
	if got := l.expire(2, []object.UploadID{a, b}, lease); !slices.Equal(got, []object.UploadID{b}) {
		t.Fatalf("ended: %v", got)
	}
	// Who looked at the term before it became another one, or none, undoes nothing.
	for _, term := range []uint64{0, 1} {
		wantKind(t, l.hear(term, a), object.KindUnavailable)
		if got := l.expire(term, []object.UploadID{a, b}, lease); len(got) != 0 {
			t.Fatalf("ended in term %d: %v", term, got)
		}
	}
	wantKind(t, l.hear(2, b), object.KindSessionEnded)
	old(a)
	old(b)
	l.expire(2, nil, lease)
	if len(l.heard)+len(l.ended) != 0 {
		t.Fatalf("remembered for ever: %v, %v", l.heard, l.ended)
	}
}
