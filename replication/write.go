package replication

import (
	"context"
	"io"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Write changes bytes in place: durable and visible at once when it returns.
// It returns the new record and where the bytes went. One call takes up to
// MaxExtents chunks (1 GiB at the default chunk size): it is one entry.
func (n *Node) Write(ctx context.Context, ino object.InodeID, off int64, body io.Reader, o WriteOptions) (*object.Inode, int64, error) {
	if off < 0 {
		return nil, 0, object.Errorf(object.KindInvalid, "the offset is negative")
	}
	rc, err := n.receive(ctx, ino.Partition(), ino, body, o.Size, namespace.MaxExtents*n.cfg.ChunkSize)
	if err != nil { // no room, say, for what an earlier attempt brought
		r, err := n.orKept(ctx, err)
		if err != nil {
			return nil, 0, err
		}
		return r.Inode, r.Offset, nil
	}
	sp := &namespace.Splice{Inode: ino, Cond: cond(o.Cond), Offset: off, Length: rc.body.Size, Append: o.Append, Truncate: o.Truncate,
		Grow: rc.body.Size > 0, Content: newContentID(), Attr: setAttr(ino, o.Attr)}
	if rc.body.Size > 0 && len(rc.body.Extents) == 0 && !rc.body.Staged {
		sp.Data = rc.body.Inline
	}
	sp.Extents = rc.body.Extents
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		if rc.body.Staged {
			return nil, object.Errorf(object.KindTooLarge, "one write in place takes up to %d bytes: split it", namespace.MaxExtents*n.cfg.ChunkSize)
		}
		return n.do(ctx, ino.Partition(), &namespace.Command{Token: token(ctx), Splice: sp})
	})
	n.settleUpload(rc, r, err)
	if err != nil {
		return nil, 0, err
	}
	if sp.Data != nil {
		n.smallWrite(r.Inode)
	}
	return r.Inode, r.Offset, nil
}

// Punch makes a hole of [off, off+length), which may be empty. The size stays, or
// with grow becomes at least off+length.
func (n *Node) Punch(ctx context.Context, ino object.InodeID, off, length int64, grow bool) (*object.Inode, error) {
	r, err := n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		return n.do(ctx, ino.Partition(), &namespace.Command{Token: token(ctx),
			Splice: &namespace.Splice{Inode: ino, Offset: off, Length: length, Grow: grow, Content: newContentID()}})
	})
	if err != nil {
		return nil, err
	}
	return r.Inode, nil
}

// Seek is the first offset from off on that has data, or that has none (hole): the
// end of the file is one. KindRange where off is not in the file, or no data follows.
func (n *Node) Seek(ctx context.Context, ino object.InodeID, off int64, hole bool) (int64, error) {
	r, err := n.OpenInode(ctx, ino)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	size := r.inode.Size
	if off < 0 || off >= size {
		return 0, object.Errorf(object.KindRange, "offset %d is not in the file, which has %d bytes", off, size)
	}
	for off < size {
		list, reach, err := r.page(ctx, off, size)
		if err != nil {
			return 0, err
		}
		for _, e := range list {
			if gap := e.Offset > off; gap == hole {
				return off, nil
			} else if gap {
				return e.Offset, nil
			}
			off = e.End()
		}
		if off < reach && hole {
			return off, nil
		}
		off = max(off, reach)
	}
	if hole {
		return size, nil
	}
	return 0, object.Errorf(object.KindRange, "no data follows in the file")
}

// CopyRange shares bytes of src with dst and moves no data. It returns how
// many bytes were copied, which may be fewer than asked for (as
// copy_file_range): each step is one entry.
func (n *Node) CopyRange(ctx context.Context, src object.InodeID, srcOff int64, dst object.InodeID, dstOff, length int64) (*object.Inode, int64, error) {
	if srcOff < 0 || dstOff < 0 || length < 0 {
		return nil, 0, object.Errorf(object.KindInvalid, "an offset or the length is negative")
	}
	if r, err := n.recalled(ctx); err != nil || r != nil {
		return spliced(r, err) // the source may be gone, or another, by now
	}
	r, err := n.OpenInode(ctx, src)
	if err != nil {
		return spliced(n.orKept(ctx, err))
	}
	defer r.Close()
	length = min(length, r.inode.Size-srcOff)
	if length <= 0 {
		ino, err := n.GetAttr(ctx, dst)
		return ino, 0, err
	}
	if src == dst && srcOff < dstOff+length && dstOff < srcOff+length {
		return nil, 0, object.Errorf(object.KindInvalid, "the ranges overlap")
	}
	exts, end, err := r.page(ctx, srcOff, srcOff+length)
	if err != nil {
		return nil, 0, err
	}
	for i := range exts {
		exts[i].Offset -= srcOff
	}
	return spliced(n.spliceShared(ctx, &namespace.Splice{Inode: dst, Offset: dstOff, Length: end - srcOff, Grow: true, Content: newContentID(),
		Extents: exts, Existing: true}))
}

// spliced is what an entry, maybe of an earlier attempt, wrote.
func spliced(r *namespace.Result, err error) (*object.Inode, int64, error) {
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, 0, err
	}
	return r.Inode, r.Length, nil
}

// page is a bounded number of the pinned version's extents from off on, and
// how far they (and the holes between them) reach.
func (r *Reader) page(ctx context.Context, off, end int64) (list []object.Extent, reach int64, err error) {
	if r.inode.Content.IsZero() {
		if have := min(end, int64(len(r.inline))); off < have {
			list = []object.Extent{{Offset: off, Length: have - off, Data: r.inline[off:have]}}
		}
		return list, end, nil
	}
	next := int64(-1)
	err = r.pinned(ctx, func(v *namespace.View) (err error) {
		list, next, err = v.Extents(r.inode.Content, r.inode.Change, off, end, namespace.MaxExtents/2)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if next >= 0 {
		end = next
	}
	var bytes int
	for i := range list {
		list[i] = clip(list[i], off, end)
		// Bytes that travel in the entry are bounded too.
		if bytes += len(list[i].Data); bytes > 256<<10 {
			return list[:i], list[i].Offset, nil
		}
	}
	return list, end, nil
}

// spliceShared applies a splice whose chunks are shared: references on those of
// other owners are taken first, at all owners in one transaction.
func (n *Node) spliceShared(ctx context.Context, sp *namespace.Splice) (*namespace.Result, error) {
	part := sp.Inode.Partition()
	owners := foreignOwners(sp.Extents, part)
	return n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
		if len(owners) == 0 {
			return n.do(ctx, part, &namespace.Command{Token: token(ctx), Splice: sp})
		}
		return n.transact(ctx, plan{halves: refHalves(sp.Extents, owners, false), decider: part, lazy: true,
			decide: func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{Splice: sp} }})
	})
}

// foreignOwners are the owners of the extents' chunks besides part, each once.
func foreignOwners(exts []object.Extent, part object.PartitionID) (owners []object.PartitionID) {
	seen := map[object.PartitionID]bool{part: true}
	for _, e := range exts {
		if e.Data == nil && !seen[e.Chunk.Owner] {
			seen[e.Chunk.Owner] = true
			owners = append(owners, e.Chunk.Owner)
		}
	}
	return owners
}

// refHalves takes one reference on each foreign chunk at its owner.
func refHalves(exts []object.Extent, owners []object.PartitionID, fresh bool) (halves []half) {
	for _, o := range owners {
		refs := &namespace.Refs{New: fresh}
		seen := map[object.ChunkID]bool{}
		for _, e := range exts {
			if e.Data == nil && e.Chunk.Owner == o && !seen[e.Chunk] {
				seen[e.Chunk] = true
				refs.Chunks = append(refs.Chunks, namespace.RefOf(&e))
			}
		}
		halves = append(halves, half{o, namespace.Half{Refs: refs}})
	}
	return halves
}
