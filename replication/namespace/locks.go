package namespace

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Locks of inodes; fs/DESIGN.md has the protocol. Who takes them is a session that the
// control group has on record (leases.go); the proposer sees to that.

// locksRec are the locks of an inode.
type locksRec struct {
	Locks []object.Lock `cbor:"1,keyasint"`
}

// Lock takes a lock, in place of what its owner has in its range, or changes nothing and
// names one that is in the way. But flock, as on Linux: who changes the type of its lock
// gives the old one up first, whatever comes of the new one.
type Lock struct {
	Inode object.InodeID `cbor:"1,keyasint"`
	Lock  object.Lock    `cbor:"2,keyasint"`
	// Wait: its client waits. That it does not fit yet is no result then, and is not kept:
	// the command comes again under its token, until it is granted or canceled.
	Wait bool `cbor:"3,keyasint,omitempty"`
}

// Unlock gives up what the owner has in a range. It fails only with KindNoLocks, where it
// would split a lock of an inode that has as many as there can be.
type Unlock struct {
	Inode object.InodeID `cbor:"1,keyasint"`
	Lock  object.Lock    `cbor:"2,keyasint"` // Exclusive and PID mean nothing
}

// CancelLock ends the Lock of the command's token: its result is the answer if it has one,
// else this is, and stays, its result: that it failed with Kind.
type CancelLock struct {
	Kind object.Kind `cbor:"1,keyasint"` // KindCanceled or KindDeadlock
}

// DropLocks drops the locks of sessions, a bounded number of them; Done in its result:
// nothing is left.
type DropLocks struct {
	Sessions []object.UploadID `cbor:"1,keyasint"`
}

func (s *state) locks(id object.InodeID) []object.Lock {
	var rec locksRec
	s.load(locksKey(id), &rec)
	return rec.Locks
}

// setLocks stores the locks that an inode has in place of old ones.
func (s *state) setLocks(id object.InodeID, old, list []object.Lock) {
	if len(list) == 0 {
		if len(old) > 0 {
			s.drop(locksKey(id))
		}
	} else {
		s.store(locksKey(id), &locksRec{Locks: list})
	}
	before, now := lockers(old), lockers(list)
	for _, session := range now {
		if _, has := slices.BinarySearchFunc(before, session, compareSessions); !has {
			s.storeRaw(lockerKey(session, id), []byte{})
		}
	}
	for _, session := range before {
		if _, has := slices.BinarySearchFunc(now, session, compareSessions); !has {
			s.drop(lockerKey(session, id))
		}
	}
}

// lockers are the sessions that have locks, each once, in order.
func lockers(list []object.Lock) []object.UploadID {
	out := make([]object.UploadID, len(list))
	for i, l := range list {
		out[i] = l.Session
	}
	slices.SortFunc(out, compareSessions)
	return slices.Compact(out)
}

func compareSessions(a, b object.UploadID) int { return bytes.Compare(a[:], b[:]) }

func (s *state) freed(id object.InodeID) { s.unlocks = append(s.unlocks, id) }

func (s *state) lock(c *Lock) *Result {
	if err := c.Lock.Check(); err != nil {
		return failf(object.KindOf(err), "%s", err)
	}
	if s.inode(c.Inode) == nil {
		return failf(object.KindStale, "the file is gone")
	}
	old := s.locks(c.Inode)
	list := old
	if c.Lock.Class == object.LockFlock {
		mine := slices.IndexFunc(old, func(o object.Lock) bool { return o.Mine(&c.Lock) })
		switch {
		case mine >= 0 && old[mine].Exclusive == c.Lock.Exclusive:
			return &Result{} // it has it
		case mine >= 0:
			list = slices.Delete(slices.Clone(old), mine, mine+1)
			s.freed(c.Inode)
		}
	}
	if o := inTheWay(list, &c.Lock); o != nil {
		if len(list) != len(old) {
			s.setLocks(c.Inode, old, list)
		}
		conflict := *o
		return &Result{Conflict: &conflict, Waits: c.Wait}
	}
	out := locked(list, &c.Lock)
	if len(out) > object.MaxLocks && len(out) > len(old) {
		return noLocks()
	}
	s.setLocks(c.Inode, old, out)
	if _, some := unlocked(list, &c.Lock); some {
		s.freed(c.Inode) // a write lock may have become a read lock
	}
	return &Result{}
}

func noLocks() *Result {
	return failf(object.KindNoLocks, "the file has %d locks, no more are possible", object.MaxLocks)
}

func (s *state) unlock(c *Unlock) *Result {
	if err := c.Lock.Check(); err != nil {
		return failf(object.KindOf(err), "%s", err)
	}
	old := s.locks(c.Inode)
	list, some := unlocked(old, &c.Lock)
	switch {
	case !some:
		return &Result{}
	case len(list) > object.MaxLocks && len(list) > len(old):
		return noLocks()
	}
	s.setLocks(c.Inode, old, list)
	s.freed(c.Inode)
	return &Result{}
}

func (s *state) cancelLock(c *CancelLock) *Result {
	if c.Kind == object.KindDeadlock {
		return failf(c.Kind, "others that wait for this session's locks hold what it would wait for")
	}
	return failf(object.KindCanceled, "the client waits for the lock no longer")
}

// forgetLocks drops the locks of an inode that goes.
func (s *state) forgetLocks(id object.InodeID) {
	if old := s.locks(id); len(old) > 0 {
		s.setLocks(id, old, nil)
		s.freed(id)
	}
}

// maxLockDrops bounds the inodes whose locks one entry drops, and maxLocksSeen about the
// locks in their records, all of which are written anew.
const (
	maxLockDrops = 256
	maxLocksSeen = 2 * object.MaxLocks
)

func (s *state) dropLocks(c *DropLocks) *Result {
	left, seen := maxLockDrops, 0
	for _, session := range c.Sessions {
		var inos []object.InodeID
		prefix := append([]byte{keyLocker}, session[:]...)
		s.scan(prefix, after(prefix), func(k, _ []byte) bool {
			inos = append(inos, object.InodeID(binary.BigEndian.Uint64(k[17:])))
			return len(inos) < left
		})
		for _, id := range inos {
			old := s.locks(id)
			s.setLocks(id, old, slices.DeleteFunc(slices.Clone(old), func(l object.Lock) bool { return l.Session == session }))
			s.freed(id)
			if left, seen = left-1, seen+len(old); left == 0 || seen >= maxLocksSeen {
				return &Result{Done: false}
			}
		}
	}
	return &Result{Done: true}
}

// Locks are the locks of a local inode, in no order that means anything.
func (v *View) Locks(id object.InodeID) ([]object.Lock, error) {
	var rec locksRec
	_, err := v.load(locksKey(id), &rec)
	return rec.Locks, err
}

// Conflict is a lock that is in the way of another one, nil when there is none.
func (v *View) Conflict(id object.InodeID, l *object.Lock) (*object.Lock, error) {
	list, err := v.Locks(id)
	return inTheWay(list, l), err
}

// HasLocks reports whether a session has locks in this partition.
func (v *View) HasLocks(session object.UploadID) (some bool, err error) {
	prefix := append([]byte{keyLocker}, session[:]...)
	err = v.snap.Ascend(prefix, after(prefix), func(_, _ []byte) (bool, error) {
		some = true
		return false, nil
	})
	return some, err
}
