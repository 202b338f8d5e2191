package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// probeWait bounds a Probe.
const probeWait = 2 * time.Second

// Flags of a heartbeat. They cross the wire.
const (
	beatProbe    = 1 << iota // a reader waits: answer at once
	beatSame                 // the header is that of the one before in the frame
	beatPosition             // previous entry and commit index follow
)

// Probe is an AppendEntries without entries that a reader waits for: it leaves at
// once, shares its frame with the probes of other groups to that node that come at
// the same moment, and is answered at once. args.Term is one that this node leads in.
//
// With LeaderCommitIndex it also tells the peer what is committed; otherwise a
// follower learns that with the next entry, or after CommitTimeout. The peer takes
// it only up to an entry that it has and that is compared: PrevLogEntry, which
// LeaderCommitIndex must not exceed then, or, if that is 0, the last entry that the
// peer acknowledged in the term, and no more than that is committed.
//
// It takes 2 s at most. KindUnavailable: the peer is down, the connection was lost,
// or a newer term has begun; KindTimeout: no answer; KindInvalid: entries, or a
// commit index above PrevLogEntry. Nothing is sent twice. resp.Success is raft's: a
// false one in args.Term says that the peer lacks the entry.
func (g *Group) Probe(_ raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(args.Entries) > 0 || args.PrevLogEntry > 0 && args.LeaderCommitIndex > args.PrevLogEntry {
		return object.Errorf(object.KindInvalid, "a probe with %d entries, that commits up to %d behind entry %d", len(args.Entries), args.LeaderCommitIndex, args.PrevLogEntry)
	}
	p, term, err := g.begin(target, args)
	if err != nil {
		return err
	}
	if args.PrevLogEntry == 0 && args.LeaderCommitIndex > 0 {
		args = g.position(p.node, args)
	}
	ctx, cancel := context.WithTimeoutCause(term, probeWait, object.Errorf(object.KindTimeout, "node %s has not answered within %v", p.node, probeWait))
	defer cancel()
	if _, err := p.urgent.get(ctx, false); err != nil {
		return err
	}
	var answer raft.AppendEntriesResponse
	var lost *errLost
	err = g.beat(ctx, p, args, true, &answer)
	if errors.As(err, &lost) && lost.moved { // not sent
		lost, err = nil, g.beat(ctx, p, args, true, &answer)
	}
	if errors.As(err, &lost) {
		return unavailable("node %s: %w", p.node, err)
	}
	if err == nil {
		*resp = answer
	}
	return err
}

// position completes a probe that says what is committed by an entry that the peer has.
func (g *Group) position(peer string, args *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	g.mu.Lock()
	has, term := g.mark(peer).has, g.mark(peer).hasTerm
	g.mu.Unlock()
	a := *args
	if term != args.Term {
		has = entryID{}
	}
	a.PrevLogEntry, a.PrevLogTerm, a.LeaderCommitIndex = has.index, has.term, min(args.LeaderCommitIndex, has.index)
	return &a
}

// appendBeat writes an AppendEntries without entries; before is the header of the
// one before in the frame.
func appendBeat(b []byte, a *raft.AppendEntriesRequest, probe bool, before raft.RPCHeader) []byte {
	flags := bit(probe) * beatProbe
	same := a.ProtocolVersion == before.ProtocolVersion && bytes.Equal(a.ID, before.ID) && bytes.Equal(a.Addr, before.Addr)
	flags |= bit(same) * beatSame
	flags |= bit(!isBeat(a)) * beatPosition
	b = append(binary.AppendUvarint(b, a.Term), byte(flags))
	if !same {
		b = appendHeader(b, a.RPCHeader)
	}
	if flags&beatPosition != 0 {
		for _, v := range []uint64{a.PrevLogEntry, a.PrevLogTerm, a.LeaderCommitIndex} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

// beat reads what appendBeat wrote.
func (r *reader) beat(before raft.RPCHeader) (a *raft.AppendEntriesRequest, probe bool) {
	a = &raft.AppendEntriesRequest{RPCHeader: before, Term: r.uvarint()}
	flags := r.byte()
	if flags&beatSame == 0 {
		a.RPCHeader = r.header()
	}
	if flags&beatPosition != 0 {
		a.PrevLogEntry, a.PrevLogTerm, a.LeaderCommitIndex = r.uvarint(), r.uvarint(), r.uvarint()
		if a.LeaderCommitIndex > a.PrevLogEntry { // see Probe
			r.fail()
		}
	}
	return a, flags&beatProbe != 0
}
