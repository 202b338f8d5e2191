// Package chunk is the store of immutable chunks on one node's disks: each is a
// file whose every byte is checked before it is given out, and which is durable
// before its Put returns. storage/DESIGN.md tells the format and the protocol.
package chunk

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// The labels of the store's filesystem calls.
const (
	OpOpen       vfs.Op = "chunk.open"            // making and syncing the directories at start
	OpClean      vfs.Op = "chunk.clean"           // dropping a file that a crash left half-written
	OpUsage      vfs.Op = "chunk.usage"           //
	OpMkdir      vfs.Op = "chunk.mkdir"           //
	OpCreate     vfs.Op = "chunk.create"          // its writes are vfs.WriteOp(OpCreate)
	OpSync       vfs.Op = "chunk.sync"            // of a chunk's bytes
	OpRename     vfs.Op = "chunk.rename"          // from tmp to its place
	OpDirSync    vfs.Op = "chunk.dirsync"         // of any directory of chunks
	OpRead       vfs.Op = "chunk.read"            // opening; its reads are vfs.ReadOp(OpRead)
	OpStat       vfs.Op = "chunk.stat"            //
	OpList       vfs.Op = "chunk.list"            //
	OpRemove     vfs.Op = "chunk.remove"          // of a released chunk
	OpAbandon    vfs.Op = "chunk.abandon"         // of a temporary file whose Put failed
	OpQuarantine vfs.Op = "chunk.quarantine.move" //
)

// Defaults of Options.
const (
	DefaultReserve   = 64 << 20
	DefaultOpenFiles = 256
)

// Options are what a store needs. FS, Dirs and Logger are required.
type Options struct {
	FS vfs.FS
	// Dirs are the disks: one directory each, made where missing. No other
	// process may use them; the caller holds the lock that says so.
	Dirs []string
	// Compression is for new chunks; those that are there keep theirs.
	Compression Compression
	// Reserve is the free space, in bytes, below which a disk takes no more
	// chunks, so that logs and deletes go on; 0 is DefaultReserve, negative none.
	Reserve int64
	// OpenFiles bounds the cache of open files (with their parsed headers);
	// 0 is DefaultOpenFiles, negative none.
	OpenFiles int
	// OnCorrupt, where set, is told of every chunk that fails a check, after it
	// was quarantined. It must not block for long; no lock is held.
	OnCorrupt func(id object.ChunkID, err error)
	Logger    *slog.Logger
}

func (o *Options) complete() error {
	switch {
	case o.FS == nil || o.Logger == nil:
		return object.Errorf(object.KindInvalid, "the chunk store needs a filesystem and a logger")
	case len(o.Dirs) == 0:
		return object.Errorf(object.KindInvalid, "no storage path is given: name at least one directory")
	case o.Compression > maxCompression:
		return object.Errorf(object.KindInvalid, "compression %d is unknown", o.Compression)
	}
	o.Dirs = slices.Clone(o.Dirs)
	for i, dir := range o.Dirs {
		o.Dirs[i] = filepath.Clean(dir)
		if slices.Contains(o.Dirs[:i], o.Dirs[i]) {
			return object.Errorf(object.KindInvalid, "the storage path %s is given twice", dir)
		}
	}
	o.Reserve = orDefault(o.Reserve, DefaultReserve)
	o.OpenFiles = int(orDefault(int64(o.OpenFiles), DefaultOpenFiles))
	return nil
}

func orDefault(v, def int64) int64 {
	if v == 0 {
		return def
	}
	return max(v, 0)
}

// Store is the chunks of one node. It is safe for concurrent use. Contexts are
// looked at before and between disk operations; one that hangs in the kernel
// holds its caller until the kernel lets go.
type Store struct {
	opts    Options
	log     *slog.Logger
	disks   []*disk
	codec   *codec
	locks   idLocks
	files   *fileCache
	buffers sync.Pool // *[]byte with room for one frame, compressed or not
	bodies  sync.Pool // *[]byte of a compressed chunk
	temps   atomic.Uint64
	stats   counters
}

// Open opens or makes the store and drops temporary files that a crash left.
func Open(opts Options) (*Store, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	s := &Store{
		opts:  opts,
		log:   opts.Logger.With("component", "chunk"),
		codec: newCodec(),
		files: newFileCache(opts.OpenFiles),
	}
	s.buffers.New = func() any { b := make([]byte, 0, maxEncoded()); return &b }
	s.bodies.New = func() any { return new([]byte) }
	for _, dir := range opts.Dirs {
		d := &disk{dir: dir, fs: opts.FS, settled: map[string]bool{}}
		d.syncs = &dirSyncs{fs: opts.FS, dirs: map[string]*dirState{}, onFailure: func(err error) {
			s.log.Error("a disk takes no more writes: a directory sync failed", "dir", d.dir, "err", err)
			d.fail(err)
		}}
		if err := d.open(); err != nil {
			return nil, object.WithOp(fmt.Errorf("storage path %s: %w", dir, err), "chunk.open", "", "")
		}
		s.disks = append(s.disks, d)
	}
	s.weigh()
	return s, nil
}

// weigh gives every disk its part of the capacity; directories on one device share it.
func (s *Store) weigh() {
	shares := map[uint64]float64{}
	for _, d := range s.disks {
		shares[d.usage.Device]++
	}
	for _, d := range s.disks {
		d.weight = max(1, float64(d.usage.TotalBytes)/shares[d.usage.Device])
	}
}

// Close closes the cached files. Calls must have ended before.
func (s *Store) Close() error { return s.files.close() }

// DiskUsage is the state of one disk.
type DiskUsage struct {
	Dir string
	vfs.Usage
	// Failed says why the disk takes no more writes, where that is so.
	Failed error
}

// Usage tells the state of each disk, at most a second old.
func (s *Store) Usage() ([]DiskUsage, error) {
	var list []DiskUsage
	var errs []error
	for _, d := range s.disks {
		u, err := d.space()
		errs = append(errs, err)
		list = append(list, DiskUsage{Dir: d.dir, Usage: u, Failed: d.failure()})
	}
	return list, errors.Join(errs...)
}

// counters count since Open.
type counters struct {
	puts, putBytes, storedBytes, reads, readBytes, deletes, corrupt, mismatched atomic.Int64
}

// Stats are counts since Open.
type Stats struct {
	Puts, PutBytes, StoredBytes int64 // new chunks; logical and stored bytes
	Reads, ReadBytes            int64 // calls, and logical bytes given out
	Deletes                     int64 // files removed
	Corrupt                     int64 // chunks quarantined
	Mismatched                  int64 // reads that asked for another SHA-256 than the chunk's
	DirSyncs, DirSyncRequests   int64 // the latter share the former
	OpenFiles                   int   // cached now
}

// Stats is the counts of now.
func (s *Store) Stats() Stats {
	c := &s.stats
	st := Stats{
		Puts: c.puts.Load(), PutBytes: c.putBytes.Load(), StoredBytes: c.storedBytes.Load(),
		Reads: c.reads.Load(), ReadBytes: c.readBytes.Load(), Deletes: c.deletes.Load(),
		Corrupt: c.corrupt.Load(), Mismatched: c.mismatched.Load(), OpenFiles: s.files.len(),
	}
	for _, d := range s.disks {
		st.DirSyncs += d.syncs.made.Load()
		st.DirSyncRequests += d.syncs.asked.Load()
	}
	return st
}

// failed dresses an error with operation and chunk.
func failed(op string, id object.ChunkID, err error) error {
	if err == nil {
		return nil // without the cost of naming the chunk
	}
	return object.WithOp(err, op, "", id.String())
}

// closeWith closes c after an error that matters more.
func closeWith(c io.Closer, err *error) {
	if cerr := c.Close(); *err == nil {
		*err = cerr
	}
}
