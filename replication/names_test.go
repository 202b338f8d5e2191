package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// mkdirs makes explicit directories below the bucket and returns the last.
func mkdirs(t testing.TB, n *Node, path ...string) object.InodeID {
	t.Helper()
	ino, err := n.Resolve(t.Context(), "box", "")
	if err != nil {
		t.Fatal(err)
	}
	at := ino.ID
	for _, name := range path {
		if next, err := n.Lookup(t.Context(), at, name); err == nil {
			at = next.ID
			continue
		}
		next, _, err := n.Create(t.Context(), at, name, NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
		if err != nil {
			t.Fatal(err)
		}
		at = next.ID
	}
	return at
}

func newFile(t testing.TB, n *Node, dir object.InodeID, name, content string) *object.Inode {
	t.Helper()
	ino, err := n.CreateWith(t.Context(), dir, name, NewNode{Mode: 0o644}, strings.NewReader(content), WriteOptions{Size: int64(len(content))})
	if err != nil {
		t.Fatal(err)
	}
	return ino
}

func content(t testing.TB, n *Node, ino object.InodeID) string {
	t.Helper()
	r, err := n.OpenInode(t.Context(), ino)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return string(readAll(t, r))
}

// apart makes two directories that live in different partitions.
func apart(t testing.TB, n *Node) (a, b object.InodeID) {
	t.Helper()
	a = mkdirs(t, n, "a")
	for i := range 100 {
		b = mkdirs(t, n, fmt.Sprintf("b%d", i))
		if b.Partition() != a.Partition() {
			return a, b
		}
	}
	t.Fatal("all directories are in one partition")
	return
}

func TestRenameOfFilesAcrossPartitions(t *testing.T) {
	n, ctx := newNode(t)
	a, b := apart(t, n)
	f := newFile(t, n, a, "f", "one")
	g := newFile(t, n, b, "g", "two")
	wantKind(t, n.Rename(ctx, a, "f", b, "g", RenameFlags{NoReplace: true}), object.KindExists)
	if err := n.Rename(ctx, a, "f", b, "g", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Lookup(ctx, a, "f"); !object.IsKind(err, object.KindNotFound) {
		t.Fatal(err)
	}
	ino, err := n.Lookup(ctx, b, "g")
	if err != nil || ino.ID != f.ID || content(t, n, ino.ID) != "one" {
		t.Fatal(ino, err)
	}
	waitFor(t, "the replaced inode to go", func() bool {
		_, err := n.GetAttr(ctx, g.ID)
		return object.IsKind(err, object.KindStale)
	})
	// And back, over an inode that lives elsewhere by now.
	h := newFile(t, n, a, "h", "three")
	if err := n.Rename(ctx, a, "h", b, "g", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	if got := content(t, n, h.ID); got != "three" {
		t.Fatal(got)
	}
	waitFor(t, "the inode of the other partition to go", func() bool {
		_, err := n.GetAttr(ctx, f.ID)
		return object.IsKind(err, object.KindStale)
	})
	if err := n.Unlink(ctx, b, "g"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, n.Unlink(ctx, b, "g"), object.KindNotFound)
}

func TestHardLinksAcrossPartitions(t *testing.T) {
	n, ctx := newNode(t)
	a, b := apart(t, n)
	f := newFile(t, n, a, "f", "content")
	if _, err := n.Link(ctx, f.ID, b, "g"); err != nil {
		t.Fatal(err)
	}
	_, err := n.Link(ctx, f.ID, b, "g")
	wantKind(t, err, object.KindExists)
	ino, err := n.GetAttr(ctx, f.ID)
	if err != nil || ino.Nlink != 2 {
		t.Fatalf("nlink %d, %v", ino.Nlink, err)
	}
	if err := n.Unlink(ctx, a, "f"); err != nil {
		t.Fatal(err)
	}
	if got := content(t, n, f.ID); got != "content" {
		t.Fatal(got)
	}
	if err := n.Unlink(ctx, b, "g"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the inode to go", func() bool {
		_, err := n.GetAttr(ctx, f.ID)
		return object.IsKind(err, object.KindStale)
	})
	_, err = n.Link(ctx, f.ID, b, "h")
	wantKind(t, err, object.KindStale)
}

func TestDirectories(t *testing.T) {
	n, ctx := newNode(t)
	a, b := apart(t, n)
	newFile(t, n, a, "f", "x")
	root := mkdirs(t, n)
	wantKind(t, n.Rmdir(ctx, root, "a"), object.KindNotEmpty)
	wantKind(t, n.Unlink(ctx, root, "a"), object.KindIsDirectory)
	wantKind(t, n.Rmdir(ctx, a, "f"), object.KindNotDirectory)
	_, _, err := n.Create(ctx, a, "f", NewNode{Type: object.TypeDirectory}, true)
	wantKind(t, err, object.KindExists)
	sub := mkdirs(t, n, "a", "sub", "deep")
	// Over an empty directory, into another one, never below itself.
	wantKind(t, n.Rename(ctx, root, "a", sub, "x", RenameFlags{}), object.KindLoop)
	mkdirs(t, n, "target")
	if err := n.Rename(ctx, root, "a", root, "target", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, n, "target/f"); string(got) != "x" {
		t.Fatal(got)
	}
	if err := n.Rename(ctx, root, "target", b, "moved", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	d, err := n.Lookup(ctx, b, "moved")
	if err != nil || d.ID != a || d.Parent != b {
		t.Fatal(d, err)
	}
}

func TestRmdirAgainstCreate(t *testing.T) {
	n, ctx := newNode(t)
	root := mkdirs(t, n)
	for i := range 30 {
		name := fmt.Sprintf("d%d", i)
		d := mkdirs(t, n, name)
		var wg sync.WaitGroup
		var rmErr, putErr error
		wg.Add(2)
		go func() { defer wg.Done(); rmErr = n.Rmdir(ctx, root, name) }()
		go func() {
			defer wg.Done()
			_, _, putErr = n.Create(ctx, d, "f", NewNode{Type: object.TypeRegular, Mode: 0o644}, true)
		}()
		wg.Wait()
		if putErr != nil {
			wantKind(t, putErr, object.KindStale)
		}
		if (rmErr == nil) == (putErr == nil) {
			t.Fatalf("rmdir: %v, create: %v: exactly one must succeed", rmErr, putErr)
		}
	}
}

func TestImplicitDirectoriesUnderContention(t *testing.T) {
	n, ctx := newNode(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 25 {
				key := fmt.Sprintf("p/q/r/%d", w)
				if _, err := n.Put(ctx, "box", key, strings.NewReader(key), PutOptions{Size: -1}); err != nil {
					t.Errorf("put %d: %v", i, err)
				}
				if err := n.Delete(ctx, "box", key, Conditions{}); err != nil {
					t.Errorf("delete %d: %v", i, err)
				}
			}
		}()
	}
	wg.Wait()
	if _, err := n.Resolve(ctx, "box", "p"); !object.IsKind(err, object.KindNotFound) {
		t.Fatalf("p is left: %v", err)
	}
}

func TestConditionsAreAtomic(t *testing.T) {
	n, ctx := newNode(t)
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, err := n.Put(ctx, "box", "d/once", strings.NewReader("x"), PutOptions{Size: 1, Cond: Conditions{IfNoneMatch: []string{"*"}}})
			if err == nil {
				wins.Add(1)
			} else if !object.IsKind(err, object.KindPrecondition) {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Fatalf("%d puts succeeded", wins.Load())
	}
	// A counter by compare-and-swap on an inode that lives in another partition than its name.
	a, b := apart(t, n)
	newFile(t, n, a, "n", "0")
	if err := n.Rename(ctx, a, "n", b, "n", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	bucket, err := n.Resolve(ctx, "box", "")
	if err != nil {
		t.Fatal(err)
	}
	var key string
	entries, _, err := n.ReadDir(ctx, bucket.ID, "", 0, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Inode == b {
			key = e.Name + "/n"
		}
	}
	var total atomic.Int32
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 10 {
				for {
					r, err := n.OpenObject(ctx, "box", key)
					if err != nil {
						t.Error(err)
						return
					}
					var v int
					fmt.Sscan(string(readAll(t, r)), &v)
					etag := r.Inode().ETag()
					r.Close()
					_, err = n.Put(ctx, "box", key, strings.NewReader(fmt.Sprint(v+1)), PutOptions{Size: -1, Cond: Conditions{IfMatch: []string{etag}}})
					if err == nil {
						total.Add(1)
						break
					}
					if !object.IsKind(err, object.KindPrecondition) && !object.IsKind(err, object.KindConflict) {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	wg.Wait()
	if got := string(mustGet(t, n, key)); got != "80" || total.Load() != 80 {
		t.Fatalf("counted to %s after %d increments", got, total.Load())
	}
}

func TestCopySharesChunks(t *testing.T) {
	n, ctx := newNode(t)
	want := randomBytes(5, 3<<20)
	mustPut(t, n, "src/f", want)
	before := countChunks(t, n)
	for i := range 6 { // lands in several partitions
		if _, err := n.Copy(ctx, "box", "src/f", "box", fmt.Sprintf("dst%d/g", i), CopyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// A copy of a copy, then every other one goes.
	if _, err := n.Copy(ctx, "box", "dst0/g", "box", "again/h", CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := countChunks(t, n); c != before {
		t.Fatalf("%d chunks, %d before", c, before)
	}
	for _, k := range []string{"src/f", "dst0/g", "dst1/g", "dst2/g", "dst3/g", "dst4/g", "dst5/g"} {
		if err := n.Delete(ctx, "box", k, Conditions{}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(mustGet(t, n, "again/h"), want) {
		t.Fatal("the copy differs")
	}
	ino, err := n.Resolve(ctx, "box", "again/h")
	if err != nil {
		t.Fatal(err)
	}
	f := newFile(t, n, mkdirs(t, n), "part", "head")
	for off := int64(0); off < 1<<20; {
		_, m, err := n.CopyRange(ctx, ino.ID, off+100, f.ID, 4+off, 1<<20-off)
		if err != nil {
			t.Fatal(err)
		}
		off += m
	}
	if got := content(t, n, f.ID); got != "head"+string(want[100:100+1<<20]) {
		t.Fatal("copied range differs")
	}
	for _, k := range []string{"again/h", "part"} {
		if err := n.Delete(ctx, "box", k, Conditions{}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "chunks to be dropped", func() bool { return countChunks(t, n) == 0 })
}

func TestMultipart(t *testing.T) {
	n, ctx := newNode(t)
	up, err := n.CreateUpload(ctx, "box", "big/file", PutOptions{ContentType: "text/x"})
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	var parts []Part
	for i := 1; i <= 5; i++ {
		data := randomBytes(int64(i), i*50000-49000)
		want = append(want, data...)
		if i == 2 { // replaced
			if _, err := n.PutPart(ctx, "box", "big/file", up.ID, i, strings.NewReader("old"), 3); err != nil {
				t.Fatal(err)
			}
		}
		p, err := n.PutPart(ctx, "box", "big/file", up.ID, i, bytes.NewReader(data), -1)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	_, err = n.CompleteUpload(ctx, "box", "big/file", up.ID, []Part{parts[1], parts[0]}, Conditions{})
	wantKind(t, err, object.KindInvalid)
	list, err := n.Uploads(ctx, "box", "", "", 0)
	if err != nil || len(list) != 1 || list[0].Key != "big/file" {
		t.Fatal(list, err)
	}
	o, err := n.CompleteUpload(ctx, "box", "big/file", up.ID, parts, Conditions{})
	if err != nil || o.Inode.ContentType != "text/x" {
		t.Fatal(o, err)
	}
	if !bytes.Equal(mustGet(t, n, "big/file"), want) {
		t.Fatal("the object differs from its parts")
	}
	_, err = n.CompleteUpload(ctx, "box", "big/file", up.ID, parts, Conditions{})
	wantKind(t, err, object.KindNotFound)
	if err := n.Delete(ctx, "box", "big/file", Conditions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "chunks to be dropped", func() bool { return countChunks(t, n) == 0 })
}

func TestTokenMakesRetriesExactlyOnce(t *testing.T) {
	n, ctx := newNode(t)
	f := newFile(t, n, mkdirs(t, n), "f", "")
	session := newUploadID()
	for seq := uint64(1); seq <= 20; seq++ {
		for try := range 3 {
			ctx := WithToken(ctx, Token{Session: session, Seq: seq, Ack: seq - 1, Retry: try > 0})
			_, at, err := n.Write(ctx, f.ID, 0, strings.NewReader("x"), WriteOptions{Size: 1, Append: true})
			if err != nil || at != int64(seq-1) {
				t.Fatal(at, err)
			}
		}
	}
	if got := content(t, n, f.ID); got != strings.Repeat("x", 20) {
		t.Fatal(got)
	}
	a, b := apart(t, n)
	newFile(t, n, a, "m", "")
	for try := range 3 { // a rename that happened is not "not found" to its retry
		ctx := WithToken(ctx, Token{Session: session, Seq: 30, Ack: 20, Retry: try > 0})
		if err := n.Rename(ctx, a, "m", b, "m", RenameFlags{}); err != nil {
			t.Fatal(try, err)
		}
	}
}

func TestBucketsAndNames(t *testing.T) {
	n, ctx := newNode(t)
	_, err := n.CreateBucket(ctx, "box", "x")
	wantKind(t, err, object.KindBucketExists)
	for _, bad := range []string{"", "ab", "Upper", "a..b", "-ab", "under_score"} {
		_, err := n.CreateBucket(ctx, bad, "x")
		wantKind(t, err, object.KindInvalid)
	}
	_, err = n.Put(ctx, "none", "k", strings.NewReader("x"), PutOptions{Size: 1})
	wantKind(t, err, object.KindBucketNotFound)
	mustPut(t, n, "k", nil)
	wantKind(t, n.DeleteBucket(ctx, "box"), object.KindNotEmpty)
	if err := n.Delete(ctx, "box", "k", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteBucket(ctx, "box"); err != nil {
		t.Fatal(err)
	}
	if list, err := n.Buckets(ctx); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	_, err = n.GetAttr(ctx, object.NewInodeID(999, 1, 0))
	wantKind(t, err, object.KindStale)
}

func TestMarkersAndSiblings(t *testing.T) {
	n, ctx := newNode(t)
	mustPut(t, n, "a", []byte("object"))
	mustPut(t, n, "a/x", []byte("below"))
	if string(mustGet(t, n, "a")) != "object" || string(mustGet(t, n, "a/x")) != "below" {
		t.Fatal("an object beside a directory of its name")
	}
	root := mkdirs(t, n)
	ino, err := n.Lookup(ctx, root, "a")
	if err != nil || !ino.IsDir() {
		t.Fatal("the mount must see the directory", err)
	}
	_, _, err = n.Create(ctx, root, "a", NewNode{Type: object.TypeRegular}, true)
	wantKind(t, err, object.KindExists)
	entries, _, err := n.ReadDir(ctx, root, "", 0, true)
	if err != nil || len(entries) != 1 || !entries[0].Attr.IsDir() {
		t.Fatal(entries, err)
	}
	_, err = n.Stat(ctx, "box", "a/")
	wantKind(t, err, object.KindNotFound)
	mustPut(t, n, "a/", nil)
	if err := n.Delete(ctx, "box", "a/x", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(keys(t, n, ListOptions{}), " "); got != "a a/" {
		t.Fatal(got)
	}
	if err := n.Delete(ctx, "box", "a/", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(keys(t, n, ListOptions{}), " "); got != "a" {
		t.Fatal(got)
	}
}

func TestEvents(t *testing.T) {
	n, ctx := newNode(t)
	s := n.Subscribe(nil)
	defer s.Close()
	root := mkdirs(t, n)
	f := newFile(t, n, root, "f", "x")
	seen := false
	for !seen {
		list, err := s.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			seen = seen || e.Kind == EventEntry && e.Dir == root && e.Name == "f" && e.Inode == f.ID
		}
	}
	s2 := n.Subscribe(map[object.PartitionID]uint64{root.Partition(): 0})
	list, err := s2.Next(ctx)
	if err != nil || list[0].Partition != root.Partition() {
		t.Fatal(list, err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.Subscribe(nil).Next(short); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestRenameIntoWhatVanished: a path led to a directory that vanished before the
// rename looked into it: the path is walked anew. The client sees no KindStale of
// a directory that it never named by its number.
func TestRenameIntoWhatVanished(t *testing.T) {
	n, ctx := newNode(t)
	mustPut(t, n, "a", []byte("here"))
	from, err := n.locate(ctx, "box", "a")
	if err != nil {
		t.Fatal(err)
	}
	to, key := from, ""
	for i := 0; to.dir.Partition() == from.dir.Partition(); i++ {
		key = fmt.Sprintf("dir%d/b", i)
		mustPut(t, n, key, []byte("there"))
		if to, err = n.locate(ctx, "box", key); err != nil {
			t.Fatal(err)
		}
	}
	file, _, err := n.entry(ctx, from.dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Delete(ctx, "box", key, Conditions{}); err != nil { // and dir with it
		t.Fatal(err)
	}
	rn := renaming{dir: from.dir, name: "a", newDir: to.dir, newName: "b", epoch: to.epoch}
	if _, err := n.renameFile(ctx, rn, file); !errors.Is(err, errAgain) {
		t.Errorf("into a directory that vanished: %v", err)
	}
	if _, _, err := n.entryUnder(ctx, to.epoch, to.dir, "b"); !errors.Is(err, errAgain) {
		t.Errorf("out of a directory that vanished: %v", err)
	}
	rn.epoch = 0 // by number, as a mount names it
	if _, err := n.renameFile(ctx, rn, file); !object.IsKind(err, object.KindStale) {
		t.Errorf("into a directory by number: %v", err)
	}
	if err := n.RenameObject(ctx, "box", "a", "box", key, RenameFlags{}); err != nil {
		t.Error(err)
	}
	if got := mustGet(t, n, key); string(got) != "here" {
		t.Errorf("%s holds %q", key, got)
	}
}

// TestRenameOfWhatMovedThere: two clients rename a file to the same name of
// another directory. One looked at the old name before the other moved the file and
// at the new one after it: that is no file of two names, of which a rename does
// nothing, and it did not succeed.
func TestRenameOfWhatMovedThere(t *testing.T) {
	n, ctx := newNode(t)
	a, b := apart(t, n)
	newFile(t, n, a, "f", "one")
	seen, _, err := n.entry(ctx, a, "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Rename(ctx, a, "f", b, "g", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	_, err = n.renameFile(ctx, renaming{dir: a, name: "f", newDir: b, newName: "g"}, seen)
	wantKind(t, err, object.KindNotFound)
	// Of a file that has both names, it does nothing.
	g, err := n.Lookup(ctx, b, "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Link(ctx, g.ID, a, "f"); err != nil {
		t.Fatal(err)
	}
	_, err = n.Link(ctx, g.ID, b, "g")
	wantKind(t, err, object.KindExists)
	if err := n.Rename(ctx, a, "f", b, "g", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	for dir, name := range map[object.InodeID]string{a: "f", b: "g"} {
		if ino, err := n.Lookup(ctx, dir, name); err != nil || ino.ID != g.ID || ino.Nlink != 2 {
			t.Errorf("%s: %+v, %v", name, ino, err)
		}
	}
}

// TestListIsOneLook: a listing of one directory is one look at it: of a file that is
// renamed to and fro, and replaced by one whose inode lives elsewhere, every listing
// shows one name.
func TestListIsOneLook(t *testing.T) {
	n, ctx := nodeOf(t, 4)
	a, b := apart(t, n)
	newFile(t, n, a, "x", "one")
	newFile(t, n, a, "z", "always")
	stop := make(chan struct{})
	done := make(chan error, 2)
	var moved, replaced atomic.Int64
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			from, to := "x", "y"
			if i%2 == 1 {
				from, to = to, from
			}
			err = n.Rename(ctx, a, from, a, to, RenameFlags{})
			moved.Add(1)
		}
		done <- err
	}()
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err = n.CreateWith(ctx, b, "new", NewNode{Mode: 0o600}, strings.NewReader("new"), WriteOptions{Size: 3}); err == nil {
				err = n.Rename(ctx, b, "new", a, "z", RenameFlags{})
				replaced.Add(1)
			}
		}
		done <- err
	}()
	for len(done) == 0 && (moved.Load() < 500 || replaced.Load() < 100) {
		page, err := n.List(ctx, "box", ListOptions{Prefix: "a/"})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, o := range page.Objects {
			keys = append(keys, strings.TrimPrefix(o.Key, "a/"))
		}
		if got := strings.Join(keys, " "); got != " x z" && got != " y z" {
			t.Errorf("a listing shows %q", got)
			break
		}
	}
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
