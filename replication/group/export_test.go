package group

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// What the tests of several replicas need of the inside.

// Campaign makes the replica stand for election now.
func (g *Group) Campaign() { g.now().campaign() }

// KeepOnly lowers how much log is kept for others.
func (g *Group) KeepOnly(several, lagging uint64) {
	g.compactMu.Lock()
	defer g.compactMu.Unlock()
	g.keep.several, g.keep.lagging = several, lagging
}

// CatchesUp reports whether a replica took a state and is not heard to have caught up.
func (g *Group) CatchesUp(id string) bool {
	g.peers.mu.Lock()
	defer g.peers.mu.Unlock()
	q := g.peers.byID[raft.ServerID(id)]
	return q != nil && q.image != 0
}

// Raft is the present raft.
func (g *Group) Raft() *raft.Raft { return g.now().Raft }

// BelievesItLeads is what a read would go by that asks nobody.
func (g *Group) BelievesItLeads() bool { return g.isReady() }

// Barrier is the barrier of a new leader.
func (g *Group) Barrier() (term uint64) { return g.barrier(g.now()) }

// ProbeIn sends the request of a read of a term, and returns what it said is committed.
func (g *Group) ProbeIn(term uint64, id, address string) (committed uint64, err error) {
	i := g.now()
	req := &raft.AppendEntriesRequest{Term: term, RPCHeader: raft.RPCHeader{ProtocolVersion: raftVersion, ID: []byte(g.cfg.Node),
		Addr: i.link.EncodePeer(raft.ServerID(g.cfg.Node), i.link.LocalAddr())}}
	err = i.link.probe(raft.ServerID(id), raft.ServerAddress(address), req, new(raft.AppendEntriesResponse))
	return req.LeaderCommitIndex, err
}

// SettleLater makes a change of members of a term hang in raft's queue, until done is called.
func (g *Group) SettleLater(ctx context.Context, term uint64) (done func(), err error) {
	if err := g.turnTo(ctx); err != nil {
		return nil, err
	}
	g.changing.term.Store(term)
	return g.changing.give, nil
}

// OpenImage is the stream that a follower gets.
func (g *Group) OpenImage() (*raft.SnapshotMeta, interface {
	Read([]byte) (int, error)
	Close() error
}, error) {
	return snapshots{g}.Open("")
}

// CopyNode copies the directories of a running node (wal, meta, ...) as the end of
// its process would leave them; with power, as a power cut may: without the memtable
// logs. Badger's manifest names only whole tables, and is written before one is
// removed: so what was copied while it did not change belongs together.
func CopyNode(to, from string, power bool) error {
	manifest := filepath.Join("meta", "badger", "MANIFEST")
	for {
		before, err := os.ReadFile(filepath.Join(from, manifest))
		if err != nil {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		errCopy := os.CopyFS(to, os.DirFS(from)) // fails when a table goes meanwhile
		after, err := os.ReadFile(filepath.Join(from, manifest))
		if err != nil {
			return err
		}
		if !bytes.Equal(before, after) {
			continue
		}
		if errCopy != nil {
			return errCopy
		}
		if !power {
			return nil
		}
		logs, err := filepath.Glob(filepath.Join(to, "meta", "badger", "*.mem"))
		if err != nil {
			return err
		}
		for _, name := range logs {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
		return nil
	}
}
