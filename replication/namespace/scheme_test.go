package namespace

import (
	"slices"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	schemeA = object.Scheme(4<<8 | 2)
	schemeB = object.Scheme(1<<8 | 1)
)

// born makes an inode without a name.
func (a *applier) born(node object.Inode) object.InodeID {
	a.t.Helper()
	r := a.apply(&Command{Prepare: &Prepare{Decider: a.m.o.Partition, Halves: []Half{{Birth: &Birth{Node: node}}}}})
	return r.Inode.ID
}

func (a *applier) node(id object.InodeID) *object.Inode {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	i, err := v.Inode(id)
	if err != nil {
		a.t.Fatal(err)
	}
	return i
}

func (a *applier) strays() (list []object.InodeID, marked uint64) {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	all, err := v.Strays(0, 100)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, s := range all {
		list, marked = append(list, s.Inode), s.Marked
	}
	return list, marked
}

func (a *applier) wantStrays(want ...object.InodeID) {
	a.t.Helper()
	if got, _ := a.strays(); !slices.Equal(got, want) {
		a.t.Fatalf("strays %v, want %v", got, want)
	}
}

// file puts a file with a chunk of a scheme.
func (a *applier) file(dir object.InodeID, name string, ordinal uint32, s object.Scheme) object.InodeID {
	a.t.Helper()
	e := object.Extent{Length: 100, ChunkLength: 100, Scheme: s, Chunk: object.ChunkID{Owner: a.m.o.Partition, Upload: object.UploadID{7}, Ordinal: ordinal}}
	r := a.apply(&Command{Put: &Put{Dir: dir, Name: name, Node: object.Inode{Type: object.TypeRegular},
		Body: Body{Size: 100, Content: object.ContentID{byte(ordinal), 9}, Extents: []object.Extent{e}, Made: s}}})
	return r.Inode.ID
}

func TestSchemesAreInheritedAndStraysFiled(t *testing.T) {
	a := newApplier(t)
	plain, coded := a.born(object.Inode{Type: object.TypeDirectory}), a.born(object.Inode{Type: object.TypeDirectory, Scheme: schemeA})
	right := a.file(coded, "right", 1, schemeA)
	if a.node(right).Scheme != schemeA {
		t.Fatal("a file does not inherit")
	}
	a.wantStrays()
	wrong := a.file(coded, "wrong", 2, object.DefaultScheme)
	a.wantStrays(wrong)
	a.apply(&Command{Put: &Put{Dir: coded, Name: "mixed", Node: object.Inode{Type: object.TypeRegular},
		Body: Body{Size: 9, Content: object.ContentID{33}, Extents: []object.Extent{{Length: 9, Data: make([]byte, 9)}}, Made: schemeA, Mixed: true}}})
	list, _ := a.strays()
	mixed := list[len(list)-1]
	a.wantStrays(wrong, mixed)

	// A stray that is filed anew stays one.
	_, marked := a.strays()
	a.apply(&Command{Splice: &Splice{Inode: mixed, Length: 50, Grow: true, Content: object.ContentID{34},
		Extents: []object.Extent{{Length: 50, ChunkLength: 50, Scheme: schemeB, Chunk: object.ChunkID{Owner: a.m.o.Partition, Upload: object.UploadID{8}}}}}})
	a.apply(&Command{Unstray: &Unstray{Inode: mixed, Marked: marked}})
	a.wantStrays(wrong, mixed)
	_, marked = a.strays()
	a.apply(&Command{Unstray: &Unstray{Inode: mixed, Marked: marked}})
	a.wantStrays(wrong)

	// Into a directory of another scheme, out of it, and both at once.
	a.apply(&Command{Move: &Move{Dir: coded, Name: "right", NewDir: plain, NewName: "moved"}})
	if a.node(right).Scheme != object.DefaultScheme {
		t.Fatal("what moved keeps its scheme")
	}
	a.wantStrays(right, wrong)
	a.apply(&Command{Move: &Move{Dir: coded, Name: "wrong", NewDir: plain, NewName: "moved", Exchange: true}})
	if a.node(right).Scheme != schemeA || a.node(wrong).Scheme != object.DefaultScheme {
		t.Fatal("what was exchanged keeps its scheme")
	}

	a.apply(&Command{SetScheme: &SetScheme{Inodes: []object.InodeID{plain, right, 1 << 40}, Scheme: schemeB}})
	if a.node(plain).Scheme != schemeB || a.node(right).Scheme != schemeB {
		t.Fatal("the scheme was not set")
	}
	for _, c := range []*Command{{SetScheme: &SetScheme{Scheme: 0xffff}}, {Rewrite: &Rewrite{Dir: plain, Scheme: 0xffff}}} {
		if r := a.attempt(c); r.Kind != object.KindInvalid {
			t.Fatalf("%+v", r)
		}
	}
}

func TestARewriteIsNamedByItsEntry(t *testing.T) {
	a := newApplier(t)
	dir := a.born(object.Inode{Type: object.TypeDirectory})
	rewrite := func() *Rewrite {
		v := a.m.View()
		defer v.Close()
		r, err := v.Rewrite(dir)
		all, err2 := v.Rewrites()
		if err != nil || err2 != nil || (r == nil) != (len(all) == 0) {
			t.Fatal(r, all, err, err2)
		}
		return r
	}
	first := a.apply(&Command{Rewrite: &Rewrite{Dir: dir, Scheme: schemeA, Begun: 99, Progress: Progress{Pass: 7}}})
	if r := rewrite(); r.Begun != first.Index || r.Progress.Pass != 1 || r.Scheme != schemeA || first.Inode.Scheme != schemeA {
		t.Fatalf("%+v", r)
	}
	a.apply(&Command{StepRewrite: &StepRewrite{Dir: dir, Begun: first.Index, Progress: Progress{Pass: 2, After: "k"}}})
	if r := rewrite(); r.Progress.After != "k" || r.Begun != first.Index {
		t.Fatalf("%+v", r)
	}
	second := a.apply(&Command{Rewrite: &Rewrite{Dir: dir, Scheme: schemeB}})
	for _, done := range []bool{false, true} {
		if r := a.attempt(&Command{StepRewrite: &StepRewrite{Dir: dir, Begun: first.Index, Done: done}}); r.Kind != object.KindPrecondition {
			t.Fatalf("%+v", r)
		}
	}
	a.apply(&Command{StepRewrite: &StepRewrite{Dir: dir, Begun: second.Index, Done: true}})
	if rewrite() != nil || a.node(dir).Scheme != schemeB {
		t.Fatal("it has not ended")
	}
}

// TestADirectoryIsNotMadeUnderAnOldSetting: its coordinator read its parent before.
func TestADirectoryIsNotMadeUnderAnOldSetting(t *testing.T) {
	a := newApplier(t)
	dir := a.born(object.Inode{Type: object.TypeDirectory, Scheme: schemeA})
	put := func(like object.Scheme) *Result {
		return a.attempt(&Command{Decide: &Decide{Tx: TxID{First: 9, Seq: uint64(like) + 5}, PutDentry: &PutDentry{Dir: dir, Name: "sub", Inode: object.NewInodeID(9, 5, 0),
			Type: object.TypeDirectory, Inherits: true, Like: like}}})
	}
	if r := put(object.DefaultScheme); !r.Failed || !r.Again {
		t.Fatalf("%+v", r)
	}
	if r := put(schemeA); r.Failed {
		t.Fatalf("%+v", r)
	}
}

func TestBodiesKnowTheirSchemes(t *testing.T) {
	for _, test := range []struct {
		list  []object.Scheme
		made  object.Scheme
		mixed bool
	}{{nil, 0, false}, {[]object.Scheme{0, 0}, 0, false}, {[]object.Scheme{schemeA, schemeA}, schemeA, false},
		{[]object.Scheme{0, schemeA}, 0, true}, {[]object.Scheme{schemeA, 0}, schemeA, true}, {[]object.Scheme{schemeA, schemeB}, schemeA, true}} {
		b := &Body{}
		b.Shares(&object.Extent{Data: []byte("inline")})
		for _, s := range test.list {
			b.Shares(&object.Extent{Scheme: s})
		}
		if b.Made != test.made || b.Mixed != test.mixed {
			t.Errorf("%v: %v, mixed %v", test.list, b.Made, b.Mixed)
		}
	}
}
