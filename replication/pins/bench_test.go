package pins

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// leader's memory is what replication had before this package: pins in one map
// of maps, at the leader only. BenchmarkPin measures beside it.
type memory struct {
	mu   sync.Mutex
	pins map[object.InodeID]map[uint64]int
}

func (l *memory) add(ino object.InodeID, at uint64) {
	m := l.pins[ino]
	if m == nil {
		m = map[uint64]int{}
		l.pins[ino] = m
	}
	m[at]++
}

func (l *memory) remove(ino object.InodeID, at uint64) {
	m := l.pins[ino]
	if m[at]--; m[at] <= 0 {
		delete(m, at)
	}
	if len(m) == 0 {
		delete(l.pins, ino)
	}
}

func (l *memory) locked(fn func(object.InodeID, uint64), ino object.InodeID, at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(ino, at)
}

// BenchmarkPin is a pin as a reader makes it: at 0, moved to a version, ended.
func BenchmarkPin(b *testing.B) {
	b.Run("before", func(b *testing.B) {
		m := &memory{pins: map[object.InodeID]map[uint64]int{}}
		b.ReportAllocs()
		for i := range b.N {
			ino := object.InodeID(i % 64)
			m.locked(m.add, ino, 0)
			m.mu.Lock()
			m.add(ino, 7)
			m.remove(ino, 0)
			m.mu.Unlock()
			m.locked(m.remove, ino, 7)
		}
	})
	run := func(t *Table) func(b *testing.B) {
		return func(b *testing.B) {
			p := t.Partition(1)
			b.ReportAllocs()
			for i := range b.N {
				pin, err := p.Pin(context.Background(), object.InodeID(i%64))
				if err != nil {
					b.Fatal(err)
				}
				pin.Move(7)
				if err := pin.Err(); err != nil {
					b.Fatal(err)
				}
				pin.Release()
			}
		}
	}
	alone, err := New(Options{Node: "a", Period: time.Second, Partitions: 2})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("alone", run(alone))
	var leased *Table
	leased, err = New(Options{Node: "a", Period: 10 * time.Hour, Partitions: 2,
		Call: func(ctx context.Context, _ string, _ uint16, req []byte) ([]byte, error) {
			return leased.HandleLease(ctx, transport.Peer{Node: "a"}, req)
		},
		Leader: func(object.PartitionID) (string, bool) { return "a", true },
		Leads:  func(context.Context, object.PartitionID) (uint64, error) { return 1, nil }})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("leased", run(leased))
}

// BenchmarkRound asks two other nodes, over no network, about 128 pieces of garbage.
func BenchmarkRound(b *testing.B) {
	w := newWorld(3)
	w.nodes[0].part().Lead(1)
	w.tick(2 * period)
	for _, n := range w.nodes {
		x, err := n.part().Pin(context.Background(), 1)
		if err != nil {
			b.Fatal(err)
		}
		defer x.Release()
	}
	items := make([]Item, 128)
	for i := range items {
		items[i] = Item{Inode: object.InodeID(i + 2), At: uint64(i)}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.nodes[0].part().Free(context.Background(), items); err != nil {
			b.Fatal(err)
		}
	}
}
