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
// KindOverload (no free slot before ctx ended) and KindTooLarge (see MaxEntry):
// certainly not applied, and it never will be. KindTimeout: unknown; it may be applied now, later or never.
// KindCanceled: ctx was cancelled before the proposal was made.
func (g *Group) Propose(ctx context.Context, data []byte) (any, error) {
	if len(data) > MaxEntry { // raft would step down, or send it in vain for ever
		return nil, object.Errorf(object.KindTooLarge, "a change of %d bytes does not fit the log of partition %d (at most %d): make smaller ones", len(data), g.cfg.ID, MaxEntry)
	}
	r := g.now()
	if err := g.take(ctx, r); err != nil {
		return nil, err
	}
	done, slots := make(chan outcome, 1), r.slots
	// A goroutine of its own, because raft's futures know no context; it holds
	// the slot until the outcome is there, whether anyone still waits or not.
	go func() {
		f := r.Apply(data, enqueueTimeout)
		err := f.Error()
		o := outcome{err: err}
		if err == nil {
			o.result = f.Response()
		}
		done <- o
		<-slots // not r's: raft may never answer once it has stopped, and this must not hold the node then
	}()
	select {
	case o := <-done:
		return g.settle(o)
	case <-ctx.Done():
		return nil, unknown(g, ctx.Err())
	case <-r.done:
	}
	select {
	case o := <-done:
		return g.settle(o)
	default:
		return nil, unknown(g, raft.ErrRaftShutdown)
	}
}

// take takes a slot for a proposal, or says why there will be none.
func (g *Group) take(ctx context.Context, r *instance) error {
	if err := g.mayLead(); err != nil {
		return err
	}
	if ctx.Err() == nil { // select would not prefer an end that is there already
		select {
		case r.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
		case <-g.closing:
			return g.err()
		case <-r.done:
			return g.refused()
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return &object.Error{Kind: object.KindCanceled, Err: ctx.Err()}
	}
	return object.Errorf(object.KindOverload, "partition %d: more than %d changes are under way; try again", g.cfg.ID, cap(r.slots))
}

// mayLead is nil when this node leads, as far as it knows.
func (g *Group) mayLead() error {
	if err := g.err(); err != nil {
		return err
	}
	if g.now().State() == raft.Leader {
		return nil
	}
	return g.notLeader()
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
	case refusal(o.err):
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

// refusal reports whether raft did nothing because it does not lead, or is about
// not to.
func refusal(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress)
}

// certain reports whether the log, failing with this kind, has kept nothing.
func certain(k object.Kind) bool {
	return k == object.KindNoSpace || k == object.KindInvalid || k == object.KindTooLarge
}

func unknown(g *Group, cause error) error {
	return &object.Error{Kind: object.KindTimeout, Err: fmt.Errorf(
		"partition %d: whether the change was made is unknown (%w); look, or retry it with the same token", g.cfg.ID, cause)}
}
