package replication

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"net"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Clusters of nodes in this process: members makes one, inForce waits for it.

// testGroups are the chunk groups of a cluster in tests: enough for every node to get some.
const testGroups = 16

// freeAddress is where nobody listens. Its host is of its own: until the node listens, no
// connection and no node of another test gets the port.
func freeAddress(t testing.TB) string {
	t.Helper()
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.Intn(254), rand.Intn(256), 1+rand.Intn(254))
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// memberConfig is that of a node which others reach.
func memberConfig(t testing.TB, id string) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.NodeID, cfg.API, cfg.Peer, cfg.LeasePeriod = id, "127.0.0.1:1", freeAddress(t), 30*time.Second
	return cfg
}

// openMember opens a node, anew or on its directories again, until the test ends.
func openMember(t testing.TB, cfg Config) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	n, err := Open(ctx, cfg)
	if err != nil {
		t.Fatalf("node %s: %v", cfg.NodeID, err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// joinNode opens another node of the cluster of first, or (nil) founds one; id is its name.
func joinNode(t testing.TB, first *Node, id string) *Node {
	t.Helper()
	cfg := memberConfig(t, id)
	if first != nil {
		cfg.Join = []string{first.cfg.Peer}
	}
	return openMember(t, cfg)
}

// members is a cluster of so many nodes, n1 and so on: the first founded it, the others
// joined, one after the other. Change, if there is one, changes the configuration of each.
func members(t testing.TB, count int, change func(i int, cfg *Config)) (nodes []*Node) {
	t.Helper()
	for i := range count {
		cfg := memberConfig(t, fmt.Sprintf("n%d", i+1))
		if i > 0 {
			cfg.Join = []string{nodes[0].cfg.Peer}
		}
		if change != nil {
			change(i, &cfg)
		}
		nodes = append(nodes, openMember(t, cfg))
	}
	return nodes
}

// threeNodes is a cluster of three.
func threeNodes(t testing.TB) []*Node {
	t.Helper()
	return members(t, 3, nil)
}

// twoNodes is a cluster of two with the bucket "box".
func twoNodes(t testing.TB, change func(i int, cfg *Config)) []*Node {
	t.Helper()
	nodes := members(t, 2, change)
	if _, err := nodes[0].CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// inForce waits until the plan is carried out, and the control group has so many voters
// and every other partition so many replicas.
func inForce(t testing.TB, n *Node, voters, replicas int) {
	t.Helper()
	there := func() error {
		s, err := n.Control(t.Context())
		if err != nil {
			return err
		}
		for _, p := range s.Partitions {
			good := 0
			for _, r := range p.Replicas {
				if r.State == control.InForce {
					good++
				}
			}
			// The control group has those besides that only follow it.
			if p.ID == object.Control && good != voters || p.ID != object.Control && (good != replicas || good != len(p.Replicas)) {
				return fmt.Errorf("partition %d is on %+v", p.ID, p.Replicas)
			}
		}
		// Between two moves of a plan a partition may have as many, elsewhere than in the end.
		if o, err := n.View(t.Context()); err != nil || !o.Progress.Planned || o.Progress.PartitionsLeft > 0 {
			return fmt.Errorf("the plan is under way: %+v, %w", o, err)
		}
		return nil
	}
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := there()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %d replicas of every partition: %v", replicas, err)
		}
	}
}

// settled waits until every partition has three replicas in force.
func settled(t testing.TB, n *Node) {
	t.Helper()
	inForce(t, n, 3, 3)
}

// putAgain puts as clients do: a busy machine deposes leaders, and what is not known is asked
// again with the same token.
func putAgain(t testing.TB, n *Node, bucket, key string, body []byte) error {
	t.Helper()
	tok := newToken()
	for attempt := 0; ; attempt++ {
		_, err := n.Put(WithToken(t.Context(), tok), bucket, key, bytes.NewReader(body), PutOptions{Size: int64(len(body))})
		if !uncertain(err) && !object.IsKind(err, object.KindUnavailable) || attempt == 9 {
			return err
		}
		tok.Retry = true
	}
}
