package placement

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// distinctZones reports whether no two of the nodes share a zone.
func distinctZones(known map[NodeID]string, list []NodeID) bool {
	seen := map[string]bool{}
	for _, id := range list {
		if seen[known[id]] {
			return false
		}
		seen[known[id]] = true
	}
	return true
}

// TestMovesKeepTheMajority makes every single step of every move.
func TestMovesKeepTheMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := anyNodes(t, 12)
		m := mustPlan(t, nodes, rapid.IntRange(1, 5).Draw(t, "rf"), NewMap(rapid.IntRange(1, 40).Draw(t, "partitions")))
		nodes = changed(t, nodes)
		tomorrow := mustPlan(t, nodes, rapid.IntRange(1, 5).Draw(t, "new rf"), m)
		moves, err := Moves(nodes, m, tomorrow)
		if err != nil {
			t.Fatal(err)
		}
		known, had, zoned := zones(nodes), make([]bool, len(m.Partitions)), make([]bool, len(m.Partitions))
		majority := func(list []NodeID) bool { return good(known, list) >= len(list)/2+1 }
		for i, list := range m.Partitions {
			had[i] = majority(list)
			zoned[i] = good(known, list) == len(list) && distinctZones(known, list) && distinctZones(known, tomorrow.Partitions[i])
		}
		for _, mv := range moves {
			if mv.To != None {
				if joint := append(slices.Clone(m.Partitions[mv.Index]), mv.To); had[mv.Index] && !majority(joint) {
					t.Fatalf("%v loses the majority of %v as %q joins", mv, m.Partitions[mv.Index], mv.To)
				}
			}
			if m, err = m.Apply(mv); err != nil {
				t.Fatal(err)
			}
			if list := m.Partitions[mv.Index]; had[mv.Index] && len(list) > 0 && !majority(list) {
				t.Fatalf("%v leaves %v without a majority", mv, list)
			}
			if zoned[mv.Index] && !distinctZones(known, m.Partitions[mv.Index]) {
				t.Fatalf("%v puts two of %v in one zone", mv, m.Partitions[mv.Index])
			}
		}
		for i, list := range m.Partitions {
			if !slices.Equal(slices.Sorted(slices.Values(list)), slices.Sorted(slices.Values(tomorrow.Partitions[i]))) {
				t.Fatalf("the moves lead to %v, not %v", list, tomorrow.Partitions[i])
			}
		}
	})
}

// TestPlanAgain: a plan made half way needs exactly the moves that are left.
func TestPlanAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := anyNodes(t, 12)
		m := mustPlan(t, nodes, 3, NewMap(rapid.IntRange(1, 60).Draw(t, "partitions")))
		nodes = changed(t, nodes)
		all := mustPlan(t, nodes, 3, m)
		moves, err := Moves(nodes, m, all)
		if err != nil {
			t.Fatal(err)
		}
		left := came(m.Partitions, all.Partitions)
		for _, mv := range moves[:rapid.IntRange(0, len(moves)).Draw(t, "done")] {
			if mv.To != None {
				left--
			}
			if m, err = m.Apply(mv); err != nil {
				t.Fatal(err)
			}
		}
		if n := came(m.Partitions, mustPlan(t, nodes, 3, m).Partitions); n != left {
			t.Fatalf("planned again, %d replicas move instead of the %d left", n, left)
		}
	})
}

// TestReady runs all moves of a change with bounds, ending them in any order.
func TestReady(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := anyNodes(t, 12)
		m := mustPlan(t, nodes, 3, NewMap(rapid.IntRange(1, 60).Draw(t, "partitions")))
		nodes = changed(t, nodes)
		todo, err := Moves(nodes, m, mustPlan(t, nodes, rapid.IntRange(1, 4).Draw(t, "rf"), m))
		if err != nil {
			t.Fatal(err)
		}
		limit, perNode := rapid.IntRange(1, 8).Draw(t, "limit"), rapid.IntRange(1, 3).Draw(t, "per node")
		first := map[int]Move{}
		var underway []Move
		for len(todo) > 0 || len(underway) > 0 {
			for _, mv := range Ready(todo, underway, limit, perNode) {
				at := slices.Index(todo, mv)
				if k := slices.IndexFunc(todo, func(o Move) bool { return o.Index == mv.Index }); k != at {
					t.Fatalf("%v overtakes %v", mv, todo[k])
				}
				if other, busy := first[mv.Index]; busy {
					t.Fatalf("%v starts while %v runs", mv, other)
				}
				first[mv.Index] = mv
				todo, underway = slices.Delete(todo, at, at+1), append(underway, mv)
			}
			busy := map[NodeID]int{}
			for _, mv := range underway {
				busy[mv.From]++
				busy[mv.To]++
			}
			delete(busy, None)
			for id, n := range busy {
				if n > perNode {
					t.Fatalf("node %s has %d moves at once", id, n)
				}
			}
			if len(underway) == 0 || len(underway) > limit {
				t.Fatalf("%d moves run, %d wait", len(underway), len(todo))
			}
			k := rapid.IntRange(0, len(underway)-1).Draw(t, "ends")
			delete(first, underway[k].Index)
			underway = slices.Delete(underway, k, k+1)
		}
	})
}

// TestUrgentFirst: what lost most comes first, and the nodes take turns.
func TestUrgentFirst(t *testing.T) {
	today := &Map{RF: 3, Partitions: [][]NodeID{{"a", "b", "c"}, {"a", "b", "gone"}, {"a", "b", "c"}}}
	tomorrow := &Map{RF: 3, Partitions: [][]NodeID{{"d", "e", "c"}, {"a", "b", "d"}, {"a", "b", "e"}}}
	nodes := []Node{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}, {ID: "e"}}
	got, err := Moves(nodes, today, tomorrow)
	want := []Move{{1, 0, "gone", "d"}, {2, 0, "c", "e"}, {0, 0, "a", "d"}, {0, 0, "b", "e"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the moves are %v, %v; wanted %v", got, err, want)
	}
	if got[0].Partition() != 2 || !slices.Equal(today.Replicas(2), today.Partitions[1]) || today.Replicas(0) != nil || today.Replicas(4) != nil {
		t.Error("partitions are not counted from 1")
	}
	if _, err := Moves(nodes[:4], today, tomorrow); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("a plan for other nodes: %v", err)
	}
}

func TestApplyRefuses(t *testing.T) {
	m := &Map{Partitions: [][]NodeID{{"a", "b"}}}
	for _, mv := range []Move{{1, 0, "a", "c"}, {-1, 0, "a", "c"}, {0, 0, "x", "c"}, {0, 0, "a", "b"}, {0, 0, None, None}, {0, 0, None, "a"}, {0, 0, "x", None}} {
		if _, err := m.Apply(mv); !object.IsKind(err, object.KindConflict) {
			t.Errorf("%v: %v", mv, err)
		}
	}
}
