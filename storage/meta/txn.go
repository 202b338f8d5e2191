package meta

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Txn is a partition's one open transaction: a Reader that sees its own writes.
// It is for one goroutine.
type Txn struct {
	part    *Partition
	ranger  ranger
	pending overlay
	ended   bool
}

// Get is Reader's.
func (t *Txn) Get(key []byte) ([]byte, bool, error) {
	if e := t.pending.get(key); e != nil {
		return e.value, !e.deleted, nil
	}
	if err := t.part.db.usable("get"); err != nil {
		return nil, false, err
	}
	value, found, err := t.ranger.get(t.part.full(key))
	return value, found, storeError("get", err)
}

// Ascend is Reader's.
func (t *Txn) Ascend(start, end []byte, fn func(key, value []byte) (bool, error)) error {
	return t.part.scan(t.ranger, &t.pending, start, end, false, fn)
}

// Descend is Reader's.
func (t *Txn) Descend(start, end []byte, fn func(key, value []byte) (bool, error)) error {
	return t.part.scan(t.ranger, &t.pending, start, end, true, fn)
}

// Set puts value under key; it copies both. KindTooLarge, with nothing changed,
// when the value exceeds MaxValue, the key MaxKey, or the Txn DB.MaxTxn.
func (t *Txn) Set(key, value []byte) error {
	if len(value) > MaxValue {
		return object.Errorf(object.KindTooLarge, "a metadata value of %d bytes exceeds the limit of %d", len(value), MaxValue)
	}
	if err := t.room(key, value); err != nil {
		return err
	}
	// Never nil, so that an empty value and none stay apart.
	t.pending.put(key, append(make([]byte, 0, len(value)), value...), false)
	return nil
}

// Delete removes key, which need not be there. Errors as Set's.
func (t *Txn) Delete(key []byte) error {
	if err := t.room(key, nil); err != nil {
		return err
	}
	t.pending.put(key, nil, true)
	return nil
}

func (t *Txn) room(key, value []byte) error {
	if t.ended {
		return object.Errorf(object.KindInternal, "the metadata transaction has ended")
	}
	if len(key) > MaxKey {
		return object.Errorf(object.KindTooLarge, "a metadata key of %d bytes exceeds the limit of %d", len(key), MaxKey)
	}
	keys, bytes := t.pending.grows(key, value)
	maxKeys, maxBytes := t.part.db.MaxTxn()
	if len(t.pending.byKey)+keys > maxKeys || t.pending.bytes+bytes > maxBytes {
		return object.Errorf(object.KindTooLarge, "one metadata transaction holds at most %d keys and %d bytes", maxKeys, maxBytes)
	}
	return nil
}

// Size is how much the Txn holds, as DB.MaxTxn counts.
func (t *Txn) Size() (keys, bytes int) { return len(t.pending.byKey), t.pending.bytes }

// Commit makes the changes visible, all at once and together with the applied
// index, which must not sink, and ends the Txn. It is not durable yet: see
// Partition.Durable. After an error nothing has changed.
func (t *Txn) Commit(applied uint64) error {
	if last := t.part.Applied(); applied < last {
		t.Discard()
		return object.Errorf(object.KindInternal, "partition %d: commit of index %d after %d", t.part.id, applied, last)
	}
	return t.commit(applied)
}

// Discard ends the Txn without a trace; after Commit it does nothing.
func (t *Txn) Discard() {
	if t.ended {
		return
	}
	t.ended = true
	t.ranger.discard()
	t.part.writing.Unlock()
}

func (t *Txn) commit(applied uint64) error {
	index := binary.BigEndian.AppendUint64(nil, applied)
	return t.write(applied, func(w *badger.Txn) error { return w.Set(t.part.appliedKey(), index) })
}

// forget removes the partition's applied index.
func (t *Txn) forget() error {
	if err := t.write(0, func(w *badger.Txn) error { return w.Delete(t.part.appliedKey()) }); err != nil {
		return err
	}
	t.part.trailMu.Lock()
	defer t.part.trailMu.Unlock()
	t.part.trail = trail{}
	return nil
}

// write commits the pending changes and what system adds, and ends the Txn.
func (t *Txn) write(applied uint64, system func(*badger.Txn) error) error {
	if t.ended {
		return object.Errorf(object.KindInternal, "the metadata transaction has ended")
	}
	defer t.Discard()
	if err := t.part.db.usable("commit"); err != nil {
		return err
	}
	// Reads in an updating transaction are remembered for conflicts, even with
	// conflict detection off; so it is made only now.
	w := t.part.db.badger.NewTransaction(true)
	defer w.Discard()
	err := t.pending.each(func(e *entry) error {
		key := slices.Concat(t.part.prefix, []byte(e.key))
		if e.deleted {
			return w.Delete(key)
		}
		return w.Set(key, e.value)
	})
	if err = errors.Join(err, system(w)); err != nil {
		return storeError("commit", err)
	}
	if err := t.part.db.commit(w); err != nil {
		return storeError("commit", err)
	}
	t.part.applied.Store(applied)
	return nil
}

// commit waits for Badger, which waits for room, which waits for compactions: while
// one is held without an end, whether w is kept is unknown until the next start.
func (db *DB) commit(w *badger.Txn) error {
	done := make(chan error, 1)
	w.CommitWith(func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-db.lines.stuck:
		return db.lines.held()
	}
}
