package placement

import (
	"cmp"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// choice is who holds one list tomorrow.
type choice struct {
	kept  []NodeID // of today's, in today's order
	added []NodeID // the list's best loved first
}

// arrange chooses want nodes for every list. With at least want live nodes it
// solves; with fewer, every live node holds every list, and draining nodes keep
// what no other can take.
func (p *pool) arrange(want int, today [][]NodeID) ([]choice, error) {
	if len(p.live) >= want {
		return p.solve(want, today)
	}
	choices := make([]choice, len(today))
	for i, list := range today {
		spare := want - len(p.live)
		c := &choices[i]
		for _, id := range list {
			if _, live := p.index[id]; live {
				c.kept = append(c.kept, id)
			} else if p.draining[id] && spare > 0 {
				c.kept = append(c.kept, id)
				spare--
			}
		}
		for _, n := range p.ranked(i) {
			if id := p.live[n].ID; !slices.Contains(list, id) {
				c.added = append(c.added, id)
			}
		}
		if len(c.kept)+len(c.added) == 0 {
			return nil, object.Errorf(object.KindInvalid, "no node can take list %d: give at least one node a weight above 0", i)
		}
	}
	return choices, nil
}

// solve chooses r of at least r live nodes for every list, such that every node
// is within its quota, no zone holds more of a list than it must, and as many of
// today's replicas as possible stay: a flow of least cost
//
//	source → list → (zone of the list) → node → sink
//
// where staying is free and coming costs 1. Fair shares, spread evenly over the
// lists, are such a flow in fractions, so one in whole numbers exists too.
func (p *pool) solve(r int, today [][]NodeID) ([]choice, error) {
	c := p.spread(r)
	crowded := p.crowded(r, c)
	count := 0 // zone vertices per list
	for _, yes := range crowded {
		if yes {
			count++
		}
	}
	node := func(n int) int { return 2 + n }
	list := func(i int) int { return 2 + len(p.live) + i*(1+count) }
	f := newNetwork(list(len(today)))

	p.toSink(f, p.quotas(len(today), r, c))
	ranked, arcs := make([][]int, len(today)), make([][]int, len(today))
	for _, i := range p.shuffled(len(today)) {
		f.connect(source, list(i), r, 0)
		ranked[i], arcs[i] = p.ranked(i), make([]int, len(p.live))
		via, last := make([]int, len(p.zones)), list(i)
		for _, n := range ranked[i] {
			from := list(i)
			if z := p.zoneOf[n]; crowded[z] {
				if via[z] == 0 {
					last++
					via[z] = last
					f.connect(list(i), last, c, 0)
				}
				from = via[z]
			}
			arcs[i][n] = f.connect(from, node(n), 1, costUnless(slices.Contains(today[i], p.live[n].ID)))
		}
	}
	if sent := f.run(len(today) * r); sent != len(today)*r {
		return nil, object.Errorf(object.KindInternal, "the plan placed %d of %d replicas: this is a bug of the planner, please report the nodes", sent, len(today)*r)
	}
	return p.read(f, today, ranked, arcs), nil
}

// read turns the flow into choices.
func (p *pool) read(f *network, today [][]NodeID, ranked, arcs [][]int) []choice {
	choices := make([]choice, len(today))
	for i, list := range today {
		for _, id := range list {
			if n, live := p.index[id]; live && f.carries(arcs[i][n]) > 0 {
				choices[i].kept = append(choices[i].kept, id)
			}
		}
		for _, n := range ranked[i] {
			if id := p.live[n].ID; f.carries(arcs[i][n]) > 0 && !slices.Contains(list, id) {
				choices[i].added = append(choices[i].added, id)
			}
		}
	}
	return choices
}

// crowded marks the zones that could hold more than c of a list's r replicas.
func (p *pool) crowded(r, c int) []bool {
	crowded := make([]bool, len(p.zones))
	for z, nodes := range p.zones {
		crowded[z] = min(r, len(nodes)) > c
	}
	return crowded
}

// shuffled is the order in which lists are served. It differs from one set of
// nodes to the next, or newcomers would all take from the same lists and be neighbours ever after.
func (p *pool) shuffled(lists int) []int {
	order, key := make([]int, lists), make([]uint64, lists)
	for i := range order {
		order[i], key[i] = i, mix(p.seed, uint64(i))
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(key[a], key[b]), cmp.Compare(a, b)) })
	return order
}

// toSink lets each node take its quota. The unit between least and most costs
// more than any path, so all have their least before one has its most.
func (p *pool) toSink(f *network, quotas []quota) {
	for n, q := range quotas {
		f.connect(2+n, sink, q.least, 0)
		if q.most > q.least {
			f.connect(2+n, sink, 1, 2*len(p.live)+2)
		}
	}
}

// costUnless is what a unit costs: nothing where all stays as it is.
func costUnless(stays bool) int {
	if stays {
		return 0
	}
	return 1
}
