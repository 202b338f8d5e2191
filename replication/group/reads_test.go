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
