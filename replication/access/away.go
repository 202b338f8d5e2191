package access

import (
	"cmp"
	"context"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/remote"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// closeWait is how long a node may take to hear that a view is closed; it would
// end it by itself a little later.
const closeWait = time.Second

// away is a snapshot at another node. For one goroutine, as its Reader.
type away struct {
	*remote.Reader
	p     *Partitions
	pt    *partition
	lead  bool            // who leads is asked first, else the nearest
	node  string          // that has it; "" until the first read found one
	of    object.UploadID // that node's process
	ended bool            // only its node is still to hear of it
}

var _ remote.Snapshot = (*away)(nil)

// away is a snapshot at the nearest replica that answers; that is found by its
// first read, which also fixes the moment. leader asks who leads first.
func (p *Partitions) away(ctx context.Context, pt *partition, leader bool) *away {
	a := &away{p: p, pt: pt, lead: leader}
	a.Reader = remote.Open(ctx, a.call, pt.id)
	return a
}

// call is the Reader's way to its node.
func (a *away) call(ctx context.Context, request []byte) ([]byte, error) {
	switch {
	case a.ended:
		ctx, cancel := context.WithTimeout(a.p.ctx, closeWait)
		defer cancel()
		return a.ask(ctx, a.node, 0, request)
	case a.node == "":
		return a.first(ctx, request)
	}
	// As long as the last round of a search: the node did answer before.
	b, err := a.ask(ctx, a.node, 3, request)
	switch {
	case err == nil:
		return b, nil
	case ctx.Err() != nil:
		return nil, gaveUp(a.pt, ctx.Err(), err)
	}
	a.p.suspects.add(a.node) // whatever it was: the next view shall try another first
	return nil, object.Errorf(object.KindUnavailable, "the view of partition %d at node %s is lost; read again: %w", a.pt.id, a.node, err)
}

// first opens the snapshot with its first read, at one node after the other. A
// node whose answer is lost ends what it has opened when it rests.
func (a *away) first(ctx context.Context, request []byte) ([]byte, error) {
	t := tour{p: a.p, pt: a.pt, leader: a.lead}
	var last, why error
	for ctx.Err() == nil {
		node := t.next()
		if node == "" {
			if why = t.again(ctx); why != nil {
				break
			}
			continue
		}
		b, err := a.ask(ctx, node, t.round, request)
		if err == nil {
			a.node = node
			return b, nil
		}
		last = err
	}
	return nil, gaveUp(a.pt, cmp.Or(why, ctx.Err()), last)
}

// ask sends one request. The round is for the node's patience.
func (a *away) ask(ctx context.Context, node string, round int, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.p.cfg.ReadWait<<min(round, 4))
	defer cancel()
	b, err := a.p.call(ctx, node, MethodView, viewMessage(byte(min(round, 255)), a.of, request))
	if err != nil {
		return nil, err
	}
	if len(b) < viewHeader {
		return nil, object.Errorf(object.KindInternal, "node %s: an answer about a view of %d bytes is none", node, len(b))
	}
	a.of = object.UploadID(b[1:viewHeader])
	return b[viewHeader:], nil
}

// Close lets the view go. It does not wait for its node to hear of it.
func (a *away) Close() error {
	if a.node == "" || a.ended {
		return nil
	}
	a.ended = true
	a.p.mu.RLock()
	defer a.p.mu.RUnlock()
	if !a.p.closed { // else Close may be waiting for the tasks there were
		a.p.tasks.Go(func() { _ = a.Reader.Close() }) // a node that is not told ends it by itself
	}
	return nil
}
