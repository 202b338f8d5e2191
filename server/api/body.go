package api

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// payload is a request's body: how long it is and how to read it again.
type payload struct {
	size   int64 // -1: unknown
	reader io.Reader
	rewind func() error // nil: it can be read once only
	last   *guard
}

// newPayload finds out what it can about a body. declared > 0 is its length;
// otherwise it is asked of the readers that know.
func newPayload(r io.Reader, declared int64) *payload {
	p := &payload{size: -1, reader: r}
	if r == nil {
		p.size, p.rewind = 0, func() error { return nil }
		return p
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
	if declared > 0 {
		p.size = declared
	}
	return p
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
	p.last = &guard{r: p.reader}
	return p.last
}

// failure is what the caller's reader failed with in the last attempt.
func (p *payload) failure() error {
	if p.last == nil {
		return nil
	}
	return p.last.failure()
}

// again prepares another attempt and reports whether one is possible.
func (p *payload) again() bool {
	if p.last == nil {
		return true
	}
	touched := p.last.seal()
	if !touched {
		return true
	}
	return p.rewind != nil && p.rewind() == nil
}

// end seals the last attempt, so that nothing reads the body any more. It waits
// for a Read under way where that is of memory or a file; one of a pipe may block
// for good, and only the reads after it are stopped.
func (p *payload) end() {
	if p.last == nil {
		return
	}
	if p.rewind != nil {
		p.last.seal()
		return
	}
	p.last.sealed.Store(true)
}

// guard lets an attempt read the body until it is sealed: net/http may go on
// reading a body after it has returned an error.
type guard struct {
	mu      sync.Mutex
	r       io.Reader
	touched bool
	err     error // of r, but not io.EOF

	sealed atomic.Bool // not under mu: a Read may hold that for as long as r blocks
}

var errSealed = errors.New("this attempt is over")

func (g *guard) Read(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sealed.Load() {
		return 0, errSealed
	}
	g.touched = true
	n, err := g.r.Read(b)
	if err != nil && err != io.EOF {
		g.err = err
	}
	return n, err
}

// failure is what the caller's reader failed with.
func (g *guard) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Close leaves the caller's reader open: it is the caller's.
func (g *guard) Close() error { return nil }

// seal ends the attempt and reports whether anything was read.
func (g *guard) seal() bool {
	g.sealed.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.touched
}

// answer is the body of an answer: a stall longer than idle cancels the
// request, so that a server that hangs in mid-body ends in an error.
type answer struct {
	body   io.ReadCloser
	cancel func()
	idle   time.Duration
	timer  *time.Timer
}

func newAnswer(body io.ReadCloser, idle time.Duration, cancel func()) *answer {
	a := &answer{body: body, cancel: cancel, idle: idle}
	if idle > 0 {
		a.timer = time.AfterFunc(idle, cancel)
		a.timer.Stop() // it runs only inside Read
	}
	return a
}

func (a *answer) Read(b []byte) (int, error) {
	if a.timer != nil {
		a.timer.Reset(a.idle)
		defer a.timer.Stop()
	}
	return a.body.Read(b)
}

func (a *answer) Close() error {
	if a.timer != nil {
		a.timer.Stop()
	}
	err := a.body.Close()
	a.cancel()
	return err
}
