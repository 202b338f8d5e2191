package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// whole is more than any test's store needs, small less; with small every id is
// looked at as well, in slices, whether it balances or not, and each view is
// opened when it is read.
var (
	whole = checkLimits{hold: time.Hour, sums: 1 << 12, rows: 1 << 20}
	small = checkLimits{sums: 16, rows: 40, all: true}
)

// soundFacts is a store of dirs directories with files in them, some of several
// names, of chunks some of which are shared between partitions.
func soundFacts(parts, dirs, filesEach int) *facts {
	f := newFacts(parts)
	root := object.Inode{ID: object.RootInode, Type: object.TypeDirectory, Nlink: 2}
	index := uint64(10)
	born := func(p object.PartitionID) object.InodeID { index++; return object.NewInodeID(p, index, 0) }
	for d := range dirs {
		p := f.parts[1+d%(parts-1)]
		dir := object.Inode{ID: born(p.id), Type: object.TypeDirectory, Nlink: 2}
		f.parts[0].dentries = append(f.parts[0].dentries, dentryFact{root.ID, object.Dentry{Name: "d", Inode: dir.ID, Type: dir.Type}})
		root.Nlink++
		for n := range filesEach {
			file := object.Inode{ID: born(p.id), Type: object.TypeRegular, Nlink: uint32(1 + n%3)}
			p.inodes = append(p.inodes, file)
			for link := range file.Nlink { // the others in directories of other partitions
				at := f.parts[1+(d+int(link))%(parts-1)]
				under := dir.ID
				if at != p {
					under = object.NewInodeID(at.id, 1, 0)
				}
				at.dentries = append(at.dentries, dentryFact{under, object.Dentry{Name: "f", Inode: file.ID, Type: file.Type}})
			}
			id := object.ChunkID{Owner: p.id, Upload: uploadNo(index), Ordinal: uint32(n)}
			f.files[id] = true
			p.extents = append(p.extents, id)
			p.chunks[id] = 1
			if n%2 == 0 { // shared with another partition, which names it twice
				to := f.parts[1+(d+1)%(parts-1)]
				to.extents = append(to.extents, id, id)
				if to == p {
					p.chunks[id] += 2
				} else {
					to.foreign[id] = foreignFact{2, 1}
					p.chunks[id]++
				}
			}
		}
		p.inodes = append(p.inodes, dir)
	}
	f.parts[0].inodes = append(f.parts[0].inodes, root)
	return f
}

func uploadNo(n uint64) (u object.UploadID) {
	binary.BigEndian.PutUint64(u[8:], n)
	u[0] = byte(n * 37)
	return u
}

// damages each break something in a partition, at a place chosen by n.
var damages = map[string]func(f *facts, p *partFacts, n int){
	"lose a name": func(_ *facts, p *partFacts, n int) { p.dentries = without(p.dentries, n) },
	"lose an inode": func(_ *facts, p *partFacts, n int) {
		if i := n % max(1, len(p.inodes)); len(p.inodes) > 0 && p.inodes[i].ID != object.RootInode {
			p.inodes = without(p.inodes, n)
		}
	},
	"leak an inode": func(_ *facts, p *partFacts, n int) {
		p.inodes = append(p.inodes, object.Inode{ID: object.NewInodeID(p.id, uint64(1e6+n), 0), Type: object.TypeRegular, Nlink: uint32(n % 2)})
	},
	"link count": func(_ *facts, p *partFacts, n int) { change(p.inodes, n, func(i *object.Inode) { i.Nlink++ }) },
	"type of an inode": func(_ *facts, p *partFacts, n int) {
		change(p.inodes, n, func(i *object.Inode) { i.Type = object.TypeSymlink })
	},
	"type of a name": func(_ *facts, p *partFacts, n int) {
		change(p.dentries, n, func(e *dentryFact) { e.Type = object.TypeFIFO })
	},
	"directory of a name":  func(_ *facts, p *partFacts, n int) { change(p.dentries, n, func(e *dentryFact) { e.dir++ }) },
	"where a name leads":   func(_ *facts, p *partFacts, n int) { change(p.dentries, n, func(e *dentryFact) { e.Inode++ }) },
	"where two names lead": func(_ *facts, p *partFacts, n int) { swap(p.dentries, n) },
	"lose an extent":       func(_ *facts, p *partFacts, n int) { p.extents = without(p.extents, n) },
	"an extent of no chunk": func(_ *facts, p *partFacts, n int) {
		change(p.extents, n, func(id *object.ChunkID) { id.Ordinal += 1e6 })
	},
	"an extent more": func(_ *facts, p *partFacts, n int) {
		p.extents = append(p.extents, p.extents[:min(1, len(p.extents))]...)
	},
	"lose a chunk's record": func(_ *facts, p *partFacts, n int) { delete(p.chunks, pick(p.chunks, n)) },
	"count a chunk more": func(_ *facts, p *partFacts, n int) {
		p.chunks[object.ChunkID{Owner: p.id, Upload: uploadNo(uint64(n))}]++
	},
	"lose a foreign record": func(_ *facts, p *partFacts, n int) { delete(p.foreign, pick(p.foreign, n)) },
	"forget what is held":   func(_ *facts, p *partFacts, n int) { p.foreign[pick(p.foreign, n)] = foreignFact{2, 0} },
	"hold what nobody names": func(_ *facts, p *partFacts, n int) {
		p.foreign[object.ChunkID{Owner: 1, Upload: uploadNo(uint64(n))}] = foreignFact{1, 1}
	},
	"a chunk its owner never had": func(_ *facts, p *partFacts, n int) {
		id := object.ChunkID{Owner: p.id%2 + 1, Upload: uploadNo(uint64(4e6 + n))}
		p.extents, p.foreign[id] = append(p.extents, id), foreignFact{1, 0}
	},
	"lose a file": func(f *facts, _ *partFacts, n int) { delete(f.files, pick(f.files, n)) },
	"a file nobody knows": func(f *facts, p *partFacts, n int) {
		f.files[object.ChunkID{Owner: p.id, Upload: uploadNo(uint64(1e6 + n))}] = true
	},
	"a file of no partition": func(f *facts, _ *partFacts, n int) {
		f.files[object.ChunkID{Owner: 99, Upload: uploadNo(uint64(n))}] = true
	},
	"a file being written": func(f *facts, p *partFacts, n int) {
		u := uploadNo(uint64(2e6 + n))
		f.files[object.ChunkID{Owner: p.id, Upload: u}], f.busy[u] = true, true
	},
	"a chunk being released": func(f *facts, p *partFacts, n int) {
		id := object.ChunkID{Owner: p.id, Upload: uploadNo(uint64(3e6 + n))}
		f.files[id] = true
		p.release = append(p.release, id)
	},
	"a chunk released for bad": func(_ *facts, p *partFacts, n int) {
		id := pick(p.chunks, n)
		delete(p.chunks, id)
		p.release = append(p.release, id)
	},
	"garbage": func(_ *facts, p *partFacts, _ int) { p.garbage++ },
}

func without[T any](list []T, n int) []T {
	if len(list) == 0 {
		return list
	}
	return slices.Delete(list, n%len(list), n%len(list)+1)
}

func change[T any](list []T, n int, to func(*T)) {
	if len(list) > 0 {
		to(&list[n%len(list)])
	}
}

func swap(list []dentryFact, n int) {
	if len(list) > 1 {
		a, b := &list[n%len(list)], &list[(n+1)%len(list)]
		a.Inode, b.Inode = b.Inode, a.Inode
	}
}

// pick is the n-th key; the zero id when there is none.
func pick[V any](m map[object.ChunkID]V, n int) (id object.ChunkID) {
	var ids []object.ChunkID
	for id := range m {
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		slices.SortFunc(ids, compareChunks)
		id = ids[n%len(ids)]
	}
	return id
}

// checkFacts checks within limits, and keeps them.
func checkFacts(t interface{ Fatalf(string, ...any) }, f *facts, limits checkLimits) (*CheckReport, *checker) {
	c := newChecker(checkedFacts{f}, limits)
	f.batches = 0
	r, err := c.run(context.Background())
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, p := range f.parts {
		if p.open != 0 {
			t.Fatalf("%d views of partition %d are left open", p.open, p.id)
		}
	}
	// All at once for each walk, or one after the other.
	if walks := 1 + c.looks; limits.hold > 0 && f.batches != walks || limits.hold == 0 && f.batches < walks {
		t.Fatalf("views were opened %d times for %d walks", f.batches, walks)
	}
	// The partitions that count one chunk are not split.
	if c.most > max(limits.rows, len(f.parts)) {
		t.Fatalf("a look held %d rows, the limit is %d", c.most, limits.rows)
	}
	return r, c
}

// TestAnyBudgetFindsTheSame breaks small stores at random: a check that can hold
// hardly any of it must find what one finds that has everything in memory.
func TestAnyBudgetFindsTheSame(t *testing.T) {
	names := make([]string, 0, len(damages))
	for name := range damages {
		names = append(names, name)
	}
	slices.Sort(names)
	rapid.Check(t, func(t *rapid.T) {
		f := soundFacts(4, rapid.IntRange(0, 8).Draw(t, "directories"), rapid.IntRange(0, 6).Draw(t, "files each"))
		if list := f.problems(); len(list) > 0 {
			t.Fatalf("sound facts with problems: %v", list)
		}
		for range rapid.IntRange(0, 6).Draw(t, "damages") {
			name := rapid.SampledFrom(names).Draw(t, "damage")
			p := f.parts[rapid.IntRange(0, 3).Draw(t, "partition")]
			damages[name](f, p, rapid.IntRange(0, 1000).Draw(t, "where"))
		}
		want := f.problems()
		rows := rapid.IntRange(1, 30).Draw(t, "rows")
		for _, limits := range []checkLimits{whole, {sums: 2, rows: rows}, {sums: 64, rows: rows}, {sums: 64, rows: rows, all: true}} {
			r, c := checkFacts(t, f, limits)
			if !slices.Equal(r.Problems, want) {
				t.Fatalf("within %+v, after %d closer looks:\nfound  %v\nwanted %v", limits, c.looks, r.Problems, want)
			}
		}
	})
}

// TestSoundStoreIsWalkedOnce: its sums clear every id, however many there are.
func TestSoundStoreIsWalkedOnce(t *testing.T) {
	f := soundFacts(9, 40, 50)
	r, c := checkFacts(t, f, checkLimits{sums: 64, rows: 10})
	if len(r.Problems) > 0 || c.looks != 0 || c.most != 0 {
		t.Errorf("%d closer looks, %d rows: %v", c.looks, c.most, r.Problems)
	}
	if r.Inodes != 2041 || r.Chunks != 2000 {
		t.Errorf("%+v", r)
	}
	limits := checkLimits{sums: 64, rows: 500, all: true}
	r, c = checkFacts(t, f, limits)
	// 2,041 inodes, and chunks at owners and at those who share them.
	if len(r.Problems) > 0 || c.looks < 10 || c.looks > 40 || c.most != limits.rows {
		t.Errorf("%d closer looks, %d rows: %v", c.looks, c.most, r.Problems)
	}
}

// TestBudgetIsKept has a large store with problems of every kind, whose two sides
// are in different partitions and, with the small budget, different slices.
func TestBudgetIsKept(t *testing.T) {
	f := soundFacts(9, 100, 40)
	rnd := rand.New(rand.NewSource(1))
	for name, damage := range damages {
		if name != "garbage" {
			for range 5 {
				damage(f, f.parts[1+rnd.Intn(8)], rnd.Intn(1000))
			}
		}
	}
	want := f.problems()
	for k := range problemKinds {
		if k != ProblemUnchecked && !slices.ContainsFunc(want, func(p Problem) bool { return p.Kind == k }) {
			t.Errorf("no problem of kind %s", k)
		}
	}
	for _, limits := range []checkLimits{whole, {sums: 1 << 10, rows: 300}, {sums: 64, rows: 300}} {
		r, c := checkFacts(t, f, limits)
		if !slices.Equal(r.Problems, want) {
			t.Errorf("within %+v %d problems are found, not %d", limits, len(r.Problems), len(want))
		}
		if limits.rows == 300 && c.looks < 2 || limits == whole && c.looks != 1 {
			t.Errorf("within %+v: %d closer looks", limits, c.looks)
		}
	}
}

// TestBudgetInBytes fills a look with what takes most, several times over.
func TestBudgetInBytes(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	limits := checkBudget()
	limits.all = true
	c := newChecker(checkedFacts{newFacts(2)}, limits)
	c.inodes.settle(true, true)
	c.chunks.settle(true, true)
	l := c.newLook(0)
	v := l.visitor(1)
	for n := range uint64(3 * limits.rows) {
		if n%8 == 0 { // an inode's row is smaller
			v.Dentry(object.InodeID(n), object.Dentry{Inode: object.InodeID(n + 1), Type: object.TypeRegular}, false)
		} else {
			v.Extent(object.Extent{Chunk: object.ChunkID{Owner: 1, Upload: uploadNo(n)}})
		}
	}
	if took := heap() - before; took > 64<<20 || c.most != limits.rows {
		t.Errorf("%d rows, %d MiB", c.most, took>>20)
	} else {
		t.Logf("%d rows, %d MiB", c.most, took>>20)
	}
	runtime.KeepAlive(l)
}

// A file that cannot be listed ends the check: what was not seen is not missing.
func TestListingThatFailsEndsTheCheck(t *testing.T) {
	f := soundFacts(3, 5, 5)
	f.fail = errors.New("the disk is gone")
	r, err := newChecker(checkedFacts{f}, whole).run(t.Context())
	for _, p := range f.parts {
		if p.open != 0 {
			t.Errorf("%d views of partition %d are left open", p.open, p.id)
		}
	}
	if !errors.Is(err, f.fail) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.fail = nil
	if _, err := newChecker(checkedFacts{f}, whole).run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestEachBrokenInvariantIsFound shows the checker a small store in which one
// thing is wrong.
func TestEachBrokenInvariantIsFound(t *testing.T) {
	const dir, file, part = object.InodeID(1<<50 | 1<<10), object.InodeID(1<<50 | 2<<10), object.PartitionID(1)
	if dir.Partition() != part || file.Partition() != part {
		t.Fatal(dir.Partition(), file.Partition())
	}
	chunk := object.ChunkID{Owner: part, Upload: object.UploadID{1}}
	type store struct {
		root, dir, file object.Inode
		dirAt           object.PartitionID // where the entry of file is filed
		entry, other    object.Dentry      // of dir
		refs            int
		chunk           object.ChunkID // that is on disk
	}
	for name, tc := range map[string]struct {
		wrong func(s *store)
		kind  ProblemKind
		text  string
	}{
		"nothing":            {func(s *store) {}, problemKinds, ""},
		"chunk lost":         {func(s *store) { s.chunk = object.ChunkID{} }, ProblemMissing, "missing on disk"},
		"chunk strayed in":   {func(s *store) { s.chunk.Ordinal++ }, ProblemStray, "nobody knows"},
		"chunk counted more": {func(s *store) { s.refs++ }, ProblemReferences, "counts 2 references, there are 1"},
		"root's link count":  {func(s *store) { s.root.Nlink++ }, ProblemNames, "link count of 4 and 1 subdir"},
		"link count of dir":  {func(s *store) { s.dir.Nlink++ }, ProblemNames, "link count of 3 and 0 subdir"},
		"link count of file": {func(s *store) { s.file.Nlink++ }, ProblemNames, "link count of 3 and 2 names"},
		"name to nowhere":    {func(s *store) { s.entry.Inode++; s.file.Nlink-- }, ProblemNames, "does not exist"},
		"names of two types": {func(s *store) { s.other.Type = object.TypeSymlink }, ProblemNames, "of type 3"},
		"inode of a type":    {func(s *store) { s.file.Type = object.TypeFIFO }, ProblemNames, "of type 4, its name in"},
		"directory as file":  {func(s *store) { s.dir.Type = object.TypeRegular; s.dir.Nlink = 1 }, ProblemNames, "of type 1, its name in"},
		"misfiled entry":     {func(s *store) { s.dirAt = 2 }, ProblemNames, "filed in partition 2"},
	} {
		s := store{object.Inode{ID: object.RootInode, Type: object.TypeDirectory, Nlink: 3}, object.Inode{ID: dir, Type: object.TypeDirectory, Nlink: 2},
			object.Inode{ID: file, Type: object.TypeRegular, Nlink: 2}, part,
			object.Dentry{Name: "a", Inode: file, Type: object.TypeRegular}, object.Dentry{Name: "b", Inode: file, Type: object.TypeRegular}, 1, chunk}
		tc.wrong(&s)
		f := newFacts(3)
		control, p := f.parts[object.Control], f.parts[part]
		control.inodes = []object.Inode{s.root}
		control.dentries = []dentryFact{{object.RootInode, object.Dentry{Name: "box", Inode: dir, Type: object.TypeDirectory}}}
		p.inodes = []object.Inode{s.dir, s.file}
		f.parts[s.dirAt].dentries = append(f.parts[s.dirAt].dentries, dentryFact{dir, s.entry})
		p.dentries = append(p.dentries, dentryFact{dir, s.other})
		p.extents, p.chunks[chunk] = []object.ChunkID{chunk}, s.refs
		if s.chunk != (object.ChunkID{}) {
			f.files[s.chunk] = true
		}
		for _, limits := range []checkLimits{whole, {sums: 2, rows: 1}} {
			r, _ := checkFacts(t, f, limits)
			found := func(p Problem) bool { return p.Kind == tc.kind && strings.Contains(p.Text, tc.text) }
			if tc.kind == problemKinds && len(r.Problems) > 0 || tc.kind != problemKinds && !slices.ContainsFunc(r.Problems, found) {
				t.Errorf("%s, within %+v: found are %v", name, limits, r.Problems)
			}
		}
	}
}

// Many strays must not hide the one chunk that is lost.
func TestProblemsOfOneKindLeaveRoomForOthers(t *testing.T) {
	f := newFacts(2)
	for i := range 5 * MaxProblems {
		f.files[object.ChunkID{Owner: 1, Ordinal: uint32(i)}] = true
	}
	lost := object.ChunkID{Owner: 1, Upload: object.UploadID{9}}
	f.parts[1].extents, f.parts[1].chunks[lost] = []object.ChunkID{lost}, 1
	r, _ := checkFacts(t, f, whole)
	if len(r.Problems) != MaxProblems+1 || r.Problems[0].Kind != ProblemMissing || !strings.Contains(r.Problems[0].Text, lost.String()) {
		t.Errorf("%d problems, the first: %v", len(r.Problems), r.Problems[0])
	}
	if len(r.Unlisted) != 1 || r.Unlisted[ProblemStray] != 4*MaxProblems || !r.Truncated(ProblemStray) || r.Truncated(ProblemMissing) {
		t.Errorf("unlisted: %v", r.Unlisted)
	}
}

// TestSilentHolderIsAskedNoMore: what a node that does not answer holds is counted, not
// asked for chunk by chunk; a chunk that another lacks is told all the same.
func TestSilentHolderIsAskedNoMore(t *testing.T) {
	f := newFacts(2)
	const chunks = 500
	id := func(i int) object.ChunkID { return object.ChunkID{Owner: 1, Ordinal: uint32(i)} }
	for i := range chunks {
		f.parts[1].chunks[id(i)], f.files[id(i)] = 1, true
		f.parts[1].extents = append(f.parts[1].extents, id(i))
	}
	var mu sync.Mutex
	asked := 0
	f.look = func(c object.ChunkID) map[string]error {
		mu.Lock()
		defer mu.Unlock()
		asked++
		says := map[string]error{"dumb": object.Errorf(object.KindUnavailable, "no answer"), "well": nil}
		if c == id(77) {
			says["well"] = object.Errorf(object.KindNotFound, "it is not there")
		}
		return says
	}
	r, err := newChecker(checkedFacts{f}, checkBudget()).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var unchecked, missing []string
	for _, p := range r.Problems {
		switch p.Kind {
		case ProblemUnchecked:
			unchecked = append(unchecked, p.Text)
		case ProblemMissing:
			missing = append(missing, p.Text)
		}
	}
	if len(unchecked) != 1 || !strings.Contains(unchecked[0], "dumb") || !strings.Contains(unchecked[0], "500 chunks") {
		t.Errorf("%q", unchecked)
	}
	if len(missing) != 1 || !strings.Contains(missing[0], id(77).String()) || !strings.Contains(missing[0], "well") {
		t.Errorf("%q", missing)
	}
	if asked != chunks {
		t.Errorf("%d questions about %d chunks", asked, chunks)
	}
}

// TestForeignRecordOfTheOwner: a partition that holds a chunk of its own as if it were another's
// says the same thing on both sides of its sum, which therefore tells nothing.
func TestForeignRecordOfTheOwner(t *testing.T) {
	found := false
	for n := range 100 {
		f := soundFacts(4, 1, 1)
		damages["hold what nobody names"](f, f.parts[1], n)
		want := f.problems()
		found = found || len(want) > 0
		if r, _ := checkFacts(t, f, checkLimits{sums: 64, rows: 10}); !slices.Equal(r.Problems, want) {
			t.Fatalf("place %d: found %v, wanted %v", n, r.Problems, want)
		}
	}
	if !found {
		t.Error("nothing was broken")
	}
}
