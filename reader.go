package bucketdb

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// readAhead is what Read fetches at once: enough that a sequential read is not
// paid by the call, small enough to have many readers.
const readAhead = 1 << 20

// ObjectReader reads one version of an object, or of a range of it: what it
// returns is of that version from first byte to last, whatever happens to the
// object meanwhile. Every byte was checked against its checksum.
//
// It is an io.ReadSeekCloser (http.ServeContent takes it), an io.ReaderAt and an
// io.WriterTo (io.Copy streams). ReadAt may be called concurrently; the others
// share one position and must not. Close it: the version's chunks are kept on
// disk meanwhile.
type ObjectReader struct {
	ctx   context.Context
	r     *replication.Reader
	info  *Object
	base  int64 // of the range in the object
	size  int64 // of the range
	pos   int64 // in the range
	buf   []byte
	buf0  int64 // position in the range of buf[0]
	close sync.Once
}

// OpenObject pins the object's current version for reading; ctx bounds all that
// the reader does. KindNotFound, KindRange, KindPrecondition.
func (db *BucketDB) OpenObject(ctx context.Context, bucket, key string, opts *GetObjectOptions) (*ObjectReader, error) {
	r, err := db.node.OpenObject(ctx, bucket, key)
	if err != nil {
		return nil, object.WithOp(err, "get", bucket, key)
	}
	info := newObject(replication.Object{Bucket: bucket, Key: key, Inode: r.Inode()})
	if opts != nil && opts.IfMatch != "" && opts.IfMatch != "*" && opts.IfMatch != info.ETag {
		r.Close()
		err := object.Errorf(object.KindPrecondition, "the object's ETag is %q, not %q", info.ETag, opts.IfMatch)
		return nil, object.WithOp(err, "get", bucket, key)
	}
	off, n, err := opts.slice(info.Size)
	if err != nil {
		r.Close()
		return nil, object.WithOp(err, "get", bucket, key)
	}
	return &ObjectReader{ctx: ctx, r: r, info: info, base: off, size: n}, nil
}

// Object describes the version that is read.
func (o *ObjectReader) Object() *Object { return o.info }

// Size is the number of bytes from first to last: of the range, where one was asked for.
func (o *ObjectReader) Size() int64 { return o.size }

// Read reads on, as io.Reader.
func (o *ObjectReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if o.pos >= o.size {
		return 0, io.EOF
	}
	if o.pos < o.buf0 || o.pos >= o.buf0+int64(len(o.buf)) {
		if err := o.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.buf[o.pos-o.buf0:])
	o.pos += int64(n)
	return n, nil
}

// fill puts what follows the position into the buffer.
func (o *ObjectReader) fill() error {
	want := int(min(readAhead, o.size-o.pos))
	o.buf = slices.Grow(o.buf[:0], want)[:want]
	o.buf0 = o.pos
	if _, err := o.ReadAt(o.buf, o.pos); err != nil {
		o.buf = o.buf[:0]
		return err
	}
	return nil
}

// ReadAt reads at an offset of the range, as io.ReaderAt.
func (o *ObjectReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, o.failed(object.Errorf(object.KindInvalid, "the offset %d is negative", off))
	}
	n := min(int64(len(p)), o.size-off)
	if n <= 0 {
		return 0, io.EOF
	}
	w := filler{p: p[:n]}
	if err := o.r.WriteRange(o.ctx, &w, o.base+off, n); err != nil {
		return w.n, o.failed(err)
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Seek moves the position, as io.Seeker.
func (o *ObjectReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.pos
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, o.failed(object.Errorf(object.KindInvalid, "no such position: %d", offset))
	}
	o.pos = offset
	return offset, nil
}

// WriteTo streams the rest to w, as io.WriterTo.
func (o *ObjectReader) WriteTo(w io.Writer) (int64, error) {
	n := o.size - o.pos
	if n <= 0 {
		return 0, nil
	}
	c := counter{w: w}
	err := o.r.WriteRange(o.ctx, &c, o.base+o.pos, n)
	o.pos += c.n
	return c.n, o.failed(err)
}

// Close gives the version up. It is safe to call twice.
func (o *ObjectReader) Close() error {
	o.close.Do(o.r.Close)
	return nil
}

func (o *ObjectReader) failed(err error) error {
	return object.WithOp(err, "get", o.info.Bucket, o.info.Key)
}

// filler is a writer into a slice.
type filler struct {
	p []byte
	n int
}

func (f *filler) Write(b []byte) (int, error) {
	n := copy(f.p[f.n:], b)
	f.n += n
	if n < len(b) {
		return n, errors.New("bucketdb: more bytes than were asked for")
	}
	return n, nil
}

// counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
