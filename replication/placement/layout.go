package placement

import (
	"cmp"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Layout says which nodes hold the chunks of one width: the number of copies of
// a replicated chunk, or k+m of a Reed-Solomon one. A chunk belongs to the
// group that its id hashes to, for ever; groups are what is planned, moved and
// tracked. The cluster keeps a Layout for every width that a bucket uses.
//
// A Layout is a value in the control group's state: it is never changed, each
// step returns the next one (unchanged groups are shared).
type Layout struct {
	Epoch  uint64 // of the map, when the layout changed last
	Width  int    // slots of each group
	Groups []Group
}

// Group is the holders of one group of chunks.
type Group struct {
	// Holders has Width slots: distinct nodes, and None where the cluster has fewer nodes.
	Holders []NodeID
	// Next is nil, or the slots after the move that is under way. Then the group
	// is joint: a write needs a quorum of Holders and one of Next, and who
	// misses at a node of Next asks that slot's node in Holders.
	Next []NodeID
	// Since is the epoch from which Holders and Next are as they are. Holders
	// refuse puts for the group that were placed under an older one.
	Since uint64
}

// target is where the group is, or is going.
func (g Group) target() []NodeID {
	if g.Next != nil {
		return g.Next
	}
	return g.Holders
}

// NewLayout makes the layout of a width that has no chunks yet.
func NewLayout(nodes []Node, width, groups int, epoch uint64) (*Layout, error) {
	if groups < 1 || groups > MaxGroups {
		return nil, object.Errorf(object.KindInvalid, "%d chunk groups are not possible: choose 1 to %d", groups, MaxGroups)
	}
	l := &Layout{Epoch: epoch, Width: width, Groups: make([]Group, groups)}
	slots, err := l.Plan(nodes)
	if err != nil {
		return nil, err
	}
	for i := range l.Groups {
		l.Groups[i] = Group{Holders: slots[i], Since: epoch}
	}
	return l, nil
}

// Plan returns the slots of every group that suit the nodes, starting from
// where the groups are going. All that the function Plan promises for replicas
// and zones holds for slots; leaders there are none. A node that stays keeps
// its slot, since the slot says which shard it holds. A group that has fewer
// nodes than slots has None in some, and gets them filled as nodes join.
func (l *Layout) Plan(nodes []Node) ([][]NodeID, error) {
	if l.Width < 1 || l.Width > MaxReplicas {
		return nil, object.Errorf(object.KindInvalid, "chunks of %d copies or shards are not possible: choose 1 to %d", l.Width, MaxReplicas)
	}
	today := make([][]NodeID, len(l.Groups))
	for i, g := range l.Groups {
		today[i] = g.target()
	}
	if err := checkLists(today, MaxGroups, l.Width); err != nil {
		return nil, err
	}
	p, err := newPool(nodes)
	if err != nil {
		return nil, err
	}
	choices, err := p.arrange(l.Width, today)
	if err != nil {
		return nil, err
	}
	known, slots := zones(nodes), make([][]NodeID, len(choices))
	for i, c := range choices {
		slots[i] = fillSlots(known, l.Width, today[i], c)
	}
	return slots, nil
}

// fillSlots leaves the kept nodes where they are and gives the others the free
// slots, that of a node of the same zone if there is one, so that the steps
// between keep the zones apart as well.
func fillSlots(known map[NodeID]string, width int, old []NodeID, c choice) []NodeID {
	slots := make([]NodeID, width)
	for k, id := range old {
		if slices.Contains(c.kept, id) {
			slots[k] = id
		}
	}
	var rest []NodeID
	for _, id := range c.added {
		at := -1
		for k, was := range old {
			if zone, ok := known[was]; ok && slots[k] == None && zone == known[id] {
				at = k
				break
			}
		}
		if at < 0 {
			rest = append(rest, id)
			continue
		}
		slots[at] = id
	}
	for _, id := range rest {
		slots[slices.Index(slots, None)] = id
	}
	return slots
}

// Moves lists what leads to the planned slots, each move filling or emptying
// one slot; they are ordered as those of a Map, and groups that lost most
// holders come first. Groups that are joint are left out: theirs come when they are not.
func (l *Layout) Moves(nodes []Node, plan [][]NodeID) ([]Move, error) {
	if len(plan) != len(l.Groups) {
		return nil, object.Errorf(object.KindInvalid, "a plan of %d groups does not fit a layout of %d", len(plan), len(l.Groups))
	}
	known := zones(nodes)
	moves, margin := make([][]Move, len(l.Groups)), make([]int, len(l.Groups))
	for i, g := range l.Groups {
		if err := allKnown(known, i, plan[i]); err != nil {
			return nil, err
		}
		if margin[i] = good(known, g.Holders); g.Next != nil {
			continue
		}
		for k, from := range g.Holders {
			if to := plan[i][k]; to != from {
				moves[i] = append(moves[i], Move{Index: i, Slot: k, From: from, To: to})
			}
		}
		slices.SortStableFunc(moves[i], func(a, b Move) int { return cmp.Compare(urgency(known, a), urgency(known, b)) })
	}
	return inTurn(moves, margin), nil
}

// urgency orders the moves of one group: what mends, what grows, what balances,
// what only goes.
func urgency(known map[NodeID]string, m Move) int {
	_, ok := known[m.From]
	switch {
	case m.To == None:
		return 3
	case m.From == None:
		return 1
	case !ok:
		return 0
	}
	return 2
}

// Stray lists the joint groups that are on their way to where the plan no
// longer wants them (their destination died, say): Cancel those.
func (l *Layout) Stray(plan [][]NodeID) (groups []int) {
	for i, g := range l.Groups {
		for k, to := range g.Next {
			if i >= len(plan) || to != g.Holders[k] && to != plan[i][k] {
				groups = append(groups, i)
				break
			}
		}
	}
	return groups
}

// Begin makes the groups of the moves joint, in one step at epoch. A group that
// is joint already, or is not where the move thinks, is KindConflict.
func (l *Layout) Begin(epoch uint64, moves []Move) (*Layout, error) {
	begun := map[int]bool{}
	return l.step(epoch, func(next []Group) error {
		for _, m := range moves {
			if m.Index < 0 || m.Index >= len(next) || m.Slot < 0 || m.Slot >= l.Width {
				return object.Errorf(object.KindConflict, "the layout has no slot %d in group %d: plan again", m.Slot, m.Index)
			}
			g := &next[m.Index]
			if !begun[m.Index] {
				if g.Next != nil {
					return object.Errorf(object.KindConflict, "group %d is moving already: finish or cancel that first", m.Index)
				}
				begun[m.Index] = true
				g.Next, g.Since = slices.Clone(g.Holders), epoch
			}
			if g.Next[m.Slot] != m.From || m.To == m.From || m.To != None && (slices.Contains(g.Next, m.To) || slices.Contains(g.Holders, m.To)) {
				return object.Errorf(object.KindConflict, "group %d is on %q, slot %d cannot go from %q to %q: plan again", m.Index, g.Holders, m.Slot, m.From, m.To)
			}
			g.Next[m.Slot] = m.To
		}
		return nil
	})
}

// Finish ends the move of joint groups: what was next now holds them. The
// caller has made sure that a quorum of it is complete and verified.
func (l *Layout) Finish(epoch uint64, groups ...int) (*Layout, error) {
	return l.end(epoch, groups, func(g Group) []NodeID { return g.Next })
}

// Cancel ends the move of joint groups where they were: every write since Begin
// has its quorum there too.
func (l *Layout) Cancel(epoch uint64, groups ...int) (*Layout, error) {
	return l.end(epoch, groups, func(g Group) []NodeID { return g.Holders })
}

// end leaves joint groups with the holders that keep chooses.
func (l *Layout) end(epoch uint64, groups []int, keep func(Group) []NodeID) (*Layout, error) {
	return l.step(epoch, func(next []Group) error {
		for _, i := range groups {
			if i < 0 || i >= len(next) || next[i].Next == nil {
				return object.Errorf(object.KindConflict, "group %d is not moving", i)
			}
			next[i] = Group{Holders: keep(next[i]), Since: epoch}
		}
		return nil
	})
}

// step returns the layout of a later epoch, with changed groups.
func (l *Layout) step(epoch uint64, change func([]Group) error) (*Layout, error) {
	if epoch <= l.Epoch {
		return nil, object.Errorf(object.KindConflict, "the layout is of epoch %d already, a change at %d comes too late", l.Epoch, epoch)
	}
	next := &Layout{Epoch: epoch, Width: l.Width, Groups: slices.Clone(l.Groups)}
	if err := change(next.Groups); err != nil {
		return nil, err
	}
	return next, nil
}
