package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// appendWait is how long AppendEntries waits for a peer that is away.
	appendWait = 2 * time.Minute
	// answerWait is how long it waits for the answer of one that is there.
	answerWait = 10 * time.Second
	// voteWait bounds votes and TimeoutNow; a vote takes a disk sync over there.
	voteWait = 5 * time.Second
	// noGroupPause is the pause before asking again for a group that the peer
	// has not opened yet.
	noGroupPause = 100 * time.Millisecond

	// appendBytes is where AppendEntries are split.
	appendSize = 1 << 20
)

// Group is one raft group's transport: raft.Transport, WithPreVote, WithClose, and
// Probe. A raft.ServerAddress is a node id, whom Options.Resolve finds; a
// raft.ServerID is a replica id, the node's id or node#generation, and plays no
// part in who is dialled. Headers travel as they are, but a request whose header
// names a replica of another node than the one that sent it is refused. Close it
// before raft's shutdown is waited for, since AppendEntries to a peer that is away
// waits for minutes otherwise.
type Group struct {
	n  *Node
	id object.PartitionID
	in *inbox

	// sent counts AppendEntries and heartbeats; see Confirm.
	sent atomic.Uint64

	mu      sync.Mutex // guards what follows
	term    uint64     // the highest that this node's raft was seen in
	termCtx context.Context
	newTerm context.CancelCauseFunc // ends termCtx
	ledTerm uint64                  // the highest in which this node's raft sent AppendEntries
	marks   map[string]*mark        // by peer
	cohorts []*cohort

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
}

var (
	_ raft.Transport   = (*Group)(nil)
	_ raft.WithPreVote = (*Group)(nil)
	_ raft.WithClose   = (*Group)(nil)
)

// Group opens the transport of a raft group. KindExists when it is open already.
func (n *Node) Group(id object.PartitionID) (*Group, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed()
	}
	if n.groups[id] != nil {
		return nil, object.Errorf(object.KindExists, "the transport of partition %d is open already", id)
	}
	g := &Group{n: n, id: id, marks: map[string]*mark{}}
	g.ctx, g.cancel = context.WithCancelCause(n.ctx)
	g.termCtx, g.newTerm = context.WithCancelCause(g.ctx)
	g.in = newInbox(g)
	n.groups[id] = g
	n.tasks.Go(g.in.answer)
	return g, nil
}

func (n *Node) group(id object.PartitionID) *Group {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.groups[id]
}

// Close ends all requests under way and takes no more. The partition's
// transport can be opened anew.
func (g *Group) Close() error {
	g.n.mu.Lock()
	if g.n.groups[g.id] == g {
		delete(g.n.groups, g.id)
	}
	g.n.mu.Unlock()
	g.cancel(errClosed())
	g.endCohorts(errClosed())
	return nil
}

// Consumer gives raft the requests of other nodes.
func (g *Group) Consumer() <-chan raft.RPC { return g.in.rpcs }

// LocalAddr is this node's id.
func (g *Group) LocalAddr() raft.ServerAddress { return raft.ServerAddress(g.n.opt.Node) }

// EncodePeer is what goes into headers as the address: the node id.
func (g *Group) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer is EncodePeer's inverse.
func (g *Group) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler does nothing: the fast path that it is for races raft's
// main loop (hashicorp/raft#695). Heartbeats come through Consumer.
func (g *Group) SetHeartbeatHandler(func(raft.RPC)) {}

// inTerm notes that this node's raft is in a term, and gives a context that ends
// when it is seen in a later one. ok is false if it was already.
func (g *Group) inTerm(term uint64) (ctx context.Context, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if term > g.term {
		g.newTerm(errTerm())
		g.endBefore(term)
		g.term = term
		g.termCtx, g.newTerm = context.WithCancelCause(g.ctx)
	}
	return g.termCtx, term == g.term
}

func errTerm() error {
	return object.Errorf(object.KindUnavailable, "a newer term has begun")
}

// leads notes a term in which this node's raft sends as leader, and the header
// that it sends to a peer.
func (g *Group) leads(peer string, a *raft.AppendEntriesRequest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledTerm = max(g.ledTerm, a.Term)
	if m := g.mark(peer); a.Term >= m.sentTerm {
		m.sent, m.sentTerm = a.RPCHeader, a.Term
	}
}

// RequestVote sends a vote request; it fails at once while the peer is down.
func (g *Group) RequestVote(_ raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	g.inTerm(args.Term)
	return g.ask(string(target), args, resp)
}

// RequestPreVote sends a pre-vote request; it fails at once while the peer is down.
func (g *Group) RequestPreVote(_ raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return g.ask(string(target), args, resp)
}

// TimeoutNow tells a peer to stand for election; it fails at once while the peer is down.
func (g *Group) TimeoutNow(_ raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return g.ask(string(target), args, resp)
}

// closed is the error of who would send something after Close. A connection that
// stands does not ask a context, and a raft that is stuck would go on as leader.
func (g *Group) closed() error {
	if g.ctx.Err() != nil {
		return errClosed()
	}
	return nil
}

// ask sends a small request once.
func (g *Group) ask(node string, args, resp any) error {
	if err := g.closed(); err != nil {
		return err
	}
	p, err := g.n.peer(node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(g.ctx, voteWait)
	defer cancel()
	l, err := p.urgent.get(ctx, false)
	if err != nil {
		return err
	}
	// resp is the caller's again once it has gone, whatever comes then.
	type result struct {
		f   frame
		err error
	}
	done := make(chan result, 1)
	ex := &exchange{done: func(f frame, err error) bool {
		done <- result{f, err}
		return true
	}}
	frame := appendRequest(newFrame(frameRaft, 256), g.id, args)
	sending, err := l.send(ctx, frame, ex)
	var lost *errLost
	if errors.As(err, &lost) && lost.moved {
		if l, err = p.urgent.get(ctx, false); err == nil {
			sending, err = l.send(ctx, frame, ex)
		}
	}
	if err != nil {
		return err
	}
	select {
	case r := <-done:
		return settle(r.f, r.err, resp)
	case <-ctx.Done():
		l.forget(sending)
		return object.Errorf(object.KindTimeout, "node %s has not answered within %v", node, voteWait)
	}
}

// settle reads the answer of a raft request.
func settle(f frame, err error, resp any) error {
	if err != nil {
		return err
	}
	return (&reader{b: f.payload}).response(resp)
}

// begin is what every request of a leader begins with: whom it goes to, and the context of
// its term.
func (g *Group) begin(target raft.ServerAddress, args *raft.AppendEntriesRequest) (*peer, context.Context, error) {
	p, err := g.n.peer(string(target))
	if err != nil {
		return nil, nil, err
	}
	if err := g.closed(); err != nil {
		return nil, nil, err
	}
	term, ok := g.inTerm(args.Term)
	if !ok {
		return nil, nil, errTerm()
	}
	g.leads(p.node, args)
	return p, term, nil
}

// AppendEntries sends entries, or a heartbeat, and waits for the answer. It waits
// for a peer that is away: raft's own pause between attempts grows to 10 s.
func (g *Group) AppendEntries(_ raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	p, term, err := g.begin(target, args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(term, appendWait)
	defer cancel()
	for {
		var answer raft.AppendEntriesResponse
		if isBeat(args) {
			err = g.beat(ctx, p, args, false, &answer)
		} else {
			err = g.append(ctx, p, args, &answer)
		}
		if err == nil {
			*resp = answer
			return nil
		}
		if pause, again := retry(err); !again || ctx.Err() != nil {
			return err
		} else if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return err
			}
		}
	}
}

// retry reports whether an AppendEntries that failed so should be sent again,
// and after what pause. It is idempotent.
func retry(err error) (pause time.Duration, again bool) {
	var lost *errLost
	switch {
	case errors.As(err, &lost):
		return 0, true
	case object.IsKind(err, object.KindNotFound): // the peer has no such group yet
		return noGroupPause, true
	}
	return 0, false
}

// append sends one AppendEntries over the bulk connection and waits for its answer.
func (g *Group) append(ctx context.Context, p *peer, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	l, err := p.bulk.get(ctx, true)
	if err != nil {
		return err
	}
	// Its own, not resp: the answer may come when the caller has gone.
	type result struct {
		resp raft.AppendEntriesResponse
		err  error
	}
	done := make(chan result, 1)
	if err := g.sendAppend(ctx, l, p.node, args, func(r raft.AppendEntriesResponse, err error) { done <- result{r, err} }); err != nil {
		return err
	}
	t := time.NewTimer(answerWait)
	defer t.Stop()
	select {
	case r := <-done:
		*resp = r.resp
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return object.Errorf(object.KindTimeout, "node %s has not answered within %v", p.node, answerWait)
	}
}

// sendAppend queues an AppendEntries, in several parts if it is large, and calls
// done with the answer to the last: it has succeeded only if all before have.
func (g *Group) sendAppend(ctx context.Context, l *link, node string, args *raft.AppendEntriesRequest, done func(raft.AppendEntriesResponse, error)) error {
	if ctx.Err() != nil { // closed, or a later term, while it waited
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait) // for room in the queue
	defer cancel()
	parts := split(args, appendSize)
	for i, part := range parts {
		seq, has := g.sent.Add(1), lastOf(part)
		size := 64
		for _, e := range part.Entries {
			size += entrySize(e)
		}
		if size > limitBulk {
			return object.Errorf(object.KindTooLarge, "a raft entry of %d bytes cannot be sent; at most %d", size, MaxEntry)
		}
		last := i == len(parts)-1
		ex := &exchange{done: func(f frame, err error) bool {
			var resp raft.AppendEntriesResponse
			if err = settle(f, err, &resp); err == nil {
				g.acknowledged(node, seq, args.Term, has, &resp)
			}
			if last {
				done(resp, err)
			}
			return true
		}}
		if _, err := l.send(ctx, appendRequest(newFrame(frameRaft, size), g.id, part), ex); err != nil {
			return err
		}
	}
	return nil
}

// InstallSnapshot streams a snapshot of args.Size bytes, at the rate that the node
// has for all of them, a few at a time; the others wait. If the connection is lost
// on the way nothing was installed, unless the answer was on its way already: the
// error is KindUnavailable or KindTimeout, and it is to be sent again, whole.
func (g *Group) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := g.closed(); err != nil {
		return err
	}
	term, ok := g.inTerm(args.Term)
	if !ok {
		return errTerm()
	}
	// First a heartbeat, which waits for a peer, and for its group, as appends do: after
	// a failure raft's own pause grows to 10 s.
	var beat raft.AppendEntriesResponse
	if err := g.AppendEntries(id, target, &raft.AppendEntriesRequest{RPCHeader: args.RPCHeader, Term: args.Term}, &beat); err != nil {
		return err
	}
	if beat.Term > args.Term { // raft steps down
		*resp = raft.InstallSnapshotResponse{RPCHeader: beat.RPCHeader, Term: beat.Term}
		return nil
	}
	return g.sendSnapshot(term, string(target), args, resp, data)
}
