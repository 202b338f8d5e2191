package copies

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// TestAllHoldersGetIt, whoever is asked, and whatever the size.
func TestAllHoldersGetIt(t *testing.T) {
	c := startOn(&cluster{t: t, onDisk: true, stall: calmStall}, 5, 3)
	for i, size := range []int{1, chunk.FrameSize, 2 * chunk.FrameSize, 1<<20 + 3} {
		id, data := someID(), someData(size)
		if i%2 == 0 {
			data = bytes.Repeat([]byte("text that compresses "), size/20+1)[:size]
		}
		in, out := c.holders(id, Copies(3))
		ch := c.put(append(out, in...)[i%5], id, Copies(3), data)
		for _, n := range in {
			got, err := n.local.ReadAll(t.Context(), id, ch.SHA256)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s has %d bytes, %v", n.name, len(got), err)
			}
		}
		if ch.Length != int64(size) {
			t.Errorf("length %d of %d", ch.Length, size)
		}
	}
	if m := c.missing(); len(m) > 0 {
		t.Errorf("missed: %v", m)
	}
}

// TestHungHolder: a put is acknowledged without it, its share of the memory comes
// back, and the copy is mended when it is back.
func TestHungHolder(t *testing.T) {
	c := startHung(t, 3, 3)
	in, _ := c.holders(someID(), Copies(3))
	hung := in[2]
	hung.proxy.Hang()
	id, data := someID(), someData(600_000)
	began := time.Now()
	ch, released, err := putIn(t.Context(), in[0], id, Copies(3), data)
	must(t, err)
	if d := time.Since(began); d >= hungStall {
		t.Errorf("it took %v", d)
	}
	within(t, "the release", released)
	eventually(t, "the holder that hangs is known", func() bool { return slices.Contains(c.missing(), hung.name) })
	hung.proxy.Resume()
	c.run()
	eventually(t, "its copy is mended", func() bool { return hung.has(ch, 0) })
}

// TestManyPutsBesideAHungHolder: what waits for it is bounded, and does not keep
// the copies of others.
func TestManyPutsBesideAHungHolder(t *testing.T) {
	c := startOn(&cluster{t: t, stall: calmStall, late: 800_000}, 4, 3)
	gate := make(chan struct{})
	c.nodes[3].disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
	var released []<-chan struct{}
	for range 6 {
		id := someID()
		for in, _ := c.holders(id, Copies(3)); !slices.Contains(in, c.nodes[3]); in, _ = c.holders(id, Copies(3)) {
			id = someID()
		}
		_, done, err := putIn(t.Context(), c.nodes[0], id, Copies(3), make([]byte, 200_000))
		must(t, err)
		released = append(released, done)
	}
	for _, done := range released[2:] {
		within(t, "the release of what there was no room for", done)
	}
	for _, done := range released[:2] {
		select {
		case <-done:
			t.Error("released while the third copy was on its way")
		default:
		}
	}
	if n := c.nodes[0].store.Stats().LateDropped; n < 4 {
		t.Errorf("%d copies were given up, of six there was room for two", n)
	}
	c.nodes[3].disk.Clear()
	close(gate)
	for _, done := range released {
		within(t, "the release", done)
	}
	for _, name := range c.missing() {
		if name != "n3" {
			t.Errorf("%s missed a chunk", name)
		}
	}
}

// TestHangingDisks: of the coordinator, and of another holder.
func TestHangingDisks(t *testing.T) {
	c := startHung(t, 3, 3)
	for _, n := range c.nodes[:2] {
		gate := make(chan struct{})
		n.disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
		id := someID()
		_, released, err := putIn(t.Context(), c.nodes[0], id, Copies(3), someData(100_000))
		if err != nil {
			t.Error(err)
		}
		n.disk.Clear()
		close(gate)
		within(t, "the release", released)
	}
	// Both: no quorum, in bounded time, and the memory is not given back before
	// the disk is done with it.
	gate := make(chan struct{})
	for _, n := range c.nodes[:2] {
		n.disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
	}
	_, released, err := putIn(t.Context(), c.nodes[0], someID(), Copies(3), someData(100_000))
	wantKind(t, err, object.KindUnavailable)
	select {
	case <-released:
		t.Error("released while our own disk reads it")
	default:
	}
	close(gate)
	within(t, "the release", released)
}

func TestNoQuorum(t *testing.T) {
	c := startHung(t, 3, 3)
	c.nodes[1].proxy.Die()
	c.nodes[2].proxy.Hang()
	began := time.Now()
	_, released, err := putIn(t.Context(), c.nodes[0], someID(), Copies(3), someData(5000))
	wantKind(t, err, object.KindUnavailable)
	if d := time.Since(began); d > 3*hungStall {
		t.Errorf("it took %v", d)
	}
	within(t, "the release", released)
	// The caller goes away.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, released, err = putIn(ctx, c.nodes[0], someID(), Copies(3), someData(600_000))
	if !errors.Is(err, context.DeadlineExceeded) && !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("a caller that went away: %v", err)
	}
	within(t, "the release", released)
}

// TestHolderDiesInTheMiddle of an upload: nothing of it stays.
func TestHolderDiesInTheMiddle(t *testing.T) {
	c := start(t, 3, 3)
	c.nodes[2].proxy.CutAt.Store(300_000)
	id := someID()
	ch, released, err := putIn(t.Context(), c.nodes[0], id, Copies(3), someData(900_000))
	must(t, err)
	within(t, "the release", released)
	eventually(t, "the holder is known", func() bool { return slices.Contains(c.missing(), "n2") })
	if c.nodes[2].has(ch, 0) {
		t.Error("a third of a chunk was stored")
	}
	c.nodes[1].proxy.CutAt.Store(300_000)
	_, _, err = putIn(t.Context(), c.nodes[0], someID(), Copies(3), someData(900_000))
	wantKind(t, err, object.KindUnavailable)
}

// TestRefusals: what holders say reaches the caller with its kind, and nothing
// that was damaged on its way is stored.
func TestRefusals(t *testing.T) {
	c := start(t, 2, 2) // both are needed
	id, data := someID(), someData(200_000)
	c.nodes[1].bend.Store(true)
	_, _, err := putIn(t.Context(), c.nodes[0], id, Copies(2), data)
	wantKind(t, err, object.KindUnavailable)
	_, err = c.nodes[1].local.Stat(t.Context(), id)
	wantKind(t, err, object.KindNotFound)
	c.nodes[1].bend.Store(false)
	c.put(c.nodes[0], id, Copies(2), data)
	c.put(c.nodes[1], id, Copies(2), data) // again
	_, _, err = putIn(t.Context(), c.nodes[0], id, Copies(2), data[1:])
	wantKind(t, err, object.KindConflict)

	c.nodes[1].disk.Fail(vfs.WriteOp(chunk.OpCreate), syscall.ENOSPC)
	_, _, err = putIn(t.Context(), c.nodes[0], someID(), Copies(2), data)
	wantKind(t, err, object.KindNoSpace)
	c.nodes[1].disk.Clear()

	_, _, err = putIn(t.Context(), c.nodes[0], someID(), Copies(3), data)
	wantKind(t, err, object.KindUnavailable) // no layout
	_, _, err = putIn(t.Context(), c.nodes[0], someID(), Copies(2), nil)
	wantKind(t, err, object.KindInvalid)
	_, err = c.nodes[0].store.PutPieces(t.Context(), someID(), Copies(2), [][]byte{data[:1000], data}, func() {})
	wantKind(t, err, object.KindInternal)
}

// TestFullDisk: one of three is full.
func TestFullDisk(t *testing.T) {
	c := start(t, 3, 3)
	c.nodes[1].disk.Fail(vfs.WriteOp(chunk.OpCreate), syscall.ENOSPC)
	ch, released, err := putIn(t.Context(), c.nodes[0], someID(), Copies(3), someData(200_000))
	must(t, err)
	within(t, "the release", released)
	eventually(t, "it is known", func() bool { return slices.Contains(c.missing(), "n1") })
	c.nodes[1].disk.Clear()
	c.run()
	eventually(t, "it has its copy once there is room", func() bool { return c.nodes[1].has(ch, 0) })
}

// TestNewMap: a put under an old map follows the new one.
func TestNewMap(t *testing.T) {
	c := start(t, 4, 3)
	id, data := someID(), someData(200_000)
	in, out := c.holders(id, Copies(3))
	l := c.nodes[0].layouts[3]
	g := l.Group(id)
	slot := slices.Index(l.Groups[g].Holders, placement.NodeID(in[2].name))
	joint, err := l.Begin(2, []placement.Move{{Index: g, Slot: slot, From: placement.NodeID(in[2].name), To: placement.NodeID(out[0].name)}})
	must(t, err)
	c.adopt(joint, in[1], in[2]) // two of three: the old quorum is gone
	done := make(chan Chunk)
	go func() {
		ch, _, err := putIn(t.Context(), in[0], id, Copies(3), data)
		if err != nil {
			t.Error(err)
		}
		done <- ch
	}()
	select {
	case <-done:
		t.Fatal("acknowledged under an old map")
	case <-time.After(20 * time.Millisecond):
	}
	c.adopt(joint, in[0], out[0])
	ch := <-done
	for _, n := range []*node{in[0], in[1], in[2], out[0]} {
		eventually(t, n.name+" has it", func() bool { return n.has(ch, 0) })
	}
	// In the joint epoch both sets need their quorum.
	in[1].proxy.Die()
	out[0].proxy.Die()
	_, _, err = putIn(t.Context(), in[0], id, Copies(3), data)
	wantKind(t, err, object.KindUnavailable)
	// The move is over, the old holders dropped it; who does not know yet follows.
	final, err := joint.Finish(3, g)
	must(t, err)
	c.adopt(final, in[2])
	must(t, in[2].local.Delete(t.Context(), id))
	must(t, in[0].local.Delete(t.Context(), id))
	go c.adopt(final, c.nodes...)
	_, err = in[0].store.ReadAt(t.Context(), ch, 0, make([]byte, 10))
	wantKind(t, err, object.KindUnavailable) // those that have it are dead
}

// TestFirstOfItsWidth: the coordinator has the layout of a new width a moment before
// the holders; they wait for it.
func TestFirstOfItsWidth(t *testing.T) {
	c := start(t, 6, 3)
	coded, data := Scheme{4, 2}, someData(200_000)
	l, err := placement.NewLayout(c.members(), coded.Width(), 8, 2)
	must(t, err)
	c.adopt(l, c.nodes[0])
	done := make(chan Chunk)
	go func() {
		ch, _, err := putIn(t.Context(), c.nodes[0], someID(), coded, data)
		if err != nil {
			t.Error(err)
		}
		done <- ch
	}()
	eventually(t, "the others are asked", func() bool { return c.waiting.Load() > 0 })
	c.adopt(l, c.nodes[1:]...)
	ch := <-done
	b := make([]byte, ch.Length)
	_, err = c.nodes[1].store.ReadAt(t.Context(), ch, 0, b)
	must(t, err)
	if !bytes.Equal(b, data) {
		t.Fatal("not what was put")
	}
}

// TestAdoptedWhileWritten: an epoch that is adopted before the chunk is durable
// counts, for who adopted it lists its chunks after that.
func TestAdoptedWhileWritten(t *testing.T) {
	c := start(t, 3, 2)
	id, data := someID(), someData(200_000)
	in, out := c.holders(id, Copies(2))
	gate := make(chan struct{})
	in[1].disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
	errs := make(chan error)
	go func() {
		_, _, err := putIn(t.Context(), in[0], id, Copies(2), data)
		errs <- err
	}()
	eventually(t, "the chunk is written", func() bool { return in[1].disk.Count(chunk.OpSync) > 0 })
	l := c.nodes[0].layouts[2]
	g := l.Group(id)
	slot := slices.Index(l.Groups[g].Holders, placement.NodeID(in[0].name))
	joint, err := l.Begin(2, []placement.Move{{Index: g, Slot: slot, From: placement.NodeID(in[0].name), To: placement.NodeID(out[0].name)}})
	must(t, err)
	c.adopt(joint, in[1], out[0])
	close(gate)
	in[1].disk.Clear()
	select {
	case err := <-errs:
		t.Fatalf("acknowledged under the old epoch, or given up: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	c.adopt(joint, in[0])
	must(t, <-errs)
	if _, err := out[0].local.Stat(t.Context(), id); err != nil {
		t.Error("the new holder has nothing:", err)
	}
}

// TestOverload: a holder whose disk hangs takes so much and no more, and who reads
// nothing of a chunk's body is noticed.
func TestOverload(t *testing.T) {
	c := startHung(t, 2, 2)
	b := c.nodes[1].store
	if err := b.served.acquire(t.Context(), "n0", chunk.MaxLength-1000, time.Second); err != nil {
		t.Fatal(err)
	}
	_, _, err := putIn(t.Context(), c.nodes[0], someID(), Copies(2), someData(200_000))
	wantKind(t, err, object.KindUnavailable)
	if err := b.served.acquire(t.Context(), "n7", chunk.MaxLength, time.Second); err != nil {
		t.Errorf("another node has its own share: %v", err)
	}
	b.served.release("n0", chunk.MaxLength-1000)
	c.put(c.nodes[0], someID(), Copies(2), someData(200_000))
}

// TestBusyDisk: a holder whose disks are slow, but move, is waited for.
func TestBusyDisk(t *testing.T) {
	const stall = time.Second
	c := startOn(&cluster{t: t, stall: stall}, 2, 2)
	gate := make(chan struct{})
	c.nodes[0].disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
	c.nodes[1].disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
	done := make(chan error)
	go func() {
		_, _, err := putIn(t.Context(), c.nodes[0], someID(), Copies(2), someData(1000))
		done <- err
	}()
	for began := time.Now(); time.Since(began) < 2*stall; time.Sleep(10 * time.Millisecond) {
		for _, n := range c.nodes { // other chunks are done
			n.store.lastPut.Store(time.Now().UnixMilli())
		}
		select {
		case err := <-done:
			t.Fatalf("given up, or acknowledged without a sync: %v", err)
		default:
		}
	}
	close(gate)
	must(t, <-done)
}
