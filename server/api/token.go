package api

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// session numbers a client's mutations and knows which of them nobody will
// retry any more. It is safe for concurrent use.
type session struct {
	uid object.UploadID
	id  string // as it is on the wire

	mu   sync.Mutex // guards what follows
	next uint64
	ack  uint64              // every number up to it is done with
	done map[uint64]struct{} // those above ack that are done with
}

func newSession(id object.UploadID) *session {
	return &session{uid: id, id: id.String(), done: map[uint64]struct{}{}}
}

// begin takes the next number.
func (s *session) begin() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return s.next
}

// end says that seq will not be sent again.
func (s *session) end(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[seq] = struct{}{}
	for {
		if _, ok := s.done[s.ack+1]; !ok {
			return
		}
		s.ack++
		delete(s.done, s.ack)
	}
}

// stamp puts the token into a request's headers.
func (s *session) stamp(h http.Header, seq uint64, retry bool) {
	s.mu.Lock()
	ack := s.ack
	s.mu.Unlock()
	h.Set(HeaderSession, s.id)
	h.Set(HeaderSeq, strconv.FormatUint(seq, 10))
	if ack > 0 {
		h.Set(HeaderAck, strconv.FormatUint(ack, 10))
	}
	if retry {
		h.Set(HeaderRetry, "1")
	}
}
