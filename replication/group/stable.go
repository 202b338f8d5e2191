package group

import (
	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

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
	if string(key) != keyCurrentTerm {
		return s.Group.SetUint64(key, v)
	}
	// At its start raft writes the term that it has just read.
	if old, err := s.GetUint64(key); err == nil && old == v && v != 0 {
		return nil
	}
	for {
		err := s.Group.SetUint64(key, v)
		if err == nil {
			return nil
		}
		if !object.IsKind(err, object.KindNoSpace) {
			s.g.park(err)
		}
		s.g.waitForRoom(err)
	}
}
