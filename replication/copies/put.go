package copies

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// content is the bytes that one spot keeps.
type content struct {
	pieces  [][]byte
	length  int64
	crc     func() uint32   // once, by anybody; for other nodes only
	compute func() [32]byte // once, by anybody
	known   *[32]byte       // what our own disk computed; only for who judges the answers
}

func newContent(pieces [][]byte) *content {
	c := &content{pieces: pieces}
	for _, p := range pieces {
		c.length += int64(len(p))
	}
	c.crc = sync.OnceValue(func() (crc uint32) {
		for _, p := range c.pieces {
			crc = crc32.Update(crc, castagnoli(), p)
		}
		return crc
	})
	c.compute = sync.OnceValue(func() [32]byte {
		h := sha256.New()
		for _, p := range c.pieces {
			h.Write(p)
		}
		return [32]byte(h.Sum(nil))
	})
	return c
}

func (c *content) sha() [32]byte {
	if c.known != nil {
		return *c.known
	}
	return c.compute()
}

// load is what a put carries to its holders. The memory goes back when nobody
// holds it any more.
type load struct {
	id       object.ChunkID
	scheme   Scheme
	whole    *content
	contents []*content // one for all copies, or one for each shard
	refs     atomic.Int32
	release  func()
}

func (l *load) of(shard int) *content {
	if l.scheme.Coded() {
		return l.contents[shard]
	}
	return l.whole
}

func (l *load) drop() {
	if l.refs.Add(-1) == 0 {
		l.release()
	}
}

// PutPieces stores a chunk (pieces as chunk.Store.PutPieces takes them) at its
// holders, and returns when a quorum of them has it durably. The others go on
// afterwards, as long as they make progress and there is memory for it; what they
// miss is repaired. release is called exactly once, when nobody reads the pieces
// any more: before the return or after it.
//
// After an error the chunk may be at some of the holders; the same call may be
// made again. KindUnavailable: too few holders answered in time; KindNoSpace: too
// few had room; KindConflict: the id has another content.
func (s *Store) PutPieces(ctx context.Context, id object.ChunkID, scheme Scheme, pieces [][]byte, release func()) (Chunk, error) {
	release = sync.OnceFunc(release)
	l, err := s.load(ctx, id, scheme, pieces, release)
	if err != nil {
		release()
		return Chunk{}, object.WithOp(err, "chunk.put", "", id.String())
	}
	defer l.drop()
	if err := s.enter(); err != nil {
		return Chunk{}, err
	}
	defer s.tasks.Done()
	c, err := s.deliver(ctx, l)
	if err != nil {
		err = object.WithOp(err, "chunk.put", "", id.String())
	}
	return c, err
}

// load checks what is put, and encodes it where the scheme says so.
func (s *Store) load(ctx context.Context, id object.ChunkID, scheme Scheme, pieces [][]byte, release func()) (*load, error) {
	if err := scheme.check(); err != nil {
		return nil, err
	}
	if err := checkPieces(pieces); err != nil {
		return nil, err
	}
	l := &load{id: id, scheme: scheme, whole: newContent(pieces), release: release}
	l.refs.Store(1)
	if !scheme.Coded() {
		return l, nil
	}
	return l, s.encode(ctx, l, release)
}

// checkPieces refuses what a chunk store would, before some holders (which get
// the pieces as one) have taken it.
func checkPieces(pieces [][]byte) error {
	total := 0
	for i, p := range pieces {
		last := i == len(pieces)-1
		if total += len(p); len(p) == 0 || len(p) > len(pieces[0]) || !last && (len(p) != len(pieces[0]) || len(p)%chunk.FrameSize != 0) {
			return object.Errorf(object.KindInternal, "the pieces of a chunk are not of one length, a multiple of %d", chunk.FrameSize)
		}
	}
	if total == 0 || total > chunk.MaxLength {
		return object.Errorf(object.KindInvalid, "a chunk has 1 to %d bytes, not %d", chunk.MaxLength, total)
	}
	return nil
}

// maxMaps bounds how many maps one call follows.
const maxMaps = 8

// deliver puts the load where the map says, and again when that turns out old.
func (s *Store) deliver(ctx context.Context, l *load) (Chunk, error) {
	for range maxMaps {
		place, err := s.locate(l.id, l.scheme)
		if err != nil {
			return Chunk{}, err
		}
		tally := newTally(place)
		if tally.lost() {
			return Chunk{}, object.Errorf(object.KindUnavailable, "a chunk kept as %v has too few holders: the cluster needs more nodes", l.scheme)
		}
		var c Chunk
		var failures []failure
		if !l.scheme.Coded() && place.alone(s.o.Self) {
			if c, err = s.putAlone(ctx, l, place.since); err != nil {
				failures = []failure{{s.o.Self, err}}
			}
		} else {
			p := &put{s: s, l: l, tally: tally, results: make(chan result, len(place.spots))}
			if c, err = p.run(ctx); err != nil {
				failures = p.failures // after a success they are finish's
			}
		}
		if !object.IsKind(err, object.KindStale) {
			return c, err
		}
		if err := s.follow(ctx, l.id, l.scheme, epochIn(failures)); err != nil {
			return Chunk{}, err
		}
	}
	return Chunk{}, object.Errorf(object.KindUnavailable, "the chunk's place changed %d times while it was put: try again", maxMaps)
}

// putAlone is the put of a node that is the only holder: with nobody to hurry
// or to wait for, there is nothing to do beside it, and one hash. A disk of ours
// that hangs holds the caller, who would have nowhere else to go.
func (s *Store) putAlone(ctx context.Context, l *load, epoch uint64) (Chunk, error) {
	t := s.take(ctx, l.id, l.scheme, epoch, l.whole.pieces)
	if t.err != nil {
		return Chunk{}, t.err
	}
	return Chunk{ID: l.id, Scheme: l.scheme, Length: l.whole.length, SHA256: t.ref.SHA256}, nil
}

// follow waits until this node knows a map that a holder has already.
func (s *Store) follow(ctx context.Context, id object.ChunkID, scheme Scheme, epoch uint64) error {
	if p, err := s.locate(id, scheme); err == nil && p.since >= epoch {
		return nil
	}
	if s.o.Newer == nil {
		return object.Errorf(object.KindUnavailable, "a holder knows a newer map (epoch %d): try again", epoch)
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Stall)
	defer cancel()
	if err := s.o.Newer(ctx, epoch); err != nil {
		return object.Errorf(object.KindUnavailable, "a holder knows a map of epoch %d, which did not reach this node: %w", epoch, err)
	}
	return nil
}

// failure is why one holder is of no use.
type failure struct {
	node string
	err  error
}

func (f failure) Error() string { return strings.TrimPrefix(f.node+": "+f.err.Error(), ": ") }
func (f failure) Unwrap() error { return f.err }

// put is one try to bring a load to its holders. One goroutine at a time judges
// the results: the caller's, then that of finish.
type put struct {
	s        *Store
	l        *load
	results  chan result
	attempts map[int]*attempt // those without a result, by spot
	failures []failure
	*tally
}

type attempt struct {
	spot
	cancel context.CancelFunc
	late   bool // it holds part of the budget of late copies
}

type result struct {
	at  int // of the spot
	sum [32]byte
	err error
}

// run starts all attempts and waits for the quorum.
func (p *put) run(ctx context.Context) (Chunk, error) {
	p.attempts = make(map[int]*attempt, len(p.spots))
	ours := false
	for i, sp := range p.spots {
		// They outlive the caller once there is a quorum, not before.
		actx, cancel := context.WithTimeout(p.s.ctx, attemptBound)
		p.attempts[i] = &attempt{spot: sp, cancel: cancel}
		p.l.refs.Add(1)
		ours = ours || sp.node == p.s.o.Self
		p.s.background(func() {
			defer p.l.drop()
			r := p.s.putTo(actx, sp, p.l, p.since)
			cancel()
			if r.at = i; p.l.scheme.Coded() && r.err == nil {
				p.l.of(sp.shard).compute() // here, where others are waited for
			}
			p.results <- r
		})
	}
	if !ours { // else our disk computes it, and we compare with that
		p.l.refs.Add(1)
		p.s.background(func() { defer p.l.drop(); p.l.whole.compute() })
	}
	if err := p.quorum(ctx); err != nil {
		for _, a := range p.attempts {
			a.cancel() // nobody knows of the chunk: its copies are left to the audit
		}
		return Chunk{}, err
	}
	c := Chunk{ID: p.l.id, Scheme: p.l.scheme, Length: p.l.whole.length, SHA256: p.l.whole.sha()}
	p.finish(c)
	return c, nil
}

// quorum judges results until enough holders have the chunk, or cannot any more.
func (p *put) quorum(ctx context.Context) error {
	for !p.reached() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-p.results:
			p.judge(r)
		}
		if p.lost() {
			return p.tooFew()
		}
	}
	return nil
}

// judge counts one result. What a holder stored is compared with what we sent.
func (p *put) judge(r result) {
	a := p.attempts[r.at]
	delete(p.attempts, r.at)
	c := p.l.of(a.shard)
	if a.late {
		p.s.late.release(a.node, c.length)
	}
	switch {
	case r.err != nil:
	case a.node == p.s.o.Self:
		c.known = &r.sum
	case r.sum != c.sha():
		r.err = object.Errorf(object.KindCorrupt, "it has another content than it was sent")
	}
	if r.err == nil {
		p.good(a.spot)
		return
	}
	p.bad(a.spot)
	p.failures = append(p.failures, failure{a.node, r.err})
}

// tooFew sums up failures: their common kind where they have one that tells the
// caller what to do.
func (p *put) tooFew() error {
	kind := object.KindUnavailable
	errs := make([]error, len(p.failures))
	for i, f := range p.failures {
		errs[i] = f
	}
	for _, k := range []object.Kind{object.KindNoSpace, object.KindConflict, object.KindStale} {
		for _, err := range errs {
			if object.IsKind(err, k) {
				kind = k
			}
		}
	}
	return object.Errorf(kind, "%v have the chunk: %w", p.tally, errors.Join(errs...))
}

// finish sees to the holders that have not answered: they go on as long as there
// is memory for that, else they are cancelled. A disk of ours that hangs keeps its
// bytes, and Store.local bounds those.
func (p *put) finish(c Chunk) {
	for _, a := range p.attempts {
		if a.late = p.s.late.try(a.node, p.l.of(a.shard).length); !a.late {
			a.cancel()
			p.s.stats.lateDropped.Add(1)
		}
	}
	if len(p.attempts)+len(p.failures) == 0 {
		return
	}
	p.l.refs.Add(1) // judging may hash
	p.s.background(func() {
		defer p.l.drop()
		for len(p.attempts) > 0 {
			p.judge(<-p.results)
		}
		for _, f := range p.failures {
			if p.s.ctx.Err() == nil {
				p.s.missed(c, f.node, f.err)
			}
		}
	})
}

// putTo brings a load's content to one node. It takes a bounded time.
func (s *Store) putTo(ctx context.Context, sp spot, l *load, epoch uint64) (r result) {
	if sp.node == s.o.Self {
		r.sum, r.err = s.putHere(ctx, l, l.of(sp.shard), epoch)
	} else {
		r.sum, r.err = s.putAt(ctx, sp.node, l, l.of(sp.shard), epoch)
	}
	return r
}

// putHere is take that does not wait for a disk that hangs: that keeps the bytes,
// and its share of Store.local, until the kernel lets go.
func (s *Store) putHere(ctx context.Context, l *load, c *content, epoch uint64) (sum [32]byte, err error) {
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, s.o.Stall)
	defer cancel()
	if err := s.local.Acquire(wait, c.length); err != nil {
		return sum, object.Errorf(object.KindUnavailable, "our own disks are busy or hang: %w", err)
	}
	done := make(chan taken, 1)
	l.refs.Add(1)
	s.background(func() {
		defer l.drop()
		defer s.local.Release(c.length)
		done <- s.take(ctx, l.id, l.scheme, epoch, c.pieces)
	})
	for {
		select {
		case t := <-done:
			return t.ref.SHA256, t.err
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-time.After(s.o.Stall / beats):
			if time.Since(began) >= s.o.Stall && !s.diskMoves(began) {
				return sum, stalled(fmt.Sprintf("the disk of this node (%s)", s.o.Self), s.o.Stall)
			}
		}
	}
}

const (
	// beats is how often in one Stall a disk is looked at.
	beats = 4
	// maxStalls is for how many times Stall a put may wait while others are served.
	maxStalls = 4
)

// diskMoves reports whether a put that has waited since began may hope: our disks
// have finished one lately.
func (s *Store) diskMoves(began time.Time) bool {
	last := time.UnixMilli(s.lastPut.Load())
	return time.Since(last) < s.o.Stall && time.Since(began) < maxStalls*s.o.Stall
}
