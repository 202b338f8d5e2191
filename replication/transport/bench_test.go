package transport

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func secretsFor(secure bool) []Secret {
	if secure {
		return []Secret{NewSecret()}
	}
	return nil
}

func cpuTime(b testing.TB) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// leaders waits until every group can commit.
func leaders(b testing.TB, c *cluster) []*replica {
	out := make([]*replica, len(c.reps))
	for g := range out {
		c.commit(b, g, "ready")
		out[g] = c.leader(b, g)
	}
	return out
}

// BenchmarkIdle reports the CPU of one of three nodes without work, in percent
// of a core: raft, transport and TLS, logs in memory.
func BenchmarkIdle(b *testing.B) {
	for _, groups := range []int{0, 1, 16, 64} {
		for _, secure := range []bool{false, true} {
			b.Run(fmt.Sprintf("groups=%d/tls=%v", groups, secure), func(b *testing.B) {
				c := startCluster(b, groups, 3, secretsFor(secure)...)
				leaders(b, c)
				for range b.N {
					before, start := cpuTime(b), time.Now()
					<-time.After(4 * time.Second)
					b.ReportMetric(100*float64(cpuTime(b)-before)/float64(time.Since(start))/3, "%core")
				}
			})
		}
	}
}

// BenchmarkCommit commits 256-byte entries on three nodes in this process, logs
// in memory: what raft and transport can do.
func BenchmarkCommit(b *testing.B) {
	for _, secure := range []bool{false, true} {
		for _, groups := range []int{1, 64} {
			for _, proposers := range []int{1, 16, 64, 256} {
				b.Run(fmt.Sprintf("tls=%v/groups=%d/proposers=%d", secure, groups, proposers), func(b *testing.B) {
					c := startCluster(b, groups, 3, secretsFor(secure)...)
					lead := leaders(b, c)
					before := cpuTime(b)
					b.ResetTimer()
					spread(b, proposers, func(i int64) error {
						return lead[i%int64(groups)].r.Apply(make([]byte, 256), 5*time.Second).Error()
					})
					b.StopTimer()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
					b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/commit")
				})
			}
		}
	}
}

// spread runs f b.N times on so many goroutines.
func spread(b *testing.B, workers int, f func(i int64) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkConfirm measures the read point of the sent-after rule.
func BenchmarkConfirm(b *testing.B) {
	for _, readers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			c := startCluster(b, 1, 3, NewSecret())
			lead := leaders(b, c)[0]
			term := lead.r.CurrentTerm()
			var peers []string
			for _, n := range c.nodes {
				if n != lead.g.n {
					peers = append(peers, n.opt.Node)
				}
			}
			b.ResetTimer()
			spread(b, readers, func(int64) error { return lead.g.Confirm(b.Context(), term, peers, 1) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
		})
	}
}

func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 64} {
		for _, size := range []int{256, 64 << 10} {
			b.Run(fmt.Sprintf("callers=%d/bytes=%d", callers, size), func(b *testing.B) {
				a, _, _ := pair(b)
				req := make([]byte, size)
				b.SetBytes(int64(2 * size))
				spread(b, callers, func(int64) error {
					_, err := a.Call(context.Background(), "b", testMethod, req)
					return err
				})
			})
		}
	}
}

func BenchmarkBulk(b *testing.B) {
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", secure), func(b *testing.B) {
			bk, s := &book{}, secretsFor(secure)
			a, z := open(b, bk, Options{Node: "a", Secrets: s}), open(b, bk, Options{Node: "b", Secrets: s})
			body := make([]byte, 4<<20)
			z.HandleHTTP(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(body) }))
			b.SetBytes(int64(len(body)))
			for range b.N {
				resp, err := a.HTTPClient("b").Get("http://b/")
				must(b, err)
				_, err = io.Copy(io.Discard, resp.Body)
				must(b, err)
				_ = resp.Body.Close()
			}
		})
	}
}

func BenchmarkDecodeAppend(b *testing.B) {
	req := &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 10, PrevLogTerm: 4}
	for i := range 64 {
		req.Entries = append(req.Entries, &raft.Log{Index: uint64(11 + i), Term: 5, Data: make([]byte, 256), AppendedAt: time.Now()})
	}
	buf := appendRequest(nil, 1, req)
	b.SetBytes(int64(len(buf)))
	for range b.N {
		if _, _, err := decodeRequest(buf); err != nil {
			b.Fatal(err)
		}
	}
}
