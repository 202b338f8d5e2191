package chunk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// grip is the lock of one chunk id, and what was found damaged under it.
type grip struct {
	*Store
	id       object.ChunkID
	unlock   func()
	findings []error
}

// hold waits for the lock of id, or until ctx ends.
func (s *Store) hold(ctx context.Context, id object.ChunkID) (*grip, error) {
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	return &grip{Store: s, id: id, unlock: unlock}, nil
}

// release gives the lock back and then, with no lock held, reports the findings.
func (g *grip) release() {
	g.unlock()
	for _, cause := range g.findings {
		if g.opts.OnCorrupt != nil {
			g.opts.OnCorrupt(g.id, cause)
		}
	}
}

// condemn looks again, alone, at a chunk that failed a check for cause, and moves
// every damaged copy to quarantine. It returns nil when no damaged copy is left
// to find, and otherwise an error of KindCorrupt, or what went wrong on the way.
func (s *Store) condemn(ctx context.Context, id object.ChunkID, cause error) error {
	g, err := s.hold(ctx, id)
	if err != nil {
		return err
	}
	defer g.release()
	s.files.evict(id)
	var found error
	for _, d := range s.rank(id) {
		_, err := s.check(ctx, d, id)
		switch {
		case err == nil || object.IsKind(err, object.KindNotFound):
		case object.IsKind(err, object.KindCorrupt):
			found = err
			if err := g.moveAway(ctx, d, err); err != nil {
				return errors.Join(object.Errorf(object.KindCorrupt, "%w", cause), err)
			}
		default:
			return err
		}
	}
	return found
}

// Quarantine moves the chunk, sound or not, out of the way, for a caller that
// knows from the owner partition that it is not the right one.
func (s *Store) Quarantine(ctx context.Context, id object.ChunkID, reason error) error {
	g, err := s.hold(ctx, id)
	if err != nil {
		return failed("chunk.quarantine", id, err)
	}
	defer g.release()
	for _, d := range s.disks {
		has, err := d.has(id)
		if err == nil && has {
			err = g.moveAway(ctx, d, reason)
		}
		if err != nil {
			return failed("chunk.quarantine", id, err)
		}
	}
	return nil
}

// moveAway moves the chunk's file on d to quarantine, durably.
func (g *grip) moveAway(ctx context.Context, d *disk, cause error) error {
	to, err := d.quarantineName(g.id)
	if err != nil {
		return err
	}
	if err := d.fs.Rename(OpQuarantine, d.path(g.id), to); err != nil {
		return err
	}
	g.files.evict(g.id)
	g.stats.corrupt.Add(1)
	g.findings = append(g.findings, cause)
	g.log.Error("a chunk failed a check and was quarantined", "chunk", g.id.String(), "file", to, "err", cause)
	// The new name first: a crash in between may leave both, never none.
	if err := d.sync(ctx, d.quarantine()); err != nil {
		return err
	}
	return d.sync(ctx, d.leaf(g.id))
}

// quarantineName is a free name: one id may be found damaged more than once.
func (d *disk) quarantineName(id object.ChunkID) (string, error) {
	for n := 0; ; n++ {
		name := filepath.Join(d.quarantine(), fmt.Sprintf("%s.%d", id, n))
		_, err := d.fs.Stat(OpStat, name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
	}
}
