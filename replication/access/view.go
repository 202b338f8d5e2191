package access

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/remote"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// lagWait is how long a read waits, in its first round, for the replica at hand to
// apply what it must see. A follower that has the entry learns that it is committed
// with the next one, or after raft's CommitTimeout (0.5 s); who leads has it now.
const lagWait = 5 * time.Millisecond

// errLags is the cause of an error of a replica that was not up to date in time.
var errLags = errors.New("the replica lags")

// patience is lagWait in a later round.
func patience(round int) time.Duration { return lagWait << min(round, 8) }

// View opens a view of a partition in which everything is that was acknowledged
// anywhere before the call. At the leader and at followers it reads the state here;
// elsewhere it reads through another node, in bounded steps, until ctx ends: then
// its reads may fail, with KindUnavailable when the other node is lost (begin
// anew). Close it. Errors: KindUnavailable when ctx ended before a replica could
// answer, KindCanceled, KindStale (no such partition).
func (p *Partitions) View(ctx context.Context, id object.PartitionID) (*namespace.View, error) {
	pt, err := p.partition(id)
	if err != nil {
		return nil, err
	}
	var v *namespace.View
	s, err := p.open(ctx, pt, func(l *local) func() {
		v = l.Machine.View()
		return v.Close
	})
	if err != nil {
		return nil, err
	}
	if s == nil {
		return v, nil
	}
	return namespace.Over(id, s), nil
}

// Snapshot is View without what namespace makes of it: the records as they are
// stored.
func (p *Partitions) Snapshot(ctx context.Context, id object.PartitionID) (remote.Snapshot, error) {
	pt, err := p.partition(id)
	if err != nil {
		return nil, err
	}
	var here remote.Snapshot
	s, err := p.open(ctx, pt, func(l *local) func() {
		here = l.Machine.store.View()
		return func() { _ = here.Close() }
	})
	if err != nil {
		return nil, err
	}
	if s == nil {
		return here, nil
	}
	return s, nil
}

// open opens a view of the replica here with view, which returns how to close it;
// or it returns a snapshot elsewhere.
func (p *Partitions) open(ctx context.Context, pt *partition, view func(l *local) (end func())) (remote.Snapshot, error) {
	began := time.Now()
	for round := 0; ; round++ {
		l := pt.use()
		if l == nil {
			break
		}
		err := p.openHere(ctx, pt, l, round, func() func() { return view(l) })
		l.uses.Done()
		if err != nil {
			if broken := p.broken(pt); broken != nil {
				return nil, broken
			}
		}
		switch {
		case err == nil:
			return nil, nil
		case ctx.Err() != nil:
			return nil, gaveUp(pt, ctx.Err(), err)
		case errors.Is(err, errLags) && p.elsewhere(pt):
			return p.away(ctx, pt, true), nil
		case time.Since(began) >= p.cfg.ReadWait && p.elsewhere(pt):
			// This node may be cut off from who leads: others may not be.
			return p.away(ctx, pt, false), nil
		}
		if why := pause(ctx, p.ctx, round); why != nil {
			return nil, gaveUp(pt, why, err)
		}
	}
	return p.away(ctx, pt, false), nil
}

// Here is this node's machine of a partition, once it has everything that was
// acknowledged anywhere before the call, for what the machine remembers. It is nil,
// without an error, where that has to be looked for in a View.
func (p *Partitions) Here(ctx context.Context, id object.PartitionID) (*namespace.Machine, error) {
	pt, err := p.partition(id)
	if err != nil {
		return nil, err
	}
	l := pt.use()
	if l == nil {
		return nil, nil
	}
	defer l.uses.Done()
	if p.openHere(ctx, pt, l, 0, func() func() { return func() {} }) != nil {
		return nil, nil
	}
	return l.Machine.Machine, nil
}

// broken is why nothing will come of a partition any more: its replica here has
// stopped for good, and there is no other.
func (p *Partitions) broken(pt *partition) error {
	l := pt.use()
	if l == nil {
		return nil
	}
	defer l.uses.Done()
	if p.elsewhere(pt) {
		return nil
	}
	return l.Group.Failure()
}

// elsewhere reports whether the partition has replicas at other nodes.
func (p *Partitions) elsewhere(pt *partition) bool {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return slices.ContainsFunc(pt.places, func(at Place) bool { return at.Node != p.cfg.Self })
}

// openHere waits until the state here has everything that was acknowledged before
// the call, and opens a view of it. How long it may take grows with the rounds.
func (p *Partitions) openHere(ctx context.Context, pt *partition, l *local, round int, view func() (end func())) error {
	if !l.leads() || p.elsewhere(pt) {
		var cancel context.CancelFunc
		ctx, cancel = l.within(ctx, p.cfg.ReadWait<<min(round, 4))
		defer cancel()
	} // else there is nobody else to ask: ctx is the limit, and timers cost
	// In this order: what was whole before and is unchanged after was so between.
	swaps, ok := l.Machine.whole()
	if !ok {
		return errSwapped(pt)
	}
	if err := p.current(ctx, pt, l, patience(round)); err != nil {
		return err
	}
	end := view()
	if now := l.Machine.swaps.Load(); now != swaps {
		end()
		return errSwapped(pt)
	}
	return nil
}

func errSwapped(pt *partition) error {
	return object.Errorf(object.KindUnavailable, "the replica of partition %d here is taking over its leader's state: try again", pt.id)
}

// current returns once the replica here has everything that was acknowledged
// before the call. errLags: not within lag.
func (p *Partitions) current(ctx context.Context, pt *partition, l *local, lag time.Duration) error {
	if l.leads() {
		return l.Group.Read(ctx)
	}
	index, err := pt.index.get(ctx, func() (uint64, error) { return p.readIndex(pt) })
	if err != nil {
		return err
	}
	if applied := l.Machine.Applied(); applied < index && lag == lagWait && pt.lagged.Load() == applied+1 {
		return object.Errorf(object.KindUnavailable, "%w: it has applied %d, not yet %d", errLags, applied, index)
	}
	ctx, cancel := context.WithTimeout(ctx, lag)
	defer cancel()
	err = l.Group.WaitApplied(ctx, index)
	if ctx.Err() != nil && err != nil {
		pt.lagged.Store(l.Machine.Applied() + 1)
		return object.Errorf(object.KindUnavailable, "%w: %w", errLags, err)
	}
	return err
}
