package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
)

const stillBucket = "still"

// still is data that nobody changes: each of its chunks has three copies, all the time.
type still struct {
	t      testing.TB
	sums   map[string][32]byte // of its chunk files, by name
	bodies map[string][32]byte // of its objects, by key
	bytes  int64               // of one copy of all
}

// keepStill writes it, and waits until each chunk has its copies.
func keepStill(t testing.TB, c *harness.Cluster) *still {
	t.Helper()
	cl := anywhere(t, c, 0, api.ClientOptions{})
	rng := rand.NewChaCha8([32]byte{7})
	_, err := cl.CreateBucket(t.Context(), stillBucket, "")
	check(t, err)
	s := &still{t: t, bodies: map[string][32]byte{}, bytes: need.Size[int64](32<<20, 256<<20)}
	body := make([]byte, 512<<10)
	for i := range s.bytes / int64(len(body)) {
		_, _ = rng.Read(body)
		key := fmt.Sprint(i)
		s.bodies[key] = sha256.Sum256(body)
		_, err := cl.Put(t.Context(), stillBucket, key, bytes.NewReader(body), api.PutOptions{})
		check(t, err)
	}
	check(t, harness.Poll(t.Context(), settleTime, func() error {
		at, err := holders(c.Nodes)
		if err != nil {
			return err
		}
		if len(at) != len(s.bodies) {
			return fmt.Errorf("there are %d chunks", len(at))
		}
		for name, list := range at {
			if len(list) != 3 {
				return fmt.Errorf("chunk %s has %d copies", name, len(list))
			}
		}
		return nil
	}))
	s.sums, err = chunkSums(c.Nodes[0])
	check(t, err)
	return s
}

// watch looks again and again, until done is called, whether each chunk has three copies at
// least, and compares each new copy once an old one has gone. The nodes are looked at in
// order: who loses chunks stands before who gets them, so that a copy which went after the new
// one was there is never missed.
func (s *still) watch(nodes []*harness.Node) (done func()) {
	s.t.Helper()
	before, err := holders(nodes)
	check(s.t, err)
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	rounds, compared := 0, map[string]bool{}
	look := func() error {
		at, err := holders(nodes)
		if err != nil {
			return err
		}
		for name, sum := range s.sums {
			if len(at[name]) < 3 {
				return fmt.Errorf("only %d nodes have chunk %s", len(at[name]), name)
			}
			gone := slices.ContainsFunc(before[name], func(n *harness.Node) bool { return !slices.Contains(at[name], n) })
			for _, n := range at[name] {
				id := n.ID + "/" + name
				if !gone || compared[id] || slices.Contains(before[name], n) {
					continue
				}
				compared[id] = true
				if b, err := os.ReadFile(filepath.Join(chunksBelow(n), name)); err != nil || sha256.Sum256(b) != sum {
					return fmt.Errorf("an old copy of chunk %s is gone, and the new one at %s differs: %w", name, n.ID, err)
				}
			}
		}
		rounds++
		return nil
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := look(); err != nil {
				s.t.Error(err)
				return
			}
			select { // not a wait: the nodes need the disk
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
		s.t.Logf("%d looks at %d chunks, %d new copies compared", rounds, len(s.sums), len(compared))
		if len(compared) == 0 {
			s.t.Error("no chunk was seen to move")
		}
	}
}

// holders are the nodes that have each chunk file, in the order of nodes.
func holders(nodes []*harness.Node) (map[string][]*harness.Node, error) {
	at := map[string][]*harness.Node{}
	for _, n := range nodes {
		list, err := chunkSizes(n)
		if err != nil {
			return nil, err
		}
		for name := range list {
			at[name] = append(at[name], n)
		}
	}
	return at, nil
}

// whole reads everything at a node.
func (s *still) whole(n *harness.Node) {
	s.t.Helper()
	c := client(s.t, n, api.ClientOptions{})
	for key, sum := range s.bodies {
		r, err := c.Get(s.t.Context(), stillBucket, key, api.GetOptions{})
		check(s.t, err)
		h := sha256.New()
		_, err = io.Copy(h, r)
		if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(h.Sum(nil), sum[:]) {
			s.t.Errorf("%s at %s differs: %v", key, n.ID, err)
		}
	}
}

func chunksBelow(n *harness.Node) string { return filepath.Join(n.Storage(), "chunks") }

// chunkSizes are the sizes of a node's chunk files by name.
func chunkSizes(n *harness.Node) (map[string]int64, error) {
	list := map[string]int64{}
	root := chunksBelow(n)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err == nil {
			list[strings.TrimPrefix(path, root+"/")] = info.Size()
		}
		return ignoreGone(err)
	})
	return list, err
}

// fetchedBytes is what all nodes have fetched from others since they started. None may have
// started anew in between.
func fetchedBytes(t testing.TB, c *api.Client) (sum int64) {
	t.Helper()
	check(t, harness.Poll(t.Context(), settleTime, func() error {
		list, err := c.ClusterNodes(t.Context())
		if err != nil {
			return err
		}
		sum = 0
		for _, n := range list.Nodes {
			if !n.Reachable {
				return errors.New(n.ID + " does not answer")
			}
			sum += n.Chunks.RepairedBytes
		}
		return nil
	}))
	return sum
}

// even: each node has as many replicas as any other, or one more.
func even(t testing.TB, c *api.Client, nodes int) {
	t.Helper()
	p, err := c.ClusterPartitions(t.Context())
	check(t, err)
	at := map[string]int{}
	for _, x := range p.Partitions[1:] { // the control group is another matter
		for _, r := range x.Replicas {
			at[r.Node]++
		}
	}
	least, most := 1<<30, 0
	for _, n := range at {
		least, most = min(least, n), max(most, n)
	}
	if len(at) != nodes || most-least > 1 {
		t.Errorf("the replicas are not even: %v", at)
	}
}
