package meta

import (
	"time"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/ristretto/v2/z"
)

// Badger builds a table in memory of a z.Allocator, and keeps up to eight of them for
// the next tables. They never shrink, so that with time each has the size of the
// largest table there was (28 MB for a flushed memtable of 16 MiB, 124 MB for one of
// 64 MiB), and Badger gives one back only after two seconds without any table built:
// never, under a steady load.
const (
	spareAllocators = 8
	spareEvery      = time.Second
)

// allocators is Badger's pool of them. The field is set before Open returns, and not
// changed again; the pool is safe for concurrent use until Badger is closed.
func allocators(db *badger.DB) *z.AllocatorPool {
	return *(**z.AllocatorPool)(unsafe.Add(unsafe.Pointer(db), badgerProbe.allocators))
}

// dropSpares gives the memory of tables that are built back to the runtime, until stop.
// It must have ended before Badger is closed.
func dropSpares(pool *z.AllocatorPool, stop <-chan struct{}) {
	tick := time.NewTicker(spareEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for range spareAllocators {
			pool.Get(0, "spare").Release() // a small new one, where there is none
		}
	}
}
