package replication

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkPut4K is durable 4 KiB PUTs into one flat bucket (one directory, one
// partition), beside the disk's own single-threaded rate of 4 KiB write + fdatasync.
func BenchmarkPut4K(b *testing.B) {
	for _, clients := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			cfg := testConfig(b)
			cfg.Partitions = 64
			n := openNode(b, cfg)
			if _, err := n.CreateBucket(context.Background(), "box", "me"); err != nil {
				b.Fatal(err)
			}
			body := randomBytes(1, 4096)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if _, err := n.Put(context.Background(), "box", fmt.Sprintf("k%d", i), bytes.NewReader(body), PutOptions{Size: 4096}); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
	b.Run("disk", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(64 << 20); err != nil {
			b.Fatal(err)
		}
		body := randomBytes(1, 4096)
		b.ResetTimer()
		for i := range b.N {
			if _, err := f.WriteAt(body, int64(i%16384)*4096); err != nil {
				b.Fatal(err)
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	})
}

// BenchmarkGet4K reads one small object.
func BenchmarkGet4K(b *testing.B) {
	n := openNode(b, testConfig(b))
	if _, err := n.CreateBucket(context.Background(), "box", "me"); err != nil {
		b.Fatal(err)
	}
	mustPut(b, n, "d/k", randomBytes(1, 4096))
	b.ReportAllocs()
	for b.Loop() {
		r, err := n.OpenObject(context.Background(), "box", "d/k")
		if err != nil {
			b.Fatal(err)
		}
		if err := r.WriteRange(context.Background(), io.Discard, 0, 4096); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
