package group

import (
	"testing"

	"github.com/hashicorp/raft"
)

// TestReadersAskTheVotersOfToday: a reader that comes after a list of members was
// committed does not join a batch that asks the voters of before. Two lists later a
// majority of theirs need not meet one of today's.
func TestReadersAskTheVotersOfToday(t *testing.T) {
	g := &Group{}
	f := newFSM(g, snapshotRecord{})
	g.reads.seq, g.reads.open = 1, &batch{seq: 1}
	f.StoreConfiguration(3, raft.Configuration{})
	if g.reads.open != nil {
		t.Error("readers may still join")
	}
}

// TestAloneFollowsTheCommittedLists: reads need nobody's word exactly while the committed list
// has no other voter.
func TestAloneFollowsTheCommittedLists(t *testing.T) {
	server := func(id raft.ServerID, s raft.ServerSuffrage) raft.Server { return raft.Server{ID: id, Suffrage: s} }
	me, other := server("a", raft.Voter), server("b", raft.Voter)
	g := &Group{cfg: Config{Node: "a"}}
	first := snapshotRecord{index: 7, conf: inForce{index: 3, config: raft.Configuration{Servers: []raft.Server{me}}}}
	if f := newFSM(g, first); !f.lone.Load() {
		t.Error("the list of the snapshot is not looked at")
	}
	f := newFSM(g, snapshotRecord{})
	for i, c := range []struct {
		list  []raft.Server
		alone bool
	}{
		{nil, false},
		{[]raft.Server{me}, true},
		{[]raft.Server{me, server("b", raft.Nonvoter)}, true},
		{[]raft.Server{me, other}, false},
		{[]raft.Server{other}, false},
		{[]raft.Server{other, server("a", raft.Nonvoter)}, false},
		{[]raft.Server{me}, true},
	} {
		if i > 0 {
			f.StoreConfiguration(uint64(10+i), raft.Configuration{Servers: c.list})
		}
		if f.lone.Load() != c.alone {
			t.Errorf("list %d, %v: alone is %t", i, c.list, f.lone.Load())
		}
	}
	f.StoreConfiguration(11, raft.Configuration{Servers: []raft.Server{other}}) // an old one comes by again after a start
	if !f.lone.Load() {
		t.Error("an old list counts")
	}
}
