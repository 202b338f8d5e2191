package copies

import (
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// BenchmarkAlone is what a put and a read cost the only holder, beside its disks without us.
func BenchmarkAlone(b *testing.B) {
	s := benchCluster(b, 1, 3)[0]
	data := someData(64 << 10)
	pieces := [][]byte{data}
	put := func(b *testing.B, fn func(object.ChunkID) error) {
		b.ReportAllocs()
		for b.Loop() {
			id := someID()
			must(b, fn(id))
			b.StopTimer()
			must(b, s.DeleteHere(b.Context(), []object.ChunkID{id}))
			b.StartTimer()
		}
	}
	b.Run("put/disk", func(b *testing.B) {
		put(b, func(id object.ChunkID) error {
			_, err := s.o.Local.PutPieces(b.Context(), id, pieces)
			return err
		})
	})
	b.Run("put/copies", func(b *testing.B) {
		put(b, func(id object.ChunkID) error {
			_, err := s.PutPieces(b.Context(), id, Copies(3), pieces, func() {})
			return err
		})
	})
	ch, err := s.PutPieces(b.Context(), someID(), Copies(3), pieces, func() {})
	must(b, err)
	dst := make([]byte, len(data))
	b.Run("read/disk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := s.o.Local.ReadAt(b.Context(), ch.ID, ch.SHA256, 0, dst)
			must(b, err)
		}
	})
	b.Run("read/copies", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := s.ReadAt(b.Context(), ch, 0, dst)
			must(b, err)
		}
	})
}
