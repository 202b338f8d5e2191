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

	// told is the last request, if it had no entries; raft makes one at a time.
	told   *raft.AppendEntriesRequest
	repeat atomic.Bool // one that says the same again is under way
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
	l := pl.l.Load()
	// Only while nothing is unanswered: a repeat that overtook the entries before it would be refused
	// for their want, and that ends the pipeline.
	if pl.saysNothing(args) && len(pl.slots) == 0 && l != nil && l.failure() == nil && !pl.repeat.Swap(true) {
		return pl.withBeats(args, resp), nil
	}
	if err := pl.take(); err != nil {
		return nil, err
	}
	if l == nil {
		var err error
		if l, err = pl.p.bulk.get(pl.ctx, false); err != nil {
			return nil, err
		}
		pl.l.Store(l)
	}
	f := newFuture(args, resp)
	err := pl.g.sendAppend(pl.ctx, l, pl.p.node, args, func(r raft.AppendEntriesResponse, err error) {
		pl.settle(f, r, err)
		<-pl.slots
	})
	if err != nil {
		pl.cancel()
		return nil, err
	}
	return f, nil
}

// saysNothing reports whether a request only repeats the last one of this pipeline, as
// raft does after CommitTimeout for as long as nothing happens.
func (pl *pipeline) saysNothing(args *raft.AppendEntriesRequest) bool {
	last := pl.told
	pl.told = nil
	if len(args.Entries) > 0 || args.LeaderCommitIndex > args.PrevLogEntry {
		return false
	}
	pl.told = args
	return last != nil && last.Term == args.Term && last.PrevLogEntry == args.PrevLogEntry &&
		last.PrevLogTerm == args.PrevLogTerm && last.LeaderCommitIndex == args.LeaderCommitIndex
}

// withBeats sends a request that says nothing new with the next heartbeats. It takes no
// slot: entries that come meanwhile do not wait for it, and may be answered before.
func (pl *pipeline) withBeats(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) *future {
	f := newFuture(args, resp)
	pl.p.beats.add(&beat{
		g: pl.g, req: args, gone: func() bool { return pl.ctx.Err() != nil },
		done: func(r raft.AppendEntriesResponse, err error) {
			pl.settle(f, r, err)
			pl.repeat.Store(false)
		},
	}, false)
	return f
}

// settle gives raft the answer to a request, or the reason why there is none.
func (pl *pipeline) settle(f *future, r raft.AppendEntriesResponse, err error) {
	*f.resp, f.err = r, err // on an error: no success, which ends the pipeline
	close(f.ready)
	select {
	case pl.done <- f:
	default:
		pl.cancel()
	}
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

// Consumer gives the answered futures, in order but for those that went with heartbeats;
// they have no entries.
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

func newFuture(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) *future {
	return &future{start: time.Now(), args: args, resp: resp, ready: make(chan struct{})}
}

// Error waits for the answer.
func (f *future) Error() error {
	<-f.ready
	return f.err
}
func (f *future) Start() time.Time                      { return f.start }
func (f *future) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *future) Response() *raft.AppendEntriesResponse { return f.resp }
