package control

import (
	"cmp"
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/placement"
)

// batch is how many chunk groups one command takes on.
const batch = 256

// groups says what is next for the chunk groups of one width.
func (v *view) groups(l *Layout) {
	stray := map[int]bool{}
	for i, g := range l.Groups { // a kept holder was lost: it has to be replaced first
		stray[i] = v.current && g.Next != nil && !l.attainable(g.Next, func(id NodeID) bool { return v.s.Node(id).here() })
	}
	if v.current {
		for _, i := range l.Stray(l.Target) {
			stray[i] = true
		}
	}
	steps := map[GroupStep][]AdvanceGroup{}
	for i, g := range l.Groups {
		if g.Next == nil {
			continue
		}
		if stray[i] {
			steps[Canceled] = append(steps[Canceled], AdvanceGroup{Group: i, Since: g.Since})
		} else if to, nodes := v.joint(l, i); to != 0 {
			steps[to] = append(steps[to], AdvanceGroup{i, g.Since, nodes})
		}
	}
	for _, to := range []GroupStep{Canceled, Stable, Copying} {
		for some := range slices.Chunk(steps[to], batch) {
			v.propose(&Command{Advance: &Advance{Width: l.Width, To: to, Groups: some}})
		}
	}
	if v.current {
		v.beginGroups(l)
	}
}

// joint says where a joint group can go, or asks for copies.
func (v *view) joint(l *Layout, i int) (GroupStep, []NodeID) {
	g := l.Groups[i]
	if l.Copying[i] {
		key := GroupKey{l.Width, i, g.Since}
		all, _, _ := holders(g.Holders, nil)
		verified := only(g.Next, func(id NodeID) bool { return slices.Contains(v.o.Verified[key], id) })
		if l.verified(g, verified) {
			return Stable, verified
		}
		for _, id := range g.Next {
			if id != placement.None && !slices.Contains(verified, id) && v.up(id) {
				v.add(Action{Verb: Copy, By: TheNode, Node: id, Group: key, Lists: l.Lists(all)})
			}
		}
		return 0, nil
	}
	adopted := only(g.Holders, func(id NodeID) bool { return v.o.Nodes[id].Epoch >= g.Since })
	if l.adopted(g, adopted) {
		return Copying, adopted
	}
	return 0, nil
}

// attainable reports whether enough of the new holders are there to be verified.
func (l *Layout) attainable(next []NodeID, there func(NodeID) bool) bool {
	all, _, _ := holders(next, nil)
	return all > 0 && len(only(next, there)) >= l.Quorum(all)
}

// only keeps the nodes for which ok holds.
func only(slots []NodeID, ok func(NodeID) bool) (list []NodeID) {
	for _, id := range slots {
		if id != placement.None && ok(id) {
			list = append(list, id)
		}
	}
	return list
}

// beginGroups makes groups joint, within the limits: what mends comes first.
func (v *view) beginGroups(l *Layout) {
	var underway []placement.Move
	for i, g := range l.Groups {
		for k, to := range g.Next {
			if to != g.Holders[k] {
				underway = append(underway, placement.Move{Index: i, Slot: k, From: g.Holders[k], To: to})
			}
		}
	}
	if len(underway) >= v.s.Settings.GroupMoves {
		return
	}
	moves, err := l.Moves(v.s.Plannable(), l.Target)
	if err != nil {
		return // the plan is about to be replaced
	}
	moves = slices.DeleteFunc(moves, func(m placement.Move) bool {
		next := slices.Clone(l.Groups[m.Index].Holders)
		next[m.Slot] = m.To
		return m.To != placement.None && !v.ready(m.To) || !l.attainable(next, v.ready)
	})
	slices.SortStableFunc(moves, func(a, b placement.Move) int { return cmp.Compare(v.mends(a), v.mends(b)) })
	var begin []SlotMove
	for _, m := range placement.Ready(moves, underway, v.s.Settings.GroupMoves, v.s.Settings.GroupsPerNode) {
		begin = append(begin, SlotMove{m.Index, m.Slot, m.From, m.To})
	}
	for some := range slices.Chunk(begin, batch) {
		v.propose(&Command{Begin: &Begin{Epoch: v.s.Epoch, Width: l.Width, Moves: some}})
	}
}

// mends is 0 for a move that replaces a lost holder or fills a slot, 1 for one that
// only balances.
func (v *view) mends(m placement.Move) int {
	if m.From != placement.None && v.s.Node(m.From).here() {
		return 1
	}
	return 0
}
