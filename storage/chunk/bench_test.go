package chunk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

const benchSize = 4 << 20

// BenchmarkRawWrite is the yardstick of BenchmarkPut: the same bytes, written
// and synced with nothing around them.
func BenchmarkRawWrite(b *testing.B) {
	dir, data, disk := b.TempDir(), noise(benchSize, 1), vfs.OS()
	b.SetBytes(benchSize)
	for n := 0; b.Loop(); n++ {
		f, err := disk.OpenFile("bench", filepath.Join(dir, fmt.Sprint(n)), os.O_WRONLY|os.O_CREATE, 0o644)
		must(b, err)
		_, err = f.Write(data)
		must(b, err)
		must(b, f.Sync("bench"))
		must(b, f.Close())
	}
}

func BenchmarkPut(b *testing.B) {
	for _, kind := range []Compression{None, S2, Zstd} {
		for what, data := range map[string][]byte{"noise": noise(benchSize, 1), "text": text(benchSize, 1)} {
			b.Run(fmt.Sprint(kind, "/", what), func(b *testing.B) {
				s := openStore(b, Options{FS: vfs.OS(), Dirs: []string{b.TempDir()}, Compression: kind})
				b.SetBytes(benchSize)
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					_, err := s.Put(ctx, object.ChunkID{Owner: 1, Ordinal: uint32(n)}, data)
					must(b, err)
				}
			})
		}
	}
}

func BenchmarkReadAt(b *testing.B) {
	for _, kind := range []Compression{None, S2, Zstd} {
		for _, size := range []int{4 << 10, 1 << 20, benchSize} {
			b.Run(fmt.Sprint(kind, "/", size), func(b *testing.B) {
				s := openStore(b, Options{FS: vfs.OS(), Dirs: []string{b.TempDir()}, Compression: kind})
				chunk := id(0)
				ref, err := s.Put(ctx, chunk, text(benchSize, 1))
				must(b, err)
				dst := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					_, err := s.ReadAt(ctx, chunk, ref.SHA256, 0, dst)
					must(b, err)
				}
			})
		}
	}
}
