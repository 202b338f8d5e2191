package steward

import (
	"context"
	"fmt"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// proposeFor bounds a command, createFor a new replica, changeFor a change of members.
	proposeFor = 10 * time.Second
	createFor  = 30 * time.Second
	changeFor  = 30 * time.Second
)

// turns of a round, by job.
type turns struct {
	order []string
	of    map[string][]control.Action
}

// copyJob is the job that brings chunk groups here, all that wait as one.
const copyJob = "copy chunks"

// mine picks the actions that are this node's, by the job that does them. A node
// without chunks leaves out those of the chunk groups.
func (s *Steward) mine(actions []control.Action, led0 bool, groups map[object.PartitionID]control.GroupSeen) turns {
	t := turns{of: map[string][]control.Action{}}
	for _, a := range actions {
		if s.cfg.Copy == nil && (a.Verb == control.Copy || a.Verb == control.Propose && (a.Command.Begin != nil || a.Command.Advance != nil)) {
			continue
		}
		_, here := groups[a.Partition]
		job := ""
		switch {
		case a.By == control.ControlLeader && led0:
			job = "control"
		case a.By == control.PartitionLeader && here:
			job = jobOf(a.Partition)
		case a.By == control.TheNode && a.Node != s.cfg.Self.Node:
			continue
		case a.Verb == control.Copy:
			job = copyJob
		case a.By == control.TheNode:
			job = fmt.Sprintf("destroy %d", a.Partition)
		default:
			continue
		}
		if t.of[job] == nil {
			t.order = append(t.order, job)
		}
		t.of[job] = append(t.of[job], a)
	}
	return t
}

func jobOf(p object.PartitionID) string { return fmt.Sprintf("partition %d", p) }

// do begins the jobs of a round. It reports whether the next round should come
// soon: there was something to do, and nothing has failed lately.
func (s *Steward) do(t turns) bool {
	for _, name := range t.order {
		list := t.of[name]
		s.job(name, func(ctx context.Context) error {
			if name == copyJob {
				return s.copy(ctx, list)
			}
			return s.perform(ctx, list)
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := s.failed
	s.failed = false
	return len(t.order) > 0 && !failed
}

// underway reports whether a job of that name has not ended.
func (s *Steward) underway(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs[name]
}

// job does something beside the rounds, unless a job of that name is under way;
// when it has succeeded, another round begins. Nothing is done while too many are: it comes again.
func (s *Steward) job(name string, do func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.jobs[name] {
		return
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return
	}
	s.jobs[name] = true
	s.tasks.Go(func() {
		err := do(s.ctx)
		if err != nil && s.ctx.Err() == nil {
			s.complain.warn(name, "a step did not succeed; it comes again", err, "job", name)
		}
		s.mu.Lock()
		delete(s.jobs, name)
		s.failed = s.failed || err != nil
		s.mu.Unlock()
		<-s.slots
		if err == nil {
			s.Wake()
		}
	})
}

// copy has the chunks of joint groups fetched and verified here.
func (s *Steward) copy(ctx context.Context, list []control.Action) error {
	moves := make([]CopyMove, len(list))
	for i, a := range list {
		moves[i] = CopyMove{a.Group, a.Lists}
	}
	return s.cfg.Copy(ctx, moves)
}

// perform does actions in order. What is refused because the map has moved on is
// no failure; any other error ends it: what follows may have relied on it.
func (s *Steward) perform(ctx context.Context, list []control.Action) error {
	for _, a := range list {
		err := s.act(ctx, a)
		switch {
		case err == nil:
			s.log.Info("done", "what", describe(a))
		case object.IsKind(err, object.KindConflict), object.IsKind(err, object.KindStale):
			s.log.Debug("the map has moved on", "what", describe(a), "error", err)
		default:
			return object.Errorf(object.KindOf(err), "%s: %w", describe(a), err)
		}
	}
	return nil
}

func (s *Steward) act(ctx context.Context, a control.Action) error {
	switch a.Verb {
	case control.Propose:
		ctx, cancel := context.WithTimeout(ctx, proposeFor)
		defer cancel()
		r, err := s.cfg.Propose(ctx, a.Command)
		if err != nil {
			return err
		}
		return r.Err()
	case control.Create:
		ctx, cancel := context.WithTimeout(ctx, createFor)
		defer cancel()
		return s.create(ctx, a)
	case control.Destroy:
		return s.replicas.destroy(ctx, a.Partition, a.Replica.Generation)
	case control.AddNonvoter, control.Promote, control.Demote, control.RemoveMember, control.Transfer:
		ctx, cancel := context.WithTimeout(ctx, changeFor)
		defer cancel()
		return s.change(ctx, a)
	}
	return object.Errorf(object.KindInternal, "an action that this program does not know")
}

// create has a node make a replica.
func (s *Steward) create(ctx context.Context, a control.Action) error {
	b, err := encode(&createRequest{Partition: a.Partition, Generation: a.Replica.Generation, Node: a.Node})
	if err != nil {
		return err
	}
	_, err = s.cfg.Transport.Call(ctx, string(a.Node), MethodCreate, b)
	s.watch.due(a.Node)
	return err
}

// change changes a group's members, or its leader, on the basis of what was seen.
func (s *Steward) change(ctx context.Context, a control.Action) error {
	g := s.replicas.group(a.Partition)
	if g == nil {
		return object.Errorf(object.KindUnavailable, "the replica here has been closed")
	}
	s.mu.Lock()
	on := Basis{Term: s.terms[a.Partition], Config: a.Config}
	s.mu.Unlock()
	id := a.Replica.String()
	switch a.Verb {
	case control.AddNonvoter:
		return g.AddNonvoter(ctx, id, string(a.Replica.Node), on)
	case control.Promote:
		return g.Promote(ctx, id, on)
	case control.Demote:
		return g.Demote(ctx, id, on)
	case control.RemoveMember:
		return g.Remove(ctx, id, on)
	}
	return g.TransferLeadership(ctx, id)
}

// describe is an action for people.
func describe(a control.Action) string {
	switch {
	case a.Verb != control.Propose:
		return fmt.Sprintf("%s %s of partition %d", a.Verb, a.Replica, a.Partition)
	case a.Command.Step != nil:
		return fmt.Sprintf("replica %s of partition %d becomes %s", a.Replica, a.Partition, a.Command.Step.To)
	case a.Command.Place != nil:
		return fmt.Sprintf("a replica of partition %d for node %s", a.Command.Place.Partition, a.Command.Place.Node)
	case a.Command.Lost != nil:
		return fmt.Sprintf("replica %s of partition %d is lost", a.Command.Lost.Replica, a.Command.Lost.Partition)
	case a.Command.Plan != nil:
		return "a new plan"
	case a.Command.Admit != nil:
		return fmt.Sprintf("node %s is admitted", a.Command.Admit.Node)
	case a.Command.Begin != nil:
		return fmt.Sprintf("%d chunk groups of width %d begin to move", len(a.Command.Begin.Moves), a.Command.Begin.Width)
	case a.Command.Advance != nil:
		return fmt.Sprintf("%d chunk groups of width %d: %s", len(a.Command.Advance.Groups), a.Command.Advance.Width, a.Command.Advance.To)
	case a.Command.MarkGone != nil:
		return fmt.Sprintf("node %s is gone", a.Command.MarkGone.Node)
	case a.Command.MarkBack != nil:
		return fmt.Sprintf("node %s is back", a.Command.MarkBack.Node)
	}
	return "a command of the control group"
}
