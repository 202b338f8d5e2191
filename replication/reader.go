package replication

import (
	"context"
	"io"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/pins"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Reader reads one pinned version of a file: what it returns is of that
// version from first byte to last. It is safe for concurrent use; Close it.
type Reader struct {
	n      *Node
	part   *partition
	inode  *object.Inode
	inline []byte
	leased bool // pin keeps its content where it stands; else inline is all of it
	pin    pins.Pin
	once   sync.Once
}

// Inode is the pinned version's record; do not modify it.
func (r *Reader) Inode() *object.Inode { return r.inode }

// Close ends the lease.
func (r *Reader) Close() {
	if !r.leased {
		return
	}
	r.once.Do(func() {
		r.pin.Release()
		r.part.touch()
	})
}

// OpenInode pins the current version of a regular file for reading. Of other
// types only the record is there, and no bytes.
func (n *Node) OpenInode(ctx context.Context, ino object.InodeID) (*Reader, error) {
	p, err := n.partition(ino.Partition())
	if err != nil {
		return nil, err
	}
	r := &Reader{n: n, part: p, leased: true}
	// The pin is there before the state is looked at: nothing can be reclaimed between.
	err = n.leased(ctx, p, func() error {
		r.pin, err = p.pins.Pin(ctx, ino)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = n.inView(ctx, p.id, func(v *namespace.View) (err error) {
		if r.inode, err = v.Inode(ino); err != nil || !r.inode.Inline {
			return err
		}
		r.inline, err = v.Inline(ino)
		return err
	})
	if err != nil {
		r.pin.Release()
		return nil, err
	}
	r.pin.Move(r.inode.Change)
	return r, nil
}

// pinned runs fn on a linearizable view that still has the whole pinned version,
// and is the error if its lease was lost meanwhile.
func (r *Reader) pinned(ctx context.Context, fn func(v *namespace.View) error) error {
	err := r.n.inView(ctx, r.part.id, func(v *namespace.View) error {
		if err := v.Pinned(r.inode.ID, r.inode.Change); err != nil {
			return err // never answer with what is left
		}
		return fn(v)
	})
	if err == nil && r.leased {
		err = r.pin.Err()
	}
	return err
}

// pageExtents is how many extents a reader asks for at a time.
const pageExtents = 256

// extents calls fn for the extents of the pinned version that touch [off,
// end), cut to it, in order.
func (r *Reader) extents(ctx context.Context, off, end int64, fn func(e object.Extent) error) error {
	for off < end {
		var list []object.Extent
		next := int64(-1)
		err := r.pinned(ctx, func(v *namespace.View) (err error) {
			list, next, err = v.Extents(r.inode.Content, r.inode.Change, off, end, pageExtents)
			return err
		})
		if err != nil {
			return err
		}
		stop := end
		if next >= 0 {
			stop = next
		}
		for _, e := range list {
			if err := fn(clip(e, off, stop)); err != nil {
				return err
			}
		}
		off = stop
	}
	return nil
}

// clip is the piece of an extent inside [from, to).
func clip(e object.Extent, from, to int64) object.Extent {
	start, end := max(e.Offset, from), min(e.End(), to)
	skip := start - e.Offset
	if e.Data != nil {
		e.Data = e.Data[skip : skip+end-start]
	} else {
		e.ChunkOffset += skip
	}
	e.Offset, e.Length = start, end-start
	return e
}

// WriteRange streams verified bytes [off, off+length) to w; holes are zeros. A
// range that the file does not have is cut to what it has. An error after the
// first byte leaves w short, never wrong.
func (r *Reader) WriteRange(ctx context.Context, w io.Writer, off, length int64) error {
	end := min(off+length, r.inode.Size)
	if off < 0 || off >= end {
		return nil
	}
	if r.inode.Content.IsZero() {
		return r.writeInline(w, off, end)
	}
	pos := off
	pipe := newReadPipe(ctx, r, w)
	err := r.extents(ctx, off, end, func(e object.Extent) error {
		if e.Offset < pos {
			return object.Errorf(object.KindCorrupt, "extents of inode %s overlap at %d: run the checker", r.inode.ID, e.Offset)
		}
		if err := pipe.zeros(e.Offset - pos); err != nil {
			return err
		}
		pos = e.End()
		return pipe.extent(e)
	})
	if err == nil {
		err = pipe.zeros(end - pos)
	}
	return r.lost(pipe.close(err))
}

// lost tells a chunk that is missing from one that was dropped because the lease
// was lost, or came too late: the inode, opened by number, had lost its last name.
func (r *Reader) lost(err error) error {
	if !object.IsKind(err, object.KindCorrupt) {
		return err
	}
	gone := r.pinned(r.n.ctx, func(*namespace.View) error { return nil })
	if object.IsKind(gone, object.KindStale) || object.IsKind(gone, object.KindUnavailable) {
		return gone
	}
	return err
}

func (r *Reader) writeInline(w io.Writer, off, end int64) error {
	if have := min(end, int64(len(r.inline))); off < have {
		if _, err := w.Write(r.inline[off:have]); err != nil {
			return err
		}
		off = have
	}
	return writeZeros(w, end-off)
}

func writeZeros(w io.Writer, n int64) error {
	if n <= 0 {
		return nil
	}
	zero := make([]byte, min(n, 64<<10))
	for n > 0 {
		m, err := w.Write(zero[:min(n, int64(len(zero)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// readPiece is how much is read and checked at a time.
const readPiece = 1 << 20

// readPipe reads the next piece while the last one is written out.
type readPipe struct {
	ctx    context.Context
	cancel context.CancelFunc
	r      *Reader
	w      io.Writer
	queue  chan piece
	done   chan error
	free   chan []byte
}

type piece struct {
	data []byte
	own  bool  // data goes back to free
	zero int64 // or this many zeros
}

func newReadPipe(ctx context.Context, r *Reader, w io.Writer) *readPipe {
	p := &readPipe{r: r, w: w}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// start begins the writing side, once there is more than one piece.
func (p *readPipe) start() {
	p.queue, p.done, p.free = make(chan piece, 1), make(chan error, 1), make(chan []byte, 3)
	go func() {
		var err error
		for q := range p.queue {
			if err == nil {
				if err = writePiece(p.w, q); err != nil {
					p.cancel()
				}
			}
			if q.own {
				p.free <- q.data[:cap(q.data)]
			}
		}
		p.done <- err
	}()
	for range cap(p.free) {
		p.free <- nil
	}
}

func writePiece(w io.Writer, q piece) error {
	if q.data == nil {
		return writeZeros(w, q.zero)
	}
	_, err := w.Write(q.data)
	return err
}

func (p *readPipe) send(q piece) error {
	select {
	case p.queue <- q:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *readPipe) zeros(n int64) error {
	if n <= 0 {
		return nil
	}
	if p.queue == nil {
		return writeZeros(p.w, n)
	}
	return p.send(piece{zero: n})
}

func (p *readPipe) extent(e object.Extent) error {
	if e.Data != nil {
		if p.queue == nil {
			_, err := p.w.Write(e.Data)
			return err
		}
		return p.send(piece{data: e.Data})
	}
	if p.queue == nil && e.Length <= readPiece {
		buf := make([]byte, e.Length)
		if err := p.read(e, 0, buf); err != nil {
			return err
		}
		_, err := p.w.Write(buf)
		return err
	}
	if p.queue == nil {
		p.start()
	}
	for done := int64(0); done < e.Length; {
		var buf []byte
		select {
		case buf = <-p.free:
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
		if buf == nil {
			buf = make([]byte, readPiece)
		}
		buf = buf[:min(readPiece, e.Length-done)]
		if err := p.read(e, done, buf); err != nil {
			p.free <- buf[:cap(buf)]
			return err
		}
		done += int64(len(buf))
		if err := p.send(piece{data: buf, own: true}); err != nil {
			return err
		}
	}
	return nil
}

func (p *readPipe) read(e object.Extent, skip int64, dst []byte) error {
	if err := p.r.pin.Err(); err != nil {
		return err // a lost lease ends the answer, it does not wait for a chunk to be missing
	}
	got, err := p.r.n.copies.ReadAt(p.ctx, chunkOf(&e), e.ChunkOffset+skip, dst)
	if got < len(dst) && (err == nil || err == io.EOF) {
		err = object.Errorf(object.KindCorrupt, "chunk %s is shorter than its extent", e.Chunk)
	}
	if object.IsKind(err, object.KindNotFound) {
		err = object.Errorf(object.KindCorrupt, "chunk %s is missing at all its holders", e.Chunk)
	}
	return err
}

// close waits for the writing side and returns the first error.
func (p *readPipe) close(err error) error {
	if p.queue != nil {
		close(p.queue)
		if werr := <-p.done; werr != nil {
			err = werr
		}
	}
	p.cancel()
	return err
}
