package meta

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// verifyIndexes checks the index of every table: Badger does so only when it opens
// one, and reads it from the mapped file ever after.
func (db *DB) verifyIndexes() error {
	if db.dir == nil {
		return nil
	}
	for _, t := range db.badger.Tables() {
		name := table.NewFilename(t.ID, db.dir.data())
		err := verifyIndex(name)
		if err != nil && db.hasTable(t.ID) { // else compacted meanwhile: cut to nothing, then removed
			return corrupt(fmt.Errorf("index of %s: %w", name, err))
		}
	}
	return nil
}

func (db *DB) hasTable(id uint64) bool {
	return slices.ContainsFunc(db.badger.Tables(), func(t badger.TableInfo) bool { return t.ID == id })
}

// verifyIndex reads a table's end, which is: index, its length, its checksum (a
// pb.Checksum), its length; lengths in 4 bytes, big endian.
func verifyIndex(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := info.Size()
	tail := func() ([]byte, error) {
		var size [4]byte
		if _, err := f.ReadAt(size[:], end-4); err != nil {
			return nil, err
		}
		n := int64(binary.BigEndian.Uint32(size[:]))
		if end -= 4 + n; end < 0 {
			return nil, fmt.Errorf("a length of %d bytes is more than there is", n)
		}
		data := make([]byte, n)
		_, err := f.ReadAt(data, end)
		return data, err
	}
	sum, err := tail()
	if err != nil {
		return err
	}
	index, err := tail()
	if err != nil {
		return err
	}
	var want pb.Checksum
	if err := proto.Unmarshal(sum, &want); err != nil {
		return err
	}
	return y.VerifyChecksum(index, &want)
}
