package replication

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// cpuSeconds is the processor time of this process, which other work on the
// machine changes less than the time on the clock.
func cpuSeconds() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for RUSAGE_SELF
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkChunks is bodies that are chunks, alone on a node: 64 KiB from 64 clients
// at a time, and 64 MiB from one, put and read.
func BenchmarkChunks(b *testing.B) {
	open := func(b *testing.B) *Node {
		cfg := testConfig(b)
		cfg.Partitions, cfg.ChunkSize = 64, DefaultChunkSize
		n := openNode(b, cfg)
		if _, err := n.CreateBucket(context.Background(), "box", "me"); err != nil {
			b.Fatal(err)
		}
		return n
	}
	run := func(b *testing.B, clients int, size int64, do func(i int64) error) {
		b.SetBytes(size)
		var next atomic.Int64
		var all sync.WaitGroup
		began := cpuSeconds()
		b.ResetTimer()
		for range clients {
			all.Go(func() {
				for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
					if err := do(i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		b.ReportMetric((cpuSeconds()-began)/float64(b.N)*1e6, "cpu-µs/op")
	}
	put := func(n *Node, body []byte) func(int64) error {
		return func(i int64) error {
			_, err := n.Put(context.Background(), "box", fmt.Sprintf("k%d", i%512), bytes.NewReader(body), PutOptions{Size: int64(len(body))})
			return err
		}
	}
	b.Run("put=64K/clients=64", func(b *testing.B) {
		run(b, 64, 64<<10, put(open(b), randomBytes(1, 64<<10)))
	})
	big := randomBytes(2, 64<<20)
	b.Run("put=64M", func(b *testing.B) { run(b, 1, int64(len(big)), put(open(b), big)) })
	b.Run("get=64M", func(b *testing.B) {
		n := open(b)
		mustPut(b, n, "big", big)
		run(b, 1, int64(len(big)), func(int64) error {
			r, err := n.OpenObject(context.Background(), "box", "big")
			if err != nil {
				return err
			}
			defer r.Close()
			return r.WriteRange(context.Background(), io.Discard, 0, int64(len(big)))
		})
	})
}
