// Package meta keeps one node's metadata: one Badger database, cut into ordered
// key ranges by partition, whose state after any stop is a prefix of its commits.
//
// DESIGN.md beside this file says why the memtable logs are never read.
package meta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// baseTableBytes is the size of tables in the first level below the flushed ones; it
// doubles from level to level, and a level holds ten times what the one before holds.
const baseTableBytes = 1 << 20

// Defaults of Options, in bytes.
const (
	DefaultMemTableBytes   = 16 << 20
	DefaultBlockCacheBytes = 32 << 20
	DefaultIndexCacheBytes = 24 << 20
)

// MaxValue is the longest value, in bytes: longer ones would go to Badger's
// value log, which recovery does not cover.
const MaxValue = 1<<20 - 1

// verifyAtOpen bounds the tables, in bytes, whose every block Open checks; in a
// larger database that is left to whoever calls Verify.
const verifyAtOpen = 256 << 20

// MaxKey is the longest key, in bytes, without its partition.
const MaxKey = 32 << 10

// systemPrefix starts the keys that belong to no partition (ids end at
// object.MaxPartitions): the applied indexes.
const systemPrefix = 0xffff

// Options are the settings of a DB. Zero sizes mean the defaults.
type Options struct {
	// FS carries the marker, format and lock files; nil: vfs.OS(). Badger makes
	// its own calls.
	FS vfs.FS
	// Dir is the directory of the database, made when missing.
	Dir string
	// Logger takes what Badger has to say; nil discards it.
	Logger *slog.Logger

	MemTableBytes, BlockCacheBytes, IndexCacheBytes int64

	// InMemory keeps everything in memory, for tests that need no disk.
	InMemory bool
}

// DB is one node's metadata. Safe for concurrent use.
type DB struct {
	badger *badger.DB
	dir    *directory // nil in memory
	log    *slog.Logger
	lines  *badgerLog

	maxKeys, maxBytes int

	mu         sync.Mutex // guards partitions and flushed
	partitions map[object.PartitionID]*Partition
	flushed    uint64 // highest version known to be in the tables; never sinks

	spares     sync.WaitGroup // dropSpares, until stopSpares is closed
	stopSpares chan struct{}

	closed   atomic.Bool
	closing  sync.Once
	closeErr error
}

// Open opens the database, or makes it. After an unclean stop it holds a prefix
// of what was committed: each partition's Applied tells how far to replay from.
// Errors: KindBusy when another process has the directory, KindVersion when a
// newer BucketDB wrote it, KindCorrupt when a table fails its checksum (every block
// is checked while the tables are small, else only their indexes: see Verify).
func Open(opts Options) (*DB, error) {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("component", "meta")
	if opts.FS == nil {
		opts.FS = vfs.OS()
	}
	var dir *directory
	if !opts.InMemory {
		var err error
		if dir, err = openDirectory(opts.FS, opts.Dir, log); err != nil {
			return nil, err
		}
	}
	db, err := openBadger(opts, dir, log)
	if err != nil {
		return nil, errors.Join(err, dir.unlock())
	}
	return db, nil
}

func openBadger(opts Options, dir *directory, log *slog.Logger) (*DB, error) {
	lines := newBadgerLog(log)
	if dir != nil {
		lines.mark = func(text string) error { return dir.writeFile(OpDamage, damageName, text) }
	}
	b, err := startBadger(badgerOptions(opts, dir, lines), lines)
	if err != nil {
		return nil, object.Errorf(object.KindOf(err), "opening the metadata database in %s: %w", opts.Dir, err)
	}
	db := &DB{badger: b, dir: dir, log: log, lines: lines, partitions: map[object.PartitionID]*Partition{}, stopSpares: make(chan struct{})}
	db.spares.Go(func() { dropSpares(allocators(b), db.stopSpares) })
	// Badger wants strictly less than its limits, and counts one entry and some
	// bytes of its own.
	db.maxKeys = int(b.MaxBatchCount()) - 8
	db.maxBytes = int(b.MaxBatchSize()) - 4<<10
	ledger := &tables{db: b}
	if dir != nil {
		ledger.dir = dir.data()
	}
	lines.books.attach(ledger)
	err = lines.damage()
	if err == nil && db.tableBytes() <= verifyAtOpen {
		err = db.Verify(context.Background())
	}
	if err == nil {
		err = db.loadApplied()
	}
	if err != nil {
		return nil, errors.Join(err, db.closeBadger())
	}
	return db, nil
}

// startBadger is badger.Open, but when that fails while a compaction runs, which
// nobody can check then: it is held for ever, and Badger's own end waits for it. The
// old tables are whole, so that the next process may find nothing amiss.
func startBadger(o badger.Options, lines *badgerLog) (*badger.DB, error) {
	type opened struct {
		db  *badger.DB
		err error
	}
	done := make(chan opened, 1)
	go func() {
		db, err := badger.Open(o)
		done <- opened{db, err}
	}()
	select {
	case got := <-done:
		return got.db, got.err
	case err := <-lines.unopened:
		return nil, object.Errorf(object.KindUnavailable, "%w (a compaction that ran meanwhile was not installed; end the process before you try again)", err)
	}
}

func badgerOptions(opts Options, dir *directory, lines badger.Logger) badger.Options {
	o := badger.DefaultOptions("").WithInMemory(true)
	if dir != nil {
		o = badger.DefaultOptions(dir.data()).WithInMemory(false)
	}
	o.Logger = lines
	o.SyncWrites = false
	o.DetectConflicts = false // partitions do not share keys, and each has one writer
	o.NumVersionsToKeep = 1
	o.MetricsEnabled = false
	o.MemTableSize = orDefault(opts.MemTableBytes, DefaultMemTableBytes)
	// Three tables may wait for their flush; more would only hide a slow disk.
	o.NumMemtables = 3
	o.NumCompactors = 2
	// A compaction has up to 13 tables in memory, each in two to six times its size.
	o.BaseTableSize = baseTableBytes
	o.BlockCacheSize = orDefault(opts.BlockCacheBytes, DefaultBlockCacheBytes)
	o.IndexCacheSize = orDefault(opts.IndexCacheBytes, DefaultIndexCacheBytes)
	o.ValueThreshold = min(MaxValue+1, o.MemTableSize*15/100)
	o.ValueLogFileSize = 4 << 20 // never written; Badger maps twice this
	o.Compression = options.Snappy
	o.ChecksumVerificationMode = options.OnBlockRead
	return o
}

func orDefault(v, def int64) int64 {
	if v > 0 {
		return v
	}
	return def
}

// loadApplied reads the applied index of every partition there is.
func (db *DB) loadApplied() error {
	r := db.newest()
	defer r.discard()
	prefix := binary.BigEndian.AppendUint16(nil, systemPrefix)
	return r.ascend(prefix, nil, func(key, value []byte) (bool, error) {
		if len(key) != 4 || len(value) != 8 {
			return false, object.Errorf(object.KindCorrupt, "metadata database: the applied index under key %x has a wrong size", key)
		}
		p := object.PartitionID(binary.BigEndian.Uint16(key[2:]))
		db.Partition(p).recovered(binary.BigEndian.Uint64(value))
		return true, nil
	})
}

// Partition is the key range of partition p, which must be below object.MaxPartitions.
func (db *DB) Partition(p object.PartitionID) *Partition {
	if p >= object.MaxPartitions {
		panic(fmt.Sprintf("meta: partition %d is above the limit %d", p, object.MaxPartitions-1))
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	part := db.partitions[p]
	if part == nil {
		part = newPartition(db, p)
		db.partitions[p] = part
	}
	return part
}

// MaxTxn is what one Txn may hold, in keys and in bytes as Txn.Size counts them.
func (db *DB) MaxTxn() (keys, bytes int) { return db.maxKeys, db.maxBytes }

// Clean reports whether the database was closed properly before this Open.
func (db *DB) Clean() bool { return db.dir == nil || db.dir.clean }

func corrupt(cause error) error {
	return object.Errorf(object.KindCorrupt,
		"metadata database: a table cannot be read (%w); restore this node's metadata from a replica or a backup", cause)
}

// tableVersion is the highest commit version that survives a power cut. Tables
// are flushed in commit order, synced, and then named in a synced manifest, so
// every commit up to it is in the tables too.
func (db *DB) tableVersion() uint64 {
	var highest uint64
	for _, t := range db.badger.Tables() {
		highest = max(highest, t.MaxVersion)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	// Compaction may drop the key that carried the highest version.
	db.flushed = max(db.flushed, highest)
	return db.flushed
}

func (db *DB) tableBytes() (sum int64) {
	for _, t := range db.badger.Tables() {
		sum += int64(t.OnDiskSize)
	}
	return sum
}

// Close flushes everything into tables and leaves the clean marker. Readers and
// transactions must have ended. Only the first call does anything.
func (db *DB) Close() error {
	db.closing.Do(func() {
		db.closed.Store(true)
		if db.closeErr = db.closeBadger(); db.closeErr != nil {
			db.closeErr = errors.Join(db.closeErr, db.dir.unlock())
			return
		}
		db.closeErr = db.dir.leaveClean()
	})
	return db.closeErr
}

// closeBadger leaves Badger as it is when a compaction has to be held: it would be
// waited for.
func (db *DB) closeBadger() error {
	close(db.stopSpares)
	db.spares.Wait()
	closed := make(chan error, 1)
	go func() { closed <- db.badger.Close() }()
	select {
	case err := <-closed:
		return err
	case <-db.lines.stuck:
		return db.lines.held()
	}
}

var _ io.Closer = (*DB)(nil)

// storeError gives an error of Badger its kind.
func storeError(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, badger.ErrDBClosed), errors.Is(err, badger.ErrBlockedWrites):
		return &object.Error{Op: op, Kind: object.KindUnavailable, Err: errors.New("the metadata database is closed")}
	case errors.Is(err, badger.ErrTxnTooBig):
		return &object.Error{Op: op, Kind: object.KindTooLarge, Err: err}
	}
	return &object.Error{Op: op, Kind: object.KindOf(err), Err: fmt.Errorf("metadata database: %w", err)}
}
