package namespace

import (
	"fmt"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func benchPut(i int) *Command {
	return &Command{Now: 1_700_000_000_000_000_000 + int64(i), Epoch: 1, Put: &Put{Dir: object.RootInode, Name: fmt.Sprint(i), Inherit: true,
		Node: object.Inode{Type: object.TypeRegular, Mode: 0o644, Atime: 1_700_000_000_000_000_000, Mtime: 1_700_000_000_000_000_000,
			Ctime: 1_700_000_000_000_000_000, SHA256: make([]byte, 32)},
		Body: Body{Size: 4096, Inline: make([]byte, 4096)}}}
}

// BenchmarkApplyPut4K applies PUTs of 4 KiB into one directory, in batches of 64.
func BenchmarkApplyPut4K(b *testing.B) {
	db, err := meta.Open(meta.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	keys, bytes := db.MaxTxn()
	m := New(Options{Partition: object.Control, Store: db.Partition(object.Control), MaxKeys: keys, MaxBytes: bytes})
	index := uint64(0)
	apply := func(batch []*Command) {
		b.StopTimer()
		entries := make([]group.Entry, len(batch))
		for i, c := range batch {
			data, err := c.Encode()
			if err != nil {
				b.Fatal(err)
			}
			index++
			entries[i] = group.Entry{Index: index, Data: data}
		}
		b.StartTimer()
		if _, err := m.Apply(entries); err != nil {
			b.Fatal(err)
		}
	}
	apply([]*Command{{Init: &Init{}}})
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; {
		var batch []*Command
		for ; len(batch) < 64 && i < b.N; i++ {
			batch = append(batch, benchPut(i))
		}
		apply(batch)
	}
}

// BenchmarkEncodePut4K is what every PUT of a small object costs on its way to the log.
func BenchmarkEncodePut4K(b *testing.B) {
	c := benchPut(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}
