package wal

import (
	"slices"
	"sort"
)

// loc is the place of a record: 12 bytes for each live entry in memory.
type loc struct {
	seg uint32 // segment id
	off uint32 // offset in the segment, in bytes
	len uint32 // length of the record, in bytes
}

// index maps the raft indexes of one group to places. Raft leaves gaps (after a
// restored snapshot), so it is a sorted list of runs without gaps; nearly always
// there is one run. Not safe for concurrent use.
type index struct {
	runs []run
}

// run holds the places of the indexes first, first+1, ... It is never empty.
type run struct {
	first uint64
	locs  []loc
}

func (r run) last() uint64 { return r.first + uint64(len(r.locs)) - 1 }

// first and last are 0 when there is nothing.
func (x *index) first() uint64 {
	if len(x.runs) == 0 {
		return 0
	}
	return x.runs[0].first
}

func (x *index) last() uint64 {
	if len(x.runs) == 0 {
		return 0
	}
	return x.runs[len(x.runs)-1].last()
}

// floor is the position of the last run that starts at or below i, or -1.
func (x *index) floor(i uint64) int {
	return sort.Search(len(x.runs), func(k int) bool { return x.runs[k].first > i }) - 1
}

// get is the place of index i.
func (x *index) get(i uint64) (loc, bool) {
	k := x.floor(i)
	if k < 0 || i > x.runs[k].last() {
		return loc{}, false
	}
	return x.runs[k].locs[i-x.runs[k].first], true
}

// put sets the place of index i and returns the one it had.
func (x *index) put(i uint64, l loc) (old loc, had bool) {
	k := x.floor(i)
	switch {
	case k >= 0 && i <= x.runs[k].last():
		p := &x.runs[k].locs[i-x.runs[k].first]
		old, *p = *p, l
		return old, true
	case k >= 0 && i == x.runs[k].last()+1:
		x.runs[k].locs = append(x.runs[k].locs, l)
	default:
		k++
		x.runs = slices.Insert(x.runs, k, run{first: i, locs: []loc{l}})
	}
	if k+1 < len(x.runs) && x.runs[k+1].first == i+1 {
		x.runs[k].locs = append(x.runs[k].locs, x.runs[k+1].locs...)
		x.runs = slices.Delete(x.runs, k+1, k+2)
	}
	return loc{}, false
}

// overlaps reports whether any index in lo..hi exists.
func (x *index) overlaps(lo, hi uint64) bool {
	k := x.floor(hi)
	return lo <= hi && k >= 0 && x.runs[k].last() >= lo
}

// delete removes the indexes lo..hi and calls gone with the place of each.
func (x *index) delete(lo, hi uint64, gone func(loc)) {
	var kept []run
	for _, r := range x.runs {
		if lo > hi || r.last() < lo || r.first > hi {
			kept = append(kept, r)
			continue
		}
		from, to := max(lo, r.first)-r.first, min(hi, r.last())-r.first+1
		for _, l := range r.locs[from:to] {
			gone(l)
		}
		if from > 0 {
			kept = append(kept, run{r.first, r.locs[:from:from]})
		}
		if to < uint64(len(r.locs)) {
			// A copy lets go of the memory in front of it.
			kept = append(kept, run{r.first + to, slices.Clone(r.locs[to:])})
		}
	}
	x.runs = kept
}

// inSegment calls fn for the indexes from..: whose record lies in segment seg, in
// order, until fn returns false.
func (x *index) inSegment(seg uint32, from uint64, fn func(i uint64, l loc) bool) {
	for k := max(x.floor(from), 0); k < len(x.runs); k++ {
		r := x.runs[k]
		for j := max(from, r.first); j <= r.last(); j++ {
			if l := r.locs[j-r.first]; l.seg == seg && !fn(j, l) {
				return
			}
		}
	}
}

// each calls fn with every place.
func (x *index) each(fn func(loc)) {
	for _, r := range x.runs {
		for _, l := range r.locs {
			fn(l)
		}
	}
}
