package transport

import (
	"encoding/binary"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// rpcKind says which raft request a message is. It crosses the wire.
type rpcKind uint8

const (
	rpcAppend rpcKind = iota + 1
	rpcVote
	rpcPreVote
	rpcTimeoutNow
	rpcSnapshot
)

// Flags of answers.
const (
	flagSuccess = 1 << iota
	flagNoRetryBackoff
)

// maxBatch is the number of entries in one AppendEntries that a decoder accepts.
const maxBatch = 1 << 16

// appendRequest writes partition, kind and a raft request.
func appendRequest(b []byte, id object.PartitionID, cmd any) []byte {
	b = binary.AppendUvarint(b, uint64(id))
	put := func(k rpcKind, h raft.RPCHeader, numbers ...uint64) {
		b = appendHeader(append(b, byte(k)), h)
		for _, v := range numbers {
			b = binary.AppendUvarint(b, v)
		}
	}
	switch c := cmd.(type) {
	case *raft.AppendEntriesRequest:
		put(rpcAppend, c.RPCHeader, c.Term, c.PrevLogEntry, c.PrevLogTerm, c.LeaderCommitIndex, uint64(len(c.Entries)))
		for _, e := range c.Entries {
			b = appendEntry(b, e)
		}
	case *raft.RequestVoteRequest:
		put(rpcVote, c.RPCHeader, c.Term, c.LastLogIndex, c.LastLogTerm, bit(c.LeadershipTransfer))
	case *raft.RequestPreVoteRequest:
		put(rpcPreVote, c.RPCHeader, c.Term, c.LastLogIndex, c.LastLogTerm)
	case *raft.TimeoutNowRequest:
		put(rpcTimeoutNow, c.RPCHeader)
	case *raft.InstallSnapshotRequest:
		put(rpcSnapshot, c.RPCHeader, uint64(c.SnapshotVersion), c.Term, c.LastLogIndex, c.LastLogTerm, c.ConfigurationIndex, uint64(c.Size))
		b = appendBytes(appendBytes(b, c.Peers), c.Configuration)
	}
	return b
}

func bit(v bool) uint64 {
	if v {
		return 1
	}
	return 0
}

// appendEntry writes one log entry; entrySize is at least its length.
func appendEntry(b []byte, e *raft.Log) []byte {
	b = binary.AppendUvarint(b, e.Index)
	b = binary.AppendUvarint(b, e.Term)
	b = append(b, byte(e.Type))
	var at int64
	if !e.AppendedAt.IsZero() {
		at = e.AppendedAt.UnixNano()
	}
	b = binary.AppendVarint(b, at)
	return appendBytes(appendBytes(b, e.Data), e.Extensions)
}

func entrySize(e *raft.Log) int { return 5*binary.MaxVarintLen64 + 1 + len(e.Data) + len(e.Extensions) }

// decodeRequest reads what appendRequest wrote. Entries and header share the
// payload's memory. Who the header names is not checked: see verifySender.
func decodeRequest(payload []byte) (object.PartitionID, any, error) {
	r := &reader{b: payload}
	id := object.PartitionID(r.uint16())
	kind := rpcKind(r.byte())
	h := r.header()
	var cmd any
	switch kind {
	case rpcAppend:
		cmd = r.appendEntries(h)
	case rpcVote:
		cmd = &raft.RequestVoteRequest{RPCHeader: h, Term: r.uvarint(), LastLogIndex: r.uvarint(), LastLogTerm: r.uvarint(),
			LeadershipTransfer: r.uvarint() == 1}
	case rpcPreVote:
		cmd = &raft.RequestPreVoteRequest{RPCHeader: h, Term: r.uvarint(), LastLogIndex: r.uvarint(), LastLogTerm: r.uvarint()}
	case rpcTimeoutNow:
		cmd = &raft.TimeoutNowRequest{RPCHeader: h}
	case rpcSnapshot:
		c := &raft.InstallSnapshotRequest{RPCHeader: h, SnapshotVersion: raft.SnapshotVersion(r.uint16()), Term: r.uvarint(),
			LastLogIndex: r.uvarint(), LastLogTerm: r.uvarint(), ConfigurationIndex: r.uvarint(), Size: int64(r.uvarint())}
		c.Peers, c.Configuration = r.bytes(), r.bytes()
		if c.Size < 0 {
			r.fail()
		}
		cmd = c
	default:
		return id, nil, object.Errorf(object.KindNotSupported, "a raft request of kind %d; is the peer a newer release?", kind)
	}
	return id, cmd, r.end()
}

func (r *reader) appendEntries(h raft.RPCHeader) *raft.AppendEntriesRequest {
	c := &raft.AppendEntriesRequest{RPCHeader: h, Term: r.uvarint(), PrevLogEntry: r.uvarint(), PrevLogTerm: r.uvarint(),
		LeaderCommitIndex: r.uvarint()}
	n := r.uvarint()
	// An entry takes at least 6 bytes: a bogus count cannot make us allocate.
	if n > maxBatch || n > uint64(len(r.b)/6) {
		if n > 0 {
			r.fail()
		}
		return c
	}
	logs := make([]raft.Log, n)
	c.Entries = make([]*raft.Log, 0, n)
	for i := range logs {
		e := &logs[i]
		e.Index, e.Term, e.Type = r.uvarint(), r.uvarint(), raft.LogType(r.byte())
		if at := r.varint(); at != 0 {
			e.AppendedAt = time.Unix(0, at)
		}
		e.Data, e.Extensions = r.bytes(), r.bytes()
		if r.err != nil {
			return c
		}
		c.Entries = append(c.Entries, e)
	}
	return c
}

// appendResponse writes raft's answer to a request, or its error.
func appendResponse(b []byte, resp any, err error) []byte {
	if err != nil {
		return appendError(append(b, 1), err)
	}
	put := func(h raft.RPCHeader, flags uint64, numbers ...uint64) {
		b = append(appendHeader(append(b, 0), h), byte(flags))
		for _, v := range numbers {
			b = binary.AppendUvarint(b, v)
		}
	}
	switch c := resp.(type) {
	case *raft.AppendEntriesResponse:
		put(c.RPCHeader, bit(c.Success)*flagSuccess|bit(c.NoRetryBackoff)*flagNoRetryBackoff, c.Term, c.LastLog)
	case *raft.RequestVoteResponse:
		put(c.RPCHeader, bit(c.Granted)*flagSuccess, c.Term)
	case *raft.RequestPreVoteResponse:
		put(c.RPCHeader, bit(c.Granted)*flagSuccess, c.Term)
	case *raft.InstallSnapshotResponse:
		put(c.RPCHeader, bit(c.Success)*flagSuccess, c.Term)
	case *raft.TimeoutNowResponse:
		put(c.RPCHeader, 0)
	default:
		return appendError(append(b, 1), object.Errorf(object.KindInternal, "raft gave no answer"))
	}
	return b
}

// response reads what appendResponse wrote into resp, which says what is
// expected. The error is the peer's, or KindInvalid.
func (r *reader) response(resp any) error {
	if failed := r.byte(); r.err == nil && failed != 0 {
		return r.error()
	}
	h := r.header()
	flags := r.byte()
	success := flags&flagSuccess != 0
	switch c := resp.(type) {
	case *raft.AppendEntriesResponse:
		*c = raft.AppendEntriesResponse{RPCHeader: h, Term: r.uvarint(), LastLog: r.uvarint(), Success: success,
			NoRetryBackoff: flags&flagNoRetryBackoff != 0}
	case *raft.RequestVoteResponse:
		*c = raft.RequestVoteResponse{RPCHeader: h, Term: r.uvarint(), Granted: success}
	case *raft.RequestPreVoteResponse:
		*c = raft.RequestPreVoteResponse{RPCHeader: h, Term: r.uvarint(), Granted: success}
	case *raft.InstallSnapshotResponse:
		*c = raft.InstallSnapshotResponse{RPCHeader: h, Term: r.uvarint(), Success: success}
	case *raft.TimeoutNowResponse:
		*c = raft.TimeoutNowResponse{RPCHeader: h}
	}
	return r.err
}

// isBeat tells a heartbeat from other AppendEntries, as hashicorp/raft's own
// transport does.
func isBeat(a *raft.AppendEntriesRequest) bool {
	return a.Term != 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// split cuts a request into several of about size bytes, each valid by itself:
// what goes before its first entry is the last of the one before.
func split(a *raft.AppendEntriesRequest, size int) []*raft.AppendEntriesRequest {
	var out []*raft.AppendEntriesRequest
	from, sum := 0, 0
	cut := func(to int) {
		part := *a
		part.Entries = a.Entries[from:to]
		if from > 0 {
			part.PrevLogEntry, part.PrevLogTerm = a.Entries[from-1].Index, a.Entries[from-1].Term
		}
		out = append(out, &part)
		from, sum = to, 0
	}
	for i, e := range a.Entries {
		if sum > 0 && sum+entrySize(e) > size {
			cut(i)
		}
		sum += entrySize(e)
	}
	cut(len(a.Entries))
	return out
}
