package group

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// termRetry is the pause between two attempts to store a term on a full disk.
const termRetry = 500 * time.Millisecond

// keyCurrentTerm is raft's key for the term (hashicorp/raft, raft.go).
const keyCurrentTerm = "CurrentTerm"

// stable is the group's log as raft's StableStore. raft panics, and the process
// with it, when it cannot store a term. A full disk is waited out; any other
// failure stops this group: the call never returns, so that raft's main loop,
// which alone makes it, does nothing any more with a term that is not stored.
type stable struct {
	*wal.Group
	g *Group
}

var _ raft.StableStore = stable{}

// SetUint64 is raft.StableStore's.
func (s stable) SetUint64(key []byte, v uint64) error {
	for {
		err := s.Group.SetUint64(key, v)
		if err == nil || string(key) != keyCurrentTerm {
			return err
		}
		if !object.IsKind(err, object.KindNoSpace) {
			s.g.park(err)
		}
		s.g.log.Warn("the disk of the log is full; the partition has no leader until there is room", "error", err)
		select {
		case <-time.After(termRetry):
		case <-s.g.closing:
			s.g.hang()
		}
	}
}
