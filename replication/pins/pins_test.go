package pins

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func wantKind(t testing.TB, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("error %v, want kind %v", err, k)
	}
}

func pinAt(t testing.TB, n *wnode) Pin {
	t.Helper()
	x, err := n.part().Pin(t.Context(), 1)
	must(t, err)
	return x
}

func (n *wnode) free(t testing.TB, it Item) bool {
	t.Helper()
	free, err := n.part().Free(t.Context(), []Item{it})
	must(t, err)
	return free[0]
}

// TestVersions compares the compact table of pins with a plain map.
func TestVersions(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var v versions
		plain := map[uint64]int{}
		index := rapid.Uint64Range(0, 4)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			at, to := index.Draw(rt, "at"), index.Draw(rt, "to")
			switch op := rapid.IntRange(0, 2).Draw(rt, "op"); {
			case op == 0 || plain[at] == 0:
				v.add(at)
				plain[at]++
			case op == 1:
				v.remove(at)
				plain[at]--
			default:
				v.move(at, to)
				plain[at]--
				plain[to]++
			}
			sum := 0
			for _, n := range plain {
				sum += n
			}
			if empty := v.first.count == 0; empty != (sum == 0) {
				rt.Fatalf("%+v: %v", v, plain)
			}
			for limit := range uint64(6) {
				want := false
				for at, n := range plain {
					want = want || n > 0 && at < limit
				}
				if sum > 0 && v.before(limit) != want {
					rt.Fatalf("before %d: %+v, %v", limit, v, plain)
				}
			}
		}
	})
}

// TestAlone: nothing is sent, no lease runs out, and nothing goes that is pinned or held.
func TestAlone(t *testing.T) {
	now := time.Hour
	table, err := New(Options{Node: "a", Period: time.Second, Partitions: 2, Clock: func() time.Duration { return now }})
	must(t, err)
	p, ctx := table.Partition(1), t.Context()
	one, two := object.UploadID{1}, object.UploadID{2}
	free := func(it Item) bool {
		t.Helper()
		f, err := p.Free(ctx, []Item{it})
		must(t, err)
		return f[0]
	}
	_, err = p.Free(ctx, nil)
	wantKind(t, err, object.KindUnavailable)
	if p.Wait() != time.Second {
		t.Errorf("it waits for %v", p.Wait())
	}
	now += time.Second
	x, err := p.Pin(ctx, 7)
	must(t, err)
	if free(Item{Inode: 7, At: 1}) || !free(Item{Inode: 8, At: 1}) {
		t.Error("a pin at 0 keeps everything of its inode, and of no other")
	}
	x.Move(5)
	if free(Item{Inode: 7, At: 6}) || !free(Item{Inode: 7, At: 5}) || free(Item{Inode: 7, At: 5, Whole: true}) {
		t.Error("a pin keeps what was retired after it, and the inode")
	}
	now += time.Hour
	must(t, x.Err())
	x.Release()
	if !free(Item{Inode: 7, At: 6}) {
		t.Error("a pin that ended keeps")
	}
	y, err := p.Pin(ctx, 8)
	must(t, err)
	x.Release()
	if free(Item{Inode: 8, At: 6}) {
		t.Error("a pin that ended twice took another one with it")
	}
	y.Release()
	for i, s := range []object.UploadID{one, one, two} {
		if sure, err := p.Hold(ctx, 7, s); err != nil || sure {
			t.Fatalf("hold %d: %v %v", i, sure, err)
		}
	}
	must(t, p.Sure(7, one))
	if sure, _ := p.Hold(ctx, 7, one); !sure {
		t.Error("a renewed hold is sure")
	}
	if free(Item{Inode: 7, At: 6, Whole: true}) || !free(Item{Inode: 7, At: 6}) {
		t.Error("a hold keeps the inode, and no version")
	}
	p.Release(7, two)
	now += time.Second
	wantKind(t, p.Sure(7, one), object.KindUnavailable)
	if !free(Item{Inode: 7, At: 6, Whole: true}) {
		t.Error("a hold that ran out keeps")
	}
	if sure, _ := p.Hold(ctx, 7, one); sure {
		t.Error("a hold that ran out is sure")
	}
	now += time.Hour
	p.Expire()
	if len(p.holds) != 0 || len(p.pins) != 0 {
		t.Errorf("left over: %v %v", p.holds, p.pins)
	}
}

// TestSilentNode: what a node is waited for, by whose clock, from when.
func TestSilentNode(t *testing.T) {
	w := newWorld(3)
	a, c := w.nodes[0], w.nodes[2]
	a.part().Lead(1)
	w.tick(2 * period)
	x := pinAt(t, c)
	if a.free(t, Item{Inode: 1, At: 1}) {
		t.Error("it did not ask the node")
	}
	if !a.free(t, Item{Inode: 2, At: 1}) {
		t.Error("nobody has it")
	}
	w.isolate(2, true)
	_, err := a.part().Free(t.Context(), []Item{{Inode: 2, At: 1}})
	wantKind(t, err, object.KindUnavailable)
	w.tick(period - 1)
	must(t, x.Err())
	w.tick(1)
	wantKind(t, x.Err(), object.KindUnavailable)
	w.tick(period - 1)
	_, err = a.part().Free(t.Context(), []Item{{Inode: 1, At: 1}})
	wantKind(t, err, object.KindUnavailable)
	w.tick(1)
	if !a.free(t, Item{Inode: 1, At: 1}) {
		t.Error("it waits for a node that was silent for two periods")
	}
	_, err = c.part().Pin(t.Context(), 1)
	wantKind(t, err, object.KindUnavailable)
	_, err = c.part().Hold(t.Context(), 1, object.UploadID{1})
	wantKind(t, err, object.KindUnavailable)
	w.isolate(2, false)
	y := pinAt(t, c)
	must(t, y.Err())
	wantKind(t, x.Err(), object.KindUnavailable)
	if a.free(t, Item{Inode: 1, At: 1}) {
		t.Error("it did not ask the node that is back")
	}
}

// TestHoldOfALostLease: a hold that was sure is not after a gap in the lease, and is after it was looked at.
func TestHoldOfALostLease(t *testing.T) {
	w := newWorld(2)
	p, s := w.nodes[1].part(), object.UploadID{1}
	hold := func() bool {
		t.Helper()
		sure, err := p.Hold(t.Context(), 1, s)
		must(t, err)
		return sure
	}
	if hold() {
		t.Error("a new hold is sure")
	}
	must(t, p.Sure(1, s))
	w.tick(period - 1)
	if !hold() {
		t.Error("a hold that was renewed in time is not sure")
	}
	w.tick(1) // the lease ends, the hold does not
	if hold() {
		t.Error("a hold is sure though the leader may have gone on without it")
	}
	must(t, p.Sure(1, s))
	w.tick(period / 2)
	w.nodes[1].t.Renew(t.Context())
	w.tick(period/2 - 1)
	if !hold() {
		t.Error("a hold that was renewed in time is not sure")
	}
	w.tick(period)
	wantKind(t, p.Sure(1, s), object.KindUnavailable)
}

// TestSlowAnswer: a lease counts from when it was asked for.
func TestSlowAnswer(t *testing.T) {
	w := newWorld(2)
	b := w.nodes[1]
	slow := true
	w.between = func() {
		if slow {
			w.tick(period/3 + 1)
		}
	}
	_, err := b.part().Pin(t.Context(), 1) // three steps of a third: over when it comes
	if err == nil {
		t.Fatal("a lease that was over when it came was taken")
	}
	slow = false
	x := pinAt(t, b)
	w.tick(period - 1)
	must(t, x.Err())
}

// TestRenew: what is in use is renewed after a third, and nothing else.
func TestRenew(t *testing.T) {
	w := newWorld(2)
	b, sent := w.nodes[1], 0
	w.between = func() { sent++ }
	b.t.Renew(t.Context())
	if sent != 0 {
		t.Error("it asks for what nobody uses")
	}
	x := pinAt(t, b)
	for range 9 {
		w.tick(period/3 + 1)
		b.t.Renew(t.Context())
		must(t, x.Err())
	}
	x.Release()
	sent = 0
	for range 9 {
		w.tick(period/3 + 1)
		b.t.Renew(t.Context())
	}
	if sent > 3 { // of one call: before, within and after it
		t.Errorf("%d steps for a partition that nobody uses", sent)
	}
}

// TestRestart: a node that restarted keeps every inode until sessions can have renewed.
func TestRestart(t *testing.T) {
	w := newWorld(2)
	a, b := w.nodes[0], w.nodes[1]
	a.part().Lead(1)
	w.tick(2 * period)
	_, err := b.part().Hold(t.Context(), 1, object.UploadID{1})
	must(t, err)
	b.boot()
	whole := Item{Inode: 1, At: 1, Whole: true}
	if a.free(t, whole) || !a.free(t, Item{Inode: 1, At: 1}) {
		t.Error("a node that restarted forgot its holds, or keeps versions")
	}
	w.tick(period)
	if !a.free(t, whole) {
		t.Error("it keeps for longer than sessions wait")
	}
}

func TestOptions(t *testing.T) {
	for i, o := range []Options{{}, {Node: "a", Period: 1}, {Node: "a", Partitions: 1}, {Node: "a", Period: 1, Partitions: object.MaxPartitions + 1},
		{Node: "a", Period: 1, Partitions: 1, Call: func(context.Context, string, uint16, []byte) ([]byte, error) { return nil, nil }}} {
		_, err := New(o)
		if !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%d: %v", i, err)
		}
	}
	clock := Clock()
	if a, b := clock(), clock(); a <= 0 || b < a {
		t.Errorf("the clock shows %v, then %v", a, b)
	}
	w := newWorld(1)
	_, err := w.nodes[0].part().Free(t.Context(), make([]Item, MaxItems+1))
	wantKind(t, err, object.KindInvalid)
}

// FuzzHandle gives the handlers any bytes.
func FuzzHandle(f *testing.F) {
	for _, m := range []any{leaseRequest{Partitions: []uint16{0, 1}}, pinsRequest{Partition: 1, Items: []Item{{Inode: 1, At: 2, Whole: true}}},
		pinsRequest{Partition: 9}, leaseRequest{Partitions: []uint16{9}}, pinsRequest{Items: make([]Item, MaxItems+1)}} {
		b, err := encode(m)
		must(f, err)
		f.Add(b)
	}
	f.Add([]byte{0xa1, 1, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	w := newWorld(2)
	f.Fuzz(func(t *testing.T, data []byte) {
		for i, h := range []transport.Handler{w.nodes[0].t.HandleLease, w.nodes[0].t.HandlePins} {
			answer, err := h(t.Context(), transport.Peer{Node: "n1"}, data)
			if err != nil && !object.IsKind(err, object.KindInvalid) {
				t.Errorf("handler %d: %v", i, err)
			}
			if len(answer) > len(data)+64 {
				t.Errorf("handler %d: %s for a question of %d bytes", i, fmt.Sprint(len(answer)), len(data))
			}
		}
	})
}
