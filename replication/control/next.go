package control

import (
	"cmp"
	"maps"
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Next says what is to be done now, from the state (which may lag) and what is
// observed (which may be incomplete). It is pure, and keeps nothing between calls:
// after a crash or a change of leaders the next call goes on. No actions: all is as
// planned. An error says why no plan could be made; the actions are good all the same.
func Next(s *State, o *Observed) ([]Action, error) {
	v := &view{s: s, o: o, current: s.Planned >= s.Inputs}
	v.judgeNodes()
	var err error
	if !v.current {
		var plan *Plan
		if plan, err = NewPlan(s); err == nil {
			v.propose(&Command{Plan: plan})
		}
	}
	for i := range s.Partitions {
		v.partition(&s.Partitions[i])
	}
	if v.current {
		v.placeReplicas()
	}
	v.leftovers()
	for _, l := range s.Layouts {
		v.groups(l)
	}
	return v.actions, err
}

// view is one call of Next.
type view struct {
	s       *State
	o       *Observed
	current bool // the plan is for the nodes as they are
	actions []Action
}

func (v *view) add(a Action) { v.actions = append(v.actions, a) }

func (v *view) propose(c *Command) {
	v.add(Action{Verb: Propose, By: ControlLeader, Command: c})
}

// up reports whether a node that is not removed answers.
func (v *view) up(id NodeID) bool {
	n := v.s.Node(id)
	return n != nil && n.Life != NodeRemoved && v.o.Nodes[id].Up
}

// ready reports whether new things can go to a node.
func (v *view) ready(id NodeID) bool { return v.up(id) && v.s.Node(id).here() }

// judgeNodes admits who has joined, and marks who is gone or back.
func (v *view) judgeNodes() {
	for i := range v.s.Nodes {
		n := &v.s.Nodes[i]
		seen, known := v.o.Nodes[n.ID]
		if n.Life == NodeRemoved || !known {
			continue
		}
		mark := &Mark{n.ID, n.Incarnation}
		switch x := v.s.Partitions[object.Control].on(n.ID); {
		case n.Gone && seen.Up:
			v.propose(&Command{MarkBack: mark})
		case !n.Gone && !seen.Up && seen.Silent >= v.s.Settings.GoneAfter:
			v.propose(&Command{MarkGone: mark})
		case n.Life == NodeJoining && x != nil && !x.Lost && x.State >= Learner && x.State <= InForce:
			v.propose(&Command{Admit: &Admit{n.ID, n.Store}})
		}
	}
}

// NewPlan plans for the nodes as the state has them: nodes that drain or are gone keep what
// no other can take; nodes that join or are removed have no part.
func NewPlan(s *State) (*Plan, error) {
	nodes := s.Plannable()
	today := placement.NewMap(s.Header.Partitions)
	for i := range today.Partitions {
		today.Partitions[i] = s.today(object.PartitionID(i + 1))
	}
	data, err := placement.Plan(nodes, s.Settings.RF, today)
	if err != nil {
		return nil, err
	}
	data.Epoch = 0 // the header's counts
	control := placement.NewMap(1)
	control.Partitions[0] = s.today(object.Control)
	voters, err := placement.Plan(nodes, s.voters(), control)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Epoch: s.Epoch}
	if plan.Target, err = (&Target{Data: data, Voters: voters.Partitions[0]}).encode(); err != nil {
		return nil, err
	}
	for _, l := range s.Layouts {
		slots, err := l.Plan(nodes)
		if err != nil {
			return nil, err
		}
		for i, g := range l.Groups {
			slots[i] = reslot(g.Holders, slots[i])
		}
		packed, err := encodeSlots(l.Width, slots)
		if err != nil {
			return nil, err
		}
		plan.Layouts = append(plan.Layouts, PlanOfWidth{Width: l.Width, Slots: packed})
	}
	return plan, nil
}

// reslot gives planned nodes that hold a slot of the group already that slot, if one of
// them has another in the plan: that was made from where a joint group is going, and
// the group has to turn back.
func reslot(now, planned []NodeID) []NodeID {
	if !misplaced(now, planned) {
		return planned
	}
	slots := make([]NodeID, len(planned))
	for k, id := range now {
		if id != placement.None && slices.Contains(planned, id) {
			slots[k] = id
		}
	}
	for _, id := range planned {
		if id != placement.None && !slices.Contains(now, id) {
			slots[slices.Index(slots, placement.None)] = id
		}
	}
	return slots
}

// misplaced reports whether a holder is planned in another slot than its own.
func misplaced(now, planned []NodeID) bool {
	for k, id := range now {
		if at := slices.Index(planned, id); id != placement.None && at >= 0 && at != k {
			return true
		}
	}
	return false
}

// NewWidth is the command that makes the layout of a width: data shards of a scheme,
// 0 for copies.
func NewWidth(s *State, width, data int) (*Command, error) {
	l, err := placement.NewLayout(s.Plannable(), width, s.Groups, 0)
	if err != nil {
		return nil, err
	}
	slots, err := encodeSlots(width, targets(l))
	if err != nil {
		return nil, err
	}
	return &Command{AddWidth: &AddWidth{Epoch: s.Epoch, Width: width, Data: data, Slots: slots}}, nil
}

// Plannable is the nodes as placement sees them.
func (s *State) Plannable() (nodes []placement.Node) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Life != NodeUp {
			continue
		}
		p := placement.Node{ID: n.ID, Zone: n.Zone, Weight: n.Weight}
		if n.Draining || n.Gone {
			p.Weight = 0
		}
		nodes = append(nodes, p)
	}
	return nodes
}

// voters is how many voters the control group shall have: up to the setting, and one
// that drains is none of them while any other is there. A setting of five would
// otherwise keep the fifth of five nodes, whose vote no other can take, from leaving.
func (s *State) voters() int {
	staying := 0
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Life == NodeUp && !n.Draining && n.Weight > 0 {
			staying++
		}
	}
	if staying == 0 {
		return s.Settings.Voters
	}
	return min(s.Settings.Voters, staying)
}

// today lists the nodes that have a partition or are about to, in order of
// preference, the good ones first: of those that have weight 0 the first stay.
func (s *State) today(p object.PartitionID) (list []NodeID) {
	rank := func(id NodeID) int { return max(int(s.Node(id).State()), int(NodeUp)) }
	for _, r := range s.Replicas(p) {
		n := s.Node(r.ID.Node)
		switch {
		case n == nil || n.Life != NodeUp || r.State == Removed || r.State == Leaving && !r.Lost:
		case n.Gone && (r.State != InForce || r.Lost): // it can neither finish nor be a source
		case p == object.Control && (r.State < Promoting || r.State > InForce):
		default:
			list = append(list, r.ID.Node)
		}
	}
	slices.SortStableFunc(list, func(a, b NodeID) int { return cmp.Compare(rank(a), rank(b)) })
	return list
}

// placeReplicas begins moves of partitions, those nearest to losing their majority
// first, within the limits.
func (v *view) placeReplicas() {
	type candidate struct {
		placement.Move
		margin int
	}
	var todo []candidate
	var underway []placement.Move
	for i := range v.s.Partitions {
		p := &v.s.Partitions[i]
		if p.ID == object.Control {
			v.placeLearners(p)
			continue
		}
		index := int(p.ID) - 1
		if k := slices.IndexFunc(p.Replicas, func(r Replica) bool { return r.moving() }); k >= 0 {
			underway = append(underway, placement.Move{Index: index, To: p.Replicas[k].ID.Node})
		} else if to := v.missing(p); to != placement.None {
			good, all := v.inForce(p, ReplicaID{})
			todo = append(todo, candidate{placement.Move{Index: index, To: to, From: v.source(p)}, good - (all/2 + 1)})
		}
	}
	slices.SortStableFunc(todo, func(a, b candidate) int { return cmp.Compare(a.margin, b.margin) })
	moves := make([]placement.Move, len(todo))
	for i, c := range todo {
		moves[i] = c.Move
	}
	for _, m := range placement.Ready(moves, underway, v.s.Settings.Moves, v.s.Settings.MovesPerNode) {
		v.propose(&Command{Place: &Place{m.Partition(), m.To, v.s.Epoch}})
	}
}

// placeLearners gives every node a replica of the control group.
func (v *view) placeLearners(p *Partition) {
	for i := range v.s.Nodes {
		if id := v.s.Nodes[i].ID; p.on(id) == nil && v.ready(id) {
			v.propose(&Command{Place: &Place{object.Control, id, v.s.Epoch}})
		}
	}
}

// missing is a node that shall have a replica of a partition and can be given one.
func (v *view) missing(p *Partition) NodeID {
	for _, id := range v.s.Target.Of(p.ID) {
		if p.on(id) == nil && v.ready(id) {
			return id
		}
	}
	return placement.None
}

// source is the node whose replica goes when the missing one has come, if it is there.
func (v *view) source(p *Partition) NodeID {
	for _, r := range p.Replicas {
		if r.State == InForce && v.ready(r.ID.Node) && !slices.Contains(v.s.Target.Of(p.ID), r.ID.Node) {
			return r.ID.Node
		}
	}
	return placement.None
}

// inForce counts the voters of a partition besides one, and those of them that are
// in force and on nodes that answer.
func (v *view) inForce(p *Partition, without ReplicaID) (good, all int) {
	for _, r := range p.Replicas {
		if r.ID == without || !r.mayVote() {
			continue
		}
		all++
		if r.State == InForce && v.good(p, &r) {
			good++
		}
	}
	return good, all
}

// good reports whether a replica is whole, and its node answers.
func (v *view) good(p *Partition, r *Replica) bool {
	held := v.o.Nodes[r.ID.Node].Replicas[ReplicaKey{p.ID, r.ID.Generation}]
	return !r.Lost && held != HeldLost && held != HeldDestroyed && v.up(r.ID.Node)
}

// leftovers destroys what nodes have and the map does not know any more. An id that
// the map has yet to give means that the state here lags.
func (v *view) leftovers() {
	for i := range v.s.Nodes {
		n := &v.s.Nodes[i]
		replicas := v.o.Nodes[n.ID].Replicas
		for _, key := range slices.SortedFunc(maps.Keys(replicas), func(a, b ReplicaKey) int {
			return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Generation, b.Generation))
		}) {
			id, held := ReplicaID{n.ID, key.Generation}, replicas[key]
			if held == HeldDestroyed || int(key.Partition) >= len(v.s.Partitions) || key.Generation >= n.Next || v.s.Partitions[key.Partition].find(id) != nil {
				continue
			}
			v.add(Action{Verb: Destroy, By: TheNode, Node: n.ID, Partition: key.Partition, Replica: id})
		}
	}
}
