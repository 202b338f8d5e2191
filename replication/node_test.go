package replication

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

func testConfig(t testing.TB) Config {
	dir := t.TempDir()
	level := slog.LevelWarn
	return Config{
		MetadataPath: filepath.Join(dir, "meta"),
		StoragePaths: []string{filepath.Join(dir, "data")},
		Partitions:   8,
		ChunkSize:    64 << 10,
		LeasePeriod:  50 * time.Millisecond,
		memTable:     16 << 20,
		groups:       testGroups,
		FS:           unsynced{vfs.OS()},
		Logger:       slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: level})),
	}
}

// unsynced is the disk of a test that neither cuts the power nor has a call fail: what a
// process left is there for the next one, and nobody waits for the disk.
type unsynced struct{ vfs.FS }

func (u unsynced) OpenFile(op vfs.Op, name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := u.FS.OpenFile(op, name, flag, perm)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (u unsynced) SyncDir(op vfs.Op, name string) error {
	_, err := u.Stat(op, name)
	return err
}

type unsyncedFile struct{ vfs.File }

func (f unsyncedFile) Sync(vfs.Op) error {
	_, err := f.Stat()
	return err
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func openNode(t testing.TB, cfg Config) *Node {
	t.Helper()
	n, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// newNode is a node with the bucket "box".
func newNode(t testing.TB) (*Node, context.Context) {
	t.Helper()
	n := openNode(t, testConfig(t))
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	return n, t.Context()
}

func mustPut(t testing.TB, n *Node, key string, body []byte) Object {
	t.Helper()
	o, err := n.Put(context.Background(), "box", key, bytes.NewReader(body), PutOptions{Size: int64(len(body))})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return o
}

func mustGet(t testing.TB, n *Node, key string) []byte {
	t.Helper()
	r, err := n.OpenObject(context.Background(), "box", key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	defer r.Close()
	return readAll(t, r)
}

func readAll(t testing.TB, r *Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteRange(context.Background(), &b, 0, r.Inode().Size); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func randomBytes(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

func wantKind(t testing.TB, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("got error %v, want %v", err, k)
	}
}

func keys(t testing.TB, n *Node, o ListOptions) (list []string) {
	t.Helper()
	for {
		page, err := n.List(context.Background(), "box", o)
		if err != nil {
			t.Fatal(err)
		}
		var part []string
		for _, ob := range page.Objects {
			part = append(part, ob.Key)
		}
		for _, p := range page.Prefixes {
			part = append(part, p+"*")
		}
		list = append(list, part...)
		if page.Next == "" {
			return list
		}
		o.After = page.Next
	}
}

func TestPutAndGetOfEverySize(t *testing.T) {
	n, _ := newNode(t)
	for i, size := range []int{0, 1, 4096, object.MaxInline, object.MaxInline + 1, 64 << 10, 64<<10 + 1, 300000, 20 << 20} {
		key := fmt.Sprintf("a/b/%d", size)
		want := randomBytes(int64(i), size)
		mustPut(t, n, key, want)
		if got := mustGet(t, n, key); !bytes.Equal(got, want) {
			t.Fatalf("%s: got %d bytes that differ", key, len(got))
		}
	}
	// Replace one by another.
	mustPut(t, n, "a/b/300000", []byte("short"))
	if got := mustGet(t, n, "a/b/300000"); string(got) != "short" {
		t.Fatalf("got %q", got)
	}
}

func TestReopenKeepsEverything(t *testing.T) {
	cfg := testConfig(t)
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	want := randomBytes(1, 500000)
	mustPut(t, n, "deep/er/file", want)
	mustPut(t, n, "small", []byte("x"))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, cfg)
	if !bytes.Equal(mustGet(t, n, "deep/er/file"), want) || string(mustGet(t, n, "small")) != "x" {
		t.Fatal("content differs")
	}
}

func TestListIsInKeyOrder(t *testing.T) {
	n, ctx := newNode(t)
	for _, k := range []string{"a", "a-b", "a/x", "a/y/z", "a0", "b/c/d", "b//e", "z", "é"} {
		mustPut(t, n, k, []byte(k))
	}
	want := "a a-b a/x a/y/z a0 b//e b/c/d z é"
	for limit := 1; limit < 11; limit++ {
		if got := strings.Join(keys(t, n, ListOptions{Limit: limit}), " "); got != want {
			t.Fatalf("limit %d: %s", limit, got)
		}
	}
	if got := strings.Join(keys(t, n, ListOptions{Prefix: "a/", Limit: 1}), " "); got != "a/x a/y/z" {
		t.Fatal(got)
	}
	for _, limit := range []int{1, 2, 100} {
		if got := strings.Join(keys(t, n, ListOptions{Delimiter: "/", Limit: limit}), " "); got != "a a-b a/* a0 b/* z é" && limit == 1 {
			t.Fatalf("limit %d: %s", limit, got)
		}
	}
	if got := strings.Join(keys(t, n, ListOptions{Prefix: "a", Delimiter: "-"}), " "); got != "a a/x a/y/z a0 a-*" {
		t.Fatal(got)
	}
	// Implicit directories vanish with their last object.
	if err := n.Delete(ctx, "box", "b/c/d", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Resolve(ctx, "box", "b/c"); !object.IsKind(err, object.KindNotFound) {
		t.Fatalf("b/c is still there: %v", err)
	}
	if _, err := n.Resolve(ctx, "box", "b"); err != nil {
		t.Fatal(err)
	}
}

func TestWriteInPlace(t *testing.T) {
	n, ctx := newNode(t)
	root, err := n.Resolve(ctx, "box", "")
	if err != nil {
		t.Fatal(err)
	}
	ino, created, err := n.Create(ctx, root.ID, "f", NewNode{Type: object.TypeRegular, Mode: 0o600}, true)
	if err != nil || !created {
		t.Fatal(err)
	}
	var model []byte
	rnd := rand.New(rand.NewSource(7))
	for i := range 200 {
		off := rnd.Int63n(400000)
		data := randomBytes(int64(i), []int{10, 5000, 70000, 200000}[rnd.Intn(4)])
		switch rnd.Intn(6) {
		case 0:
			off = int64(len(model))
			_, at, err := n.Write(ctx, ino.ID, 0, bytes.NewReader(data), WriteOptions{Size: -1, Append: true})
			if err != nil || at != off {
				t.Fatal(at, err)
			}
		case 1:
			size := rnd.Int63n(500000)
			if _, err := n.SetAttr(ctx, ino.ID, SetAttr{Size: &size}); err != nil {
				t.Fatal(err)
			}
			model = resized(model, int(size))
			continue
		case 2:
			l := rnd.Int63n(100000)
			if _, err := n.Punch(ctx, ino.ID, off, l, false); err != nil {
				t.Fatal(err)
			}
			if int(off) < len(model) {
				clear(model[off:min(int(off+l), len(model))])
			}
			continue
		default:
			if _, _, err := n.Write(ctx, ino.ID, off, bytes.NewReader(data), WriteOptions{Size: int64(len(data))}); err != nil {
				t.Fatal(err)
			}
		}
		if need := int(off) + len(data); need > len(model) {
			model = resized(model, need)
		}
		copy(model[off:], data)
		r, err := n.OpenInode(ctx, ino.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, r); !bytes.Equal(got, model) {
			t.Fatalf("step %d: contents differ (%d, %d bytes)", i, len(got), len(model))
		}
		r.Close()
	}
}

func resized(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n:n]
	}
	return append(b[:len(b):len(b)], make([]byte, n-len(b))...)
}

func TestReaderKeepsItsVersion(t *testing.T) {
	n, ctx := newNode(t)
	want := randomBytes(3, 500000)
	o := mustPut(t, n, "f", want)
	r, err := n.OpenObject(ctx, "box", "f")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.Write(ctx, o.Inode.ID, 100000, strings.NewReader("changed"), WriteOptions{Size: 7}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, n, "f", []byte("replaced"))
	if err := n.Delete(ctx, "box", "f", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readAll(t, r), want) {
		t.Fatal("the reader saw a change")
	}
	r.Close()
	waitFor(t, "chunks to be dropped", func() bool { return countChunks(t, n) == 0 })
}

func countChunks(t testing.TB, n *Node) (count int) {
	t.Helper()
	parts, err := n.chunks.Partitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if err := n.chunks.Each(t.Context(), p, object.ChunkID{}, func(object.ChunkID) error { count++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return count
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

func TestBodyThatBreaksOffLeavesNothing(t *testing.T) {
	n, ctx := newNode(t)
	for _, size := range []int64{1000000, -1} {
		body := io.MultiReader(bytes.NewReader(randomBytes(1, 500000)), errReader{io.ErrUnexpectedEOF})
		_, err := n.Put(ctx, "box", "x/f", body, PutOptions{Size: size})
		wantKind(t, err, object.KindIncomplete)
	}
	_, err := n.Put(ctx, "box", "x/f", bytes.NewReader(randomBytes(1, 500000)), PutOptions{Size: 600000})
	wantKind(t, err, object.KindIncomplete)
	_, err = n.Put(ctx, "box", "x/f", bytes.NewReader(randomBytes(1, 500000)), PutOptions{Size: 400000})
	wantKind(t, err, object.KindTooLarge)
	if got := keys(t, n, ListOptions{}); len(got) != 0 {
		t.Fatal(got)
	}
	if _, err := n.Resolve(ctx, "box", "x"); !object.IsKind(err, object.KindNotFound) {
		t.Fatal("the parent was made")
	}
	if c := countChunks(t, n); c != 0 {
		t.Fatalf("%d chunks are left", c)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
