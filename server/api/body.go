package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// payload is a request's body: how long it is and how to read it again. The
// attempts of a call use it one after the other.
type payload struct {
	size   int64 // -1: unknown
	reader io.Reader
	memory bool         // reader is one that never blocks
	rewind func() error // nil: it can be read once only
	last   *guard       // of the last attempt; nil: it sent no body
}

// newPayload finds out what it can about a body. declared > 0 is its length;
// otherwise it is asked of the readers that know. KindInvalid: they say otherwise.
func newPayload(r io.Reader, declared int64) (*payload, error) {
	p := &payload{size: -1, reader: r, memory: inMemory(r)}
	if r == nil {
		p.size, p.rewind = 0, func() error { return nil }
		return p, nil
	}
	if s, ok := r.(io.Seeker); ok && seekable(r) {
		start, err := s.Seek(0, io.SeekCurrent)
		if err == nil {
			p.rewind = func() error { _, err := s.Seek(start, io.SeekStart); return err }
			p.size = sizeFrom(s, start)
		}
	} else if l, ok := r.(interface{ Len() int }); ok {
		p.size = int64(l.Len()) // a bytes.Buffer
	}
	if declared > 0 && p.size >= 0 && p.size != declared {
		return nil, object.Errorf(object.KindInvalid, "the body has %d bytes, and its size was given as %d", p.size, declared)
	}
	if declared > 0 {
		p.size = declared
	}
	return p, nil
}

// inMemory tells the readers whose Read never blocks.
func inMemory(r io.Reader) bool {
	switch r.(type) {
	case *bytes.Reader, *strings.Reader, *bytes.Buffer:
		return true
	}
	return false
}

// newBytes is a body that can be sent again.
func newBytes(b []byte) io.Reader { return bytes.NewReader(b) }

// seekable excludes pipes and terminals, whose Seek may lie.
func seekable(r io.Reader) bool {
	if f, ok := r.(*os.File); ok {
		info, err := f.Stat()
		return err == nil && info.Mode().IsRegular()
	}
	return true
}

func sizeFrom(s io.Seeker, start int64) int64 {
	switch r := s.(type) {
	case *bytes.Reader:
		return int64(r.Len())
	case *strings.Reader:
		return int64(r.Len())
	}
	end, err := s.Seek(0, io.SeekEnd)
	if _, back := s.Seek(start, io.SeekStart); err != nil || back != nil {
		return -1
	}
	return end - start
}

// open returns the body for one attempt; nil means that there is none.
func (p *payload) open() io.ReadCloser {
	if p.reader == nil || p.size == 0 {
		return nil
	}
	p.last = &guard{r: p.reader, size: p.size}
	return p.last
}

// large reports whether an attempt is watched while it sends the body.
func (p *payload) large() bool { return p.size < 0 || p.size >= watchedFrom }

// gotOn is when the last attempt, begun at start, last got a byte of the body.
func (p *payload) gotOn(start time.Time) time.Time {
	if p.last == nil {
		return start
	}
	p.last.mu.Lock()
	defer p.last.mu.Unlock()
	if p.last.at.After(start) {
		return p.last.at
	}
	return start
}

// failure is what the caller's reader failed with in the last attempt.
func (p *payload) failure() error {
	if p.last == nil {
		return nil
	}
	return p.last.failure()
}

// again ends the last attempt, prepares another one and reports whether that is
// possible. Where a Read is under way it waits for its end, until ctx ends.
func (p *payload) again(ctx context.Context) bool {
	if p.last == nil || !p.last.seal() {
		return true
	}
	return p.rewind != nil && p.last.settle(ctx.Done()) && p.rewind() == nil
}

// abandonAfter is how long a Read that is under way may go on before it is taken
// for blocked. Reads of memory and files end sooner, so that the caller can use
// again what they read from when its call returns.
const abandonAfter = 50 * time.Millisecond

// end seals the last attempt: no Read of the body begins any more. One under way
// is waited for, but one that blocks (a pipe nobody writes to) is left to the
// connection's goroutine, with the buffer it reads into.
func (p *payload) end() {
	if p.last == nil {
		return
	}
	p.last.seal()
	if p.memory {
		p.last.settle(nil)
		return
	}
	p.last.settleWithin(abandonAfter)
}

// guard lets one attempt read the body until it is sealed: net/http may go on
// reading a body after it has returned an error. Reads run one at a time, in the
// goroutine that net/http writes the request with, into its buffer.
type guard struct {
	r    io.Reader
	size int64 // what it must give; -1: unknown

	mu      sync.Mutex // guards what follows; it is not held while r reads
	touched bool       // a Read has begun
	reading bool       // one is under way
	sealed  bool
	total   int64         // bytes it gave
	at      time.Time     // when it gave the last of them
	err     error         // of r, but not io.EOF; or its size is wrong
	settled chan struct{} // where somebody waits: closed when the Read under way ends
}

var errSealed = errors.New("this attempt is over")

func (g *guard) Read(b []byte) (int, error) {
	if !g.begin() {
		return 0, errSealed
	}
	n, err := g.r.Read(b)
	g.finish(n, err)
	return n, err
}

func (g *guard) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sealed || g.reading {
		return false
	}
	g.touched, g.reading = true, true
	return true
}

func (g *guard) finish(n int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading = false
	g.total += int64(n)
	if n > 0 {
		g.at = time.Now()
	}
	switch {
	case err != nil && err != io.EOF:
		g.err = err
	case g.size >= 0 && g.total > g.size:
		g.err = object.Errorf(object.KindInvalid, "the body has more than the %d bytes that its size was given as", g.size)
	case err == io.EOF && g.total < g.size:
		g.err = object.Errorf(object.KindIncomplete, "the body ended after %d bytes of %d", g.total, g.size)
	}
	if g.settled != nil {
		close(g.settled)
		g.settled = nil
	}
}

// failure is what the caller's reader failed with.
func (g *guard) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Close leaves the caller's reader open: it is the caller's.
func (g *guard) Close() error { return nil }

// seal ends the attempt and reports whether the body was read from.
func (g *guard) seal() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sealed = true
	return g.touched
}

// busy reports whether a Read is under way.
func (g *guard) busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reading
}

// progress is how many bytes the reader gave, and whether it is being read.
func (g *guard) progress() (given int64, reading bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total, g.reading
}

// settle waits until no Read is under way, or stop is closed (false).
func (g *guard) settle(stop <-chan struct{}) bool {
	g.mu.Lock()
	if !g.reading {
		g.mu.Unlock()
		return true
	}
	if g.settled == nil {
		g.settled = make(chan struct{})
	}
	settled := g.settled
	g.mu.Unlock()
	select {
	case <-settled:
		return true
	case <-stop:
		return false
	}
}

func (g *guard) settleWithin(d time.Duration) bool {
	if !g.busy() {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return g.settle(ctx.Done())
}
