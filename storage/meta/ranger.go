package meta

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// visit is the callback of a scan; key and value are valid only inside it.
type visit = func(key, value []byte) (bool, error)

// ranger reads full keys of the database at one version. Badger allows any
// number of iterators at once in a read-only transaction.
type ranger struct {
	txn   *badger.Txn
	lines *badgerLog
}

// newest reads at the version that everything committed so far has at most. Of a
// closed database it is empty; its users ask closed first.
func (db *DB) newest() ranger {
	if db.closed.Load() {
		return ranger{}
	}
	return ranger{txn: db.badger.NewTransaction(false), lines: db.lines}
}

func (r ranger) version() uint64 {
	if r.txn == nil {
		return 0
	}
	return r.txn.ReadTs()
}

func (r ranger) discard() {
	if r.txn != nil {
		r.txn.Discard()
	}
}

// get reads with an iterator: Badger's Get answers with an older version, or that
// there is none, when it cannot read a block. It also is no faster.
func (r ranger) get(key []byte) (value []byte, found bool, err error) {
	w := walker{it: r.txn.NewKeyIterator(key, badger.IteratorOptions{}), lines: r.lines}
	defer w.close(&err)
	w.seek(key)
	if !w.it.Valid() || w.it.Item().IsDeletedOrExpired() {
		return nil, false, nil
	}
	// The item's own bytes may vanish with their memtable or table.
	value, err = w.it.Item().ValueCopy(nil)
	return value, err == nil, err
}

// walker is an iterator that has to be closed with what went wrong.
type walker struct {
	it      *badger.Iterator
	lines   *badgerLog
	reverse bool
	last    []byte // the key before this one
	broken  error
}

func (w *walker) seek(key []byte) {
	defer w.survive()
	w.it.Seek(key)
}

// next steps on. A step back over a bad block repeats the block before it, and
// Badger forgets the error (v4.9.6): so the order is checked, too.
func (w *walker) next() {
	defer w.survive()
	w.last = append(w.last[:0], w.it.Item().Key()...)
	w.it.Next()
	if !w.it.Valid() {
		return
	}
	order := bytes.Compare(w.it.Item().Key(), w.last)
	if w.reverse {
		order = -order
	}
	if order <= 0 && w.broken == nil {
		w.broken = fmt.Errorf("key %x follows %x", w.it.Item().Key(), w.last)
	}
}

// survive turns a panic into an error: Badger cuts a block up before it checks it.
func (w *walker) survive() {
	if r := recover(); r != nil && w.broken == nil {
		w.broken = fmt.Errorf("reading a block: %v", r)
	}
}

// close ends the iterator; what it could not read goes before any other error,
// since that may follow from it.
func (w *walker) close(err *error) {
	if w.broken == nil {
		w.broken = badgerProbe.failure(w.it)
	}
	func() {
		defer w.survive()
		w.it.Close()
	}()
	if w.broken != nil {
		*err = corrupt(w.broken)
		return
	}
	// A compaction that loses keys says so before its outcome can be read.
	if damage := w.lines.damage(); damage != nil {
		*err = damage
	}
}

// open makes an iterator that stands at the first key of [lo, hi) in its direction.
func (r ranger) open(lo, hi []byte, reverse bool) *walker {
	w := &walker{reverse: reverse, lines: r.lines, it: r.txn.NewIterator(badger.IteratorOptions{Reverse: reverse, Prefix: commonPrefix(lo, hi)})}
	if !reverse {
		w.seek(lo)
		return w
	}
	// Badger seeks to the last key at or below hi.
	w.seek(hi)
	if w.it.Valid() && bytes.Equal(w.it.Item().Key(), hi) {
		w.next()
	}
	if w.it.Valid() && bytes.Compare(w.it.Item().Key(), hi) >= 0 && w.broken == nil {
		w.broken = fmt.Errorf("key %x is not below %x", w.it.Item().Key(), hi)
	}
	return w
}

// commonPrefix is what every key between the two starts with: it lets Badger
// leave out tables.
func commonPrefix(lo, hi []byte) []byte {
	n := 0
	for n < len(lo) && n < len(hi) && lo[n] == hi[n] {
		n++
	}
	return lo[:n]
}

// within reports whether the iterator stands on a key of [lo, hi).
func (w *walker) within(lo, hi []byte, reverse bool) bool {
	if w.broken != nil || !w.it.Valid() {
		return false
	}
	if reverse {
		return bytes.Compare(w.it.Item().Key(), lo) >= 0
	}
	return hi == nil || bytes.Compare(w.it.Item().Key(), hi) < 0
}

// ascend calls fn with the full keys of [lo, hi); a nil hi means no end.
func (r ranger) ascend(lo, hi []byte, fn visit) (err error) {
	w := r.open(lo, hi, false)
	defer w.close(&err)
	for ; w.within(lo, hi, false); w.next() {
		item := w.it.Item()
		var more bool
		err := item.Value(func(value []byte) (err error) {
			more, err = fn(item.Key(), value)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// scan merges the database with what a transaction has pending (nil: nothing)
// over [start, end) of the partition. The pending side is looked up anew at
// every step, so fn may change what lies ahead.
func (p *Partition) scan(r ranger, pending *overlay, start, end []byte, reverse bool, fn visit) (err error) {
	if err := p.db.usable("scan"); err != nil {
		return err
	}
	if end != nil && bytes.Compare(start, end) >= 0 {
		return nil
	}
	lo, hi := p.limits(start, end)
	w := r.open(lo, hi, reverse)
	defer w.close(&err)
	c := cursor{pending: pending, lo: string(start), hi: string(end), open: end == nil, reverse: reverse}
	for {
		stored := w.within(lo, hi, reverse)
		var key []byte
		if stored {
			key = w.it.Item().Key()[len(p.prefix):]
		}
		e, takes := c.next(key, stored)
		if e == nil && !stored {
			return nil
		}
		more, err := true, error(nil)
		switch {
		case e == nil: // only the database has it
			if pending != nil {
				c.pass(string(key))
			}
			err = w.it.Item().Value(func(value []byte) (err error) {
				more, err = fn(key, value)
				return err
			})
		case !e.deleted:
			more, err = fn([]byte(e.key), e.value)
		}
		if err != nil || !more {
			return err
		}
		if e == nil || takes {
			w.next()
		}
	}
}

// cursor walks the pending side of a scan.
type cursor struct {
	pending *overlay
	lo, hi  string // what is left of the range: [lo, hi), and above when open
	open    bool
	reverse bool
}

// next is the pending entry that comes before, or (takes) in the place of, the
// stored key; nil when the stored key is next. It moves past what it returns.
func (c *cursor) next(stored []byte, have bool) (e *entry, takes bool) {
	if c.pending == nil {
		return nil, false
	}
	if c.reverse {
		e = c.pending.below(c.hi, c.open)
	} else {
		e = c.pending.from(c.lo)
	}
	if e == nil || c.outside(e.key) {
		return nil, false
	}
	if have {
		order := bytes.Compare([]byte(e.key), stored)
		if c.reverse {
			order = -order
		}
		if order > 0 {
			return nil, false
		}
		takes = order == 0
	}
	c.pass(e.key)
	return e, takes
}

func (c *cursor) outside(key string) bool {
	if c.reverse {
		return key < c.lo
	}
	return !c.open && key >= c.hi
}

// pass moves the cursor behind key.
func (c *cursor) pass(key string) {
	if c.reverse {
		c.hi, c.open = key, false
	} else {
		c.lo = key + "\x00"
	}
}

// usable is nil while the database can be read and written.
func (db *DB) usable(op string) error {
	if db.closed.Load() {
		return errClosed(op)
	}
	return db.lines.damage()
}

func errClosed(op string) error {
	return &object.Error{Op: op, Kind: object.KindUnavailable, Err: errors.New("the metadata database is closed")}
}
