package replication

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func mustScheme(t testing.TB, text string) object.Scheme {
	t.Helper()
	s, err := object.ParseScheme(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mkBox(t testing.TB, n *Node, name string, s object.Scheme) Bucket {
	t.Helper()
	b, err := n.MakeBucket(t.Context(), name, BucketOptions{Owner: "me", Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// schemesIn are the schemes of a file's chunks, each once.
func schemesIn(t testing.TB, n *Node, ino object.InodeID) (list []object.Scheme) {
	t.Helper()
	r, err := n.OpenInode(t.Context(), ino)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = r.extents(t.Context(), 0, r.inode.Size, func(e object.Extent) error {
		if e.Data == nil && !slices.Contains(list, e.Scheme) {
			list = append(list, e.Scheme)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// only reports that a file has chunks, and all of one scheme.
func only(t testing.TB, n *Node, ino object.InodeID, s object.Scheme) bool {
	return slices.Equal(schemesIn(t, n, ino), []object.Scheme{s})
}

// rewritten waits until a bucket's data has followed its setting.
func rewritten(t testing.TB, n *Node, bucket string) {
	t.Helper()
	waitFor(t, "the rewriting of "+bucket, func() bool {
		b, err := n.Bucket(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		r, err := n.Rewriting(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return r == nil
	})
}

// writers are all ways for bytes to get into a bucket, and what they make there.
func writers(t *testing.T, n *Node, bucket string, body []byte) (made map[string]object.InodeID) {
	t.Helper()
	made = map[string]object.InodeID{}
	ctx := t.Context()
	check := func(name string, ino *object.Inode, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(name, err)
		}
		made[name] = ino.ID
	}
	b, err := n.Bucket(ctx, bucket)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, size int64) {
		o, err := n.Put(ctx, bucket, key, bytes.NewReader(body), PutOptions{Size: size})
		if err != nil {
			t.Fatal(key, err)
		}
		made[key] = o.Inode.ID
	}
	put("put", int64(len(body)))
	put("deep/er/unknown", -1)

	up, err := n.CreateUpload(ctx, bucket, "other/multipart", PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	part, err := n.PutPart(ctx, bucket, up.Key, up.ID, 1, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	o, err := n.CompleteUpload(ctx, bucket, up.Key, up.ID, []Part{part}, Conditions{})
	check("other/multipart", o.Inode, err)

	dir, err := n.mkdir(ctx, b.Root, "dir", NewNode{Type: object.TypeDirectory, Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	ino, err := n.CreateWith(ctx, dir.ID, "with", NewNode{Mode: 0o644}, bytes.NewReader(body), WriteOptions{Size: int64(len(body))})
	check("dir/with", ino, err)
	ino, _, err = n.Create(ctx, dir.ID, "written", NewNode{Type: object.TypeRegular, Mode: 0o644}, true)
	check("dir/written", ino, err)
	half := int64(len(body) / 2)
	if _, _, err = n.Write(ctx, ino.ID, 0, bytes.NewReader(body[:half]), WriteOptions{Size: half}); err == nil {
		_, _, err = n.Write(ctx, ino.ID, 0, bytes.NewReader(body[half:]), WriteOptions{Size: -1, Append: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	ino, _, err = n.Create(ctx, dir.ID, "small", NewNode{Type: object.TypeRegular, Mode: 0o644}, true)
	check("dir/small", ino, err)
	for off := 0; off < len(body); off += 8 << 10 { // inline, and then compacted
		piece := body[off:min(off+8<<10, len(body))]
		if _, _, err := n.Write(ctx, ino.ID, int64(off), bytes.NewReader(piece), WriteOptions{Size: int64(len(piece))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.compactFile(ctx, ino.ID); err != nil {
		t.Fatal(err)
	}
	return made
}

// TestEveryWriteHasItsBucketsScheme: whichever way the bytes came.
func TestEveryWriteHasItsBucketsScheme(t *testing.T) {
	n, ctx := newNode(t)
	body, two := randomBytes(1, 300_000), mustScheme(t, "replicated:2")
	mkBox(t, n, "twice", two)
	for bucket, want := range map[string]object.Scheme{"box": object.DefaultScheme, "twice": two} {
		b, err := n.Bucket(ctx, bucket)
		if err != nil || b.Scheme != want {
			t.Fatal(bucket, b.Scheme, err)
		}
		for name, ino := range writers(t, n, bucket, body) {
			if !only(t, n, ino, want) {
				t.Errorf("%s of %s has chunks of %v", name, bucket, schemesIn(t, n, ino))
			}
			r, err := n.OpenInode(ctx, ino)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(readAll(t, r), body) {
				t.Errorf("%s of %s is not what was written", name, bucket)
			}
			r.Close()
		}
	}
	if left, err := n.countStrays(ctx); err != nil || left != 0 {
		t.Fatal(left, "strays", err)
	}
	checkAtRest(t, n)
}

// TestSchemesThatCannotBe: the error tells how many nodes there are, and nothing is made.
func TestSchemesThatCannotBe(t *testing.T) {
	n, ctx := newNode(t)
	for _, text := range []string{"rs:4+2", "rs:2+1", "replicated:4"} {
		s := mustScheme(t, text)
		_, err := n.MakeBucket(ctx, "other", BucketOptions{Scheme: s})
		wantKind(t, err, object.KindInvalid)
		if m := err.Error(); !strings.Contains(m, "the cluster has 1") || !strings.Contains(m, "add nodes") {
			t.Fatal(m)
		}
		_, err = n.SetScheme(ctx, "box", s)
		wantKind(t, err, object.KindInvalid)
	}
	if _, err := n.Bucket(ctx, "other"); !object.IsKind(err, object.KindBucketNotFound) {
		t.Fatal("a bucket was made", err)
	}
	_, err := n.SetScheme(ctx, "none", object.DefaultScheme)
	wantKind(t, err, object.KindBucketNotFound)
	_, err = n.SetScheme(ctx, "box", object.Scheme(0xffff))
	wantKind(t, err, object.KindInvalid)
}

// TestDataFollowsTheSetting: everything that is there gets into chunks of the new
// scheme, whether it is written, linked, sparse, half uploaded or on its way meanwhile;
// so does what is copied or renamed from another bucket, and a restart goes on.
func TestDataFollowsTheSetting(t *testing.T) {
	cfg := testConfig(t)
	n, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, body := t.Context(), randomBytes(1, 300_000)
	one, two := mustScheme(t, "replicated:1"), mustScheme(t, "replicated:2")
	mkBox(t, n, "box", object.DefaultScheme)
	mkBox(t, n, "other", one)
	made := writers(t, n, "box", body)
	if err := n.LinkObject(ctx, "box", "put", "box", "a/link"); err != nil {
		t.Fatal(err)
	}
	sparse := mustPut(t, n, "sparse", body[:100_000]).Inode.ID
	if _, _, err := n.Write(ctx, sparse, 10<<20, bytes.NewReader(body[:70_000]), WriteOptions{Size: 70_000}); err != nil {
		t.Fatal(err)
	}
	up, err := n.CreateUpload(ctx, "box", "late", PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := n.PutPart(ctx, "box", "late", up.ID, 1, bytes.NewReader(body), -1)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := n.SetScheme(ctx, "box", two); err != nil || b.Scheme != two {
		t.Fatal(b, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, cfg)
	second, err := n.PutPart(ctx, "box", "late", up.ID, 2, bytes.NewReader(body), -1)
	if err != nil {
		t.Fatal(err)
	}
	late, err := n.CompleteUpload(ctx, "box", "late", up.ID, []Part{first, second}, Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	rewritten(t, n, "box")
	made["sparse"] = sparse
	for name, ino := range made {
		if !only(t, n, ino, two) {
			t.Errorf("%s has chunks of %v", name, schemesIn(t, n, ino))
		}
	}
	waitFor(t, "what was uploaded before", func() bool { return only(t, n, late.Inode.ID, two) })
	for _, key := range []string{"put", "deep/er/unknown", "other/multipart", "dir/with", "dir/written", "dir/small", "a/link"} {
		if !bytes.Equal(mustGet(t, n, key), body) {
			t.Error(key, "is not what was written")
		}
	}
	if !bytes.Equal(mustGet(t, n, "late"), append(slices.Clone(body), body...)) {
		t.Error("the late upload is not what was written")
	}
	want := slices.Concat(body[:100_000], make([]byte, 10<<20-100_000), body[:70_000])
	if ino, err := n.GetAttr(ctx, sparse); err != nil || !bytes.Equal(mustGet(t, n, "sparse"), want) || ino.Blocks != 170_000 {
		t.Error("the sparse file is another, or sparse no longer", ino.Blocks, err)
	}
	acrossBuckets(t, n, body, one, two)
	waitFor(t, "the old chunks to go", func() bool { return oldChunks(t, n, object.DefaultScheme) == 0 })
	checkAtRest(t, n)
}

// mustCreate makes an empty file in a bucket.
func mustCreate(t testing.TB, n *Node, bucket, name string) object.InodeID {
	t.Helper()
	b, err := n.Bucket(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	ino, _, err := n.Create(t.Context(), b.Root, name, NewNode{Type: object.TypeRegular, Mode: 0o644}, true)
	if err != nil {
		t.Fatal(err)
	}
	return ino.ID
}

// acrossBuckets copies and renames from box, which is kept as two, to other, kept as one.
func acrossBuckets(t *testing.T, n *Node, body []byte, one, two object.Scheme) {
	t.Helper()
	ctx := t.Context()
	if _, err := n.Copy(ctx, "box", "put", "other", "copy", CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	ranged := mustCreate(t, n, "other", "range")
	src, err := n.Stat(ctx, "box", "put")
	if err != nil {
		t.Fatal(err)
	}
	if _, got, err := n.CopyRange(ctx, src.Inode.ID, 0, ranged, 0, int64(len(body))); err != nil || got != int64(len(body)) {
		t.Fatal(got, err)
	}
	moved := map[string]string{"dir/": "dir/", "deep/er/unknown": "x/renamed", "other/multipart": "multipart"}
	for from, to := range moved {
		if err := n.RenameObject(ctx, "box", from, "other", to, RenameFlags{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"copy", "range", "dir/with", "dir/written", "dir/small", "x/renamed", "multipart"} {
		o, err := n.Stat(ctx, "other", key)
		if err != nil {
			t.Fatal(key, err)
		}
		waitFor(t, key+" to be kept as its bucket says", func() bool { return only(t, n, o.Inode.ID, one) })
		r, err := n.OpenObject(ctx, "other", key)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readAll(t, r), body) {
			t.Error(key, "is not what was written")
		}
		r.Close()
	}
	if !only(t, n, mustPut(t, n, "again", body).Inode.ID, two) {
		t.Error("the bucket that was copied from is another")
	}
}

// oldChunks counts the chunks on record that are kept otherwise than the buckets' settings.
func oldChunks(t *testing.T, n *Node, s object.Scheme) (count int) {
	t.Helper()
	for id := range n.ids(firstData) {
		err := n.inView(t.Context(), id, func(v *namespace.View) error {
			return n.chunks.Each(t.Context(), id, object.ChunkID{}, func(c object.ChunkID) error {
				ref, live, err := v.Chunk(c)
				if live && ref.Scheme == s {
					count++
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return count
}

// TestNoWriteIsLostToARewrite: files that are written all the time while their
// bucket's setting goes to and fro have what was written last, and end up as it says.
func TestNoWriteIsLostToARewrite(t *testing.T) {
	n, ctx := newNode(t)
	const files, size, writes = 3, 400_000, 60
	schemes := []object.Scheme{mustScheme(t, "replicated:2"), object.DefaultScheme, mustScheme(t, "replicated:1")}
	model, inos := make([][]byte, files), make([]object.InodeID, files)
	for i := range files {
		model[i] = randomBytes(int64(i), size)
		inos[i] = mustPut(t, n, fmt.Sprintf("d/%d", i), model[i]).Inode.ID
	}
	var wg sync.WaitGroup
	for i := range files {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewSource(int64(i)))
			for range writes {
				off, length := rnd.Intn(size), 1+rnd.Intn(90_000)
				b := randomBytes(rnd.Int63(), min(length, size-off))
				if _, _, err := n.Write(ctx, inos[i], int64(off), bytes.NewReader(b), WriteOptions{Size: int64(len(b))}); err != nil {
					t.Error(err)
					return
				}
				copy(model[i][off:], b)
				// As the rewriter does, but all the time.
				strays(t, n)
			}
		}()
	}
	for _, s := range schemes {
		if _, err := n.SetScheme(ctx, "box", s); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	rewritten(t, n, "box")
	for i := range files {
		if !bytes.Equal(mustGet(t, n, fmt.Sprintf("d/%d", i)), model[i]) {
			t.Errorf("file %d has lost a write", i)
		}
		if last := schemes[len(schemes)-1]; !only(t, n, inos[i], last) {
			t.Errorf("file %d has chunks of %v", i, schemesIn(t, n, inos[i]))
		}
	}
	checkAtRest(t, n)
}

// strays rewrites all strays that there are now; those that change meanwhile stay.
func strays(t *testing.T, n *Node) {
	for id := range n.ids(firstData) {
		var list []namespace.Stray
		err := n.inView(t.Context(), id, func(v *namespace.View) (err error) {
			list, err = v.Strays(0, strayCount)
			return err
		})
		for _, s := range list {
			if err == nil {
				err = n.rewriteStray(t.Context(), s)
			}
			if object.IsKind(err, object.KindPrecondition) {
				err = nil
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestARewriteGoesOnWhereItFailed: a third of its entries come to nothing, or nobody
// knows what they came to; two leaders drive it at once, as after a change.
func TestARewriteGoesOnWhereItFailed(t *testing.T) {
	n, ctx := newNode(t)
	two := mustScheme(t, "replicated:2")
	bodies := map[string][]byte{}
	for i := range 40 {
		key := fmt.Sprintf("d%d/e%d/%d", i%3, i%5, i)
		bodies[key] = randomBytes(int64(i), 20_000+i*7_000)
		mustPut(t, n, key, bodies[key])
	}
	b, err := n.SetScheme(ctx, "box", two)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	rnd, lost := rand.New(rand.NewSource(1)), 0
	vanish := func(object.PartitionID) error {
		mu.Lock()
		defer mu.Unlock()
		if rnd.Intn(3) > 0 {
			return nil
		}
		lost++
		return object.Errorf(object.KindTimeout, "the coordinator vanished")
	}
	n.step.Store(&vanish)
	waitFor(t, "the rewriting", func() bool {
		for _, p := range n.parts {
			if r := p.led(); r != nil {
				_, _ = n.walkAll(p, r)
				_, _ = n.rewriteStrays(p, r, map[object.InodeID]time.Time{})
			}
		}
		r, err := n.Rewriting(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		return r == nil
	})
	n.step.Store(nil)
	if lost < 20 {
		t.Fatalf("only %d entries were lost", lost)
	}
	for key, body := range bodies {
		o, err := n.Stat(ctx, "box", key)
		if err != nil || !bytes.Equal(mustGet(t, n, key), body) || !only(t, n, o.Inode.ID, two) {
			t.Error(key, "is another, or kept otherwise", err)
		}
	}
	if err := n.audit(ctx); err != nil {
		t.Fatal(err)
	}
	checkAtRest(t, n)
	if oldChunks(t, n, object.DefaultScheme) > 0 {
		t.Error("old chunks are left")
	}
}

// TestRewritesOfLargeRecords: names whose records together are more than an entry can
// write again; and of a bucket that goes meanwhile nothing is left.
func TestRewritesOfLargeRecords(t *testing.T) {
	n, ctx := newNode(t)
	two := mustScheme(t, "replicated:2")
	b, err := n.Bucket(ctx, "box")
	if err != nil {
		t.Fatal(err)
	}
	const files = 300 // of 120 KB of attributes, in one partition
	var g errgroup.Group
	g.SetLimit(16)
	for i := range files {
		g.Go(func() error {
			ino, _, err := n.Create(ctx, b.Root, fmt.Sprint(i), NewNode{Type: object.TypeRegular, Mode: 0o644}, true)
			for k := range 2 {
				if err == nil {
					err = n.SetXattr(ctx, ino.ID, fmt.Sprintf("user.%d", k), randomBytes(1, 60_000), false, false)
				}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.SetScheme(ctx, "box", two); err != nil {
		t.Fatal(err)
	}
	rewritten(t, n, "box")
	for i := range files {
		o, err := n.Stat(ctx, "box", fmt.Sprint(i))
		if err != nil || o.Inode.Scheme != two || len(o.Inode.Xattrs) != 2 {
			t.Fatal(o.Inode, err)
		}
	}

	gone := mkBox(t, n, "gone", two)
	if _, err := n.SetScheme(ctx, "gone", object.DefaultScheme); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteBucket(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its rewrite to go", func() bool {
		r, err := n.Rewriting(ctx, gone)
		if err != nil {
			t.Fatal(err)
		}
		return r == nil
	})
}
