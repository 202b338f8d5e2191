package replication

import (
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Who asks from before a gap is told of it, whatever else happens meanwhile.
func TestAGapIsNotForgotten(t *testing.T) {
	h := newHub()
	h.publish(7, []namespace.Event{{Index: 900, Inode: 1}}) // came while somebody subscribed
	h.subs++                                                // later, the first again, from position 1500 of it
	h.resume(7, map[object.PartitionID]uint64{7: 1500})
	if h.lost[7] != 1500 {
		t.Fatal(h.lost[7])
	}
	for i := range uint64(ringSize) { // other partitions go on
		h.publish(8, []namespace.Event{{Index: i + 1, Inode: 1}})
	}
	if h.lost[7] != 1500 {
		t.Errorf("lost fell from 1500 to %d: who asks from 1200 is told no gap, and never gets 1201 to 1500", h.lost[7])
	}
}
