package control

import (
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// soleTarget is the plan of a cluster of one.
func soleTarget(id NodeID, partitions int) *Target {
	t := &Target{Data: placement.NewMap(partitions), Voters: []NodeID{id}}
	for i := range t.Data.Partitions {
		t.Data.Partitions[i] = []NodeID{id}
	}
	return t
}

// plan replaces the target.
func (s *change) plan(c *Plan) *Result {
	t, err := decodeTarget(c.Target)
	if err != nil {
		return failf(object.KindInvalid, "the plan cannot be read: %v", err)
	}
	if bad := s.judgedOn(c.Epoch); bad != nil {
		return bad
	}
	if s.header.Planned > c.Epoch {
		return stale("the plan", s.header.Planned, c.Epoch)
	}
	nodes := byID(s.nodes())
	layouts := s.layouts()
	if s.err != nil {
		return nil
	}
	if bad := checkTarget(t, nodes, s.header.Partitions); bad != nil {
		return bad
	}
	if len(c.Layouts) != len(layouts) {
		return failf(object.KindConflict, "the plan has %d layouts, the map %d: plan again", len(c.Layouts), len(layouts))
	}
	for i, l := range layouts {
		if bad := replanLayout(l, c.Layouts[i], nodes); bad != nil {
			return bad
		}
		s.putLayout(l)
	}
	s.header.Planned = s.bump()
	s.put(targetKey(), c.Target, nil)
	return done()
}

// judgedOn refuses what was planned for other nodes or settings.
func (s *change) judgedOn(epoch uint64) *Result {
	switch {
	case epoch > s.header.Epoch:
		return failf(object.KindInvalid, "the command was made at epoch %d, the map is at %d only", epoch, s.header.Epoch)
	case s.header.Inputs > epoch:
		return stale("a node or setting that plans depend on", s.header.Inputs, epoch)
	}
	return nil
}

// checkTarget refuses a plan that no planner makes of these nodes.
func checkTarget(t *Target, nodes map[NodeID]*Node, partitions int) *Result {
	if len(t.Data.Partitions) != partitions || len(t.Voters) == 0 {
		return failf(object.KindInvalid, "a plan of %d partitions and %d voters does not fit", len(t.Data.Partitions), len(t.Voters))
	}
	for i, list := range append([][]NodeID{t.Voters}, t.Data.Partitions...) {
		if len(list) == 0 {
			return failf(object.KindInvalid, "the plan leaves partition %d without a node", i)
		}
		for _, id := range list {
			if n := nodes[id]; n == nil || n.Life != NodeUp {
				return failf(object.KindInvalid, "the plan puts partition %d on node %q, which takes nothing", i, id)
			}
		}
	}
	return nil
}

// replanLayout gives a layout its new target.
func replanLayout(l *Layout, plan PlanOfWidth, nodes map[NodeID]*Node) *Result {
	slots, err := decodeSlots(plan.Width, plan.Slots)
	switch {
	case err != nil:
		return failf(object.KindInvalid, "the plan of width %d cannot be read: %v", plan.Width, err)
	case plan.Width != l.Width || len(slots) != len(l.Groups):
		return failf(object.KindInvalid, "a plan of %d groups of width %d does not fit %d of %d", len(slots), plan.Width, len(l.Groups), l.Width)
	}
	if bad := checkSlots(slots, nodes); bad != nil {
		return bad
	}
	for i, g := range l.Groups {
		if misplaced(g.Holders, slots[i]) {
			return failf(object.KindConflict, "chunk group %d has moved meanwhile: plan again", i)
		}
	}
	l.Target = slots
	return nil
}

// checkSlots refuses slots on nodes that take nothing, and groups without a holder.
func checkSlots(slots [][]NodeID, nodes map[NodeID]*Node) *Result {
	for i, list := range slots {
		some := false
		for _, id := range list {
			if id == placement.None {
				continue
			}
			if n := nodes[id]; n == nil || n.Life != NodeUp {
				return failf(object.KindInvalid, "the plan puts chunk group %d on node %q, which takes nothing", i, id)
			}
			some = true
		}
		if !some {
			return failf(object.KindInvalid, "the plan leaves chunk group %d without a node", i)
		}
	}
	return nil
}

// place gives a node a replica.
func (s *change) place(c *Place) *Result {
	p := s.partition(c.Partition)
	n := s.node(c.Node)
	t := s.target()
	switch {
	case s.err != nil:
		return nil
	case p == nil:
		return failf(object.KindNotFound, "the map has no partition %d", c.Partition)
	case n == nil:
		return unknownNode(c.Node)
	}
	if x := p.on(c.Node); x != nil && x.State != Leaving && x.State != Removed && !x.Lost {
		return &Result{Replica: &x.ID} // a repeat
	} else if x != nil {
		return failf(object.KindConflict, "node %s has yet to get rid of replica %s of partition %d", c.Node, x.ID, c.Partition)
	}
	if p.Since > c.Epoch {
		return stale("the partition", p.Since, c.Epoch)
	}
	switch {
	case !n.here():
		return failf(object.KindConflict, "node %s is %s: plan again", c.Node, n.State())
	case c.Partition == object.Control: // every node has one
	case !slices.Contains(t.Of(c.Partition), c.Node):
		return failf(object.KindConflict, "the plan has no replica of partition %d on node %s", c.Partition, c.Node)
	case slices.ContainsFunc(p.Replicas, func(r Replica) bool { return r.moving() }):
		return failf(object.KindConflict, "another replica of partition %d is on its way: one at a time", c.Partition)
	}
	id := s.newReplica(p, n)
	return &Result{Replica: &id}
}

// lost notes that a replica never votes again.
func (s *change) lost(c *Lost) *Result {
	p := s.partition(c.Partition)
	if s.err != nil {
		return nil
	}
	if p == nil {
		return failf(object.KindNotFound, "the map has no partition %d", c.Partition)
	}
	if x := p.find(c.Replica); x != nil && !x.Lost {
		x.Lost = true
		s.putPartition(p)
	}
	return done()
}

// step takes a replica on in its life.
func (s *change) step(c *Step) *Result {
	p := s.partition(c.Partition)
	if s.err != nil {
		return nil
	}
	if p == nil {
		return failf(object.KindNotFound, "the map has no partition %d", c.Partition)
	}
	x := p.find(c.Replica)
	switch {
	case x == nil && c.To == Destroyed:
		return done()
	case x == nil:
		return failf(object.KindStale, "replica %s of partition %d is not in the map any more: destroy what is left of it", c.Replica, c.Partition)
	case x.State == c.To:
		return done()
	case p.Since > c.Epoch:
		return stale("the partition", p.Since, c.Epoch)
	}
	if bad := s.mayStep(p, x, c.To); bad != nil || s.err != nil {
		return bad
	}
	was := x.State
	if x.State, x.Was = c.To, 0; x.changing() && c.To != Promoting {
		x.Was = was
	}
	if n := s.node(c.Replica.Node); c.To == Destroyed || c.To == Removed && (n == nil || n.Life == NodeRemoved) {
		p.Replicas = without(p.Replicas, c.Replica) // nobody is left to destroy a removed node's
	}
	s.putPartition(p)
	return done()
}

// follows is what each state may go to, Leaving aside.
var follows = [...][]ReplicaState{
	Joining:   {Created},
	Created:   {Learner, Promoting},
	Learner:   {Promoting},
	Promoting: {InForce, Demoting},
	InForce:   {Demoting},
	Demoting:  {Learner, InForce},
	Leaving:   {Removed, InForce},
	Removed:   {Destroyed},
}

// mayStep refuses steps out of order, a second change of voters, and what would
// cost a partition its majority.
func (s *change) mayStep(p *Partition, x *Replica, to ReplicaState) *Result {
	control := p.ID == object.Control
	orderly := slices.Contains(follows[x.State], to) || to == Leaving && x.State < Leaving
	if control && x.State == Created && to == Promoting || !control && (to == Learner || to == Demoting) {
		orderly = false
	}
	if to == InForce && !x.mayVote() || to < Leaving && x.Lost {
		orderly = false
	}
	if !orderly {
		return failf(object.KindConflict, "replica %s of partition %d is %s and cannot become %s: read the map again", x.ID, p.ID, x.State, to)
	}
	t, nodes := s.target(), byID(s.nodes())
	if s.err != nil {
		return nil
	}
	wanted := slices.Contains(t.Of(p.ID), x.ID.Node)
	switch {
	case to == Promoting && (!wanted || !nodes[x.ID.Node].here()):
		return failf(object.KindConflict, "the plan has no voter of partition %d on node %s, or the node is gone", p.ID, x.ID.Node)
	case (to == Promoting || to == Demoting || to == Leaving) && slices.ContainsFunc(p.Replicas, func(r Replica) bool { return r.ID != x.ID && r.changing() }):
		return failf(object.KindConflict, "another voter of partition %d is being changed: one at a time", p.ID)
	case to != Demoting && to != Leaving || x.State != InForce:
		return nil
	case wanted && !x.Lost:
		return failf(object.KindConflict, "the plan keeps replica %s of partition %d: read the map again", x.ID, p.ID)
	case !x.Lost && !filled(p, t):
		return failf(object.KindConflict, "replica %s of partition %d stays until every planned one is in force", x.ID, p.ID)
	case !elects(p, nodes, x.ID):
		return failf(object.KindBusy, "partition %d would be left without a majority of good replicas if %s went: bring other replicas back first", p.ID, x.ID)
	}
	return nil
}

// elects reports whether the voters besides one have a majority of good ones.
func elects(p *Partition, nodes map[NodeID]*Node, without ReplicaID) bool {
	voters, good := 0, 0
	for _, r := range p.Replicas {
		if r.ID == without || !r.mayVote() {
			continue
		}
		voters++
		if !r.Lost && r.State == InForce && nodes[r.ID.Node].here() {
			good++
		}
	}
	return good > voters/2
}

// filled reports whether everything that is planned of a partition is in force.
func filled(p *Partition, t *Target) bool {
	for _, id := range t.Of(p.ID) {
		if x := p.on(id); x == nil || x.State != InForce || x.Lost {
			return false
		}
	}
	return true
}
