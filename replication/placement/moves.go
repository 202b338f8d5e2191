package placement

import (
	"cmp"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Move takes one replica from a node to another. The new replica is there,
// complete and verified, before the old one goes.
type Move struct {
	// Index of the list: Map.Partitions[Index], or the group of a Layout.
	Index int
	// Slot of the group that moves; 0 for a partition.
	Slot int
	// From is None where a replica is only added (or, in a group, an empty slot
	// is filled), To is None where one only goes.
	From, To NodeID
}

// Partition is the partition that a move of a Map is about.
func (m Move) Partition() object.PartitionID { return object.PartitionID(m.Index + 1) }

// Moves lists what leads from today to tomorrow, a Plan for the same nodes; a
// replica on a node that is not among them is lost. The moves of one partition
// are to be made one after the other, in this order; those of different
// partitions may overlap as Ready lets them.
//
// Then a partition that has a majority of good replicas keeps one after every
// single step (a voter added, a voter removed): adding a good replica, or
// removing a lost one, never costs the majority, and a good one goes only right
// after another came, or when none is lost any more.
//
// Partitions closest to losing their majority come first, then the first moves
// of all partitions before the second ones, the nodes in turn.
func Moves(nodes []Node, today, tomorrow *Map) ([]Move, error) {
	if len(today.Partitions) != len(tomorrow.Partitions) {
		return nil, object.Errorf(object.KindInvalid, "maps of %d and %d partitions do not belong together", len(today.Partitions), len(tomorrow.Partitions))
	}
	known := zones(nodes)
	moves, margin := make([][]Move, len(today.Partitions)), make([]int, len(today.Partitions))
	for i, old := range today.Partitions {
		if err := allKnown(known, i, tomorrow.Partitions[i]); err != nil {
			return nil, err
		}
		moves[i] = exchange(known, i, old, tomorrow.Partitions[i])
		margin[i] = good(known, old) - (len(old)/2 + 1)
	}
	return inTurn(moves, margin), nil
}

// zones maps each node to its zone.
func zones(nodes []Node) map[NodeID]string {
	known := make(map[NodeID]string, len(nodes))
	for _, n := range nodes {
		known[n.ID] = n.Zone
	}
	return known
}

// allKnown refuses a plan made for other nodes.
func allKnown(known map[NodeID]string, index int, list []NodeID) error {
	for _, id := range list {
		if _, ok := known[id]; !ok && id != None {
			return object.Errorf(object.KindInvalid, "list %d of the plan names node %q, which is not there: plan again", index, id)
		}
	}
	return nil
}

// good counts the replicas on known nodes.
func good(known map[NodeID]string, list []NodeID) (n int) {
	for _, id := range list {
		if _, ok := known[id]; ok {
			n++
		}
	}
	return n
}

// exchange pairs what leaves a partition with what comes, within a zone where
// possible, and orders the pairs as Moves promises.
func exchange(known map[NodeID]string, index int, old, new []NodeID) (moves []Move) {
	var lost, leaving, coming, filling []NodeID
	for _, id := range old {
		if _, ok := known[id]; !ok {
			lost = append(lost, id)
		} else if !slices.Contains(new, id) {
			leaving = append(leaving, id)
		}
	}
	for _, id := range new {
		if !slices.Contains(old, id) {
			coming = append(coming, id)
		}
	}
	var swaps []Move
	for _, to := range coming {
		same := slices.IndexFunc(leaving, func(id NodeID) bool { return known[id] == known[to] })
		if same < 0 {
			filling = append(filling, to)
			continue
		}
		swaps = append(swaps, Move{Index: index, From: leaving[same], To: to})
		leaving = slices.Delete(leaving, same, same+1)
	}
	for _, to := range filling { // the lost make room first
		switch {
		case len(lost) > 0:
			moves = append(moves, Move{Index: index, From: lost[0], To: to})
			lost = lost[1:]
		case len(leaving) > 0:
			swaps = append(swaps, Move{Index: index, From: leaving[0], To: to})
			leaving = leaving[1:]
		default:
			moves = append(moves, Move{Index: index, To: to})
		}
	}
	for _, from := range lost {
		moves = append(moves, Move{Index: index, From: from})
	}
	moves = append(moves, swaps...)
	for _, from := range leaving {
		moves = append(moves, Move{Index: index, From: from})
	}
	return moves
}

// inTurn merges the moves of all lists: small margins first, then first moves
// before second ones, then the nodes in turn.
func inTurn(lists [][]Move, margin []int) []Move {
	type ordered struct {
		Move
		margin, round, turn int
	}
	var all []ordered
	for i, list := range lists {
		for round, m := range list {
			all = append(all, ordered{Move: m, margin: margin[i], round: round})
		}
	}
	slices.SortStableFunc(all, func(a, b ordered) int {
		return cmp.Or(cmp.Compare(a.margin, b.margin), cmp.Compare(a.round, b.round))
	})
	seen := map[NodeID]int{}
	for i := range all {
		m := &all[i]
		m.turn = max(seen[m.From], seen[m.To])
		for _, id := range []NodeID{m.From, m.To} {
			if id != None {
				seen[id] = m.turn + 1
			}
		}
	}
	slices.SortStableFunc(all, func(a, b ordered) int {
		return cmp.Or(cmp.Compare(a.margin, b.margin), cmp.Compare(a.round, b.round), cmp.Compare(a.turn, b.turn))
	})
	moves := make([]Move, len(all))
	for i, m := range all {
		moves[i] = m.Move
	}
	return moves
}

// Ready picks the moves that may start now, beside those under way: in order,
// one per list at a time, so that not more than limit run in all and not more
// than perNode touch one node (as source or destination). todo has none of
// those under way; the moves that are done are in neither.
func Ready(todo, underway []Move, limit, perNode int) (start []Move) {
	busy, blocked := map[NodeID]int{}, map[int]bool{}
	begin := func(m Move) {
		blocked[m.Index] = true
		busy[m.From]++
		busy[m.To]++
	}
	room := func(id NodeID) bool { return id == None || busy[id] < perNode }
	for _, m := range underway {
		begin(m)
	}
	for _, m := range todo {
		if len(underway)+len(start) >= limit {
			break
		}
		if blocked[m.Index] {
			continue
		}
		if !room(m.From) || !room(m.To) {
			blocked[m.Index] = true // nor may a later move of the list overtake it
			continue
		}
		begin(m)
		start = append(start, m)
	}
	return start
}

// Apply returns the map after a move that is done: To stands where From stood,
// or at the end. The epoch rises by one. A move that does not fit the map is
// KindConflict. Lists that did not change are shared with m.
func (m *Map) Apply(mv Move) (*Map, error) {
	if mv.Index < 0 || mv.Index >= len(m.Partitions) {
		return nil, object.Errorf(object.KindConflict, "the map has no list %d: plan again", mv.Index)
	}
	list := slices.Clone(m.Partitions[mv.Index])
	at := slices.Index(list, mv.From)
	switch {
	case mv.From == mv.To,
		mv.From != None && at < 0,
		mv.To != None && slices.Contains(list, mv.To):
		return nil, object.Errorf(object.KindConflict, "partition %d is on %v, nothing can move there from %q to %q: plan again", mv.Partition(), list, mv.From, mv.To)
	case mv.From == None:
		list = append(list, mv.To)
	case mv.To == None:
		list = slices.Delete(list, at, at+1)
	default:
		list[at] = mv.To
	}
	next := &Map{Epoch: m.Epoch + 1, RF: m.RF, Partitions: slices.Clone(m.Partitions)}
	next.Partitions[mv.Index] = list
	return next, nil
}
