package chunk

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("got error %v, want kind %v", err, k)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewPowerCut()
	}
	if o.Dirs == nil {
		o.Dirs = []string{"/disk"}
	}
	o.Logger = quiet()
	s, err := Open(o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// id is the n-th of a series that is spread over partitions and directories.
func id(n int) object.ChunkID {
	r := rand.New(rand.NewSource(int64(n / 4))) // four chunks an upload
	c := object.ChunkID{Owner: object.PartitionID(1 + r.Intn(3)), Ordinal: uint32(n % 4)}
	r.Read(c.Upload[:])
	return c
}

// noise is n bytes that do not compress; text is n that do.
func noise(n int, seed int64) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

func text(n int, seed int64) []byte {
	b := noise(n, seed)
	for i := range b {
		b[i] = "abcd"[b[i]%4]
	}
	return b
}

// mixed compresses in its first half only.
func mixed(n int, seed int64) []byte {
	return append(text(n/2, seed), noise(n-n/2, seed)...)
}

// editFile changes the chunk's file behind the store's back.
func editFile(t testing.TB, s *Store, id object.ChunkID, edit func(f vfs.File, size int64)) {
	t.Helper()
	f, err := s.opts.FS.OpenFile("edit", s.rank(id)[0].path(id), os.O_RDWR, 0)
	must(t, err)
	st, err := f.Stat()
	must(t, err)
	edit(f, st.Size())
	must(t, f.Close())
	s.files.evict(id)
}

func flipBit(t testing.TB, s *Store, id object.ChunkID, at int64, bit uint) {
	t.Helper()
	editFile(t, s, id, func(f vfs.File, _ int64) {
		b := make([]byte, 1)
		_, err := f.ReadAt(b, at)
		must(t, err)
		b[0] ^= 1 << bit
		_, err = f.WriteAt(b, at)
		must(t, err)
	})
}

func entries(t testing.TB, s *Store, sub string) []string {
	t.Helper()
	var names []string
	for _, d := range s.disks {
		list, err := s.opts.FS.ReadDir("ls", filepath.Join(d.dir, sub))
		must(t, err)
		for _, e := range list {
			names = append(names, e.Name())
		}
	}
	return names
}

// wantChunk checks that the chunk is here, whole and right.
func wantChunk(t testing.TB, s *Store, id object.ChunkID, data []byte) {
	t.Helper()
	got, err := s.ReadAll(ctx, id, sha256.Sum256(data))
	must(t, err)
	if string(got) != string(data) {
		t.Fatal("another content came back")
	}
}
