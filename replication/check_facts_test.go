package replication

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// facts are a store to be checked, as a test puts it together.
type facts struct {
	parts []*partFacts // by PartitionID
	files map[object.ChunkID]bool
	busy  map[object.UploadID]bool
	fail  error // of the listing of files, after the first
	// look is what other holders say of a chunk; nil: there are none.
	look func(object.ChunkID) map[string]error
	// batches counts the times that views were opened.
	batches int
}

type partFacts struct {
	id       object.PartitionID
	inodes   []object.Inode
	dentries []dentryFact
	extents  []object.ChunkID
	chunks   map[object.ChunkID]int
	foreign  map[object.ChunkID]foreignFact
	release  []object.ChunkID
	garbage  int
	open     int // views
}

type dentryFact struct {
	dir object.InodeID
	object.Dentry
}

type foreignFact struct{ refs, held int }

func newFacts(parts int) *facts {
	f := &facts{files: map[object.ChunkID]bool{}, busy: map[object.UploadID]bool{}}
	for p := range parts {
		f.parts = append(f.parts, &partFacts{id: object.PartitionID(p), chunks: map[object.ChunkID]int{}, foreign: map[object.ChunkID]foreignFact{}})
	}
	return f
}

func (f *facts) partitions() (list []object.PartitionID) {
	for _, p := range f.parts {
		list = append(list, p.id)
	}
	return list
}

func (f *facts) views(_ context.Context, parts []object.PartitionID) (list []checkedView, err error) {
	f.batches++
	for _, p := range parts {
		f.parts[p].open++
		list = append(list, f.parts[p])
	}
	return list, nil
}

func (f *facts) owners() (list []object.PartitionID, err error) {
	for id := range f.files {
		list = append(list, id.Owner)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func (f *facts) filesOf(owner object.PartitionID) (list []object.ChunkID) {
	for id := range f.files {
		if id.Owner == owner {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, compareChunks)
	return list
}

func (f *facts) known(_ context.Context, id object.ChunkID) (live, releasing bool, err error) {
	if int(id.Owner) >= len(f.parts) {
		return false, false, nil
	}
	p := f.parts[id.Owner]
	return p.chunks[id] > 0, slices.Contains(p.release, id), nil
}

func (f *facts) onDisk(id object.ChunkID) (bool, error)                     { return f.files[id], nil }
func (f *facts) writing(_ context.Context, u object.UploadID) (bool, error) { return f.busy[u], nil }

func (f *facts) holders(copies.Chunk) (here, elsewhere bool) { return true, f.look != nil }
func (f *facts) lookFor(_ context.Context, c copies.Chunk, ask func(string) bool) (list []copies.Holding, err error) {
	for node, bad := range f.look(c.ID) {
		if ask(node) {
			list = append(list, copies.Holding{Node: node, Now: true, Err: bad})
		}
	}
	return list, nil
}

// checkedFacts gives files its name.
type checkedFacts struct{ *facts }

func (f checkedFacts) files(_ context.Context, owner object.PartitionID, fn func(object.ChunkID) error) error {
	for _, id := range f.filesOf(owner) {
		if err := fn(id); err != nil {
			return err
		}
		if f.fail != nil {
			return f.fail
		}
	}
	return nil
}

func (p *partFacts) Close() { p.open-- }

// Walk shows the facts in the order of a partition's keys.
func (p *partFacts) Walk(ctx context.Context, to namespace.Visitor) error {
	for _, id := range slices.SortedFunc(maps.Keys(p.chunks), compareChunks) {
		to.Chunk(namespace.ChunkRef{ID: id}, p.chunks[id])
	}
	for _, e := range p.dentries {
		to.Dentry(e.dir, e.Dentry, false)
	}
	for _, id := range p.extents {
		to.Extent(object.Extent{Chunk: id})
	}
	for id, r := range p.foreign {
		to.Foreign(id, r.refs, r.held)
	}
	for _, i := range p.inodes {
		to.Inode(i, false)
	}
	for range p.garbage {
		to.Garbage()
	}
	for _, id := range p.release {
		to.Releasing(id)
	}
	return ctx.Err()
}

// problems is what a check must find, worked out with everything in memory.
func (f *facts) problems() []Problem {
	var list []Problem
	add := func(k ProblemKind, format string, args ...any) {
		list = append(list, Problem{k, fmt.Sprintf(format, args...)})
	}
	f.nameProblems(add)
	f.chunkProblems(add)
	slices.SortFunc(list, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text)) })
	return list
}

func (f *facts) nameProblems(add func(k ProblemKind, format string, args ...any)) {
	inodes, names, subdirs, garbage := map[object.InodeID]object.Inode{}, map[object.InodeID][]dentryFact{}, map[object.InodeID]int{}, 0
	for _, p := range f.parts {
		garbage += p.garbage
		for _, i := range p.inodes {
			inodes[i.ID] = i
			if i.ID.Partition() != p.id {
				add(ProblemNames, "inode %s is filed in partition %d", i.ID, p.id)
			}
		}
		for _, e := range p.dentries {
			names[e.Inode] = append(names[e.Inode], e)
			if e.Type == object.TypeDirectory {
				subdirs[e.dir]++
			}
			if e.dir.Partition() != p.id {
				add(ProblemNames, "entry %q of directory %s is filed in partition %d", e.Name, e.dir, p.id)
			}
		}
	}
	for id, of := range names {
		last, other := of[len(of)-1], dentryFact{}
		for n := 1; n < len(of); n++ {
			if of[n].Type != of[n-1].Type {
				other = of[n-1]
			}
		}
		if other.dir != 0 {
			add(ProblemNames, "inode %s is of type %d by its name in directory %s, of type %d by its name in directory %s", id, other.Type, other.dir, last.Type, last.dir)
		}
		if _, there := inodes[id]; !there {
			add(ProblemNames, "a name in directory %s leads to inode %s, which does not exist", last.dir, id)
		}
	}
	for id, i := range inodes {
		of := names[id]
		var last dentryFact
		if len(of) > 0 {
			last = of[len(of)-1]
		}
		dir, root := i.Type == object.TypeDirectory, id == object.RootInode
		switch wrong := len(of) > 0 && last.Type != i.Type; {
		case dir && (root && len(of) != 0 || !root && len(of) != 1):
			add(ProblemNames, "directory %s has %d names", id, len(of))
		case dir && wrong:
			add(ProblemNames, "directory %s is of type %d by its name in directory %s", id, last.Type, last.dir)
		case dir && int(i.Nlink) != 2+subdirs[id]:
			add(ProblemNames, "directory %s has a link count of %d and %d subdirectories", id, i.Nlink, subdirs[id])
		case dir:
		case int(i.Nlink) != len(of):
			add(ProblemNames, "file %s has a link count of %d and %d names", id, i.Nlink, len(of))
		case len(of) == 0 && garbage == 0:
			add(ProblemNames, "inode %s has no name and is not garbage", id)
		case wrong:
			add(ProblemNames, "inode %s is of type %d, its name in directory %s says %d", id, i.Type, last.dir, last.Type)
		}
	}
}

func (f *facts) chunkProblems(add func(k ProblemKind, format string, args ...any)) {
	recs, want, lost := map[chunkAt]int{}, map[chunkAt]int{}, map[object.ChunkID]bool{}
	for _, p := range f.parts {
		for _, id := range p.extents {
			want[chunkAt{p.id, id}]++
			lost[id] = !f.files[id]
		}
		for id, refs := range p.chunks {
			recs[chunkAt{p.id, id}] = refs
			lost[id] = !f.files[id]
		}
		for id, r := range p.foreign {
			recs[chunkAt{p.id, id}] = r.refs
			want[chunkAt{id.Owner, id}] += r.held
		}
	}
	for at, n := range recs {
		if want[at] == 0 && n != 0 {
			add(ProblemReferences, "chunk %s: partition %d counts %d references, nothing names it", at.id, at.part, n)
		}
	}
	for at, n := range want {
		if n != 0 && recs[at] != n {
			add(ProblemReferences, "chunk %s: partition %d counts %d references, there are %d", at.id, at.part, recs[at], n)
		}
	}
	for id, is := range lost {
		if is {
			add(ProblemMissing, "chunk %s is missing on disk", id)
		}
	}
	for id := range f.files {
		live, releasing, _ := f.known(context.Background(), id)
		if !live && !releasing && !f.busy[id.Upload] {
			add(ProblemStray, "chunk %s is on disk and nobody knows it", id)
		}
	}
}
