package group

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPropose measures durable commits of one group (a flat bucket) and of
// many, with 256-byte commands.
func BenchmarkPropose(b *testing.B) {
	for _, groups := range []int{1, 64} {
		for _, proposers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("groups=%d/proposers=%d", groups, proposers), func(b *testing.B) {
				n := openNode(b, b.TempDir(), groups, 64<<20)
				waitReady(b, n)
				var next atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for p := range proposers {
					wg.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							g := n.groups[i%int64(groups)]
							if _, err := g.Propose(b.Context(), fmt.Appendf(nil, "%04d%0252d", p, i)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
				n.close(b)
			})
		}
	}
}

// BenchmarkIdle reports the CPU that 65 groups without work take, in percent of
// one core, over three seconds.
func BenchmarkIdle(b *testing.B) {
	n := openNode(b, b.TempDir(), 65, 64<<20)
	waitReady(b, n)
	for range b.N {
		before, start := cpuTime(b), time.Now()
		<-time.After(3 * time.Second)
		b.ReportMetric(100*float64(cpuTime(b)-before)/float64(time.Since(start)), "%core")
	}
	n.close(b)
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
