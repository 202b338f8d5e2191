package replication

import (
	"bytes"
	"context"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Compaction packs runs of small extents (what small writes left) into chunks.
// The bytes stay the same, and so does the content's version; readers that
// pinned the old extents keep them until they are done.

const (
	// compactAfter is how many small writes to one file call for a compaction.
	compactAfter = 256
	// compactRun is the smallest number of extents worth packing together.
	compactRun = 4
	// compactData bounds the inline bytes that one step replaces.
	compactData = 768 << 10
)

// scatter counts small writes to files, and which are being compacted.
type scatter struct {
	mu    sync.Mutex
	count map[object.InodeID]int
	busy  map[object.InodeID]bool
}

// note counts one small write; true: now is the time to compact.
func (s *scatter) note(ino object.InodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil || len(s.count) > 10000 { // a bound; losing counts does no harm
		s.count = map[object.InodeID]int{}
	}
	s.count[ino]++
	return s.count[ino]%compactAfter == 0
}

// take reserves a file for one compaction at a time.
func (s *scatter) take(ino object.InodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == nil {
		s.busy = map[object.InodeID]bool{}
	}
	if s.busy[ino] {
		return false
	}
	s.busy[ino] = true
	return true
}

func (s *scatter) give(ino object.InodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, ino)
}

// smallWrite is told of every write whose bytes travelled in the log.
func (n *Node) smallWrite(ino *object.Inode) {
	if ino == nil || ino.Content.IsZero() || !n.scatter.note(ino.ID) || !n.scatter.take(ino.ID) {
		return
	}
	n.goWork(func() {
		defer n.scatter.give(ino.ID)
		err := n.compactFile(n.ctx, ino.ID)
		if !object.IsKind(err, object.KindPrecondition) && !object.IsKind(err, object.KindStale) {
			n.logged("compaction", err)
		}
	})
}

// compactFile packs the runs of small extents of a file. KindPrecondition: it
// changed meanwhile; what was packed until then is.
func (n *Node) compactFile(ctx context.Context, ino object.InodeID) error {
	r, err := n.OpenInode(ctx, ino)
	if err != nil {
		return err
	}
	defer r.Close()
	var run []object.Extent
	data := 0
	flush := func() error {
		defer func() { run, data = nil, 0 }()
		if len(run) < compactRun {
			return nil
		}
		return n.packRun(ctx, r, run[0].Offset, run[len(run)-1].End())
	}
	err = r.extents(ctx, 0, r.inode.Size, func(e object.Extent) error {
		big := e.Data == nil && e.Length >= n.cfg.ChunkSize/4
		joins := len(run) > 0 && run[len(run)-1].End() == e.Offset && e.End()-run[0].Offset <= max(n.cfg.ChunkSize, compactData) && data+len(e.Data) <= compactData
		if big || !joins {
			if err := flush(); err != nil {
				return err
			}
		}
		if !big {
			run, data = append(run, e), data+len(e.Data)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// packRun replaces the extents of a range by as few as hold its bytes.
func (n *Node) packRun(ctx context.Context, r *Reader, from, to int64) error {
	var b bytes.Buffer
	if err := r.WriteRange(ctx, &b, from, to-from); err != nil {
		return err
	}
	rc, err := n.receive(ctx, r.part.id, &b, to-from, to-from)
	if err != nil {
		return err
	}
	exts := rc.body.Extents
	if len(rc.body.Inline) > 0 {
		exts = []object.Extent{{Length: to - from, Data: rc.body.Inline}}
	}
	res, err := n.do(ctx, r.part.id, &namespace.Command{Compact: &namespace.CompactExtents{
		Inode: r.inode.ID, Version: r.inode.Version, Offset: from, Length: to - from, Extents: exts}})
	n.settleUpload(rc, res, err)
	return err
}
