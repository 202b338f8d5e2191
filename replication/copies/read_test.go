package copies

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// wantRead reads a range and compares it with what data has there.
func wantRead(t *testing.T, n *node, ch Chunk, data []byte, off, size int) {
	t.Helper()
	dst := make([]byte, size)
	k, err := n.store.ReadAt(t.Context(), ch, int64(off), dst)
	rest := data[min(off, len(data)):]
	if len(rest) < size {
		if !errors.Is(err, io.EOF) {
			t.Fatalf("%s: [%d, +%d) of %d: %v, want EOF", n.name, off, size, len(data), err)
		}
	} else if err != nil {
		t.Fatalf("%s: [%d, +%d) of %d: %v", n.name, off, size, len(data), err)
	}
	if !bytes.Equal(dst[:k], rest[:min(size, len(rest))]) {
		t.Fatalf("%s: [%d, +%d) of %d: %d bytes, not the right ones", n.name, off, size, len(data), k)
	}
}

// wantRanges reads the whole, its edges, and some ranges.
func wantRanges(t *testing.T, n *node, ch Chunk, data []byte) {
	t.Helper()
	wantRead(t, n, ch, data, 0, len(data))
	wantRead(t, n, ch, data, 0, len(data)+10)
	wantRead(t, n, ch, data, len(data)-1, 1)
	wantRead(t, n, ch, data, len(data)+5, 3)
	for range 3 {
		off := rand.IntN(len(data))
		wantRead(t, n, ch, data, off, rand.IntN(len(data)-off)+1)
	}
}

func TestReadAnywhere(t *testing.T) {
	c := start(t, 4, 3, 1)
	for _, size := range []int{1, chunk.FrameSize + 1, 300_000} {
		data := someData(size)
		copies, one := c.put(c.nodes[0], someID(), Copies(3), data), c.put(c.nodes[0], someID(), Copies(1), data)
		for _, n := range c.nodes {
			wantRanges(t, n, copies, data)
			wantRanges(t, n, one, data)
		}
	}
	if m := c.missing(); len(m) > 0 {
		t.Errorf("missed: %v", m)
	}
	_, err := c.nodes[0].store.ReadAt(t.Context(), Chunk{ID: someID(), Scheme: Copies(3)}, 0, make([]byte, 1))
	wantKind(t, err, object.KindNotFound)
	_, err = c.nodes[0].store.ReadAt(t.Context(), Chunk{ID: someID(), Scheme: Copies(3)}, -1, make([]byte, 1))
	wantKind(t, err, object.KindInvalid)
}

// TestHedge: the first holder hangs, or its disk, or our own; the next one is
// asked soon, and after a few times first.
func TestHedge(t *testing.T) {
	c := startHung(t, 4, 3)
	id, data := someID(), someData(300_000)
	in, out := c.holders(id, Copies(3))
	ch := c.put(in[0], id, Copies(3), data)
	wantRead(t, out[0], ch, data, 5000, 1000) // connections are there

	in[0].proxy.Hang()
	for range 10 {
		began := time.Now()
		wantRead(t, out[0], ch, data, 0, len(data))
		if d := time.Since(began); d > hungStall {
			t.Errorf("a read beside a holder that hangs took %v", d)
		}
	}
	if first := out[0].store.order(mustPlace(t, out[0], ch).spots)[0]; first.node == in[0].name {
		t.Error("the holder that hangs is still asked first")
	}
	if out[0].store.Stats().Hedged == 0 {
		t.Error("no read was hedged")
	}
	in[0].proxy.Resume()

	for _, n := range []*node{in[1], in[2]} { // the second one is the reader itself
		gate := make(chan struct{})
		n.disk.Set(vfs.ReadOp(chunk.OpRead), vfs.Rule{Block: gate})
		began := time.Now()
		wantRead(t, in[2], ch, data, 0, len(data))
		if d := time.Since(began); d > hungStall {
			t.Errorf("a read beside a disk that hangs took %v", d)
		}
		n.disk.Clear()
		close(gate)
	}
	if m := c.missing(); len(m) > 0 {
		t.Errorf("missed: %v", m)
	}
}

func mustPlace(t *testing.T, n *node, ch Chunk) place {
	t.Helper()
	p, err := n.store.locate(ch.ID, ch.Scheme)
	must(t, err)
	return p
}

// TestAllHang: a bounded time.
func TestAllHang(t *testing.T) {
	c := startHung(t, 3, 2)
	id, data := someID(), someData(300_000)
	in, out := c.holders(id, Copies(2))
	ch := c.put(in[0], id, Copies(2), data)
	in[0].proxy.Hang()
	in[1].proxy.Hang()
	began := time.Now()
	_, err := out[0].store.ReadAt(t.Context(), ch, 0, make([]byte, 1000))
	wantKind(t, err, object.KindUnavailable)
	if d := time.Since(began); d > 3*hungStall {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err = out[0].store.ReadAt(ctx, ch, 0, make([]byte, 1000)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that went away: %v", err)
	}
}

// TestReadGoesOnElsewhere: a holder dies, or its answer is damaged, in the middle.
func TestReadGoesOnElsewhere(t *testing.T) {
	c := start(t, 4, 3)
	id, data := someID(), someData(1<<20)
	in, out := c.holders(id, Copies(3))
	ch := c.put(in[0], id, Copies(3), data)
	in[0].proxy.Back.Store(true)
	in[0].proxy.CutAt.Store(400_000)
	in[1].bend.Store(true)
	wantRead(t, out[0], ch, data, 0, len(data))
	wantRead(t, out[0], ch, data, 100_000, 900_000)
	in[2].proxy.Die()
	if n, err := out[0].store.ReadAt(t.Context(), ch, 0, make([]byte, 1<<20)); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("no holder is good for so much: %d bytes, %v", n, err)
	}
	if m := c.missing(); len(m) > 0 {
		t.Errorf("their copies are good, missed: %v", m)
	}
}

// TestBadCopies: one holder lost the chunk, another's is damaged; both are
// answered for, reported and mended.
func TestBadCopies(t *testing.T) {
	c := start(t, 3, 3)
	id, data := someID(), someData(500_000)
	ch := c.put(c.nodes[0], id, Copies(3), data)
	c.nodes[0].damage(t, id)
	must(t, c.nodes[1].local.Delete(t.Context(), id))
	for _, n := range c.nodes {
		wantRead(t, n, ch, data, 0, len(data))
	}
	if m := c.missing(); !slices.Contains(m, "n0") || !slices.Contains(m, "n1") {
		t.Errorf("missed: %v", m)
	}
	if _, quorum, err := c.nodes[2].store.Survey(t.Context(), ch); err != nil || quorum {
		t.Errorf("one good copy of three is a quorum: %v", err)
	}
	c.run()
	for i, n := range c.nodes {
		eventually(t, n.name+" is mended", func() bool { return n.has(ch, i) })
	}
	if list, quorum, err := c.nodes[2].store.Survey(t.Context(), ch); err != nil || !quorum {
		t.Errorf("after the repair: %+v, %v", list, err)
	}
	eventually(t, "nothing waits", func() bool { return c.nodes[0].store.Stats().Waiting+c.nodes[1].store.Stats().Waiting == 0 })
	// Nobody has a good one.
	for _, n := range c.nodes {
		n.damage(t, id)
	}
	_, err := c.nodes[1].store.ReadAt(t.Context(), ch, 0, make([]byte, len(data)))
	wantKind(t, err, object.KindCorrupt)
	wrong := ch
	wrong.SHA256[0]++
	_, err = c.nodes[1].store.ReadAt(t.Context(), wrong, 0, make([]byte, 10))
	wantKind(t, err, object.KindCorrupt, object.KindNotFound)
}

// TestReadWhileMoving: at the new holders, else at the old.
func TestReadWhileMoving(t *testing.T) {
	c := start(t, 4, 3)
	id, data := someID(), someData(300_000)
	in, out := c.holders(id, Copies(3))
	ch := c.put(in[0], id, Copies(3), data)
	l := c.nodes[0].layouts[3]
	g := l.Group(id)
	slot := slices.Index(l.Groups[g].Holders, placement.NodeID(in[0].name))
	joint, err := l.Begin(2, []placement.Move{{Index: g, Slot: slot, From: placement.NodeID(in[0].name), To: placement.NodeID(out[0].name)}})
	must(t, err)
	c.adopt(joint, c.nodes...)
	must(t, in[1].local.Delete(t.Context(), id))
	must(t, in[2].local.Delete(t.Context(), id))
	for _, n := range c.nodes {
		wantRead(t, n, ch, data, 0, len(data)) // only the old holder has it
	}
	for _, n := range []*node{out[0], in[1], in[2]} { // what the mover does
		must(t, n.store.Repair(t.Context(), ch))
	}
	list, quorum, err := in[0].store.Survey(t.Context(), ch)
	if err != nil || !quorum || len(list) != 4 {
		t.Fatalf("%+v, %v, %v", list, quorum, err)
	}
	final, err := joint.Finish(3, g)
	must(t, err)
	must(t, in[0].local.Delete(t.Context(), id))
	for _, n := range []*node{in[1], in[2]} {
		must(t, n.local.Delete(t.Context(), id))
	}
	c.adopt(final, in[0], in[1], out[0])
	go c.adopt(final, in[2]) // who reads by the old map is told of the new one
	wantRead(t, in[2], ch, data, 0, len(data))
}

// TestManyReaders of many ranges, while a holder comes and goes.
func TestManyReaders(t *testing.T) {
	c := startHung(t, 4, 3, 4)
	data := someData(300_000)
	copies, coded := c.put(c.nodes[0], someID(), Copies(3), data), c.put(c.nodes[0], someID(), Scheme{2, 2}, data)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 5 {
				off := rand.IntN(len(data))
				wantRead(t, c.nodes[i%3], []Chunk{copies, coded}[i%2], data, off, rand.IntN(len(data)-off)+1)
			}
		})
	}
	for range 3 {
		c.nodes[3].proxy.Hang()
		time.Sleep(20 * time.Millisecond) // a schedule of faults, not a wait
		c.nodes[3].proxy.Resume()
	}
	all.Wait()
}

// TestConnectionsAreKept: a read leaves its connection for the next one.
func TestConnectionsAreKept(t *testing.T) {
	c := start(t, 2, 1)
	id, data := someID(), someData(200_000)
	in, out := c.holders(id, Copies(1))
	ch := c.put(out[0], id, Copies(1), data)
	for i := range 40 {
		wantRead(t, out[0], ch, data, i*1000, 70_000+i)
		wantRead(t, out[0], ch, data, 190_000, 20_000)
	}
	_, err := out[0].store.ReadAt(t.Context(), Chunk{ID: someID(), Scheme: Copies(1)}, 0, data)
	wantKind(t, err, object.KindNotFound)
	c.put(out[0], id, Copies(1), data)
	if n := in[0].proxy.Dials.Load(); n > 3 {
		t.Errorf("%d connections for one request at a time", n)
	}
}

func TestSpeeds(t *testing.T) {
	var l speeds
	l.tokens = 1
	if d := l.patience("a"); d != hedgeUnknown {
		t.Errorf("an unknown holder: %v", d)
	}
	for i := range 200 {
		d := 20 * time.Millisecond
		if i%10 == 0 {
			d = 100 * time.Millisecond
		}
		l.note("a", d, false)
		l.note("b", time.Microsecond, false)
		l.note("c", time.Hour, false)
	}
	for node, want := range map[string]time.Duration{"a": 100 * time.Millisecond, "b": hedgeFloor, "c": hedgeCeil} {
		if d := l.patience(node); d != want {
			t.Errorf("%s: %v, want %v", node, d, want)
		}
	}
	if !l.mayHedge(0) || l.mayHedge(0) || !l.mayHedge(hedgeCeil) {
		t.Error("there was one early hedge to have, and late ones without end")
	}
	for i := range beatenOften {
		if avoided := !l.at("b").avoided.IsZero(); avoided {
			t.Errorf("avoided after %d", i)
		}
		l.note("b", time.Second, true)
	}
	if l.at("b").avoided.IsZero() {
		t.Error("not avoided")
	}
}
