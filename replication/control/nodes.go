package control

import (
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// maxAddress and maxZone bound what a Join carries, in bytes.
const (
	maxAddress = 512
	maxZone    = 128
)

// checkJoin refuses nonsense. A node alone may have no address: the library opens no port.
func checkJoin(c *Join) *Result {
	switch {
	case !validID(c.Node):
		return failf(object.KindInvalid, "node id %q is not possible: use 1 to 64 of A-Z a-z 0-9 . _ -", c.Node)
	case c.Store == StoreID{} || c.Incarnation == Incarnation{}:
		return failf(object.KindInvalid, "node %s came without a store id or an incarnation", c.Node)
	case len(c.API) > maxAddress || len(c.Peer) > maxAddress:
		return failf(object.KindInvalid, "node %s came with an address of over %d bytes", c.Node, maxAddress)
	case len(c.Zone) > maxZone:
		return failf(object.KindInvalid, "the zone of node %s has %d bytes: choose a name of up to %d", c.Node, len(c.Zone), maxZone)
	case c.Versions.Min > c.Versions.Max || c.Versions.Max == 0:
		return failf(object.KindInvalid, "node %s says it speaks versions %d to %d", c.Node, c.Versions.Min, c.Versions.Max)
	}
	return nil
}

func newNode(c *Join, next uint64) *Node {
	return &Node{
		ID: c.Node, Store: c.Store, Incarnation: c.Incarnation, API: c.API, Peer: c.Peer, Zone: c.Zone,
		Weight: c.Weight, Life: NodeJoining, Versions: c.Versions, Next: next,
	}
}

// join adds a node, with a replica of partition 0, or updates it.
func (s *change) join(c *Join) *Result {
	if bad := checkJoin(c); bad != nil {
		return bad
	}
	if c.API == "" || c.Peer == "" {
		return failf(object.KindInvalid, "node %s came without an address that others can reach: start it with -api and -http", c.Node)
	}
	all := s.nodes()
	if s.err != nil {
		return nil
	}
	if bad := admissible(all, c); bad != nil {
		return bad
	}
	old := s.node(c.Node)
	switch {
	case old != nil && old.Life != NodeRemoved && old.Store == c.Store:
		return s.renew(old, &UpdateNode{c.Node, c.Store, c.Incarnation, c.API, c.Peer, c.Versions})
	case old != nil && old.Life != NodeRemoved:
		return failf(object.KindExists, "node id %s belongs to another store (%x): remove the old node first, or start with another -id", c.Node, old.Store)
	case old != nil && old.Store == c.Store:
		return failf(object.KindPermission, "node %s was removed from the cluster: to join again, start it on empty directories", c.Node)
	case old != nil && s.named(c.Node) != "":
		return failf(object.KindBusy, "%s is still on the removed node %s: wait until the others have taken over, or start with another -id", s.named(c.Node), c.Node)
	case old == nil && len(all) >= placement.MaxNodes:
		return failf(object.KindInvalid, "the cluster has %d nodes, removed ones among them; it cannot have more", len(all))
	}
	n := newNode(c, 1)
	if old != nil {
		n.Next = old.Next // ids of replicas are never used again
	}
	p := s.partition(object.Control)
	if s.err != nil {
		return nil
	}
	id := s.newReplica(p, n)
	return &Result{Replica: &id}
}

// newReplica gives a node the next of its generations in a partition.
func (s *change) newReplica(p *Partition, n *Node) ReplicaID {
	id := ReplicaID{n.ID, n.Next}
	n.Next++
	s.putNode(n)
	p.Replicas = append(p.Replicas, Replica{ID: id, State: Joining})
	s.putPartition(p)
	return id
}

// admissible refuses a store that another node has, and a node that others cannot talk to.
func admissible(all []*Node, c *Join) *Result {
	for _, n := range all {
		switch {
		case n.ID == c.Node || n.Life == NodeRemoved && n.Store != c.Store:
		case n.Store == c.Store:
			return failf(object.KindConflict, "the store of node %s is that of node %s (%s): start it with -id %s, or on empty directories", c.Node, n.ID, n.State(), n.ID)
		}
	}
	return speaks(all, c.Node, c.Versions)
}

// speaks refuses versions that do not overlap with those of every other node.
func speaks(all []*Node, id NodeID, v Versions) *Result {
	for _, n := range all {
		if n.ID == id || n.Life == NodeRemoved || v.Min <= n.Versions.Max && n.Versions.Min <= v.Max {
			continue
		}
		older := id
		if n.Versions.Max < v.Min {
			older = n.ID
		}
		return failf(object.KindVersion, "node %s speaks versions %d to %d of the protocol, node %s %d to %d: upgrade %s", id, v.Min, v.Max, n.ID, n.Versions.Min, n.Versions.Max, older)
	}
	return nil
}

// named says where the map still names a node, or "".
func (s *change) named(id NodeID) (where string) {
	s.partitions(func(p *Partition) bool {
		if p.on(id) != nil {
			where = "a replica"
		}
		return where == ""
	})
	for _, l := range s.layouts() {
		if l.names(id) > 0 {
			where = "a chunk group"
		}
	}
	return where
}

// names counts the groups that name a node.
func (l *Layout) names(id NodeID) (count int) {
	for _, g := range l.Groups {
		if slices.Contains(g.Holders, id) || slices.Contains(g.Next, id) {
			count++
		}
	}
	return count
}

// update tells a node's new process or address.
func (s *change) update(c *UpdateNode) *Result {
	n := s.node(c.Node)
	switch {
	case s.err != nil:
		return nil
	case n == nil:
		return unknownNode(c.Node)
	case n.Store != c.Store:
		return failf(object.KindExists, "node id %s belongs to another store (%x): remove the old node first, or start with another -id", c.Node, n.Store)
	case n.Life == NodeRemoved:
		return failf(object.KindPermission, "node %s was removed from the cluster: to join again, start it on empty directories", c.Node)
	}
	if bad := speaks(s.nodes(), c.Node, c.Versions); bad != nil {
		return bad
	}
	return s.renew(n, c)
}

func (s *change) renew(n *Node, c *UpdateNode) *Result {
	if bad := checkJoin(&Join{Node: c.Node, Store: c.Store, Incarnation: c.Incarnation, API: c.API, Peer: c.Peer, Versions: c.Versions}); bad != nil {
		return bad
	}
	if slices.Contains(n.Past, c.Incarnation) {
		return failf(object.KindStale, "a later process of node %s has started: this one must end", c.Node)
	}
	if n.Incarnation != c.Incarnation {
		n.Past = slices.Insert(n.Past, 0, n.Incarnation)
		n.Past = n.Past[:min(len(n.Past), pastKept)]
	}
	n.Incarnation, n.API, n.Peer, n.Versions = c.Incarnation, c.API, c.Peer, c.Versions
	s.putNode(n)
	r := done()
	if p := s.partition(object.Control); p != nil {
		if x := p.on(n.ID); x != nil {
			r.Replica = &x.ID
		}
	}
	return r
}

func unknownNode(id NodeID) *Result {
	return failf(object.KindNotFound, "the cluster has no node %q: see the list of nodes", id)
}

// member is a node that is not removed.
func (s *change) member(id NodeID) (*Node, *Result) {
	n := s.node(id)
	switch {
	case s.err != nil:
		return nil, done() // given up anyway
	case n == nil:
		return nil, unknownNode(id)
	case n.Life == NodeRemoved:
		return nil, failf(object.KindPermission, "node %s was removed from the cluster: to have it back, start it on empty directories", id)
	}
	return n, nil
}

// alter changes what plans depend on, in a node's record.
func (s *change) alter(id NodeID, set func(*Node) (changed bool)) *Result {
	n, bad := s.member(id)
	if bad != nil {
		return bad
	}
	if set(n) {
		s.putNode(n)
		s.replan()
	}
	return done()
}

// assign sets a field and reports whether that changed it.
func assign[T comparable](field *T, v T) bool {
	changed := *field != v
	*field = v
	return changed
}

func (s *change) admit(c *Admit) *Result {
	n, bad := s.member(c.Node)
	if bad != nil {
		return bad
	}
	if n.Store != c.Store {
		return failf(object.KindConflict, "node %s has another store by now", c.Node)
	}
	p := s.partition(object.Control)
	if s.err != nil {
		return nil
	}
	if x := p.on(c.Node); x == nil || x.Lost || x.State == Joining || x.State == Created {
		return failf(object.KindConflict, "node %s has no complete replica of the control group yet", c.Node)
	}
	return s.alter(c.Node, func(n *Node) bool { return assign(&n.Life, NodeUp) })
}

func (s *change) drain(c *Drain) *Result {
	return s.alter(c.Node, func(n *Node) bool { return assign(&n.Draining, !c.Undo) })
}

func (s *change) setWeight(c *SetWeight) *Result {
	return s.alter(c.Node, func(n *Node) bool { return assign(&n.Weight, c.Weight) })
}

func (s *change) setZone(c *SetZone) *Result {
	if len(c.Zone) > maxZone {
		return failf(object.KindInvalid, "the zone has %d bytes: choose a name of up to %d", len(c.Zone), maxZone)
	}
	return s.alter(c.Node, func(n *Node) bool { return assign(&n.Zone, c.Zone) })
}

func (s *change) mark(c *Mark, gone bool) *Result {
	n, bad := s.member(c.Node)
	if bad != nil {
		return bad
	}
	if n.Incarnation != c.Incarnation {
		return failf(object.KindConflict, "node %s has started again meanwhile: judge it anew", c.Node)
	}
	return s.alter(c.Node, func(n *Node) bool { return assign(&n.Gone, gone) })
}

func (s *change) configure(c, was *Settings) *Result {
	if err := c.Validate(); err != nil {
		return failed(err)
	}
	old := s.settings()
	switch {
	case s.err != nil:
		return nil
	case *old == *c:
		return done()
	case was != nil && *was != *old:
		return failf(object.KindConflict, "somebody else has changed the settings meanwhile: read them again and decide")
	}
	if old.RF != c.RF || old.Voters != c.Voters {
		s.replan()
	}
	s.store(settingsKey(), c)
	return done()
}

// remove ends a node for ever.
func (s *change) remove(c *Remove) *Result {
	n := s.node(c.Node)
	if n != nil && n.Life == NodeRemoved {
		return done()
	}
	if _, bad := s.member(c.Node); bad != nil {
		return bad
	}
	nodes := byID(s.nodes())
	if bad := s.stillNeeded(n, nodes); bad != nil {
		return bad
	}
	n.Life, n.Draining, n.Gone = NodeRemoved, false, false
	s.putNode(n)
	s.partitions(func(p *Partition) bool {
		if p.on(c.Node) != nil {
			s.disown(p, c.Node)
		}
		return true
	})
	s.replan()
	return done()
}

// disown gives up a removed node's replicas: those that are out of their group are
// forgotten, since nobody will destroy them; the others have to be taken out.
func (s *change) disown(p *Partition, id NodeID) {
	p.Replicas = slices.DeleteFunc(p.Replicas, func(r Replica) bool { return r.ID.Node == id && r.State == Removed })
	for i := range p.Replicas {
		if p.Replicas[i].ID.Node == id {
			p.Replicas[i].Lost = true
		}
	}
	s.putPartition(p)
}

// stillNeeded refuses to remove a node that others depend on: one that is alive
// must be empty, of one that is gone everything must be elsewhere.
func (s *change) stillNeeded(n *Node, nodes map[NodeID]*Node) (bad *Result) {
	s.partitions(func(p *Partition) bool {
		r := p.on(n.ID)
		switch {
		case r == nil || r.State == Removed:
		case !n.Gone && (p.ID != object.Control || r.State == InForce || r.changing()):
			bad = failf(object.KindBusy, "node %s still has a replica of partition %d: drain it and wait until it is empty (or stop it, and wait until it counts as gone)", n.ID, p.ID)
		case !survives(p, nodes, n.ID):
			bad = failf(object.KindBusy, "node %s may have what nobody else has of partition %d: bring it back, or bring other replicas of the partition back first", n.ID, p.ID)
		}
		return bad == nil
	})
	for _, l := range s.layouts() {
		if bad != nil || s.err != nil {
			return bad
		}
		bad = l.stillNeeded(n, nodes)
	}
	return bad
}

// survives reports whether the good voters without a node are a majority of all:
// then they have everything that was ever acknowledged, and can elect.
func survives(p *Partition, nodes map[NodeID]*Node, without NodeID) bool {
	voters, good := 0, 0
	for _, r := range p.Replicas {
		if !r.mayVote() {
			continue
		}
		voters++
		if r.ID.Node != without && !r.Lost && r.State == InForce && nodes[r.ID.Node].here() {
			good++
		}
	}
	return good > voters/2 || !p.on(without).mayVote()
}

// stillNeeded is the same for chunks.
func (l *Layout) stillNeeded(n *Node, nodes map[NodeID]*Node) *Result {
	if count := l.names(n.ID); count > 0 && !n.Gone {
		return failf(object.KindBusy, "node %s still holds %d of the chunk groups of width %d: drain it and wait until it is empty (or stop it, and wait until it counts as gone)", n.ID, count, l.Width)
	}
	for i, g := range l.Groups {
		if !slices.Contains(g.Holders, n.ID) {
			continue
		}
		all, bad := 0, 0
		for _, id := range g.Holders {
			if id != placement.None {
				all++
				if id == n.ID || !nodes[id].here() {
					bad++
				}
			}
		}
		if bad > l.spare(all) {
			return failf(object.KindBusy, "node %s may have chunks of group %d (width %d) that nobody else has: bring it back, or wait until the chunks of other lost nodes are restored", n.ID, i, l.Width)
		}
	}
	return nil
}

func byID(list []*Node) map[NodeID]*Node {
	m := make(map[NodeID]*Node, len(list))
	for _, n := range list {
		m[n.ID] = n
	}
	return m
}
