package steward

import (
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// What follows is for a stopped node: package replication recovers clusters with it.

// Kept is the record of the newest replica that a node had of a partition.
type Kept struct {
	Generation uint64
	Live       bool   // others may count on it
	Life       string // for people
}

// ReadRecords reads the replica records of a stopped node. Errors are Open's.
func ReadRecords(fsys vfs.FS, dir string) (map[object.PartitionID]Kept, error) {
	r, err := openRecords(fsys, dir)
	if err != nil {
		return nil, err
	}
	list := map[object.PartitionID]Kept{}
	for p, rec := range r.all() {
		list[p] = Kept{rec.Generation, rec.Life == lifeLive, rec.Life.String()}
	}
	return list, nil
}

// KeepLive records replicas that were made on a stopped node, by partition with their
// generations, at once. The groups must be durable.
func KeepLive(fsys vfs.FS, dir string, made map[object.PartitionID]uint64) error {
	r, err := openRecords(fsys, dir)
	if err != nil {
		return err
	}
	changes := map[object.PartitionID]record{}
	for p, generation := range made {
		if old := r.get(p); old.Life != 0 && old.Generation > generation {
			return object.Errorf(object.KindStale, "replica %d of partition %d is older than the one that was here, %d", generation, p, old.Generation)
		}
		changes[p] = record{generation, lifeLive}
	}
	return r.put(changes)
}

// Save makes the identity durable beside the store of a stopped node.
func (id *Identity) Save(fsys vfs.FS, dir string) error { return id.save(fsys, dir) }
