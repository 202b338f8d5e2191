package chunk

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// TestPutPieces: a chunk is the same file, however its bytes lay in memory, and
// whether the kernel could begin to write it out early or not.
func TestPutPieces(t *testing.T) {
	for _, kind := range []Compression{None, S2, Zstd} {
		for _, disk := range []vfs.FS{vfs.NewPowerCut(), vfs.OS()} {
			if disk == vfs.OS() && kind == Zstd {
				continue // as S2, and syncs take their time
			}
			s := openStore(t, Options{FS: disk, Dirs: []string{t.TempDir()}, Compression: kind})
			for n, length := range []int{1, FrameSize, 2*FrameSize - 1, 2 * FrameSize, 5*FrameSize + 3, 40*FrameSize + 100} {
				for _, data := range [][]byte{noise(length, 1), text(length, 1)} {
					want, err := s.Put(ctx, id(n), data)
					must(t, err)
					whole := fileOf(t, s, id(n))
					for _, step := range []int{FrameSize, 4 * FrameSize} {
						must(t, s.Delete(ctx, id(n)))
						ref, err := s.PutPieces(ctx, id(n), slices.Collect(slices.Chunk(data, step)))
						must(t, err)
						if ref != want || !bytes.Equal(fileOf(t, s, id(n)), whole) {
							t.Fatalf("%v, %d bytes by %d: another file", kind, length, step)
						}
						wantChunk(t, s, id(n), data)
					}
					must(t, s.Delete(ctx, id(n)))
				}
			}
		}
	}
}

// fileOf is the bytes of a chunk's file.
func fileOf(t *testing.T, s *Store, id object.ChunkID) []byte {
	t.Helper()
	f, err := s.opts.FS.OpenFile(OpRead, s.disks[0].path(id), os.O_RDONLY, 0)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	b := make([]byte, info.Size())
	_, err = f.ReadAt(b, 0)
	must(t, err)
	return b
}

func TestPiecesOfNoChunk(t *testing.T) {
	s := openStore(t, Options{})
	f := make([]byte, FrameSize)
	for _, c := range []struct {
		pieces [][]byte
		want   object.Kind
	}{
		{nil, object.KindInvalid},
		{[][]byte{{}}, object.KindInvalid},
		{[][]byte{{1}, {2}}, object.KindInternal},
		{[][]byte{f, {1}, f}, object.KindInternal},
		{[][]byte{f, {}}, object.KindInternal},
		{[][]byte{f, make([]byte, FrameSize+1)}, object.KindInternal},
		{[][]byte{{}, f}, object.KindInternal},
		{slices.Repeat([][]byte{f}, MaxLength/FrameSize+1), object.KindTooLarge},
	} {
		_, err := s.PutPieces(ctx, id(0), c.pieces)
		wantKind(t, err, c.want)
	}
}
