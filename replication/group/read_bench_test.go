package group_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkSeveral measures three replicas in one process, over raft's in-memory
// network, on one disk: reads by the sent-after rule, and durable commits.
func BenchmarkSeveral(b *testing.B) {
	c := newCluster(b, 3)
	lead := c.all[0]
	c.put(lead, "k")
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("read/callers=%d", callers), func(b *testing.B) {
			probes := lead.wire.probed()
			measure(b, callers, func(int64) error { return lead.Read(b.Context()) })
			b.ReportMetric(float64(lead.wire.probed()-probes)/float64(b.N), "requests/read")
		})
	}
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("propose/callers=%d", callers), func(b *testing.B) {
			measure(b, callers, func(i int64) error {
				_, err := lead.Propose(b.Context(), fmt.Appendf(nil, "%0256d", i))
				return err
			})
		})
	}
}

func (w *wire) probed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes
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
