package group

import (
	"context"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// progress wakes who waits for the machine to have applied something.
type progress struct {
	mu    sync.Mutex
	moved chan struct{} // nil while nobody waits; closed and dropped when it moves
}

func (p *progress) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	return p.moved
}

func (p *progress) move() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// ReadIndex is Read for a reader elsewhere: once another replica has WaitApplied
// of the result behind it, its state has everything that was acknowledged before
// the call. Errors are Read's.
func (g *Group) ReadIndex(ctx context.Context) (uint64, error) {
	if err := g.Read(ctx); err != nil {
		return 0, err
	}
	term := g.ready.Load()
	index := g.cfg.Machine.Applied()
	// A replica that is deposed may take over a state: then Applied says 0 for a while.
	if !g.leadsIn(term) {
		return 0, g.refused()
	}
	return index, nil
}

// WaitApplied returns once this replica's machine has applied up to index; it need
// not lead. KindUnavailable when the group stops, KindTimeout or KindCanceled when
// ctx ends first.
func (g *Group) WaitApplied(ctx context.Context, index uint64) error {
	for {
		moved := g.progress.wait()
		if g.cfg.Machine.Applied() >= index {
			return nil
		}
		if err := g.err(); err != nil {
			return err
		}
		select {
		case <-moved:
		case <-g.stopped:
		case <-g.closing:
		case <-ctx.Done():
			return object.Errorf(object.KindOf(ctx.Err()), "this replica of partition %d has applied %d, not yet %d: %w",
				g.cfg.ID, g.cfg.Machine.Applied(), index, ctx.Err())
		}
	}
}
