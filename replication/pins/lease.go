package pins

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// acquireWait bounds how long a pin waits for a lease.
const acquireWait = 5 * time.Second

// lease is this node's of one partition.
type lease struct {
	until time.Duration
	// gen counts the leases that did not begin before the last had run out: what
	// was pinned under another one is lost.
	gen uint64
}

// valid reports whether there is a lease now. The caller holds mu.
func (p *Partition) valid() bool {
	return p.t.alone() || p.t.o.Clock() < p.lease.until
}

// Renewed notes that this partition's leader has answered a message that this
// node sent when its clock showed sent; the leader called Heard and then confirmed
// that it leads, before it answered.
func (p *Partition) Renewed(sent time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, until := p.t.o.Clock(), sent+p.t.o.Period
	if until <= now || until <= p.lease.until {
		return
	}
	if p.lease.until <= now {
		p.lease.gen++
	}
	p.lease.until = until
}

func (p *Partition) leased() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.valid()
}

// acquire gets a lease. One asks, the others wait for what comes of it.
func (p *Partition) acquire(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, min(acquireWait, p.t.o.Period))
	defer cancel()
	err := error(object.Errorf(object.KindUnavailable, "no leader that is known has answered"))
	for attempt := 0; ; attempt++ {
		if p.t.o.serial && len(p.turn) > 0 {
			return err // who has the turn goes on after us
		}
		select {
		case p.turn <- struct{}{}:
			if p.leased() {
				<-p.turn
				return nil
			}
			if node, ok := p.t.o.Leader(p.id); ok {
				err = p.t.ask(wait, node, []*Partition{p})
			}
			<-p.turn
			if err == nil && p.leased() {
				return nil
			}
			if !p.t.o.serial {
				pause(wait, attempt)
			}
		case <-wait.Done():
		}
		if wait.Err() != nil || p.t.o.serial {
			if ctx.Err() != nil {
				return &object.Error{Kind: object.KindOf(ctx.Err()), Err: context.Cause(ctx)}
			}
			return object.Errorf(object.KindUnavailable, "partition %d gives this node no lease; try again, or ask another node: %w", p.id, err)
		}
	}
}

// pause waits a moment that grows with the attempts.
func pause(ctx context.Context, attempt int) {
	t := time.NewTimer(5 * time.Millisecond << min(attempt, 5))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// ask asks one node for leases of partitions, and takes those that it gives.
// nil: it gave at least one.
func (t *Table) ask(ctx context.Context, node string, parts []*Partition) error {
	q := leaseRequest{}
	for _, p := range parts {
		q.Partitions = append(q.Partitions, uint16(p.id))
	}
	data, err := encode(q)
	if err != nil {
		return err
	}
	sent := t.o.Clock()
	if data, err = t.o.Call(ctx, node, MethodLease, data); err != nil {
		return err
	}
	var a leaseAnswer
	if err := decode(data, &a); err != nil {
		return err
	}
	if len(a.Given) != len(parts) {
		return object.Errorf(object.KindInternal, "node %s answered for %d partitions, not %d", node, len(a.Given), len(parts))
	}
	err = object.Errorf(object.KindUnavailable, "node %s does not lead it", node)
	for i, p := range parts {
		if a.Given[i] {
			p.Renewed(sent)
			err = nil
		}
	}
	return err
}

// Run keeps the leases of what is in use until ctx ends.
func (t *Table) Run(ctx context.Context) {
	if t.alone() {
		return
	}
	tick := time.NewTicker(max(t.o.Period/12, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.Renew(ctx)
		}
	}
}

// Renew renews the leases that need it: of what is pinned, held or was in use,
// when a third of the period is over. A leader that does not answer within a
// third of the period is left until the next time.
func (t *Table) Renew(ctx context.Context) {
	by := map[string][]*Partition{}
	for _, p := range t.parts {
		if !p.due() {
			continue
		}
		if node, ok := t.o.Leader(p.id); ok {
			by[node] = append(by[node], p)
		}
	}
	nodes := slices.Sorted(maps.Keys(by))
	ctx, cancel := context.WithTimeout(ctx, t.o.Period/3)
	defer cancel()
	t.each(len(nodes), func(i int) {
		node := nodes[i]
		if err := t.ask(ctx, node, by[node]); err != nil && ctx.Err() == nil {
			t.o.Logger.Debug("leases were not renewed", "leader", node, "partitions", len(by[node]), "error", err)
		}
	})
}

func (p *Partition) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := p.used || len(p.pins) > 0 || len(p.holds) > 0
	if !wanted || p.lease.until-p.t.o.Clock() > p.t.o.Period*2/3 {
		return false
	}
	p.used = false
	return true
}
