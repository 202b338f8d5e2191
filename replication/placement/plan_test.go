package placement

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestPlanKeepsItsPromises walks through membership changes of all kinds.
func TestPlanKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := anyNodes(t, 50)
		m := NewMap(rapid.OneOf(rapid.IntRange(1, 8), rapid.IntRange(9, 300)).Draw(t, "partitions"))
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			rf := rapid.IntRange(1, 7).Draw(t, "rf")
			next := mustPlan(t, nodes, rf, m)
			checkPlan(t, nodes, rf, m.Partitions, next.Partitions)
			checkLeaders(t, nodes, next.Partitions)

			shuffled := slices.Clone(nodes)
			rand.New(rand.NewPCG(1, next.Epoch)).Shuffle(len(nodes), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
			again := mustPlan(t, shuffled, rf, m)
			if !slices.EqualFunc(next.Partitions, again.Partitions, slices.Equal[[]NodeID]) || next.Epoch != again.Epoch {
				t.Fatal("the plan depends on the order of the nodes")
			}
			again = mustPlan(t, nodes, rf, next)
			if !slices.EqualFunc(next.Partitions, again.Partitions, slices.Equal[[]NodeID]) || next.Epoch != again.Epoch {
				t.Fatal("a second plan changes the first")
			}
			m, nodes = next, changed(t, nodes)
		}
	})
}

// TestPlanLarge does the same at the largest size once.
func TestPlanLarge(t *testing.T) {
	nodes := cluster(50, 7)
	for i := range nodes {
		nodes[i].Weight = uint32(1 + i%4)
	}
	m := NewMap(4096)
	for _, step := range []func(){
		func() {},
		func() { nodes = append(nodes, Node{ID: "new", Zone: "zone-1", Weight: 2}) },
		func() { nodes = slices.Delete(nodes, 3, 4) },
		func() { nodes[7].Weight = 0 },
	} {
		step()
		next := mustPlan(t, nodes, 3, m)
		checkPlan(t, nodes, 3, m.Partitions, next.Partitions)
		checkLeaders(t, nodes, next.Partitions)
		m = next
	}
}

// TestPlanMovesLeast: no balanced map at all moves fewer replicas.
func TestPlanMovesLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := anyNodes(t, 8)
		m := NewMap(rapid.IntRange(1, 12).Draw(t, "partitions"))
		for range 3 {
			rf := rapid.IntRange(1, 4).Draw(t, "rf")
			next := mustPlan(t, nodes, rf, m)
			live := slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return n.Weight == 0 })
			if len(live) >= rf && cheaper(live, rf, m.Partitions, next.Partitions) {
				t.Fatalf("from %v to %v moves %d; a balanced map moves fewer", m.Partitions, next.Partitions, came(m.Partitions, next.Partitions))
			}
			m, nodes = next, changed(t, nodes)
		}
	})
}

// TestMovesLeastCatches plants a needless exchange.
func TestMovesLeastCatches(t *testing.T) {
	today := [][]NodeID{{"node-00", "node-01"}, {"node-02", "node-03"}}
	worse := [][]NodeID{{"node-00", "node-02"}, {"node-01", "node-03"}}
	if !cheaper(cluster(4, 1), 2, today, worse) || cheaper(cluster(4, 1), 2, today, today) {
		t.Fatal("the checker does not tell a needless move")
	}
}

// TestJoinAndLeave: among equal nodes a join moves exactly what the newcomer
// gets, which is its fair share rounded down or up; a leave and a drain exactly what the leaver had.
func TestJoinAndLeave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count, rf := rapid.IntRange(3, 50).Draw(t, "nodes"), rapid.IntRange(1, 3).Draw(t, "rf")
		zones := rapid.SampledFrom([]int{1, count + 1}).Draw(t, "zones")
		lists := rapid.IntRange(1, 400).Draw(t, "partitions")
		nodes := cluster(count+1, zones)
		today := mustPlan(t, nodes[:count], rf, NewMap(lists))
		joined := mustPlan(t, nodes, rf, today)
		got, fair := loads(joined.Partitions)[nodes[count].ID], (lists*rf+count)/(count+1)
		if n := came(today.Partitions, joined.Partitions); n != got || n > fair {
			t.Fatalf("the join moved %d replicas, the newcomer has %d, its fair share is up to %d", n, got, fair)
		}
		who := rapid.IntRange(0, count).Draw(t, "leaver")
		if count < rf {
			return
		}
		drained := slices.Clone(nodes)
		drained[who].Weight = 0
		for _, rest := range [][]Node{slices.Delete(slices.Clone(nodes), who, who+1), drained} {
			left := mustPlan(t, rest, rf, joined)
			if n, had := came(joined.Partitions, left.Partitions), loads(joined.Partitions)[nodes[who].ID]; n != had {
				t.Fatalf("the leave moved %d replicas, the leaver had %d", n, had)
			}
			if n := loads(left.Partitions)[nodes[who].ID]; n != 0 {
				t.Fatalf("%d replicas stay on the leaver", n)
			}
		}
	})
}

// TestGrowthOnlyAdds: a larger RF among equal nodes, and nodes that join where there were fewer than RF.
func TestGrowthOnlyAdds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 50).Draw(t, "nodes")
		rf := rapid.IntRange(1, 6).Draw(t, "rf")
		nodes := cluster(count, 1)
		today := mustPlan(t, nodes, rf, NewMap(rapid.IntRange(1, 200).Draw(t, "partitions")))
		grown := mustPlan(t, nodes, rf+1, today)
		if count < rf {
			nodes = cluster(count+1, 1)
			grown = mustPlan(t, nodes, rf, today)
		}
		for i, list := range today.Partitions {
			for _, id := range list {
				if !slices.Contains(grown.Partitions[i], id) {
					t.Fatalf("partition %d on %v became %v", i, list, grown.Partitions[i])
				}
			}
		}
	})
}

// TestDrainTooFar: who drains keeps what no other node can take, and nothing comes to it.
func TestDrainTooFar(t *testing.T) {
	nodes := cluster(4, 1)
	today := mustPlan(t, nodes, 3, NewMap(64))
	nodes[1].Weight, nodes[2].Weight = 0, 0
	next := mustPlan(t, nodes, 3, today)
	checkPlan(t, nodes, 3, today.Partitions, next.Partitions)
	for i, list := range next.Partitions {
		if len(list) != 3 {
			t.Errorf("partition %d has %d replicas", i, len(list))
		}
	}
	nodes[0].Weight, nodes[3].Weight = 0, 0
	if last := mustPlan(t, nodes, 3, next); came(next.Partitions, last.Partitions) != 0 || last.Epoch != next.Epoch {
		t.Error("replicas moved although every node drains")
	}
	if _, err := Plan(nodes, 3, NewMap(1)); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("placing on draining nodes: %v", err)
	}
}

// TestNeighbours: after joins, too, a node shares its partitions with nearly all
// others, so that all of them help to restore it.
func TestNeighbours(t *testing.T) {
	m := NewMap(1024)
	for count := 10; count <= 20; count++ {
		m = mustPlan(t, cluster(count, 1), 3, m)
	}
	for _, n := range cluster(20, 1) {
		shared := map[NodeID]int{}
		for _, list := range m.Partitions {
			if slices.Contains(list, n.ID) {
				for _, id := range list {
					shared[id]++
				}
			}
		}
		delete(shared, n.ID)
		most := 0
		for _, k := range shared {
			most = max(most, k)
		}
		if len(shared) < 17 || most > 50 { // a fair share is 16 of 307
			t.Errorf("node %s has %d neighbours, the closest shares %d", n.ID, len(shared), most)
		}
	}
}

// TestSameEverywhere pins plans: a change of hash, order or arithmetic would
// make nodes of two versions disagree, and must be a decision.
func TestSameEverywhere(t *testing.T) {
	nodes := cluster(9, 4)
	nodes[3].Weight, nodes[5].Weight = 3, 2
	m := mustPlan(t, nodes[:8], 3, NewMap(64))
	m = mustPlan(t, nodes, 3, m)
	sum := sha256.Sum256(fmt.Append(nil, m.Partitions))
	if got, want := hex.EncodeToString(sum[:8]), "2541d28396ab9633"; got != want {
		t.Errorf("the plan's digest is %s, was %s", got, want)
	}
}

func TestPlanRefusesNonsense(t *testing.T) {
	two := cluster(2, 1)
	for name, try := range map[string]func() error{
		"rf 0":           func() error { _, err := Plan(two, 0, NewMap(1)); return err },
		"rf 65":          func() error { _, err := Plan(two, 65, NewMap(1)); return err },
		"no partitions":  func() error { _, err := Plan(two, 1, NewMap(0)); return err },
		"too many":       func() error { _, err := Plan(two, 1, NewMap(MaxPartitions+1)); return err },
		"no nodes":       func() error { _, err := Plan(nil, 1, NewMap(1)); return err },
		"empty id":       func() error { _, err := Plan([]Node{{Weight: 1}}, 1, NewMap(1)); return err },
		"same id":        func() error { _, err := Plan(append(two, two[0]), 1, NewMap(1)); return err },
		"a node twice":   func() error { _, err := Plan(two, 1, &Map{Partitions: [][]NodeID{{"a", "a"}}}); return err },
		"width 0":        func() error { _, err := NewLayout(two, 0, 8, 1); return err },
		"no groups":      func() error { _, err := NewLayout(two, 3, 0, 1); return err },
		"too many slots": func() error { _, err := NewLayout(two, MaxReplicas+1, 8, 1); return err },
	} {
		if err := try(); !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	today := mustPlan(b, cluster(50, 10), 3, NewMap(4096))
	for b.Loop() {
		mustPlan(b, cluster(51, 10), 3, today)
	}
}
