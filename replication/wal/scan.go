package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// scanned is what a walk over a segment's batches found.
type scanned struct {
	end    int64  // behind the last valid batch, in bytes
	oldest uint64 // the newest word on which segment is the oldest needed
	sealed bool
	marked bool // a mark stands at end: all before it is known to be synced
	lastAt int64
	last   int64 // offset and length of the last batch; length 0 when there is none
	torn   bool  // bytes that are neither zero nor valid follow end
}

// empty reports whether nothing valid follows the segment's header.
func (f scanned) empty() bool { return f.end == segmentHead && !f.sealed && !f.marked }

// scan walks the batches of s in order and calls fn (unless nil) for each record
// with its place; what fn gets aliases a buffer that is reused.
//
// A batch is written only after the one before it is synced. So a bad batch with
// anything valid behind it was acknowledged once, and is an error of
// KindCorrupt; a bad one with nothing valid behind it ends the walk, and the
// caller decides by the segment's place in the log whether that may be.
func (s *segment) scan(fn func(record, loc)) (scanned, error) {
	f := scanned{end: segmentHead, oldest: s.oldest}
	info, err := s.file.Stat()
	if err != nil {
		return f, err
	}
	w := window{file: s.file, size: info.Size()}
	for {
		head, err := w.at(f.end, batchHead)
		if err != nil {
			return f, err
		}
		h, ok := parseHeader(head, s.salt, f.end)
		if !ok {
			return f, s.endOfWalk(&w, &f, "a batch header fails its checksum")
		}
		if h.kind == kindSeal {
			f.sealed, f.oldest = true, h.oldest
			return f, nil
		}
		if h.kind == kindMark {
			f.marked, f.oldest = true, h.oldest
			return f, s.endOfWalk(&w, &f, "a batch was written over by an older mark")
		}
		b, err := w.at(f.end, h.span())
		if err != nil {
			return f, err
		}
		locs, ok := s.checkBatch(b, h, f.end)
		if !ok {
			return f, s.endOfWalk(&w, &f, "a record fails its checksum")
		}
		for _, l := range locs {
			if fn == nil {
				break
			}
			r, _, _ := decodeRecord(b[int64(l.off)-f.end:], s.salt, int64(l.off))
			fn(r, l)
		}
		f.lastAt, f.last, f.oldest = f.end, h.span(), h.oldest
		f.end += h.span()
	}
}

// checkBatch checks every record and the padding of a batch at off and returns
// the places of its records.
func (s *segment) checkBatch(b []byte, h header, off int64) ([]loc, bool) {
	if int64(len(b)) < h.span() {
		return nil, false
	}
	locs := make([]loc, 0, min(h.count, h.length/recordHead))
	pos, end := int64(batchHead), batchHead+int64(h.length)
	for pos < end {
		_, size, ok := decodeRecord(b[pos:end], s.salt, off+pos)
		if !ok {
			return nil, false
		}
		locs = append(locs, loc{uint32(s.id), uint32(off + pos), uint32(size)})
		pos += int64(size)
	}
	return locs, zero(b[end:h.span()]) && len(locs) == int(h.count)
}

// endOfWalk looks at what follows f.end: any valid header there is proof that
// f.end was synced once. It notes whether the rest is zeros.
func (s *segment) endOfWalk(w *window, f *scanned, what string) error {
	magic := binary.LittleEndian.AppendUint32(nil, batchMagic)
	off := f.end
	if f.marked {
		off += batchHead
	}
	for ; off < w.size; off += windowSize - batchHead {
		b, err := w.at(off, windowSize)
		if err != nil {
			return err
		}
		f.torn = f.torn || !zero(b)
		for i := 0; i < len(b); i++ {
			j := bytes.Index(b[i:], magic)
			if j < 0 {
				break
			}
			i += j
			if at := off + int64(i); at > f.end && validHeader(b[i:], s.salt, at) {
				return s.corrupt(f.end, fmt.Sprintf("%s, but what was written after it is there at offset %d", what, at))
			}
		}
	}
	return nil
}

func validHeader(b []byte, salt uint64, off int64) bool {
	_, ok := parseHeader(b, salt, off)
	return ok
}

func zero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

// window reads a file through a buffer that moves forward.
type window struct {
	file vfs.File
	size int64 // of the file
	buf  []byte
	off  int64 // of buf in the file
}

// windowSize is what is read ahead at once, in bytes.
const windowSize = 1 << 20

// at returns the n bytes at off, or as many as the file has. They are valid
// until the next call.
func (w *window) at(off, n int64) ([]byte, error) {
	n = max(0, min(n, w.size-off))
	if off < w.off || off+n > w.off+int64(len(w.buf)) {
		want := min(max(n, windowSize), w.size-off)
		if int64(cap(w.buf)) < want {
			w.buf = make([]byte, want)
		}
		w.off, w.buf = off, w.buf[:want]
		if got, err := w.file.ReadAt(w.buf, off); int64(got) < want {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("reading log segment %s at offset %d: %w", w.file.Name(), off, err)
		}
	}
	return w.buf[off-w.off : off-w.off+n], nil
}
