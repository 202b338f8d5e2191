package pins

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// MaxItems bounds the items of one question.
	MaxItems = 1024
	// askWait bounds the wait for one node's answer.
	askWait = 5 * time.Second
	// atOnce bounds the messages, or confirmations, that one call has under way.
	atOnce = 64
)

// contacts is what a leader knows of the nodes that it may have given a lease.
type contacts struct {
	mu    sync.Mutex // guards what follows
	term  uint64     // the last that this node was seen leading in
	start time.Duration
	nodes map[string]time.Duration // when each last asked for a lease
}

// Heard notes that a node asked for a lease. To be called before the leader
// confirms that it leads, and before it answers; see Renewed.
func (p *Partition) Heard(node string) {
	c := &p.contacts
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[node] = p.t.o.Clock()
}

// Lead notes that this node leads in a term: it reclaims nothing for two periods
// from the first time that it is known to. Free calls it too.
func (p *Partition) Lead(term uint64) {
	c := &p.contacts
	c.mu.Lock()
	defer c.mu.Unlock()
	p.lead(term)
}

func (p *Partition) lead(term uint64) {
	if c := &p.contacts; c.term != term {
		c.term, c.start = term, p.t.o.Clock()
	}
}

// Wait is how long, from now, nothing may be reclaimed: this node has not led,
// or lived, for long enough.
func (p *Partition) Wait() time.Duration {
	c := &p.contacts
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.start+p.t.patience()-p.t.o.Clock(), 0)
}

// patience is how long a silent node is waited for. Alone there is only our own
// start, which sessions must have had a period to come back from.
func (t *Table) patience() time.Duration {
	if t.alone() {
		return t.o.Period
	}
	return 2 * t.o.Period
}

// Free reports for each piece of garbage whether nobody needs it any more, so that
// it may be reclaimed. The pieces, at most MaxItems, were found in a state of the
// partition that had been applied here before the call. KindUnavailable: it cannot
// be told now, as this node does not lead, has not for long enough, or a node does
// not answer that may have readers; try again later.
func (p *Partition) Free(ctx context.Context, items []Item) ([]bool, error) {
	if len(items) > MaxItems {
		return nil, object.Errorf(object.KindInvalid, "%d pieces of garbage in one question; at most %d", len(items), MaxItems)
	}
	began := p.t.o.Clock()
	free := p.needed(items)
	for i := range free {
		free[i] = !free[i]
	}
	if p.t.alone() {
		return free, p.tooEarly(began)
	}
	// Who is asked is decided as of began, and only if this node led then and had
	// for two periods: every other node's lease is over.
	term, err := p.t.o.Leads(ctx, p.id)
	if err != nil {
		return nil, err
	}
	p.Lead(term)
	if err := p.tooEarly(began); err != nil {
		return nil, err
	}
	return free, p.askAll(ctx, p.asked(began), items, free)
}

// tooEarly is the error while this node has to wait.
func (p *Partition) tooEarly(now time.Duration) error {
	c := &p.contacts
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait := c.start + p.t.patience() - now; wait > 0 {
		return object.Errorf(object.KindUnavailable, "partition %d reclaims nothing for another %v: others may have pinned what an earlier leader knew of", p.id, wait)
	}
	return nil
}

// asked lists the nodes that may have a lease, and forgets the others.
func (p *Partition) asked(now time.Duration) (nodes []string) {
	c := &p.contacts
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, last := range c.nodes {
		switch {
		case last+p.t.patience() <= now:
			delete(c.nodes, node)
		case node != p.t.o.Node: // its own table was looked at
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// askAll asks nodes about what is free so far, and takes out what one needs.
func (p *Partition) askAll(ctx context.Context, nodes []string, items []Item, free []bool) error {
	q := pinsRequest{Partition: uint16(p.id)}
	var at []int
	for i, it := range items {
		if free[i] {
			q.Items, at = append(q.Items, it), append(at, i)
		}
	}
	if len(at) == 0 || len(nodes) == 0 {
		return nil
	}
	data, err := encode(q)
	if err != nil {
		return err
	}
	answers, errs := make([]pinsAnswer, len(nodes)), make([]error, len(nodes))
	p.t.each(len(nodes), func(i int) { errs[i] = p.askOne(ctx, nodes[i], data, len(at), &answers[i]) })
	if err := errors.Join(errs...); err != nil {
		return &object.Error{Kind: object.KindUnavailable, Err: err}
	}
	for _, a := range answers {
		for i, needed := range a.Needed {
			if needed {
				free[at[i]] = false
			}
		}
	}
	return nil
}

func (p *Partition) askOne(ctx context.Context, node string, data []byte, items int, into *pinsAnswer) error {
	ctx, cancel := context.WithTimeout(ctx, min(askWait, p.t.o.Period))
	defer cancel()
	data, err := p.t.o.Call(ctx, node, MethodPins, data)
	if err == nil {
		err = decode(data, into)
	}
	if err == nil && len(into.Needed) != items {
		err = object.Errorf(object.KindInternal, "it answered for %d pieces, not %d", len(into.Needed), items)
	}
	if err != nil {
		return object.Errorf(object.KindUnavailable, "node %s may have readers in partition %d and does not say (it is waited for until it was silent for %v): %w",
			node, p.id, p.t.patience(), err)
	}
	return nil
}

// HandleLease answers a coordinator's request for leases: it is a
// transport.Handler, for nodes of the cluster.
func (t *Table) HandleLease(ctx context.Context, from transport.Peer, request []byte) ([]byte, error) {
	var q leaseRequest
	if err := decode(request, &q); err != nil {
		return nil, err
	}
	parts := make([]*Partition, len(q.Partitions))
	for i, id := range q.Partitions {
		var err error
		if parts[i], err = t.partition(id); err != nil {
			return nil, err
		}
	}
	// One that cannot be confirmed must not keep the answer back for the others.
	ctx, cancel := context.WithTimeout(ctx, t.o.Period/6)
	defer cancel()
	a := leaseAnswer{Given: make([]bool, len(parts))}
	t.each(len(parts), func(i int) {
		p := parts[i]
		p.Heard(from.Node)
		if term, err := t.o.Leads(ctx, p.id); err == nil {
			p.Lead(term)
			a.Given[i] = true
		}
	})
	return encode(a)
}

// HandlePins answers a leader's question: it is a transport.Handler, for nodes
// of the cluster.
func (t *Table) HandlePins(_ context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	var q pinsRequest
	if err := decode(request, &q); err != nil {
		return nil, err
	}
	p, err := t.partition(q.Partition)
	if err != nil {
		return nil, err
	}
	return encode(pinsAnswer{Needed: p.needed(q.Items)})
}
