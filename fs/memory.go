package fs

import (
	"context"
	"sync"
)

// gate bounds bytes of memory. It is safe for concurrent use.
type gate struct {
	limit int64

	mu   sync.Mutex    // guards what follows
	used int64         // never above limit, but for one request larger than it
	peak int64         // the most that used has been
	free chan struct{} // closed and replaced when bytes come back
}

func newGate(limit int64) *gate { return &gate{limit: limit, free: make(chan struct{})} }

// try takes n bytes when they are there.
func (g *gate) try(n int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tryLocked(n)
}

func (g *gate) tryLocked(n int64) bool {
	if g.used > 0 && g.used+n > g.limit {
		return false
	}
	g.used += n
	g.peak = max(g.peak, g.used)
	return true
}

// wait takes n bytes as soon as they are there; it fails when ctx ends first.
func (g *gate) wait(ctx context.Context, n int64) error {
	for {
		g.mu.Lock()
		ok, free := g.tryLocked(n), g.free
		g.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// put gives n bytes back.
func (g *gate) put(n int64) {
	if n == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= n
	close(g.free)
	g.free = make(chan struct{})
}

// stats are the bytes in use now and the most there were.
func (g *gate) stats() (used, peak int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used, g.peak
}
