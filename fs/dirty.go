package fs

import (
	"math"
	"sort"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// pieceSize is the alignment at which dirty bytes are cut: no dirty extent
// crosses a multiple of it, so each is one write request and, at best, one
// whole chunk. Appended bytes have no place yet: their extents are not aligned,
// only about that long.
const pieceSize = 4 << 20

// extent is a run of written bytes.
type extent struct {
	off  int64
	data []byte
	tail bool // was appended: goes to the end of the file, wherever that is then; off is a guess
	sent bool // the cluster has it
}

func (e extent) end() int64 { return e.off + int64(len(e.data)) }

// span is the bytes [from, to).
type span struct{ from, to int64 }

// layer is a set of changes to a file that the cluster does not have yet: cut
// first, then the plain extents, then the size, then the appended extents, then
// the attributes. Appended extents come last in the file too: a plain change
// that touches them or comes behind them waits until they are sent (admit),
// for only then it is known where they are. It knows nothing of locks; the
// zero layer is not valid, use newLayer.
type layer struct {
	extents []extent // in order, disjoint
	bytes   int64    // sum of their lengths
	cut     int64    // bytes from here on that lie below this layer are gone; -1: none
	grow    int64    // after the cut, a truncate made the file this long; 0: none did
	end     int64    // the file reaches at least this far
	attr    api.SetAttr
	mtime   int64 // ns, of the last write or truncation; 0: none
	ctime   int64 // ns, of the last change of anything; shown, never sent
}

func newLayer() *layer { return &layer{cut: -1} }

func (l *layer) empty() bool {
	return len(l.extents) == 0 && l.cut < 0 && l.end == 0 && l.mtime == 0 && l.attr.IsZero()
}

// size is the file's size over one of size under.
func (l *layer) size(under int64) int64 {
	if l.cut >= 0 {
		under = min(under, l.cut)
	}
	return max(under, l.end)
}

// write puts p at off. tail says that p was appended at the end of the file,
// which off is; a plain write must not reach behind tailFrom.
func (l *layer) write(off int64, p []byte, tail bool, now int64) {
	l.end = max(l.end, off+int64(len(p)))
	l.touch(now)
	if tail {
		l.append(off, p)
		return
	}
	for len(p) > 0 {
		n := min(int64(len(p)), pieceSize-off%pieceSize)
		l.put(off, p[:n])
		p, off = p[n:], off+n
	}
}

func (l *layer) touch(now int64) {
	l.mtime, l.ctime = now, now
	l.attr.Mtime = nil // an explicit time before this write no longer counts
}

// tailFrom is where the appended extents begin, as far as is known here;
// math.MaxInt64 when there are none.
func (l *layer) tailFrom() int64 {
	from := int64(math.MaxInt64)
	for i := len(l.extents) - 1; i >= 0 && l.extents[i].tail; i-- {
		from = l.extents[i].off
	}
	return from
}

// append stores what one write appended. It is never cut: an extent is one
// append to the cluster, and another's must not come between.
func (l *layer) append(off int64, p []byte) {
	l.bytes += int64(len(p))
	if n := len(l.extents); n > 0 {
		e := &l.extents[n-1]
		if e.tail && e.end() == off && len(e.data)+len(p) <= pieceSize {
			e.data = append(e.data, p...)
			return
		}
	}
	l.extents = append(l.extents, extent{off: off, data: append([]byte(nil), p...), tail: true})
}

// put stores one part that lies within a piece.
func (l *layer) put(off int64, p []byte) {
	to := off + int64(len(p))
	i := sort.Search(len(l.extents), func(i int) bool { return l.extents[i].end() >= off })
	if i < len(l.extents) {
		e := &l.extents[i]
		free := i+1 == len(l.extents) || l.extents[i+1].off >= to
		if e.off <= off && e.off/pieceSize == off/pieceSize && !e.tail && free {
			n := copy(e.data[off-e.off:], p)
			e.data = append(e.data, p[n:]...)
			l.bytes += int64(len(p) - n)
			return
		}
	}
	l.remove(off, to)
	i = sort.Search(len(l.extents), func(i int) bool { return l.extents[i].off >= off })
	l.extents = append(l.extents, extent{})
	copy(l.extents[i+1:], l.extents[i:])
	l.extents[i] = extent{off: off, data: append([]byte(nil), p...)}
	l.bytes += int64(len(p))
}

// remove forgets the dirty bytes of [from, to).
func (l *layer) remove(from, to int64) {
	i := sort.Search(len(l.extents), func(i int) bool { return l.extents[i].end() > from })
	var keep []extent
	j := i
	for ; j < len(l.extents) && l.extents[j].off < to; j++ {
		e := l.extents[j]
		l.bytes -= int64(len(e.data))
		if e.off < from {
			keep = append(keep, e.part(e.off, from))
		}
		if e.end() > to {
			keep = append(keep, e.part(to, e.end()))
		}
	}
	if i == j {
		return
	}
	for _, e := range keep {
		l.bytes += int64(len(e.data))
	}
	rest := append(keep, l.extents[j:]...)
	l.extents = append(l.extents[:i:i], rest...)
}

// part is the extent's bytes [from, to), copied where keeping them would keep
// a much larger buffer alive.
func (e extent) part(from, to int64) extent {
	data := e.data[from-e.off : to-e.off]
	if cap(e.data) > 2*len(data) || to != e.end() {
		data = append([]byte(nil), data...)
	}
	return extent{off: from, data: data, tail: e.tail}
}

// truncate sets the size. With appended extents there, it must be 0: they are
// gone then, wherever they would have been.
func (l *layer) truncate(size, now int64) {
	l.remove(size, object.MaxFileSize+1)
	if l.cut < 0 || size < l.cut {
		l.cut = size
	}
	l.grow = 0
	if size > l.cut {
		l.grow = size
	}
	l.end = size
	l.touch(now)
}

// setAttr notes attributes other than the size.
func (l *layer) setAttr(a api.SetAttr, now int64) {
	merge(&l.attr, a)
	l.ctime = now
}

func merge(into *api.SetAttr, a api.SetAttr) {
	if a.Mode != nil {
		into.Mode = a.Mode
	}
	if a.UID != nil {
		into.UID = a.UID
	}
	if a.GID != nil {
		into.GID = a.GID
	}
	if a.Atime != nil {
		into.Atime = a.Atime
	}
	if a.Mtime != nil {
		into.Mtime = a.Mtime
	}
}

// pending is the attributes to send: the explicit ones, and the time of the
// last write.
func (l *layer) pending() api.SetAttr {
	a := l.attr
	if a.Mtime == nil && l.mtime != 0 {
		t := l.mtime
		a.Mtime = &t
	}
	return a
}

// view changes n to what the file looks like over this layer.
func (l *layer) view(n *object.Inode) {
	a := l.pending()
	n.Size = l.size(n.Size)
	if a.Mode != nil {
		n.Mode = *a.Mode
	}
	if a.UID != nil {
		n.UID = *a.UID
	}
	if a.GID != nil {
		n.GID = *a.GID
	}
	if a.Atime != nil {
		n.Atime = *a.Atime
	}
	if a.Mtime != nil {
		n.Mtime = *a.Mtime
	}
	n.Ctime = max(n.Ctime, l.ctime)
	n.Blocks = max(n.Blocks, l.bytes)
}

// fill copies what this layer knows of the wanted spans into buf, whose first
// byte is offset off of the file, and returns the spans it knows nothing of.
func (l *layer) fill(off int64, buf []byte, want []span) []span {
	var missing []span
	for _, w := range want {
		at := w.from
		i := sort.Search(len(l.extents), func(i int) bool { return l.extents[i].end() > at })
		for ; i < len(l.extents) && l.extents[i].off < w.to && at < w.to; i++ {
			e := l.extents[i]
			if e.off > at {
				missing = l.below(off, buf, span{at, e.off}, missing)
				at = e.off
			}
			n := copy(buf[at-off:w.to-off], e.data[at-e.off:])
			at += int64(n)
		}
		if at < w.to {
			missing = l.below(off, buf, span{at, w.to}, missing)
		}
	}
	return missing
}

// below splits s, of which no extent knows, at the cut: what is behind it is
// zero, what is before it must come from below.
func (l *layer) below(off int64, buf []byte, s span, missing []span) []span {
	to := s.to
	if l.cut >= 0 {
		to = min(to, max(s.from, l.cut))
	}
	clear(buf[to-off : s.to-off])
	if s.from < to {
		missing = append(missing, span{s.from, to})
	}
	return missing
}

// over puts top, the newer layer, over l, which takes it in. Extents that were
// sent are left out: the cluster has them. The caller forgets a cut that was
// made: made again, it would drop what others wrote since.
func (l *layer) over(top *layer) *layer {
	m := newLayer()
	*m = *l
	m.extents, m.bytes, m.end = nil, 0, max(0, l.cut, l.grow)
	for _, e := range l.extents {
		if !e.sent {
			m.extents = append(m.extents, e)
			m.bytes += int64(len(e.data))
			m.end = max(m.end, e.end())
		}
	}
	if top.cut >= 0 {
		m.truncate(top.cut, top.mtime)
	}
	if top.grow > 0 {
		m.grow = top.grow
	}
	for _, e := range top.extents {
		m.write(e.off, e.data, e.tail, top.mtime)
	}
	m.end = max(m.end, top.end)
	if top.mtime != 0 {
		m.touch(top.mtime)
	}
	merge(&m.attr, top.attr)
	m.ctime = max(m.ctime, top.ctime)
	return m
}

// takeFull moves the extents that fill a whole piece into a layer of their own,
// or returns nil when there are none. Cut and size go along only when nothing
// is to be cut, so that no attribute is sent twice.
func (l *layer) takeFull() *layer {
	if l.cut >= 0 {
		return nil
	}
	full := newLayer()
	var rest []extent
	for _, e := range l.extents {
		if len(e.data) == pieceSize && !e.tail {
			full.extents = append(full.extents, e)
			full.bytes += int64(len(e.data))
			full.end = e.end()
		} else {
			rest = append(rest, e)
		}
	}
	if len(full.extents) == 0 {
		return nil
	}
	l.extents, l.bytes = rest, l.bytes-full.bytes
	return full
}
