package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// enqueueTimeout is how long a proposal waits for raft's main loop to take it.
const enqueueTimeout = 5 * time.Second

// outcome is what became of a proposal.
type outcome struct {
	result any
	err    error
}

// Propose commits data and returns what the machine's Apply gave for it. data
// belongs to the group from then on: do not change it.
//
// What an error means: KindUnavailable (this node does not lead, or stopped) and
// KindOverload (no free slot before ctx ended): certainly not applied, and it
// never will be. KindTimeout: unknown; it may be applied now, later or never.
// KindCanceled: ctx was cancelled before the proposal was made.
func (g *Group) Propose(ctx context.Context, data []byte) (any, error) {
	if err := g.take(ctx); err != nil {
		return nil, err
	}
	done := make(chan outcome, 1)
	// A goroutine of its own, because raft's futures know no context; it holds
	// the slot until the outcome is there, whether anyone still waits or not.
	go func() {
		f := g.raft.Apply(data, enqueueTimeout)
		err := f.Error()
		o := outcome{err: err}
		if err == nil {
			o.result = f.Response()
		}
		done <- o
		<-g.slots
	}()
	select {
	case o := <-done:
		return g.settle(o)
	case <-ctx.Done():
		return nil, unknown(g, ctx.Err())
	case <-g.stopped:
	}
	select {
	case o := <-done:
		return g.settle(o)
	default:
		return nil, unknown(g, raft.ErrRaftShutdown)
	}
}

// take takes a slot for a proposal, or says why there will be none.
func (g *Group) take(ctx context.Context) error {
	if err := g.mayLead(); err != nil {
		return err
	}
	if ctx.Err() == nil { // select would not prefer an end that is there already
		select {
		case g.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
		case <-g.closing:
			return g.err()
		case <-g.stopped:
			return g.mayLead()
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return &object.Error{Kind: object.KindCanceled, Err: ctx.Err()}
	}
	return object.Errorf(object.KindOverload, "partition %d: more than %d changes are under way; try again", g.cfg.ID, cap(g.slots))
}

// mayLead is nil when this node leads, as far as it knows.
func (g *Group) mayLead() error {
	if err := g.err(); err != nil {
		return err
	}
	if g.raft.State() == raft.Leader {
		return nil
	}
	return g.notLeader()
}

func (g *Group) notLeader() error {
	if node, ok := g.Leader(); ok && node != g.cfg.Node {
		return object.Errorf(object.KindUnavailable, "partition %d is led by node %s; ask there", g.cfg.ID, node)
	}
	return object.Errorf(object.KindUnavailable, "partition %d has no leader now; try again", g.cfg.ID)
}

// settle turns raft's answer into ours.
func (g *Group) settle(o outcome) (any, error) {
	var ours *object.Error
	switch {
	case o.err == nil:
		if f, failed := o.result.(failure); failed {
			return nil, unknown(g, f.err)
		}
		return o.result, nil
	case errors.Is(o.err, raft.ErrNotLeader), errors.Is(o.err, raft.ErrLeadershipTransferInProgress):
		return nil, g.notLeader()
	case errors.Is(o.err, raft.ErrEnqueueTimeout):
		return nil, object.Errorf(object.KindOverload, "partition %d is too busy; try again", g.cfg.ID)
	case errors.As(o.err, &ours) && certain(ours.Kind):
		return nil, o.err
	}
	// Lost leadership, a shutdown or a failed log write: a later leader, or this
	// node after a restart, may find the entry in its log and commit it.
	return nil, unknown(g, o.err)
}

// certain reports whether the log, failing with this kind, has kept nothing.
func certain(k object.Kind) bool {
	return k == object.KindNoSpace || k == object.KindInvalid || k == object.KindTooLarge
}

func unknown(g *Group, cause error) error {
	return &object.Error{Kind: object.KindTimeout, Err: fmt.Errorf(
		"partition %d: whether the change was made is unknown (%w); look, or retry it with the same token", g.cfg.ID, cause)}
}

// Read returns once this node may answer from its machine's state: everything
// that was acknowledged before the call is in it. KindUnavailable when another
// node leads; KindTimeout or KindCanceled when ctx ends first.
//
// With one voter no other leader can exist, and a write is acknowledged only
// after it is applied, so leading with the term's barrier behind us suffices.
// With more voters KindNotSupported, until the transport has the sent-after rule
// of RAFT.md: VerifyLeader alone was seen to let stale answers through.
func (g *Group) Read(ctx context.Context) error {
	if !g.sole() {
		return object.Errorf(object.KindNotSupported, "partition %d: linearizable reads in a group of several voters", g.cfg.ID)
	}
	if g.isReady() {
		return nil
	}
	return g.wait(ctx, func() (bool, error) {
		if g.isReady() {
			return true, nil
		}
		if node, ok := g.Leader(); ok && node != g.cfg.Node {
			return false, g.notLeader()
		}
		return false, nil
	})
}
