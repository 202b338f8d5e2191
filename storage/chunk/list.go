package chunk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Partitions lists the partitions that own chunks here, or did, in order.
func (s *Store) Partitions() ([]object.PartitionID, error) {
	var list []object.PartitionID
	for _, d := range s.disks {
		entries, err := d.fs.ReadDir(OpList, d.chunks())
		if err != nil {
			return nil, object.WithOp(err, "chunk.partitions", "", "")
		}
		for _, e := range entries {
			p, err := strconv.ParseUint(e.Name(), 16, 16)
			if err == nil && fmt.Sprintf("%04x", p) == e.Name() {
				list = append(list, object.PartitionID(p))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// Each calls fn with the id of every chunk of a partition behind after (zero:
// from the first on), in id order, until fn fails. Chunks that come or go
// meanwhile may be seen or not. It holds the names of one directory (1/256 of
// the partition's uploads) at a time, and no lock.
func (s *Store) Each(ctx context.Context, p object.PartitionID, after object.ChunkID, fn func(object.ChunkID) error) error {
	first := 0
	if after != (object.ChunkID{}) {
		if after.Owner > p {
			return nil
		}
		if after.Owner == p {
			first = int(after.Upload[0])
		}
	}
	for leaf := first; leaf < 256; leaf++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		ids, err := s.leafIDs(p, byte(leaf))
		if err != nil {
			return object.WithOp(err, "chunk.list", "", "")
		}
		for _, id := range ids {
			if id.Compare(after) <= 0 && after != (object.ChunkID{}) {
				continue
			}
			if err := fn(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Has tells whether a disk has the chunk's file, without opening it.
func (s *Store) Has(id object.ChunkID) (bool, error) {
	for _, d := range s.rank(id) {
		_, err := d.fs.Stat(OpList, d.path(id))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, object.WithOp(err, "chunk.has", "", "")
		}
	}
	return false, nil
}

// leafIDs is the ids in one directory of the partition, over all disks, in order.
func (s *Store) leafIDs(p object.PartitionID, leaf byte) ([]object.ChunkID, error) {
	var ids []object.ChunkID
	for _, d := range s.disks {
		entries, err := d.fs.ReadDir(OpList, filepath.Join(d.partition(p), fmt.Sprintf("%02x", leaf)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			id, err := object.ParseChunkID(e.Name())
			if err != nil || id.Owner != p || id.Upload[0] != leaf {
				continue // not ours: it stays, and never becomes an orphan
			}
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, object.ChunkID.Compare)
	return slices.Compact(ids), nil
}
