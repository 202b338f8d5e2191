package namespace

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func openStore(t testing.TB, dir string) *meta.DB {
	t.Helper()
	db, err := meta.Open(meta.Options{Dir: dir, MemTableBytes: 2 << 20, BlockCacheBytes: 4 << 20, IndexCacheBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// fill writes n records in transactions, the last one with the applied index.
func fillStore(t testing.TB, p *meta.Partition, n int, applied uint64, salt string) {
	t.Helper()
	for i := 0; i < n; {
		tx := p.Begin()
		for range min(100, n-i) {
			if err := tx.Set(fmt.Appendf(nil, "k%06d", i), bytes.Repeat([]byte(salt), i%50)); err != nil {
				t.Fatal(err)
			}
			i++
		}
		if err := tx.Commit(applied); err != nil {
			t.Fatal(err)
		}
	}
}

func contents(t testing.TB, p *meta.Partition) map[string]string {
	t.Helper()
	v, m := p.View(), map[string]string{}
	defer v.Close()
	if err := v.Ascend(nil, nil, func(k, v []byte) (bool, error) { m[string(k)] = string(v); return true, nil }); err != nil {
		t.Fatal(err)
	}
	return m
}

func export1(t testing.TB, p *meta.Partition) []byte {
	t.Helper()
	img, err := ExportPartition(p)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Data.Close()
	b, err := io.ReadAll(img.Data)
	if err != nil || int64(len(b)) != img.Size || img.Applied != p.Applied() {
		t.Fatalf("%d bytes, said %d; applied %d, said %d: %v", len(b), img.Size, p.Applied(), img.Applied, err)
	}
	return b
}

// TestImageIsOfOneMoment changes the partition while its image is read.
func TestImageIsOfOneMoment(t *testing.T) {
	db := openStore(t, t.TempDir())
	defer db.Close()
	from, to := db.Partition(1), db.Partition(2)
	fillStore(t, from, 20_000, 7, "before ")
	fillStore(t, db.Partition(3), 10, 3, "another")
	want := contents(t, from)
	img, err := ExportPartition(from)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Data.Close()
	half := make([]byte, img.Size/2)
	if _, err := io.ReadFull(img.Data, half); err != nil {
		t.Fatal(err)
	}
	fillStore(t, from, 25_000, 8, "after")
	fillStore(t, to, 30_000, 99, "garbage")
	rest, err := io.ReadAll(img.Data)
	if err != nil || int64(len(half)+len(rest)) != img.Size {
		t.Fatalf("%d bytes of %d: %v", len(half)+len(rest), img.Size, err)
	}
	r := io.MultiReader(bytes.NewReader(half), bytes.NewReader(rest))
	if err := ImportPartition(t.Context(), to, r, 1000, 64<<10); err != nil {
		t.Fatal(err)
	}
	got := contents(t, to)
	if len(got) != len(want) || to.Applied() != 7 || from.Applied() != 8 {
		t.Fatalf("%d records of %d, applied %d", len(got), len(want), to.Applied())
	}
	for k, v := range want {
		if got[k] != v {
			t.Fatalf("%s: %q, want %q", k, got[k], v)
		}
	}
	if b := export1(t, db.Partition(5)); ImportPartition(t.Context(), to, bytes.NewReader(b), 10, 1000) != nil || len(contents(t, to)) != 0 || to.Applied() != 0 {
		t.Error("an empty partition did not replace a full one")
	}
}

// TestImportStopped: whatever is left of an import that did not end says that
// nothing is applied, also after a restart, and can be repeated.
func TestImportStopped(t *testing.T) {
	dir := t.TempDir()
	db := openStore(t, filepath.Join(dir, "a"))
	fillStore(t, db.Partition(1), 5000, 7, "x")
	b := export1(t, db.Partition(1))
	want := contents(t, db.Partition(1))
	p := db.Partition(2)
	fillStore(t, p, 3000, 5, "old")
	for _, cut := range []int{len(b) / 3, len(b) - 1} {
		err := ImportPartition(t.Context(), p, bytes.NewReader(b[:cut]), 100, 64<<10)
		if !object.IsKind(err, object.KindCorrupt) || p.Applied() != 0 {
			t.Fatalf("cut at %d: %v, applied %d", cut, err, p.Applied())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ImportPartition(ctx, p, bytes.NewReader(b), 100, 64<<10); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openStore(t, filepath.Join(dir, "a"))
	defer db.Close()
	p = db.Partition(2)
	if p.Applied() != 0 {
		t.Fatalf("applied %d after a restart", p.Applied())
	}
	if err := ImportPartition(t.Context(), p, bytes.NewReader(b), 100, 64<<10); err != nil || p.Applied() != 7 || len(contents(t, p)) != len(want) {
		t.Fatalf("%v, applied %d, %d records", err, p.Applied(), len(contents(t, p)))
	}
}

func TestDamagedImages(t *testing.T) {
	db := openStore(t, t.TempDir())
	defer db.Close()
	fillStore(t, db.Partition(1), 10, 7, "x")
	b := export1(t, db.Partition(1))
	newer := bytes.Clone(b)
	newer[0]++
	for name, c := range map[string]struct {
		b    []byte
		kind object.Kind
	}{
		"empty": {nil, object.KindCorrupt}, "newer": {newer, object.KindVersion},
		"more": {append(bytes.Clone(b), 0), object.KindCorrupt}, "less": {append(bytes.Clone(b[:imageHeader]), 0, 1), object.KindCorrupt},
	} {
		if err := ImportPartition(t.Context(), db.Partition(2), bytes.NewReader(c.b), 10, 1000); !object.IsKind(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzImageRecords(f *testing.F) {
	f.Add([]byte{2, 'k', 1, 'v', 0, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{1, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bufio.NewReader(bytes.NewReader(b))
		for n := uint64(0); ; n++ {
			k, v, err := readImageRecord(in)
			switch {
			case err != nil:
				if !object.IsKind(err, object.KindCorrupt) {
					t.Fatal(err)
				}
				return
			case len(k) > meta.MaxKey || len(v) > meta.MaxValue:
				t.Fatal("a record beyond the limits")
			case k == nil:
				_ = readImageEnd(in, n)
				return
			}
		}
	})
}
