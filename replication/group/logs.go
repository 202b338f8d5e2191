package group

import (
	"errors"
	"runtime"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// diskRetry is the pause between two attempts to write on a full disk, where raft
// cannot take no for an answer.
const diskRetry = 500 * time.Millisecond

// logs is the group's log as raft's LogStore. raft panics where it cannot read a
// committed entry, and its memory contradicts its log after two kinds of failed
// writes; here the group stops, or the write is waited for, before that happens.
type logs struct {
	*wal.Group
	g         *Group
	truncated bool // by DeleteRange since the last StoreLogs; of raft's main loop
}

var _ raft.LogStore = (*logs)(nil)

// GetLog is raft.LogStore's. An entry that cannot be read stops the group: another
// replica, whose log is sound, must lead and serve.
func (l *logs) GetLog(index uint64, out *raft.Log) error {
	err := l.Group.GetLog(index, out)
	switch {
	case err == nil:
	case !errors.Is(err, raft.ErrLogNotFound):
		l.g.park(err)
	case l.Hole(index):
		l.g.park(object.Errorf(object.KindCorrupt, "entry %d is missing in the middle of the log; %s", index, readd))
	}
	return err
}

// DeleteRange is raft.LogStore's: raft drops a divergent tail, to write another.
func (l *logs) DeleteRange(lo, hi uint64) error {
	err := l.Group.DeleteRange(lo, hi)
	l.truncated = l.truncated || err == nil
	return err
}

// StoreLog is StoreLogs of one entry.
func (l *logs) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs is raft.LogStore's.
func (l *logs) StoreLogs(entries []*raft.Log) error {
	for {
		err := l.Group.StoreLogs(entries)
		switch {
		case err == nil:
			l.truncated = false
			return nil
		case !object.IsKind(err, object.KindNoSpace):
			return err // the log has failed as a whole: nothing can be promised any more
		case l.leads() && changesMembers(entries):
			// raft would go by a list of members that no log has.
			l.g.park(err)
		case !l.truncated:
			return err
		}
		// raft still believes in the tail that is gone, and would stand for
		// election with it.
		l.g.waitForRoom(err)
	}
}

func (l *logs) leads() bool {
	i := l.g.now()
	return i != nil && i.State() == raft.Leader
}

func changesMembers(entries []*raft.Log) bool {
	for _, e := range entries {
		if e.Type == raft.LogConfiguration {
			return true
		}
	}
	return false
}

// waitForRoom is called by raft's main loop while the disk is full. It does not
// return once the group closes.
func (g *Group) waitForRoom(err error) {
	g.log.Warn("the disk of the log is full; this replica of the partition waits until there is room", "error", err)
	select {
	case <-time.After(diskRetry):
	case <-g.ctx.Done():
		g.hang()
	case <-g.closing:
		g.hang()
	}
}

// park stops the group and never returns: the goroutine of raft that calls it
// would panic, or do worse, with the error.
func (g *Group) park(err error) {
	g.Fail(err)
	g.hang()
}

// hang keeps a goroutine of raft from going on. Once the group has stopped it ends: it
// would hold on to all that the group had.
func (g *Group) hang() {
	g.stuckOnce.Do(func() { close(g.stuck) })
	<-g.stopped
	runtime.Goexit()
}
