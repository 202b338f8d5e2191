// Package namespace is the state machine of a partition: a filesystem whose
// files can be replaced whole. Apply is deterministic; clocks and random
// numbers travel in the entry.
package namespace

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Event is one change, published after the entry that made it is applied.
type Event struct {
	Index   uint64
	Dir     object.InodeID // with Name: an entry changed
	Name    string
	Inode   object.InodeID
	Version uint64
	Time    time.Time
}

// Options of a Machine.
type Options struct {
	Partition object.PartitionID
	Store     *meta.Partition
	// OnApply gets the events of entries that were applied, in order, and
	// whether they left garbage or chunks to release. Called from Apply; must
	// not block.
	OnApply func(events []Event, garbage bool)
	// OnControl, in partition 0, hears that the control state may have changed.
	// Called from Apply; must not block.
	OnControl func()
	// OnStray hears that there may be strays, or a Rewrite. Called from Apply; must not block.
	OnStray func()
	// OnUnlock hears of inodes whose locks became fewer or weaker, perhaps more than once.
	// Called from Apply; must not block.
	OnUnlock func([]object.InodeID)
	// MaxKeys and MaxBytes bound one batch of the store.
	MaxKeys, MaxBytes int
	Logger            *slog.Logger
}

// Machine applies commands to a partition's range of the store. Apply is
// called from one goroutine; View from any. Nobody else writes to that range: a
// snapshot is put there by Restore, or before the Machine is made.
type Machine struct {
	o Options
	// txLow is a sequence below which no transaction of this partition is on
	// record: where the search for the oldest one begins, past the store's
	// tombstones. It only rises, and decides nothing.
	txLow atomic.Uint64
	names names
}

// New makes a machine.
func New(o Options) *Machine { return &Machine{o: o} }

// Applied is the index of the last entry whose effects the store has.
func (m *Machine) Applied() uint64 { return m.o.Store.Applied() }

// Durable is the index up to which the store survives a power cut by itself.
func (m *Machine) Durable() uint64 { return m.o.Store.Durable() }

// Apply applies entries in order and returns a *Result for each. The applied
// index is stored in the same batch as the effects. An error means that the
// store failed: nothing of the last batch is applied.
func (m *Machine) Apply(entries []group.Entry) ([]any, error) {
	results := make([]any, len(entries))
	for start := 0; start < len(entries); {
		n, err := m.batch(entries[start:], results[start:])
		if err != nil {
			return nil, fmt.Errorf("partition %d: applying after index %d: %w", m.o.Partition, m.Applied(), err)
		}
		start += n
	}
	return results, nil
}

// batch applies as many entries as fit one transaction of the store.
func (m *Machine) batch(entries []group.Entry, results []any) (int, error) {
	txn := m.o.Store.Begin()
	defer txn.Discard()
	s := &state{txn: txn, part: m.o.Partition, txLow: m.txLow.Load()}
	n := 0
	for _, e := range entries {
		results[n] = s.apply(e)
		n++
		if object.IsKind(s.err, object.KindTooLarge) {
			txn.Discard()
			return m.withoutLast(entries[:n], results[:n])
		}
		if s.err != nil {
			return 0, s.err
		}
		if keys, bytes := txn.Size(); keys > m.o.MaxKeys/2 || bytes > m.o.MaxBytes/2 {
			break
		}
	}
	last := entries[n-1].Index
	m.names.begin(&s.touched)
	err := txn.Commit(last)
	m.names.end()
	if err != nil {
		return 0, err
	}
	m.txLow.Store(s.txLow)
	if m.o.OnApply != nil {
		m.o.OnApply(s.events, s.garbage)
	}
	if s.controlled && m.o.OnControl != nil {
		m.o.OnControl()
	}
	if len(s.unlocks) > 0 && m.o.OnUnlock != nil {
		m.o.OnUnlock(s.unlocks)
	}
	if s.strayed && m.o.OnStray != nil {
		m.o.OnStray()
	}
	return n, nil
}

// withoutLast applies entries whose last one does not fit a transaction of the
// store: that one is refused, on every replica alike, rather than stop the
// partition for good. Operations bound their work well below; this is the net.
func (m *Machine) withoutLast(entries []group.Entry, results []any) (int, error) {
	last := len(entries) - 1
	if last > 0 {
		return m.batch(entries[:last], results[:last])
	}
	results[0] = &Result{Failed: true, Kind: object.KindTooLarge, Message: "the change is too large for one step: make smaller ones", Index: entries[0].Index}
	txn := m.o.Store.Begin()
	defer txn.Discard()
	return 1, txn.Commit(entries[0].Index)
}

// state is the store while entries are applied. The first error of the store
// sticks; the batch is then given up as a whole, so operations need not ask.
type state struct {
	txn  *meta.Txn
	part object.PartitionID
	err  error

	// of the entry being applied
	index  uint64
	term   uint64 // raft's
	now    int64
	births uint8
	txs    uint8
	trash  uint8
	drive  []TxRef

	// of the whole batch
	txLow   uint64
	events  []Event
	garbage bool
	touched touched
	// controlled: the control state may have changed.
	controlled bool
	strayed    bool // a stray or a Rewrite was filed
	unlocks    []object.InodeID
}

func (s *state) apply(e group.Entry) *Result {
	cmd, err := DecodeCommand(e.Data)
	if err != nil {
		// It is in the log of every replica: all answer the same.
		return &Result{Failed: true, Kind: object.KindOf(err), Message: err.Error(), Index: e.Index}
	}
	s.index, s.term, s.now, s.births, s.txs, s.trash, s.drive = e.Index, e.Term, cmd.Now, 0, 0, 0, nil
	if (cmd.Lock != nil || cmd.CancelLock != nil) && cmd.Token != nil && s.sessionEnded(cmd.Token.Session) {
		return s.acknowledged(cmd.Token) // though it was granted once: it is lost
	}
	if cmd.Fence != nil && cmd.Token != nil {
		return s.fence(cmd.Token)
	}
	if r := s.recall(cmd.Token); r != nil {
		return r
	}
	if cmd.Epoch != 0 && cmd.Epoch < s.epoch() {
		return &Result{Failed: true, Kind: object.KindConflict, Message: "a directory was renamed meanwhile", Index: e.Index, Again: true}
	}
	r := s.dispatch(cmd)
	r.Index = e.Index
	if !r.Failed {
		r.Drive = append(r.Drive, s.drive...)
	}
	s.remember(cmd.Token, r)
	return r
}

func (s *state) dispatch(c *Command) *Result {
	switch {
	case c.Put != nil:
		return s.put(c.Put, nil)
	case c.Splice != nil:
		return s.splice(c.Splice)
	case c.Unlink != nil:
		return s.unlink(c.Unlink, nil)
	case c.SetAttr != nil:
		return s.setAttr(c.SetAttr)
	case c.Move != nil:
		return s.move(c.Move)
	case c.LinkHere != nil:
		return s.linkHere(c.LinkHere)
	case c.SetXattr != nil:
		return s.setXattr(c.SetXattr)
	case c.Stage != nil:
		return s.stage(c.Stage)
	case c.Unstage != nil:
		return s.unstage(c.Unstage)
	case c.Reclaim != nil:
		return s.reclaim(c.Reclaim)
	case c.Keep != nil:
		return s.keep(c.Keep)
	case c.Released != nil:
		return s.released(c.Released)
	case c.Refuse != nil:
		return s.refuseUpload(c.Refuse)
	case c.NewUpload != nil:
		return s.newUpload(c.NewUpload)
	case c.PutPart != nil:
		return s.putPart(c.PutPart)
	case c.EndUpload != nil:
		return s.endUpload(c.EndUpload)
	case c.Compact != nil:
		return s.compact(c.Compact)
	case c.Prepare != nil:
		return s.prepare(c.Prepare)
	case c.Decide != nil:
		return s.decide(c.Decide)
	case c.RefuseTx != nil:
		return s.refuseTx(c.RefuseTx)
	case c.Finish != nil:
		return s.finish(c.Finish)
	case c.Init != nil:
		return s.init()
	case c.RaiseEpoch != nil:
		return s.raiseEpoch(c.RaiseEpoch)
	case c.BeginRename != nil:
		return s.beginRename(c.BeginRename)
	case c.EndRename != nil:
		return s.endRename(c.EndRename)
	case c.EndSession != nil:
		return s.endSession(c.EndSession)
	case c.Control != nil:
		return s.control(c.Control)
	case c.SetScheme != nil:
		return s.setScheme(c.SetScheme)
	case c.Unstray != nil:
		return s.unstray(c.Unstray)
	case c.Rewrite != nil:
		return s.rewrite(c.Rewrite)
	case c.StepRewrite != nil:
		return s.stepRewrite(c.StepRewrite)
	case c.Lock != nil:
		return s.lock(c.Lock)
	case c.Unlock != nil:
		return s.unlock(c.Unlock)
	case c.CancelLock != nil:
		return s.cancelLock(c.CancelLock)
	case c.DropLocks != nil:
		return s.dropLocks(c.DropLocks)
	case c.SetLease != nil:
		return s.setLease(c.SetLease)
	case c.EndSessions != nil:
		return s.endSessions(c.EndSessions)
	}
	return failf(object.KindVersion, "a log entry with an operation that this program does not know: upgrade this node")
}

func failf(k object.Kind, format string, args ...any) *Result {
	return &Result{Failed: true, Kind: k, Message: fmt.Sprintf(format, args...)}
}

func meet(ref *TxRef) *Result {
	return &Result{Failed: true, Kind: object.KindConflict, Message: "another operation on the same name is under way", Meet: ref}
}

// --- the store, with an error that sticks

func (s *state) fail(err error) {
	if s.err == nil {
		s.err = err // nil leaves it as it is
	}
}

func (s *state) load(key []byte, v any) bool {
	b, ok := s.loadRaw(key)
	if !ok {
		return false
	}
	if err := codec.dec.Unmarshal(b, v); err != nil {
		s.fail(object.Errorf(object.KindCorrupt, "metadata record %x cannot be read: %w", key, err))
		return false
	}
	return true
}

func (s *state) loadRaw(key []byte) ([]byte, bool) {
	if s.err != nil {
		return nil, false
	}
	b, ok, err := s.txn.Get(key)
	if err != nil {
		s.fail(err)
	}
	return b, ok && err == nil
}

func (s *state) has(key []byte) bool { _, ok := s.loadRaw(key); return ok }

func (s *state) store(key []byte, v any) {
	b, err := codec.enc.Marshal(v)
	if err != nil {
		s.fail(err)
		return
	}
	s.storeRaw(key, b)
}

func (s *state) storeRaw(key, value []byte) {
	if s.touched.note(key); s.err == nil {
		s.fail(s.txn.Set(key, value))
	}
}

func (s *state) drop(key []byte) {
	if s.touched.note(key); s.err == nil {
		s.fail(s.txn.Delete(key))
	}
}

// scan calls fn for the keys from start to end until it returns false.
func (s *state) scan(start, end []byte, fn func(k, v []byte) bool) {
	if s.err != nil {
		return
	}
	err := s.txn.Ascend(start, end, func(k, v []byte) (bool, error) {
		more := fn(k, v)
		return more && s.err == nil, nil
	})
	if err != nil {
		s.fail(err)
	}
}

func (s *state) event(e Event) {
	e.Index, e.Time = s.index, time.Unix(0, s.now)
	s.events = append(s.events, e)
}
