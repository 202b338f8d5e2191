package group

import (
	"errors"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
)

// logs is the group's log as raft's LogStore. raft panics, and the process with
// it, where it cannot read an entry that is committed; here the group stops. Until
// raft is made an error is returned: then NewRaft fails.
type logs struct {
	*wal.Group
	g *Group
}

var _ raft.LogStore = logs{}

// GetLog is raft.LogStore's. It does not return when the entry cannot be read.
func (l logs) GetLog(index uint64, out *raft.Log) error {
	err := l.Group.GetLog(index, out)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	select {
	case <-l.g.made:
		l.g.park(err)
	default:
	}
	return err
}

// park stops the group and never returns: raft's main loop, which calls it, would
// panic with the error, or go on with what is not stored.
func (g *Group) park(err error) {
	g.Fail(err)
	g.hang()
}

func (g *Group) hang() {
	g.stuckOnce.Do(func() { close(g.stuck) })
	select {}
}
