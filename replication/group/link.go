package group

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Peers reaches the other replicas of one group. It must carry the whole header
// of a request (RPCHeader: version, ID and Addr) as it is: the group puts into it
// whom the request is for. raft.Server's Address is the transport's own matter.
// InstallSnapshot must end when this node is seen in a later term, and when the other
// one takes no bytes: raft waits for it before it stops. A future of a pipeline that
// failed has an answer without success, since raft looks at nothing else.
type Peers interface {
	raft.Transport
	raft.WithPreVote
}

// Prober is a transport that gathers heartbeats for a while before it sends them.
// Probe is an AppendEntries that leaves at once: a read waits for its answer. Its
// LeaderCommitIndex, beside a PrevLogEntry of 0, says what is committed: the transport adds an
// entry that the follower has and bounds it by that, or clears it.
type Prober interface {
	Probe(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error
}

// link stands between raft and the transport; DESIGN.md says what for. It has no
// Close, so that raft's Shutdown does not close the transport.
type link struct {
	Peers
	g      *Group
	rpcs   chan raft.RPC
	ending chan struct{} // closed when raft is about to be stopped
}

func newLink(g *Group, rpcs chan raft.RPC) *link {
	trans := g.cfg.Transport
	if trans == nil {
		_, trans = raft.NewInmemTransport(raft.ServerAddress(g.cfg.Address))
	}
	return &link{Peers: trans, g: g, rpcs: rpcs, ending: make(chan struct{})}
}

var errEnding = errors.New("raft is being stopped")

// call makes a call that raft need not wait for when it is stopped: one to a peer
// that is away may take minutes. It must not touch what raft owns.
func (l *link) call(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-l.ending:
		return errEnding
	}
}

// Consumer gives raft the requests that pump lets through.
func (l *link) Consumer() <-chan raft.RPC { return l.rpcs }

// SetHeartbeatHandler does nothing: raft's handler races its main loop, and logs
// can diverge (hashicorp/raft#695). Heartbeats take the Consumer channel.
func (l *link) SetHeartbeatHandler(func(raft.RPC)) {}

// headerMark separates, in the address of a header, the replica a request is for,
// the one it is from, and the transport's own form of the address.
const headerMark = '\x00'

// EncodePeer is what raft puts into its headers and, of a candidate, into its
// vote: so the vote is for a replica, not for a place.
func (l *link) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return append(append([]byte(id), headerMark), l.Peers.EncodePeer(id, addr)...)
}

// DecodePeer is EncodePeer's inverse.
func (l *link) DecodePeer(b []byte) raft.ServerAddress {
	_, addr, _ := bytes.Cut(b, []byte{headerMark})
	return l.Peers.DecodePeer(addr)
}

// toward is a header for the replica id.
func toward(h raft.RPCHeader, id raft.ServerID) raft.RPCHeader {
	h.Addr = append(append([]byte(id), headerMark), h.Addr...)
	return h
}

// AppendEntries is raft.Transport's. It counts for reads.
func (l *link) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return l.appendEntries(id, to, args, resp, l.Peers.AppendEntries)
}

// probe is AppendEntries for a read. A Prober also tells the follower what is committed:
// a reader there waits for that, and would learn it with the next entry only.
func (l *link) probe(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	send := l.Peers.AppendEntries
	if p, ok := l.Peers.(Prober); ok {
		send = p.Probe
		args.LeaderCommitIndex = 0
		if i := l.g.now(); i.link == l {
			// In this order: raft is in a later term before it has what that term's leader
			// committed, which need not be in the follower's log as this term left it.
			if committed := i.CommitIndex(); i.CurrentTerm() == args.Term {
				args.LeaderCommitIndex = committed
			}
		}
	}
	return l.appendEntries(id, to, args, resp, send)
}

func (l *link) appendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse,
	send func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error) error {
	c := *args
	c.RPCHeader = toward(args.RPCHeader, id)
	// Taken before it is handed over: what waits for more began later.
	seq, answer := l.g.reads.seal(), new(raft.AppendEntriesResponse)
	if err := l.call(func() error { return send(id, to, &c, answer) }); err != nil {
		return err
	}
	*resp = *answer
	l.g.peers.heard(id, args.Term, resp, l.g.now().LastIndex())
	l.g.reads.answered(id, args.Term, seq, resp)
	return nil
}

// AppendEntriesPipeline is raft.Transport's.
func (l *link) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := l.Peers.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	return pipeline{p, id}, nil
}

type pipeline struct {
	raft.AppendPipeline
	to raft.ServerID
}

// AppendEntries is raft.AppendPipeline's.
func (p pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	c := *args
	c.RPCHeader = toward(args.RPCHeader, p.to)
	return p.AppendPipeline.AppendEntries(&c, resp)
}

var errQueued = errors.New("a change of members of an earlier term is not settled yet")

// RequestVote is raft.Transport's. No vote is asked for while raft may still have a
// change of members in its queue that was decided in an earlier term: another leader
// may have gone on without it meanwhile. raft refuses it within one turn of its loop.
func (l *link) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if l.g.changing.bars(args.Term) {
		return errQueued
	}
	c := *args
	c.RPCHeader = toward(args.RPCHeader, id)
	answer := new(raft.RequestVoteResponse)
	if err := l.call(func() error { return l.Peers.RequestVote(id, to, &c, answer) }); err != nil {
		return err
	}
	*resp = *answer
	return nil
}

// RequestPreVote is raft.WithPreVote's.
func (l *link) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if l.g.changing.bars(args.Term) {
		return errQueued
	}
	c := *args
	c.RPCHeader = toward(args.RPCHeader, id)
	answer := new(raft.RequestPreVoteResponse)
	if err := l.call(func() error { return l.Peers.RequestPreVote(id, to, &c, answer) }); err != nil {
		return err
	}
	*resp = *answer
	return nil
}

var errHangs = errors.New("the replica that shall lead does not answer")

// TimeoutNow is raft.Transport's. It ends when raft gives the transfer up: raft takes
// no proposals until the call returns, and the other replica may hang.
func (l *link) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	c := *args
	c.RPCHeader = toward(args.RPCHeader, id)
	answer, done := new(raft.TimeoutNowResponse), make(chan error, 1)
	go func() { done <- l.Peers.TimeoutNow(id, to, &c, answer) }()
	t := time.NewTimer(heartbeatTimeout)
	defer t.Stop()
	select {
	case err := <-done:
		if err == nil {
			*resp = *answer
		}
		return err
	case <-t.C:
		return errHangs
	case <-l.ending:
		return errEnding
	}
}

// InstallSnapshot is raft.Transport's. The log from the image on is kept while it
// is on its way, and until the follower has caught up.
func (l *link) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	c := *args
	c.RPCHeader = toward(args.RPCHeader, id)
	if err := l.Peers.InstallSnapshot(id, to, &c, resp, endable{data, l.ending}); err != nil {
		return err
	}
	if resp.Success {
		l.g.peers.installed(id, args.Term, args.LastLogIndex)
	}
	return nil
}

// endable is a reader that fails once raft is being stopped.
type endable struct {
	r      io.Reader
	ending <-chan struct{}
}

// Read is io.Reader's.
func (e endable) Read(p []byte) (int, error) {
	select {
	case <-e.ending:
		return 0, errEnding
	default:
		return e.r.Read(p)
	}
}

// pump hands the requests of other replicas to raft, except those for a replica
// that this one is not, and states, which the group installs itself.
func (g *Group) pump() {
	for {
		select {
		case rpc := <-g.cfg.Transport.Consumer():
			g.incoming(rpc)
		case <-g.stopped:
			return
		}
	}
}

func (g *Group) incoming(rpc raft.RPC) {
	if err := g.accept(rpc.Command); err != nil {
		rpc.Respond(nil, err)
		return
	}
	if req, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok {
		g.background.Go(func() { g.receive(rpc, req) })
		return
	}
	g.deliver(rpc)
}

// deliver gives raft a request; it is answered in any case.
func (g *Group) deliver(rpc raft.RPC) {
	i := g.now()
	select {
	case i.rpcs <- rpc:
	case <-i.done:
		rpc.Respond(nil, object.Errorf(object.KindUnavailable, "replica %s of partition %d is stopping, or takes over a state", g.cfg.Node, g.cfg.ID))
	}
}

// boundCommit keeps raft to the rule of the Raft paper (figure 2, AppendEntries, 5): a
// request commits nothing behind its own last entry. raft goes up to the last entry
// of the log here, which the leader may not have: it would commit a divergent tail.
func boundCommit(a *raft.AppendEntriesRequest) {
	a.LeaderCommitIndex = min(a.LeaderCommitIndex, a.PrevLogEntry+uint64(len(a.Entries)))
}

var errNoHeader = errors.New("a raft request without a header")

// accept checks whom a request is for, and takes that out of its header. A new
// replica must not answer what was meant for one that lived at its address before:
// it knows nothing of the other's votes and entries.
func (g *Group) accept(command any) error {
	var h *raft.RPCHeader
	switch c := command.(type) {
	case *raft.AppendEntriesRequest:
		h = &c.RPCHeader
		boundCommit(c)
	case *raft.RequestVoteRequest:
		h = &c.RPCHeader
	case *raft.RequestPreVoteRequest:
		h = &c.RPCHeader
	case *raft.InstallSnapshotRequest:
		h = &c.RPCHeader
	case *raft.TimeoutNowRequest:
		h = &c.RPCHeader
	default:
		return errNoHeader
	}
	to, rest, ok := bytes.Cut(h.Addr, []byte{headerMark})
	if !ok || string(to) != g.cfg.Node {
		return object.Errorf(object.KindNotFound, "partition %d: a request for replica %q came to %q", g.cfg.ID, to, g.cfg.Node)
	}
	h.Addr = rest
	return nil
}
