package meta

import "slices"

// trailLength bounds the marks of a partition. When they are full, every other
// one is forgotten and the stride doubles: Durable lags a little more.
const trailLength = 128

// mark says: every commit up to applied has a version of at most version.
type mark struct{ version, applied uint64 }

// trail maps the version found in Badger's tables back to an applied index.
type trail struct {
	marks   []mark // both fields rise strictly; indexes at least stride apart
	last    mark   // the newest
	stride  uint64
	durable uint64
}

// note adds a mark. Two goroutines may note out of order; the older adds nothing.
func (t *trail) note(version, applied uint64) {
	if applied <= max(t.durable, t.last.applied) || version <= t.last.version {
		return
	}
	t.last = mark{version, applied}
	if n := len(t.marks); n > 0 && applied-t.marks[n-1].applied < t.stride {
		return
	}
	if len(t.marks) == trailLength {
		t.thin()
	}
	t.marks = append(t.marks, t.last)
}

func (t *trail) thin() {
	kept := t.marks[:0]
	for i := 0; i < len(t.marks); i += 2 {
		kept = append(kept, t.marks[i])
	}
	t.marks = kept
	t.stride = 2 * max(1, t.stride)
}

// advance takes every mark up to flushed as durable and returns the durable index.
func (t *trail) advance(flushed uint64) uint64 {
	if t.last.version <= flushed {
		t.durable = max(t.durable, t.last.applied)
		t.marks, t.stride = t.marks[:0], 0
		return t.durable
	}
	n, _ := slices.BinarySearchFunc(t.marks, flushed, func(m mark, v uint64) int {
		if m.version <= v {
			return -1
		}
		return 1
	})
	if n > 0 {
		t.durable = t.marks[n-1].applied
		t.marks = slices.Delete(t.marks, 0, n)
		if len(t.marks) < trailLength/4 {
			t.stride /= 2
		}
	}
	return t.durable
}
