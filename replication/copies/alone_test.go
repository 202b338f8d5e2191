package copies

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// TestAlone: a node whose cluster has no other keeps one copy of what is to have
// three, and has ended with the caller's memory when it answers, whatever the answer.
func TestAlone(t *testing.T) {
	c := start(t, 1, 3)
	n := c.nodes[0]
	id, data := someID(), someData(300_000)
	var ch Chunk
	for range 2 { // and once more: it is there already
		var released <-chan struct{}
		var err error
		ch, released, err = putIn(t.Context(), n, id, Copies(3), data)
		must(t, err)
		select {
		case <-released:
		default:
			t.Fatal("the pieces are still held")
		}
		got := make([]byte, len(data))
		if k, err := n.store.ReadAt(t.Context(), ch, 0, got); err != nil || k != len(data) || !bytes.Equal(got, data) {
			t.Fatal(k, err)
		}
	}
	if _, _, err := putIn(t.Context(), n, id, Copies(3), someData(300_000)); !object.IsKind(err, object.KindConflict) {
		t.Fatal("another content:", err)
	}

	// The client leaves while the disk is at work: what is answered is final.
	gate, ctx := make(chan struct{}), context.Context(nil)
	ctx, cancel := context.WithCancel(t.Context())
	n.disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
	id = someID()
	type answer struct {
		released <-chan struct{}
		err      error
	}
	answers := make(chan answer, 1)
	began := n.disk.Count(chunk.OpSync)
	go func() {
		_, released, err := putIn(ctx, n, id, Copies(3), data)
		answers <- answer{released, err}
	}()
	eventually(t, "the put is at the disk", func() bool { return n.disk.Count(chunk.OpSync) > began })
	cancel()
	for range 500 { // time enough for an answer
		_, err := n.store.ReadAt(t.Context(), ch, 0, make([]byte, 1000))
		must(t, err)
		select {
		case a := <-answers:
			t.Fatal("answered while the disk was at work:", a.err)
		default:
		}
	}
	close(gate)
	a := <-answers
	select {
	case <-a.released:
	default:
		t.Fatal("the pieces are still held")
	}
	if _, err := n.local.Stat(t.Context(), id); (err == nil) != (a.err == nil) && a.err == nil {
		t.Fatal("acknowledged, and not there:", err)
	}
	must(t, n.store.DeleteHere(t.Context(), []object.ChunkID{id}))
	if _, err := n.local.Stat(t.Context(), id); !object.IsKind(err, object.KindNotFound) {
		t.Fatal(err)
	}
}

// TestAloneUnderANewMap: what a node holds no longer by the map that it adopts
// while it puts or reads is not the end of either.
func TestAloneUnderANewMap(t *testing.T) {
	c := start(t, 2)
	on := func(epoch uint64, nodes ...placement.Node) *placement.Layout {
		l, err := placement.NewLayout(nodes, 1, 1, epoch)
		must(t, err)
		return l
	}
	before, after := on(1, c.members()[0]), on(2, c.members()[1])
	c.adopt(after, c.nodes...)
	a, b := c.nodes[0], c.nodes[1]
	var asked atomic.Int32
	a.store.o.Locate = func(id object.ChunkID, s Scheme) (placement.Site, error) {
		if asked.Add(1) == 1 {
			return before.Locate(id), nil
		}
		return after.Locate(id), nil
	}
	id, data := someID(), someData(100_000)
	ch, _, err := putIn(t.Context(), a, id, Copies(1), data)
	must(t, err)
	if !b.has(ch, 0) || a.has(ch, 0) {
		t.Fatal("put under the old map")
	}
	asked.Store(0)
	got := make([]byte, len(data))
	if n, err := a.store.ReadAt(t.Context(), ch, 0, got); err != nil || n != len(data) || !bytes.Equal(got, data) {
		t.Fatal("read under the old map only:", n, err)
	}
	if asked.Load() < 2 {
		t.Fatal("the old map was not asked for")
	}
}

// TestTheLastShardIsNoCopy: where all other holders are gone from the map, what is
// left of a coded chunk is not taken for the chunk.
func TestTheLastShardIsNoCopy(t *testing.T) {
	c := start(t, 3, 3)
	id, data := someID(), someData(200_000)
	ch := c.put(c.nodes[0], id, Scheme{2, 1}, data)
	in, _ := c.holders(id, Scheme{2, 1})
	last, err := placement.NewLayout([]placement.Node{{ID: placement.NodeID(in[0].name), Weight: 1}}, 3, 8, 2)
	must(t, err)
	for i := range last.Groups { // in the slot that it had
		old := c.nodes[0].layouts[3].Groups[i].Holders
		for k, holder := range old {
			if last.Groups[i].Holders[k] = placement.None; holder == placement.NodeID(in[0].name) {
				last.Groups[i].Holders[k] = holder
			}
		}
	}
	c.adopt(last, in[0])
	ch.SHA256 = [32]byte{} // nothing else could tell
	got := make([]byte, 1000)
	if n, err := in[0].store.ReadAt(t.Context(), ch, 150_000, got); err == nil || n > 0 {
		t.Fatal(n, err)
	}
	if n, err := in[0].store.ReadAt(t.Context(), ch, 99_500, got); err == nil || n > 500 {
		t.Fatal(n, err)
	}
}
