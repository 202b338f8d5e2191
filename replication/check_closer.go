package replication

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// lookCloser compares the ids in doubt one by one, in as many walks as their
// rows need. Each id is judged within one walk: walks need not see one moment.
func (c *checker) lookCloser(ctx context.Context) error {
	for from, more := uint64(0), true; more; {
		inode, inodes := c.inodes.next(from)
		chunk, chunks := c.chunks.next(from)
		switch {
		case !inodes && !chunks:
			return nil
		case !inodes:
			inode = chunk
		case !chunks:
			chunk = inode
		}
		l := c.newLook(min(inode, chunk))
		if err := c.walk(ctx, func(p object.PartitionID, v checkedView) error { return v.Walk(ctx, l.visitor(p)) }); err != nil {
			return err
		}
		c.looks++
		c.r.Open, c.r.Garbage = max(c.r.Open, l.open), max(c.r.Garbage, l.garbage+l.releasing)
		l.compareInodes()
		if err := l.compareChunks(); err != nil {
			return err
		}
		from, more = l.last+1, l.last < math.MaxUint64
	}
	return nil
}

// closeLook holds the facts about the ids in doubt at the places from..last. It
// begins with all that are left, and gives up the upper half of them whenever its rows
// are full: those are another look's.
type closeLook struct {
	c          *checker
	from, last uint64
	inodes     map[object.InodeID]inodeRow
	chunks     map[chunkAt]chunkRow

	open, garbage, releasing int
}

func (c *checker) newLook(from uint64) *closeLook {
	return &closeLook{c: c, from: from, last: math.MaxUint64, inodes: map[object.InodeID]inodeRow{}, chunks: map[chunkAt]chunkRow{}}
}

// inodeRow is what is known of one inode.
type inodeRow struct {
	names   int
	subdirs int
	dir     object.InodeID // of the last name
	dir2    object.InodeID // of a name of another type
	nlink   uint32
	there   bool
	typ     object.FileType
	named   object.FileType // as the last name has it
	named2  object.FileType // as the name in dir2 has it
}

// chunkRow is how often one partition counts a chunk.
type chunkRow struct {
	extents int // that name it
	onFile  int // references on record
	held    int // at the owner: references that foreign partitions say they have there
	scheme  object.Scheme
}

func (l *closeLook) takes(s *sums, place uint64) bool {
	return place >= l.from && place <= l.last && s.doubtful(place)
}

// room makes room for one more row at a place that l takes, and tells whether it still does.
func (l *closeLook) room(s *sums, place uint64) bool {
	if len(l.inodes)+len(l.chunks) < l.c.limits.rows {
		return true
	}
	l.halve()
	return l.takes(s, place)
}

// halve gives up the upper half of the places. Rows that share one place, the
// partitions that count one chunk, stay together.
func (l *closeLook) halve() {
	h := l.c.hash
	places := make([]uint64, 0, len(l.inodes)+len(l.chunks))
	for id := range l.inodes {
		places = append(places, h.inode(id))
	}
	for at := range l.chunks {
		places = append(places, h.chunk(at.id))
	}
	slices.Sort(places)
	// The lowest place stays: every look gets something done.
	for _, cut := range places[len(places)/2:] {
		if cut > places[0] {
			l.last = cut - 1
			break
		}
	}
	maps.DeleteFunc(l.inodes, func(id object.InodeID, _ inodeRow) bool { return h.inode(id) > l.last })
	maps.DeleteFunc(l.chunks, func(at chunkAt, _ chunkRow) bool { return h.chunk(at.id) > l.last })
}

func (l *closeLook) inode(id object.InodeID, change func(*inodeRow)) {
	place := l.c.hash.inode(id)
	if !l.takes(l.c.inodes, place) {
		return
	}
	row, have := l.inodes[id]
	if !have && !l.room(l.c.inodes, place) {
		return
	}
	change(&row)
	l.inodes[id] = row
	l.note()
}

func (l *closeLook) chunk(at chunkAt, change func(*chunkRow)) {
	place := l.c.hash.chunk(at.id)
	if !l.takes(l.c.chunks, place) {
		return
	}
	row, have := l.chunks[at]
	if !have && !l.room(l.c.chunks, place) {
		return
	}
	change(&row)
	l.chunks[at] = row
	l.note()
}

func (l *closeLook) note() { l.c.most = max(l.c.most, len(l.inodes)+len(l.chunks)) }

func (l *closeLook) visitor(part object.PartitionID) namespace.Visitor {
	return namespace.Visitor{
		Inode: func(i object.Inode, marked bool) {
			l.mark(marked)
			l.inode(i.ID, func(r *inodeRow) { r.there, r.nlink, r.typ = true, i.Nlink, i.Type })
		},
		Dentry: func(dir object.InodeID, e object.Dentry, marked bool) {
			l.mark(marked)
			l.inode(e.Inode, func(r *inodeRow) {
				if r.names > 0 && r.named != e.Type {
					r.dir2, r.named2 = r.dir, r.named
				}
				r.names++
				r.dir, r.named = dir, e.Type
			})
			if e.Type == object.TypeDirectory {
				l.inode(dir, func(r *inodeRow) { r.subdirs++ })
			}
		},
		Extent: func(e object.Extent) {
			if e.Data == nil {
				l.chunk(chunkAt{part, e.Chunk}, func(r *chunkRow) { r.extents, r.scheme = r.extents+1, e.Scheme })
			}
		},
		Chunk: func(c namespace.ChunkRef, refs int) {
			l.chunk(chunkAt{part, c.ID}, func(r *chunkRow) { r.onFile = refs })
		},
		Foreign: func(id object.ChunkID, refs, held int) {
			l.chunk(chunkAt{part, id}, func(r *chunkRow) { r.onFile = refs })
			l.chunk(chunkAt{id.Owner, id}, func(r *chunkRow) { r.held += held })
		},
		Releasing: func(object.ChunkID) { l.releasing++ },
		Tx:        func(namespace.TxRef) { l.open++ },
		Garbage:   func() { l.garbage++ },
	}
}

func (l *closeLook) mark(marked bool) {
	if marked {
		l.open++
	}
}

func (l *closeLook) compareInodes() {
	c := l.c
	for id, i := range l.inodes {
		if i.dir2 != 0 {
			c.problem(ProblemNames, "inode %s is of type %d by its name in directory %s, of type %d by its name in directory %s", id, i.named2, i.dir2, i.named, i.dir)
		}
		switch {
		case !i.there && i.names == 0: // all that is known are subdirectories: a name that leads here tells
		case !i.there:
			c.problem(ProblemNames, "a name in directory %s leads to inode %s, which does not exist", i.dir, id)
		case i.typ == object.TypeDirectory:
			l.compareDirectory(id, i)
		case int(i.nlink) != i.names:
			c.problem(ProblemNames, "file %s has a link count of %d and %d names", id, i.nlink, i.names)
		case i.names == 0 && l.garbage == 0:
			c.problem(ProblemNames, "inode %s has no name and is not garbage", id)
		case i.names > 0 && i.named != i.typ:
			c.problem(ProblemNames, "inode %s is of type %d, its name in directory %s says %d", id, i.typ, i.dir, i.named)
		}
	}
}

// compareDirectory leaves the parent pointer alone: a rename that was cut short
// leaves it to the next one.
func (l *closeLook) compareDirectory(id object.InodeID, i inodeRow) {
	switch {
	case i.names != namesOfDirectory(id):
		l.c.problem(ProblemNames, "directory %s has %d names", id, i.names)
	case i.names > 0 && i.named != i.typ:
		l.c.problem(ProblemNames, "directory %s is of type %d by its name in directory %s", id, i.named, i.dir)
	case int(i.nlink) != 2+i.subdirs:
		l.c.problem(ProblemNames, "directory %s has a link count of %d and %d subdirectories", id, i.nlink, i.subdirs)
	}
}

func (l *closeLook) compareChunks() error {
	lost := map[object.ChunkID]bool{} // asked about: several partitions may name one
	for at, r := range l.chunks {
		switch want := r.extents + r.held; {
		case r.onFile == want:
		case want == 0:
			l.c.problem(ProblemReferences, "chunk %s: partition %d counts %d references, nothing names it", at.id, at.part, r.onFile)
		default:
			l.c.problem(ProblemReferences, "chunk %s: partition %d counts %d references, there are %d", at.id, at.part, r.onFile, want)
		}
		// The survey has compared files with the chunks on record, and no others.
		if r.extents == 0 || l.chunks[chunkAt{at.id.Owner, at.id}].onFile > 0 || lost[at.id] {
			continue
		}
		lost[at.id] = true
		if here, _ := l.c.on.holders(copies.Chunk{ID: at.id, Scheme: copies.SchemeOf(r.scheme)}); !here {
			continue // its owner, who would know who has it, does not know it
		}
		there, err := l.c.on.onDisk(at.id)
		if err != nil {
			return err
		}
		if !there {
			l.c.problem(ProblemMissing, "chunk %s is missing on disk", at.id)
		}
	}
	return nil
}
