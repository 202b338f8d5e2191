package access

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestReadsSeeWrites proposes through each node and reads through each, at once.
func TestReadsSeeWrites(t *testing.T) {
	t.Parallel()
	c := start(t)
	id := c.file("f")
	v := uint64(0)
	for range 3 {
		for _, w := range c.all {
			v++
			c.must(w.do(within(t, 10*time.Second), write(id, v)))
			for _, r := range c.all {
				if got, err := r.read(within(t, 10*time.Second), id); err != nil || got != v {
					t.Fatalf("written %d at %s, read %d at %s: %v", v, w.id, got, r.id, err)
				}
			}
		}
	}
	if n := c.all[3]; n.Epoch() != 1 {
		t.Errorf("epoch %d", n.Epoch())
	}
}

// TestLarge sends entries that need several calls, and results that are large.
func TestLarge(t *testing.T) {
	t.Parallel()
	c := start(t)
	for _, n := range []*node{c.all[0], c.all[3]} {
		big := &namespace.Command{Put: &namespace.Put{Dir: object.RootInode, Name: "big", Node: object.Inode{Type: object.TypeRegular,
			Meta: map[string]string{"k": string(bytes.Repeat([]byte{'x'}, 500<<10))}}}}
		r := c.must(n.again(within(t, time.Minute), big))
		if len(r.Inode.Meta["k"]) != 500<<10 {
			t.Errorf("%s: a result of %d bytes", n.id, len(r.Inode.Meta["k"]))
		}
		// Too large for the store: it comes to a refusal by the machine.
		big.Put.Node.Meta["k"] = string(bytes.Repeat([]byte{'x'}, 2*pieceBytes+1000))
		r, err := n.again(within(t, time.Minute), big)
		must(t, err)
		wantKind(t, "what does not fit the store", r.Err(), object.KindTooLarge)
		_, err = n.Propose(t.Context(), part, make([]byte, group.MaxEntry+1))
		wantKind(t, "what does not fit the log", err, object.KindTooLarge)
	}
}

// TestCheck: the leader judges, wherever the entry comes from, and nobody else.
func TestCheck(t *testing.T) {
	t.Parallel()
	c := start(t)
	id := c.file("f")
	full := func([]byte) error { return object.Errorf(object.KindNoSpace, "full") }
	a, b := c.all[0], c.all[1]
	for _, n := range c.all {
		b.check.Store(&full)
		c.whileLeading(a, func() error { _, err := n.do(within(t, 10*time.Second), write(id, 1)); return err })
		a.check.Store(&full)
		b.check.Store(nil)
		c.whileLeading(a, func() error {
			if _, err := n.do(within(t, 10*time.Second), write(id, 2)); !object.IsKind(err, object.KindNoSpace) {
				return fmt.Errorf("growth on a full disk, from %s: %w", n.id, err)
			}
			return nil
		})
		a.check.Store(nil)
	}
	a.check.Store(&full)
	c.whileLeading(b, func() error { _, err := c.all[3].do(within(t, 10*time.Second), write(id, 3)); return err })
}

// whileLeading does something while n leads. On a starved machine leaders change by
// themselves: then it is done again.
func (c *cluster) whileLeading(n *node, do func() error) {
	c.t.Helper()
	for range 5 {
		c.lead(n)
		term := n.group.Stats().ReadyTerm
		err := do()
		if err == nil {
			return
		}
		if s := n.group.Stats(); n.group.IsLeader() && s.ReadyTerm == term {
			c.t.Fatal(err)
		}
	}
	c.t.Fatal("no leader stays")
}

// wantNotNow is for a proposal whose time ends while nobody can take it; within a
// call it is unknown.
func wantNotNow(t *testing.T, what string, err error) {
	t.Helper()
	if !object.IsKind(err, object.KindUnavailable) && !object.IsKind(err, object.KindTimeout) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestMap(t *testing.T) {
	t.Parallel()
	c := start(t)
	d := c.all[3]
	_, err := d.View(t.Context(), 9)
	wantKind(t, "a partition that is not on the map", err, object.KindStale)
	if d.Update(0, nil) || !d.Update(7, map[object.PartitionID][]Place{9: c.places}) || d.Epoch() != 7 {
		t.Error("epochs are not kept in order")
	}
	_, err = d.Propose(t.Context(), part, nil)
	wantKind(t, "a partition that left the map", err, object.KindStale)
	_, err = d.Propose(within(t, 100*time.Millisecond), 9, []byte{1})
	wantNotNow(t, "a partition nobody has", err)
	_, err = d.Snapshot(t.Context(), 9)
	must(t, err) // it looks when it is read
	d.Update(8, map[object.PartitionID][]Place{part: c.places, 9: nil})
	_, err = d.View(t.Context(), 9)
	wantKind(t, "a partition whose replicas are all lost", err, object.KindUnavailable)
	_, err = d.View(t.Context(), 10)
	wantKind(t, "a partition that is not on the map", err, object.KindStale)
	seeded := &Partitions{parts: map[object.PartitionID]*partition{}}
	seeded.Update(0, map[object.PartitionID][]Place{object.Control: c.places})
	_, err = seeded.partition(9)
	wantKind(t, "a partition before there is a map", err, object.KindUnavailable)
	id := c.file("f")

	a := c.all[0]
	if err := a.Attach(part, Replica{ID: "a", Group: a.group, Machine: a.machine.Machine}); !object.IsKind(err, object.KindExists) {
		t.Error(err)
	}
	if err := a.Attach(part, Replica{}); !object.IsKind(err, object.KindInvalid) {
		t.Error(err)
	}
	// The leader's node does not use its replica any more; then it does again.
	a.Detach(part)
	ctx := within(t, 50*time.Millisecond)
	_, err = c.all[1].do(ctx, write(id, 1))
	wantNotNow(t, "a leader that nobody may use", err)
	must(t, a.Attach(part, Replica{ID: "a", Group: a.group, Machine: a.machine.Machine}))
	c.must(c.all[1].do(within(t, 10*time.Second), write(id, 2)))

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, n := range c.all {
		_, err := n.do(canceled, write(id, 3))
		wantKind(t, "a canceled proposal at "+n.id, err, object.KindCanceled)
		_, err = n.read(canceled, id)
		wantKind(t, "a canceled read at "+n.id, err, object.KindCanceled)
	}
	d.Close()
	_, err = d.View(t.Context(), part)
	wantKind(t, "a closed node", err, object.KindUnavailable)
	if _, err := New(Config{}); !object.IsKind(err, object.KindInvalid) {
		t.Error(err)
	}
}

// TestHalfState: while a replica takes over a state, its node reads elsewhere.
func TestHalfState(t *testing.T) {
	t.Parallel()
	c := start(t)
	b := c.all[1]
	id := c.file("f")
	c.must(b.do(within(t, 10*time.Second), write(id, 5)))
	m := b.machine.Machine
	m.swaps.Add(1)
	began := time.Now()
	if got, err := b.read(within(t, 10*time.Second), id); got != 5 || err != nil || time.Since(began) < c.step {
		t.Errorf("read %d: %v, after %v", got, err, time.Since(began))
	}
	m.swaps.Add(1)
	l := b.parts[part].use()
	defer l.uses.Done()
	closed := false
	err := b.openHere(t.Context(), b.parts[part], l, 0, func() func() {
		m.swaps.Add(2) // all of it while the view was being opened
		return func() { closed = true }
	})
	if !object.IsKind(err, object.KindUnavailable) || !closed {
		t.Errorf("a view of half a state: %v, closed %v", err, closed)
	}

	// A real one, that fails in its middle and is made good.
	img, err := c.all[0].machine.Image()
	must(t, err)
	defer img.Data.Close()
	empty, err := meta.Open(meta.Options{InMemory: true})
	must(t, err)
	defer func() { must(t, empty.Close()) }()
	fresh := NewMachine(namespace.Options{Partition: part, Store: empty.Partition(part), MaxKeys: 1000, MaxBytes: 1 << 20})
	if err := fresh.Restore(t.Context(), bytes.NewReader([]byte{1, 2})); err == nil {
		t.Error("half an image was restored")
	}
	if _, ok := fresh.whole(); ok {
		t.Error("a state that is not there is said to be whole")
	}
	must(t, fresh.Restore(t.Context(), img.Data))
	if _, ok := fresh.whole(); !ok {
		t.Error("a restored state is said to be half")
	}
}

// TestViewsElsewhereEnd: a view at another node ends with it, and a new one is
// opened at the next.
func TestViewsElsewhereEnd(t *testing.T) {
	t.Parallel()
	c := start(t)
	d := c.all[3]
	id := c.file("f")
	c.must(d.do(within(t, 10*time.Second), write(id, 1)))
	s, err := d.Snapshot(t.Context(), part)
	must(t, err)
	count := func() (n int, err error) {
		return n, s.Ascend(nil, nil, func(_, _ []byte) (bool, error) { n++; return true, nil })
	}
	before, err := count()
	if err != nil || before == 0 {
		t.Fatal(before, err)
	}
	c.file("g")
	if n, err := count(); n != before || err != nil {
		t.Errorf("a view changed: %d records, then %d: %v", before, n, err)
	}
	at := s.(*away).node
	i := bytes.IndexByte([]byte("abc"), at[0])
	c.all[i].stop()
	_, err = count()
	wantKind(t, "a view at a node that is gone", err, object.KindUnavailable)
	c.all[i].open()
	other := c.all[3].away(t.Context(), c.all[3].parts[part], false)
	eventually(t, "a view of another at the node, which is back", func() bool {
		_, _, err := other.Get([]byte("k"))
		return err == nil
	})
	_, err = count()
	wantKind(t, "a view of before at a node that is back", err, object.KindUnavailable)
	must(t, other.Close())
	must(t, s.Close())
	c.all[i].stop()
	if got, err := d.read(within(t, 20*time.Second), id); got != 1 || err != nil {
		t.Errorf("read %d: %v", got, err)
	}
	must(t, s.Close())
}

// TestBatches: an index is always one that was asked for after its reader came,
// and readers that come together share one.
func TestBatches(t *testing.T) {
	t.Parallel()
	var b batcher
	var begun atomic.Uint64
	fetch := func() (uint64, error) {
		n := begun.Add(1)
		time.Sleep(time.Millisecond) // a round trip
		return n, nil
	}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 50 {
				before := begun.Load()
				if i, err := b.get(t.Context(), fetch); err != nil || i <= before {
					t.Errorf("after %d questions were asked, one of them was answered: %d, %v", before, i, err)
				}
			}
		})
	}
	wg.Wait()
	if n := begun.Load(); n > 32*50/4 {
		t.Errorf("%d questions for 1600 readers", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := make(chan struct{})
	defer close(never)
	_, err := b.get(ctx, func() (uint64, error) { <-never; return 0, nil })
	wantKind(t, "a reader who has gone", err, object.KindCanceled)
}

// TestFindLeader: a node without a replica notices that the leadership moved.
func TestFindLeader(t *testing.T) {
	c := start(t)
	away := c.all[len(c.all)-1]
	for _, n := range c.all[:3] {
		c.lead(n)
		eventually(t, "the leader to be found", func() bool {
			if away.FindLeader(within(t, 10*time.Second), part) != nil {
				return false
			}
			found, ok := away.Leader(part)
			return ok && found == n.id
		})
	}
}
