package replication

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func FuzzRanges(f *testing.F) {
	s := &rangeSums{epoch: 7}
	s.add(object.ChunkID{Owner: 1, Ordinal: 3})
	f.Add(s.encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeRanges(b); err == nil && !bytes.Equal(s.encode(), b) {
			t.Fatalf("%x became %+v", b, s)
		}
	})
}

// checkRanges: of owners that have no replica at a node, the leader's sums agree with the
// node's files; a file that goes is told by its range, and comes back.
func checkRanges(t *testing.T, nodes []*Node) {
	t.Helper()
	asked := 0
	for _, c := range liveChunks(t, nodes[0]) {
		i := slices.IndexFunc(nodes, func(n *Node) bool {
			return n.parts[c.ID.Owner].here.Load() == nil && n.holdsNow(placement.NodeID(n.cfg.NodeID), c)
		})
		if i < 0 {
			continue
		}
		n := nodes[i]
		eventually(t, "the same map at the owner", func() error {
			if list, err := n.differing(t.Context(), c.ID.Owner); err != nil || len(list) > 0 {
				return fmt.Errorf("ranges %d of partition %d differ: %v", list, c.ID.Owner, err)
			}
			return nil
		})
		if err := n.chunks.Delete(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		if list, err := n.differing(t.Context(), c.ID.Owner); err != nil || len(list) != 1 || list[0] != int(c.ID.Upload[0]) {
			t.Fatalf("ranges %d differ, %v went: %v", list, c.ID, err)
		}
		if left, err := n.compare(t.Context()); left || err != nil {
			t.Fatalf("left %v, %v", left, err)
		}
		if ok, err := n.chunks.Has(c.ID); err != nil || !ok {
			t.Fatalf("%v did not come back: %v", c.ID, err)
		}
		if asked++; asked == 3 {
			break
		}
	}
	if asked == 0 {
		t.Fatal("no chunk of an owner elsewhere")
	}
}
