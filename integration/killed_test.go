package integration

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// probeTime is within what all partitions have to be readable and writable again
// after a node was killed.
const probeTime = 30 * time.Second

const probeBucket = "probes"

// load is a mixed load on a cluster: none of its operations may fail.
type load struct {
	t       testing.TB
	c       *harness.Cluster
	writers []*writer
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu      sync.Mutex    // guards slowest
	slowest time.Duration // operation
}

// startLoad has this many writers work through all nodes until end.
func startLoad(t testing.TB, c *harness.Cluster, writers int, seed uint64) *load {
	t.Helper()
	l := &load{t: t, c: c}
	for i := range writers {
		w := newWriter(fmt.Sprintf("w%d/", i), seed+uint64(i))
		w.sizes = []int{0, 100, 4096, 16<<10 + 1, 100_000}
		l.writers = append(l.writers, w)
	}
	l.resume()
	return l
}

// resume goes on after end.
func (l *load) resume() {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.stop = cancel
	for i, w := range l.writers {
		c := anywhere(l.t, l.c, i, api.ClientOptions{})
		l.done.Go(func() { l.work(ctx, c, w) })
	}
}

func (l *load) work(working context.Context, c *api.Client, w *writer) {
	for working.Err() == nil {
		w.pending = maps.Clone(w.state)
		start := time.Now()
		if err := w.change(l.t.Context(), c); err != nil {
			l.t.Errorf("after %s: %s: %v", time.Since(start).Round(time.Millisecond), w.prefix, err)
			return
		}
		w.state, w.pending = w.pending, nil
		w.acknowledged++
		l.mu.Lock()
		l.slowest = max(l.slowest, time.Since(start))
		l.mu.Unlock()
	}
}

// end lets the operations under way finish, and tells how many there were and how
// long the slowest took.
func (l *load) end() (acknowledged int, slowest time.Duration) {
	l.stop()
	l.done.Wait()
	for _, w := range l.writers {
		acknowledged += w.acknowledged
	}
	return acknowledged, l.slowest
}

// probes are keys of which each partition has one.
func probes(t testing.TB, c *api.Client, partitions int) map[object.PartitionID]string {
	t.Helper()
	keys := map[object.PartitionID]string{}
	for i := 0; len(keys) < partitions; i++ {
		if i > 50*partitions {
			t.Fatalf("after %d directories only %d of %d partitions have one", i, len(keys), partitions)
		}
		key := fmt.Sprintf("probe%d/x", i)
		o, err := c.Put(t.Context(), probeBucket, key, strings.NewReader("first"), api.PutOptions{})
		check(t, err)
		keys[object.InodeID(o.Inode).Partition()] = key
	}
	return keys
}

// serve waits until every partition is readable and writable through each of the
// nodes, asked once a time, and tells how long that took.
func serve(t testing.TB, keys map[object.PartitionID]string, nodes []*harness.Node) time.Duration {
	t.Helper()
	start := time.Now()
	var g errgroup.Group
	for _, n := range nodes {
		c := client(t, n, api.ClientOptions{Retries: -1, AnswerTimeout: 5 * time.Second})
		for part, key := range keys {
			g.Go(func() error {
				err := harness.Poll(t.Context(), probeTime, func() error {
					_, err := c.Head(t.Context(), probeBucket, key, api.Conditions{})
					if err == nil {
						_, err = c.Put(t.Context(), probeBucket, key, strings.NewReader(n.ID), api.PutOptions{})
					}
					return err
				})
				if err != nil {
					return fmt.Errorf("partition %d at %s: %w", part, n.ID, err)
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Errorf("not all partitions serve %s after the kill: %v", time.Since(start).Round(time.Millisecond), err)
	}
	return time.Since(start)
}

// others are the nodes but one.
func others(c *harness.Cluster, but int) (nodes []*harness.Node) {
	for i, n := range c.Nodes {
		if i != but {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// TestNodeKilledUnderLoad: with any one of three nodes killed, no operation fails
// that is retried, every partition soon serves again, and the node that comes back
// is repaired byte for byte, all under load.
func TestNodeKilledUnderLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const partitions = 8
	c := newCluster(t, harness.ClusterOptions{Nodes: 3})
	first := anywhere(t, c, 0, api.ClientOptions{})
	for _, bucket := range []string{"box", probeBucket} {
		_, err := first.CreateBucket(t.Context(), bucket, "")
		check(t, err)
	}
	keys := probes(t, first, partitions)
	l := startLoad(t, c, 4, seed)
	for range need.Size(1, 5) {
		for victim := range c.Nodes {
			check(t, c.Nodes[victim].Kill())
			t.Logf("%s killed: all partitions serve again after %s", c.Nodes[victim].ID, serve(t, keys, others(c, victim)).Round(time.Millisecond))
			check(t, c.Nodes[victim].Start(t.Context()))
			check(t, c.Settled(t.Context(), c.Nodes[victim], 3, settleTime))
			serve(t, keys, c.Nodes)
			if t.Failed() {
				l.end()
				t.FailNow()
			}
		}
	}
	ops, slowest := l.end()
	t.Logf("%d changes, the slowest took %s", ops, slowest.Round(time.Millisecond))
	if ops < 100 {
		t.Errorf("only %d changes: this is no load", ops)
	}
	for _, n := range c.Nodes {
		verifyAll(t, n, l.writers)
	}
	repaired(t, c.Nodes)
}

// repaired waits until every chunk is at three of the nodes, byte for byte: what one
// missed was repaired, and what was released is gone. The nodes are restarted first:
// uploads that a crash cut off stay where they came to until a node's next audit for
// orphans, which is at its start or in an hour.
func repaired(t testing.TB, nodes []*harness.Node) {
	t.Helper()
	for _, n := range nodes {
		check(t, n.Stop())
		check(t, n.Start(t.Context()))
	}
	check(t, harness.Poll(t.Context(), settleTime, func() error {
		holders, sums := map[string][]string{}, map[string][32]byte{}
		for _, n := range nodes {
			chunks, err := chunkSums(n)
			if err != nil {
				return err
			}
			for name, sum := range chunks {
				if first, ok := sums[name]; ok && first != sum {
					return fmt.Errorf("chunk %s at %s differs from that at %s", name, n.ID, holders[name][0])
				}
				holders[name], sums[name] = append(holders[name], n.ID), sum
			}
		}
		for name, at := range holders {
			if len(at) != 3 {
				return fmt.Errorf("chunk %s, one of %d, is at %v", name, len(sums), at)
			}
		}
		if len(sums) == 0 {
			return errors.New("there are no chunks at all")
		}
		return nil
	}))
}

// chunkSums are the digests of the node's chunk files by name.
func chunkSums(n *harness.Node) (map[string][32]byte, error) {
	chunks := map[string][32]byte{}
	root := filepath.Join(n.Storage(), "chunks") // not what is uploaded or in quarantine
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		b, err := os.ReadFile(path)
		if err == nil {
			chunks[strings.TrimPrefix(path, root+"/")] = sha256.Sum256(b)
		}
		return ignoreGone(err)
	})
	return chunks, err
}

// ignoreGone drops the error of a file that went while we looked.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
