package copies

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// benchCluster is n nodes with TLS and disks in memory, so that the figures are
// those of this package and the transport.
func benchCluster(b *testing.B, n, width int) []*Store {
	b.Helper()
	secret, addrs := transport.NewSecret(), map[string]string{}
	var members []placement.Node
	var stores []*Store
	for i := range n {
		members = append(members, placement.Node{ID: placement.NodeID([]string{"a", "b", "c", "d", "e", "f"}[i]), Weight: 1})
	}
	layout, err := placement.NewLayout(members, width, 8, 1)
	must(b, err)
	for _, m := range members {
		local, err := chunk.Open(chunk.Options{FS: vfs.NewPowerCut(), Dirs: []string{"/disk"}, Logger: slog.New(slog.DiscardHandler)})
		must(b, err)
		wire, err := transport.Open(transport.Options{Cluster: "c1", Node: string(m.ID), Secrets: []transport.Secret{secret}, Resolve: func(to string) (string, error) { return addrs[to], nil }})
		must(b, err)
		s, err := New(Options{Self: string(m.ID), Local: local, Client: func(node string) *http.Client { return wire.HTTPClient(node) },
			Locate: func(id object.ChunkID, _ Scheme) (placement.Site, error) { return layout.Locate(id), nil }})
		must(b, err)
		wire.HandleHTTP(s.Handler())
		addr, err := wire.Listen("127.0.0.1:0")
		must(b, err)
		addrs[string(m.ID)] = addr.String()
		stores = append(stores, s)
		b.Cleanup(func() { must(b, wire.Close()); s.Close(); must(b, local.Close()) })
	}
	return stores
}

func BenchmarkPut(b *testing.B) {
	for _, q := range []struct {
		name   string
		nodes  int
		scheme Scheme
	}{{"3 copies", 3, Copies(3)}, {"4+2", 6, Scheme{4, 2}}} {
		b.Run(q.name, func(b *testing.B) {
			stores, data := benchCluster(b, q.nodes, q.scheme.Width()), someData(4<<20)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				id, done := someID(), make(chan struct{})
				_, err := stores[0].PutPieces(b.Context(), id, q.scheme, [][]byte{data}, func() { close(done) })
				must(b, err)
				<-done
				b.StopTimer()
				must(b, stores[0].DeleteAll(b.Context(), q.scheme, []object.ChunkID{id}))
				b.StartTimer()
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, q := range []struct {
		name   string
		nodes  int
		scheme Scheme
		size   int
	}{{"local copy, 4 MiB", 3, Copies(3), 4 << 20}, {"other's copy, 4 MiB", 4, Copies(1), 4 << 20}, {"other's copy, 4 KiB", 4, Copies(1), 4 << 10}, {"4+2, 4 MiB", 6, Scheme{4, 2}, 4 << 20}} {
		b.Run(q.name, func(b *testing.B) {
			stores, data := benchCluster(b, q.nodes, q.scheme.Width()), someData(4<<20)
			id := someID()
			for q.nodes == 4 && mustLocate(b, stores[0], id, q.scheme).spots[0].node == "a" {
				id = someID()
			}
			ch, err := stores[0].PutPieces(b.Context(), id, q.scheme, [][]byte{data}, func() {})
			must(b, err)
			dst := make([]byte, q.size)
			b.SetBytes(int64(q.size))
			for b.Loop() {
				if n, err := stores[0].ReadAt(b.Context(), ch, 0, dst); err != nil || n < q.size {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func mustLocate(b *testing.B, s *Store, id object.ChunkID, scheme Scheme) place {
	b.Helper()
	p, err := s.locate(id, scheme)
	must(b, err)
	return p
}
