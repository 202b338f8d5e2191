package access

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAccess measures three replicas and a node without one, in one process on
// one disk, over mTLS: durable proposals and linearizable reads of one file, at the
// leader, at a follower, and at the node without a replica.
func BenchmarkAccess(b *testing.B) {
	c := start(b)
	id := c.file("f")
	for _, at := range []struct {
		name string
		*node
	}{{"leader", c.all[0]}, {"follower", c.all[1]}, {"elsewhere", c.all[3]}} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("propose/%s/callers=%d", at.name, callers), func(b *testing.B) {
				measure(b, callers, func(i int64) error {
					r, err := at.do(b.Context(), write(id, uint64(i)))
					if err == nil {
						err = r.Err()
					}
					return err
				})
			})
			if at.name != "elsewhere" { // the tests' views there copy the state
				b.Run(fmt.Sprintf("view/%s/callers=%d", at.name, callers), func(b *testing.B) {
					measure(b, callers, func(int64) error {
						_, err := at.read(b.Context(), id)
						return err
					})
				})
			}
			b.Run(fmt.Sprintf("snapshot/%s/callers=%d", at.name, callers), func(b *testing.B) {
				measure(b, callers, func(int64) error {
					s, err := at.Snapshot(b.Context(), part)
					if err != nil {
						return err
					}
					defer s.Close()
					_, _, err = s.Get([]byte("k"))
					return err
				})
			})
		}
	}
}

func measure(b *testing.B, callers int, call func(i int64) error) {
	took := make([]time.Duration, b.N+1)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				start := time.Now()
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	took = took[1:]
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
}
