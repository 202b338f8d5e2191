package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// small keeps the tests quick: memtables rotate after 2 MiB.
func small(dir string) Options {
	return Options{FS: vfs.OS(), Dir: dir, MemTableBytes: 2 << 20, BlockCacheBytes: 4 << 20, IndexCacheBytes: 4 << 20}
}

func open(t *testing.T, opts Options) *DB {
	t.Helper()
	db, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, p *Partition, applied uint64, pairs ...string) {
	t.Helper()
	tx := p.Begin()
	defer tx.Discard()
	for i := 0; i < len(pairs); i += 2 {
		must(t, tx.Set([]byte(pairs[i]), []byte(pairs[i+1])))
	}
	must(t, tx.Commit(applied))
}

// list is "key=value ..." of a range; an end of "" means none.
func list(t *testing.T, r Reader, start, end string, down bool) string {
	t.Helper()
	var out []string
	add := func(k, v []byte) (bool, error) {
		out = append(out, string(k)+"="+string(v))
		return true, nil
	}
	var hi []byte
	if end != "" {
		hi = []byte(end)
	}
	if down {
		must(t, r.Descend([]byte(start), hi, add))
	} else {
		must(t, r.Ascend([]byte(start), hi, add))
	}
	return strings.Join(out, " ")
}

func TestRangesAndNeighbours(t *testing.T) {
	db := open(t, small(t.TempDir()))
	a, b, c := db.Partition(1), db.Partition(2), db.Partition(3)
	put(t, b, 1, "", "empty", "a", "1", "ab", "2", "b", "3", "c", "4")
	put(t, a, 7, "z", "other")
	put(t, c, 9, "", "next", "a", "other")
	v := b.View()
	defer v.Close()
	for _, tc := range []struct{ start, end, up string }{
		{"", "", "=empty a=1 ab=2 b=3 c=4"}, {"a", "b", "a=1 ab=2"}, {"a\x00", "", "ab=2 b=3 c=4"},
		{"b", "b", ""}, {"c", "a", ""}, {"ab", "c", "ab=2 b=3"}, {"d", "", ""},
	} {
		if got := list(t, v, tc.start, tc.end, false); got != tc.up {
			t.Errorf("Ascend(%q, %q) = %q, want %q", tc.start, tc.end, got, tc.up)
		}
		down := strings.Fields(tc.up)
		slices.Reverse(down)
		if got := list(t, v, tc.start, tc.end, true); got != strings.Join(down, " ") {
			t.Errorf("Descend(%q, %q) = %q, want %q", tc.start, tc.end, got, down)
		}
	}
	put(t, b, 2, "a", "new")
	if value, found, err := v.Get([]byte("a")); err != nil || !found || string(value) != "1" {
		t.Errorf("the snapshot moved: %q, %v, %v", value, found, err)
	}
	if a.Applied() != 7 || b.Applied() != 2 || c.Applied() != 9 {
		t.Errorf("applied %d %d %d", a.Applied(), b.Applied(), c.Applied())
	}
}

func TestTxnSeesItsWritesInsideScans(t *testing.T) {
	p := open(t, small(t.TempDir())).Partition(5)
	put(t, p, 1, "a", "1", "b", "2", "c", "3", "d", "4")
	tx := p.Begin()
	defer tx.Discard()
	var seen []string
	must(t, tx.Ascend(nil, nil, func(k, v []byte) (bool, error) {
		seen = append(seen, string(k)+"="+string(v))
		if string(k) == "a" {
			must(t, tx.Delete([]byte("b")))
			must(t, tx.Set([]byte("c"), []byte("new")))
			must(t, tx.Set([]byte("cc"), []byte("added")))
			must(t, tx.Set([]byte("0"), []byte("behind")))
			if got := list(t, tx, "c", "d", true); got != "cc=added c=new" {
				t.Errorf("nested scan: %q", got)
			}
		}
		return true, nil
	}))
	if got := strings.Join(seen, " "); got != "a=1 c=new cc=added d=4" {
		t.Errorf("scan: %q", got)
	}
	if _, found, _ := tx.Get([]byte("b")); found {
		t.Error("a deleted key is found")
	}
	must(t, tx.Commit(2))
	tx.Discard()
	v := p.View()
	defer v.Close()
	if got := list(t, v, "", "", false); got != "0=behind a=1 c=new cc=added d=4" {
		t.Errorf("after commit: %q", got)
	}
}

// TestAgainstModel compares random transactions, scans included, with a map.
func TestAgainstModel(t *testing.T) {
	p := open(t, small(t.TempDir())).Partition(64)
	rng := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{}
	key := func() string { return fmt.Sprintf("%x", rng.IntN(3000)) }
	for round := range 30 {
		tx := p.Begin()
		want := maps.Clone(model)
		for range rng.IntN(1500) {
			k := key()
			if rng.IntN(3) == 0 {
				must(t, tx.Delete([]byte(k)))
				delete(want, k)
			} else {
				v := fmt.Sprint(rng.Int())
				must(t, tx.Set([]byte(k), []byte(v)))
				want[k] = v
			}
		}
		for range 5 {
			lo, hi, down := key(), key(), rng.IntN(2) == 0
			if rng.IntN(3) == 0 {
				hi = ""
			}
			if got, exp := list(t, tx, lo, hi, down), modelList(want, lo, hi, down); got != exp {
				t.Fatalf("round %d, [%q, %q) down=%v:\n got %q\nwant %q", round, lo, hi, down, got, exp)
			}
		}
		if rng.IntN(4) == 0 {
			tx.Discard()
			continue
		}
		must(t, tx.Commit(uint64(round+1)))
		model = want
	}
	v := p.View()
	defer v.Close()
	if list(t, v, "", "", false) != modelList(model, "", "", false) {
		t.Error("the committed state differs from the model")
	}
}

func modelList(m map[string]string, lo, hi string, down bool) string {
	var out []string
	keys := slices.Sorted(maps.Keys(m))
	if down {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		if k >= lo && (hi == "" || k < hi) {
			out = append(out, k+"="+m[k])
		}
	}
	return strings.Join(out, " ")
}

func TestLimitsOfATxn(t *testing.T) {
	db := open(t, small(t.TempDir()))
	p := db.Partition(1)
	maxKeys, maxBytes := db.MaxTxn()
	tx := p.Begin()
	defer tx.Discard()
	n := 0
	for ; ; n++ {
		err := tx.Set(fmt.Appendf(nil, "%08d", n), []byte("v"))
		if object.IsKind(err, object.KindTooLarge) {
			break
		}
		must(t, err)
	}
	if keys, _ := tx.Size(); n != maxKeys || keys != n {
		t.Errorf("%d keys fitted, %d counted; MaxTxn says %d", n, keys, maxKeys)
	}
	must(t, tx.Commit(1)) // what Set let in, Badger takes

	tx = p.Begin()
	defer tx.Discard()
	var err error
	for n = 0; err == nil; n++ {
		err = tx.Set(fmt.Appendf(nil, "big%d", n), make([]byte, 50_000))
	}
	if _, bytes := tx.Size(); !object.IsKind(err, object.KindTooLarge) || bytes > maxBytes || bytes < maxBytes-100_000 {
		t.Errorf("%v at %d of %d bytes", err, bytes, maxBytes)
	}
	must(t, tx.Commit(2))

	tx = p.Begin()
	defer tx.Discard()
	if err := tx.Set([]byte("k"), make([]byte, MaxValue+1)); !object.IsKind(err, object.KindTooLarge) {
		t.Errorf("a value above the limit: %v", err)
	}
	if err := tx.Commit(1); err == nil {
		t.Error("the applied index sank")
	}
}

func TestReopenKeepsEverythingAfterClose(t *testing.T) {
	dir := t.TempDir()
	db := open(t, small(dir))
	put(t, db.Partition(3), 42, "k", "v", "none", "")
	must(t, db.Close())
	must(t, db.Close())
	db = open(t, small(dir))
	p := db.Partition(3)
	if !db.Clean() || p.Applied() != 42 || p.Durable() != 42 {
		t.Errorf("clean=%v applied=%d durable=%d", db.Clean(), p.Applied(), p.Durable())
	}
	v := p.View()
	defer v.Close()
	if got := list(t, v, "", "", false); got != "k=v none=" {
		t.Errorf("%q", got)
	}
	if value, found, err := v.Get([]byte("none")); err != nil || !found || len(value) != 0 {
		t.Errorf("an empty value: %q, %v, %v", value, found, err)
	}
}

func TestSecondProcessAndNewerFormatAreRefused(t *testing.T) {
	dir := t.TempDir()
	db := open(t, small(dir))
	if _, err := Open(small(dir)); !object.IsKind(err, object.KindBusy) {
		t.Errorf("a second Open: %v", err)
	}
	must(t, db.Close())
	must(t, os.WriteFile(filepath.Join(dir, FormatName), []byte("2\n"), 0o600))
	_, err := Open(small(dir))
	if !object.IsKind(err, object.KindVersion) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("a newer format: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, FormatName), []byte("one"), 0o600))
	if _, err := Open(small(dir)); !object.IsKind(err, object.KindCorrupt) {
		t.Errorf("a broken format file: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, FormatName), []byte("1\n"), 0o600))
	open(t, small(dir))
}

func TestDropAllLeavesNeighboursAlone(t *testing.T) {
	db := open(t, small(t.TempDir()))
	a, b := db.Partition(1), db.Partition(2)
	put(t, b, 3, "k", "stays")
	for i := range 3 {
		tx := a.Begin()
		for j := range 3000 {
			must(t, tx.Set(fmt.Appendf(nil, "%d-%d", i, j), []byte("v")))
		}
		must(t, tx.Commit(uint64(i+1)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.DropAll(ctx); !errors.Is(err, context.Canceled) || a.Applied() != 3 {
		t.Errorf("cancelled: %v", err)
	}
	must(t, a.DropAll(t.Context()))
	va, vb := a.View(), b.View()
	defer va.Close()
	defer vb.Close()
	if got := list(t, va, "", "", false); got != "" || a.Applied() != 0 || a.Durable() != 0 {
		t.Errorf("left over: %.50q, applied %d", got, a.Applied())
	}
	if list(t, vb, "", "", false) != "k=stays" || b.Applied() != 3 {
		t.Error("the neighbour lost something")
	}
}

func TestInMemoryAndAfterClose(t *testing.T) {
	db, err := Open(Options{InMemory: true, MemTableBytes: 2 << 20})
	must(t, err)
	p := db.Partition(1)
	put(t, p, 1, "k", "v")
	v := p.View()
	must(t, v.Close())
	tx := p.Begin()
	must(t, tx.Set([]byte("k"), []byte("w")))
	must(t, db.Close())
	if err := tx.Commit(2); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("commit after close: %v", err)
	}
	if _, _, err := v.Get([]byte("k")); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("get after close: %v", err)
	}
}

func FuzzParseFormat(f *testing.F) {
	for _, s := range []string{"1\n", "2\n", "", "\n", "0\n", "-1\n", "+1\n", "99999999999999999999\n", "1", "1\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		version, err := parseFormat(data)
		if err == nil && (version < 1 || !bytes.HasSuffix(data, []byte("\n"))) {
			t.Errorf("%q is format %d", data, version)
		}
	})
}
