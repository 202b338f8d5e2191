package replication

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

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
		return putAgain(t, nodes[i%len(nodes)], "box", key, []byte(body(key, i)))
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
