package group

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// compactEvery is after how many applied entries the log is looked at for what
// can be dropped.
const compactEvery = 1024

// failure is the result of an entry that could not be applied.
type failure struct{ err error }

// fsm is the thin adapter between raft and the machine. raft calls it from one
// goroutine.
type fsm struct {
	g *Group

	applying sync.Mutex // held during Machine.Apply; guards retired
	retired  bool       // the machine must not be touched any more

	mu      sync.Mutex // guards what follows
	seen    uint64     // highest index that came by; raft's no-ops and barriers never do
	configs []inForce  // committed configurations up to seen, by index; those before the snapshot's are dropped
	checked uint64     // seen when the log was last looked at

	// lone: the newest committed list has one voter, this replica. See Group.alone.
	lone atomic.Bool
	// through: the machine has the effects of all entries up to it. raft's no-ops and
	// barriers are counted only as reached says. It is written under mu.
	through atomic.Uint64
}

// inForce is a configuration and the index of its entry.
type inForce struct {
	index  uint64
	config raft.Configuration
}

var (
	_ raft.BatchingFSM        = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

func newFSM(g *Group, snap snapshotRecord) *fsm {
	f := &fsm{g: g, seen: snap.index, checked: snap.index}
	if snap.index != 0 {
		f.configs = []inForce{snap.conf}
		f.lone.Store(onlyVoter(snap.conf.config.Servers, g.cfg.Node))
	}
	return f
}

// ApplyBatch passes on what the machine does not have yet: after a restart raft
// replays from the last snapshot, which the machine may be far ahead of.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	applied := f.g.cfg.Machine.Applied()
	var entries []Entry
	var at []int
	for i, l := range logs {
		switch {
		case l.Type == raft.LogConfiguration:
			f.StoreConfiguration(l.Index, raft.DecodeConfiguration(l.Data))
		case l.Type == raft.LogCommand && l.Index > applied:
			entries = append(entries, Entry{Index: l.Index, Term: l.Term, Data: l.Data})
			at = append(at, i)
		}
	}
	if len(entries) > 0 {
		given, err := f.apply(entries)
		for n, i := range at {
			if err != nil {
				results[i] = failure{err}
			} else {
				results[i] = given[n]
			}
		}
		if err != nil {
			return results
		}
	}
	f.passed(logs[len(logs)-1].Index)
	return results
}

// apply runs the machine, unless the group has failed: what follows an entry
// that was not applied must not be applied either.
func (f *fsm) apply(entries []Entry) ([]any, error) {
	f.applying.Lock()
	defer f.applying.Unlock()
	if e := f.g.failure.Load(); e != nil {
		return nil, e
	}
	if f.retired {
		return nil, raft.ErrRaftShutdown
	}
	given, err := f.g.cfg.Machine.Apply(entries)
	if err == nil && len(given) != len(entries) {
		err = fmt.Errorf("the state machine gave %d results for %d entries", len(given), len(entries))
	}
	if err != nil {
		f.g.Fail(err)
	}
	return given, err
}

// retire waits for an Apply under way and lets no other begin: a raft that could
// not be stopped as a whole may go on for a moment.
func (f *fsm) retire() {
	f.applying.Lock()
	defer f.applying.Unlock()
	f.retired = true
}

// passed notes how far raft has come, and has the log looked at now and then.
func (f *fsm) passed(index uint64) {
	f.mu.Lock()
	f.seen = max(f.seen, index)
	due := f.seen-f.checked >= compactEvery
	if due {
		f.checked = f.seen
	}
	f.mu.Unlock()
	f.reached(index)
	if due {
		f.g.compactSoon()
	}
}

// reached notes that the machine has all entries up to index, and wakes who waits for that.
func (f *fsm) reached(index uint64) {
	f.mu.Lock()
	f.through.Store(max(f.through.Load(), index))
	f.mu.Unlock()
	f.g.progress.move()
}

// Apply is ApplyBatch of one entry.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// StoreConfiguration remembers a committed configuration for the snapshots that
// will be recorded behind it.
func (f *fsm) StoreConfiguration(index uint64, c raft.Configuration) {
	f.mu.Lock()
	if n := len(f.configs); n == 0 || f.configs[n-1].index < index {
		f.configs = append(f.configs, inForce{index, c})
		f.lone.Store(onlyVoter(c.Servers, f.g.cfg.Node))
	}
	f.seen = max(f.seen, index)
	f.mu.Unlock()
	f.g.reads.seal() // who asks from now on asks these voters
	if tell := f.g.cfg.OnMembers; tell != nil {
		tell(index, members(c.Servers))
	}
}

// newest is the last configuration that came by.
func (f *fsm) newest() (c inForce, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.configs); n > 0 {
		return f.configs[n-1], true
	}
	return inForce{}, false
}

// look is the configuration in force at index.
func (f *fsm) look(index uint64) (c inForce, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, next := range f.configs {
		if next.index > index {
			break
		}
		c, ok = next, true
	}
	return c, ok
}

// at is the configuration in force at index, and forgets those before it. ok is
// false when none is known.
func (f *fsm) at(index uint64) (c inForce, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.configs) > 1 && f.configs[1].index <= index {
		f.configs = f.configs[1:]
	}
	if len(f.configs) == 0 || f.configs[0].index > index {
		return inForce{}, false
	}
	return f.configs[0], true
}

// came is the highest index that came by.
func (f *fsm) came() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

var errOwnSnapshots = errors.New("the group records its own snapshots and installs those of leaders itself")

// Snapshot is never asked for: see raftConfig and Compact.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return nil, errOwnSnapshots }

// Restore is never asked for: a leader's state does not come to raft, see link.
func (f *fsm) Restore(source io.ReadCloser) error {
	return errors.Join(errOwnSnapshots, source.Close())
}
