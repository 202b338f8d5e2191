package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// bareRate is how many writes of n bytes, each followed by a sync, one goroutine
// does per second in a file of full length.
func bareRate(b *testing.B, n int) float64 {
	f, err := vfs.OS().OpenFile("bench", filepath.Join(b.TempDir(), "bare"), os.O_CREATE|os.O_RDWR, 0o600)
	must(b, err)
	defer f.Close()
	must(b, f.Truncate("bench", DefaultSegmentBytes))
	must(b, f.Sync("bench"))
	buf, start, count := make([]byte, n), time.Now(), 0
	for ; time.Since(start) < 500*time.Millisecond; count++ {
		_, err := f.WriteAt(buf, int64(count*n))
		must(b, err)
		must(b, f.Sync("bench"))
	}
	return float64(count) / time.Since(start).Seconds()
}

// BenchmarkStoreLogs has 1, 64 and 256 goroutines store entries of 256 bytes in
// 64 groups, beside the bare write+fdatasync rate of the same disk.
func BenchmarkStoreLogs(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			bare := bareRate(b, 384)
			l := mustOpen(b, Options{Dir: b.TempDir()})
			var next [64]atomic.Uint64
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					g := l.Group(object.PartitionID(c % 64))
					for left.Add(-1) >= 0 {
						if err := g.StoreLog(entryOf(step{term: 1, size: 256}, next[c%64].Add(1))); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			rate := float64(b.N) / b.Elapsed().Seconds()
			b.StopTimer()
			b.ReportMetric(rate, "entries/s")
			b.ReportMetric(rate/bare, "x-bare-fsync")
			b.ReportMetric(float64(b.N)/float64(l.Stats().Batches), "entries/batch")
			must(b, l.Close())
		})
	}
}

// BenchmarkOpen opens a log of 200,000 entries in 16 groups, cleanly closed.
func BenchmarkOpen(b *testing.B) {
	o := Options{Dir: b.TempDir()}
	l := mustOpen(b, o)
	for i := range uint64(2000) {
		must(b, (step{what: "store", group: object.PartitionID(i % 16), lo: i*100 + 1, hi: i*100 + 100, size: 256}).run(l))
	}
	must(b, l.Close())
	b.ResetTimer()
	for range b.N {
		l := mustOpen(b, o)
		b.StopTimer()
		must(b, l.Close())
		b.StartTimer()
	}
}
