package meta

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Reader reads one partition as it was at one moment. Keys are relative to the
// partition. A Reader is for one goroutine at a time.
type Reader interface {
	// Get returns the value of key, found=false when there is none. The value
	// may be kept but not modified.
	Get(key []byte) (value []byte, found bool, err error)
	// Ascend calls fn for each key in [start, end) in order until fn returns
	// false or an error, which it returns. A nil end means the end of the
	// partition. key and value are valid only inside fn, which may use the
	// Reader (and in a Txn also change what lies ahead: it sees that).
	Ascend(start, end []byte, fn func(key, value []byte) (bool, error)) error
	// Descend is Ascend from the end of the range.
	Descend(start, end []byte, fn func(key, value []byte) (bool, error)) error
}

// Partition is one partition's key range. Safe for concurrent use.
type Partition struct {
	db     *DB
	prefix []byte // 2 bytes, big endian
	id     object.PartitionID

	writing sync.Mutex // held by the open Txn
	applied atomic.Uint64

	trailMu sync.Mutex // guards trail; taken last
	trail   trail
}

func newPartition(db *DB, id object.PartitionID) *Partition {
	return &Partition{db: db, id: id, prefix: binary.BigEndian.AppendUint16(nil, uint16(id))}
}

// ID is the partition's number.
func (p *Partition) ID() object.PartitionID { return p.id }

// Applied is the index given with the last committed Txn; 0 before the first.
func (p *Partition) Applied() uint64 { return p.applied.Load() }

// recovered sets the index found at Open: what Open finds is in the tables.
func (p *Partition) recovered(applied uint64) {
	p.applied.Store(applied)
	p.trailMu.Lock()
	defer p.trailMu.Unlock()
	p.trail = trail{durable: applied}
}

// Durable is the highest applied index whose effects, and those of all before
// it, survive a power cut. The log must be kept from the next one on. It never
// exceeds Applied and may lag behind the truth.
func (p *Partition) Durable() uint64 {
	if p.db.closed.Load() {
		p.trailMu.Lock()
		defer p.trailMu.Unlock()
		return p.trail.durable
	}
	applied := p.Applied()
	now := p.db.newest()
	bound := now.version()
	now.discard()
	flushed := p.db.tableVersion()
	p.trailMu.Lock()
	defer p.trailMu.Unlock()
	p.trail.note(bound, applied)
	return p.trail.advance(flushed)
}

// View is a consistent snapshot. Close it soon: it holds old versions back.
func (p *Partition) View() *Snapshot {
	return &Snapshot{part: p, ranger: p.db.newest()}
}

// Begin starts the partition's one transaction; a second Begin waits until the
// first has ended. It must end with Commit or Discard.
func (p *Partition) Begin() *Txn {
	p.writing.Lock()
	t := &Txn{part: p, ranger: p.db.newest()}
	// All commits before this one have a version of at most the read version:
	// Badger does not tell a transaction's own.
	p.trailMu.Lock()
	p.trail.note(t.ranger.version(), p.applied.Load())
	p.trailMu.Unlock()
	return t
}

// DropAll deletes every key of the partition and its applied index, in batches
// (Badger's DropPrefix would fail the writes of all others meanwhile). After an
// error or a stop half way, call it again: the index goes last.
func (p *Partition) DropAll(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		more, err := p.dropSome()
		if err != nil || !more {
			return err
		}
	}
}

// dropBatch keeps each of DropAll's transactions far below the limits.
const dropBatch = 4096

func (p *Partition) dropSome() (more bool, err error) {
	t := p.Begin()
	defer t.Discard()
	limit := min(dropBatch, t.part.db.maxKeys/2)
	n := 0
	err = t.Ascend(nil, nil, func(key, _ []byte) (bool, error) {
		if err := t.Delete(key); err != nil {
			return false, err
		}
		n++
		return n < limit, nil
	})
	// Long keys may fill the transaction sooner.
	if err != nil && (n == 0 || !object.IsKind(err, object.KindTooLarge)) {
		return false, err
	}
	if n == 0 {
		return false, t.forget()
	}
	return true, t.commit(p.applied.Load())
}

// Snapshot is a Reader of the state at the time of View.
type Snapshot struct {
	part   *Partition
	ranger ranger
}

// Get is Reader's.
func (s *Snapshot) Get(key []byte) ([]byte, bool, error) {
	if err := s.part.db.usable("get"); err != nil {
		return nil, false, err
	}
	value, found, err := s.ranger.get(s.part.full(key))
	return value, found, storeError("get", err)
}

// Ascend is Reader's.
func (s *Snapshot) Ascend(start, end []byte, fn func(key, value []byte) (bool, error)) error {
	return s.part.scan(s.ranger, nil, start, end, false, fn)
}

// Descend is Reader's.
func (s *Snapshot) Descend(start, end []byte, fn func(key, value []byte) (bool, error)) error {
	return s.part.scan(s.ranger, nil, start, end, true, fn)
}

// Close ends the snapshot; more than once does no harm.
func (s *Snapshot) Close() error {
	s.ranger.discard()
	return nil
}

// full is key in the database's key space.
func (p *Partition) full(key []byte) []byte {
	full := make([]byte, 0, len(p.prefix)+len(key))
	return append(append(full, p.prefix...), key...)
}

// limits are the full keys of [start, end).
func (p *Partition) limits(start, end []byte) (lo, hi []byte) {
	if end != nil {
		return p.full(start), p.full(end)
	}
	return p.full(start), binary.BigEndian.AppendUint16(nil, uint16(p.id)+1)
}

// appliedKey is where the partition's applied index is kept.
func (p *Partition) appliedKey() []byte {
	key := binary.BigEndian.AppendUint16(nil, systemPrefix)
	return append(key, p.prefix...)
}
