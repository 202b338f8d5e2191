package control

import (
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Recover goes on without nodes that are lost for good, and with them perhaps a
// majority of some partitions. It is never proposed: it is the first entry that a
// recovered control group has (see package recovery).
type Recover struct {
	From ClusterID `cbor:"1,keyasint"` // what the cluster was
	// To is what it is now: the lost nodes, should they come back, are of another cluster.
	To   ClusterID `cbor:"2,keyasint"`
	Lost []NodeID  `cbor:"3,keyasint,omitempty"`
	// Partitions has every one, the control group first.
	Partitions []Recovered `cbor:"4,keyasint"`
}

// Recovered is one partition's group as it begins anew.
type Recovered struct {
	Voters  []ReplicaID `cbor:"1,keyasint"`
	Others  []ReplicaID `cbor:"2,keyasint,omitempty"` // members without a vote
	Founded bool        `cbor:"3,keyasint,omitempty"` // nothing was left: an empty group with new replicas
}

// recover rewrites nodes, map, plan and layouts at once; the planner goes on from there.
func (s *change) recover(c *Recover) *Result {
	nodes := byID(s.nodes())
	switch {
	case s.err != nil:
		return nil
	case s.header.Cluster == c.To:
		return done() // a repeat
	case s.header.Cluster != c.From:
		return failf(object.KindConflict, "this is cluster %x, not %x: make a new plan of recovery", s.header.Cluster, c.From)
	case len(c.Partitions) != s.header.Partitions+1:
		return failf(object.KindInvalid, "the recovery has %d partitions, the cluster %d", len(c.Partitions), s.header.Partitions+1)
	}
	for _, id := range c.Lost {
		n := nodes[id]
		if n == nil {
			return unknownNode(id)
		}
		n.Life, n.Draining, n.Gone = NodeRemoved, false, false
	}
	for i := range c.Partitions {
		if bad := s.recoverPartition(object.PartitionID(i), &c.Partitions[i], nodes); bad != nil || s.err != nil {
			return bad
		}
	}
	var left []NodeID
	for _, n := range s.nodes() {
		n := nodes[n.ID]
		if n.Life != NodeRemoved {
			n.Gone = false // it is here
			left = append(left, n.ID)
		}
		s.putNode(n)
	}
	if len(left) == 0 {
		return failf(object.KindInvalid, "the recovery leaves no node")
	}
	s.recoverPlan(c)
	for _, l := range s.layouts() {
		l.recover(c.Lost, left, s.bump())
		s.putLayout(l)
	}
	if set := s.settings(); set != nil {
		set.Hold = true // references to chunks may be among what is lost
		s.store(settingsKey(), set)
	}
	s.header.Former = append(s.header.Former, s.header.Cluster)
	s.header.Cluster = c.To
	s.replan()
	return done()
}

// recoverPartition sets who is in a group. Of replicas that are not, those of lost nodes are
// forgotten, and the others go on as far as that is possible outside of it.
func (s *change) recoverPartition(id object.PartitionID, r *Recovered, nodes map[NodeID]*Node) *Result {
	p := s.partition(id)
	if s.err == nil && p == nil {
		s.err = damaged("map", "partition %d is missing", id)
	}
	if s.err != nil {
		return nil
	}
	var list []Replica
	member := func(x ReplicaID, state ReplicaState) *Result {
		switch n := nodes[x.Node]; {
		case n == nil || n.Life == NodeRemoved:
			return failf(object.KindInvalid, "the recovery puts partition %d on node %q, which is not left", id, x.Node)
		default: // the entry that gave it may be among what is lost
			n.Next = max(n.Next, x.Generation+1)
		}
		list = append(list, Replica{ID: x, State: state})
		return nil
	}
	if len(r.Voters) == 0 {
		return failf(object.KindInvalid, "the recovery leaves partition %d without a voter", id)
	}
	for _, x := range r.Voters {
		if bad := member(x, InForce); bad != nil {
			return bad
		}
	}
	for _, x := range r.Others {
		without := Created
		if was := p.find(x); id == object.Control && was != nil && was.State >= Learner {
			without = Learner
		}
		if bad := member(x, without); bad != nil {
			return bad
		}
	}
	for _, x := range p.Replicas {
		if n := nodes[x.ID.Node]; n == nil || n.Life == NodeRemoved || slices.ContainsFunc(list, func(y Replica) bool { return y.ID == x.ID }) {
			continue
		}
		if x.State >= Promoting && !x.Lost {
			x.State, x.Was = Removed, 0 // its node destroys it, and gets another if the plan says so
		}
		list = append(list, x)
	}
	p.Replicas = list
	s.putPartition(p)
	return nil
}

// recoverPlan takes the lost nodes out of the plan; the next one is made at once.
func (s *change) recoverPlan(c *Recover) {
	t := s.target()
	if s.err != nil {
		return
	}
	cut := func(list []NodeID, r *Recovered) []NodeID {
		list = slices.DeleteFunc(slices.Clone(list), func(id NodeID) bool { return slices.Contains(c.Lost, id) })
		if len(list) == 0 {
			list = append(list, r.Voters[0].Node)
		}
		return list
	}
	t.Voters = cut(t.Voters, &c.Partitions[object.Control])
	for i := range t.Data.Partitions {
		t.Data.Partitions[i] = cut(t.Data.Partitions[i], &c.Partitions[i+1])
	}
	b, err := t.encode()
	s.put(targetKey(), b, err)
}

// recover takes lost nodes out of the slots. A move that one of them has a part in ends
// where it is, with whoever is left of both sides. A group whose holders are all lost gets
// one that is left: reads of what was there say that it is lost, and what is written from now on is kept.
func (l *Layout) recover(lost, left []NodeID, epoch uint64) {
	gone := func(id NodeID) bool { return slices.Contains(lost, id) }
	next := &placement.Layout{Epoch: epoch, Width: l.Width, Groups: slices.Clone(l.Groups)}
	for i, g := range l.Groups {
		if slices.ContainsFunc(g.Holders, gone) || slices.ContainsFunc(g.Next, gone) {
			next.Groups[i] = placement.Group{Holders: survivors(g, gone), Since: epoch}
			delete(l.Copying, i)
		}
		if all, _, _ := holders(next.Groups[i].Holders, nil); all == 0 {
			next.Groups[i].Holders[0] = left[i%len(left)]
		}
		if l.Target[i] = next.Groups[i].Holders; next.Groups[i].Next != nil {
			l.Target[i] = next.Groups[i].Next
		}
	}
	l.Layout = next
}

// survivors are the slots of a group as they are left: each holder, or who was about to
// take its place. A slot says which shard it is, so nobody changes it.
func survivors(g placement.Group, gone func(NodeID) bool) []NodeID {
	slots := make([]NodeID, len(g.Holders))
	for k, id := range g.Holders {
		if id != placement.None && !gone(id) {
			slots[k] = id
		}
	}
	for k, id := range g.Next {
		if id != placement.None && !gone(id) && slots[k] == placement.None && !slices.Contains(slots, id) {
			slots[k] = id
		}
	}
	return slots
}

// LostGroups counts the chunk groups of a layout whose holders are all among lost, and
// those that have less than some scheme needs to read: data shards, or one copy.
func (l *Layout) LostGroups(lost []NodeID) (all, some int) {
	need := 1
	for _, k := range l.Schemes {
		need = max(need, k)
	}
	gone := func(id NodeID) bool { return slices.Contains(lost, id) }
	for _, g := range l.Groups {
		switch n, _, _ := holders(survivors(g, gone), nil); {
		case n == 0:
			all++
		case n < need:
			some++
		}
	}
	return all, some
}
