package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

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

// Basis is what a change of members was decided on: the leader's term and the index
// of the list of members. A change with another basis than the present one is
// refused with KindConflict. A zero value means whatever it is.
type Basis struct{ Term, Config uint64 }

// Observation is a group as its leader knows it.
type Observation struct {
	Basis
	Members  []Member // the newest list, which is committed
	CaughtUp []string // the ids of the non-voters that lack few entries
}

// Observe tells what the group is: a majority answered something that was sent after
// the call began, and the rest was read after that. No change of members that this
// replica has begun is outstanding then. Errors are Read's.
func (g *Group) Observe(ctx context.Context) (Observation, error) {
	for {
		moved := g.progress.wait()
		if err := g.Read(ctx); err != nil {
			return Observation{}, err
		}
		if err := g.turnTo(ctx); err != nil {
			return Observation{}, err
		}
		o, ok := g.observe()
		g.changing.give()
		if ok {
			return o, nil
		}
		select {
		case <-moved: // what raft has committed comes to the machine a little later
		case <-g.changes():
		case <-time.After(observeRetry):
		case <-ctx.Done():
			return Observation{}, object.Errorf(object.KindOf(ctx.Err()), "the members of partition %d are changing; look again: %w", g.cfg.ID, ctx.Err())
		}
	}
}

// observeRetry is how long Observe waits at most before it looks again.
const observeRetry = 100 * time.Millisecond

// observe is false when the newest list is not committed, or this node does not
// lead any more.
func (g *Group) observe() (o Observation, ok bool) {
	r := g.now()
	o.Term = g.ready.Load()
	committed, known := r.fsm.newest()
	if !known || !slices.Equal(committed.config.Servers, g.servers()) {
		return o, false
	}
	o.Config, o.Members = committed.index, members(committed.config.Servers)
	for _, m := range o.Members {
		if has, _ := g.peers.has(raft.ServerID(m.ID), o.Term); !m.Voter && has > 0 && has+promoteLag >= r.LastIndex() {
			o.CaughtUp = append(o.CaughtUp, m.ID)
		}
	}
	return o, g.leadsIn(o.Term)
}

// AddNonvoter adds a replica that gets the log and has no vote; of one that is
// there it changes the address. Its errors, as those of the other changes of
// members, mean what Propose's mean; KindConflict: the basis is not the present one.
func (g *Group) AddNonvoter(ctx context.Context, id, address string, on Basis) error {
	return g.change(ctx, "add "+id, on, func(r *raft.Raft) raft.Future {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), on.Config, enqueueTimeout)
	})
}

// Promote makes a replica a voter once it lacks few entries: before, it would slow
// commits down and could not stand in for another.
func (g *Group) Promote(ctx context.Context, id string, on Basis) error {
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
	return g.change(ctx, "promote "+id, on, func(r *raft.Raft) raft.Future {
		return r.AddVoter(raft.ServerID(m.ID), raft.ServerAddress(m.Address), on.Config, enqueueTimeout)
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

// Demote makes a voter a non-voter. As with Remove, a leader does not demote itself.
func (g *Group) Demote(ctx context.Context, id string, on Basis) error {
	if err := g.handOn(ctx, id, on); err != nil {
		return err
	}
	return g.change(ctx, "demote "+id, on, func(r *raft.Raft) raft.Future {
		return r.DemoteVoter(raft.ServerID(id), on.Config, enqueueTimeout)
	})
}

// Remove takes a replica out of the group; one that is not in it is no error. The
// leader cannot remove itself: it hands the leadership on and answers as a replica
// that does not lead, so ask the next one. The removed replica must be closed and
// destroyed by its node; it may never learn of it by itself.
func (g *Group) Remove(ctx context.Context, id string, on Basis) error {
	if err := g.mayLead(); err != nil {
		return err
	}
	if _, ok := g.member(id); !ok {
		return nil
	}
	if err := g.handOn(ctx, id, on); err != nil {
		return err
	}
	return g.change(ctx, "remove "+id, on, func(r *raft.Raft) raft.Future {
		return r.RemoveServer(raft.ServerID(id), on.Config, enqueueTimeout)
	})
}

// handOn hands the leadership on when it is this replica that is to lose its vote;
// the error is then that it does not lead.
func (g *Group) handOn(ctx context.Context, id string, on Basis) error {
	if id != g.cfg.Node || g.sole() {
		return nil
	}
	now, _ := g.now().fsm.newest()
	if on.Term != 0 && !g.leadsIn(on.Term) || on.Config != 0 && on.Config != now.index {
		return g.otherBasis(on)
	}
	if err := g.TransferLeadership(ctx, ""); err != nil {
		return err
	}
	return g.notLeader()
}

// TransferLeadership hands the leadership to a voter, or to whichever is furthest
// when to is "". nil: this node does not lead any more. KindUnavailable: it did
// not come to pass; this node may still lead.
//
// Only who answers is handed it: raft takes no proposals until its last word to the
// other has an end, which may be minutes where nobody is there (raft's
// leadershipTransfer waits for room in a queue that holds one, whatever its timeout).
func (g *Group) TransferLeadership(ctx context.Context, to string) error {
	if to == g.cfg.Node {
		return object.Errorf(object.KindInvalid, "replica %s cannot hand the leadership of partition %d to itself", to, g.cfg.ID)
	}
	m, ok := g.member(to)
	if to != "" && (!ok || !m.Voter) {
		return object.Errorf(object.KindInvalid, "replica %s is no voter of partition %d", to, g.cfg.ID)
	}
	if err := g.mayLead(); err != nil {
		return err
	}
	if m, ok = g.successor(to); !ok {
		if to == "" {
			to = "of another node"
		}
		return object.Errorf(object.KindUnavailable, "partition %d: the leadership stays: no replica %s has answered of late", g.cfg.ID, to)
	}
	err := g.run(ctx, "transfer leadership", func() {}, func(r *raft.Raft) raft.Future {
		return r.LeadershipTransferToServer(raft.ServerID(m.ID), raft.ServerAddress(m.Address))
	})
	if object.IsKind(err, object.KindInvalid) {
		err = object.Errorf(object.KindUnavailable, "partition %d: the leadership stays: %w", g.cfg.ID, err)
	}
	return err
}

// Behind is how many entries a replica lacks of this leader's log, as it last said; ok
// is false when it has not answered of late, or this replica does not lead.
func (g *Group) Behind(id string) (entries uint64, ok bool) {
	r := g.now()
	last, ok := g.peers.answers(raft.ServerID(id), r.CurrentTerm())
	if !ok || g.mayLead() != nil {
		return 0, false
	}
	here := r.LastIndex()
	return here - min(last, here), true // a former leader may have more, until it is told
}

// successor is the furthest of the other voters that answer, or the one that is named.
func (g *Group) successor(to string) (best Member, found bool) {
	term, furthest := g.now().CurrentTerm(), uint64(0)
	for _, m := range g.Members() {
		if !m.Voter || m.ID == g.cfg.Node || to != "" && m.ID != to {
			continue
		}
		if last, ok := g.peers.answers(raft.ServerID(m.ID), term); ok && (!found || last > furthest) {
			best, furthest, found = m, last, true
		}
	}
	return best, found
}

// change makes a change of members, while no other is under way here.
func (g *Group) change(ctx context.Context, what string, on Basis, start func(*raft.Raft) raft.Future) error {
	if err := g.mayLead(); err != nil {
		return err
	}
	if err := g.turnTo(ctx); err != nil {
		return err
	}
	// Until it is settled this replica wins no later term, where raft, which
	// queues changes, might still make it. In this order: see link.RequestVote.
	term := on.Term
	if term == 0 {
		term = g.now().CurrentTerm()
	}
	g.changing.term.Store(term)
	if on.Term != 0 && !g.leadsIn(on.Term) {
		g.changing.give()
		return g.otherBasis(on)
	}
	return g.run(ctx, what, g.changing.give, start)
}

func (g *Group) otherBasis(on Basis) error {
	return object.Errorf(object.KindConflict, "partition %d: this was decided in term %d on the members of entry %d, which have changed; look again", g.cfg.ID, on.Term, on.Config)
}

// turnTo waits until no change of members is under way, and lets none begin until
// changing.give.
func (g *Group) turnTo(ctx context.Context) error {
	select {
	case g.changing.token <- struct{}{}:
		return nil
	case <-g.stopped:
		return g.err()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return &object.Error{Kind: object.KindCanceled, Err: ctx.Err()}
		}
		return object.Errorf(object.KindOverload, "another change of members of partition %d is under way; try again: %w", g.cfg.ID, ctx.Err())
	}
}

// turn is whose change of members it is; the channel holds a token while one is
// under way, whether anyone still waits for it or not.
type turn struct {
	token chan struct{}
	term  atomic.Uint64 // in which it was decided; 0: none is under way
}

func (t *turn) give() {
	t.term.Store(0)
	<-t.token
}

// bars reports whether a change that was decided before a term is not settled.
func (t *turn) bars(term uint64) bool {
	decided := t.term.Load()
	return decided != 0 && decided < term
}

// run runs one of raft's own changes; done is called when it is settled, or was not begun.
func (g *Group) run(ctx context.Context, what string, done func(), start func(*raft.Raft) raft.Future) error {
	if err := g.mayLead(); err != nil {
		done()
		return err
	}
	if ctx.Err() != nil {
		done()
		return &object.Error{Kind: object.KindCanceled, Err: ctx.Err()}
	}
	r, settled := g.now(), make(chan error, 1)
	go func() {
		settled <- start(r.Raft).Error()
		done()
	}()
	select {
	case err := <-settled:
		return g.outcomeOf(what, err)
	case <-ctx.Done():
		return unknown(g, fmt.Errorf("%s: %w", what, ctx.Err()))
	case <-r.done:
		return unknown(g, fmt.Errorf("%s: %w", what, raft.ErrRaftShutdown))
	}
}

// changedSince is how raft's error begins when the list of members is not the one of
// prevIndex (hashicorp/raft, nextConfiguration).
const changedSince = "configuration changed since"

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
	case strings.HasPrefix(err.Error(), changedSince):
		return object.Errorf(object.KindConflict, "partition %d cannot %s; look at its members again: %w", g.cfg.ID, what, err)
	}
	return object.Errorf(object.KindInvalid, "partition %d cannot %s: %w", g.cfg.ID, what, err)
}
