package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// How many entries stay in the log behind a snapshot. In a group of one only the
// last: raft reads its index and term at start. In a group of several some for
// followers that lag a little; a leader keeps more for one that lags more, and
// most while one is sent the state, which must find what came meanwhile.
const (
	trailingOfOne      = 1
	trailingOfSeveral  = 1024
	trailingForLagging = 16 << 10
	trailingForImage   = 1 << 20
)

// trailing are these bounds of a group of several.
type trailing struct{ several, lagging, image uint64 }

// snapshotRecord says that the state up to index is on disk in the machine.
// There is no copy: the record is what raft starts from.
type snapshotRecord struct {
	index, term uint64
	state       uint64 // the machine's applied index that it relies on, at most index
	conf        inForce
}

// snapshotVersion starts the encoded part of a record: version (1 byte), state
// and the configuration's index (8 bytes each, big endian), the configuration as
// raft encodes it.
const snapshotVersion = 1

func (s snapshotRecord) encode() []byte {
	b := []byte{snapshotVersion}
	b = binary.BigEndian.AppendUint64(b, s.state)
	b = binary.BigEndian.AppendUint64(b, s.conf.index)
	return append(b, raft.EncodeConfiguration(s.conf.config)...)
}

// decodeSnapshot reads what encode wrote.
func decodeSnapshot(index, term uint64, b []byte) (s snapshotRecord, err error) {
	if len(b) < 1+8+8 {
		return s, object.Errorf(object.KindCorrupt, "the snapshot record of the log is too short")
	}
	if b[0] != snapshotVersion {
		return s, object.Errorf(object.KindVersion, "the snapshot record of the log was written by a newer BucketDB (version %d): upgrade", b[0])
	}
	// raft panics on a configuration that it cannot decode.
	defer func() {
		if r := recover(); r != nil {
			err = object.Errorf(object.KindCorrupt, "the snapshot record of the log: %v", r)
		}
	}()
	s = snapshotRecord{index: index, term: term, state: binary.BigEndian.Uint64(b[1:])}
	s.conf = inForce{binary.BigEndian.Uint64(b[9:]), raft.DecodeConfiguration(b[17:])}
	if s.state > index || s.conf.index > index {
		return s, object.Errorf(object.KindCorrupt, "the snapshot record of the log contradicts itself")
	}
	return s, nil
}

// stored is the record in the log; index 0 when there is none.
func stored(log *wal.Group) (snapshotRecord, error) {
	index, term, b := log.Snapshot()
	if index == 0 {
		return snapshotRecord{}, nil
	}
	return decodeSnapshot(index, term, b)
}

// check compares log and state, bootstraps an empty group if it is told to, and
// returns where raft will start.
func check(cfg Config) (snapshotRecord, error) {
	snap, err := stored(cfg.Log)
	if err != nil {
		return snap, err
	}
	last, err := cfg.Log.LastIndex()
	if err != nil {
		return snap, err
	}
	applied := cfg.Machine.Applied()
	switch {
	case applied < snap.state:
		return snap, object.Errorf(object.KindCorrupt,
			"the metadata ends at entry %d, but its log starts behind entry %d: the metadata was lost or replaced; "+readd, applied, snap.state)
	case applied > max(last, snap.index):
		return snap, object.Errorf(object.KindCorrupt,
			"the metadata has entry %d, but the log ends at %d: the log was lost or replaced; "+readd, applied, max(last, snap.index))
	case last == 0 && snap.index == 0 && cfg.Bootstrap:
		return snap, bootstrap(cfg)
	}
	return snap, nil
}

// bootstrap writes what raft.BootstrapCluster does, but may be repeated after a
// stop half way, where raft would refuse because the term is there already.
func bootstrap(cfg Config) error {
	if err := cfg.Log.SetUint64([]byte(keyCurrentTerm), 1); err != nil {
		return err
	}
	list := slices.Clone(cfg.Members)
	if len(list) == 0 {
		list = []Member{{ID: cfg.Node, Address: cfg.Address}}
	}
	for i := range list {
		list[i].Voter = true
	}
	return cfg.Log.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration(list))})
}

// compactSoon compacts in the background unless that is under way.
func (g *Group) compactSoon() {
	if !g.compacting.CompareAndSwap(false, true) {
		return
	}
	g.background.Go(func() {
		defer g.compacting.Store(false)
		if err := g.Compact(); err != nil && g.err() == nil {
			g.log.Error("the log could not be shortened; it grows until this works", "error", err)
		}
	})
}

// Compact drops the entries of the log whose effects the machine has made
// durable, keeping a few for followers that lag. The group does so by itself
// while it is busy; a node calls it for idle groups now and then.
//
// raft is not told: it would take its own index, which the machine has not made
// durable yet. It reads its snapshot's index only at start, from our record, and
// when a follower needs an entry that is gone.
func (g *Group) Compact() error {
	g.compactMu.Lock()
	defer g.compactMu.Unlock()
	i := g.now()
	select {
	case <-i.done: // the log may be about to be replaced
		return g.refused()
	default:
	}
	old, err := stored(g.cfg.Log)
	if err != nil {
		return err
	}
	next, err := g.next(i, old)
	if err != nil {
		return err
	}
	if next.index > old.index {
		if err := g.cfg.Log.SetSnapshot(next.index, next.term, next.encode()); err != nil {
			return err
		}
	}
	if err := g.settleRestore(); err != nil {
		return err
	}
	return g.trim(next.index)
}

// next is the record of the highest index whose state is durable, old when there
// is nothing newer.
func (g *Group) next(i *instance, old snapshotRecord) (snapshotRecord, error) {
	came := i.fsm.came()
	state := min(g.cfg.Machine.Durable(), came)
	n := snapshotRecord{index: max(old.index, state)}
	n.state = max(old.state, state)
	var entry raft.Log
	// Entries without an effect on the machine are as good as durable once they
	// are committed; configurations beyond came are not known yet.
	for n.index < i.AppliedIndex() {
		err := g.cfg.Log.GetLog(n.index+1, &entry)
		if errors.Is(err, raft.ErrLogNotFound) || err == nil && !idle(&entry, came) {
			break
		}
		if err != nil {
			return old, err
		}
		n.index++
	}
	if n.index <= old.index {
		return old, nil
	}
	if err := g.cfg.Log.GetLog(n.index, &entry); err != nil {
		return old, fmt.Errorf("reading entry %d: %w", n.index, err)
	}
	n.term = entry.Term
	var known bool
	if n.conf, known = i.fsm.at(n.index); !known {
		return old, nil
	}
	return n, nil
}

func idle(l *raft.Log, came uint64) bool {
	switch l.Type {
	case raft.LogNoop, raft.LogBarrier:
		return true
	case raft.LogConfiguration:
		return l.Index <= came
	}
	return false
}

// trim deletes what lies at or below the snapshot and is not kept for followers.
func (g *Group) trim(snapshot uint64) error {
	first, err := g.cfg.Log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := g.cfg.Log.LastIndex()
	if err != nil {
		return err
	}
	var others []raft.ServerID
	for _, s := range g.servers() {
		if s.ID != raft.ServerID(g.cfg.Node) {
			others = append(others, s.ID)
		}
	}
	to := snapshot
	switch {
	case first == 0:
		return nil
	case len(others) == 0:
		to = min(to, below(last, trailingOfOne))
	default:
		// The snapshot's own entry stays: the next leader may ask for its term.
		to = min(below(to, 1), below(last, g.keep.several))
		if r := g.now(); r.State() == raft.Leader {
			to = min(to, below(g.peers.needs(time.Now(), others, r.CurrentTerm(), last, g.keep), 1))
		}
	}
	if to >= first {
		return g.cfg.Log.DeleteRange(first, to)
	}
	return nil
}

func below(i, n uint64) uint64 { return i - min(i, n) }

// snapshots is the raft.SnapshotStore: it shows raft the record at start, and
// opens the machine's state for a follower.
type snapshots struct{ g *Group }

// List is the one record, if there is one.
func (s snapshots) List() ([]*raft.SnapshotMeta, error) {
	snap, err := stored(s.g.cfg.Log)
	if err != nil || snap.index == 0 {
		return nil, err
	}
	return []*raft.SnapshotMeta{snap.meta(0)}, nil
}

// Create is never asked for: see raftConfig and link.
func (s snapshots) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport) (raft.SnapshotSink, error) {
	return nil, errOwnSnapshots
}

// Open opens the state as it is now, newer than what List said.
func (s snapshots) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	o, err := s.g.openImage()
	if err != nil {
		return nil, nil, err
	}
	return o.snap.meta(o.size), o, nil
}

func (s snapshotRecord) meta(size int64) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: fmt.Sprintf("%d-%d", s.term, s.index), Size: size,
		Index: s.index, Term: s.term, Configuration: s.conf.config, ConfigurationIndex: s.conf.index,
	}
}
