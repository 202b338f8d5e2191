package transport

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// doneRoom is how many answered futures wait for raft; more means that it has
// stopped listening.
const doneRoom = 256

// pipeline sends AppendEntries without waiting for each answer. It lives no
// longer than its connection: raft falls back to AppendEntries, which waits for
// the next one.
type pipeline struct {
	g      *Group
	p      *peer
	l      atomic.Pointer[link]
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // one token for each unanswered
	done   chan raft.AppendFuture
}

// AppendEntriesPipeline opens a pipeline. It does not wait for the peer.
func (g *Group) AppendEntriesPipeline(_ raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	if g.n.opt.MaxInflight < 2 {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	p, err := g.n.peer(string(target))
	if err != nil {
		return nil, err
	}
	pl := &pipeline{g: g, p: p, slots: make(chan struct{}, g.n.opt.MaxInflight), done: make(chan raft.AppendFuture, doneRoom)}
	pl.ctx, pl.cancel = context.WithCancel(g.ctx)
	return pl, nil
}

// AppendEntries sends once fewer than MaxInflight are unanswered. An error means
// that the pipeline is of no more use.
func (pl *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if _, ok := pl.g.inTerm(args.Term); !ok {
		return nil, errTerm()
	}
	pl.g.leads(pl.p.node, args)
	if err := pl.take(); err != nil {
		return nil, err
	}
	l := pl.l.Load()
	if l == nil {
		var err error
		if l, err = pl.p.bulk.get(pl.ctx, false); err != nil {
			return nil, err
		}
		pl.l.Store(l)
	}
	f := &future{start: time.Now(), args: args, resp: resp, ready: make(chan struct{})}
	err := pl.g.sendAppend(pl.ctx, l, pl.p.node, args, func(r raft.AppendEntriesResponse, err error) {
		*f.resp, f.err = r, err // on an error: no success, which ends the pipeline
		close(f.ready)
		select {
		case pl.done <- f:
		default:
			pl.cancel()
		}
		<-pl.slots
	})
	if err != nil {
		pl.cancel()
		return nil, err
	}
	return f, nil
}

// take takes a slot. A peer that does not answer in time ends the pipeline.
func (pl *pipeline) take() error {
	if pl.ctx.Err() != nil {
		return raft.ErrPipelineShutdown
	}
	select {
	case pl.slots <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(answerWait)
	defer t.Stop()
	select {
	case pl.slots <- struct{}{}:
		return nil
	case <-pl.ctx.Done():
		return raft.ErrPipelineShutdown
	case <-t.C:
		pl.cancel()
		return object.Errorf(object.KindTimeout, "node %s has not answered within %v", pl.p.node, answerWait)
	}
}

// Consumer gives the answered futures, in order.
func (pl *pipeline) Consumer() <-chan raft.AppendFuture { return pl.done }

// Close ends the pipeline. Requests under way may still arrive.
func (pl *pipeline) Close() error {
	pl.cancel()
	return nil
}

// future is one AppendEntries of a pipeline.
type future struct {
	start time.Time
	args  *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	err   error
	ready chan struct{}
}

func (f *future) Error() error {
	<-f.ready
	return f.err
}
func (f *future) Start() time.Time                      { return f.start }
func (f *future) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *future) Response() *raft.AppendEntriesResponse { return f.resp }
