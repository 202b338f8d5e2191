package replication

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// ProblemKind tells broken invariants apart by what they do to the data. Append only.
type ProblemKind uint8

// The kinds of problems, the gravest first.
const (
	ProblemMissing    ProblemKind = iota // a chunk is on record, its file is not on disk
	ProblemReferences                    // a chunk's count of references is wrong
	ProblemNames                         // names, inodes and link counts do not fit together
	ProblemStray                         // a chunk's file is on disk and no record names it

	problemKinds
)

// String is the kind's name on the wire.
func (k ProblemKind) String() string {
	switch k {
	case ProblemMissing:
		return "missing-data"
	case ProblemReferences:
		return "references"
	case ProblemNames:
		return "names"
	case ProblemStray:
		return "stray-data"
	}
	return fmt.Sprintf("ProblemKind(%d)", uint8(k))
}

// ProblemKinds are all kinds, the gravest first.
func ProblemKinds() []ProblemKind {
	list := make([]ProblemKind, problemKinds)
	for k := range list {
		list[k] = ProblemKind(k)
	}
	return list
}

// Problem is one place where an invariant is broken.
type Problem struct {
	Kind ProblemKind
	Text string // what and where, for people
}

func (p Problem) String() string { return p.Kind.String() + ": " + p.Text }

// CheckReport is what Check found.
type CheckReport struct {
	Inodes, Dentries, Extents, Chunks int
	// Open counts transactions under way and Garbage what waits to be reclaimed:
	// neither is a fault, but with both at zero every count must be exact.
	Open, Garbage int
	// Problems are broken invariants, sorted by kind and text; at most
	// MaxProblems of a kind.
	Problems []Problem
	// Truncated are the kinds of which there are more. Which of their problems
	// are listed is chance.
	Truncated []ProblemKind
}

// MaxProblems is how many problems of one kind a CheckReport lists.
const MaxProblems = 1000

// Check compares the namespace with its invariants: every dentry names an
// inode, link counts are right, every inode has a name, every extent's chunk
// is on record with the right number of references and on disk, and nothing is
// on disk that no record names. It is exact on a store at rest; changes under
// way may show up as problems. Memory grows with the number of inodes and chunks.
func (n *Node) Check(ctx context.Context) (*CheckReport, error) {
	c := newChecker(n.active.has)
	for _, p := range n.parts {
		err := n.inView(ctx, p.id, func(v *namespace.View) error { return v.Walk(c.visitor(p.id)) })
		if err != nil {
			return nil, err
		}
	}
	owners, err := n.chunks.Partitions()
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		err := n.chunks.Each(ctx, owner, object.ChunkID{}, func(id object.ChunkID) error { c.files[id] = true; return nil })
		if err != nil {
			return nil, err
		}
	}
	return c.report(), nil
}

// chunkAt is a chunk as the extents of one partition name it.
type chunkAt struct {
	part object.PartitionID
	id   object.ChunkID
}

type checker struct {
	writing func(object.UploadID) bool // whether an upload is under way
	r       *CheckReport
	counts  [problemKinds]int
	inodes  map[object.InodeID]checkedInode
	names   map[object.InodeID]namesOf
	subdirs map[object.InodeID]int
	refs    map[chunkAt]int        // extents that name the chunk
	recs    map[chunkAt]int        // references on record
	held    map[object.ChunkID]int // references that foreign partitions hold at the owner
	files   map[object.ChunkID]bool
	waiting []object.ChunkID // being released
}

// checkedInode is what is compared of an inode; there are many.
type checkedInode struct {
	nlink uint32
	typ   object.FileType
}

// namesOf are the names of one inode.
type namesOf struct {
	count int
	dir   object.InodeID  // of the last one
	typ   object.FileType // as the last one has it
}

func newChecker(writing func(object.UploadID) bool) *checker {
	return &checker{writing: writing, r: &CheckReport{}, inodes: map[object.InodeID]checkedInode{}, names: map[object.InodeID]namesOf{},
		subdirs: map[object.InodeID]int{}, refs: map[chunkAt]int{}, recs: map[chunkAt]int{}, held: map[object.ChunkID]int{}, files: map[object.ChunkID]bool{}}
}

// problem lists a problem. Each kind has its own limit, so that many of one do
// not hide another.
func (c *checker) problem(k ProblemKind, format string, args ...any) {
	if c.counts[k]++; c.counts[k] <= MaxProblems {
		c.r.Problems = append(c.r.Problems, Problem{k, fmt.Sprintf(format, args...)})
	}
}

func (c *checker) visitor(part object.PartitionID) namespace.Visitor {
	return namespace.Visitor{
		Inode: func(i object.Inode, marked bool) {
			c.r.Inodes++
			c.inodes[i.ID] = checkedInode{i.Nlink, i.Type}
			if i.ID.Partition() != part {
				c.problem(ProblemNames, "inode %s is filed in partition %d", i.ID, part)
			}
			if marked {
				c.r.Open++
			}
		},
		Dentry: func(dir object.InodeID, e object.Dentry, marked bool) { c.dentry(part, dir, e, marked) },
		Extent: func(e object.Extent) {
			c.r.Extents++
			if e.Data == nil {
				c.refs[chunkAt{part, e.Chunk}]++
			}
		},
		Chunk: func(id object.ChunkID, refs int) { c.recs[chunkAt{part, id}] = refs },
		Foreign: func(id object.ChunkID, refs, held int) {
			c.recs[chunkAt{part, id}] = refs
			c.held[id] += held
		},
		Releasing: func(id object.ChunkID) { c.waiting = append(c.waiting, id) },
		Tx:        func(namespace.TxRef) { c.r.Open++ },
		Garbage:   func() { c.r.Garbage++ },
	}
}

func (c *checker) dentry(part object.PartitionID, dir object.InodeID, e object.Dentry, marked bool) {
	c.r.Dentries++
	names := c.names[e.Inode]
	if names.count > 0 && names.typ != e.Type {
		c.problem(ProblemNames, "entry %q of directory %s is of type %d, another name of inode %s of type %d", e.Name, dir, e.Type, e.Inode, names.typ)
	}
	c.names[e.Inode] = namesOf{names.count + 1, dir, e.Type}
	if e.Type == object.TypeDirectory {
		c.subdirs[dir]++
	}
	if dir.Partition() != part {
		c.problem(ProblemNames, "entry %q of directory %s is filed in partition %d", e.Name, dir, part)
	}
	if marked {
		c.r.Open++
	}
}

// report compares what was visited and closes the report.
func (c *checker) report() *CheckReport {
	c.compareInodes()
	c.compareChunks()
	for _, k := range ProblemKinds() {
		if c.counts[k] > MaxProblems {
			c.r.Truncated = append(c.r.Truncated, k)
		}
	}
	slices.SortFunc(c.r.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text))
	})
	return c.r
}

func (c *checker) compareInodes() {
	for id, i := range c.inodes {
		if i.typ == object.TypeDirectory {
			c.compareDirectory(id, i)
			continue
		}
		switch names := c.names[id]; {
		case int(i.nlink) != names.count:
			c.problem(ProblemNames, "file %s has a link count of %d and %d names", id, i.nlink, names.count)
		case names.count == 0 && c.r.Garbage == 0:
			c.problem(ProblemNames, "inode %s has no name and is not garbage", id)
		case names.count > 0 && names.typ != i.typ:
			c.problem(ProblemNames, "inode %s is of type %d, its name in directory %s says %d", id, i.typ, names.dir, names.typ)
		}
	}
	for id, names := range c.names {
		if _, ok := c.inodes[id]; !ok {
			c.problem(ProblemNames, "a name in directory %s leads to inode %s, which does not exist", names.dir, id)
		}
	}
}

// compareDirectory leaves the parent pointer alone: a rename that was cut short
// leaves it to the next one.
func (c *checker) compareDirectory(id object.InodeID, i checkedInode) {
	names, want := c.names[id], 1
	if id == object.RootInode {
		want = 0
	}
	switch {
	case names.count != want:
		c.problem(ProblemNames, "directory %s has %d names", id, names.count)
	case names.count > 0 && names.typ != i.typ:
		c.problem(ProblemNames, "directory %s is of type %d by its name in directory %s", id, names.typ, names.dir)
	case int(i.nlink) != 2+c.subdirs[id]:
		c.problem(ProblemNames, "directory %s has a link count of %d and %d subdirectories", id, i.nlink, c.subdirs[id])
	}
}

func (c *checker) compareChunks() {
	for at, refs := range c.refs {
		c.r.Chunks++
		want := refs
		if at.id.Owner == at.part {
			want += c.held[at.id]
		}
		if c.recs[at] != want {
			c.problem(ProblemReferences, "chunk %s: partition %d counts %d references, there are %d", at.id, at.part, c.recs[at], want)
		}
		if !c.files[at.id] {
			c.problem(ProblemMissing, "chunk %s is missing on disk", at.id)
		}
	}
	for at, refs := range c.recs {
		if c.refs[at] == 0 && refs != c.held[at.id] {
			c.problem(ProblemReferences, "chunk %s: partition %d counts %d references, nothing names it", at.id, at.part, refs)
		}
	}
	for _, id := range c.waiting {
		c.r.Garbage++
		delete(c.files, id)
	}
	for id := range c.files {
		if c.recs[chunkAt{id.Owner, id}] == 0 && !c.writing(id.Upload) {
			c.problem(ProblemStray, "chunk %s is on disk and nobody knows it", id)
		}
	}
}
