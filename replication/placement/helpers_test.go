package placement

import (
	"fmt"
	"math/big"
	"slices"

	"pgregory.net/rapid"
)

// cluster is count nodes, spread over zones in turn, all of weight 1.
func cluster(count, zones int) []Node {
	nodes := make([]Node, count)
	for i := range nodes {
		nodes[i] = Node{ID: NodeID(fmt.Sprintf("node-%02d", i)), Zone: fmt.Sprintf("zone-%d", i%zones), Weight: 1}
	}
	return nodes
}

// anyNodes draws 1 to most nodes in some zones, some of them draining.
func anyNodes(t *rapid.T, most int) []Node {
	nodes := cluster(rapid.IntRange(1, most).Draw(t, "nodes"), rapid.IntRange(1, most).Draw(t, "zones"))
	weights := rapid.SampledFrom([][]uint32{{1}, {0, 1}, {1, 2, 3}, {0, 1, 1, 100, 4_000_000_000}, {1000, 1001, 1007}}).Draw(t, "weights")
	for i := range nodes {
		nodes[i].Weight = rapid.SampledFrom(weights).Draw(t, "weight")
	}
	if total(nodes) == 0 {
		nodes[0].Weight = 1
	}
	return nodes
}

// changed draws other nodes: some leave, some join, some change their weight.
func changed(t *rapid.T, nodes []Node) []Node {
	var next []Node
	for _, n := range nodes {
		switch rapid.IntRange(0, 9).Draw(t, "fate") {
		case 0:
			continue
		case 1:
			n.Weight = uint32(rapid.IntRange(0, 3).Draw(t, "weight"))
		}
		next = append(next, n)
	}
	for _, id := range rapid.SliceOfNDistinct(rapid.IntRange(0, 1000), 0, 3, rapid.ID).Draw(t, "joins") {
		if slices.ContainsFunc(next, func(n Node) bool { return n.ID == NodeID(fmt.Sprintf("new-%d", id)) }) {
			continue
		}
		next = append(next, Node{
			ID:     NodeID(fmt.Sprintf("new-%d", id)),
			Zone:   fmt.Sprintf("zone-%d", rapid.IntRange(0, 5).Draw(t, "zone")),
			Weight: 1,
		})
	}
	if total(next) == 0 {
		return nodes
	}
	return next
}

// total is the sum of the weights.
func total(nodes []Node) (w uint64) {
	for _, n := range nodes {
		w += uint64(n.Weight)
	}
	return w
}

// mustPlan plans or fails the test.
func mustPlan(t rapid.TB, nodes []Node, rf int, today *Map) *Map {
	t.Helper()
	tomorrow, err := Plan(nodes, rf, today)
	if err != nil {
		t.Fatalf("Plan: %v", err)
	}
	return tomorrow
}

// came counts the replicas of tomorrow that today lacks.
func came(today, tomorrow [][]NodeID) (n int) {
	for i, list := range tomorrow {
		for _, id := range list {
			if id != None && !slices.Contains(today[i], id) {
				n++
			}
		}
	}
	return n
}

// loads counts each node's places in the lists.
func loads(lists [][]NodeID) map[NodeID]int {
	load := map[NodeID]int{}
	for _, list := range lists {
		for _, id := range list {
			load[id]++
		}
	}
	delete(load, None)
	return load
}

// zoneCap is how many of r replicas the fullest zone must hold: replicas are
// dealt to the zones in rounds.
func zoneCap(nodes []Node, r int) int {
	room := map[string]int{}
	for _, n := range nodes {
		if n.Weight > 0 {
			room[n.Zone]++
		}
	}
	for round := 1; ; round++ {
		for z, free := range room {
			if free >= round {
				if r--; r == 0 {
					return round
				}
			} else {
				delete(room, z)
			}
		}
	}
}

// fairShares is the definition that quotas must meet, computed another way: the
// level rises from zero, each node takes level × weight, and stops when it has one
// replica of each list, or when its zone is full. Exact.
func fairShares(nodes []Node, lists, r int) map[NodeID]*big.Rat {
	share, stopped := map[NodeID]*big.Rat{}, map[NodeID]bool{}
	zone := map[string][]Node{}
	for _, n := range nodes {
		if n.Weight > 0 {
			share[n.ID] = new(big.Rat)
			zone[n.Zone] = append(zone[n.Zone], n)
		}
	}
	c := zoneCap(nodes, r)
	left := big.NewRat(int64(lists*r), 1)
	for left.Sign() > 0 {
		rise := new(big.Rat) // of the level, to the next event
		sooner := func(room *big.Rat, weight uint64) {
			if weight > 0 {
				if d := new(big.Rat).Quo(room, big.NewRat(int64(weight), 1)); rise.Sign() == 0 || d.Cmp(rise) < 0 {
					rise = d
				}
			}
		}
		room := func(members []Node, cap int) (*big.Rat, uint64) {
			free, weight := big.NewRat(int64(cap), 1), uint64(0)
			for _, n := range members {
				if free.Sub(free, share[n.ID]); !stopped[n.ID] {
					weight += uint64(n.Weight)
				}
			}
			return free, weight
		}
		all := uint64(0)
		for _, members := range zone {
			sooner(room(members, lists*min(c, len(members))))
			for _, n := range members {
				if !stopped[n.ID] {
					sooner(room([]Node{n}, lists))
					all += uint64(n.Weight)
				}
			}
		}
		sooner(left, all)
		for _, members := range zone {
			for _, n := range members {
				if !stopped[n.ID] {
					d := new(big.Rat).Mul(rise, big.NewRat(int64(n.Weight), 1))
					share[n.ID].Add(share[n.ID], d)
					left.Sub(left, d)
				}
			}
		}
		for _, members := range zone {
			free, _ := room(members, lists*min(c, len(members)))
			for _, n := range members {
				full, _ := room([]Node{n}, lists)
				stopped[n.ID] = stopped[n.ID] || free.Sign() == 0 || full.Sign() == 0
			}
		}
	}
	return share
}

// bounds are the fair shares rounded down and up.
func bounds(nodes []Node, lists, r int) map[NodeID]quota {
	b := map[NodeID]quota{}
	for id, s := range fairShares(nodes, lists, r) {
		least := int(new(big.Int).Quo(s.Num(), s.Denom()).Int64())
		b[id] = quota{least, least}
		if !s.IsInt() {
			b[id] = quota{least, least + 1}
		}
	}
	return b
}

// checkPlan checks all that is promised of every plan, but minimal movement.
func checkPlan(t rapid.TB, nodes []Node, rf int, today, tomorrow [][]NodeID) {
	t.Helper()
	zone, weight := map[NodeID]string{}, map[NodeID]uint32{}
	var live []Node
	for _, n := range nodes {
		if zone[n.ID], weight[n.ID] = n.Zone, n.Weight; n.Weight > 0 {
			live = append(live, n)
		}
	}
	for i, list := range tomorrow {
		perZone, taking := map[string]int{}, 0
		for k, id := range list {
			if _, known := zone[id]; !known || slices.Contains(list[:k], id) {
				t.Fatalf("list %d is %v: %q is unknown or there twice", i, list, id)
			}
			if weight[id] > 0 {
				taking++
				perZone[zone[id]]++
			} else if !slices.Contains(today[i], id) || len(live) >= rf {
				t.Fatalf("list %d is %v: %q drains", i, list, id)
			}
		}
		if taking != min(rf, len(live)) || len(list) > rf {
			t.Fatalf("list %d is %v: %d of %d live nodes for %d replicas", i, list, taking, len(live), rf)
		}
		for z, n := range perZone {
			if len(live) >= rf && n > zoneCap(nodes, rf) {
				t.Fatalf("list %d is %v: %d replicas in zone %s, at most %d needed", i, list, n, z, zoneCap(nodes, rf))
			}
		}
	}
	load := loads(tomorrow)
	for id, b := range bounds(live, len(tomorrow), min(rf, len(live))) {
		if load[id] < b.least || load[id] > b.most {
			t.Fatalf("node %s has %d replicas, its fair share is %d to %d", id, load[id], b.least, b.most)
		}
	}
}

// checkLeaders checks that leaders are live and balanced.
func checkLeaders(t rapid.TB, nodes []Node, lists [][]NodeID) {
	t.Helper()
	load, lead, live := loads(lists), map[NodeID]int{}, 0
	for _, list := range lists {
		lead[list[0]]++
	}
	each := len(lists[0])
	for _, n := range nodes {
		if n.Weight > 0 {
			live++
		}
	}
	each = min(each, live)
	for _, n := range nodes {
		if n.Weight == 0 && lead[n.ID] > 0 {
			t.Fatalf("node %s drains and leads %d", n.ID, lead[n.ID])
		}
		if n.Weight > 0 && (lead[n.ID] < load[n.ID]/each || lead[n.ID] > (load[n.ID]+each-1)/each) {
			t.Fatalf("node %s leads %d of its %d partitions, of %d replicas each", n.ID, lead[n.ID], load[n.ID], each)
		}
	}
}

// cheaper reports whether another balanced map would keep more of today's
// replicas. It would exactly if the changes allowed from tomorrow contain a
// cycle of negative cost (Klein, 1967), which Bellman-Ford finds. For small maps.
func cheaper(nodes []Node, r int, today, tomorrow [][]NodeID) bool {
	type change struct{ from, to, cost int }
	var changes []change
	number := map[string]int{}
	vertex := func(format string, args ...any) int {
		name := fmt.Sprintf(format, args...)
		if _, ok := number[name]; !ok {
			number[name] = len(number)
		}
		return number[name]
	}
	load, c := loads(tomorrow), zoneCap(nodes, r)
	b := bounds(nodes, len(today), r)
	hub := vertex("hub")
	for _, n := range nodes {
		if n.Weight == 0 {
			continue
		}
		at := vertex("node %s", n.ID)
		if load[n.ID] < b[n.ID].most {
			changes = append(changes, change{at, hub, 0})
		}
		if load[n.ID] > b[n.ID].least {
			changes = append(changes, change{hub, at, 0})
		}
		for i := range tomorrow {
			cost := costUnless(slices.Contains(today[i], n.ID))
			if room := vertex("zone %s of %d", n.Zone, i); slices.Contains(tomorrow[i], n.ID) {
				changes = append(changes, change{at, room, -cost})
			} else {
				changes = append(changes, change{room, at, cost})
			}
		}
	}
	for i, list := range tomorrow {
		count := map[string]int{}
		for _, n := range nodes {
			count[n.Zone] += 0
			if slices.Contains(list, n.ID) {
				count[n.Zone]++
			}
		}
		for z, k := range count {
			if k < c {
				changes = append(changes, change{vertex("list %d", i), vertex("zone %s of %d", z, i), 0})
			}
			if k > 0 {
				changes = append(changes, change{vertex("zone %s of %d", z, i), vertex("list %d", i), 0})
			}
		}
	}
	distance := make([]int, len(number))
	for range len(number) + 1 {
		settled := true
		for _, e := range changes {
			if d := distance[e.from] + e.cost; d < distance[e.to] {
				distance[e.to], settled = d, false
			}
		}
		if settled {
			return false
		}
	}
	return true
}
