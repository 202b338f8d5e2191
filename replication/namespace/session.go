package namespace

import (
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
		r.Recalled = true
		return &r
	}
	var rec sessionRec
	if s.load(sessionKey(t.Session), &rec) && t.Seq <= rec.Ack {
		return failf(object.KindConflict, "token %s/%d was acknowledged before: its result is gone", t.Session, t.Seq)
	}
	return nil
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
	}
	return &Result{Done: !more}
}
