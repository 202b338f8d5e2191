// Package wal is one segmented write-ahead log shared by all Raft groups of a
// node: each group's raft.LogStore and raft.StableStore, with group commit.
//
// DESIGN.md beside this file has the format, the protocol, and what a crash
// leaves at each step.
package wal

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// Defaults of Options.
const (
	DefaultSegmentBytes  = 64 << 20
	DefaultMaxBatchBytes = 4 << 20
	DefaultCacheBytes    = 16 << 20

	minSegmentBytes = 1 << 10
	maxSegmentBytes = 1 << 30
)

// Options say where the log is and how it behaves.
type Options struct {
	FS  vfs.FS
	Dir string // made if missing; nobody else may use it (the caller holds the lock)

	SegmentBytes  int64 // length of a segment; 0 for the default
	MaxBatchBytes int64 // what one write and sync gathers at most, unless one call is larger; 0 for the default
	CacheBytes    int64 // bound of the recent entries kept in memory; 0 for the default, negative for none

	// ManualClean leaves reclamation to calls of Clean; for tests.
	ManualClean bool

	Logger *slog.Logger
}

func (o *Options) complete() error {
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.SegmentBytes, DefaultSegmentBytes)
	setDefault(&o.MaxBatchBytes, DefaultMaxBatchBytes)
	setDefault(&o.CacheBytes, DefaultCacheBytes)
	switch {
	case o.Dir == "":
		return object.Errorf(object.KindInvalid, "the log needs a directory")
	case o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes:
		return object.Errorf(object.KindInvalid, "log segments must have %d to %d bytes, not %d", minSegmentBytes, maxSegmentBytes, o.SegmentBytes)
	case o.MaxBatchBytes < 0 || o.MaxBatchBytes > maxSegmentBytes:
		return object.Errorf(object.KindInvalid, "the largest batch must have 1 to %d bytes, not %d", maxSegmentBytes, o.MaxBatchBytes)
	}
	return nil
}

func setDefault(v *int64, d int64) {
	if *v == 0 {
		*v = d
	}
}

// Log is an open log. All methods are safe for concurrent use.
type Log struct {
	opts Options
	log  *slog.Logger

	// qmu guards the commit queue. It is never held together with mu.
	qmu     sync.Mutex
	queue   []*request
	leading bool // some goroutine is the leader: it alone writes to the active segment
	closed  bool

	// mu guards what readers see. Only the leader and the cleaner change it.
	mu     sync.RWMutex
	groups map[object.PartitionID]*Group
	segs   map[uint64]*segment
	order  []uint64 // ids of segs, ascending
	active *segment
	oldest uint64 // the oldest needed segment, as the last batch said
	cache  *cache
	stats  Stats

	batch []byte // the leader's buffer

	cacheHits, diskReads atomic.Uint64

	failure atomic.Pointer[object.Error] // why the log stopped
	failed  chan struct{}                // closed when failure is set

	cleanWake chan struct{}
	cleanStop chan struct{}
	cleanDone chan struct{}
	cleanMu   sync.Mutex // one cleaning at a time
}

// Stats are counters since Open, and gauges.
type Stats struct {
	Segments  int    // files, the active one included
	Bytes     int64  // used bytes of all segments
	LiveBytes int64  // of them, records that still count
	Batches   uint64 // batches written
	Syncs     uint64 // fdatasyncs of batches, seals and marks
	Entries   uint64 // raft entries written, copies not counted
	Written   uint64 // bytes of batches written
	Copied    uint64 // bytes of live records copied forward
	Reclaimed uint64 // segments removed
	CacheHits uint64 // entries read from memory
	DiskReads uint64 // entries read from a segment
	CleanErr  error  // why reclamation is stuck, if it is
}

// Open opens or makes the log in opts.Dir and recovers it. Errors: KindCorrupt
// when acknowledged bytes are damaged or missing (this node's replicas must not
// vote again under their ids), KindVersion for a newer format, else those of the
// filesystem.
func Open(opts Options) (*Log, error) {
	if err := opts.complete(); err != nil {
		return nil, object.WithOp(err, "open log", "", "")
	}
	l := &Log{
		opts: opts, log: opts.Logger.With("component", "wal"),
		groups: make(map[object.PartitionID]*Group), segs: make(map[uint64]*segment),
		cache: newCache(opts.CacheBytes), failed: make(chan struct{}),
		cleanWake: make(chan struct{}, 1), cleanStop: make(chan struct{}), cleanDone: make(chan struct{}),
	}
	if err := l.recover(); err != nil {
		return nil, object.WithOp(errors.Join(err, l.closeFiles()), "open log", "", "")
	}
	if opts.ManualClean {
		close(l.cleanDone)
	} else {
		go l.cleanLoop()
	}
	return l, nil
}

// Group is the log and stable store of one group. Groups exist from their first
// record on; every call with one id returns the same Group.
func (l *Log) Group(id object.PartitionID) *Group {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.groupLocked(id)
}

func (l *Log) groupLocked(id object.PartitionID) *Group {
	g := l.groups[id]
	if g == nil {
		g = &Group{l: l, id: id, stable: make(map[string]stableValue)}
		l.groups[id] = g
	}
	return g
}

// Groups lists the groups that have anything in the log, in order.
func (l *Log) Groups() []object.PartitionID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var ids []object.PartitionID
	for id, g := range l.groups {
		if !g.blank() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.stats
	s.Segments = len(l.order)
	s.CacheHits, s.DiskReads = l.cacheHits.Load(), l.diskReads.Load()
	for _, seg := range l.segs {
		s.Bytes += seg.end
		s.LiveBytes += seg.live
	}
	return s
}

// Failed is closed when a write or a sync failed and the log stopped for good:
// every change fails from then on, reads go on. The node must stop its groups:
// raft panics when it cannot store a term.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err says why the log stopped, or nil.
func (l *Log) Err() error {
	if e := l.failure.Load(); e != nil {
		return e
	}
	return nil
}

// stop poisons the log. A failed sync is never tried again: the kernel may have
// dropped the dirty pages and would report success for bytes that are lost.
func (l *Log) stop(cause error) error {
	e := &object.Error{Op: "write log", Kind: object.KindUnavailable, Err: errors.Join(
		errors.New("the write-ahead log stopped after a failed write; check the disk of "+l.opts.Dir+", then restart the node"), cause)}
	if l.failure.CompareAndSwap(nil, e) {
		l.log.Error("the write-ahead log stopped", "error", cause)
		close(l.failed)
	}
	return l.Err()
}

// Close waits for what is being written, marks the log clean, and closes it.
// Changes after it fail; a second Close does nothing.
func (l *Log) Close() error {
	l.qmu.Lock()
	if l.closed {
		l.qmu.Unlock()
		return nil
	}
	l.closed = true
	l.qmu.Unlock()
	close(l.cleanStop)
	<-l.cleanDone
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	err := l.enqueue(&request{alone: l.markClean, wake: make(chan bool, 1)})
	return object.WithOp(errors.Join(err, l.closeFiles()), "close log", "", "")
}

func (l *Log) closeFiles() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, s := range l.segs {
		err = errors.Join(err, s.close())
	}
	return err
}
