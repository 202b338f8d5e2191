package meta

import (
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// Badger's lines that compactions follows. Its test fails when they change.
const (
	lineKeys   = "[%d] LOG Compact. Added %d keys. Skipped %d keys. Iteration took: %v"
	lineStats  = "Discard stats: %v"
	lineDone   = "[Compactor: %d] Compaction for level: %d DONE"
	lineFailed = "[Compactor: %d] LOG Compact FAILED with error: %+v: %+v"
)

// compactions keeps the books of Badger's compactions: a block that fails its
// checksum only ends the iterator, and what follows it would be gone for good. A
// table knows how many keys it holds; a compactor tells, in a log line before its
// outcome is installed, how many it read. At a moment when none is between
// reading and the end, the keys of the tables that went have to be those read.
type compactions struct {
	mu       sync.Mutex
	tables   func() []badger.TableInfo // nil until attach
	known    map[uint64]uint64         // keys of the tables that were there, by table
	reading  map[int]uint64            // keys read by the compactors under way
	skip     map[int]bool              // began before attach: nothing is known of them
	read     uint64                    // keys that finished compactions read since the last balance
	gone     uint64                    // keys of the tables that went since then
	balanced int                       // how often the books were found right
}

// attach begins the books, once the database can be asked for its tables.
func (c *compactions) attach(tables func() []badger.TableInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tables, c.known = tables, map[uint64]uint64{}
	c.look()
}

// line takes a log line; it returns how many keys a compaction lost, 0 nearly always.
func (c *compactions) line(format string, args []any) (lost uint64) {
	switch format {
	case lineKeys, lineStats, lineDone, lineFailed:
	default:
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id, _ := args[0].(int)
	switch format {
	case lineStats:
		c.look()
	case lineKeys:
		c.look()
		added, _ := args[1].(uint64)
		skipped, _ := args[2].(uint64)
		c.begin(id, added+skipped)
	case lineFailed:
		// It may have failed after its outcome was installed, at the removal of a file.
		before := c.gone
		if c.look(); c.gone > before {
			return c.done(id)
		}
		delete(c.reading, id)
		delete(c.skip, id)
	case lineDone:
		return c.done(id)
	}
	return 0
}

func (c *compactions) begin(id int, keys uint64) {
	if c.reading == nil {
		c.reading, c.skip = map[int]uint64{}, map[int]bool{}
	}
	if c.tables == nil || c.skip[id] {
		c.skip[id] = true
		return
	}
	c.reading[id] += keys
}

func (c *compactions) done(id int) (lost uint64) {
	if c.tables == nil || len(c.skip) > 0 {
		c.forget(id)
		return 0
	}
	c.look()
	c.read += c.reading[id]
	delete(c.reading, id)
	if len(c.reading) > 0 { // it may have dropped some of its tables already
		return 0
	}
	if c.gone > c.read {
		lost = c.gone - c.read
	} else {
		c.balanced++
	}
	c.read, c.gone = 0, 0
	return lost
}

// forget starts the books anew after a compaction that began before them; others
// that read meanwhile are left out too.
func (c *compactions) forget(id int) {
	delete(c.skip, id)
	delete(c.reading, id)
	for other := range c.reading {
		c.skip[other] = true
	}
	clear(c.reading)
	if c.tables != nil {
		c.look()
	}
	c.read, c.gone = 0, 0
}

// look notes which tables came, and counts the keys of those that went.
func (c *compactions) look() {
	if c.tables == nil {
		return
	}
	now := map[uint64]uint64{}
	for _, t := range c.tables() {
		now[t.ID] = uint64(t.KeyCount)
	}
	for id, keys := range c.known {
		if _, there := now[id]; !there {
			c.gone += keys
		}
	}
	c.known = now
}
