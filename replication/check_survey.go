package replication

import (
	"context"
	"errors"
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// checkHold bounds how long a check keeps a view that it does not yet read:
// Badger throws no version away that a view can see.
const checkHold = 2 * time.Minute

// walk shows each partition's view to fn, in order. The views are of one moment
// as far as limits.hold allows, so that what is done in two partitions is seen in
// both or in neither, but for what is done at that very moment.
func (c *checker) walk(ctx context.Context, fn func(p object.PartitionID, v checkedView) error) error {
	var views []checkedView
	defer func() { closeViews(views) }()
	var opened time.Time
	parts := c.on.partitions()
	for i, p := range parts {
		if len(views) == 0 || time.Since(opened) > c.limits.hold {
			closeViews(views)
			var err error
			if views, err = c.on.views(ctx, parts[i:]); err != nil {
				return err
			}
			opened = time.Now()
		}
		v := views[0]
		views = views[1:]
		err := fn(p, v)
		v.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func closeViews(views []checkedView) {
	for _, v := range views {
		v.Close()
	}
}

// hasher gives ids their places and facts their weights, anew for each check:
// nobody can make ids that hide a problem.
type hasher struct{ places, weights maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

// chunkAt is a chunk as one partition counts it.
type chunkAt struct {
	part object.PartitionID
	id   object.ChunkID
}

// nameFact is what names of an inode count: its names that give it a type, or
// (under) the subdirectories in it.
type nameFact struct {
	id    object.InodeID
	typ   object.FileType
	under bool
}

// The place of an id decides on its sum and on which closer look takes it.
func (h hasher) inode(id object.InodeID) uint64 { return maphash.Comparable(h.places, id) }
func (h hasher) chunk(id object.ChunkID) uint64 { return maphash.Comparable(h.places, id) }

func (h hasher) name(f nameFact) uint64      { return maphash.Comparable(h.weights, f) }
func (h hasher) references(f chunkAt) uint64 { return maphash.Comparable(h.weights, f) }

// sums are balances of many ids, by place: each count on record adds its fact's
// weight as often as it says, each thing counted takes it off once, modulo 2^64. Where all
// counts are right a sum is zero. Where one is off by n it is zero by chance once in
// 2^64 / (the largest power of two in n), which is 2^33 at worst.
type sums struct {
	of    []uint64
	shift int
	doubt []uint64 // bits: to be looked at whatever the sum
	idle  []uint64 // bits: in doubt if the store has no garbage
}

func newSums(n int) *sums {
	words := (n + 63) / 64
	return &sums{of: make([]uint64, n), shift: 64 - bits.Len(uint(n-1)), doubt: make([]uint64, words), idle: make([]uint64, words)}
}

func (s *sums) add(place, weight uint64, times int) { s.of[place>>s.shift] += weight * uint64(times) }

func setBit(set []uint64, bucket uint64) { set[bucket/64] |= 1 << (bucket % 64) }
func hasBit(set []uint64, bucket uint64) bool {
	return set[bucket/64]>>(bucket%64)&1 != 0
}

// settle turns sums into doubts.
func (s *sums) settle(garbage, all bool) {
	for b := range uint64(len(s.of)) {
		if all || s.of[b] != 0 || !garbage && hasBit(s.idle, b) {
			setBit(s.doubt, b)
		}
	}
}

// doubtful tells whether the id at a place is to be looked at closer.
func (s *sums) doubtful(place uint64) bool { return hasBit(s.doubt, place>>s.shift) }

// next is the first doubtful place from a place on.
func (s *sums) next(from uint64) (place uint64, found bool) {
	for b := from >> s.shift; b < uint64(len(s.of)); b++ {
		if hasBit(s.doubt, b) {
			return max(from, b<<s.shift), true
		}
	}
	return 0, false
}

// survey walks everything once. It counts, lists what one record, or a chunk
// and its file, tell to be wrong, and leaves the ids in doubt that do not balance.
func (c *checker) survey(ctx context.Context) error {
	owners, err := c.on.owners()
	if err != nil {
		return err
	}
	err = c.walk(ctx, func(p object.PartitionID, v checkedView) error {
		there := slices.Contains(owners, p)
		owners = slices.DeleteFunc(owners, func(o object.PartitionID) bool { return o == p })
		return c.surveyOne(ctx, p, v, there)
	})
	if err != nil {
		return err
	}
	for _, owner := range owners { // that this store does not have
		if err := c.surveyOne(ctx, owner, nil, true); err != nil {
			return err
		}
	}
	c.inodes.settle(c.r.Garbage > 0, c.limits.all)
	c.chunks.settle(true, c.limits.all)
	c.r.Garbage += c.releasing
	return nil
}

// surveyOne surveys a partition (v nil: that is not here) and its chunk files.
func (c *checker) surveyOne(ctx context.Context, p object.PartitionID, v checkedView, files bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j := &fileJoin{c: c, ctx: ctx, fail: cancel}
	j.asks.SetLimit(checkAsks)
	if files {
		var stop func()
		j.pull, stop = iter.Pull2(c.filesOf(ctx, p))
		defer stop()
		j.step()
	}
	if v != nil {
		err := v.Walk(ctx, c.surveyor(p, j))
		if bad := j.asks.Wait(); j.err == nil {
			j.err = bad
		}
		if j.err != nil {
			return j.err // which ended the walk
		}
		if err != nil {
			return err
		}
	}
	for j.there {
		j.stray()
	}
	return j.err
}

func (c *checker) filesOf(ctx context.Context, owner object.PartitionID) iter.Seq2[object.ChunkID, error] {
	return func(yield func(object.ChunkID, error) bool) {
		enough := errors.New("enough")
		err := c.on.files(ctx, owner, func(id object.ChunkID) error {
			if !yield(id, nil) {
				return enough
			}
			return nil
		})
		if err != nil && !errors.Is(err, enough) {
			yield(object.ChunkID{}, err)
		}
	}
}

func (c *checker) surveyor(part object.PartitionID, j *fileJoin) namespace.Visitor {
	return namespace.Visitor{
		Inode:  func(i object.Inode, marked bool) { c.surveyInode(part, i, marked) },
		Dentry: func(dir object.InodeID, e object.Dentry, marked bool) { c.surveyDentry(part, dir, e, marked) },
		Extent: func(e object.Extent) {
			c.r.Extents++
			if e.Data == nil {
				c.count(chunkAt{part, e.Chunk}, -1)
			}
		},
		Chunk: func(ch namespace.ChunkRef, refs int) {
			c.r.Chunks++
			c.count(chunkAt{part, ch.ID}, refs)
			j.recorded(asKept(ch))
		},
		Foreign: func(id object.ChunkID, refs, held int) {
			c.count(chunkAt{part, id}, refs)
			c.count(chunkAt{id.Owner, id}, -held)
			if held == 0 || id.Owner == part { // it balances, but the owner may not know it, or is this partition itself
				setBit(c.chunks.doubt, c.hash.chunk(id)>>c.chunks.shift)
			}
		},
		Releasing: func(object.ChunkID) { c.releasing++ },
		Tx:        func(namespace.TxRef) { c.r.Open++ },
		Garbage:   func() { c.r.Garbage++ },
	}
}

func (c *checker) count(at chunkAt, times int) {
	c.chunks.add(c.hash.chunk(at.id), c.hash.references(at), times)
}

func (c *checker) surveyInode(part object.PartitionID, i object.Inode, marked bool) {
	c.r.Inodes++
	if i.ID.Partition() != part {
		c.problem(ProblemNames, "inode %s is filed in partition %d", i.ID, part)
	}
	if marked {
		c.r.Open++
	}
	place, names := c.hash.inode(i.ID), int(i.Nlink)
	switch {
	case i.Type == object.TypeDirectory:
		names = namesOfDirectory(i.ID)
		c.inodes.add(place, c.hash.name(nameFact{id: i.ID, under: true}), int(i.Nlink)-2)
	case names == 0:
		setBit(c.inodes.idle, place>>c.inodes.shift)
	}
	c.inodes.add(place, c.hash.name(nameFact{id: i.ID, typ: i.Type}), names)
}

// namesOfDirectory is how many names a directory is to have.
func namesOfDirectory(id object.InodeID) int {
	if id == object.RootInode {
		return 0
	}
	return 1
}

func (c *checker) surveyDentry(part object.PartitionID, dir object.InodeID, e object.Dentry, marked bool) {
	c.r.Dentries++
	if dir.Partition() != part {
		c.problem(ProblemNames, "entry %q of directory %s is filed in partition %d", e.Name, dir, part)
	}
	if marked {
		c.r.Open++
	}
	c.inodes.add(c.hash.inode(e.Inode), c.hash.name(nameFact{id: e.Inode, typ: e.Type}), -1)
	if e.Type == object.TypeDirectory {
		c.inodes.add(c.hash.inode(dir), c.hash.name(nameFact{id: dir, under: true}), -1)
	}
}
