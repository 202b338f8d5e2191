package fs

import (
	"context"
	"slices"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	segmentSize = 1 << 20   // bytes of one prefetching request
	firstWindow = 512 << 10 // how far ahead a reader's second read finds bytes
	maxWindow   = 16 << 20  // how far ahead at most
	slack       = 1 << 20   // the kernel's own read-ahead comes out of order by this much
)

// prefetch reads ahead of one open file: while its reads follow each other the
// window doubles, and what is in it is fetched by several range requests at a
// time. A read elsewhere ends it. It is safe for concurrent use.
type prefetch struct {
	f  *filesystem
	fl *file

	mu     sync.Mutex // guards what follows
	segs   []*segment // in order of offset, disjoint, all of one version
	next   int64      // where a sequential reader goes on
	window int64
}

// segment is one range request of a prefetch.
type segment struct {
	off     int64
	version uint64
	data    []byte        // its length is that of the range; complete after done
	done    chan struct{} // closed when data or err is there
	err     error
	cancel  context.CancelFunc
	gone    bool // dropped while under way: its memory goes back when it ends
	ended   bool
}

func (s *segment) end() int64 { return s.off + int64(len(s.data)) }

func newPrefetch(f *filesystem, fl *file) *prefetch { return &prefetch{f: f, fl: fl} }

// read fills dst with the cluster's bytes from off on; there are size of them
// in the file of that version, and dst ends before.
func (p *prefetch) read(ctx context.Context, off int64, dst []byte, version uint64, size int64) error {
	p.advance(off, int64(len(dst)), version, size)
	for len(dst) > 0 {
		seg, until := p.find(off, off+int64(len(dst)), version)
		n := int64(0)
		if seg != nil {
			select {
			case <-seg.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if seg.err == nil {
				n = int64(copy(dst, seg.data[off-seg.off:]))
			} else {
				p.discard(seg)
				continue
			}
		} else {
			n = until - off
			if err := p.direct(ctx, off, dst[:n], version); err != nil {
				return err
			}
		}
		off, dst = off+n, dst[n:]
	}
	return nil
}

// direct reads a range that the version has: an answer that is shorter is wrong,
// and zeros in its place would be invented.
func (p *prefetch) direct(ctx context.Context, off int64, dst []byte, version uint64) error {
	n, err := p.f.b.ReadRange(ctx, p.fl.ino, off, dst, version)
	if err == nil && n < len(dst) {
		err = object.Errorf(object.KindIncomplete, "%d of %d bytes from %d on came of inode %s, version %d; read again, and check the cluster if it stays so",
			n, len(dst), off, p.fl.ino, version)
	}
	return err
}

// find returns the segment that holds off, or how far to read without one.
func (p *prefetch) find(off, to int64, version uint64) (*segment, int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.segs {
		switch {
		case s.version != version:
		case s.off <= off && off < s.end():
			return s, 0
		case s.off > off:
			return nil, min(to, s.off)
		}
	}
	return nil, to
}

// advance notes a read and fetches what the next ones will ask for.
func (p *prefetch) advance(off, n int64, version uint64, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.segs) > 0 && p.segs[0].version != version {
		p.dropLocked(func(*segment) bool { return true })
	}
	if off > p.next+slack || off < p.next-slack {
		p.dropLocked(func(*segment) bool { return true })
		p.next, p.window = off+n, 0
		return
	}
	if off+n > p.next {
		p.next = off + n
		p.window = min(max(2*p.window, firstWindow), maxWindow)
	}
	p.dropLocked(func(s *segment) bool { return s.end() <= p.next-slack })
	p.extend(version, size)
}

// extend starts the requests that the window lacks. The lock is held.
func (p *prefetch) extend(version uint64, size int64) {
	at := p.next
	if k := len(p.segs); k > 0 {
		at = max(at, p.segs[k-1].end())
	}
	limit := min(p.next+p.window, size)
	for at < limit {
		n := min(segmentSize-at%segmentSize, size-at)
		if at+n > limit && limit < size && at > p.next {
			return // a whole segment later rather than a small one now
		}
		if !p.f.rmem.try(n) {
			return
		}
		p.segs = append(p.segs, p.fetch(at, n, version))
		at += n
	}
}

func (p *prefetch) fetch(off, n int64, version uint64) *segment {
	ctx, done := p.f.begin(nil)
	s := &segment{off: off, version: version, data: make([]byte, n), done: make(chan struct{}), cancel: done}
	go func() {
		defer done()
		s.err = p.direct(ctx, off, s.data, version)
		p.mu.Lock()
		defer p.mu.Unlock()
		s.ended = true
		if s.gone {
			p.f.rmem.put(n)
		}
		close(s.done)
	}()
	return s
}

// discard drops one segment, whose request failed.
func (p *prefetch) discard(bad *segment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(func(s *segment) bool { return s == bad })
}

// drop ends the prefetch.
func (p *prefetch) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(func(*segment) bool { return true })
}

func (p *prefetch) dropLocked(which func(*segment) bool) {
	p.segs = slices.DeleteFunc(p.segs, func(s *segment) bool {
		if !which(s) {
			return false
		}
		s.gone = true
		if s.ended {
			p.f.rmem.put(int64(len(s.data)))
		} else {
			s.cancel()
		}
		return true
	})
}
