package copies

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A read that takes longer than hedgeFactor times what its holder took lately,
// and at least hedgeFloor, is sent to the next holder as well.
const (
	hedgeFactor = 4
	hedgeFloor  = 25 * time.Millisecond
	hedgeCeil   = time.Second
)

// latencies are how long each holder's reads took lately (an exponential mean).
type latencies struct {
	mu sync.Mutex
	of map[string]time.Duration
}

func (l *latencies) note(node string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]time.Duration{}
	}
	if old, ok := l.of[node]; ok {
		d = old + (d-old)/8
	}
	l.of[node] = d
}

// patience is how long to wait for a holder before another one is asked too.
func (l *latencies) patience(node string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(max(hedgeFactor*l.of[node], hedgeFloor), hedgeCeil)
}

// ReadAt is chunk.Store's, from the nearest holder that has a good copy. A chunk
// that no holder has is KindNotFound only when all of them said so; KindCorrupt
// when every copy there is is bad; KindUnavailable when some could not be asked.
func (s *Store) ReadAt(ctx context.Context, id object.ChunkID, want [32]byte, off int64, dst []byte) (int, error) {
	nodes := s.order(s.o.Place(id).Nodes)
	if len(nodes) == 1 && nodes[0] == s.o.Self {
		return s.o.Local.ReadAt(ctx, id, want, off, dst)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // whoever was slower stops
	r := &read{s: s, id: id, want: want, off: off, size: len(dst), answers: make(chan readAnswer, len(nodes))}
	return r.first(ctx, nodes, dst)
}

// order puts this node first, and keeps the preference of the others.
func (s *Store) order(nodes []string) []string {
	at := slices.Index(nodes, s.o.Self)
	if at <= 0 {
		return nodes
	}
	out := make([]string, 0, len(nodes))
	out = append(out, s.o.Self)
	out = append(out, nodes[:at]...)
	return append(out, nodes[at+1:]...)
}

type read struct {
	s       *Store
	id      object.ChunkID
	want    [32]byte
	off     int64
	size    int
	answers chan readAnswer
}

type readAnswer struct {
	node string
	data []byte
	err  error
}

// first asks holders one after another, the next one when one fails or is slow,
// and takes the first answer.
func (r *read) first(ctx context.Context, nodes []string, dst []byte) (int, error) {
	var failures []readAnswer
	asked, timer := 0, time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-timer.C:
			if asked == len(nodes) {
				continue
			}
			node := nodes[asked]
			asked++
			go func() { r.answers <- r.ask(ctx, node) }()
			timer.Reset(r.s.slow.patience(node))
		case a := <-r.answers:
			if a.err == nil || errors.Is(a.err, io.EOF) {
				return copy(dst, a.data), a.err
			}
			if failures = append(failures, a); len(failures) == len(nodes) {
				return 0, r.failed(failures)
			}
			if object.IsKind(a.err, object.KindNotFound) || object.IsKind(a.err, object.KindCorrupt) {
				r.s.o.Missed(r.id, a.node)
			}
			timer.Reset(0)
		}
	}
}

func (r *read) ask(ctx context.Context, node string) readAnswer {
	began := time.Now()
	a := readAnswer{node: node}
	if node == r.s.o.Self {
		a.data = make([]byte, r.size)
		var n int
		n, a.err = r.s.o.Local.ReadAt(ctx, r.id, r.want, r.off, a.data)
		a.data = a.data[:n]
	} else {
		a.data, a.err = r.s.readAt(ctx, node, r)
	}
	if ctx.Err() == nil {
		r.s.slow.note(node, time.Since(began))
	}
	return a
}

// failed is the error of a read that no holder answered.
func (r *read) failed(failures []readAnswer) error {
	kind, errs := object.KindNotFound, make([]error, 0, len(failures))
	for _, f := range failures {
		errs = append(errs, fmt.Errorf("%s: %w", f.node, f.err))
		switch k := object.KindOf(f.err); {
		case k == object.KindNotFound:
		case k == object.KindCorrupt && kind == object.KindNotFound:
			kind = object.KindCorrupt
		case k != object.KindCorrupt:
			kind = object.KindUnavailable
		}
	}
	return object.Errorf(kind, "no holder can read the chunk: %w", errors.Join(errs...))
}
