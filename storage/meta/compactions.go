package meta

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Badger's lines that compactions follows. Its test fails when they change.
const (
	lineKeys   = "[%d] LOG Compact. Added %d keys. Skipped %d keys. Iteration took: %v"
	lineStats  = "Discard stats: %v"
	lineDone   = "[Compactor: %d] Compaction for level: %d DONE"
	lineFailed = "[Compactor: %d] LOG Compact FAILED with error: %+v: %+v"
	lineOpen   = "Received err: %v. Cleaning up..." // Open fails
)

const (
	// suspectAfter is how long a compaction is held before it is asked whether
	// more is to come: others may still read.
	suspectAfter = time.Second
	// stuckAfter is how long nothing may be heard of the compactors while one is held.
	stuckAfter = 5 * time.Minute
	// lookAgain bounds the wait for a change that no line tells of.
	lookAgain = 20 * time.Millisecond
)

// ledger is what compactions asks of Badger.
type ledger interface {
	// compacting is the tables that compactions have taken, until they end.
	compacting() []uint64
	// keyCounts is how many keys each table holds.
	keyCounts() map[uint64]uint64
	// written is the tables whose files are complete but are none of the database's
	// yet, with their keys; nil when it has no files.
	written() (map[uint64]uint64, error)
}

// compactions keeps the books of Badger's compactions. A block that fails its
// checksum only ends the iterator, and what follows it would be gone for good; so
// would be a new table whose file cannot be made: its error is dropped (v4.9.6).
//
// A compactor works in parts, each in a goroutine of its own. A part tells in log
// lines how many keys it read for a new table, and ends with the line of its discard
// stats; once all parts have ended and the tables are there the outcome is
// installed. A log line is a call: hold keeps the parts in it until the keys that
// were read are those that the tables hold, and the new tables are on the disk.
// What is amiss is so found before anything is replaced.
type compactions struct {
	mu       sync.Mutex          // taken before Badger's own locks
	ledger   ledger              // nil until attach
	turn     chan struct{}       // closed at the next line, nil when nobody waits
	lines    uint64              // how many came
	reading  map[int]uint64      // keys read by the compactors since they were let go
	adding   map[int][]uint64    // keys of each new table they make of them
	known    map[uint64]uint64   // keys by table
	passed   map[uint64]struct{} // tables of the compactions that were let go and have not ended
	made     map[uint64]struct{} // new tables of the same, until they are the database's
	failed   error               // why the database was not opened: there will be no ledger
	free     bool                // nothing is held any more
	balanced int                 // how often the books were found right
	unread   error               // why the directory could not be looked at, the last time
	told     bool                // somebody heard of that, for what is held now
	patience time.Duration       // stuckAfter, but for tests
}

// attach begins the books; what ends before it is held until then.
func (c *compactions) attach(l ledger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger = l
	c.turned()
}

// release lets go of everything, now and later: the loss is known.
func (c *compactions) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = true
	c.turned()
}

// line takes a log line, but for lineStats, which is hold's.
func (c *compactions) line(format string, args []any) {
	switch format {
	case lineKeys, lineDone, lineFailed, lineOpen:
	default: // Badger may hold its locks
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id, _ := args[0].(int)
	switch format {
	case lineOpen:
		if c.failed, _ = args[0].(error); c.failed == nil {
			c.failed = errors.New("see the log")
		}
	case lineKeys:
		added, _ := args[1].(uint64)
		skipped, _ := args[2].(uint64)
		if c.reading == nil {
			c.reading, c.adding = map[int]uint64{}, map[int][]uint64{}
		}
		c.reading[id] += added + skipped
		if added > 0 {
			c.adding[id] = append(c.adding[id], added)
		}
	case lineFailed:
		// Its tables may be compacted again. What else has passed will end soon,
		// and is waited for.
		delete(c.reading, id)
		delete(c.adding, id)
		clear(c.passed)
	}
	c.turned()
}

// hold returns nil when the tables under compaction have been read, and their
// successors written, in full. Otherwise damaged is told so, and has to make it known
// for good before it returns. An error: the database was not opened, so that nobody
// can check the compaction; it must not be installed. stuck is told, again and again,
// when it can be neither checked nor found idle for long: whoever waits for it must
// not wait on. unread is told at once, and once for what is held together, why the
// directory cannot be read; as soon as it can be, all goes on.
func (c *compactions) hold(damaged func(what string), stuck func(), unread func(why error)) error {
	suspect := time.NewTimer(suspectAfter)
	defer suspect.Stop()
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	var suspected balance
	lines, heard := c.heard(), time.Now()
	for {
		turn, verdict := c.pass()
		switch verdict {
		case passes:
			return nil
		case unchecked:
			return c.failure()
		}
		if why := c.untold(); why != nil {
			unread(why)
		}
		select {
		case <-turn:
		case <-look.C:
		case <-suspect.C:
			if now := c.heard(); now != lines {
				lines, heard = now, time.Now()
			} else if time.Since(heard) > c.bound() {
				stuck()
			}
			b, idle := c.idle()
			if idle && b.equal(suspected) {
				damaged(b.String())
				c.release()
				return nil
			}
			// Seen twice, since a compactor may be about to wake.
			suspected = b
			suspect.Reset(lookAgain)
			if !idle {
				suspect.Reset(suspectAfter)
			}
		}
	}
}

// untold is why the directory could not be looked at, where nobody has heard of it.
func (c *compactions) untold() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told || c.unread == nil {
		return nil
	}
	c.told = true
	return c.unread
}

// heard is how many lines have come.
func (c *compactions) heard() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines
}

func (c *compactions) bound() time.Duration {
	if c.patience > 0 {
		return c.patience
	}
	return stuckAfter
}

func (c *compactions) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// verdict is what hold does next.
type verdict int

const (
	waits verdict = iota
	passes
	unchecked
)

// pass lets go of what is held when the books balance. Two compactions at once
// wait for each other: which keys are whose is not told.
func (c *compactions) pass() (turn <-chan struct{}, v verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.free:
		return nil, passes
	case c.failed != nil:
		return nil, unchecked
	case c.ledger != nil:
		if b := c.balance(); b.right() {
			c.letGo(b)
			return nil, passes
		}
	}
	if c.turn == nil {
		c.turn = make(chan struct{})
	}
	return c.turn, waits
}

func (c *compactions) letGo(b balance) {
	if b.held == 0 { // a part that had nothing to read, after the others
		return
	}
	maps.Copy(c.passed, b.tables)
	maps.Copy(c.made, b.made)
	clear(c.reading)
	clear(c.adding)
	c.told = false
	c.balanced++
	c.turned()
}

// balance is the state of the books.
type balance struct {
	tables     map[uint64]struct{} // under compaction and not let go
	held, read uint64              // their keys, and how many of them were read
	known      bool                // all of the tables are known
	made       map[uint64]struct{} // the new tables that are there; looked for when all is read
	missing    int                 // how many are not
	lines      uint64
}

func (b balance) right() bool { return b.known && b.held == b.read && b.missing == 0 }

func (b balance) equal(o balance) bool {
	return b.lines == o.lines && b.held == o.held && b.read == o.read && b.missing == o.missing && maps.Equal(b.tables, o.tables)
}

func (b balance) String() string {
	if b.held != b.read {
		return fmt.Sprintf("a compaction met an unreadable block: it read %d of %d keys", b.read, b.held)
	}
	return fmt.Sprintf("a compaction could not make %d of its tables (were there too many open files, or mappings?)", b.missing)
}

func (c *compactions) balance() balance {
	b := balance{tables: map[uint64]struct{}{}, known: true, lines: c.lines}
	passed := map[uint64]struct{}{} // without those that have ended
	for _, id := range c.ledger.compacting() {
		if _, ok := c.passed[id]; ok {
			passed[id] = struct{}{}
			continue
		}
		b.tables[id] = struct{}{}
		keys, ok := c.known[id]
		if !ok {
			c.known = c.ledger.keyCounts()
			keys, ok = c.known[id]
		}
		b.held += keys
		b.known = b.known && ok
	}
	c.passed = passed
	for _, keys := range c.reading {
		b.read += keys
	}
	if b.held == b.read && b.held > 0 {
		c.findMade(&b)
	}
	return b
}

// findMade looks for a file for each new table. One that is being flushed from memory
// may be taken for it when it has as many keys: that is not told either.
func (c *compactions) findMade(b *balance) {
	written, err := c.ledger.written()
	if c.unread = err; err != nil { // most likely too many files are open: it passes, or is looked at again
		b.known = false
		return
	}
	if written == nil {
		return
	}
	if c.made == nil {
		c.made = map[uint64]struct{}{}
	}
	maps.DeleteFunc(c.made, func(id uint64, _ struct{}) bool { _, there := written[id]; return !there })
	b.made = map[uint64]struct{}{}
	for _, tables := range c.adding {
		for _, keys := range tables {
			if id, ok := tableOf(written, keys, c.made, b.made); ok {
				b.made[id] = struct{}{}
			} else {
				b.missing++
			}
		}
	}
}

// tableOf is a table with so many keys that is not taken.
func tableOf(written map[uint64]uint64, keys uint64, taken ...map[uint64]struct{}) (uint64, bool) {
	for id, n := range written {
		free := !slices.ContainsFunc(taken, func(t map[uint64]struct{}) bool { _, ok := t[id]; return ok })
		if n == keys && free {
			return id, true
		}
	}
	return 0, false
}

// idle is the state of the books at a moment when no compactor ran.
func (c *compactions) idle() (balance, bool) {
	before, ok := c.look()
	if !ok || compactorsRun() {
		return balance{}, false
	}
	// What is the same before and after was so between.
	after, ok := c.look()
	return after, ok && before.equal(after)
}

func (c *compactions) look() (balance, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ledger == nil || c.free {
		return balance{}, false
	}
	b := c.balance()
	return b, b.known && !b.right()
}

// turned wakes those who wait.
func (c *compactions) turned() {
	c.lines++
	if c.turn != nil {
		close(c.turn)
		c.turn = nil
	}
}
