package replication

import (
	"context"
	"fmt"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// CheckReport is what Check found.
type CheckReport struct {
	Inodes, Dentries, Extents, Chunks int
	// Open counts transactions under way and Garbage what waits to be reclaimed:
	// neither is a fault, but with both at zero every count must be exact.
	Open, Garbage int
	// Problems are broken invariants, in words; at most maxProblems.
	Problems []string
}

const maxProblems = 1000

// Check compares the namespace with its invariants: every dentry names an
// inode, link counts are right, every inode has a name, every extent's chunk
// is on record with the right number of references and on disk, and nothing is
// on disk that no record names. It is exact on a store at rest; changes under
// way may show up as problems. Memory grows with the number of inodes and chunks.
func (n *Node) Check(ctx context.Context) (*CheckReport, error) {
	c := &checker{n: n, r: &CheckReport{}, inodes: map[object.InodeID]object.Inode{}, names: map[object.InodeID]int{},
		subdirs: map[object.InodeID]int{}, refs: map[chunkAt]int{}, recs: map[chunkAt]int{}, held: map[object.ChunkID]int{}, files: map[object.ChunkID]bool{}}
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
	c.compare()
	return c.r, nil
}

// chunkAt is a chunk as the extents of one partition name it.
type chunkAt struct {
	part object.PartitionID
	id   object.ChunkID
}

type checker struct {
	n       *Node
	r       *CheckReport
	inodes  map[object.InodeID]object.Inode
	names   map[object.InodeID]int
	subdirs map[object.InodeID]int
	refs    map[chunkAt]int        // extents that name the chunk
	recs    map[chunkAt]int        // references on record
	held    map[object.ChunkID]int // references that foreign partitions hold at the owner
	files   map[object.ChunkID]bool
	waiting []object.ChunkID // being released
}

func (c *checker) problem(format string, args ...any) {
	if len(c.r.Problems) < maxProblems {
		c.r.Problems = append(c.r.Problems, fmt.Sprintf(format, args...))
	}
}

func (c *checker) visitor(part object.PartitionID) namespace.Visitor {
	return namespace.Visitor{
		Inode: func(i object.Inode, marked bool) {
			c.r.Inodes++
			c.inodes[i.ID] = i
			if marked {
				c.r.Open++
			}
		},
		Dentry: func(dir object.InodeID, e object.Dentry, marked bool) {
			c.r.Dentries++
			c.names[e.Inode]++
			if e.Type == object.TypeDirectory {
				c.subdirs[dir]++
			}
			if dir.Partition() != part {
				c.problem("entry %q of directory %s is filed in partition %d", e.Name, dir, part)
			}
			if marked {
				c.r.Open++
			}
		},
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

func (c *checker) compare() {
	for id, i := range c.inodes {
		switch names := c.names[id]; {
		case id == object.RootInode:
		case i.IsDir() && names != 1:
			c.problem("directory %s has %d names", id, names)
		case i.IsDir() && int(i.Nlink) != 2+c.subdirs[id]:
			c.problem("directory %s has a link count of %d and %d subdirectories", id, i.Nlink, c.subdirs[id])
		case !i.IsDir() && int(i.Nlink) != names:
			c.problem("file %s has a link count of %d and %d names", id, i.Nlink, names)
		case names == 0 && c.r.Garbage == 0:
			c.problem("inode %s has no name and is not garbage", id)
		}
	}
	for id := range c.names {
		if _, ok := c.inodes[id]; !ok {
			c.problem("a name leads to inode %s, which does not exist", id)
		}
	}
	for at, refs := range c.refs {
		c.r.Chunks++
		want := refs
		if at.id.Owner == at.part {
			want += c.held[at.id]
		}
		if c.recs[at] != want {
			c.problem("chunk %s: partition %d counts %d references, there are %d", at.id, at.part, c.recs[at], want)
		}
		if !c.files[at.id] {
			c.problem("chunk %s is missing on disk", at.id)
		}
	}
	for at, refs := range c.recs {
		if c.refs[at] == 0 && refs != c.held[at.id] {
			c.problem("chunk %s: partition %d counts %d references, nothing names it", at.id, at.part, refs)
		}
	}
	for _, id := range c.waiting {
		c.r.Garbage++
		delete(c.files, id)
	}
	for id := range c.files {
		if c.recs[chunkAt{id.Owner, id}] == 0 && !c.n.active.has(id.Upload) {
			c.problem("chunk %s is on disk and nobody knows it", id)
		}
	}
}
