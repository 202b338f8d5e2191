package replication

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Each of these failed before its fix; see the history for what went wrong.

// nodeOf is a node of few partitions, so that what meets in one partition does.
func nodeOf(t *testing.T, parts int) (*Node, context.Context) {
	cfg := testConfig(t)
	cfg.Partitions = parts
	return nodeWith(t, cfg)
}

// nodeWith is a node with the bucket "box".
func nodeWith(t *testing.T, cfg Config) (*Node, context.Context) {
	t.Helper()
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	return n, t.Context()
}

// once is a context with a token of its own.
func once(ctx context.Context) context.Context {
	return WithToken(ctx, Token{Session: newUploadID(), Seq: 1})
}

func TestTokenIsTheMutationsNotItsParents(t *testing.T) {
	for _, parts := range []int{1, 8} {
		n, ctx := nodeOf(t, parts)
		for i := range 20 {
			key := fmt.Sprintf("d%d/e/y", i)
			o, err := n.Put(once(ctx), "box", key, strings.NewReader("hello"), PutOptions{Size: 5})
			if err != nil || o.Inode == nil {
				t.Fatal(o, err)
			}
			if got := string(mustGet(t, n, key)); got != "hello" {
				t.Fatalf("%s is %q", key, got)
			}
		}
	}
}

func TestTwoAttemptsOfOneTokenAtOnce(t *testing.T) {
	n, ctx := nodeOf(t, 4)
	a, b := apart(t, n)
	f := newFile(t, n, a, "f", "x")
	for i := range 20 {
		c := once(ctx)
		var wg sync.WaitGroup
		var dirs [2]*object.Inode
		for try := range 2 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				var err error
				if dirs[try], _, err = n.Create(c, a, fmt.Sprintf("d%d", i), NewNode{Type: object.TypeDirectory, Mode: 0o755}, true); err != nil {
					t.Errorf("mkdir, attempt %d: %v", try, err)
				}
			}()
		}
		wg.Wait()
		if dirs[0] == nil || dirs[1] == nil || dirs[0].ID != dirs[1].ID {
			t.Fatalf("two attempts made %v and %v", dirs[0], dirs[1])
		}
		c = once(ctx)
		for range 2 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if _, err := n.Link(c, f.ID, b, fmt.Sprintf("l%d", i)); err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
	}
	checkAtRest(t, n) // link counts above all
}

// A log file grows by small appends; then its whole is overwritten, and cut.
func TestOverwriteOfAScatteredFile(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	d := mkdirs(t, n, "a")
	f := newFile(t, n, d, "f", strings.Repeat("x", 17000))
	piece := randomBytes(9, 16<<10)
	for i := range 400 {
		if _, _, err := n.Write(ctx, f.ID, 0, bytes.NewReader(piece), WriteOptions{Size: int64(len(piece)), Append: true}); err != nil {
			t.Fatal(i, err)
		}
	}
	want := []byte(strings.Repeat("x", 17000) + strings.Repeat(string(piece), 400))
	if got := content(t, n, f.ID); got != string(want) {
		t.Fatal("content differs after the appends")
	}
	big := bytes.Repeat(randomBytes(10, 16<<10), 200)
	if _, _, err := n.Write(ctx, f.ID, 100, bytes.NewReader(big), WriteOptions{Size: int64(len(big))}); err != nil {
		t.Fatal(err)
	}
	copy(want[100:], big)
	if got := content(t, n, f.ID); got != string(want) {
		t.Fatal("content differs after the overwrite")
	}
	size := int64(1000)
	if _, err := n.SetAttr(ctx, f.ID, SetAttr{Size: &size}); err != nil {
		t.Fatal(err)
	}
	if got := content(t, n, f.ID); got != string(want[:1000]) {
		t.Fatal("content differs after the cut")
	}
	checkAtRest(t, n)
}

// An entry that no transaction of the store can hold is refused; the partition lives on.
func TestEntryTooLargeForTheStore(t *testing.T) {
	n, ctx := nodeOf(t, 1)
	d := mkdirs(t, n, "a")
	before := newFile(t, n, d, "before", "x")
	var list []object.Extent
	for i := range 3000 { // 12 MiB of inline bytes: far over any one transaction
		list = append(list, object.Extent{Offset: int64(i) * 4096, Length: 4096, Data: make([]byte, 4096)})
	}
	_, err := n.do(ctx, d.Partition(), &namespace.Command{PutPart: &namespace.PutPart{Body: namespace.Body{Extents: list}}})
	wantKind(t, err, object.KindNotFound) // the operation itself refuses first
	up, err := n.CreateUpload(ctx, "box", "a/m", PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	part, id, err := parseUploadName(up.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.do(ctx, part, &namespace.Command{PutPart: &namespace.PutPart{Upload: id, Part: namespace.PartRec{Number: 1},
		Body: namespace.Body{Content: newContentID(), Extents: list}}})
	wantKind(t, err, object.KindTooLarge)
	if got := content(t, n, before.ID); got != "x" {
		t.Fatal(got)
	}
	newFile(t, n, d, "after", "y")
}

// A reader that opens an inode which just lost its last name reads it whole, or not at all.
func TestOpenOfAReplacedInode(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	for try := range 30 {
		body := randomBytes(int64(try), 300000)
		o := mustPut(t, n, "k", body)
		opened := make(chan error, 1)
		go func() {
			for range need.Size(40, 200) { // whoever opens it all the time keeps it
				r, err := n.OpenInode(ctx, o.Inode.ID)
				if err != nil {
					break // gone
				}
				var b bytes.Buffer
				err = r.WriteRange(ctx, &b, 0, r.Inode().Size)
				if err == nil && !bytes.Equal(b.Bytes(), body) {
					err = fmt.Errorf("%d bytes that are not the content", b.Len())
				}
				if object.IsKind(err, object.KindStale) {
					err = nil
				}
				r.Close()
				if err != nil {
					opened <- err
					return
				}
			}
			opened <- nil
		}()
		mustPut(t, n, "k", []byte("next"))
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
	}
}

// An unlinked file that is open gets its content after the unlink.
func TestTmpfileLeavesNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Partitions, cfg.LeasePeriod = 2, 3*time.Second // a hold must outlast a machine that stands still
	n, ctx := nodeWith(t, cfg)
	d := mkdirs(t, n, "a")
	f := newFile(t, n, d, "tmp", "x")
	s := newUploadID()
	if err := n.Hold(ctx, s, []object.InodeID{f.ID}); err != nil {
		t.Fatal(err)
	}
	if err := n.Unlink(ctx, d, "tmp"); err != nil {
		t.Fatal(err)
	}
	big := randomBytes(3, 200000)
	if _, _, err := n.Write(ctx, f.ID, 0, bytes.NewReader(big), WriteOptions{Size: int64(len(big))}); err != nil {
		t.Fatal(err)
	}
	if err := n.Release(ctx, s, []object.InodeID{f.ID}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "chunks to be dropped", func() bool { return countChunks(t, n) == 0 })
	if r := checkAtRest(t, n); r.Extents != 0 {
		t.Fatalf("%d extents are left", r.Extents)
	}
}

func TestCompletionOfAnEndedUpload(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	up, err := n.CreateUpload(ctx, "box", "m", PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	body := randomBytes(4, 300000)
	p1, err := n.PutPart(ctx, "box", "m", up.ID, 1, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	part, id, _, err := n.upload(ctx, "box", "m", up.ID)
	if err != nil {
		t.Fatal(err)
	}
	// A second completion has looked the parts up, and is slow.
	sources, err := n.chosenParts(ctx, part, id, []Part{p1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CompleteUpload(ctx, "box", "m", up.ID, []Part{p1}, Conditions{}); err != nil {
		t.Fatal(err)
	}
	p, err := n.locate(ctx, "box", "m")
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.shareParts(ctx, part, id, sources, p.dir.Partition())
	wantKind(t, err, object.KindNotFound)
	if !bytes.Equal(mustGet(t, n, "m"), body) {
		t.Fatal("the object changed")
	}
}

func TestUploadOfManyPartsEndsWhateverHappens(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	up, err := n.CreateUpload(ctx, "box", "m", PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 450; i++ {
		if _, err := n.PutPart(ctx, "box", "m", up.ID, i, strings.NewReader("part"), 4); err != nil {
			t.Fatal(err)
		}
	}
	part, id, _, err := n.upload(ctx, "box", "m", up.ID)
	if err != nil {
		t.Fatal(err)
	}
	// The coordinator vanishes after the first entry of the abort.
	if _, err := n.do(ctx, part, &namespace.Command{EndUpload: &namespace.EndUpload{Upload: id}}); err != nil {
		t.Fatal(err)
	}
	_, err = n.PutPart(ctx, "box", "m", up.ID, 1, strings.NewReader("late"), 4)
	wantKind(t, err, object.KindNotFound)
	if err := n.endUploads(); err != nil {
		t.Fatal(err)
	}
	if r := checkAtRest(t, n); r.Extents != 0 {
		t.Fatalf("%d extents are left", r.Extents)
	}
}

// The coordinator vanishes between a directory's move and its parent pointer:
// the next rename must see where it is.
func TestParentPointerAfterACrash(t *testing.T) {
	n, ctx := newNode(t)
	root := mkdirs(t, n)
	d := mkdirs(t, n, "old", "d")
	x := mkdirs(t, n, "x")
	for crashAt := 1; crashAt < 100; crashAt++ {
		old, err := n.Lookup(ctx, root, "old")
		if err != nil {
			t.Fatal(err)
		}
		var count atomic.Int32
		step := func(object.PartitionID) error {
			if count.Add(1) >= int32(crashAt) {
				return errCrash
			}
			return nil
		}
		n.step.Store(&step)
		_ = n.Rename(ctx, old.ID, "d", x, "d", RenameFlags{})
		n.step.Store(nil)
		// Whatever came about, x must not move below d if d is below x.
		err = n.Rename(ctx, root, "x", d, "x", RenameFlags{})
		inX, lookErr := n.Lookup(ctx, x, "d")
		if lookErr == nil && inX.ID == d {
			wantKind(t, err, object.KindLoop)
			if err := n.Rename(ctx, x, "d", old.ID, "d", RenameFlags{}); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		} else if err := n.Rename(ctx, d, "x", root, "x", RenameFlags{}); err != nil {
			t.Fatal(err)
		}
		settleAll(t, n)
		checkAtRest(t, n)
		if int(count.Load()) < crashAt {
			return // it has no more entries
		}
	}
}

// A path resolved before a directory's rename is not used after it.
func TestEpochFencesStalePaths(t *testing.T) {
	n, ctx := newNode(t)
	root := mkdirs(t, n)
	for i := range 3 { // the first rename of a store, and later ones
		mustPut(t, n, "a/b/c", []byte("one"))
		p, err := n.locate(ctx, "box", "a/b/c")
		if err != nil {
			t.Fatal(err)
		}
		to := fmt.Sprintf("z%d", i)
		if err := n.Rename(ctx, root, "a", root, to, RenameFlags{}); err != nil {
			t.Fatal(err)
		}
		r, err := n.propose(ctx, p.dir.Partition(), &namespace.Command{Epoch: p.epoch, Put: &namespace.Put{Dir: p.dir, Name: p.name,
			Node: newInode(object.TypeRegular, NewNode{}), Body: namespace.Body{Size: 1, Inline: []byte("!")}}})
		if err != nil || !r.Again {
			t.Fatalf("a stale path was taken: %+v, %v", r, err)
		}
	}
}

func TestRefusedPutLeavesNoDirectories(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	_, err := n.Put(ctx, "box", "x/y", strings.NewReader("x"), PutOptions{Size: 1, Cond: Conditions{IfMatch: []string{"abc"}}})
	wantKind(t, err, object.KindPrecondition)
	mustPut(t, n, "f", []byte("f"))
	wantKind(t, n.RenameObject(ctx, "box", "f/", "box", "p/q/", RenameFlags{}), object.KindNotFound)
	_, err = n.Copy(ctx, "box", "f", "box", "p/q/r", CopyOptions{Cond: Conditions{IfMatch: []string{"abc"}}})
	wantKind(t, err, object.KindPrecondition)
	if err := n.Delete(ctx, "box", "f", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteBucket(ctx, "box"); err != nil {
		t.Fatal(err)
	}
}

func TestDeepKeys(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	key := strings.Repeat("d/", 300) + "f"
	mustPut(t, n, key, []byte("x"))
	if err := n.Delete(ctx, "box", key, Conditions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteBucket(ctx, "box"); err != nil {
		t.Fatal(err)
	}
}

func TestListBehindAMarker(t *testing.T) {
	n, _ := nodeOf(t, 2)
	mustPut(t, n, "dir/", nil)
	mustPut(t, n, "dir/a", []byte("1"))
	for _, o := range []ListOptions{{Prefix: "dir/", Delimiter: "/", Limit: 1}, {Prefix: "dir/", Delimiter: "/"}} {
		if got := strings.Join(keys(t, n, o), " "); got != "dir/ dir/a" {
			t.Fatal(got)
		}
	}
	if got := strings.Join(keys(t, n, ListOptions{Prefix: "dir/", Delimiter: "/", After: "dir/"}), " "); got != "dir/a" {
		t.Fatal(got)
	}
}

func TestWriteOfAsManyChunksAsOneEntryHolds(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	f := newFile(t, n, mkdirs(t, n, "a"), "f", "x")
	max := namespace.MaxExtents * n.cfg.ChunkSize
	if _, _, err := n.Write(ctx, f.ID, 0, bytes.NewReader(make([]byte, max)), WriteOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	_, _, err := n.Write(ctx, f.ID, 0, bytes.NewReader(make([]byte, max+1)), WriteOptions{Size: -1})
	wantKind(t, err, object.KindTooLarge)
}

// The second attempt's body is not the one that was committed.
func TestRetriedUploadLeavesNoChunks(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	session := newUploadID()
	body := randomBytes(1, 300000)
	for try := range 3 {
		c := WithToken(ctx, Token{Session: session, Seq: 1, Retry: try == 2})
		if _, err := n.Put(c, "box", "k", bytes.NewReader(body), PutOptions{Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := countChunks(t, n), (300000+64<<10-1)/(64<<10); got != want {
		t.Fatalf("%d chunks, want %d", got, want)
	}
}

// A metadata disk that is nearly full takes nothing new, and lets go of what is there.
func TestMetadataReserve(t *testing.T) {
	cfg, ctx := testConfig(t), t.Context()
	n, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateBucket(ctx, "box", "me"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, n, "d/old", []byte("old"))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.MetadataReserve = 1 << 60
	n = openNode(t, cfg)
	_, err = n.Put(ctx, "box", "new", strings.NewReader("new"), PutOptions{Size: 3})
	wantKind(t, err, object.KindNoSpace)
	_, _, err = n.Create(ctx, mkdirs(t, n), "dir", NewNode{Type: object.TypeDirectory}, true)
	wantKind(t, err, object.KindNoSpace)
	if got := string(mustGet(t, n, "d/old")); got != "old" {
		t.Fatal(got)
	}
	if err := n.Delete(ctx, "box", "d/old", Conditions{}); err != nil {
		t.Fatal(err)
	}
}

// Compaction works under a steady appender, on many tiny extents, and across holes.
func TestCompactionHoweverTheFileGrew(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	d := mkdirs(t, n, "a")
	write := func(f *object.Inode, model []byte, off int64, b []byte) []byte {
		if _, _, err := n.Write(ctx, f.ID, off, bytes.NewReader(b), WriteOptions{Size: int64(len(b))}); err != nil {
			t.Fatal(err)
		}
		if need := int(off) + len(b); need > len(model) {
			model = resized(model, need)
		}
		copy(model[off:], b)
		return model
	}
	for name, shape := range map[string]struct{ count, size, stride, most int }{
		"appends": {3000, 10, 10, 600},
		"holes":   {120, 16 << 10, 32 << 10, 121}, // a piece stays a piece, of a chunk
		"mixed":   {400, 3000, 4096, 401},
	} {
		f := newFile(t, n, d, name, strings.Repeat("x", 17000))
		model := []byte(strings.Repeat("x", 17000))
		for i := range shape.count {
			model = write(f, model, 17000+int64(i*shape.stride), randomBytes(int64(i), shape.size))
		}
		// The one that runs in the background may be at the same extents.
		waitFor(t, "a compaction to come through", func() bool {
			err := n.compactFile(ctx, f.ID)
			if err != nil && !object.IsKind(err, object.KindPrecondition) {
				t.Fatalf("%s: %v", name, err)
			}
			return err == nil
		})
		if got := content(t, n, f.ID); got != string(model) {
			t.Fatalf("%s: the content differs after compaction", name)
		}
		r, err := n.OpenInode(ctx, f.ID)
		if err != nil {
			t.Fatal(err)
		}
		left, inline := 0, 0
		if err := r.extents(ctx, 0, r.inode.Size, func(e object.Extent) error { left++; inline += len(e.Data); return nil }); err != nil {
			t.Fatal(err)
		}
		r.Close()
		if left > shape.most || inline > 64<<10 {
			t.Errorf("%s: %d extents and %d bytes in the metadata are left of %d writes", name, left, inline, shape.count)
		}
		model = write(f, model, 5, bytes.Repeat([]byte("overwritten "), 200000))
		size := int64(1000)
		if _, err := n.SetAttr(ctx, f.ID, SetAttr{Size: &size}); err != nil {
			t.Fatalf("%s: cut: %v", name, err)
		}
		if got := content(t, n, f.ID); got != string(model[:1000]) {
			t.Fatalf("%s: the content differs after the cut", name)
		}
	}
	checkAtRest(t, n)
}

// A directory rename that dies while it raises the epochs leaves a store that takes writes.
func TestCrashWhileEpochsRise(t *testing.T) {
	for crashAt := 2; crashAt < 9; crashAt++ {
		n, ctx := newNode(t)
		mustPut(t, n, "a/x", []byte("x"))
		root := mkdirs(t, n)
		var count atomic.Int32
		step := func(object.PartitionID) error {
			if count.Add(1) >= int32(crashAt) {
				return errCrash
			}
			return nil
		}
		n.step.Store(&step)
		_ = n.Rename(ctx, root, "a", root, "b", RenameFlags{})
		n.step.Store(nil)
		settleAll(t, n)
		for i := range 16 {
			mustPut(t, n, fmt.Sprintf("a/%d/y", i), []byte("y"))
			mustPut(t, n, fmt.Sprintf("b/%d/y", i), []byte("y"))
		}
	}
}

// Renewing holds keeps unlinked files, all that are there, for as long as it goes on.
func TestHoldsAreKeptByRenewing(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	d := mkdirs(t, n, "a")
	session := newUploadID()
	f, g := newFile(t, n, d, "f", "f"), newFile(t, n, d, "g", "g")
	gone := newFile(t, n, d, "gone", "x")
	if err := n.Unlink(ctx, d, "gone"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the inode to go", func() bool { _, err := n.GetAttr(ctx, gone.ID); return err != nil })
	all := []object.InodeID{gone.ID, f.ID, g.ID}
	wantKind(t, n.Hold(ctx, session, all), object.KindStale)
	for _, name := range []string{"f", "g"} {
		if err := n.Unlink(ctx, d, name); err != nil {
			t.Fatal(err)
		}
	}
	until := time.Now().Add(6 * n.cfg.LeasePeriod)
	waitFor(t, "several lease periods", func() bool {
		wantKind(t, n.Hold(ctx, session, all), object.KindStale)
		return time.Now().After(until)
	})
	if content(t, n, f.ID) != "f" || content(t, n, g.ID) != "g" {
		t.Fatal("a held file changed")
	}
	// And without renewing they go.
	waitFor(t, "the files to go", func() bool { _, err := n.GetAttr(ctx, f.ID); return err != nil })
}

func TestEmptyImplicitDirectoriesDoNotKeepABucket(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	_, err := n.Put(ctx, "box", "a/b/", strings.NewReader(""), PutOptions{Cond: Conditions{IfMatch: []string{"x"}}})
	wantKind(t, err, object.KindPrecondition)
	if _, err := n.Resolve(ctx, "box", "a"); !object.IsKind(err, object.KindNotFound) {
		t.Fatal("a refused marker made a directory")
	}
	// A crash between the directories and the object.
	p, err := n.locate(ctx, "box", "c/d/e/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.makeMissing(ctx, &p, n.spread()); err != nil {
		t.Fatal(err)
	}
	// A marker that is deleted while its last child goes.
	mustPut(t, n, "m/", nil)
	mustPut(t, n, "m/x", []byte("x"))
	dir := mkdirs(t, n, "m")
	if err := n.Delete(ctx, "box", "m/x", Conditions{}); err != nil {
		t.Fatal(err)
	}
	r, err := n.propose(ctx, dir.Partition(), &namespace.Command{SetAttr: &namespace.SetAttr{Inode: dir, Unmark: true}})
	if err != nil || !r.Again {
		t.Fatal("an empty directory became implicit", err)
	}
	if err := n.Delete(ctx, "box", "m/", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteBucket(ctx, "box"); err != nil {
		t.Fatal(err)
	}
}
