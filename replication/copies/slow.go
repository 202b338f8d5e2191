package copies

import (
	"slices"
	"sync"
	"time"
)

// A read that waits longer for a holder than 95 of 100 reads of that holder did
// lately is sent to the next one as well (Dean and Barroso, The Tail at Scale,
// 2013). Early hedges are at most every tenth read, so that a cluster with too much
// to do does not double it; after hedgeCeil nobody waits for a turn.
const (
	hedgeFloor   = 10 * time.Millisecond
	hedgeUnknown = 50 * time.Millisecond // for a holder that was not read from yet
	hedgeCeil    = 500 * time.Millisecond
	hedgeShare   = 0.1
	hedgeBurst   = 10
	samples      = 64
	// avoidFor is how long a holder comes last that failed, or was beaten beatenOften times in a row.
	avoidFor    = 2 * time.Second
	beatenOften = 3
)

// speeds are how the holders did lately. They hold some 600 bytes for each node.
type speeds struct {
	mu     sync.Mutex // guards what follows
	of     map[string]*speed
	tokens float64
}

type speed struct {
	took    [samples]time.Duration // to the first frame
	n       int                    // noted so far
	p95     time.Duration          // as of some samples ago
	beaten  int                    // times in a row
	avoided time.Time
}

func (l *speeds) at(node string) *speed {
	if l.of == nil {
		l.of = map[string]*speed{}
	}
	if l.of[node] == nil {
		l.of[node] = &speed{}
	}
	return l.of[node]
}

// note counts a read that brought its first frame after d, or, beaten, was given
// up then.
func (l *speeds) note(node string, d time.Duration, beaten bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.at(node)
	if s.beaten++; !beaten {
		s.beaten = 0
	}
	if s.beaten >= beatenOften {
		s.avoided = time.Now().Add(avoidFor)
	}
	s.took[s.n%samples] = d
	if s.n++; s.n%8 == 0 {
		sorted := slices.Sorted(slices.Values(s.took[:min(s.n, samples)]))
		s.p95 = sorted[len(sorted)*95/100]
	}
}

// avoid puts a holder that failed behind the others for a while.
func (l *speeds) avoid(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at(node).avoided = time.Now().Add(avoidFor)
}

// patience is how long to wait for a holder before another is asked too.
func (l *speeds) patience(node string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.at(node)
	if s.p95 == 0 {
		return hedgeUnknown
	}
	return min(max(s.p95, hedgeFloor), hedgeCeil)
}

// mayHedge reports whether one more read may be sent twice, after waited.
func (l *speeds) mayHedge(waited time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if waited >= hedgeCeil {
		return true
	}
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// begun counts a read.
func (l *speeds) begun() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = min(l.tokens+hedgeShare, hedgeBurst)
}

// order is spots with this node's own first and those to avoid last; it keeps the
// order otherwise.
func (s *Store) order(spots []spot) []spot {
	now := time.Now()
	rank := func(sp spot) int {
		s.speed.mu.Lock()
		defer s.speed.mu.Unlock()
		switch avoided := s.speed.at(sp.node).avoided.After(now); {
		case avoided:
			return 2
		case sp.node == s.o.Self:
			return 0
		}
		return 1
	}
	ranks := make(map[string]int, len(spots))
	for _, sp := range spots {
		ranks[sp.node] = rank(sp)
	}
	out := slices.Clone(spots)
	slices.SortStableFunc(out, func(a, b spot) int { return ranks[a.node] - ranks[b.node] })
	return out
}
