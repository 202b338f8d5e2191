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
	// compactData bounds the inline bytes that one step replaces, compactMost the extents.
	compactData = 768 << 10
	compactMost = 2048
	// compactors bounds the files that are compacted at a time, and so the memory.
	compactors = 2
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
// changed meanwhile where it was being packed; what was packed until then is.
func (n *Node) compactFile(ctx context.Context, ino object.InodeID) error {
	select {
	case n.compacting <- struct{}{}:
		defer func() { <-n.compacting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	r, err := n.OpenInode(ctx, ino)
	if err != nil {
		return err
	}
	defer r.Close()
	run := &packing{}
	err = r.extents(ctx, 0, r.inode.Size, func(e object.Extent) error {
		big := e.Data == nil && e.Length >= n.cfg.ChunkSize/4
		if big || !run.takes(e, n.cfg.ChunkSize) {
			if err := n.packRun(ctx, r, run); err != nil {
				return err
			}
			run = &packing{}
		}
		if !big {
			run.add(e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.packRun(ctx, r, run)
}

// packRun packs a run if that is worth it.
func (n *Node) packRun(ctx context.Context, r *Reader, run *packing) error {
	if len(run.list) < compactRun {
		return nil
	}
	return n.pack(ctx, r, run)
}

// packing is a run of small extents, with holes between them where the file has some.
type packing struct {
	list   []object.Extent
	bytes  int64
	inline int
	pieces int
}

func (p *packing) takes(e object.Extent, chunk int64) bool {
	return p.bytes+e.Length <= chunk && p.inline+len(e.Data) <= compactData && len(p.list) < compactMost && p.pieces < namespace.MaxExtents
}

func (p *packing) add(e object.Extent) {
	if n := len(p.list); n == 0 || p.list[n-1].End() != e.Offset {
		p.pieces++
	}
	p.list = append(p.list, e)
	p.bytes += e.Length
	p.inline += len(e.Data)
}

// pack replaces a run by one chunk that holds its pieces one after another.
func (n *Node) pack(ctx context.Context, r *Reader, run *packing) error {
	pieces := namespace.Covered(run.list, 0)
	from, to := pieces[0].From, pieces[len(pieces)-1].To
	var b bytes.Buffer
	for _, p := range pieces {
		if err := r.WriteRange(ctx, &b, p.From, p.To-p.From); err != nil {
			return err
		}
	}
	if int64(b.Len()) != run.bytes {
		return object.Errorf(object.KindCorrupt, "%d bytes to pack, %d were read", run.bytes, b.Len())
	}
	rc, err := n.receive(ctx, r.part.id, r.inode.ID, &b, run.bytes, run.bytes)
	if err != nil {
		return err
	}
	res, err := n.do(ctx, r.part.id, &namespace.Command{Compact: &namespace.CompactExtents{Inode: r.inode.ID, Content: r.inode.Content,
		Pin: r.inode.Change, Offset: from, Length: to - from, Extents: packed(pieces, from, &rc.body)}})
	n.settleUpload(rc, res, err)
	return err
}

// packed is the extents of pieces that lie one after another in a body of one
// chunk, or of inline bytes. A body of several chunks is of one piece.
func packed(pieces []namespace.Piece, base int64, body *namespace.Body) (list []object.Extent) {
	if len(body.Extents) > 1 {
		return body.Extents
	}
	at := int64(0)
	for _, p := range pieces {
		e := object.Extent{Offset: p.From - base, Length: p.To - p.From}
		if len(body.Extents) == 1 {
			c := body.Extents[0]
			e.Chunk, e.ChunkLength, e.SHA256, e.Scheme, e.ChunkOffset = c.Chunk, c.ChunkLength, c.SHA256, c.Scheme, at
		} else {
			e.Data = body.Inline[at : at+e.Length]
		}
		at += e.Length
		list = append(list, e)
	}
	return list
}
