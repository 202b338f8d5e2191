package chunk

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// disk is one of a store's directories:
//
//	chunks/<partition, 4 hex>/<first byte of the upload id, 2 hex>/<chunk id>
//	tmp/         files being written; emptied by Open
//	quarantine/  files that failed a check; kept for a person to look at
//
// The first byte of the upload id (random) spreads the uploads, keeps one
// upload's chunks together, so that their directory syncs can be shared, and
// makes directory order chunk id order.
type disk struct {
	dir    string
	fs     vfs.FS
	syncs  *dirSyncs
	weight float64 // its part of the capacity; at least 1

	mu      sync.Mutex      // guards what follows
	settled map[string]bool // directories below chunks/ whose names are known to be durable
	failed  error           // a directory sync failed: no more writes here
	usage   vfs.Usage
	usageAt time.Time
}

func (d *disk) chunks() string     { return filepath.Join(d.dir, "chunks") }
func (d *disk) tmp() string        { return filepath.Join(d.dir, "tmp") }
func (d *disk) quarantine() string { return filepath.Join(d.dir, "quarantine") }

func (d *disk) partition(p object.PartitionID) string {
	return filepath.Join(d.chunks(), fmt.Sprintf("%04x", uint16(p)))
}

// leaf is the directory of a chunk.
func (d *disk) leaf(id object.ChunkID) string {
	return filepath.Join(d.partition(id.Owner), fmt.Sprintf("%02x", id.Upload[0]))
}

func (d *disk) path(id object.ChunkID) string { return filepath.Join(d.leaf(id), id.String()) }

// open makes the directories and drops what a crash left half-written.
func (d *disk) open() error {
	made := missingParents(d.fs, d.dir)
	for _, dir := range []string{d.chunks(), d.tmp(), d.quarantine()} {
		if err := d.fs.MkdirAll(OpOpen, dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range append(made, d.dir) {
		if err := d.fs.SyncDir(OpOpen, dir); err != nil {
			return err
		}
	}
	left, err := d.fs.ReadDir(OpOpen, d.tmp())
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := d.fs.Remove(OpClean, filepath.Join(d.tmp(), e.Name())); err != nil {
			return err
		}
	}
	_, err = d.space()
	return err
}

// missingParents lists the directories that must be synced once dir is made:
// its parent, and the parents of all that are not there yet.
func missingParents(f vfs.FS, dir string) []string {
	var list []string
	for {
		parent := filepath.Dir(dir)
		if parent == dir {
			return list
		}
		list = append(list, parent)
		if _, err := f.Stat(OpOpen, parent); err == nil {
			return list
		}
		dir = parent
	}
}

// usageAge is how long the answer of Usage is believed.
const usageAge = time.Second

// space is the disk's capacity, at most usageAge old.
func (d *disk) space() (vfs.Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.usageAt) < usageAge {
		return d.usage, nil
	}
	u, err := d.fs.Usage(OpUsage, d.dir)
	if err == nil {
		d.usage, d.usageAt = u, time.Now()
	}
	return u, err
}

// writable reports why the disk takes no chunk of n bytes now, if so.
func (d *disk) writable(n, reserve int64) error {
	if err := d.failure(); err != nil {
		return err
	}
	u, err := d.space()
	if err != nil {
		return err
	}
	if u.FreeBytes < uint64(n+reserve) {
		return object.Errorf(object.KindNoSpace,
			"%s has %d bytes free, and %d are kept in reserve: delete data or add a disk", d.dir, u.FreeBytes, reserve)
	}
	return nil
}

// failure is nil, or the error that writes to the disk get.
func (d *disk) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = object.Errorf(object.KindInternal,
			"%s takes no writes since a sync of it failed (%w): check the disk, then restart", d.dir, err)
	}
}

// sync makes the names in dir durable. After a failure nothing does: what the
// kernel still knows of the change is unknown, and a second try that succeeds
// would prove nothing.
func (d *disk) sync(ctx context.Context, dir string) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.syncs.sync(ctx, dir)
}

// settleChunk makes the name of a chunk durable whose bytes are. Bytes are synced
// before a file gets its name, so a name that is there needs no more than this.
func (d *disk) settleChunk(ctx context.Context, id object.ChunkID) error {
	if err := d.sync(ctx, d.leaf(id)); err != nil {
		return err
	}
	return d.settle(ctx, id)
}

// settle makes the names of a chunk's directory and of its parent durable, once.
func (d *disk) settle(ctx context.Context, id object.ChunkID) error {
	leaf, partition := d.leaf(id), d.partition(id.Owner)
	d.mu.Lock()
	done, parentDone := d.settled[leaf], d.settled[partition]
	d.mu.Unlock()
	if done {
		return nil
	}
	list, err := d.fs.ReadDir(OpList, partition) // all of these get settled by one sync
	if err != nil {
		return err
	}
	if err := d.sync(ctx, partition); err != nil {
		return err
	}
	if !parentDone {
		if err := d.sync(ctx, d.chunks()); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled[partition] = true
	for _, e := range list {
		d.settled[filepath.Join(partition, e.Name())] = true
	}
	return nil
}

// makeLeaf makes a chunk's directory unless it is known.
func (d *disk) makeLeaf(id object.ChunkID) error {
	leaf := d.leaf(id)
	d.mu.Lock()
	done := d.settled[leaf]
	d.mu.Unlock()
	if done {
		return nil
	}
	return d.fs.MkdirAll(OpMkdir, leaf, 0o755)
}

// unsettle forgets a directory that turned out to be missing.
func (d *disk) unsettle(id object.ChunkID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.settled, d.leaf(id))
	delete(d.settled, d.partition(id.Owner))
}

// has reports whether the chunk's file is on this disk.
func (d *disk) has(id object.ChunkID) (bool, error) {
	_, err := d.fs.Stat(OpStat, d.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// score orders the disks for an id: weighted rendezvous hashing (Schindelhauer
// and Schomaker 2005), lowest first. A disk's part of the chunks follows its
// weight, and a new disk takes chunks from the others only.
func (d *disk) score(id object.ChunkID) float64 {
	h := fnv.New64a()
	h.Write(id.AppendBinary(nil))
	h.Write([]byte(d.dir))
	x := h.Sum64()
	// FNV's high bits are weak; this is the finalizer of splitmix64.
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	u := (float64(x>>11) + 0.5) / (1 << 53)
	return -math.Log(u) / d.weight
}

// rank is the disks in the order in which they are asked for id.
func (s *Store) rank(id object.ChunkID) []*disk {
	if len(s.disks) == 1 {
		return s.disks
	}
	list := slices.Clone(s.disks)
	slices.SortFunc(list, func(a, b *disk) int {
		if a.score(id) < b.score(id) {
			return -1
		}
		return 1
	})
	return list
}
