package transport

import (
	"io"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// inboxSize is how many requests of other nodes one group may have unanswered.
	inboxSize = 128
	// inboxSnaps is how many snapshots one group may have unanswered: a leader sends
	// one, and may begin anew before the end of the last is noticed.
	inboxSnaps = 4
	// maxInbound bounds the bytes of all groups' unanswered requests.
	maxInbound = 256 << 20
)

// inbox is where other nodes' requests wait for a group's raft. raft handles
// them one by one and answers each before the next, so the answers come in the
// order of the queue, and one goroutine carries them all back. Snapshots take
// minutes, and are answered beside: see pushSnapshot.
type inbox struct {
	g     *Group
	snaps chan struct{} // one token for each snapshot in rpcs or unanswered
	slots chan struct{} // guards the order: held while both queues are appended to
	rpcs  chan raft.RPC
	waits chan waiting
}

type waiting struct {
	answer <-chan raft.RPCResponse
	size   int64
	reply  func(resp any, err error) // must not block
}

func newInbox(g *Group) *inbox {
	// answer holds one that is in waits no more but perhaps in rpcs still.
	return &inbox{g: g, snaps: make(chan struct{}, inboxSnaps), slots: make(chan struct{}, 1),
		rpcs: make(chan raft.RPC, inboxSize+1+inboxSnaps), waits: make(chan waiting, inboxSize)}
}

// push queues a request; reply gets the answer, or at once the reason why it is
// not taken.
func (in *inbox) push(cmd any, data io.Reader, size int64, reply func(resp any, err error)) {
	n := in.g.n
	if n.inbound.Add(size) > maxInbound {
		n.inbound.Add(-size)
		reply(nil, in.full())
		return
	}
	answer := make(chan raft.RPCResponse, 1)
	in.slots <- struct{}{} // briefly: nothing blocks below
	select {
	case in.waits <- waiting{answer, size, reply}:
		in.rpcs <- raft.RPC{Command: cmd, Reader: data, RespChan: answer}
		<-in.slots
		if in.g.ctx.Err() != nil { // closed meanwhile: the drain may have been before
			in.drain()
		}
	default:
		<-in.slots
		n.inbound.Add(-size)
		reply(nil, in.full())
	}
}

// pushSnapshot queues a snapshot and waits for its answer, or for the group's end.
func (in *inbox) pushSnapshot(req *raft.InstallSnapshotRequest, data io.Reader) (any, error) {
	select {
	case in.snaps <- struct{}{}:
		defer func() { <-in.snaps }()
	default:
		return nil, in.full()
	}
	answer := make(chan raft.RPCResponse, 1)
	in.rpcs <- raft.RPC{Command: req, Reader: data, RespChan: answer} // there is room
	select {
	case r := <-answer:
		in.g.answered(r.Response)
		return r.Response, r.Error
	case <-in.g.ctx.Done():
		return nil, errClosed()
	}
}

func (in *inbox) full() error {
	return object.Errorf(object.KindOverload, "partition %d of node %s does not keep up", in.g.id, in.g.n.opt.Node)
}

// answer carries raft's answers back until the group closes.
func (in *inbox) answer() {
	for {
		select {
		case w := <-in.waits:
			select {
			case r := <-w.answer:
				in.g.answered(r.Response)
				in.g.n.inbound.Add(-w.size)
				w.reply(r.Response, r.Error)
				continue
			case <-in.g.ctx.Done():
				in.g.n.inbound.Add(-w.size)
				w.reply(nil, errClosed())
			}
		case <-in.g.ctx.Done():
		}
		break
	}
	in.drain()
}

// drain refuses what waits, once the group has closed.
func (in *inbox) drain() {
	for {
		select {
		case w := <-in.waits:
			in.g.n.inbound.Add(-w.size)
			w.reply(nil, errClosed())
		default:
			return
		}
	}
}

// answered notes the term that this node's raft answers from.
func (g *Group) answered(resp any) {
	switch r := resp.(type) {
	case *raft.AppendEntriesResponse:
		g.inTerm(r.Term)
	case *raft.RequestVoteResponse:
		g.inTerm(r.Term)
	case *raft.InstallSnapshotResponse:
		g.inTerm(r.Term)
	}
}

// receiveRaft takes one raft request from a connection.
func (n *Node) receiveRaft(l *link, from Peer, f frame) error {
	reply := func(resp any, err error) {
		l.reply(appendResponse(newFrame(frameAnswer, 32), resp, err), f.id)
	}
	id, cmd, err := decodeRequest(f.payload)
	switch {
	case object.IsKind(err, object.KindNotSupported):
		reply(nil, err)
		return nil
	case err != nil:
		return err // the connection is out of step
	}
	h, _ := headerOf(cmd)
	if err := n.verifySender(id, h, from); err != nil {
		reply(nil, err)
		return nil
	}
	g := n.group(id)
	if g == nil {
		reply(nil, n.noGroup(id))
		return nil
	}
	if _, is := cmd.(*raft.InstallSnapshotRequest); is {
		return object.Errorf(object.KindInvalid, "a snapshot on the wrong connection")
	}
	g.in.push(cmd, nil, int64(len(f.payload)), reply)
	return nil
}

func (n *Node) noGroup(id object.PartitionID) error {
	return object.Errorf(object.KindNotFound, "node %s holds no replica of partition %d", n.opt.Node, id)
}
