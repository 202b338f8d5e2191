package meta

import (
	"errors"
	"io/fs"
	"os"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/table"
)

// tables is the ledger of a Badger database. Not safe for concurrent use.
type tables struct {
	db   *badger.DB
	dir  string            // empty in memory
	seen map[uint64]uint64 // the last answer of written
}

func (t *tables) compacting() []uint64 { return badgerProbe.compacting(t.db) }

func (t *tables) keyCounts() map[uint64]uint64 {
	counts := map[uint64]uint64{}
	for _, info := range t.db.Tables() {
		counts[info.ID] = uint64(info.KeyCount)
	}
	return counts
}

func (t *tables) written() (map[uint64]uint64, error) {
	if t.dir == "" {
		return nil, nil
	}
	// Before the tables are asked for: what is installed meanwhile is left out.
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil, err
	}
	installed := t.keyCounts()
	written := map[uint64]uint64{}
	for _, e := range entries {
		id, ok := table.ParseFileID(e.Name())
		if _, there := installed[id]; !ok || there {
			continue
		}
		keys, ok := t.seen[id]
		if !ok {
			if keys, ok, err = keysOf(table.NewFilename(id, t.dir)); err != nil {
				return nil, err
			}
		}
		if ok {
			written[id] = keys
		}
	}
	t.seen = written
	return written, nil
}

// keysOf is how many keys a table holds; ok=false while its file is not complete: it
// is written from front to back, and ends with the index.
func keysOf(name string) (keys uint64, ok bool, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	index, _, err := readIndex(f, info.Size())
	if err != nil {
		return 0, false, nil
	}
	defer func() {
		if recover() != nil { // no index after all
			keys, ok = 0, false
		}
	}()
	return uint64(fb.GetRootAsTableIndex(index, 0).KeyCount()), true, nil
}
