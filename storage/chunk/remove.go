package chunk

import (
	"context"
	"errors"
	"io/fs"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Delete removes a chunk durably. A chunk that is not here is no error.
func (s *Store) Delete(ctx context.Context, id object.ChunkID) error {
	return s.DeleteAll(ctx, []object.ChunkID{id})
}

// DeleteAll removes chunks durably; each directory is synced once. It goes on
// after an error, and may be called again with the same ids: what an earlier
// call removed without making it durable is made durable then.
func (s *Store) DeleteAll(ctx context.Context, ids []object.ChunkID) error {
	type place struct {
		d    *disk
		leaf string
	}
	var errs []error
	leaves := map[place]bool{}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		errs = append(errs, failed("chunk.delete", id, s.remove(ctx, id)))
		for _, d := range s.disks {
			leaves[place{d, d.leaf(id)}] = true
		}
	}
	for p := range leaves {
		if err := p.d.syncIfThere(ctx, p.leaf); err != nil {
			errs = append(errs, object.WithOp(err, "chunk.delete", "", ""))
		}
	}
	return errors.Join(errs...)
}

// syncIfThere is sync of a directory that may not have been made.
func (d *disk) syncIfThere(ctx context.Context, dir string) error {
	if _, err := d.fs.Stat(OpStat, dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return d.sync(ctx, dir)
}

// remove drops a chunk's name on every disk.
func (s *Store) remove(ctx context.Context, id object.ChunkID) error {
	g, err := s.hold(ctx, id)
	if err != nil {
		return err
	}
	defer g.release()
	defer s.files.evict(id)
	var errs []error
	for _, d := range s.disks {
		err := d.fs.Remove(OpRemove, d.path(id))
		if err == nil {
			s.stats.deletes.Add(1)
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
