package wal

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The keys under which raft keeps a vote (hashicorp/raft, raft.go).
const (
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// Group is one Raft group's part of the log: its raft.LogStore and
// raft.StableStore. It is deliberately not a raft.MonotonicLogStore: raft leaves
// gaps, and with that interface InstallSnapshot over a divergent tail panics
// (hashicorp/raft#697). Every change is durable when it returns nil. After an
// error it is unknown whether the change will be there after a restart, unless
// its kind is KindNoSpace, KindInvalid or KindTooLarge: then it is not.
type Group struct {
	l  *Log
	id object.PartitionID

	// The Log's mu guards these.
	entries index
	stable  map[string]stableValue
	vote    vote
	snap    snapshot

	voteMu sync.Mutex
	staged uint64 // LastVoteTerm as set, not durable before LastVoteCand comes
}

type stableValue struct {
	val []byte
	at  loc
}

// vote, where at is zero, is no vote.
type vote struct {
	term uint64
	cand []byte
	at   loc
}

// snapshot, where at is zero, is none.
type snapshot struct {
	index, term uint64
	conf        []byte
	at          loc
}

// apply changes the group as the record at place at says. It keeps no slice of r.
func (g *Group) apply(r *record, at loc) {
	switch r.typ {
	case recEntry:
		if old, had := g.entries.put(r.entry.Index, at); had {
			g.dead(old)
		}
		g.alive(at)
	case recDelete:
		g.entries.delete(r.min, r.max, g.dead)
	case recStable:
		g.dead(g.stable[string(r.key)].at)
		g.stable[string(r.key)] = stableValue{slices.Clone(r.val), at}
		g.alive(at)
	case recVote:
		g.dead(g.vote.at)
		g.vote = vote{r.term, slices.Clone(r.val), at}
		g.alive(at)
	case recSnapshot:
		g.dead(g.snap.at)
		g.snap = snapshot{r.index, r.term, slices.Clone(r.val), at}
		g.alive(at)
	case recWipe:
		g.forget()
	}
}

func (g *Group) forget() {
	g.entries.each(g.dead)
	for _, v := range g.stable {
		g.dead(v.at)
	}
	g.dead(g.vote.at)
	g.dead(g.snap.at)
	g.entries, g.vote, g.snap = index{}, vote{}, snapshot{}
	clear(g.stable)
}

func (g *Group) alive(at loc) { g.l.segs[uint64(at.seg)].live += int64(at.len) }

func (g *Group) dead(at loc) {
	if at != (loc{}) {
		g.l.segs[uint64(at.seg)].live -= int64(at.len)
	}
}

func (g *Group) blank() bool {
	return len(g.entries.runs) == 0 && len(g.stable) == 0 && g.vote.at == loc{} && g.snap.at == loc{}
}

// holds reports whether the record is alive at that place.
func (g *Group) holds(r *record, at loc) bool {
	switch r.typ {
	case recEntry:
		is, ok := g.entries.get(r.entry.Index)
		return ok && is == at
	case recStable:
		return g.stable[string(r.key)].at == at
	case recVote:
		return g.vote.at == at
	case recSnapshot:
		return g.snap.at == at
	}
	return false
}

// FirstIndex is the lowest index of the log, 0 when it is empty.
func (g *Group) FirstIndex() (uint64, error) {
	g.l.mu.RLock()
	defer g.l.mu.RUnlock()
	return g.entries.first(), nil
}

// LastIndex is the highest index of the log, 0 when it is empty.
func (g *Group) LastIndex() (uint64, error) {
	g.l.mu.RLock()
	defer g.l.mu.RUnlock()
	return g.entries.last(), nil
}

// Hole reports whether the log lacks entry i though it has some before and some
// behind it.
func (g *Group) Hole(i uint64) bool {
	g.l.mu.RLock()
	defer g.l.mu.RUnlock()
	_, ok := g.entries.get(i)
	return !ok && g.entries.first() < i && i < g.entries.last()
}

// GetLog reads the entry at index i into out, or returns raft.ErrLogNotFound.
// What was read from disk has passed its checksum; KindCorrupt if it does not.
// Data and Extensions may be shared with other readers: do not change them.
func (g *Group) GetLog(i uint64, out *raft.Log) error {
	for {
		g.l.mu.RLock()
		at, ok := g.entries.get(i)
		cached, hit := g.l.cache.get(g.id, i, at)
		seg := g.l.segs[uint64(at.seg)]
		g.l.mu.RUnlock()
		switch {
		case !ok:
			return raft.ErrLogNotFound
		case hit:
			g.l.cacheHits.Add(1)
			*out = cached
			return nil
		}
		r, _, err := seg.readRecord(at)
		if errors.Is(err, errSegmentClosed) && !g.l.isClosed() {
			continue // reclaimed since: the entry has moved
		}
		if err == nil && (r.typ != recEntry || r.group != g.id || r.entry.Index != i) {
			err = seg.corrupt(int64(at.off), "another record stands there")
		}
		if err != nil {
			return object.WithOp(err, "read log", "", "")
		}
		g.l.diskReads.Add(1)
		*out = r.entry
		return nil
	}
}

func (l *Log) isClosed() bool {
	l.qmu.Lock()
	defer l.qmu.Unlock()
	return l.closed
}

// StoreLog is StoreLogs of one entry.
func (g *Group) StoreLog(e *raft.Log) error { return g.StoreLogs([]*raft.Log{e}) }

// StoreLogs makes the entries durable, all or none. An entry replaces one of the
// same index; gaps may be left. The entries' slices are kept in memory for a
// while and must not be changed afterwards.
func (g *Group) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	recs := make([]record, len(logs))
	for i, e := range logs {
		if e.Index == 0 || e.Index >= 1<<63 {
			return &object.Error{Op: "write log", Kind: object.KindInvalid, Err: errors.New("a log entry must have an index from 1 to 2^63-1")}
		}
		recs[i] = record{typ: recEntry, group: g.id, entry: *e}
		recs[i].entry.Data, recs[i].entry.Extensions = orNil(e.Data), orNil(e.Extensions)
	}
	return g.l.commit(recs...)
}

// DeleteRange durably deletes the entries lo..hi, of either end of the log.
func (g *Group) DeleteRange(lo, hi uint64) error {
	g.l.mu.RLock()
	some := g.entries.overlaps(lo, hi)
	g.l.mu.RUnlock()
	if !some {
		return nil
	}
	return g.l.commit(record{typ: recDelete, group: g.id, min: lo, max: hi})
}

// Set durably sets a value. LastVoteCand is written together with the
// LastVoteTerm set before it, as one record: a crash between raft's two calls
// must not leave the new term beside the old candidate (hashicorp/raft#661).
func (g *Group) Set(key, val []byte) error {
	if len(key) >= 1<<16 {
		return &object.Error{Op: "write log", Kind: object.KindTooLarge, Err: errors.New("a key of the stable store has at most 65535 bytes")}
	}
	if string(key) != keyLastVoteCand {
		return g.l.commit(record{typ: recStable, group: g.id, key: slices.Clone(key), val: slices.Clone(val)})
	}
	g.voteMu.Lock()
	defer g.voteMu.Unlock()
	term := g.staged
	if term == 0 {
		term = g.currentVote().term
	}
	if err := g.l.commit(record{typ: recVote, group: g.id, term: term, val: slices.Clone(val)}); err != nil {
		return err
	}
	g.staged = 0
	return nil
}

// Get is the value of key, nil when it was never set.
func (g *Group) Get(key []byte) ([]byte, error) {
	switch string(key) {
	case keyLastVoteCand:
		if v := g.currentVote(); v.at != (loc{}) {
			return append([]byte{}, v.cand...), nil
		}
		return nil, nil
	case keyLastVoteTerm:
		if v := g.currentVote(); v.at != (loc{}) {
			return binary.BigEndian.AppendUint64(nil, v.term), nil
		}
		return nil, nil
	}
	g.l.mu.RLock()
	defer g.l.mu.RUnlock()
	v, ok := g.stable[string(key)]
	if !ok {
		return nil, nil
	}
	return append([]byte{}, v.val...), nil
}

// SetUint64 durably sets a number, except LastVoteTerm: see Set.
func (g *Group) SetUint64(key []byte, v uint64) error {
	if string(key) == keyLastVoteTerm {
		g.voteMu.Lock()
		defer g.voteMu.Unlock()
		g.staged = v
		return g.l.Err()
	}
	return g.Set(key, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 is the number of key, 0 when it was never set.
func (g *Group) GetUint64(key []byte) (uint64, error) {
	b, err := g.Get(key)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, &object.Error{Op: "read log", Kind: object.KindInvalid, Err: errors.New("the value of " + string(key) + " is not a number")}
	}
	return binary.BigEndian.Uint64(b), nil
}

func (g *Group) currentVote() vote {
	g.l.mu.RLock()
	defer g.l.mu.RUnlock()
	return g.vote
}

// SetSnapshot durably records up to which entry a snapshot holds the state, the
// entry's term, and the configuration then in force; it replaces the record
// before. conf is opaque here: the caller puts the configuration's index into it.
func (g *Group) SetSnapshot(index, term uint64, conf []byte) error {
	return g.l.commit(record{typ: recSnapshot, group: g.id, index: index, term: term, val: slices.Clone(conf)})
}

// Snapshot is what SetSnapshot recorded last; index 0 when there is none.
func (g *Group) Snapshot() (index, term uint64, conf []byte) {
	g.l.mu.RLock()
	defer g.l.mu.RUnlock()
	return g.snap.index, g.snap.term, slices.Clone(g.snap.conf)
}

// Restart durably starts the log anew behind a snapshot, all or nothing: every
// entry is deleted, the snapshot recorded as by SetSnapshot, and key set to val.
// Other values and the vote stay: the replica may have promised them to others.
func (g *Group) Restart(index, term uint64, conf, key, val []byte) error {
	if len(key) >= 1<<16 || string(key) == keyLastVoteCand || string(key) == keyLastVoteTerm {
		return &object.Error{Op: "write log", Kind: object.KindInvalid, Err: errors.New("a restarted log cannot set this key")}
	}
	return g.l.commit(
		record{typ: recDelete, group: g.id, min: 0, max: math.MaxUint64},
		record{typ: recSnapshot, group: g.id, index: index, term: term, val: slices.Clone(conf)},
		record{typ: recStable, group: g.id, key: slices.Clone(key), val: slices.Clone(val)})
}

// Wipe durably forgets the group: entries, values, vote and snapshot. A replica
// that was wiped must not vote again under its old id. The Group stays usable.
func (g *Group) Wipe() error {
	g.voteMu.Lock()
	defer g.voteMu.Unlock()
	g.staged = 0
	return g.l.commit(record{typ: recWipe, group: g.id})
}
