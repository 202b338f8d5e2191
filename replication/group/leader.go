package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Leader is the node that leads, as far as this one knows; ok is false when it
// knows none.
func (g *Group) Leader() (node string, ok bool) {
	_, id := g.now().LeaderWithID()
	return string(id), id != ""
}

// IsLeader reports whether this node leads and has applied everything of the
// terms before. It may have been deposed without knowing yet: see Read.
func (g *Group) IsLeader() bool { return g.isReady() }

func (g *Group) isReady() bool {
	ready := g.ready.Load()
	r := g.now()
	return ready != 0 && g.failure.Load() == nil && r.State() == raft.Leader && r.CurrentTerm() == ready
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

// watch follows the leadership of one instance until it stops. raft's channel holds only the
// latest word, so a term may be lost and the next one won in a single true.
func (g *Group) watch(i *instance, observed <-chan raft.Observation) {
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
		case leads := <-i.LeaderCh():
			if !leads {
				tell(0)
			} else if term := g.barrier(i); term != 0 {
				g.ready.Store(term)
				tell(term)
			}
			g.notify()
		case <-observed:
			g.notify()
		case <-i.done:
			return
		}
	}
}

// barrierRetry is the pause before another barrier, while raft takes none.
const barrierRetry = 10 * time.Millisecond

// barrier waits until everything of the terms before is applied, and returns the
// term in which it is; 0 when the leadership ended first. While the leadership is
// being handed on raft takes no barrier; it may stay here after all.
func (g *Group) barrier(i *instance) uint64 {
	term := i.CurrentTerm()
	for {
		f := i.Barrier(0)
		done := make(chan error, 1)
		go func() { done <- f.Error() }()
		select {
		case err := <-done:
			if at, ok := f.(raft.IndexFuture); ok && err == nil {
				// The no-op and this are all in the term that does not come to the machine.
				i.fsm.reached(at.Index())
			}
			if err == nil && i.CurrentTerm() == term {
				return term
			}
		case <-i.done:
			return 0
		}
		if i.State() != raft.Leader || i.CurrentTerm() != term {
			return 0
		}
		select {
		case <-time.After(barrierRetry):
		case <-i.done:
			return 0
		}
	}
}

// NotLeader is the cause of an error of a replica that does not lead.
type NotLeader struct {
	Partition object.PartitionID
	Leader    string // replica id; "" when none is known
}

// Error says where to ask.
func (e *NotLeader) Error() string {
	if e.Leader == "" {
		return fmt.Sprintf("partition %d has no leader now; try again", e.Partition)
	}
	return fmt.Sprintf("partition %d is led by node %s; ask there", e.Partition, e.Leader)
}

// LeaderOf is the replica that leads, according to the error of one that does not.
// ok is false for other errors, and when none was known.
func LeaderOf(err error) (replica string, ok bool) {
	var e *NotLeader
	if errors.As(err, &e) {
		return e.Leader, e.Leader != ""
	}
	return "", false
}

func (g *Group) notLeader() error {
	e := &NotLeader{Partition: g.cfg.ID}
	if node, ok := g.Leader(); ok && node != g.cfg.Node {
		e.Leader = node
	}
	return &object.Error{Kind: object.KindUnavailable, Err: e}
}

func (g *Group) onLeader(leader bool, term uint64) {
	if g.cfg.OnLeader != nil {
		g.cfg.OnLeader(leader, term)
	}
}
