package access

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// firstPause and lastPause bound the pause between two rounds through the replicas.
	firstPause = 4 * time.Millisecond
	lastPause  = 128 * time.Millisecond
	// suspicion is how long a node that did not answer is asked last.
	suspicion = 2 * time.Second
)

// tour says whom to ask next. Each node is asked once a round; between rounds
// there is a pause that grows. For one goroutine.
type tour struct {
	p      *Partitions
	pt     *partition
	leader bool   // who leads is looked for; else the nearest comes first
	hint   string // said to lead by the node that was asked last
	tried  []string
	round  int
}

// next is the node to ask now, "" when all were asked in this round.
func (t *tour) next() string {
	if t.leader {
		for _, node := range append([]string{t.hint}, t.pt.believed()...) {
			// One that said nothing lately is asked in its turn, not first.
			if node != "" && !slices.Contains(t.tried, node) && (node == t.hint || !t.p.suspects.has(node)) {
				t.tried = append(t.tried, node)
				return node
			}
		}
	}
	last := ""
	for _, node := range t.pt.nodes() {
		if slices.Contains(t.tried, node) {
			continue
		}
		if !t.p.suspects.has(node) {
			t.tried = append(t.tried, node)
			return node
		}
		if last == "" {
			last = node
		}
	}
	if last != "" {
		t.tried = append(t.tried, last)
	}
	return last
}

// again begins another round, after a pause.
func (t *tour) again(ctx context.Context) error {
	t.tried, t.hint = t.tried[:0], ""
	t.round++
	return pause(ctx, t.p.ctx, t.round)
}

// pause waits a moment that grows with the rounds, with jitter.
func pause(ctx, closing context.Context, round int) error {
	d := min(firstPause<<min(round, 10), lastPause)
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-closing.Done():
		return errClosed()
	}
}

// gaveUp is the error of who has certainly changed nothing and asks no more,
// because of why; last is what was heard last.
func gaveUp(pt *partition, why, last error) error {
	if errors.Is(why, context.Canceled) {
		return &object.Error{Kind: object.KindCanceled, Err: why}
	}
	if last == nil {
		last = why
	}
	kind := object.KindUnavailable
	if object.IsKind(last, object.KindOverload) {
		kind = object.KindOverload
	}
	return object.Errorf(kind, "partition %d could not be reached in time; nothing was changed, try again: %w", pt.id, last)
}

// call asks a node, and notes whether it answered.
func (p *Partitions) call(ctx context.Context, node string, method uint16, request []byte) ([]byte, error) {
	began := time.Now()
	b, err := p.cfg.Transport.Call(ctx, node, method, request)
	switch {
	case !object.IsKind(err, object.KindTimeout):
		p.suspects.clear(node)
	case time.Since(began) >= p.cfg.ReadWait: // else its caller was in a hurry
		p.suspects.add(node)
	}
	return b, err
}

// suspects are the nodes that did not answer lately.
type suspects struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (s *suspects) add(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = map[string]time.Time{}
	}
	s.until[node] = time.Now().Add(suspicion)
}

func (s *suspects) clear(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, node)
}

func (s *suspects) has(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.until[node]
	if ok && time.Now().After(until) {
		delete(s.until, node)
		return false
	}
	return ok
}
