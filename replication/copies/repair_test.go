package copies

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// TestCoded: any two of six nodes may be lost, and no third.
func TestCoded(t *testing.T) {
	c := start(t, 7, 6)
	rs := Scheme{4, 2}
	for _, size := range []int{1, 1000, 4*chunk.FrameSize + 1, 400_007} {
		id, data := someID(), someData(size)
		in, out := c.holders(id, rs)
		ch := c.put(append(out, in...)[size%3], id, rs, data)
		total := int64(0)
		for _, n := range in {
			f, size := n.file(t, id)
			must(t, f.Close())
			total += size
		}
		if most := float64(size)*1.52 + 6*300; float64(total) > most {
			t.Errorf("%d bytes are kept in %d", size, total)
		}
		wantRanges(t, out[0], ch, data)
		wantRanges(t, in[1], ch, data)
		for _, lost := range [][2]int{{0, 5}, {3, 2}} {
			a, b := in[lost[0]], in[lost[1]]
			must(t, a.local.Delete(t.Context(), id))
			b.damage(t, id)
			wantRanges(t, out[0], ch, data)
			wantRanges(t, a, ch, data)
			must(t, a.store.Repair(t.Context(), ch))
			must(t, b.store.Repair(t.Context(), ch))
		}
		if list, quorum, err := in[3].store.Survey(t.Context(), ch); err != nil || !quorum || slices.ContainsFunc(list, func(h Holding) bool { return h.Err != nil }) {
			t.Fatalf("after the repairs: %+v, %v", list, err)
		}
		for _, n := range in[:3] {
			must(t, n.local.Delete(t.Context(), id))
		}
		_, err := out[0].store.ReadAt(t.Context(), ch, 0, make([]byte, size))
		wantKind(t, err, object.KindCorrupt) // three are left, four are needed
		wantKind(t, in[0].store.Repair(t.Context(), ch), object.KindCorrupt)
	}
}

// TestCodedBesideHungHolders: puts and reads go on, in less than a stall where
// nobody has to be waited for.
func TestCodedBesideHungHolders(t *testing.T) {
	c := startHung(t, 6, 6)
	rs, data := Scheme{3, 3}, someData(300_000)
	id := someID()
	in, _ := c.holders(id, rs)
	ch := c.put(in[5], id, rs, data)
	in[0].proxy.Hang()
	in[1].proxy.Die()
	began := time.Now()
	wantRead(t, in[5], ch, data, 0, len(data))
	if d := time.Since(began); d > hungStall {
		t.Errorf("a read took %v", d)
	}
	if in[5].store.Stats().Rebuilt == 0 {
		t.Error("nothing was rebuilt")
	}
	ch2, released, err := putIn(t.Context(), in[5], someID(), rs, data)
	must(t, err)
	within(t, "the release", released)
	wantRead(t, in[4], ch2, data, 0, len(data))
	in[2].proxy.Die()
	_, _, err = putIn(t.Context(), in[5], someID(), rs, data) // three are not k+1
	wantKind(t, err, object.KindUnavailable)
	wantRead(t, in[5], ch, data, 0, len(data)) // but they are k
}

// TestShardsAreNotMixedUp: one that is another's, or another chunk's, is refused.
func TestShardsAreNotMixedUp(t *testing.T) {
	c := start(t, 3, 3)
	rs := Scheme{2, 1}
	id, data := someID(), someData(300_000)
	in, _ := c.holders(id, rs)
	ch := c.put(in[0], id, rs, data)
	raw, err := in[0].local.ReadAll(t.Context(), id, [32]byte{})
	must(t, err)
	must(t, in[1].local.Delete(t.Context(), id))
	_, err = in[1].local.Put(t.Context(), id, raw)
	must(t, err)
	wantRead(t, in[2], ch, data, 0, len(data))
	must(t, in[1].store.Repair(t.Context(), ch))
	if !in[1].has(ch, 1) {
		t.Error("not repaired")
	}
	_, err = c.nodes[0].store.ReadAt(t.Context(), Chunk{ID: id, Scheme: rs}, 0, make([]byte, 1))
	wantKind(t, err, object.KindInvalid) // without a length
}

func TestRepair(t *testing.T) {
	c := start(t, 4, 3)
	id, data := someID(), someData(300_000)
	in, out := c.holders(id, Copies(3))
	ch := c.put(in[0], id, Copies(3), data)
	must(t, in[0].store.Repair(t.Context(), ch))  // nothing to do
	must(t, out[0].store.Repair(t.Context(), ch)) // not its own
	if _, err := out[0].local.Stat(t.Context(), id); !object.IsKind(err, object.KindNotFound) {
		t.Error("a node repaired what it does not hold")
	}

	// All that is known is the id.
	must(t, in[0].local.Delete(t.Context(), id))
	must(t, in[0].store.Repair(t.Context(), Chunk{ID: id, Scheme: Copies(3)}))
	if !in[0].has(ch, 0) {
		t.Error("not repaired")
	}
	// Another content, sound in itself, under the same id.
	must(t, in[0].local.Delete(t.Context(), id))
	_, err := in[0].local.Put(t.Context(), id, data[1:])
	must(t, err)
	wantKind(t, in[1].store.Repair(t.Context(), Chunk{ID: id, Scheme: Copies(3)}), object.KindConflict)
	wrong := ch
	wrong.SHA256[3]++ // a mistaken caller takes nothing from anybody
	wantKind(t, in[1].store.Repair(t.Context(), wrong), object.KindCorrupt)
	if !in[1].has(ch, 0) {
		t.Fatal("a good copy is gone")
	}
	must(t, in[0].store.Repair(t.Context(), ch))
	if !in[0].has(ch, 0) {
		t.Error("not repaired")
	}
	// A disk that is full, then not.
	must(t, in[0].local.Delete(t.Context(), id))
	in[0].disk.Fail(vfs.WriteOp(chunk.OpCreate), syscall.ENOSPC)
	wantKind(t, in[0].store.Repair(t.Context(), ch), object.KindNoSpace)
	in[0].disk.Clear()
	must(t, in[0].store.Repair(t.Context(), ch))
	// Nobody else.
	must(t, in[0].local.Delete(t.Context(), id))
	in[1].proxy.Die()
	in[2].proxy.Die()
	wantKind(t, in[0].store.Repair(t.Context(), ch), object.KindUnavailable)
}

// TestPush: who holds a chunk no longer brings its copy to those that do and have lost it, but
// not what is damaged, and nothing that was released.
func TestPush(t *testing.T) {
	c := start(t, 4, 3)
	id, data := someID(), someData(300_000)
	in, out := c.holders(id, Copies(3))
	ch := c.put(in[0], id, Copies(3), data)
	lose := func() {
		t.Helper()
		for _, n := range in {
			must(t, n.local.Delete(t.Context(), id))
		}
	}
	everywhere := func(want bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(in, func(n *node) bool { return n.has(ch, 0) != want })
		}
	}
	lose()
	wantKind(t, out[0].store.Push(t.Context(), ch), object.KindNotFound) // it has none
	_, err := out[0].local.Put(t.Context(), id, data)
	must(t, err)
	must(t, out[0].store.Push(t.Context(), ch))
	eventually(t, "the chunk at its holders", everywhere(true))
	must(t, out[0].store.Push(t.Context(), ch)) // who has it compares it
	lose()
	coded := ch
	coded.Scheme = Scheme{2, 1}
	wantKind(t, out[0].store.Push(t.Context(), coded), object.KindNotSupported)
	wrong := ch
	wrong.SHA256[3]++
	wantKind(t, out[0].store.Push(t.Context(), wrong), object.KindCorrupt)
	if !everywhere(false)() {
		t.Error("something else than the chunk was brought")
	}
	for _, n := range c.nodes {
		n.reject(id)
	}
	must(t, out[0].store.Push(t.Context(), ch))
	if !everywhere(false)() {
		t.Error("a released chunk was brought back")
	}
}

// TestNothingReleasedComesBack: neither what the owner does not reference when it
// is asked, nor what it releases between its answer and the rename.
func TestNothingReleasedComesBack(t *testing.T) {
	c := start(t, 3, 3)
	id, data := someID(), someData(300_000)
	in, _ := c.holders(id, Copies(3))
	ch := c.put(in[0], id, Copies(3), data)
	must(t, in[0].local.Delete(t.Context(), id))
	in[0].reject(id)
	wantKind(t, in[0].store.Repair(t.Context(), ch), object.KindNotFound)

	id = someID()
	in, _ = c.holders(id, Copies(3))
	ch = c.put(in[0], id, Copies(3), data)
	must(t, in[0].local.Delete(t.Context(), id))
	gate := make(chan struct{})
	in[0].disk.Set(chunk.OpRename, vfs.Rule{Block: gate})
	before := in[0].disk.Count(chunk.OpRename)
	done := make(chan error)
	go func() { done <- in[0].store.Repair(t.Context(), ch) }()
	eventually(t, "the rename is near", func() bool { return in[0].disk.Count(chunk.OpRename) > before })
	deleted := make(chan error)
	go func() { deleted <- in[1].store.DeleteAll(t.Context(), Copies(3), []object.ChunkID{id}) }()
	eventually(t, "the delete has come", func() bool {
		in[0].store.mends.mu.Lock()
		defer in[0].store.mends.mu.Unlock()
		return slices.ContainsFunc(in[0].store.mends.of[id], func(m *mend) bool { return m.gone })
	})
	close(gate)
	<-done
	must(t, <-deleted)
	for _, n := range in {
		if _, err := n.local.Stat(t.Context(), id); !object.IsKind(err, object.KindNotFound) {
			t.Errorf("%s has it: %v", n.name, err)
		}
	}
}

func TestDelete(t *testing.T) {
	c := startHung(t, 4, 3, 4)
	for _, scheme := range []Scheme{Copies(3), {3, 1}} {
		var ids []object.ChunkID
		for range 5 {
			id := someID()
			ids = append(ids, id)
			c.put(c.nodes[0], id, scheme, someData(5000))
		}
		for range 2 { // it may be repeated
			must(t, c.nodes[1].store.DeleteAll(t.Context(), scheme, ids))
		}
		for _, id := range ids {
			for _, n := range c.nodes {
				if _, err := n.local.Stat(t.Context(), id); !object.IsKind(err, object.KindNotFound) {
					t.Errorf("%s: %v", n.name, err)
				}
			}
		}
	}
	// One that hangs costs a bounded time and no error; our own failure is one.
	id := someID()
	in, _ := c.holders(id, Copies(3))
	ch := c.put(in[0], id, Copies(3), someData(5000))
	in[1].proxy.Hang()
	must(t, in[0].store.DeleteAll(t.Context(), Copies(3), []object.ChunkID{id}))
	if in[0].has(ch, 0) || !in[1].has(ch, 0) || in[2].has(ch, 0) {
		t.Error("deleted at the wrong holders")
	}
	in[2].disk.Fail(chunk.OpRemove, syscall.EIO)
	if err := in[2].store.DeleteAll(t.Context(), Copies(3), []object.ChunkID{id}); !errors.Is(err, syscall.EIO) {
		t.Errorf("our own copies stay: %v", err)
	}
}

// TestPowerCut: one node loses power at some call of its disk, then all do. What was
// acknowledged is at a quorum of them after it, nothing is there by halves, and
// Repair ends what was begun.
func TestPowerCut(t *testing.T) {
	c := start(t, 3, 3)
	data, acked := someData(70_000), 0
	for cut := 1; cut <= 14; cut++ {
		id := someID()
		c.nodes[cut%3].power.CutAt(cut)
		ch, released, err := putIn(t.Context(), c.nodes[cut/3%3], id, Copies(3), data)
		within(t, "the release", released)
		for _, n := range c.nodes {
			n.crash()
		}
		list, quorum, serr := c.nodes[0].store.Survey(t.Context(), Chunk{ID: id, Scheme: Copies(3)})
		must(t, serr)
		good := 0
		for _, h := range list {
			if good++; h.Err != nil {
				good--
				wantKind(t, h.Err, object.KindNotFound)
			}
		}
		if err != nil {
			continue
		}
		if acked++; !quorum {
			t.Fatalf("cut %d: acknowledged, and %d have it: %+v", cut, good, list)
		}
		for i, n := range c.nodes {
			must(t, n.store.Repair(t.Context(), ch))
			if !n.has(ch, i) {
				t.Fatalf("cut %d: not repaired", cut)
			}
		}
		wantRead(t, c.nodes[1], ch, data, 0, len(data))
	}
	if acked < 10 {
		t.Errorf("%d puts of 14 were acknowledged, each with two nodes that lived", acked)
	}
}

// TestHints: reports are bounded, and each counts once.
func TestHints(t *testing.T) {
	h := newHints()
	for i := range maxHints + 10 {
		n := hint{Chunk{ID: object.ChunkID{Ordinal: uint32(i)}}, "a"}
		h.add(n)
		h.add(n)
	}
	if h.waiting() != maxHints {
		t.Fatalf("%d wait", h.waiting())
	}
	n := <-h.ready
	var delays []time.Duration
	for range hintTries {
		delays = append(delays, h.failed(n))
	}
	if !slices.Equal(delays, []time.Duration{hintDelay, 4 * hintDelay, 16 * hintDelay, 64 * hintDelay, 0}) {
		t.Errorf("tried again after %v", delays)
	}
	h.done(<-h.ready)
	if h.waiting() != maxHints-2 {
		t.Errorf("%d wait", h.waiting())
	}
}
