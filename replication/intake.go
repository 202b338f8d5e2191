package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// uploadWindow is how many chunks of one body are written at a time.
	uploadWindow = 4
	// readAhead is how many pieces the reader of a body has at most.
	readAhead = 4
	// roomWait is how long a body that has begun a chunk waits for the room for
	// the rest of it; then the chunk ends where it is.
	roomWait = 10 * time.Second
	// While others wait for memory a chunk ends where it is at the age of
	// slowChunk, or when nothing came for stillStand; lookAround is how often a
	// body looks for that.
	slowChunk  = time.Second
	stillStand = 200 * time.Millisecond
	lookAround = 100 * time.Millisecond
)

// intake cuts one body into chunks. A goroutine of its own reads the body into
// pieces, so that one that stands still can be cut; others write the chunks.
//
// A chunk begins with room for one piece. Only when that is full is room for the
// rest reserved, and while others wait for memory a slow chunk ends early and
// gives its room back: bodies that trickle hold a piece each.
type intake struct {
	n         *Node
	rc        *received
	r         io.Reader
	size, max int64
	steady    bool // the body is in memory and never keeps us waiting
	sum       func() []byte
	whole     hash.Hash // of the body, where that is needed and it has more than one chunk

	want chan []byte  // empty pieces for the reader
	got  chan reading // what it made of them, in order; closed when it is gone

	total   int64
	ordinal uint32
	batch   []*object.Extent
	writers *errgroup.Group
	wctx    context.Context // of the writers: ends when one fails

	// The chunk that is being filled.
	held  [][]byte
	began time.Time
	moved time.Time // when the reader last brought, or was last given, something
	out   int64     // pieces the reader has
	spare int64     // pieces reserved and not taken
}

// reading is a piece that was filled, the last one perhaps in part.
type reading struct {
	piece []byte // its full length; n bytes of it are the body's
	n     int
	end   bool
	err   error
}

func newIntake(n *Node, rc *received, r io.Reader, head []byte, size, max int64) *intake {
	in := &intake{n: n, rc: rc, size: size, max: max, want: make(chan []byte, readAhead), got: make(chan reading, readAhead)}
	switch r := r.(type) {
	case *bytes.Buffer, *bytes.Reader, *strings.Reader:
		in.steady = true
	case *unsummed:
		in.sum = r.sum
	}
	in.r = io.MultiReader(bytes.NewReader(head), r)
	return in
}

// run takes the body in. When it returns nobody reads it any more.
func (in *intake) run(ctx context.Context) error {
	in.newWriters(ctx)
	go in.read()
	err := in.take(ctx)
	close(in.want)
	for p := range in.want {
		in.n.bufs.put(p)
	}
	in.n.bufs.put(in.held...)
	in.n.bufs.release(in.spare)
	for r := range in.got {
		in.n.bufs.put(r.piece)
		if r.err != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil {
			err = bodyError(r.err) // the client left: the body tells more about it
		}
	}
	if werr := in.writers.Wait(); err == nil || errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = werr // a writer that failed ends the wait of the others
	}
	if err == nil {
		in.rc.body.Size = in.total
		in.rc.sha256 = in.digest()
	}
	return err
}

// read fills pieces until the body ends.
func (in *intake) read() {
	defer close(in.got)
	for p := range in.want {
		n, end, err := fill(in.r, p)
		in.got <- reading{p, n, end, err}
		if end || err != nil {
			return
		}
	}
}

// take cuts the body until its end, or until something fails.
func (in *intake) take(ctx context.Context) error {
	look := time.NewTicker(lookAround)
	defer look.Stop()
	for {
		if err := in.feed(); err != nil {
			return err
		}
		select {
		case r := <-in.got:
			if done, err := in.piece(ctx, r); done || err != nil {
				return err
			}
		case <-look.C:
			if err := in.yield(ctx); err != nil {
				return err
			}
		case <-in.wctx.Done():
			return in.wctx.Err()
		}
	}
}

// feed gives the reader pieces, and reserves the room they need.
func (in *intake) feed() error {
	bufs := in.n.bufs
	if in.out == 0 && in.spare == 0 && len(in.held) == 0 {
		room := int64(1)
		if in.steady {
			room = in.chunkPieces()
		}
		if err := bufs.reserve(in.wctx, room, bufferWait); err != nil {
			return err
		}
		in.spare, in.began, in.moved = room, time.Now(), time.Now()
	}
	for in.out < readAhead && in.spare > 0 {
		in.want <- bufs.take()
		in.out++
		in.spare--
	}
	return nil
}

// chunkPieces is how many pieces the chunk that is being filled gets: the
// configured size in whole pieces, or what is left of the body.
func (in *intake) chunkPieces() int64 {
	n := piecesOf(in.n.cfg.ChunkSize)
	if in.size >= 0 {
		n = min(n, max(1, piecesOf(in.size-in.total)))
	}
	return n
}

// piece takes in what was read. done: it was the last, and all is written.
func (in *intake) piece(ctx context.Context, r reading) (done bool, err error) {
	in.out--
	in.moved = time.Now()
	if r.n > 0 {
		in.held = append(in.held, r.piece[:r.n])
		in.total += int64(r.n)
	} else {
		in.n.bufs.put(r.piece)
	}
	switch {
	case r.err != nil:
		return false, bodyError(r.err)
	case in.total > in.max:
		return false, tooLarge(in.max)
	case in.size >= 0 && in.total > in.size:
		return false, overlong(in.size)
	case r.end && in.size >= 0 && in.total < in.size:
		return false, incomplete(in.total, in.size)
	case r.end:
		if err := in.cut(ctx, true); err != nil {
			return false, err
		}
		in.rc.body.Extents, err = in.written(ctx)
		return true, err
	}
	return false, in.grow(ctx)
}

// grow ends a chunk that is full, and reserves the rest of one that has begun.
func (in *intake) grow(ctx context.Context) error {
	rest := in.chunkRest()
	if rest <= 0 {
		return in.cut(ctx, false)
	}
	if in.out > 0 || in.spare > 0 {
		return nil
	}
	err := in.n.bufs.reserve(in.wctx, rest, roomWait)
	switch {
	case err == nil:
		in.spare, in.moved = rest, time.Now()
		return nil
	case object.IsKind(err, object.KindOverload) && in.mayCut():
		return in.cut(ctx, false)
	}
	return err
}

// chunkRest is how many pieces the chunk still lacks.
func (in *intake) chunkRest() int64 {
	n := piecesOf(in.n.cfg.ChunkSize)
	if in.size >= 0 {
		n = min(n, int64(len(in.held))+piecesOf(in.size-in.total))
	}
	return n - int64(len(in.held))
}

// yield makes room for others who wait for memory: a slow chunk ends here.
func (in *intake) yield(ctx context.Context) error {
	age := time.Since(in.began)
	slow := age >= slowChunk || time.Since(in.moved) >= stillStand
	switch {
	case in.steady || len(in.held) == 0 || !slow || !in.n.bufs.wanted():
		return nil
	case in.mayCut():
		return in.cut(ctx, false)
	case age > bufferWait/2:
		return object.Errorf(object.KindOverload, "the body comes too slowly while others wait for memory: try again")
	}
	return nil
}

// mayCut reports whether a chunk may be shorter than it could be: what goes into
// one entry (a write in place) must still fit there.
func (in *intake) mayCut() bool {
	if in.max > namespace.MaxExtents*in.n.cfg.ChunkSize {
		return true
	}
	if in.size < 0 {
		return len(in.batch) < namespace.MaxExtents/2
	}
	return in.size-in.total <= int64(namespace.MaxExtents-len(in.batch)-1)*in.n.cfg.ChunkSize
}

// cut hands what is held to a writer as one chunk. The room that the chunk did
// not use is given back; what the reader has is the next one's.
func (in *intake) cut(ctx context.Context, end bool) error {
	in.retract()
	if len(in.held) == 0 {
		return nil
	}
	if len(in.batch) == namespace.MaxExtents {
		exts, err := in.written(ctx)
		if err == nil {
			err = in.stage(ctx, exts)
		}
		if err != nil {
			return err
		}
	}
	length := int64(0)
	for _, p := range in.held {
		length += int64(len(p))
	}
	e := &object.Extent{Offset: in.total - length, Length: length, ChunkLength: length, Scheme: in.rc.scheme,
		Chunk: object.ChunkID{Owner: in.rc.owner, Upload: in.rc.upload, Ordinal: in.ordinal}}
	in.hashWhole(end)
	pieces, wctx := in.held, in.wctx
	in.ordinal, in.held, in.began = in.ordinal+1, nil, time.Now()
	in.batch, in.rc.chunks = append(in.batch, e), append(in.rc.chunks, e.Chunk)
	in.writers.Go(func() error {
		c, err := in.n.copies.PutPieces(wctx, e.Chunk, copies.SchemeOf(e.Scheme), pieces, func() { in.n.bufs.put(pieces...) })
		e.SHA256 = c.SHA256
		return err
	})
	return nil
}

// retract takes back what the chunk's end leaves unused: reserved room, and
// pieces that the reader has not begun.
func (in *intake) retract() {
	for {
		select {
		case p := <-in.want:
			in.n.bufs.put(p)
			in.out--
			continue
		default:
		}
		break
	}
	in.n.bufs.release(in.spare)
	in.spare = 0
}

func (in *intake) newWriters(ctx context.Context) {
	in.writers, in.wctx = errgroup.WithContext(ctx)
	in.writers.SetLimit(uploadWindow)
}

// written waits for the writers and returns the extents since the last call.
func (in *intake) written(ctx context.Context) ([]object.Extent, error) {
	if err := in.writers.Wait(); err != nil {
		return nil, err
	}
	exts := make([]object.Extent, len(in.batch))
	for i, e := range in.batch {
		exts[i] = *e
	}
	in.batch = in.batch[:0]
	in.newWriters(ctx)
	return exts, nil
}

// hashWhole feeds the hash of the whole body, which one of a single chunk does not need.
func (in *intake) hashWhole(end bool) {
	if in.sum != nil || end && in.ordinal == 0 {
		return
	}
	if in.whole == nil {
		in.whole = sha256.New()
	}
	for _, p := range in.held {
		in.whole.Write(p)
	}
}

// digest is the SHA-256 of the whole body, or nil where nobody wanted it.
func (in *intake) digest() []byte {
	switch {
	case in.whole != nil:
		return in.whole.Sum(nil)
	case in.ordinal == 1:
		return append([]byte(nil), in.rc.body.Extents[0].SHA256[:]...)
	case in.sum != nil:
		return in.sum()
	}
	return nil
}

// stage hands a full batch of extents to the owner partition.
func (in *intake) stage(ctx context.Context, exts []object.Extent) error {
	b := namespace.Body{Content: in.rc.body.Content, Extents: exts, Staged: in.rc.body.Staged}
	_, err := in.n.do(ctx, in.rc.owner, &namespace.Command{Stage: &namespace.Stage{Owner: in.n.incarnation, Body: b}})
	in.rc.body.Staged = true
	if err != nil {
		in.rc.uncertain = true
	}
	return err
}
