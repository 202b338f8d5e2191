package transport

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// appendHeader writes raft's header: version, replica id and address of the sender.
func appendHeader(b []byte, h raft.RPCHeader) []byte {
	return appendBytes(appendBytes(append(b, byte(h.ProtocolVersion)), h.ID), h.Addr)
}

// header reads what appendHeader wrote; it shares the payload's memory.
func (r *reader) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(r.byte()), ID: r.bytes(), Addr: r.bytes()}
}

// headerOf is the header of a request; ok is false for what has none.
func headerOf(cmd any) (h raft.RPCHeader, ok bool) {
	with, ok := cmd.(raft.WithRPCHeader)
	if ok {
		h = with.GetRPCHeader()
	}
	return h, ok
}

// replicaOf reports whether id is one of the node's replica ids: the node's id
// alone, or node#generation (replication/control.ReplicaID).
func replicaOf(id []byte, node string) bool {
	rest, ok := bytes.CutPrefix(id, []byte(node))
	if !ok || len(rest) == 0 {
		return ok
	}
	generation, ok := bytes.CutPrefix(rest, []byte{'#'})
	n, err := strconv.ParseUint(string(generation), 10, 64)
	return ok && err == nil && n > 0 && strconv.FormatUint(n, 10) == string(generation)
}

// placeOf is the transport's part of a header's address: the group may put more
// before it, up to a zero byte.
func placeOf(addr []byte) []byte { return addr[bytes.LastIndexByte(addr, 0)+1:] }

// verifySender checks that a request's header names a replica, and the address, of
// the node at the other end, which proved its name: what raft believes of who
// votes and who leads hangs on the header. KindPermission if it does not.
func (n *Node) verifySender(id object.PartitionID, h raft.RPCHeader, from Peer) error {
	if replicaOf(h.ID, from.Node) && string(placeOf(h.Addr)) == from.Node {
		return nil
	}
	err := object.Errorf(object.KindPermission,
		"partition %d: node %s sent a raft request as replica %q at %q, which is not its own; check that no two nodes share a data directory, and that both run the same release",
		id, from.Node, short(h.ID), short(placeOf(h.Addr)))
	if n.forged.due(from.Node, n.clock()) {
		n.log.Warn("refused a raft request", "from", from.Node, "error", err)
	}
	return err
}

// short bounds what a message repeats of a peer's bytes.
func short(b []byte) []byte { return b[:min(len(b), 128)] }

const (
	// logEvery is how often the same thing of the same peer is logged.
	logEvery = time.Minute
	// logPeers is how many peers that is kept for: on plain TCP names are free.
	logPeers = 1024
)

// logged limits what is logged of each peer. Safe for concurrent use.
type logged struct {
	mu   sync.Mutex
	last map[string]int64 // the clock, by peer
}

// due reports whether it is time to log of this peer (again).
func (l *logged) due(peer string, now int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[peer]; ok && now-last < int64(logEvery) {
		return false
	}
	if len(l.last) >= logPeers {
		for p, last := range l.last {
			if now-last >= int64(logEvery) {
				delete(l.last, p)
			}
		}
		if len(l.last) >= logPeers {
			return false
		}
	}
	if l.last == nil {
		l.last = map[string]int64{}
	}
	l.last[peer] = now
	return true
}
