package replication

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// testGroups are the chunk groups of a cluster in tests: enough for every node to get some.
const testGroups = 16

// eventually is waitFor for what takes a cluster some rounds; it shows what it waits for.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for %s: %v", what, err)
		}
	}
}

// placed waits until every chunk group is where the plan has it, on so many nodes.
func placed(t testing.TB, n *Node, holders int, nodes ...*Node) *control.State {
	t.Helper()
	var s *control.State
	eventually(t, "the chunk groups at their places", func() (err error) {
		if s, err = n.Control(t.Context()); err != nil {
			return err
		}
		if s.Planned < s.Inputs {
			return fmt.Errorf("no plan yet")
		}
		for _, l := range s.Layouts {
			for i, g := range l.Groups {
				if g.Next != nil || !slices.Equal(g.Holders, l.Target[i]) {
					return fmt.Errorf("group %d is on %q, going to %q, planned %q", i, g.Holders, g.Next, l.Target[i])
				}
				if have := len(g.Holders) - count(g.Holders, placement.None); have != holders {
					return fmt.Errorf("group %d is on %q", i, g.Holders)
				}
			}
		}
		for _, x := range nodes {
			if x.adopted() < s.Epoch {
				return fmt.Errorf("%s has adopted epoch %d of %d", x.cfg.NodeID, x.adopted(), s.Epoch)
			}
		}
		return nil
	})
	return s
}

func count(list []placement.NodeID, id placement.NodeID) (n int) {
	for _, x := range list {
		if x == id {
			n++
		}
	}
	return n
}

// liveChunks are all that the owners have.
func liveChunks(t testing.TB, n *Node) (list []namespace.ChunkRef) {
	t.Helper()
	for id := range n.ids(firstData) {
		if err := n.inView(t.Context(), id, func(v *namespace.View) error {
			some, err := v.Chunks(object.ChunkID{}, 1<<20)
			list = append(list, some...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// missingAt says which copies of live chunks are not at their holders, whole.
func missingAt(list []namespace.ChunkRef, places *places, nodes []*Node) error {
	for _, c := range list {
		site, err := places.locate(c.ID, copies.SchemeOf(c.Scheme))
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if site.Shard(placement.NodeID(n.cfg.NodeID)) < 0 {
				continue
			}
			if _, err := n.chunks.ReadAll(context.Background(), c.ID, [32]byte(c.SHA256)); err != nil {
				return fmt.Errorf("chunk %v at %s: %w", c.ID, n.cfg.NodeID, err)
			}
		}
	}
	return nil
}

// complete waits until every holder has its copy of every live chunk, byte for byte.
func complete(t testing.TB, nodes []*Node) []namespace.ChunkRef {
	t.Helper()
	list := liveChunks(t, nodes[0])
	if len(list) == 0 {
		t.Fatal("no chunks at all")
	}
	eventually(t, "all chunks at their holders", func() error { return missingAt(list, nodes[0].places, nodes) })
	return list
}

// objects are what a test wrote, by key.
type objects map[string]string

func (o objects) put(t testing.TB, n *Node, key string, size int) {
	t.Helper()
	b := strings.Repeat(key+"|", size/len(key)+1)[:size]
	if _, err := n.Put(t.Context(), "box", key, strings.NewReader(b), PutOptions{Size: int64(size)}); err != nil {
		t.Fatalf("%s at %s: %v", key, n.cfg.NodeID, err)
	}
	o[key] = b
}

func (o objects) check(t testing.TB, n *Node) {
	t.Helper()
	for key, want := range o {
		r, err := n.OpenObject(t.Context(), "box", key)
		if err != nil {
			t.Fatalf("%s at %s: %v", key, n.cfg.NodeID, err)
		}
		var b bytes.Buffer
		err = r.WriteRange(t.Context(), &b, 0, r.Inode().Size)
		r.Close()
		if err != nil || b.String() != want {
			t.Fatalf("%s at %s has %d bytes of %d, or others: %v", key, n.cfg.NodeID, b.Len(), len(want), err)
		}
	}
}

// joinNode opens another node of a cluster; id is its name.
func joinNode(t testing.TB, first *Node, id string) *Node {
	t.Helper()
	cfg := memberConfig(t, id)
	if first != nil {
		cfg.Join = []string{first.cfg.Peer}
	}
	return openMember(t, cfg)
}

func memberConfig(t testing.TB, id string) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.NodeID, cfg.API, cfg.Peer, cfg.LeasePeriod, cfg.groups = id, "127.0.0.1:1", freeAddress(t), 30*time.Second, testGroups
	return cfg
}

func openMember(t testing.TB, cfg Config) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := Open(ctx, cfg)
	if err != nil {
		t.Fatalf("node %s: %v", cfg.NodeID, err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// TestChunksMove: what a node wrote alone, and what is written while others join, ends at
// all three holders; then any one of them may be lost.
func TestChunksMove(t *testing.T) {
	first := joinNode(t, nil, "n1")
	if _, err := first.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	wrote := objects{}
	for i := range 20 {
		wrote.put(t, first, fmt.Sprintf("alone/%d", i), 150_000)
	}
	nodes := []*Node{first}
	for _, id := range []string{"n2", "n3"} {
		nodes = append(nodes, joinNode(t, first, id))
		for i := range 10 {
			wrote.put(t, nodes[i%len(nodes)], fmt.Sprintf("while %s joins/%d", id, i), 150_000)
		}
	}
	placed(t, first, 3, nodes...)
	for i := range 10 {
		wrote.put(t, nodes[i%3], fmt.Sprintf("after/%d", i), 150_000)
	}
	list := complete(t, nodes)
	for _, n := range nodes {
		for _, c := range list {
			if ok, err := n.chunks.Has(c.ID); err != nil || !ok {
				t.Fatalf("%v is not at %s: %v", c.ID, n.cfg.NodeID, err)
			}
		}
		wrote.check(t, n)
	}
	settled(t, first)
	// The founder had all of it alone; now it goes.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[1:] {
		wrote.check(t, n)
	}
	wrote.put(t, nodes[2], "without the founder", 150_000)
	wrote.check(t, nodes[1])
}
