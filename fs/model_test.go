package fs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/fs"
	"pgregory.net/rapid"
)

// TestFileModel runs random operations on one open file against a byte slice.
func TestFileModel(t *testing.T) {
	dir, _, _ := mount(t, func(o *fs.Options) { o.WritebackDelay = 20 * time.Millisecond })
	file := atomic.Int64{}
	rapid.Check(t, func(t *rapid.T) {
		p := filepath.Join(dir, fmt.Sprint("m", file.Add(1)))
		f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o600)
		must(t, err)
		defer func() { f.Close(); os.Remove(p) }()
		var want []byte
		offset := rapid.OneOf(rapid.IntRange(0, 10_000), rapid.IntRange(4<<20-5000, 4<<20+5000))
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off, b := offset.Draw(t, "off"), rapid.SliceOfN(rapid.Byte(), 1, 2000).Draw(t, "data")
				_, err := f.WriteAt(b, int64(off))
				must(t, err)
				if end := off + len(b); end > len(want) {
					want = append(want, make([]byte, end-len(want))...)
				}
				copy(want[off:], b)
			},
			"truncate": func(t *rapid.T) {
				size := offset.Draw(t, "size")
				must(t, f.Truncate(int64(size)))
				if size > len(want) {
					want = append(want, make([]byte, size-len(want))...)
				}
				want = append([]byte(nil), want[:size]...)
			},
			"fsync": func(t *rapid.T) { must(t, f.Sync()) },
			"reopen": func(t *rapid.T) {
				must(t, f.Close())
				var err error
				f, err = os.OpenFile(p, os.O_RDWR, 0)
				must(t, err)
			},
			"other handle": func(t *rapid.T) {
				got, err := os.ReadFile(p)
				must(t, err)
				if !bytes.Equal(got, want) {
					t.Fatalf("another handle reads %d bytes, want %d, or they differ", len(got), len(want))
				}
			},
			"": func(t *rapid.T) {
				if info, err := f.Stat(); rapid.Bool().Draw(t, "stat") && (err != nil || info.Size() != int64(len(want))) {
					t.Fatalf("stat: %v, want size %d", err, len(want))
				}
				for _, off := range []int{0, 4<<20 - 6000} {
					off = min(off, len(want))
					end := min(off+13_000, len(want))
					got := make([]byte, end-off)
					_, err := f.ReadAt(got, int64(off))
					must(t, err)
					if !bytes.Equal(got, want[off:end]) {
						t.Fatalf("bytes [%d,%d) differ", off, end)
					}
				}
			},
		})
	})
}

func must(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
