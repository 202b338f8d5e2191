package control

import (
	"slices"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// partition says what is next for one partition's replicas. Of the steps that
// change voters at most one comes out.
func (v *view) partition(p *Partition) {
	for i := range p.Replicas {
		v.atNode(p, &p.Replicas[i])
	}
	seen, ok := v.o.Partitions[p.ID]
	if ok && seen.Epoch >= p.Since { // else the leader's word is older than the map's
		m := &members{view: v, p: p, seen: &seen}
		if m.strangers() {
			return
		}
		for i := range p.Replicas {
			m.follow(&p.Replicas[i])
		}
		m.lead()
	}
	v.retire(p)
}

// atNode is what a replica's node has to do, or has done.
func (v *view) atNode(p *Partition, r *Replica) {
	held := v.o.Nodes[r.ID.Node].Replicas[ReplicaKey{p.ID, r.ID.Generation}]
	switch {
	case r.State == Removed && held == HeldDestroyed:
		v.step(ControlLeader, p, r, Destroyed)
	case r.State == Removed && v.up(r.ID.Node):
		v.add(Action{Verb: Destroy, By: TheNode, Node: r.ID.Node, Partition: p.ID, Replica: r.ID})
	case r.Lost:
	case held == HeldLost || held == HeldDestroyed && r.State != Removed:
		v.propose(&Command{Lost: &Lost{p.ID, r.ID}})
	case r.State == Joining && held == HeldLive:
		v.step(PartitionLeader, p, r, Created)
	case r.State == Joining && v.up(r.ID.Node):
		v.add(Action{Verb: Create, By: PartitionLeader, Node: r.ID.Node, Partition: p.ID, Replica: r.ID})
	}
}

func (v *view) step(by Actor, p *Partition, r *Replica, to ReplicaState) {
	v.add(Action{
		Verb: Propose, By: by, Partition: p.ID, Replica: r.ID,
		Command: &Command{Step: &Step{Partition: p.ID, Replica: r.ID, Epoch: v.s.Epoch, To: to}},
	})
}

// retire begins to take out what does not belong to a partition (any more).
func (v *view) retire(p *Partition) {
	busy := slices.ContainsFunc(p.Replicas, func(r Replica) bool { return r.changing() })
	var give *Replica
	for i := range p.Replicas {
		r := &p.Replicas[i]
		switch urge := v.urge(p, r); {
		case urge == 0 || busy && !r.changing():
		case give == nil || urge > v.urge(p, give):
			give = r
		}
	}
	if give == nil {
		return
	}
	if give.mayVote() && give.State == InForce {
		if good, all := v.inForce(p, give.ID); good <= all/2 {
			return
		}
	}
	to := Leaving
	if p.ID == object.Control && !give.Lost && give.mayVote() {
		to = Demoting
	}
	v.step(ControlLeader, p, give, to)
}

// urge is how much a replica should begin to go: 0 not at all. One in force that is not
// lost stays until all that are planned are in force.
func (v *view) urge(p *Partition, r *Replica) int {
	n := v.s.Node(r.ID.Node)
	here, planned := n.here(), slices.Contains(v.s.Target.Of(p.ID), r.ID.Node)
	switch {
	case r.State >= Leaving || r.State == Demoting && !r.Lost:
		return 0
	case r.Lost: // a group is never worse off without it
		return 4
	case !v.current:
		return 0
	case p.ID == object.Control && r.State < Promoting:
		return 0 // learners stay
	case r.State == Promoting && planned && here:
		return 0
	case r.State < InForce && (!planned || !here):
		return 3
	case planned || !filled(p, &v.s.Target):
		return 0
	case !here:
		return 2
	}
	return 1
}

// members is a partition whose leader has told what its group is.
type members struct {
	*view
	p    *Partition
	seen *GroupSeen
}

// change asks for a change in raft, unless the state here is older than what was seen:
// a vote would be given that the map has taken back.
func (m *members) change(verb Verb, id ReplicaID) {
	if m.s.Epoch < m.seen.Current {
		return
	}
	m.add(Action{Verb: verb, By: PartitionLeader, Partition: m.p.ID, Replica: id, Config: m.seen.Config})
}

// strangers takes members out of the group that the map does not know, or that are
// destroyed: a message that came late has added them.
func (m *members) strangers() (any bool) {
	ids := make([]ReplicaID, 0, len(m.seen.Members))
	for id := range m.seen.Members {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ReplicaID) int { return strings.Compare(a.String(), b.String()) })
	for _, id := range ids {
		if n := m.s.Node(id.Node); n == nil || id.Generation >= n.Next {
			continue // the state here lags
		}
		if r := m.p.find(id); (r == nil || r.State == Removed) && (!m.seen.Members[id] || m.electable(id)) {
			m.change(RemoveMember, id)
			return true
		}
	}
	return false
}

// electable reports whether the voters in raft besides one have a majority that answers.
func (m *members) electable(without ReplicaID) bool {
	good, all := 0, 0
	for id, voter := range m.seen.Members {
		if !voter || id == without {
			continue
		}
		all++
		if r := m.p.find(id); r != nil && r.State != Removed && m.good(m.p, r) {
			good++
		}
	}
	return good > all/2
}

// follow takes one replica on, by what it is in raft.
func (m *members) follow(r *Replica) {
	voter, member := m.seen.Members[r.ID]
	up := m.up(r.ID.Node)
	if r.Lost && r.State != Leaving {
		return // it goes: see retire
	}
	switch r.State {
	case Created, Learner:
		switch {
		case !member && up:
			m.change(AddNonvoter, r.ID)
		case voter:
			m.change(Demote, r.ID)
		case member && m.seen.CaughtUp[r.ID]:
			m.caughtUp(r)
		}
	case Promoting:
		switch {
		case voter:
			m.step(PartitionLeader, m.p, r, InForce)
		case !m.current || !m.wanted(r): // it may have to turn back
		case !member && up:
			m.change(AddNonvoter, r.ID)
		case up:
			m.change(Promote, r.ID)
		}
	case InForce:
		if !member {
			m.propose(&Command{Lost: &Lost{m.p.ID, r.ID}})
		} else if !voter && up {
			m.change(Promote, r.ID)
		}
	case Demoting:
		m.leave(r, voter, voter, Demote, Learner)
	case Leaving:
		m.leave(r, member, voter, RemoveMember, Removed)
	}
}

// wanted reports whether a replica that becomes a voter is still planned.
func (m *members) wanted(r *Replica) bool {
	return slices.Contains(m.s.Target.Of(m.p.ID), r.ID.Node) && m.s.Node(r.ID.Node).here()
}

// caughtUp is what a complete non-voter becomes.
func (m *members) caughtUp(r *Replica) {
	changing := slices.ContainsFunc(m.p.Replicas, func(o Replica) bool { return o.changing() })
	switch {
	case m.p.ID == object.Control && r.State == Created:
		m.step(PartitionLeader, m.p, r, Learner)
	case m.current && m.wanted(r) && !changing:
		m.step(PartitionLeader, m.p, r, Promoting)
	}
}

// leave takes a vote or a membership away, or gives it back to a replica without
// which the others have no majority.
func (m *members) leave(r *Replica, there, voter bool, verb Verb, to ReplicaState) {
	switch {
	case !there:
		m.step(PartitionLeader, m.p, r, to)
	case voter && !m.electable(r.ID):
		if r.mayVote() && m.good(m.p, r) {
			m.step(PartitionLeader, m.p, r, InForce)
		}
	case m.seen.Leader == r.ID:
		if id, ok := m.preferred(r.ID); ok {
			m.change(Transfer, id)
		}
	default:
		m.change(verb, r.ID)
	}
}

// preferred is the replica that shall lead: the first of the plan that is good, else any that is.
func (m *members) preferred(not ReplicaID) (ReplicaID, bool) {
	for _, r := range m.s.Replicas(m.p.ID) {
		if r.ID != not && r.State == InForce && m.seen.Members[r.ID] && m.good(m.p, &r) && m.ready(r.ID.Node) {
			return r.ID, true
		}
	}
	return ReplicaID{}, false
}

// lead moves the leadership to where the plan has it, when nothing else moves.
func (m *members) lead() {
	if slices.ContainsFunc(m.p.Replicas, func(r Replica) bool { return r.moving() }) || !m.current || m.seen.Kept {
		return
	}
	if id, ok := m.preferred(ReplicaID{}); ok && id != m.seen.Leader {
		m.change(Transfer, id)
	}
}
