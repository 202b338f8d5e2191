package namespace

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// applier is a machine of the control partition with a root directory.
type applier struct {
	t     *testing.T
	m     *Machine
	index uint64
}

func newApplier(t *testing.T) *applier {
	t.Helper()
	db, err := meta.Open(meta.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	keys, bytes := db.MaxTxn()
	a := &applier{t: t, m: New(Options{Partition: object.Control, Store: db.Partition(object.Control), MaxKeys: keys, MaxBytes: bytes})}
	a.apply(&Command{Init: &Init{}})
	return a
}

func (a *applier) apply(c *Command) *Result {
	a.t.Helper()
	res := a.attempt(c)
	if res.Failed {
		a.t.Fatalf("%+v: %s", c, res.Message)
	}
	return res
}

// mkdir gives a name in the root directory to an inode, in place of another (or 0).
func (a *applier) mkdir(name string, ino, old object.InodeID) {
	a.t.Helper()
	a.apply(&Command{Decide: &Decide{Tx: TxID{First: 1, Seq: a.index + 1},
		PutDentry: &PutDentry{Dir: object.RootInode, Name: name, Inode: ino, Type: object.TypeDirectory, Replace: old}}})
}

func (a *applier) look(name string) *Entry {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	e, err := v.LookupOne(object.RootInode, name, true)
	if err != nil {
		a.t.Fatal(err)
	}
	return e
}

func TestNamesForgetWhatChanges(t *testing.T) {
	a := newApplier(t)
	a.mkdir("d", 71, 0)
	if _, ok := a.m.Dir(object.RootInode, "d"); ok {
		t.Fatal("nobody has looked yet")
	}
	a.look("d")
	a.mkdir("other", 72, 0)
	if id, ok := a.m.Dir(object.RootInode, "d"); !ok || id != 71 {
		t.Fatal(id, ok)
	}
	old := a.m.View() // from before the change: what it shows is not remembered
	defer old.Close()
	a.mkdir("d", 73, 71)
	if id, ok := a.m.Dir(object.RootInode, "d"); ok {
		t.Fatal("still", id)
	}
	if e, err := old.LookupOne(object.RootInode, "d", true); err != nil || e.Inode != 71 {
		t.Fatal(e, err)
	}
	if id, ok := a.m.Dir(object.RootInode, "d"); ok {
		t.Fatal("an old view was believed:", id)
	}
	a.look("d")
	tx := a.apply(&Command{Prepare: &Prepare{Decider: 1, Halves: []Half{{Moving: &Moving{Dir: object.RootInode, Name: "d", Type: object.TypeDirectory, Inode: 73}}}}}).Tx
	if e := a.look("d"); e.Tx == nil {
		t.Fatal("the directory is not marked")
	}
	if id, ok := a.m.Dir(object.RootInode, "d"); ok {
		t.Fatal("resolved through a directory that is being moved:", id)
	}
	a.apply(&Command{Finish: &Finish{Tx: tx}})
	a.look("d")
	if id, ok := a.m.Dir(object.RootInode, "d"); !ok || id != 73 {
		t.Fatal(id, ok)
	}
	a.apply(&Command{Decide: &Decide{Tx: TxID{First: 1, Seq: a.index + 1}, DropDentry: &DropDentry{Dir: object.RootInode, Name: "d", Inode: 73}}})
	if id, ok := a.m.Dir(object.RootInode, "d"); ok || a.look("d") != nil {
		t.Fatal("a directory that is gone:", id)
	}
}

func TestNamesKnowTheEpoch(t *testing.T) {
	a := newApplier(t)
	read := func() uint64 {
		v := a.m.View()
		defer v.Close()
		e, err := v.Epoch()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if _, ok := a.m.Epoch(); ok || read() != 1 {
		t.Fatal("the first epoch")
	}
	if e, ok := a.m.Epoch(); !ok || e != 1 {
		t.Fatal(e, ok)
	}
	a.apply(&Command{RaiseEpoch: &RaiseEpoch{Epoch: 5}})
	if e, ok := a.m.Epoch(); ok {
		t.Fatal("still", e)
	}
	if read() != 5 {
		t.Fatal("the new epoch")
	}
	if e, ok := a.m.Epoch(); !ok || e != 5 {
		t.Fatal(e, ok)
	}
}

func TestNamesAreBounded(t *testing.T) {
	var n names
	for i := range 3 * maxNames {
		n.keep(0, spot{object.RootInode, fmt.Sprint(i)}, 7)
	}
	if len(n.dirs) != maxNames {
		t.Fatal(len(n.dirs))
	}
	long := spot{object.RootInode, string(make([]byte, object.MaxName+1))}
	n.keep(0, long, 7)
	if _, ok := n.dirs[long]; ok {
		t.Fatal("a name that no bound counts on")
	}
	for i := range 3 * maxNames {
		n.keepFile(0, spot{object.RootInode, fmt.Sprint(i)}, File{Inode: &object.Inode{ID: object.InodeID(i)}, Inline: make([]byte, i)})
	}
	sum := 0
	for _, f := range n.files {
		sum += len(f.Inline) + fileCost
	}
	if sum != n.bytes || sum > maxFileBytes || sum < maxFileBytes/2 || len(n.named) > maxNames {
		t.Fatal(sum, n.bytes, len(n.named))
	}
}

// TestNamesNeverGoBack: whoever has seen a change, in the store or here, never
// sees what was before it.
func TestNamesNeverGoBack(t *testing.T) {
	a := newApplier(t)
	a.mkdir("d", 1, 0)
	var done atomic.Bool
	var hits atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var last object.InodeID
			see := func(where string, id object.InodeID) {
				if id < last {
					t.Errorf("%s: %d after %d", where, id, last)
				}
				last = id
			}
			for !done.Load() {
				v := a.m.View()
				if e, err := v.LookupOne(object.RootInode, "d", true); err == nil {
					see("view", e.Inode)
				}
				v.Close()
				if id, ok := a.m.Dir(object.RootInode, "d"); ok {
					hits.Add(1)
					see("names", id)
				}
			}
		})
	}
	id := object.InodeID(1)
	for ; id < 1000 || hits.Load() == 0; id++ {
		a.mkdir("d", id+1, id)
	}
	done.Store(true)
	wg.Wait()
	if got, ok := a.m.Dir(object.RootInode, "d"); ok && got != id {
		t.Fatal(got, "at rest, not", id)
	}
	t.Log(hits.Load(), "answers from memory")
}

// What stands in a record counts against the bound, too.
func TestNamesAreBoundedWithTheirAttributes(t *testing.T) {
	var n names
	for i := range 400 {
		ino := &object.Inode{ID: object.InodeID(i + 1), Type: object.TypeRegular,
			Xattrs: map[string][]byte{"user.x": make([]byte, 64<<10), "user.y": make([]byte, 60<<10)}}
		n.keepFile(0, spot{1, fmt.Sprint(i)}, File{Inode: ino, Whole: true})
	}
	sum := 0
	for _, f := range n.files {
		for k, v := range f.Inode.Xattrs {
			sum += len(k) + len(v)
		}
	}
	if sum > maxFileBytes {
		t.Errorf("%d files hold %d bytes of attributes, the bound is %d", len(n.files), sum, maxFileBytes)
	}
	for id := range n.files {
		n.drop(id)
	}
	if n.bytes != 0 {
		t.Errorf("%d bytes are left of nothing", n.bytes)
	}
}

// TestNamesDoNotSurviveARestore: nothing of the state before, nor of the one half
// way, is remembered, and a view from before teaches nothing.
func TestNamesDoNotSurviveARestore(t *testing.T) {
	from, a := newApplier(t), newApplier(t)
	from.mkdir("d", 72, 0)
	image := export1(t, from.m.o.Store)
	for i := object.InodeID(70); i < 90; i++ { // a is further, in a history of its own
		a.mkdir(fmt.Sprint("x", i), i, 0)
	}
	a.mkdir("d", 71, 0)
	a.look("d")
	if id, ok := a.m.Dir(object.RootInode, "d"); !ok || id != 71 {
		t.Fatal("nothing to forget", id, ok)
	}
	early := a.m.View()
	defer early.Close()
	teach := func(v *View) {
		if _, err := v.LookupOne(object.RootInode, "d", true); err != nil {
			t.Fatal(err)
		}
	}
	for _, cut := range []int{len(image) / 2, len(image) - 1} { // an odd and an even number of attempts
		if err := a.m.Restore(t.Context(), bytes.NewReader(image[:cut])); !object.IsKind(err, object.KindCorrupt) {
			t.Fatal(err)
		}
		half := a.m.View()
		_, _ = half.LookupOne(object.RootInode, "d", true)
		half.Close()
		teach(early)
		if id, ok := a.m.Dir(object.RootInode, "d"); ok {
			t.Fatalf("cut at %d: inode %d is remembered", cut, id)
		}
		if len(a.m.names.dirs)+len(a.m.names.named)+len(a.m.names.files)+a.m.names.bytes != 0 || a.m.names.epoch != 0 || a.m.txLow.Load() != 0 {
			t.Fatalf("cut at %d: something is remembered", cut)
		}
	}
	if err := a.m.Restore(t.Context(), bytes.NewReader(image)); err != nil {
		t.Fatal(err)
	}
	teach(early)
	if id, ok := a.m.Dir(object.RootInode, "d"); ok {
		t.Fatalf("inode %d was learnt from a view of the state before", id)
	}
	a.look("d")
	if id, ok := a.m.Dir(object.RootInode, "d"); !ok || id != 72 {
		t.Fatal("nothing is remembered any more", id, ok)
	}
}

// TestOverRemembersNothing: a view of another node's state teaches no machine.
func TestOverRemembersNothing(t *testing.T) {
	a := newApplier(t)
	a.mkdir("d", 71, 0)
	v := Over(object.Control, a.m.o.Store.View())
	defer v.Close()
	if e, err := v.LookupOne(object.RootInode, "d", true); err != nil || e.Inode != 71 {
		t.Fatal(e, err)
	}
	if _, err := v.Epoch(); err != nil {
		t.Fatal(err)
	}
	f, err := v.File(object.RootInode, &Entry{Dentry: object.Dentry{Name: "/", Inode: object.RootInode, Type: object.TypeRegular}}, false)
	if err != nil || f.Inode.ID != object.RootInode {
		t.Fatal(f, err)
	}
	if n := v.names; len(n.dirs)+len(n.named)+len(n.files) != 0 || n.epoch != 0 {
		t.Errorf("%+v", n)
	}
}
