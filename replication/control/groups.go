package control

import (
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// soleLayout has one node in the first slot of every group.
func soleLayout(id NodeID, width, groups int) (*Layout, error) {
	l, err := placement.NewLayout([]placement.Node{{ID: id, Weight: 1}}, width, groups, 1)
	if err != nil {
		return nil, err
	}
	return &Layout{Layout: l, Schemes: []int{0}, Copying: map[int]bool{}, Target: targets(l)}, nil
}

// targets is where the groups are.
func targets(l *placement.Layout) [][]NodeID {
	slots := make([][]NodeID, len(l.Groups))
	for i, g := range l.Groups {
		slots[i] = g.Holders
	}
	return slots
}

// addWidth makes the layout of a width.
func (s *change) addWidth(c *AddWidth) *Result {
	if c.Width < 1 || c.Width > placement.MaxReplicas || c.Data < 0 || c.Data > 0 && c.Data >= c.Width {
		return failf(object.KindInvalid, "%d data shards of %d in all are not possible", c.Data, c.Width)
	}
	l, nodes, takers := s.layout(c.Width), byID(s.nodes()), 0
	for _, n := range nodes {
		if n.Life == NodeUp && n.here() {
			takers++
		}
	}
	if s.err == nil && c.Data > 0 && takers <= c.Data {
		return failf(object.KindInvalid, "%d data shards need at least %d nodes, the cluster has %d: add nodes, or choose fewer shards", c.Data, c.Data+1, takers)
	}
	if l != nil || s.err != nil {
		if l != nil && !slices.Contains(l.Schemes, c.Data) {
			l.Schemes = append(l.Schemes, c.Data)
			slices.Sort(l.Schemes)
			s.bump()
			s.putLayout(l)
		}
		return done()
	}
	if bad := s.judgedOn(c.Epoch); bad != nil {
		return bad
	}
	slots, err := decodeSlots(c.Width, c.Slots)
	if err != nil || len(slots) != s.header.Groups {
		return failf(object.KindInvalid, "the layout has %d groups, not %d, or cannot be read (%v)", len(slots), s.header.Groups, err)
	}
	if bad := checkSlots(slots, nodes); bad != nil {
		return bad
	}
	l = &Layout{Layout: &placement.Layout{Epoch: s.bump(), Width: c.Width}, Schemes: []int{c.Data}, Copying: map[int]bool{}, Target: slots}
	for _, holders := range slots {
		l.Groups = append(l.Groups, placement.Group{Holders: holders, Since: l.Epoch})
	}
	s.putLayout(l)
	return done()
}

// begin makes groups joint.
func (s *change) begin(c *Begin) *Result {
	l := s.layout(c.Width)
	nodes := byID(s.nodes())
	switch {
	case s.err != nil:
		return nil
	case l == nil:
		return failf(object.KindNotFound, "no bucket has chunks of width %d", c.Width)
	}
	var moves []placement.Move
	for _, m := range c.Moves {
		again, bad := l.mayBegin(m, c.Epoch, nodes)
		if bad != nil {
			return bad
		}
		if !again {
			moves = append(moves, placement.Move{Index: m.Group, Slot: m.Slot, From: m.From, To: m.To})
		}
	}
	if len(moves) == 0 {
		return done()
	}
	next, err := l.Begin(s.bump(), moves)
	if err != nil {
		return failed(err)
	}
	l.Layout = next
	s.putLayout(l)
	return done()
}

// mayBegin judges one move; again: it is under way already.
func (l *Layout) mayBegin(m SlotMove, epoch uint64, nodes map[NodeID]*Node) (again bool, bad *Result) {
	if m.Group < 0 || m.Group >= len(l.Groups) || m.Slot < 0 || m.Slot >= l.Width {
		return false, failf(object.KindInvalid, "there is no slot %d of group %d", m.Slot, m.Group)
	}
	g := l.Groups[m.Group]
	switch {
	case g.Next != nil && g.Holders[m.Slot] == m.From && g.Next[m.Slot] == m.To:
		return true, nil
	case g.Since > epoch:
		return false, stale("the chunk group", g.Since, epoch)
	case l.Target[m.Group][m.Slot] != m.To:
		return false, failf(object.KindConflict, "the plan has no move of group %d to node %q: read the map again", m.Group, m.To)
	case m.To != placement.None && !nodes[m.To].here():
		return false, failf(object.KindConflict, "node %s is gone: plan again", m.To)
	}
	return false, nil
}

// advance takes joint groups on; all of them or none.
func (s *change) advance(c *Advance) *Result {
	l := s.layout(c.Width)
	switch {
	case s.err != nil:
		return nil
	case l == nil:
		return failf(object.KindNotFound, "no bucket has chunks of width %d", c.Width)
	}
	var groups []int
	for _, a := range c.Groups {
		again, bad := l.mayAdvance(a, c.To)
		if bad != nil {
			return bad
		}
		if !again {
			groups = append(groups, a.Group)
		}
		if c.To == Copying && !again {
			l.Copying[a.Group] = true
		}
	}
	if len(groups) == 0 {
		return done()
	}
	epoch, err := s.bump(), error(nil)
	switch c.To {
	case Stable:
		l.Layout, err = l.Finish(epoch, groups...)
	case Canceled:
		l.Layout, err = l.Cancel(epoch, groups...)
	}
	if err != nil {
		return failed(err)
	}
	if c.To != Copying {
		for _, i := range groups {
			delete(l.Copying, i)
		}
	}
	s.putLayout(l)
	return done()
}

// mayAdvance judges one step; again: it was taken already.
func (l *Layout) mayAdvance(a AdvanceGroup, to GroupStep) (again bool, bad *Result) {
	if a.Group < 0 || a.Group >= len(l.Groups) || to < Copying || to > Canceled {
		return false, failf(object.KindInvalid, "there is no chunk group %d, or no such step", a.Group)
	}
	g := l.Groups[a.Group]
	switch {
	case g.Next == nil || g.Since != a.Since:
		return false, failf(object.KindConflict, "the move of group %d that began at epoch %d has ended: read the map again", a.Group, a.Since)
	case to == Copying && l.Copying[a.Group]:
		return true, nil
	case to == Copying && !l.adopted(g, a.Nodes):
		return false, failf(object.KindConflict, "the holders of group %d that have not adopted epoch %d could still acknowledge writes alone: wait for more than %q", a.Group, a.Since, a.Nodes)
	case to == Stable && misplaced(g.Next, l.Target[a.Group]):
		return false, failf(object.KindConflict, "group %d is going where the plan has it no more: cancel its move", a.Group)
	case to == Stable && !l.Copying[a.Group]:
		return false, failf(object.KindConflict, "the copying of group %d has not begun", a.Group)
	case to == Stable && !l.verified(g, a.Nodes):
		return false, failf(object.KindConflict, "the new holders of group %d are not all verified, or no quorum of it is: go on copying", a.Group)
	}
	return false, nil
}

// holders counts the slots that have a node, and those whose node is listed; extra
// reports whether the list names others, or one twice.
func holders(slots, list []NodeID) (all, listed int, extra bool) {
	for _, id := range slots {
		if id != placement.None {
			all++
		}
	}
	for i, id := range list {
		if id == placement.None || !slices.Contains(slots, id) || slices.Contains(list[:i], id) {
			extra = true
			continue
		}
		listed++
	}
	return all, listed, extra
}

// adopted reports whether the old holders that are not listed are no quorum of
// any scheme: then no write that was placed before can succeed any more.
func (l *Layout) adopted(g placement.Group, list []NodeID) bool {
	all, listed, extra := holders(g.Holders, list)
	return !extra && listed >= l.Lists(all)
}

// verified reports whether the list has a quorum of the new holders, every newcomer among them.
func (l *Layout) verified(g placement.Group, list []NodeID) bool {
	all, listed, extra := holders(g.Next, list)
	for k, id := range g.Next {
		if id != g.Holders[k] && id != placement.None && !slices.Contains(list, id) {
			return false
		}
	}
	return !extra && listed >= l.Quorum(all)
}
