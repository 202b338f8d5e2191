package meta

import (
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"sync"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
)

// Badger's iterators keep the error of a block that they could not read to
// themselves: they only end early. Nor does it tell which tables it compacts. The
// places where it keeps them are private; probe knows the offsets, found by name
// and type when the program starts, so that another version of Badger with another
// layout stops it at once.
type probe struct {
	iterator    uintptr // badger.Iterator.iitr: y.Iterator
	left, right uintptr // table.MergeIterator.left.iter, right.iter: y.Iterator
	iters       uintptr // table.ConcatIterator.iters: []*table.Iterator
	err         uintptr // table.Iterator.err: error

	allocators uintptr // badger.DB.allocPool: *z.AllocatorPool

	levels       uintptr // badger.DB.lc: *levelsController
	status, lock uintptr // levelsController.cstatus.tables: map[uint64]struct{}, and its sync.RWMutex
}

var badgerProbe = newProbe()

func newProbe() probe {
	var (
		iterator = reflect.TypeFor[y.Iterator]()
		failure  = reflect.TypeFor[error]()
		merge    = reflect.TypeFor[table.MergeIterator]()
		node     = fieldOf(merge, "left", nil).Type
	)
	iter := fieldOf(node, "iter", iterator).Offset
	levels := fieldOf(reflect.TypeFor[badger.DB](), "lc", nil)
	status := fieldOf(levels.Type.Elem(), "cstatus", nil)
	return probe{
		allocators: fieldOf(reflect.TypeFor[badger.DB](), "allocPool", reflect.TypeFor[*z.AllocatorPool]()).Offset,

		levels:   levels.Offset,
		status:   status.Offset + fieldOf(status.Type, "tables", reflect.TypeFor[map[uint64]struct{}]()).Offset,
		lock:     status.Offset + fieldOf(status.Type, "RWMutex", reflect.TypeFor[sync.RWMutex]()).Offset,
		iterator: fieldOf(reflect.TypeFor[badger.Iterator](), "iitr", iterator).Offset,
		left:     fieldOf(merge, "left", node).Offset + iter,
		right:    fieldOf(merge, "right", node).Offset + iter,
		iters:    fieldOf(reflect.TypeFor[table.ConcatIterator](), "iters", reflect.TypeFor[[]*table.Iterator]()).Offset,
		err:      fieldOf(reflect.TypeFor[table.Iterator](), "err", failure).Offset,
	}
}

// fieldOf is a field of a Badger struct; of any type when want is nil.
func fieldOf(in reflect.Type, name string, want reflect.Type) reflect.StructField {
	f, ok := in.FieldByName(name)
	if !ok || (want != nil && f.Type != want) {
		panic(fmt.Sprintf("meta: this version of Badger has no field %s %v in %v: its errors cannot be seen", name, want, in))
	}
	return f
}

// failure is the error that ended one of the iterators under it, nil for none. It
// has to be asked before the iterator is moved back or closed.
func (p probe) failure(it *badger.Iterator) error {
	return p.inner(*(*y.Iterator)(unsafe.Add(unsafe.Pointer(it), p.iterator)))
}

func (p probe) inner(it y.Iterator) error {
	switch it := it.(type) {
	case *table.MergeIterator:
		if err := p.inner(*(*y.Iterator)(unsafe.Add(unsafe.Pointer(it), p.left))); err != nil {
			return err
		}
		return p.inner(*(*y.Iterator)(unsafe.Add(unsafe.Pointer(it), p.right)))
	case *table.ConcatIterator:
		for _, t := range *(*[]*table.Iterator)(unsafe.Add(unsafe.Pointer(it), p.iters)) {
			if err := p.ofTable(t); err != nil {
				return err
			}
		}
	case *table.Iterator:
		return p.ofTable(it)
	}
	return nil // of a memtable, or none
}

func (p probe) ofTable(it *table.Iterator) error {
	if it == nil { // a table that was not reached
		return nil
	}
	if err := *(*error)(unsafe.Add(unsafe.Pointer(it), p.err)); err != io.EOF {
		return err
	}
	return nil
}

// compacting is the tables that compactions have taken. Badger takes them before it
// reads, and lets them go after the outcome was installed.
func (p probe) compacting(db *badger.DB) []uint64 {
	levels := *(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(db), p.levels))
	lock := (*sync.RWMutex)(unsafe.Add(levels, p.lock))
	lock.RLock()
	defer lock.RUnlock()
	return slices.Collect(maps.Keys(*(*map[uint64]struct{})(unsafe.Add(levels, p.status))))
}
