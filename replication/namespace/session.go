package namespace

import (
	"bytes"
	"encoding/binary"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// recall returns the result that is kept for a token, or nil when the command
// is to be applied.
func (s *state) recall(t *Token) *Result {
	if t == nil {
		return nil
	}
	var r Result
	if s.load(resultKey(t.Session, t.Seq), &r) {
		switch {
		case len(r.Fence) == 0:
			r.Recalled = true
			return &r
		case bytes.Equal(r.Fence, t.Fence):
			return s.acknowledged(t) // the session may have been ended since
		}
		return s.fenced()
	}
	return s.acknowledged(t)
}

func (s *state) fenced() *Result {
	return &Result{Failed: true, Kind: object.KindConflict, Message: "a later attempt of the same change goes on in place of this one", Index: s.index, Fenced: true}
}

// acknowledged refuses a token whose session was ended, or whose result may have been dropped.
func (s *state) acknowledged(t *Token) *Result {
	var rec sessionRec
	has := s.load(sessionKey(t.Session), &rec)
	if has && rec.Ended {
		return s.refuseEnded(t.Session, &rec)
	}
	if has && t.Seq <= rec.Ack {
		return failf(object.KindConflict, "token %s/%d was acknowledged before: its result is gone", t.Session, t.Seq)
	}
	return nil
}

// fence closes the partition to all attempts of a token but one, or answers
// with the kept result. The attempt with the higher number wins in every
// partition, whatever the order in which two of them come: were it the later
// one, each could win where the other is about to act.
func (s *state) fence(t *Token) *Result {
	var r Result
	if s.load(resultKey(t.Session, t.Seq), &r) {
		if len(r.Fence) == 0 {
			r.Recalled = true
			return &r
		}
		if bytes.Compare(r.Fence, t.Fence) > 0 {
			return s.fenced()
		}
	}
	if bad := s.acknowledged(t); bad != nil {
		return bad
	}
	s.remember(t, &Result{Index: s.index, Fence: t.Fence})
	return &Result{Index: s.index}
}

// remember keeps a result for its token and drops those that are acknowledged.
func (s *state) remember(t *Token, r *Result) {
	if t == nil || r.transient() {
		return
	}
	var rec sessionRec
	s.load(sessionKey(t.Session), &rec)
	if t.Ack > rec.Ack {
		rec.Ack = s.dropResults(t.Session, rec.Ack, t.Ack)
	}
	rec.Seen = max(rec.Seen, s.now)
	s.store(sessionKey(t.Session), &rec)
	s.store(resultKey(t.Session, t.Seq), r)
}

// maxDropped bounds the work of one entry; what is left goes with the next.
const maxDropped = 1024

// dropResults drops the results behind one sequence up to another, and returns
// how far it came. What lies before is gone: walking over the store's tombstones
// of it each time would cost more with every mutation.
func (s *state) dropResults(session object.UploadID, behind, upTo uint64) uint64 {
	var keys [][]byte
	s.scan(resultKey(session, behind+1), resultKey(session, upTo+1), func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return len(keys) < maxDropped
	})
	for _, k := range keys {
		s.drop(k)
	}
	if len(keys) == maxDropped {
		last := keys[len(keys)-1]
		return binary.BigEndian.Uint64(last[len(last)-8:])
	}
	return upTo
}

func (s *state) endSession(c *EndSession) *Result {
	var rec sessionRec
	if s.load(sessionKey(c.Session), &rec) && c.Since != 0 && rec.Seen >= c.Since {
		return &Result{Done: true} // it came back
	}
	more := false
	var keys [][]byte
	s.scan(resultKey(c.Session, 0), after(append([]byte{keyResult}, c.Session[:]...)), func(k, _ []byte) bool {
		if len(keys) == maxDropped {
			more = true
			return false
		}
		keys = append(keys, append([]byte(nil), k...))
		return true
	})
	for _, k := range keys {
		s.drop(k)
	}
	if !more {
		s.drop(sessionKey(c.Session))
	} else { // should it come back now: what went must not be applied again
		last := keys[len(keys)-1]
		rec.Ack = max(rec.Ack, binary.BigEndian.Uint64(last[len(last)-8:]))
		s.store(sessionKey(c.Session), &rec)
	}
	return &Result{Done: !more}
}
