package wal

import (
	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// cache keeps the most recently written entries, because raft reads them back at
// once to apply and to replicate them. First in, first out, bounded in bytes.
// An entry is valid only while the index still names the place it was cached
// for, so nothing needs to be invalidated. The Log's mu guards it.
type cache struct {
	limit, bytes int64
	entries      map[cacheKey]cached
	order        []cacheKey // oldest first, from head on
	head         int
}

type cacheKey struct {
	group object.PartitionID
	index uint64
	at    loc
}

type cached struct {
	log  raft.Log
	cost int64
}

// cachedOverhead is roughly what an entry costs beside its bytes.
const cachedOverhead = 256

func newCache(limit int64) *cache {
	return &cache{limit: limit, entries: make(map[cacheKey]cached)}
}

func (c *cache) get(g object.PartitionID, i uint64, at loc) (raft.Log, bool) {
	e, ok := c.entries[cacheKey{g, i, at}]
	return e.log, ok
}

// put keeps the entry; its slices are shared with the caller, who must not
// change them (raft does not).
func (c *cache) put(g object.PartitionID, at loc, l raft.Log) {
	cost := int64(len(l.Data)+len(l.Extensions)) + cachedOverhead
	if cost > c.limit {
		return
	}
	k := cacheKey{g, l.Index, at}
	if _, there := c.entries[k]; there {
		return
	}
	c.entries[k] = cached{l, cost}
	c.order = append(c.order, k)
	for c.bytes += cost; c.bytes > c.limit; c.head++ {
		k := c.order[c.head]
		c.bytes -= c.entries[k].cost
		delete(c.entries, k)
	}
	if c.head > len(c.order)/2 && c.head > 64 {
		c.order = append(c.order[:0], c.order[c.head:]...)
		c.head = 0
	}
}
