package group

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// promoteLag is how many entries a joiner may lack when it becomes a voter: one
// more request brings it up.
const promoteLag = maxAppendEntries

// Members is the newest list that this replica knows; it may not be committed yet.
func (g *Group) Members() []Member { return members(g.servers()) }

func members(servers []raft.Server) []Member {
	list := make([]Member, len(servers))
	for i, s := range servers {
		list[i] = Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter}
	}
	return list
}

func (g *Group) member(id string) (Member, bool) {
	for _, m := range g.Members() {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// AddNonvoter adds a replica that gets the log and has no vote; of one that is
// there it changes the address. Its errors, as those of the other changes of
// members, mean what Propose's mean.
func (g *Group) AddNonvoter(ctx context.Context, id, address string) error {
	return g.change(ctx, "add "+id, func(r *raft.Raft) raft.Future {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, enqueueTimeout)
	})
}

// Promote makes a replica a voter once it lacks few entries: before, it would slow
// commits down and could not stand in for another.
func (g *Group) Promote(ctx context.Context, id string) error {
	m, ok := g.member(id)
	if !ok {
		return object.Errorf(object.KindNotFound, "replica %s is no member of partition %d; add it first", id, g.cfg.ID)
	}
	if m.Voter {
		return nil
	}
	if err := g.waitFor(ctx, id); err != nil {
		return err
	}
	return g.change(ctx, "promote "+id, func(r *raft.Raft) raft.Future {
		return r.AddVoter(raft.ServerID(m.ID), raft.ServerAddress(m.Address), 0, enqueueTimeout)
	})
}

// waitFor waits until a replica has nearly all of the log.
func (g *Group) waitFor(ctx context.Context, id string) error {
	for {
		led := g.changes()
		if err := g.mayLead(); err != nil {
			return err
		}
		r := g.now()
		has, more := g.peers.has(raft.ServerID(id), r.CurrentTerm())
		if has > 0 && has+promoteLag >= r.LastIndex() {
			return nil
		}
		select {
		case <-more:
		case <-led:
		case <-ctx.Done():
			return object.Errorf(object.KindUnavailable, "replica %s of partition %d has entries up to %d of %d; try again: %w",
				id, g.cfg.ID, has, r.LastIndex(), ctx.Err())
		}
	}
}

// Demote makes a voter a non-voter.
func (g *Group) Demote(ctx context.Context, id string) error {
	return g.change(ctx, "demote "+id, func(r *raft.Raft) raft.Future {
		return r.DemoteVoter(raft.ServerID(id), 0, enqueueTimeout)
	})
}

// Remove takes a replica out of the group; one that is not in it is no error. The
// leader cannot remove itself: it hands the leadership on and answers as a replica
// that does not lead, so ask the next one. The removed replica must be closed and
// destroyed by its node; it may never learn of it by itself.
func (g *Group) Remove(ctx context.Context, id string) error {
	if err := g.mayLead(); err != nil {
		return err
	}
	if _, ok := g.member(id); !ok {
		return nil
	}
	if id == g.cfg.Node && !g.sole() {
		if err := g.TransferLeadership(ctx, ""); err != nil {
			return err
		}
		return g.notLeader()
	}
	return g.change(ctx, "remove "+id, func(r *raft.Raft) raft.Future {
		return r.RemoveServer(raft.ServerID(id), 0, enqueueTimeout)
	})
}

// TransferLeadership hands the leadership to a voter, or to whichever is furthest
// when to is "". nil: this node does not lead any more. KindUnavailable: it did
// not come to pass; this node may still lead.
func (g *Group) TransferLeadership(ctx context.Context, to string) error {
	if to == g.cfg.Node {
		return object.Errorf(object.KindInvalid, "replica %s cannot hand the leadership of partition %d to itself", to, g.cfg.ID)
	}
	m, ok := g.member(to)
	if to != "" && (!ok || !m.Voter) {
		return object.Errorf(object.KindInvalid, "replica %s is no voter of partition %d", to, g.cfg.ID)
	}
	err := g.change(ctx, "transfer leadership", func(r *raft.Raft) raft.Future {
		if to == "" {
			return r.LeadershipTransfer()
		}
		return r.LeadershipTransferToServer(raft.ServerID(m.ID), raft.ServerAddress(m.Address))
	})
	if object.IsKind(err, object.KindInvalid) {
		err = object.Errorf(object.KindUnavailable, "partition %d: the leadership stays: %w", g.cfg.ID, err)
	}
	return err
}

// change runs one of raft's own changes.
func (g *Group) change(ctx context.Context, what string, start func(*raft.Raft) raft.Future) error {
	if err := g.mayLead(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return &object.Error{Kind: object.KindCanceled, Err: ctx.Err()}
	}
	r, done := g.now(), make(chan error, 1)
	go func() { done <- start(r.Raft).Error() }()
	select {
	case err := <-done:
		return g.outcomeOf(what, err)
	case <-ctx.Done():
		return unknown(g, fmt.Errorf("%s: %w", what, ctx.Err()))
	case <-r.done:
		return unknown(g, fmt.Errorf("%s: %w", what, raft.ErrRaftShutdown))
	}
}

// outcomeOf turns raft's answer to a change into ours.
func (g *Group) outcomeOf(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case refusal(err):
		return g.notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return object.Errorf(object.KindOverload, "partition %d is too busy to %s; try again", g.cfg.ID, what)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return unknown(g, err)
	}
	return object.Errorf(object.KindInvalid, "partition %d cannot %s: %w", g.cfg.ID, what, err)
}
