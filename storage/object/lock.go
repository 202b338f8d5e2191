package object

import "math"

// LockClass is the kind of an advisory lock. Locks of different classes never meet.
type LockClass uint8

// The lock classes.
const (
	// LockPOSIX are byte ranges: fcntl's, whose owner is a process, and OFD locks, whose owner
	// is an open file. The two conflict, as on Linux.
	LockPOSIX LockClass = iota + 1
	// LockFlock are flock(2)'s: always of the whole file, owned by an open file.
	LockFlock
)

// MaxLocks is the largest number of locks on one inode.
const MaxLocks = 4096

// LastByte is the end of a lock that reaches to the end of the file, wherever that will be.
const LastByte = math.MaxInt64

// Lock is one advisory lock: of a range of bytes, shared (read) or exclusive (write).
type Lock struct {
	Class LockClass `cbor:"1,keyasint"`
	// Session and Owner are who: the client, and the kernel's lock owner at that client.
	Session   UploadID `cbor:"2,keyasint"`
	Owner     uint64   `cbor:"3,keyasint"`
	Exclusive bool     `cbor:"4,keyasint,omitempty"`
	First     int64    `cbor:"5,keyasint"` // byte, from 0
	Last      int64    `cbor:"6,keyasint"` // byte, included; LastByte: to the end
	PID       uint32   `cbor:"7,keyasint,omitempty"`
}

// Mine reports whether both are of one owner in one class.
func (l *Lock) Mine(o *Lock) bool {
	return l.Class == o.Class && l.Session == o.Session && l.Owner == o.Owner
}

// Meets reports whether both are of one class and have bytes in common.
func (l *Lock) Meets(o *Lock) bool {
	return l.Class == o.Class && l.First <= o.Last && o.First <= l.Last
}

// Conflicts reports whether both cannot be held at once.
func (l *Lock) Conflicts(o *Lock) bool {
	return l.Meets(o) && !l.Mine(o) && (l.Exclusive || o.Exclusive)
}

// Check refuses what is no lock, with KindInvalid.
func (l *Lock) Check() error {
	switch {
	case l.Class != LockPOSIX && l.Class != LockFlock:
		return Errorf(KindInvalid, "lock class %d is neither POSIX nor flock", l.Class)
	case l.First < 0 || l.Last < l.First:
		return Errorf(KindInvalid, "a lock of the bytes %d to %d: give a first byte from 0 and a last one not before it", l.First, l.Last)
	case l.Class == LockFlock && (l.First != 0 || l.Last != LastByte):
		return Errorf(KindInvalid, "flock locks the whole file: give the bytes 0 to %d", int64(LastByte))
	}
	return nil
}
