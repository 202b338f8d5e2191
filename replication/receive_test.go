package replication

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestBodiesByHowTheirReaderEnds: readers may give their last bytes together
// with io.EOF, one byte at a time, or short; the length declared may be right,
// too small, too large or unknown. What is stored never depends on that.
func TestBodiesByHowTheirReaderEnds(t *testing.T) {
	n, ctx := newNode(t)
	readers := map[string]func(io.Reader) io.Reader{
		"plain": func(r io.Reader) io.Reader { return r }, "eof with data": iotest.DataErrReader,
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader,
	}
	for name, wrap := range readers {
		for _, size := range []int{0, 1, 100, object.MaxInline - 1, object.MaxInline, object.MaxInline + 1, 64 << 10, 64<<10 + 1, 128 << 10} {
			body := randomBytes(int64(size), size)
			put := func(declared int64) error {
				_, err := n.Put(ctx, "box", "k", wrap(bytes.NewReader(body)), PutOptions{Size: declared})
				return err
			}
			for _, declared := range []int64{-1, int64(size)} {
				if err := put(declared); err != nil {
					t.Fatalf("%s, %d bytes declared as %d: %v", name, size, declared, err)
				}
				if got := mustGet(t, n, "k"); !bytes.Equal(got, body) {
					t.Fatalf("%s, %d bytes: the content differs", name, size)
				}
			}
			wantKind(t, put(int64(size)+1), object.KindIncomplete)
			if size > 0 {
				wantKind(t, put(int64(size)-1), object.KindTooLarge)
			}
		}
	}
	cfg := testConfig(t)
	for _, limit := range []int64{1000, object.MaxInline + 5, 100000} {
		cfg := cfg
		cfg.MetadataPath, cfg.StoragePaths, cfg.MaxObjectSize = t.TempDir(), []string{t.TempDir()}, limit
		n := openNode(t, cfg)
		if _, err := n.CreateBucket(ctx, "box", ""); err != nil {
			t.Fatal(err)
		}
		for _, declared := range []int64{-1, limit + 1} {
			_, err := n.Put(ctx, "box", "k", bytes.NewReader(make([]byte, limit+1)), PutOptions{Size: declared})
			wantKind(t, err, object.KindTooLarge)
		}
		if _, err := n.Put(ctx, "box", fmt.Sprint(limit), bytes.NewReader(make([]byte, limit)), PutOptions{Size: -1}); err != nil {
			t.Fatal(err)
		}
	}
}
