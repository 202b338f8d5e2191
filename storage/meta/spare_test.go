package meta

import (
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2/z"
)

// What tables were built in does not stay. Badger alone needs 16 seconds for that,
// on an idle database, and has no end on a busy one.
func TestMemoryOfBuiltTablesIsGivenBack(t *testing.T) {
	db := open(t, small(t.TempDir()))
	defer db.Close()
	pool := allocators(db.badger)
	var refs []uint64
	for range spareAllocators {
		a := z.NewAllocator(1<<20, t.Name())
		refs = append(refs, a.Ref)
		pool.Return(a)
	}
	kept := func(ref uint64) bool { return z.AllocatorFrom(ref) != nil }
	deadline := time.Now().Add(10 * spareEvery)
	for slices.ContainsFunc(refs, kept) {
		if time.Now().After(deadline) {
			t.Fatal("some of it is still kept")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
