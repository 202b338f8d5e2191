package placement

// quota is how many replicas a node gets: at least least, at most most; they
// differ by one where its fair share is no whole number.
type quota struct{ least, most int }

// spread is the smallest number c such that no zone needs to hold more than c
// of r replicas of one list. It is 1 when there are r zones.
func (p *pool) spread(r int) int {
	for c := 1; ; c++ {
		room := 0
		for _, nodes := range p.zones {
			room += min(c, len(nodes))
		}
		if room >= r || c >= r {
			return c
		}
	}
}

// quotas shares r replicas of each of the lists fairly: by weight, but no node
// takes more than one of a list and no zone more than c. What these cannot take
// goes to the others, by weight again ("water filling"). There are at least r live nodes.
func (p *pool) quotas(lists, r, c int) []quota {
	result := make([]quota, len(p.live))
	closed := make([]bool, len(p.zones)) // zones that are full
	for total, again := lists*r, true; again; {
		again = false
		var open []int
		for n, z := range p.zoneOf {
			if !closed[z] {
				open = append(open, n)
			}
		}
		f := p.fill(open, total, lists)
		for z, nodes := range p.zones {
			room := lists * min(c, len(nodes))
			if !closed[z] && f.exceeds(p, nodes, room) {
				closed[z], again = true, true
				total -= room
				p.fill(nodes, room, lists).put(p, nodes, result)
			}
		}
		if !again {
			f.put(p, open, result)
		}
	}
	return result
}

// filling gives a node the smaller of limit and weight × num / den.
type filling struct{ num, den, limit uint64 }

// fill shares total among the nodes by weight, with at most limit for each. The
// level num/den only rises from round to round, so who is full once stays full.
func (p *pool) fill(nodes []int, total, limit int) filling {
	full := make([]bool, len(nodes))
	for f := (filling{limit: uint64(limit)}); ; {
		f.num, f.den = uint64(total), 0
		for i, n := range nodes {
			if full[i] {
				f.num -= f.limit
			} else {
				f.den += uint64(p.live[n].Weight)
			}
		}
		again := false
		for i, n := range nodes {
			if !full[i] && uint64(p.live[n].Weight)*f.num > f.limit*f.den {
				full[i], again = true, true
			}
		}
		if !again {
			return f
		}
	}
}

// full reports whether a node reaches the limit.
func (f filling) full(w uint64) bool { return w*f.num >= f.limit*f.den }

// exceeds reports whether the nodes get more than room together.
func (f filling) exceeds(p *pool, nodes []int, room int) bool {
	left, weight := room, uint64(0)
	for _, n := range nodes {
		if w := uint64(p.live[n].Weight); f.full(w) {
			left -= int(f.limit)
		} else {
			weight += w
		}
	}
	return left < 0 || weight*f.num > uint64(left)*f.den
}

// put writes the nodes' shares, rounded down and up.
func (f filling) put(p *pool, nodes []int, result []quota) {
	for _, n := range nodes {
		w := uint64(p.live[n].Weight)
		switch {
		case f.full(w):
			result[n] = quota{int(f.limit), int(f.limit)}
		default:
			least := int(w * f.num / f.den)
			result[n] = quota{least, least}
			if w*f.num%f.den != 0 {
				result[n].most++
			}
		}
	}
}
