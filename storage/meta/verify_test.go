package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestVerifyEnds: a canceled Verify is no damage, and reads nothing more.
func TestVerifyEnds(t *testing.T) {
	dir := t.TempDir()
	db := open(t, small(dir))
	must(t, fill(db, 5_000))
	waitFlushed(t, db)
	bend(t, dir, 4<<10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Verify(ctx); !object.IsKind(err, object.KindCanceled) {
		t.Errorf("canceled: %v", err)
	}
	if err := db.Verify(t.Context()); !object.IsKind(err, object.KindCorrupt) {
		t.Errorf("not canceled: %v", err)
	}
}

// TestVerifyStopsBetweenBlocks: not only between tables.
func TestVerifyStopsBetweenBlocks(t *testing.T) {
	name := aTable(t)
	ctx, cancel := context.WithCancel(t.Context())
	data, err := os.ReadFile(name)
	must(t, err)
	reads := 0
	f := readerAt(func(p []byte, off int64) (int, error) {
		if reads++; reads == 6 { // the index took four
			cancel()
		}
		return bytes.NewReader(data).ReadAt(p, off)
	})
	if err := verifyTable(ctx, f, int64(len(data))); !object.IsKind(err, object.KindCanceled) || reads != 6 {
		t.Errorf("after %d reads: %v", reads, err)
	}
}

type readerAt func(p []byte, off int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }

// aTable is the file of a table of some blocks that hardly compress.
func aTable(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	db, err := Open(small(dir))
	if err != nil {
		t.Fatal(err)
	}
	tx, random := db.Partition(1).Begin(), rand.NewChaCha8([32]byte{})
	for i := range 40 {
		value := make([]byte, 400)
		_, _ = random.Read(value)
		if err := tx.Set(fmt.Appendf(nil, "k%d", i), value); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tx.Commit(1), db.Close()); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, dataName, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	return tables[0]
}

// TestEveryByteIsVerified: a change anywhere in a table is found, unless the block
// is the same without its compression (a copy from elsewhere of the same bytes).
func TestEveryByteIsVerified(t *testing.T) {
	data, err := os.ReadFile(aTable(t))
	must(t, err)
	_, end, err := readIndex(bytes.NewReader(data), int64(len(data)))
	must(t, err)
	check := func() error { return verifyTable(t.Context(), bytes.NewReader(data), int64(len(data))) }
	must(t, check())
	missed, found := 0, 0
	for at := range data {
		data[at] ^= 0x10
		switch {
		case check() != nil:
			found++
		case int64(at) >= end:
			t.Errorf("a change at %d of %d, in the index, is not found", at, len(data))
		default:
			missed++
		}
		data[at] ^= 0x10
	}
	if missed > found/100 {
		t.Errorf("%d changes were found, %d were not", found, missed)
	}
	clear(data)
	if check() == nil {
		t.Error("zeros pass for a table")
	}
}

// FuzzVerifyTable: whatever a file holds, it is an error or it is right.
func FuzzVerifyTable(f *testing.F) {
	good, err := os.ReadFile(aTable(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[len(good)/2:])
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = verifyTable(context.Background(), bytes.NewReader(data), int64(len(data)))
	})
}

// FuzzVerifyBlock also takes what a good index would never name.
func FuzzVerifyBlock(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Add([]byte{4, 12, 0, 0, 0, 9})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1})
	f.Fuzz(func(t *testing.T, block []byte) { _ = verifyBlock(block) })
}
