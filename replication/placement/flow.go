package placement

import "slices"

// network finds a flow of least cost among those of a given size: the
// primal-dual method (Ford and Fulkerson, 1962). Each phase finds the distances
// from the source by reduced cost (Dial's buckets, 1969) and then fills the
// shortest paths by Dinic's method (1970). Costs are small integers, so the
// phases are few. Vertices and arcs are numbered as they are made; equal calls give equal flows.
type network struct {
	arcs      []arc     // arc i and arc i^1 are each other's way back
	out       [][]int32 // arcs that leave each vertex
	potential []int32   // reduced cost = cost + potential[from] - potential[to] >= 0
	distance  []int32
	level     []int32
	next      []int32 // first arc of each vertex that push has not used up
	buckets   [][]int32
}

// arc carries up to room units more, at cost each.
type arc struct{ to, room, cost int32 }

const (
	source   = 0
	sink     = 1
	infinite = 1 << 30
)

// newNetwork makes one with the given number of vertices, source and sink among them.
func newNetwork(vertices int) *network {
	return &network{
		out:       make([][]int32, vertices),
		potential: make([]int32, vertices),
		distance:  make([]int32, vertices),
		level:     make([]int32, vertices),
		next:      make([]int32, vertices),
	}
}

// connect adds an arc (cost >= 0) and returns its number. Earlier ones are tried first.
func (f *network) connect(from, to, room, cost int) int {
	i := int32(len(f.arcs))
	f.arcs = append(f.arcs, arc{int32(to), int32(room), int32(cost)}, arc{int32(from), 0, int32(-cost)})
	f.out[from] = append(f.out[from], i)
	f.out[to] = append(f.out[to], i+1)
	return int(i)
}

// carries is the number of units on an arc.
func (f *network) carries(i int) int { return int(f.arcs[i^1].room) }

// run sends up to want units from source to sink at least cost, and returns how many it sent.
func (f *network) run(want int) int {
	sent := int32(0)
	for int(sent) < want && f.measure() {
		for int(sent) < want && f.layer() {
			clear(f.next)
			sent += f.push(source, int32(want)-sent)
		}
	}
	return int(sent)
}

// measure updates the potentials by the distances from the source, and reports
// whether the sink can be reached.
func (f *network) measure() bool {
	for v := range f.distance {
		f.distance[v] = infinite
	}
	f.distance[source] = 0
	f.buckets = append(f.buckets[:0], []int32{source})
	for d := int32(0); int(d) < len(f.buckets) && d < f.distance[sink]; d++ {
		for k := 0; k < len(f.buckets[d]); k++ { // grows meanwhile
			if v := f.buckets[d][k]; f.distance[v] == d {
				f.relax(v, d)
			}
		}
	}
	reach := f.distance[sink]
	if reach == infinite {
		return false
	}
	for v := range f.potential {
		f.potential[v] += min(f.distance[v], reach)
	}
	return true
}

// relax offers v's neighbours the way through v, which is d from the source.
func (f *network) relax(v, d int32) {
	for _, i := range f.out[v] {
		a := f.arcs[i]
		if a.room == 0 {
			continue
		}
		far := d + a.cost + f.potential[v] - f.potential[a.to]
		if far >= f.distance[a.to] {
			continue
		}
		f.distance[a.to] = far
		if missing := int(far) + 1 - len(f.buckets); missing > 0 {
			f.buckets = slices.Grow(f.buckets, missing)
			for ; missing > 0; missing-- {
				f.buckets = append(f.buckets, nil)
			}
		}
		f.buckets[far] = append(f.buckets[far], a.to)
	}
}

// tight reports whether an arc that leaves v lies on a shortest path and has room.
func (f *network) tight(v int32, a arc) bool {
	return a.room > 0 && a.cost+f.potential[v] == f.potential[a.to]
}

// layer numbers the vertices by the count of tight arcs from the source, and
// reports whether the sink is among them.
func (f *network) layer() bool {
	for v := range f.level {
		f.level[v] = -1
	}
	f.level[source] = 0
	queue := make([]int32, 1, len(f.level))
	for len(queue) > 0 && f.level[sink] < 0 {
		v := queue[0]
		queue = queue[1:]
		for _, i := range f.out[v] {
			if a := f.arcs[i]; f.level[a.to] < 0 && f.tight(v, a) {
				f.level[a.to] = f.level[v] + 1
				queue = append(queue, a.to)
			}
		}
	}
	return f.level[sink] >= 0
}

// push sends up to want units from v to the sink, each arc leading one layer on.
func (f *network) push(v, want int32) (sent int32) {
	if v == sink {
		return want
	}
	for ; f.next[v] < int32(len(f.out[v])); f.next[v]++ {
		i := f.out[v][f.next[v]]
		a := f.arcs[i]
		if f.level[a.to] != f.level[v]+1 || !f.tight(v, a) {
			continue
		}
		n := f.push(a.to, min(want-sent, a.room))
		f.arcs[i].room -= n
		f.arcs[i^1].room += n
		if sent += n; sent == want {
			return sent // the arc may have room left
		}
	}
	return sent
}
