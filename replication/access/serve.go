package access

import (
	"context"

	"github.com/skshohagmiah/bucketdb/replication/remote"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// servePropose answers a proposal, or a piece of one, of another node. What became
// of it always stands in the answer: an error would be taken for the transport's.
func (p *Partitions) servePropose(ctx context.Context, from transport.Peer, request []byte) ([]byte, error) {
	part, err := decodePiece(request)
	if err != nil {
		return reply(outcome{state: stateFinal, err: err})
	}
	pt, l, o := p.replica(part.partition)
	if l == nil {
		return reply(o)
	}
	defer l.uses.Done()
	if !l.leads() && !part.relay { // said with the first piece, not the last
		return reply(refusedBy(l))
	}
	entry := part.data
	if !part.whole() {
		if entry, err = p.spool.add(from.Node, part); err != nil {
			return reply(outcome{state: stateRefused, err: err})
		}
		if entry == nil {
			return reply(outcome{state: stateMore})
		}
	}
	if !l.leads() {
		return reply(p.relay(ctx, pt, l, from.Node, entry))
	}
	// The caller's deadline bounds it; and whoever set none is bounded here.
	return reply(p.proposeHere(ctx, l, entry, p.cfg.ProposeWait))
}

// relay proposes at the leader for a node that cannot reach it. It is not relayed again.
func (p *Partitions) relay(ctx context.Context, pt *partition, l *local, from string, entry []byte) outcome {
	node := pt.leaderBut(p.cfg.Self, from)
	if node == "" {
		return refusedBy(l)
	}
	ctx, cancel := l.within(ctx, p.cfg.ProposeWait)
	defer cancel()
	return p.proposeAt(ctx, node, piece{partition: pt.id}, entry)
}

// replica is the replica here for a request, to be Done with; else the refusal.
func (p *Partitions) replica(id object.PartitionID) (*partition, *local, outcome) {
	pt, err := p.partition(id)
	if err != nil {
		// Whatever this node makes of it: another may know a newer map.
		return nil, nil, outcome{state: stateRefused, err: object.Errorf(object.KindUnavailable, "node %s: %w", p.cfg.Self, err)}
	}
	l := pt.use()
	if l == nil {
		return nil, nil, outcome{state: stateRefused, err: object.Errorf(object.KindUnavailable, "node %s has no replica of partition %d", p.cfg.Self, id)}
	}
	return pt, l, outcome{}
}

func reply(o outcome) ([]byte, error) {
	a := answer{State: o.state, Result: o.result, Leader: o.leader}
	if o.err != nil {
		a.Kind, a.Message = object.KindOf(o.err), o.err.Error()
	}
	return a.encode()
}

// serveIndex answers a follower with an index that is linearizable: see group.ReadIndex.
func (p *Partitions) serveIndex(ctx context.Context, from transport.Peer, request []byte) ([]byte, error) {
	part, err := decodePiece(request)
	if err != nil {
		return reply(outcome{state: stateFinal, err: err})
	}
	pt, l, o := p.replica(part.partition)
	if l == nil {
		return reply(o)
	}
	defer l.uses.Done()
	ctx, cancel := l.within(ctx, p.cfg.ReadWait)
	defer cancel()
	if !l.leads() {
		node := pt.leaderBut(p.cfg.Self, from.Node)
		if !part.relay || node == "" {
			return reply(refusedBy(l))
		}
		// Not the batch of the readers here, which may be waiting for someone else.
		b, err := p.call(ctx, node, MethodIndex, (&piece{partition: pt.id}).encode())
		if err != nil {
			return reply(outcome{state: stateRefused, err: err})
		}
		return b, nil
	}
	index, err := l.Group.ReadIndex(ctx)
	if err != nil {
		o := refusedBy(l)
		o.err = err
		return reply(o)
	}
	a := answer{State: stateDone, Index: index}
	return a.encode()
}

// roundKey is the context's key of the round that a view is asked for in.
type roundKey struct{}

// viewHeader is in front of each request and answer about views: the round, and
// the process that has the view, zero for one that is yet to be opened. Numbers of
// views begin anew with each process.
const viewHeader = 1 + len(object.UploadID{})

// serveViews answers a remote.Reader.
func (p *Partitions) serveViews(ctx context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	if len(request) < viewHeader {
		return nil, object.Errorf(object.KindInvalid, "a request for a view of %d bytes is none", len(request))
	}
	round, of, rest := request[0], object.UploadID(request[1:viewHeader]), request[viewHeader:]
	if !of.IsZero() && of != p.process {
		return nil, object.Errorf(object.KindUnavailable, "node %s was restarted, and its views have ended: read again", p.cfg.Self)
	}
	b, err := p.views.Handle(context.WithValue(ctx, roundKey{}, int(round)), rest)
	if err != nil {
		return nil, err
	}
	return viewMessage(round, p.process, b), nil
}

func viewMessage(round byte, of object.UploadID, rest []byte) []byte {
	return append(append(append(make([]byte, 0, viewHeader+len(rest)), round), of[:]...), rest...)
}

// openView opens a view of the replica here for another node.
func (p *Partitions) openView(ctx context.Context, id object.PartitionID) (remote.Snapshot, error) {
	pt, l, o := p.replica(id)
	if l == nil {
		return nil, o.err
	}
	defer l.uses.Done()
	var s remote.Snapshot
	round, _ := ctx.Value(roundKey{}).(int)
	err := p.openHere(ctx, pt, l, round, func() func() {
		s = l.Machine.store.View()
		return func() { _ = s.Close() }
	})
	if err != nil { // s may be a view that was closed again
		return nil, err
	}
	return s, nil
}
