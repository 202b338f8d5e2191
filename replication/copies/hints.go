package copies

import (
	"context"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// maxHints bounds the reports that wait; what does not fit is found by the
	// comparison of the owner's list with the holders' files.
	maxHints    = 8192
	hintWorkers = 4
	hintTries   = 5
	hintDelay   = 2 * time.Second // after the first try that fails; then four times as long each
	repairBound = 5 * time.Minute
)

// hint is a report that a node's copy is missing or bad.
type hint struct {
	chunk Chunk
	node  string
}

type hintKey struct {
	id   object.ChunkID
	node string
}

// hints are the reports that wait. One that is in open is in ready, with a worker
// or with a timer.
type hints struct {
	ready chan hint

	mu   sync.Mutex // guards open
	open map[hintKey]int
}

func newHints() *hints {
	return &hints{ready: make(chan hint, maxHints), open: map[hintKey]int{}}
}

// add takes a report, unless it is known or there are too many.
func (h *hints) add(n hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := hintKey{n.chunk.ID, n.node}
	if _, known := h.open[key]; known || len(h.open) == maxHints {
		return
	}
	h.open[key] = 0
	h.ready <- n // has room: there are no more than are open
}

func (h *hints) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}

// failed counts a try, and returns when to make the next one; 0 for never.
func (h *hints) failed(n hint) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := hintKey{n.chunk.ID, n.node}
	if h.open[key]++; h.open[key] == hintTries {
		delete(h.open, key)
		return 0
	}
	return hintDelay << (2 * (h.open[key] - 1))
}

func (h *hints) done(n hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, hintKey{n.chunk.ID, n.node})
}

// Report tells of a chunk whose copy or shard here was found bad, by whoever found
// it: Run gets it from the others. Where there are none there is nothing to do.
func (s *Store) Report(c Chunk) {
	if p, err := s.locate(c.ID, c.Scheme); err == nil && p.alone(s.o.Self) {
		return
	}
	s.missed(c, s.o.Self, object.Errorf(object.KindCorrupt, "it failed a check and was quarantined"))
}

// Run deals with reports of missing and bad copies until ctx or the store ends:
// those about this node it repairs, others it passes on to the holder. A report that comes
// to nothing (a holder that is away, a chunk that is not committed yet) is tried
// again for some minutes.
func (s *Store) Run(ctx context.Context) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var all sync.WaitGroup
	for range hintWorkers {
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case h := <-s.hints.ready:
					s.settle(ctx, h)
				}
			}
		})
	}
	all.Wait()
}

func (s *Store) settle(ctx context.Context, h hint) {
	var err error
	if h.node != s.o.Self {
		err = s.report(ctx, h.node, h.chunk)
	} else if err = s.pace.Wait(ctx, max(h.chunk.Length, 1)); err == nil {
		rctx, cancel := context.WithTimeout(ctx, repairBound)
		err = s.Repair(rctx, h.chunk)
		cancel()
	}
	if err == nil {
		s.hints.done(h)
		return
	}
	next := s.hints.failed(h)
	if next == 0 {
		s.stats.repairFailed.Add(1)
		s.log.Warn("a missing or bad copy was not repaired; the comparison with the owner's list will find it again",
			"chunk", h.chunk.ID.String(), "node", h.node, "err", err)
		return
	}
	time.AfterFunc(next, func() { s.hints.ready <- h })
}
