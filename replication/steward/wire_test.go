package steward_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const methodRaft uint16 = 0xF0

// wires carries raft's messages of one node as calls of the real transport, headers
// and all. transport.Group does not carry the headers that group.Peers asks for yet.
type wires struct {
	node *transport.Node
	self string

	mu sync.Mutex
	of map[object.PartitionID]*wire
}

func newWires(n *transport.Node, self string) *wires {
	w := &wires{node: n, self: self, of: map[object.PartitionID]*wire{}}
	n.HandleCall(methodRaft, w.serve)
	return w
}

// wire is one group's raft.Transport.
type wire struct {
	w      *wires
	p      object.PartitionID
	rpcs   chan raft.RPC
	ctx    context.Context
	cancel context.CancelFunc
}

func (w *wires) open(p object.PartitionID) *wire {
	x := &wire{w: w, p: p, rpcs: make(chan raft.RPC)}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.of[p] = x
	return x
}

// message is a request as it travels; one of the pointers is set.
type message struct {
	Partition object.PartitionID
	Append    *raft.AppendEntriesRequest
	Vote      *raft.RequestVoteRequest
	PreVote   *raft.RequestPreVoteRequest
	Timeout   *raft.TimeoutNowRequest
	Install   *raft.InstallSnapshotRequest
	Data      []byte
}

type answer struct {
	Append  *raft.AppendEntriesResponse
	Vote    *raft.RequestVoteResponse
	PreVote *raft.RequestPreVoteResponse
	Timeout *raft.TimeoutNowResponse
	Install *raft.InstallSnapshotResponse
}

func (w *wires) serve(ctx context.Context, _ transport.Peer, b []byte) ([]byte, error) {
	var m message
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&m); err != nil {
		return nil, err
	}
	w.mu.Lock()
	x := w.of[m.Partition]
	w.mu.Unlock()
	if x == nil {
		return nil, object.Errorf(object.KindNotFound, "no partition %d here", m.Partition)
	}
	back := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{RespChan: back}
	switch {
	case m.Append != nil:
		rpc.Command = m.Append
	case m.Vote != nil:
		rpc.Command = m.Vote
	case m.PreVote != nil:
		rpc.Command = m.PreVote
	case m.Timeout != nil:
		rpc.Command = m.Timeout
	default:
		rpc.Command, rpc.Reader = m.Install, bytes.NewReader(m.Data)
	}
	select {
	case x.rpcs <- rpc:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-x.ctx.Done():
		return nil, object.Errorf(object.KindNotFound, "no partition %d here any more", m.Partition)
	}
	var r raft.RPCResponse
	select {
	case r = <-back:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-x.ctx.Done():
		return nil, object.Errorf(object.KindUnavailable, "partition %d closes", m.Partition)
	}
	if r.Error != nil {
		return nil, object.Errorf(object.KindInternal, "%w", r.Error)
	}
	var a answer
	switch v := r.Response.(type) {
	case *raft.AppendEntriesResponse:
		a.Append = v
	case *raft.RequestVoteResponse:
		a.Vote = v
	case *raft.RequestPreVoteResponse:
		a.PreVote = v
	case *raft.TimeoutNowResponse:
		a.Timeout = v
	case *raft.InstallSnapshotResponse:
		a.Install = v
	}
	var out bytes.Buffer
	err := gob.NewEncoder(&out).Encode(&a)
	return out.Bytes(), err
}

func (x *wire) ask(ctx context.Context, to raft.ServerAddress, m message, a *answer) error {
	m.Partition = x.p
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&m); err != nil {
		return err
	}
	back, err := x.w.node.Call(ctx, string(to), methodRaft, b.Bytes())
	if err != nil {
		return err
	}
	return gob.NewDecoder(bytes.NewReader(back)).Decode(a)
}

// AppendEntries waits for a peer that is away, as transport.Group does: raft itself
// would come back only after up to 10 s.
func (x *wire) AppendEntries(_ raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	for end := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(x.ctx, 3*time.Second)
		var a answer
		err := x.ask(ctx, to, message{Append: args}, &a)
		cancel()
		if err == nil {
			*resp = *a.Append
			return nil
		}
		if len(args.Entries) == 0 || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-x.ctx.Done():
			return err
		}
	}
}

func (x *wire) once(to raft.ServerAddress, m message, a *answer) error {
	ctx, cancel := context.WithTimeout(x.ctx, 5*time.Second)
	defer cancel()
	return x.ask(ctx, to, m, a)
}

func (x *wire) RequestVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	var a answer
	err := x.once(to, message{Vote: args}, &a)
	if err == nil {
		*resp = *a.Vote
	}
	return err
}

func (x *wire) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	var a answer
	err := x.once(to, message{PreVote: args}, &a)
	if err == nil {
		*resp = *a.PreVote
	}
	return err
}

func (x *wire) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	var a answer
	err := x.once(to, message{Timeout: args}, &a)
	if err == nil {
		*resp = *a.Timeout
	}
	return err
}

func (x *wire) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	b, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	var a answer
	if err = x.once(to, message{Install: args, Data: b}, &a); err == nil {
		*resp = *a.Install
	}
	return err
}

func (x *wire) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (x *wire) Consumer() <-chan raft.RPC          { return x.rpcs }
func (x *wire) LocalAddr() raft.ServerAddress      { return raft.ServerAddress(x.w.self) }
func (x *wire) SetHeartbeatHandler(func(raft.RPC)) {}

func (x *wire) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
func (x *wire) DecodePeer(b []byte) raft.ServerAddress                  { return raft.ServerAddress(b) }

func (x *wire) Close() error {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	if x.w.of[x.p] == x {
		delete(x.w.of, x.p)
	}
	x.cancel()
	return nil
}

var errKilled = errors.New("the node was killed")
