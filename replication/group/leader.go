package group

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Leader is the node that leads, as far as this one knows; ok is false when it
// knows none.
func (g *Group) Leader() (node string, ok bool) {
	_, id := g.raft.LeaderWithID()
	return string(id), id != ""
}

// IsLeader reports whether this node leads and has applied everything of the
// terms before. It may have been deposed without knowing yet: see Read.
func (g *Group) IsLeader() bool { return g.isReady() }

func (g *Group) isReady() bool {
	ready := g.ready.Load()
	return ready != 0 && g.failure.Load() == nil && g.raft.State() == raft.Leader && g.raft.CurrentTerm() == ready
}

// WaitReady returns once the leader is known and, if it is this node, everything
// of the terms before is applied.
func (g *Group) WaitReady(ctx context.Context) error {
	return g.wait(ctx, func() (bool, error) {
		node, known := g.Leader()
		return known && (node != g.cfg.Node || g.isReady()), nil
	})
}

// wait returns when test says so, the group stops, or ctx ends.
func (g *Group) wait(ctx context.Context, test func() (bool, error)) error {
	for {
		changed := g.changes()
		if err := g.err(); err != nil {
			return err
		}
		if ok, err := test(); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &object.Error{Kind: object.KindOf(ctx.Err()),
				Err: fmt.Errorf("partition %d has no leader that is ready: %w", g.cfg.ID, ctx.Err())}
		case <-g.closing:
		}
	}
}

func (g *Group) changes() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *Group) notify() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
}

// watch follows leadership until the group stops. raft's channel holds only the
// latest word, so a term may be lost and the next one won in a single true.
func (g *Group) watch(observed <-chan raft.Observation) {
	var told uint64 // the term OnLeader knows of
	tell := func(term uint64) {
		if told == term {
			return
		}
		if told != 0 {
			g.onLeader(false, told)
		}
		if told = term; told != 0 {
			g.onLeader(true, told)
		}
	}
	defer tell(0)
	for {
		select {
		case leads := <-g.raft.LeaderCh():
			if !leads {
				tell(0)
			} else if term := g.barrier(); term != 0 {
				g.ready.Store(term)
				tell(term)
			}
			g.notify()
		case <-observed:
			g.notify()
		case <-g.stopped:
			return
		}
	}
}

// barrier waits until everything of the terms before is applied, and returns the
// term in which it is; 0 when the leadership ended first.
func (g *Group) barrier() uint64 {
	term := g.raft.CurrentTerm()
	done := make(chan error, 1)
	go func() { done <- g.raft.Barrier(0).Error() }()
	select {
	case err := <-done:
		if err == nil && g.raft.CurrentTerm() == term {
			return term
		}
	case <-g.stopped:
	}
	return 0
}

func (g *Group) onLeader(leader bool, term uint64) {
	if g.cfg.OnLeader != nil {
		g.cfg.OnLeader(leader, term)
	}
}
