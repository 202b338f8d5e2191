package meta

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// BenchmarkMeta commits 400-byte values, half of them incompressible, 16 to a
// transaction, and reads them back from tables and memtable.
func BenchmarkMeta(b *testing.B) {
	const keys = 100_000
	db, err := Open(Options{FS: vfs.OS(), Dir: b.TempDir(), MemTableBytes: 16 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	p := db.Partition(1)
	key := func(i int) []byte { return fmt.Appendf(nil, "dir/%06d", i) }
	value := make([]byte, 400)
	index := uint64(0)
	commit := func(from int) {
		tx := p.Begin()
		defer tx.Discard()
		for i := from; i < from+16; i++ {
			sum := sha256.Sum256(key(i))
			for n := range 6 {
				copy(value[n*32:], sum[:])
			}
			if err := tx.Set(key(i%keys), value); err != nil {
				b.Fatal(err)
			}
		}
		index++
		if err := tx.Commit(index); err != nil {
			b.Fatal(err)
		}
	}
	for i := 0; i < keys; i += 16 {
		commit(i)
	}
	b.Run("commit16", func(b *testing.B) {
		for i := range b.N {
			commit(i * 16)
		}
	})
	b.Run("get", func(b *testing.B) {
		for range b.N {
			v := p.View()
			if _, found, err := v.Get(key(rand.IntN(keys))); err != nil || !found {
				b.Fatal(found, err)
			}
			v.Close()
		}
	})
	b.Run("scan100", func(b *testing.B) {
		for range b.N {
			v := p.View()
			n := 0
			err := v.Ascend(key(rand.IntN(keys-200)), nil, func(_, _ []byte) (bool, error) {
				n++
				return n < 100, nil
			})
			if err != nil {
				b.Fatal(err)
			}
			v.Close()
		}
	})
}
