package steward

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// sweepEvery is how often a leader looks at groups in which nothing is to be done.
	sweepEvery = 30 * time.Second
	// askApart bounds the questions per second.
	askApart = 5 * time.Millisecond
	// stateFor bounds the reading of the control state.
	stateFor = 5 * time.Second
	// confirmFor bounds a look at a group, for which a majority must confirm that this node leads.
	confirmFor = 3 * time.Second
)

// loop runs rounds until the steward is closed.
func (s *Steward) loop() {
	pause := s.cfg.Pause
	var led bool
	for {
		began := s.cfg.now()
		busy, err := s.round(s.ctx, &led)
		if err != nil && s.ctx.Err() == nil {
			s.complain.warn("round", "the cluster's state cannot be looked at; replicas are not taken care of until it can", err)
		}
		// A shortest pause after what woke us; without that, longer and longer ones.
		if busy {
			pause = s.cfg.Pause
		} else {
			pause = min(2*pause, s.cfg.Tick)
		}
		if !sleep(s.ctx, s.cfg.Pause-s.cfg.now().Sub(began), nil) || !sleep(s.ctx, pause-s.cfg.Pause, s.wake) {
			return
		}
	}
}

// sleep waits; it returns early when woken, and false when ctx ends.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// round looks at the world and begins what is this node's turn. led says whether this
// node led the control group in the round before.
func (s *Steward) round(ctx context.Context, led *bool) (busy bool, err error) {
	st, err := s.state(ctx, false)
	if object.IsKind(err, object.KindNotFound) {
		st, err = s.state(ctx, true)
	}
	if err != nil {
		return false, err
	}
	if n := st.Node(s.cfg.Self.Node); n != nil && slices.Contains(n.Past, s.cfg.Self.Incarnation) {
		return false, object.Errorf(object.KindStale, "a later process of node %s has started: this one must end", n.ID)
	}
	if err := s.adopt(st); err != nil { // only the next start needs them
		s.complain.warn("peers", "the nodes' addresses cannot be kept for the next start", err)
	}
	if err := s.replicas.losses(ctx, st); err != nil {
		return false, err
	}
	if s.replicas.unfinished() {
		s.job("resume", func(ctx context.Context) error { s.replicas.resume(ctx); return nil })
	}
	s.watch.forget(st)

	led0, partitions := s.duties(st)
	if led0 && !*led {
		s.watch.reset()
	}
	*led = led0
	s.ask(s.concerned(st, led0, partitions))

	groups := s.look(ctx, st, partitions)
	if len(groups) > 0 { // their Current is asked after all of them were read
		now, err := s.state(ctx, true)
		if err != nil {
			return false, err
		}
		st = now
		for p, g := range groups {
			g.Current, g.Kept = st.Epoch, s.keepsLead(p)
			groups[p] = g
		}
	}
	s.keep(partitions, groups)
	actions, planErr := control.Next(st, s.observed(st, led0, groups))
	if planErr != nil && led0 {
		s.complain.warn("plan", "no plan can be made for these nodes", planErr)
	}
	return s.do(s.mine(actions, led0, groups)), nil
}

func (s *Steward) state(ctx context.Context, linearizable bool) (*control.State, error) {
	ctx, cancel := context.WithTimeout(ctx, stateFor)
	defer cancel()
	return s.cfg.State(ctx, linearizable)
}

// duties says whether this node leads the control group, and which of the partitions that it
// leads are to be looked at.
func (s *Steward) duties(st *control.State) (led0 bool, list []object.PartitionID) {
	s.mu.Lock()
	sweep := s.cfg.now().Sub(s.swept) >= sweepEvery
	if sweep {
		s.swept = s.cfg.now()
	}
	s.mu.Unlock()
	for p, g := range s.replicas.groups() {
		if int(p) >= len(st.Partitions) || !g.IsLeader() {
			continue
		}
		led0 = led0 || p == object.Control
		if sweep || !settled(st, &st.Partitions[p]) || s.preferred(st, p) && !s.keepsLead(p) {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return led0, list
}

// settled reports whether a partition's replicas are as the plan has them, as far as the state shows.
func settled(st *control.State, p *control.Partition) bool {
	want := st.Target.Of(p.ID)
	voters := 0
	for _, r := range p.Replicas {
		planned := slices.Contains(want, r.ID.Node)
		switch {
		case r.Lost:
			return false
		case r.State == control.InForce && planned:
			voters++
		case r.State == control.Learner && p.ID == object.Control && !planned:
		default:
			return false
		}
	}
	return voters == len(want)
}

// KeepLead has this node keep the leadership of a partition for a while, if it gets it,
// though another is preferred; 0 ends that. It is in memory: a restart hands it back.
func (s *Steward) KeepLead(p object.PartitionID, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d > 0 {
		s.kept[p] = s.cfg.now().Add(d)
	} else {
		delete(s.kept, p)
	}
	s.Wake()
}

// keepsLead reports whether KeepLead's time for a partition is not over.
func (s *Steward) keepsLead(p object.PartitionID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.kept[p]
	if ok && !s.cfg.now().Before(until) {
		delete(s.kept, p)
		return false
	}
	return ok
}

// preferred reports whether a partition that this node leads should be led by another.
func (s *Steward) preferred(st *control.State, p object.PartitionID) bool {
	for _, r := range st.Replicas(p) {
		if r.State == control.InForce && !r.Lost && st.Node(r.ID.Node) != nil && !st.Node(r.ID.Node).Gone {
			return r.ID.Node != s.cfg.Self.Node
		}
	}
	return false
}

// concerned are the nodes that have to be heard, and how often: those of partitions in which
// something is to be done at every round, unless they are many; by the control leader all others now and then.
func (s *Steward) concerned(st *control.State, led0 bool, partitions []object.PartitionID) map[control.NodeID]time.Duration {
	often := map[control.NodeID]bool{}
	for i := range st.Partitions {
		p := &st.Partitions[i]
		if slices.Contains(partitions, p.ID) || led0 && !settled(st, p) {
			for _, r := range p.Replicas {
				often[r.ID.Node] = true
			}
		}
	}
	if led0 && s.cfg.Copy != nil {
		for _, l := range st.Layouts {
			for _, g := range l.Groups {
				if g.Next == nil {
					continue
				}
				for k := range g.Next { // None is no node's
					often[g.Holders[k]], often[g.Next[k]] = true, true
				}
			}
		}
	}
	list := map[control.NodeID]time.Duration{}
	for i := range st.Nodes {
		n := &st.Nodes[i]
		switch {
		case n.Life == control.NodeRemoved || n.ID == s.cfg.Self.Node:
		case often[n.ID]:
			list[n.ID] = max(s.cfg.Pause, time.Duration(len(often))*askApart)
		case led0:
			list[n.ID] = s.cfg.Tick / 2 // no round that comes after a Tick skips it
		}
	}
	return list
}

// look asks the groups of partitions who is in them; st was read before. Those that
// cannot say it for sure are left out. Current is not set yet.
func (s *Steward) look(ctx context.Context, st *control.State, partitions []object.PartitionID) map[object.PartitionID]control.GroupSeen {
	var mu sync.Mutex
	out := map[object.PartitionID]control.GroupSeen{}
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxJobs)
	for _, p := range partitions {
		g := s.replicas.group(p)
		if g == nil || s.underway(jobOf(p)) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if seen, ok := s.lookAt(ctx, st, p, g); ok {
				mu.Lock()
				defer mu.Unlock()
				out[p] = seen
			}
		})
	}
	wg.Wait()
	return out
}

func (s *Steward) lookAt(ctx context.Context, st *control.State, p object.PartitionID, g Group) (seen control.GroupSeen, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, confirmFor)
	defer cancel()
	m, err := g.Observe(ctx)
	if err != nil {
		if s.ctx.Err() == nil && g.IsLeader() {
			s.complain.warn(fmt.Sprintf("look %d", p), "a group that is led here does not say who is in it; its replicas wait", err, "partition", uint16(p))
		}
		return seen, false
	}
	seen = control.GroupSeen{Epoch: st.Epoch, Config: m.Config, Leader: s.replicas.self(s.replicas.rec.get(p).Generation),
		Members: map[control.ReplicaID]bool{}, CaughtUp: map[control.ReplicaID]bool{}}
	for _, x := range m.Members {
		id, err := control.ParseReplicaID(x.ID)
		if err != nil {
			s.complain.warn("member "+x.ID, "a group has a member that is no replica", err, "partition", uint16(p))
			return seen, false
		}
		seen.Members[id] = x.Voter
		if slices.Contains(m.CaughtUp, x.ID) {
			seen.CaughtUp[id] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.terms[p] = m.Term
	return seen, true
}

// keep notes what was seen of this node's groups, for its reports.
func (s *Steward) keep(looked []object.PartitionID, groups map[object.PartitionID]control.GroupSeen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.seen {
		if !slices.Contains(looked, p) {
			delete(s.seen, p)
		}
	}
	maps.Copy(s.seen, groups)
}

// observed is what Next is told.
func (s *Steward) observed(st *control.State, led0 bool, groups map[object.PartitionID]control.GroupSeen) *control.Observed {
	o := &control.Observed{Nodes: map[control.NodeID]control.NodeSeen{}, Partitions: map[object.PartitionID]control.GroupSeen{}, Verified: map[control.GroupKey][]control.NodeID{}}
	for i := range st.Nodes {
		n := &st.Nodes[i]
		if n.ID == s.cfg.Self.Node {
			o.Nodes[n.ID] = control.NodeSeen{Up: n.Incarnation == s.cfg.Self.Incarnation, Epoch: s.cfg.Adopted(), Replicas: s.replicas.held(st)}
		} else if seen, ok := s.watch.seen(n); ok {
			o.Nodes[n.ID] = seen
		}
	}
	for _, key := range s.cfg.Verified() {
		o.Verified[key] = []control.NodeID{s.cfg.Self.Node}
	}
	if led0 {
		s.watch.groups(o.Partitions)
		s.watch.verified(st, o.Verified)
	}
	maps.Copy(o.Partitions, groups)
	return o
}
