package access

import (
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// spoolBytes bounds the unfinished entries that a node keeps for others.
	spoolBytes = 64 << 20
	// spoolIdle is how long one may rest.
	spoolIdle = 10 * time.Second
)

// spool gathers entries that come in pieces. Safe for concurrent use.
type spool struct {
	mu      sync.Mutex // guards what follows
	entries map[spoolKey]*spooled
	bytes   int
	closed  bool
}

// spoolKey keeps the nodes apart: ids are the senders' own.
type spoolKey struct {
	node   string
	upload object.UploadID
}

type spooled struct {
	buf  []byte // its capacity is the entry's size
	idle *time.Timer
}

func newSpool() *spool { return &spool{entries: map[spoolKey]*spooled{}} }

// add keeps a piece; it returns the entry once it is whole. An error means that the
// entry must be sent anew.
func (s *spool) add(node string, p piece) (entry []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := spoolKey{node, p.upload}
	e := s.entries[key]
	switch {
	case s.closed:
		return nil, errClosed()
	case e == nil && p.offset != 0, e != nil && (p.offset != len(e.buf) || p.total != cap(e.buf)):
		s.drop(key)
		return nil, object.Errorf(object.KindUnavailable, "the entry's earlier pieces are not here any more: send it again")
	case e == nil && s.bytes+p.total > spoolBytes:
		return nil, object.Errorf(object.KindOverload, "too many large changes are on their way here: try again")
	case e == nil:
		e = &spooled{buf: make([]byte, 0, p.total)}
		e.idle = time.AfterFunc(spoolIdle, func() { s.expire(key, e) })
		s.entries[key] = e
		s.bytes += p.total
	default:
		e.idle.Reset(spoolIdle)
	}
	e.buf = append(e.buf, p.data...)
	if len(e.buf) < p.total {
		return nil, nil
	}
	s.drop(key)
	return e.buf, nil
}

// drop forgets an entry. mu is held.
func (s *spool) drop(key spoolKey) {
	if e := s.entries[key]; e != nil {
		e.idle.Stop()
		delete(s.entries, key)
		s.bytes -= cap(e.buf)
	}
}

func (s *spool) expire(key spoolKey, e *spooled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[key] == e {
		s.drop(key)
	}
}

func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for key := range s.entries {
		s.drop(key)
	}
}
