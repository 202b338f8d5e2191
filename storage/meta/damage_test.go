package meta

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// bend changes two bytes every step bytes of every table, the end excepted, while
// the database is open.
func bend(t *testing.T, dir string, step int64) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, dataName, "*.sst"))
	must(t, err)
	for _, name := range tables {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		info, err := f.Stat()
		must(t, err)
		for at := step / 2; at < info.Size()*8/10; at += step {
			var b [2]byte
			_, err := f.ReadAt(b[:], at)
			must(t, err)
			_, err = f.WriteAt([]byte{b[0] ^ 0x55, b[1] ^ 0xaa}, at)
			must(t, err)
		}
		must(t, f.Close())
	}
}

// TestBadBlocksAreErrors reads an open database whose tables rot: what is
// answered is right, and complete, or an error. With Badger's own Get and
// iterators 266 of these keys were "not there", and scans ended early in silence.
func TestBadBlocksAreErrors(t *testing.T) {
	const keys = 5_000
	for _, step := range []int64{4 << 10, 1000} {
		dir := t.TempDir()
		db := open(t, small(dir))
		must(t, fill(db, keys))
		waitFlushed(t, db)
		bend(t, dir, step)
		want, good, bad := strings.Repeat("x", 700), 0, 0
		for i := 1; i <= keys; i++ {
			v := db.Partition(partitionOf(i)).View()
			value, found, err := v.Get(fmt.Appendf(nil, "k%08d", i))
			switch {
			case object.IsKind(err, object.KindCorrupt):
				bad++
			case err != nil || !found || string(value) != want:
				t.Fatalf("key %d: %d bytes, found %v, %v", i, len(value), found, err)
			default:
				good++
			}
			must(t, v.Close())
		}
		if bad == 0 {
			t.Fatal("no block was hit: the test shows nothing")
		}
		for p := range recoveryPartitions {
			for _, reverse := range []bool{false, true} {
				n, err := countKeys(db.Partition(partitionOf(p)), reverse)
				if !object.IsKind(err, object.KindCorrupt) && (err != nil || n != keys/recoveryPartitions) {
					t.Fatalf("a scan (reverse %v) gave %d of %d keys and %v", reverse, n, keys/recoveryPartitions, err)
				}
			}
		}
		if err := db.Verify(t.Context()); !object.IsKind(err, object.KindCorrupt) {
			t.Fatalf("Verify: %v", err)
		}
		t.Logf("step %d: %d gets answered, %d refused", step, good, bad)
		must(t, db.Close())
	}
}

func countKeys(p *Partition, reverse bool) (n int, err error) {
	v := p.View()
	defer v.Close()
	scan := v.Ascend
	if reverse {
		scan = v.Descend
	}
	err = scan([]byte("k"), []byte("l"), func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	return n, err
}

// TestBadIndexIsFound: the index of an open table is read again by Verify only.
func TestBadIndexIsFound(t *testing.T) {
	dir := t.TempDir()
	db := open(t, small(dir))
	defer db.Close()
	must(t, fill(db, 5_000))
	waitFlushed(t, db)
	must(t, db.Verify(t.Context()))
	tables, err := filepath.Glob(filepath.Join(dir, dataName, "*.sst"))
	must(t, err)
	f, err := os.OpenFile(tables[0], os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	// Within the bloom filter: nothing else looks at these bytes.
	_, err = f.WriteAt([]byte{0x5a, 0xa5}, info.Size()-200)
	must(t, err)
	if err := db.Verify(t.Context()); !object.IsKind(err, object.KindCorrupt) {
		t.Fatalf("Verify: %v", err)
	}
}

// TestDescendOverBadBlocks: a step back over a bad block is an error, too; Badger
// repeats the block before it and forgets.
func TestDescendOverBadBlocks(t *testing.T) {
	const keys = 5_000
	dir := t.TempDir()
	db := open(t, small(dir))
	defer db.Close()
	must(t, fill(db, keys))
	waitFlushed(t, db)
	bend(t, dir, 20<<10)
	for i := 1; i <= keys; i++ {
		v := db.Partition(partitionOf(i)).View()
		end, n := fmt.Sprintf("k%08d", i), 0
		last, wrong := end, ""
		err := v.Descend([]byte("k"), []byte(end), func(k, _ []byte) (bool, error) {
			if string(k) >= last && wrong == "" {
				wrong = fmt.Sprintf("%s after %s", k, last)
			}
			last = string(k)
			n++
			return n < 40, nil
		})
		must(t, v.Close())
		if err == nil && wrong != "" {
			t.Fatalf("descending from %s: %s, and no error", end, wrong)
		}
	}
}

// TestVerifyBesideCompactions finds no damage where there is none: Badger cuts a
// table to nothing before it removes it.
func TestVerifyBesideCompactions(t *testing.T) {
	db := open(t, small(t.TempDir()))
	defer db.Close()
	done := make(chan error, 1)
	go func() {
		for n := 0; balanced(db) == 0; n++ {
			if err := overwrite(db, n); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		must(t, db.Verify(t.Context()))
		select {
		case err := <-done:
			must(t, err)
			return
		default:
		}
	}
}
