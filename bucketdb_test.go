package bucketdb_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/skshohagmiah/bucketdb"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// config keeps a store in a test's directory.
func config(t testing.TB, dir string) *bucketdb.Config {
	t.Helper()
	c := bucketdb.DefaultConfig()
	c.StoragePath = filepath.Join(dir, "chunks")
	c.MetadataPath = filepath.Join(dir, "metadata")
	c.Partitions = 4
	c.ChunkSize = 256 << 10
	return c
}

func start(t testing.TB, cfg *bucketdb.Config) *bucketdb.BucketDB {
	t.Helper()
	db, err := bucketdb.NewBucketDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func store(t testing.TB) *bucketdb.BucketDB {
	t.Helper()
	db := start(t, config(t, t.TempDir()))
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.CreateBucket("box", "admin"); err != nil {
		t.Fatal(err)
	}
	return db
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("%v is not %s", err, k)
	}
}

// noise is n random bytes, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b) // never fails
	return b
}

func TestBuckets(t *testing.T) {
	db := store(t)
	wantKind(t, db.CreateBucket("box", "x"), object.KindBucketExists)
	check(t, db.CreateBucket("abc", "someone"))
	found, err := db.ListBuckets()
	check(t, err)
	if len(found) != 2 || found[0].Name != "abc" || found[0].Owner != "someone" || found[1].Name != "box" || found[0].CreatedAt.IsZero() {
		t.Fatalf("%+v", found)
	}
	check(t, db.PutObject("abc", "k", nil, nil))
	wantKind(t, db.DeleteBucket("abc"), object.KindNotEmpty)
	check(t, db.DeleteObject("abc", "k"))
	check(t, db.DeleteBucket("abc"))
	wantKind(t, db.DeleteBucket("abc"), object.KindBucketNotFound)
	if _, err := db.GetObject("abc", "k", nil); !bucketdb.IsNotFound(err) {
		t.Fatal(err)
	}
}

func TestObjectsOfAllSizes(t *testing.T) {
	db := store(t)
	for i, n := range []int{0, 1, 4096, 16 << 10, 16<<10 + 1, 256 << 10, 256<<10 + 1, 1_000_000} {
		data := noise(uint64(i), n)
		o, err := db.PutObjectContext(t.Context(), "box", "dir/k", data, &bucketdb.PutObjectOptions{ContentType: "x/y", Metadata: map[string]string{"Colour": "red"}})
		check(t, err)
		if o.Size != int64(n) || o.ContentType != "x/y" || o.Metadata["colour"] != "red" || o.ETag == "" {
			t.Fatalf("%+v", o)
		}
		got, err := db.GetObject("box", "dir/k", nil)
		check(t, err)
		if !bytes.Equal(got, data) {
			t.Fatalf("%d bytes came back different", n)
		}
		head, err := db.GetObjectMetadata("box", "dir/k")
		check(t, err)
		if head.ETag != o.ETag || head.Size != o.Size {
			t.Fatalf("%+v is not %+v", head, o)
		}
		if head.SHA256 != nil && !bytes.Equal(head.SHA256, sum(data)) {
			t.Fatal("the SHA-256 is wrong")
		}
	}
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func TestReader(t *testing.T) {
	db := store(t)
	data := noise(1, 20_000) // small, since TestReader reads from every offset
	check(t, db.PutObject("box", "k", data, nil))
	r, err := db.OpenObject(t.Context(), "box", "k", &bucketdb.GetObjectOptions{RangeStart: 19_000})
	check(t, err)
	check(t, iotest.TestReader(r, data[19_000:]))
	check(t, r.Close())
	data = noise(1, 700_000)
	check(t, db.PutObject("box", "k", data, nil))
	r, err = db.OpenObject(t.Context(), "box", "k", &bucketdb.GetObjectOptions{RangeStart: 1000})
	check(t, err)
	defer r.Close()
	got, err := io.ReadAll(struct{ io.Reader }{r}) // by Read, not WriteTo
	check(t, err)
	if !bytes.Equal(got, data[1000:]) {
		t.Fatal("the stream differs")
	}

	// An open reader keeps the version that it started with.
	check(t, db.PutObject("box", "k", []byte("new"), nil))
	_, err = r.Seek(0, io.SeekStart)
	check(t, err)
	old, err := io.ReadAll(r)
	check(t, err)
	if !bytes.Equal(old, data[1000:]) {
		t.Fatal("the reader changed its version")
	}
	check(t, r.Close())
	_, err = db.OpenObject(t.Context(), "box", "k", &bucketdb.GetObjectOptions{IfMatch: r.Object().ETag})
	wantKind(t, err, object.KindPrecondition)
}

func TestFailedBodyStoresNothing(t *testing.T) {
	db := store(t)
	broken := errors.New("the source broke")
	body := func() io.Reader { return io.MultiReader(bytes.NewReader(noise(2, 600_000)), iotest.ErrReader(broken)) }
	if err := db.PutObjectFromStream("box", "k", body(), -1, nil); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	wantKind(t, db.PutObjectFromStream("box", "k", strings.NewReader("abc"), 4, nil), object.KindIncomplete)
	for _, n := range []int{3, 100_000, 300_000} { // inline, one chunk, two
		wantKind(t, db.PutObjectFromStream("box", "k", bytes.NewReader(noise(2, n)), int64(n)-1, nil), object.KindTooLarge)
	}
	_, err := db.GetObjectMetadata("box", "k")
	wantKind(t, err, object.KindNotFound)
	page, err := db.ListObjects("box", "", 0)
	check(t, err)
	if len(page.Objects) != 0 {
		t.Fatalf("something is there: %+v", page.Objects[0])
	}
}

func TestMaxObjectSize(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.MaxObjectSize = 100_000
	db := start(t, cfg)
	defer db.Close()
	check(t, db.CreateBucket("box", ""))
	check(t, db.PutObject("box", "k", noise(3, 100_000), nil))
	wantKind(t, db.PutObject("box", "k", noise(3, 100_001), nil), object.KindTooLarge)
	wantKind(t, db.PutObjectFromStream("box", "k", bytes.NewReader(noise(3, 100_001)), -1, nil), object.KindTooLarge)
}

func TestCopyRenameDelete(t *testing.T) {
	db := store(t)
	data := noise(4, 300_000)
	check(t, db.PutObject("box", "x/y/k", data, &bucketdb.PutObjectOptions{ContentType: "t/1"}))
	o, err := db.CopyObject("box", "x/y/k", "box", "copy")
	check(t, err)
	if o.ContentType != "t/1" {
		t.Fatalf("%+v", o)
	}
	check(t, db.RenameObject("box", "x/y/k", "box", "moved"))
	check(t, db.DeleteObject("box", "moved"))
	wantKind(t, db.DeleteObject("box", "moved"), object.KindNotFound)
	got, err := db.GetObject("box", "copy", nil)
	check(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("the copy differs")
	}
	page, err := db.ListObjects("box", "", 0)
	check(t, err)
	if len(page.Objects) != 1 || page.Objects[0].Key != "copy" || page.IsTruncated {
		t.Fatalf("%+v: implicit directories vanish with their last child", page)
	}
}

func TestListing(t *testing.T) {
	db := store(t)
	keys := []string{"a", "a/b", "a/c/d", "b", "z"}
	for _, k := range keys {
		check(t, db.PutObject("box", k, []byte(k), nil))
	}
	var got []string
	o := &bucketdb.ListObjectsOptions{Limit: 2}
	for {
		page, err := db.ListObjectsContext(t.Context(), "box", o)
		check(t, err)
		for _, obj := range page.Objects {
			got = append(got, obj.Key)
		}
		if o.After = page.NextMarker; !page.IsTruncated {
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(keys, " ") {
		t.Fatalf("%q, not %q", got, keys)
	}
	page, err := db.ListObjectsContext(t.Context(), "box", &bucketdb.ListObjectsOptions{Delimiter: "/"})
	check(t, err)
	if len(page.Objects) != 3 || len(page.Prefixes) != 1 || page.Prefixes[0] != "a/" {
		t.Fatalf("%+v", page)
	}
}

func TestOneCreatorWins(t *testing.T) {
	db := store(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			err := db.PutObject("box", "k", []byte{byte(i)}, &bucketdb.PutObjectOptions{IfNoneMatch: "*"})
			switch {
			case err == nil:
				won.Add(1)
			case !object.IsKind(err, object.KindPrecondition):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d writers created it", won.Load())
	}
}

// TestNewDirectoriesUnderConcurrency makes many writers make the same implicit
// directories at once, and lose them again.
func TestNewDirectoriesUnderConcurrency(t *testing.T) {
	db := store(t)
	for round := range 5 {
		var wg sync.WaitGroup
		for i := range 8 {
			key := fmt.Sprintf("d%d/e/f/k%d", round, i)
			wg.Go(func() {
				if err := db.PutObject("box", key, []byte{byte(i)}, nil); err != nil {
					t.Errorf("put: %v", err)
				}
				if i%2 == 0 {
					return
				}
				if err := db.DeleteObject("box", key); err != nil {
					t.Errorf("delete: %v", err)
				}
			})
		}
		wg.Wait()
	}
	page, err := db.ListObjects("box", "", 0)
	check(t, err)
	if len(page.Objects) != 20 {
		t.Errorf("%d objects are left, not 20", len(page.Objects))
	}
}

func TestReopen(t *testing.T) {
	cfg := config(t, t.TempDir())
	db := start(t, cfg)
	check(t, db.CreateBucket("box", "admin"))
	data := noise(5, 800_000)
	check(t, db.PutObject("box", "k", data, nil))
	if _, err := bucketdb.NewBucketDB(cfg); !object.IsKind(err, object.KindBusy) {
		t.Fatalf("a second one opens the same store: %v", err)
	}
	check(t, db.Close())
	db = start(t, cfg)
	defer db.Close()
	got, err := db.GetObject("box", "k", nil)
	check(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("the object differs after a restart")
	}
}

func TestCanceledContext(t *testing.T) {
	db := store(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.PutObjectContext(ctx, "box", "k", []byte("x"), nil); err == nil {
		t.Fatal("a canceled put succeeds")
	}
}

func TestBucketStorage(t *testing.T) {
	db := store(t)
	check(t, db.MakeBucket(t.Context(), "twice", &bucketdb.BucketOptions{Owner: "me", Storage: "replicated:2"}))
	check(t, db.SetBucketStorage(t.Context(), "box", "replicated:1"))
	list, err := db.ListBuckets()
	check(t, err)
	if len(list) != 2 || list[0].Storage != "replicated:1" || list[1].Storage != "replicated:2" || list[1].Owner != "me" {
		t.Fatalf("%+v %+v", list[0], list[1])
	}
	for _, bad := range []string{"4+2", "rs:4+2"} { // no setting; too few nodes
		err := db.MakeBucket(t.Context(), "other", &bucketdb.BucketOptions{Storage: bad})
		if object.KindOf(err) != object.KindInvalid || object.KindOf(db.SetBucketStorage(t.Context(), "box", bad)) != object.KindInvalid {
			t.Fatal(bad, err)
		}
	}
	check(t, db.MakeBucket(t.Context(), "other", nil))
}
