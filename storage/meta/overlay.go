package meta

import (
	"slices"
	"sort"
	"strings"
)

// entry is one pending change. Its value is never modified, only replaced.
type entry struct {
	key     string
	value   []byte
	deleted bool
}

// runLength bounds a run of the overlay: a run that grows to it is cut in two.
const runLength = 512

// overlay is a transaction's pending changes in key order: sorted runs of
// entries, so that an insertion moves one run and not everything (a B-tree of
// height two), and a map for point lookups.
type overlay struct {
	byKey map[string]*entry
	runs  [][]*entry // none is empty
	bytes int
}

// entryOverhead is what Badger adds to a key and its value in its own count of a
// batch (version, meta bytes), rounded up.
const entryOverhead = 16

func (o *overlay) get(key []byte) *entry { return o.byKey[string(key)] }

// grows tells what put would add to the counts.
func (o *overlay) grows(key, value []byte) (keys, bytes int) {
	if e := o.get(key); e != nil {
		return 0, len(value) - len(e.value)
	}
	return 1, len(key) + len(value) + entryOverhead
}

func (o *overlay) put(key, value []byte, deleted bool) {
	_, grows := o.grows(key, value)
	o.bytes += grows
	if e := o.get(key); e != nil {
		e.value, e.deleted = value, deleted
		return
	}
	e := &entry{key: string(key), value: value, deleted: deleted}
	if o.byKey == nil {
		o.byKey = map[string]*entry{}
	}
	o.byKey[e.key] = e
	o.insert(e)
}

func (o *overlay) insert(e *entry) {
	if len(o.runs) == 0 {
		o.runs = append(o.runs, []*entry{e})
		return
	}
	r := max(0, o.runAfter(e.key)-1)
	i := position(o.runs[r], e.key)
	run := slices.Insert(o.runs[r], i, e)
	o.runs[r] = run
	if len(run) >= runLength {
		half := len(run) / 2
		o.runs = slices.Insert(o.runs, r+1, slices.Clone(run[half:]))
		o.runs[r] = slices.Delete(run, half, len(run))
	}
}

// runAfter is the first run that starts after key.
func (o *overlay) runAfter(key string) int {
	return sort.Search(len(o.runs), func(i int) bool { return o.runs[i][0].key > key })
}

// position is the first entry of run at or after key.
func position(run []*entry, key string) int {
	i, _ := slices.BinarySearchFunc(run, key, func(e *entry, k string) int { return strings.Compare(e.key, k) })
	return i
}

// from is the first entry at or after key; nil when there is none.
func (o *overlay) from(key string) *entry {
	r := o.runAfter(key)
	if r > 0 {
		if run := o.runs[r-1]; run[len(run)-1].key >= key {
			return run[position(run, key)]
		}
	}
	if r == len(o.runs) {
		return nil
	}
	return o.runs[r][0]
}

// below is the last entry before key, or the last of all when open.
func (o *overlay) below(key string, open bool) *entry {
	if len(o.runs) == 0 {
		return nil
	}
	if open {
		run := o.runs[len(o.runs)-1]
		return run[len(run)-1]
	}
	for r := o.runAfter(key) - 1; r >= 0; r-- {
		if i := position(o.runs[r], key); i > 0 {
			return o.runs[r][i-1]
		}
	}
	return nil
}

// each calls fn for every entry in key order.
func (o *overlay) each(fn func(*entry) error) error {
	for _, run := range o.runs {
		for _, e := range run {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}
