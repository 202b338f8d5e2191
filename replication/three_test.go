package replication

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/control"
)

// freeAddress is a port that nobody listens at.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// threeNodes is a cluster of three: the first founded it, the others joined.
func threeNodes(t testing.TB) []*Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var nodes []*Node
	for i := range 3 {
		cfg := testConfig(t)
		cfg.NodeID, cfg.API, cfg.Peer, cfg.LeasePeriod = fmt.Sprintf("n%d", i+1), "127.0.0.1:1", freeAddress(t), 30*time.Second
		if i > 0 {
			cfg.Join = []string{nodes[0].cfg.Peer}
		}
		n, err := Open(ctx, cfg)
		if err != nil {
			t.Fatalf("node %d: %v", i+1, err)
		}
		t.Cleanup(func() { _ = n.Close() })
		nodes = append(nodes, n)
	}
	return nodes
}

// settled waits until every partition has three voters in the map.
func settled(t testing.TB, n *Node) {
	t.Helper()
	waitFor(t, "three replicas of every partition", func() bool {
		s, err := n.Control(t.Context())
		if err != nil {
			return false
		}
		for _, p := range s.Partitions {
			good := 0
			for _, r := range p.Replicas {
				if r.State == control.InForce {
					good++
				}
			}
			if good != 3 || len(p.Replicas) != 3 {
				return false
			}
		}
		return true
	})
}

// TestThreeNodes: what is written at any node is read at every other, before and
// after the partitions have spread, and with any one of them gone.
func TestThreeNodes(t *testing.T) {
	nodes := threeNodes(t)
	if _, err := nodes[1].CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	name := func(round, i int) string { return fmt.Sprintf("dir%d/%d-%d", i%5, round, i) }
	body := func(key string, i int) string {
		if i%10 == 0 { // in chunks
			return strings.Repeat(key, 20_000)
		}
		return key
	}
	put := func(round, i int) error {
		key := name(round, i)
		b := body(key, i)
		_, err := nodes[i%len(nodes)].Put(t.Context(), "box", key, strings.NewReader(b), PutOptions{Size: int64(len(b))})
		return err
	}
	get := func(n *Node, round, i int) error {
		key := name(round, i)
		r, err := n.OpenObject(t.Context(), "box", key)
		if err != nil {
			return fmt.Errorf("%s at %s: %w", key, n.cfg.NodeID, err)
		}
		defer r.Close()
		var b bytes.Buffer
		if err := r.WriteRange(t.Context(), &b, 0, r.Inode().Size); err != nil || b.String() != body(key, i) {
			return fmt.Errorf("%s at %s has %d bytes, or others: %w", key, n.cfg.NodeID, b.Len(), err)
		}
		return nil
	}
	round := func(r int) {
		t.Helper()
		var g errgroup.Group
		for i := range 30 {
			g.Go(func() error { return put(r, i) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			for _, n := range nodes {
				if err := get(n, r, i); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	round(0)
	settled(t, nodes[2])
	round(1)
	if err := nodes[2].Close(); err != nil {
		t.Fatal(err)
	}
	nodes = nodes[:2]
	round(2)
}
