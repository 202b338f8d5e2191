// Package remote lets a node read a partition that it has no replica of: a
// consistent view stays open at a replica, and is read in bounded steps.
package remote

import (
	"context"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Idle is how long a view may rest before its node ends it: it holds old versions
// of the metadata back.
const Idle = 10 * time.Second

// maxViews bounds the views open at a node.
const maxViews = 4096

// Snapshot is a consistent state; meta.Snapshot is one.
type Snapshot interface {
	meta.Reader
	Close() error
}

// Server answers Readers. It is safe for concurrent use; Close it.
type Server struct {
	open func(context.Context, object.PartitionID) (Snapshot, error)

	mu     sync.Mutex
	last   uint64
	views  map[uint64]*view
	closed bool
	stop   chan struct{}
	done   chan struct{}
}

type view struct {
	mu   sync.Mutex // held while it is read
	snap Snapshot   // nil once ended
	used time.Time  // under the server's lock
	part object.PartitionID
}

// NewServer serves views that open makes: of a state that includes everything
// acknowledged before open was called.
func NewServer(open func(context.Context, object.PartitionID) (Snapshot, error)) *Server {
	s := &Server{open: open, views: map[uint64]*view{}, stop: make(chan struct{}), done: make(chan struct{})}
	go s.janitor()
	return s
}

// Handle answers one request of a Reader.
func (s *Server) Handle(ctx context.Context, data []byte) ([]byte, error) {
	var req request
	if err := decode(data, &req); err != nil {
		return nil, &object.Error{Op: "remote view", Kind: object.KindInvalid, Err: err}
	}
	v, id, err := s.view(ctx, req)
	if err != nil {
		return nil, err
	}
	if req.Op == opClose {
		s.end(id)
		return encode(answer{})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.snap == nil {
		return nil, errEnded()
	}
	a, err := v.read(req)
	if err != nil {
		return nil, err
	}
	a.View = id
	return encode(a)
}

func errEnded() error {
	return object.Errorf(object.KindUnavailable, "the view of the partition has ended: read again")
}

// view finds the view that req names, or opens one.
func (s *Server) view(ctx context.Context, req request) (*view, uint64, error) {
	if req.View != 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		v := s.views[req.View]
		if v == nil || v.part != object.PartitionID(req.Partition) {
			return nil, 0, errEnded()
		}
		v.used = time.Now()
		return v, req.View, nil
	}
	if req.Op != opGet && req.Op != opScan {
		return nil, 0, object.Errorf(object.KindInvalid, "a view cannot begin with operation %d", req.Op)
	}
	part := object.PartitionID(req.Partition)
	snap, err := s.open(ctx, part)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.views) >= maxViews {
		snap.Close()
		return nil, 0, object.Errorf(object.KindOverload, "this node has %d views open for others: try again", len(s.views))
	}
	s.last++
	v := &view{snap: snap, used: time.Now(), part: part}
	s.views[s.last] = v
	return v, s.last, nil
}

func (v *view) read(req request) (a answer, err error) {
	switch req.Op {
	case opGet:
		a.Value, a.Found, err = v.snap.Get(req.Key)
		return a, err
	case opScan:
		return v.scan(req)
	}
	return a, object.Errorf(object.KindInvalid, "views have no operation %d", req.Op)
}

func (v *view) scan(req request) (a answer, err error) {
	end, limit, size := req.End, min(max(req.Limit, 1), maxEntries), 0
	if req.Open {
		end = nil
	} else if end == nil {
		end = []byte{} // as it was asked for: nothing is below it
	}
	scan := v.snap.Ascend
	if req.Reverse {
		scan = v.snap.Descend
	}
	err = scan(req.Key, end, func(key, value []byte) (bool, error) {
		if len(a.Pairs) == limit || (size > 0 && size+len(key)+len(value) > maxBytes) {
			a.More = true
			return false, nil
		}
		size += len(key) + len(value)
		a.Pairs = append(a.Pairs, pair{Key: append([]byte{}, key...), Value: append([]byte{}, value...)})
		return true, nil
	})
	return a, err
}

// end closes a view once nobody reads it.
func (s *Server) end(id uint64) {
	s.mu.Lock()
	v := s.views[id]
	delete(s.views, id)
	s.mu.Unlock()
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.snap.Close()
	v.snap = nil
}

func (s *Server) janitor() {
	defer close(s.done)
	tick := time.NewTicker(Idle / 4)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			s.expire(now.Add(-Idle))
		}
	}
}

// expire ends the views that were not used since.
func (s *Server) expire(since time.Time) {
	s.mu.Lock()
	var old []uint64
	for id, v := range s.views {
		if v.used.Before(since) {
			old = append(old, id)
		}
	}
	s.mu.Unlock()
	for _, id := range old {
		s.end(id)
	}
}

// Close ends all views. Later requests are refused.
func (s *Server) Close() {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return
	}
	close(s.stop)
	<-s.done
	s.expire(time.Now().Add(Idle))
}
