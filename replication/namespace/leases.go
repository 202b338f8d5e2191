package namespace

import (
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Leases of sessions that take locks, and the fence that ends them; fs/DESIGN.md has the
// protocol.

// LeaseState is how far a session is.
type LeaseState uint8

// The states, in order; none is left for an earlier one.
const (
	LeaseActive LeaseState = iota + 1 // it is renewed, and may lock
	LeaseEnding                       // it is not renewed any more; its entries may still be applied
	LeaseFenced                       // no partition applies an entry of it
)

type leaseRec struct {
	State LeaseState `cbor:"1,keyasint"`
	Began int64      `cbor:"2,keyasint"` // proposer's clock, for people who look at it
}

// SetLease brings sessions to a state; of partition 0. Active is where a session
// begins, and no session that was ended begins again (KindSessionEnded); to every other
// state it comes from the one before. What is there already, or gone, is passed over.
type SetLease struct {
	Sessions []object.UploadID `cbor:"1,keyasint"`
	State    LeaseState        `cbor:"2,keyasint,omitempty"` // 0: they go (once they are fenced)
	// Term, where it is not 0: only in an entry of that raft term. Who ends what was not
	// renewed knows so of the term in which it led, and of no later one.
	Term uint64 `cbor:"3,keyasint,omitempty"`
}

// EndSessions fences sessions: no later entry with a token of theirs does anything here.
type EndSessions struct {
	Sessions []object.UploadID `cbor:"1,keyasint"`
}

// maxLeases bounds the sessions of one entry.
const maxLeases = 1024

func (s *state) setLease(c *SetLease) *Result {
	switch {
	case s.part != object.Control:
		return failf(object.KindInvalid, "partition %d keeps no leases", s.part)
	case len(c.Sessions) > maxLeases:
		return failf(object.KindInvalid, "%d sessions are too many for one step: at most %d", len(c.Sessions), maxLeases)
	case c.Term != 0 && c.Term != s.term:
		return &Result{Failed: true, Kind: object.KindConflict, Message: "this was decided by who led before", Again: true}
	}
	for _, session := range c.Sessions {
		if bad := s.setLeaseOf(session, c.State); bad != nil {
			return bad
		}
	}
	return &Result{}
}

func (s *state) setLeaseOf(session object.UploadID, to LeaseState) *Result {
	var rec leaseRec
	has := s.load(leaseKey(session), &rec)
	switch to {
	case LeaseActive:
		if has && rec.State != LeaseActive || s.sessionEnded(session) {
			return errEnded()
		}
		if !has {
			s.store(leaseKey(session), &leaseRec{State: LeaseActive, Began: s.now})
		}
	case LeaseEnding, LeaseFenced:
		if has && rec.State == to-1 {
			rec.State = to
			s.store(leaseKey(session), &rec)
		}
	case 0:
		if has && rec.State == LeaseFenced {
			s.drop(leaseKey(session))
		}
	default:
		return failf(object.KindVersion, "a lease state that this program does not know: upgrade this node")
	}
	return nil
}

func (s *state) endSessions(c *EndSessions) *Result {
	if len(c.Sessions) > maxLeases {
		return failf(object.KindInvalid, "%d sessions are too many for one step: at most %d", len(c.Sessions), maxLeases)
	}
	for _, session := range c.Sessions {
		var rec sessionRec
		s.load(sessionKey(session), &rec)
		rec.Ended, rec.Seen = true, max(rec.Seen, s.now)
		s.store(sessionKey(session), &rec)
	}
	return &Result{}
}

func (s *state) sessionEnded(session object.UploadID) bool {
	var rec sessionRec
	return s.load(sessionKey(session), &rec) && rec.Ended
}

func errEnded() *Result {
	return failf(object.KindSessionEnded, "the client's session was ended, since it was not renewed in time or was closed: its locks are lost, and nothing that it asks for is done")
}

// endedSeen is how often, at most, it is noted that an ended session is still seen: as
// long as it is, its mark must stay.
const endedSeen = int64(time.Hour)

// refuseEnded is the answer to an entry of a session that was ended.
func (s *state) refuseEnded(session object.UploadID, rec *sessionRec) *Result {
	if s.now-rec.Seen > endedSeen {
		rec.Seen = s.now
		s.store(sessionKey(session), rec)
	}
	r := errEnded()
	r.Index = s.index
	return r
}

// Lease is one session's.
type Lease struct {
	Session object.UploadID
	State   LeaseState
	Began   time.Time
}

// Lease is the state of a session's lease, 0 when there is none; of a view of partition 0.
func (v *View) Lease(session object.UploadID) (LeaseState, error) {
	var rec leaseRec
	_, err := v.load(leaseKey(session), &rec)
	return rec.State, err
}

// Leases calls fn for every lease; of a view of partition 0.
func (v *View) Leases(fn func(Lease)) error {
	return v.snap.Ascend([]byte{keyLease}, []byte{keyLease + 1}, func(k, b []byte) (bool, error) {
		var rec leaseRec
		if err := codec.dec.Unmarshal(b, &rec); err != nil {
			return false, object.Errorf(object.KindCorrupt, "lease %x cannot be read: %w", k, err)
		}
		fn(Lease{Session: object.UploadID(k[1:17]), State: rec.State, Began: time.Unix(0, rec.Began)})
		return true, nil
	})
}

// SessionEnded reports whether the partition refuses a session's entries.
func (v *View) SessionEnded(session object.UploadID) (bool, error) {
	var rec sessionRec
	_, err := v.load(sessionKey(session), &rec)
	return rec.Ended, err
}
