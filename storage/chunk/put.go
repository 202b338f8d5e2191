package chunk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Ref is what there is to know of a stored chunk besides its id.
type Ref struct {
	SHA256 [32]byte // of the logical bytes
	Length int64    // logical bytes
	Stored int64    // bytes of its frames on disk, compressed where that helped
}

// Put stores data (1 byte to MaxLength, not kept after the return) under id.
// When it returns nil the chunk is durable, also when it was there already.
// Another content under the same id is KindConflict; a full disk KindNoSpace.
// After an error the chunk is absent or whole, and Put may be called again.
func (s *Store) Put(ctx context.Context, id object.ChunkID, data []byte) (Ref, error) {
	return s.put(ctx, id, [][]byte{data}, nil)
}

// PutHash is Put for a caller that has the SHA-256 of data already. A wrong one
// makes a chunk that fails its checks.
func (s *Store) PutHash(ctx context.Context, id object.ChunkID, data []byte, sha [32]byte) (Ref, error) {
	return s.put(ctx, id, [][]byte{data}, &sha)
}

// PutPieces is Put for data that lies in pieces, one after another. All but the
// last have the same length, a multiple of FrameSize; the last is not longer.
func (s *Store) PutPieces(ctx context.Context, id object.ChunkID, pieces [][]byte) (Ref, error) {
	return s.put(ctx, id, pieces, nil)
}

func (s *Store) put(ctx context.Context, id object.ChunkID, pieces [][]byte, sha *[32]byte) (Ref, error) {
	data, err := newContent(pieces)
	if err != nil {
		return Ref{}, failed("chunk.put", id, err)
	}
	sum := hashing(data, sha)
	defer sum() // the hash reads data, which is the caller's again when we return
	g, err := s.hold(ctx, id)
	if err != nil {
		return Ref{}, failed("chunk.put", id, err)
	}
	defer g.release()
	ref, found, err := g.putAgain(ctx, sum)
	if !found && err == nil {
		ref, err = s.putNew(ctx, id, data, sum)
	}
	return ref, failed("chunk.put", id, err)
}

// putAgain deals with an id that is there already: it checks that copy from
// first byte to last and makes it durable. A damaged copy is moved away and
// reported as not found.
func (g *grip) putAgain(ctx context.Context, sum func() [32]byte) (ref Ref, found bool, err error) {
	for _, d := range g.rank(g.id) {
		if has, err := d.has(g.id); err != nil {
			return Ref{}, false, err
		} else if !has {
			continue
		}
		info, err := g.check(ctx, d, g.id)
		switch {
		case object.IsKind(err, object.KindCorrupt):
			if err := g.moveAway(ctx, d, err); err != nil {
				return Ref{}, false, err
			}
			continue
		case err != nil:
			return Ref{}, false, err
		case info.SHA256 != sum():
			return Ref{}, true, object.Errorf(object.KindConflict, "the chunk is here with another content")
		}
		return info.Ref, true, d.settleChunk(ctx, g.id)
	}
	return Ref{}, false, nil
}

// putNew writes the chunk to the first disk, in the order of rank, that takes it.
func (s *Store) putNew(ctx context.Context, id object.ChunkID, data content, sum func() [32]byte) (Ref, error) {
	packed, err := s.pack(data)
	if err != nil {
		return Ref{}, err
	}
	defer packed.release()
	var failures []error
	for _, d := range s.rank(id) {
		if err := ctx.Err(); err != nil {
			return Ref{}, err
		}
		err := d.writable(packed.fileSize(), s.opts.Reserve)
		if err == nil {
			var named bool
			if named, err = s.write(d, id, packed, sum); named {
				if err = d.settleChunk(ctx, id); err != nil {
					return Ref{}, err // it has its name: a second copy elsewhere would help nobody
				}
				s.stats.puts.Add(1)
				s.stats.putBytes.Add(data.length)
				s.stats.storedBytes.Add(packed.stored)
				return Ref{SHA256: sum(), Length: data.length, Stored: packed.stored}, nil
			}
		}
		failures = append(failures, err)
	}
	return Ref{}, noDisk(failures)
}

// noDisk sums up why no disk took a chunk: KindNoSpace when all are full.
func noDisk(failures []error) error {
	kind := object.KindNoSpace
	for _, err := range failures {
		full := object.IsKind(err, object.KindNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
		if !full {
			kind = object.KindOf(err)
		}
	}
	if kind == object.KindNotFound { // a file of ours vanished: that is no answer to a put
		kind = object.KindInternal
	}
	return object.Errorf(kind, "no disk took the chunk: %w", errors.Join(failures...))
}

// write makes a synced temporary file and gives it its name. named reports that
// it got so far; otherwise nothing is left.
func (s *Store) write(d *disk, id object.ChunkID, p *packed, sum func() [32]byte) (named bool, err error) {
	if err := d.makeLeaf(id); err != nil {
		return false, err
	}
	tmp := filepath.Join(d.tmp(), fmt.Sprintf("%s.%d", id, s.temps.Add(1)))
	f, err := d.fs.OpenFile(OpCreate, tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return false, err
	}
	err = p.writeTo(f, id, sum)
	if err == nil {
		err = f.Sync(OpSync)
	}
	closeWith(f, &err)
	if err == nil {
		err = d.fs.Rename(OpRename, tmp, d.path(id))
	}
	if err == nil {
		return true, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		d.unsettle(id) // somebody removed the directory: the next try makes it again
	}
	if rerr := d.fs.Remove(OpAbandon, tmp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return false, err
}
