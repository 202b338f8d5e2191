package group

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What follows works on replicas that are stopped, of a group that has lost its
// majority for good. DESIGN.md says in which order, and why.

// Remains is what a stopped replica has.
type Remains struct {
	Replica string // its id; "": nothing was ever written
	Term    uint64 // the newest that it knows
	// Last and LastTerm are the end of its log, or of the state that it was sent.
	Last, LastTerm uint64
	Applied        uint64    // by its machine: known to be committed
	At             time.Time // when a leader made the last entry; zero: unknown
	Members        []Member  // the newest list, which may not be committed
	Config         uint64    // its index
}

// Examine reads what a stopped replica has. KindCorrupt: its log cannot be used, and it
// must not vote again. Bootstrap and Join of cfg mean nothing.
func Examine(cfg Config) (r Remains, err error) {
	cfg.Bootstrap, cfg.Join = false, false
	if err := cfg.complete(); err != nil {
		return r, err
	}
	// raft panics on a configuration that it cannot decode.
	defer func() {
		if p := recover(); p != nil {
			err = object.Errorf(object.KindCorrupt, "the log of partition %d has a list of members that cannot be read: %v", cfg.ID, p)
		}
	}()
	snap, err := sound(cfg)
	if err != nil {
		return r, err
	}
	id, err1 := cfg.Log.Get([]byte(keyReplica))
	term, err2 := cfg.Log.GetUint64([]byte(keyCurrentTerm))
	if err := errors.Join(err1, err2); err != nil {
		return r, err
	}
	r = Remains{Replica: string(id), Term: term, Last: snap.index, LastTerm: snap.term, Applied: cfg.Machine.Applied(), Config: snap.conf.index}
	servers := snap.conf.config.Servers
	err = each(cfg.Log, snap.index, func(e *raft.Log) error {
		r.Last, r.LastTerm, r.At = e.Index, e.Term, e.AppendedAt
		if e.Type == raft.LogConfiguration {
			r.Config, servers = e.Index, raft.DecodeConfiguration(e.Data).Servers
		}
		return nil
	})
	r.Members = members(servers)
	return r, err
}

// sound is the record that raft would start from, of a log that belongs to this replica
// and its state, or to one that is being restored.
func sound(cfg Config) (snapshotRecord, error) {
	inLog, err := cfg.Log.Get([]byte(keyReplica))
	if err != nil {
		return snapshotRecord{}, err
	}
	beside, err := readID(cfg.FS, idFile(cfg.Dir, cfg.ID))
	if err != nil {
		return snapshotRecord{}, err
	}
	if known := string(inLog); known != "" && known != cfg.Node || beside != "" && beside != known {
		return snapshotRecord{}, object.Errorf(object.KindCorrupt, "the log here is that of replica %q, the file beside it names %q, the node's record %q", known, beside, cfg.Node)
	}
	m, restores, err := (&Group{cfg: cfg}).mark()
	if err != nil {
		return snapshotRecord{}, err
	}
	if restores && cfg.Machine.Applied() < m.state {
		return stored(cfg.Log)
	}
	return check(cfg)
}

// each calls fn for every entry behind an index; KindCorrupt when one is missing.
func each(log *wal.Group, after uint64, fn func(*raft.Log) error) error {
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	for i := after + 1; i <= last; i++ {
		var e raft.Log
		err := log.GetLog(i, &e)
		if errors.Is(err, raft.ErrLogNotFound) {
			err = object.Errorf(object.KindCorrupt, "entry %d is missing in the log, which goes on to %d; %s", i, last, readd)
		}
		if err == nil {
			err = fn(&e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Replay applies everything that a stopped replica has in its log, committed or not,
// to its machine, after finishing a restore that was interrupted. It may be repeated.
// What it applied becomes the group's by Renew; until then only the same may follow.
func Replay(ctx context.Context, cfg Config) error {
	cfg.Bootstrap, cfg.Join = false, false
	if err := cfg.complete(); err != nil {
		return err
	}
	g := &Group{cfg: cfg, log: cfg.Logger, ctx: ctx}
	if _, err := sound(cfg); err != nil {
		return err
	}
	if err := g.finishRestore(); err != nil {
		return err
	}
	snap, err := stored(cfg.Log)
	if err != nil {
		return err
	}
	var batch []Entry
	apply := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := cfg.Machine.Apply(batch)
		batch = nil
		return errors.Join(err, ctx.Err())
	}
	if err := each(cfg.Log, max(snap.index, cfg.Machine.Applied()), func(e *raft.Log) error {
		if e.Type == raft.LogCommand {
			batch = append(batch, Entry{Index: e.Index, Term: e.Term, Data: e.Data})
		}
		if len(batch) < maxAppendEntries {
			return nil
		}
		return apply()
	}); err != nil {
		return err
	}
	return apply()
}

// Renewal is how a group begins anew from one replica's state.
type Renewal struct {
	// Index is where the log goes on: so far beyond the replica's own end that no
	// entry which is lost can have had an index that is given again.
	Index   uint64
	Term    uint64 // above every term that a surviving replica knows
	Members []Member
	Command []byte    // the first entry; nil: none
	Time    time.Time // of it
}

// Renew begins a group anew on a stopped replica: its machine's state stands for
// everything before r.Index, and r.Members are in force from there on. The state must be
// durable: the log behind it goes. It may be repeated after a stop half way, with the same
// r. KindConflict: the log has gone on since, or another Renewal was made.
func Renew(cfg Config, r Renewal) error {
	state := cfg.Machine.Applied()
	if durable := cfg.Machine.Durable(); durable < state {
		return object.Errorf(object.KindInternal, "partition %d: the state is durable up to entry %d, not %d", cfg.ID, durable, state)
	}
	old, err := stored(cfg.Log)
	if err != nil {
		return err
	}
	last, err := cfg.Log.LastIndex()
	if err != nil {
		return err
	}
	switch again := old.index == r.Index && old.term == r.Term; {
	case again && last <= r.Index+1:
	case again || old.index >= r.Index || last >= r.Index:
		return object.Errorf(object.KindConflict, "partition %d: the log is at entry %d already, beyond %d", cfg.ID, max(old.index, last), r.Index)
	default:
		rec := snapshotRecord{index: r.Index, term: r.Term, state: state, conf: inForce{r.Index, configuration(r.Members)}}
		if err := cfg.Log.Restart(rec.index, rec.term, rec.encode(), []byte(keyCurrentTerm), binary.BigEndian.AppendUint64(nil, r.Term)); err != nil {
			return err
		}
	}
	if r.Command == nil || last > r.Index {
		return nil
	}
	return cfg.Log.StoreLog(&raft.Log{Index: r.Index + 1, Term: r.Term, Type: raft.LogCommand, Data: r.Command, AppendedAt: r.Time})
}

// Yield makes a stopped replica wait for the one of its group that is renewed: a list at
// the end of its log gives that the only vote. Its own list may have a majority without the
// renewed one, which would elect on the old log; or know it as no voter, and refuse it. What
// the renewed one sends takes the place of it all. It may be repeated.
func Yield(cfg Config, to Member) error {
	has, err := Examine(cfg)
	if err != nil || has.Last == 0 || len(has.Members) == 0 { // without a list nobody campaigns
		return err
	}
	to.Voter = true
	list := []Member{to, {ID: cfg.Node, Address: cfg.Node}}
	for _, m := range has.Members {
		if m.ID == cfg.Node {
			list[1].Address = m.Address
		}
	}
	if slices.Equal(has.Members, list) {
		return nil
	}
	return cfg.Log.StoreLog(&raft.Log{Index: has.Last + 1, Term: max(has.LastTerm, 1), Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration(list)), AppendedAt: time.Now()})
}

// Found is Renew of a group that nothing is left of, with an empty state: cfg.Node is its
// first replica. What this node may still have of the partition is dropped by drop.
func Found(ctx context.Context, cfg Config, r Renewal, drop func(context.Context) error) error {
	id, err := cfg.Log.Get([]byte(keyReplica))
	if err != nil {
		return err
	}
	if string(id) != cfg.Node {
		if err := Destroy(ctx, cfg.FS, cfg.Dir, cfg.Log, cfg.ID, drop); err != nil {
			return err
		}
		if err := cfg.Log.Set([]byte(keyReplica), []byte(cfg.Node)); err != nil {
			return err
		}
	}
	return Renew(cfg, r)
}

func configuration(list []Member) (c raft.Configuration) {
	for _, m := range list {
		s := raft.Server{Suffrage: raft.Nonvoter, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address)}
		if m.Voter {
			s.Suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, s)
	}
	return c
}
