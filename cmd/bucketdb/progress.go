package main

import (
	"io"
	"os"
	"sync/atomic"

	"github.com/mattn/go-isatty"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows one bar for all transfers of a command, on a terminal only.
// It is safe for concurrent use.
type progress struct {
	container *mpb.Progress
	bar       *mpb.Bar
	total     atomic.Int64
}

// newProgress draws on w when that is a terminal and quiet is not asked for.
func newProgress(w io.Writer, name string, quiet bool) *progress {
	p := &progress{}
	f, ok := w.(*os.File)
	if quiet || !ok || !isatty.IsTerminal(f.Fd()) {
		return p
	}
	p.container = mpb.New(mpb.WithOutput(f), mpb.WithWidth(50))
	p.bar = p.container.AddBar(0,
		mpb.PrependDecorators(decor.Name(name+" "), decor.CountersKibiByte("% .1f / % .1f")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")))
	return p
}

// expect says that n more bytes are to come.
func (p *progress) expect(n int64) {
	if total := p.total.Add(n); p.bar != nil {
		p.bar.SetTotal(total, false)
	}
}

func (p *progress) moved(n int64) {
	if p.bar != nil && n > 0 {
		p.bar.IncrInt64(n)
	}
}

// done leaves the bar as it stands and waits until it is drawn.
func (p *progress) done(failed bool) {
	if p.bar == nil {
		return
	}
	if failed {
		p.bar.Abort(false)
	} else {
		p.bar.SetTotal(-1, true)
	}
	p.container.Wait()
}

// counted is a body whose bytes are counted once, also when an attempt failed
// and it is read again.
type counted struct {
	io.ReadSeeker
	p        *progress
	pos, top int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadSeeker.Read(b)
	if c.pos += int64(n); c.pos > c.top {
		c.p.moved(c.pos - c.top)
		c.top = c.pos
	}
	return n, err
}

func (c *counted) Seek(offset int64, whence int) (int64, error) {
	pos, err := c.ReadSeeker.Seek(offset, whence)
	if err == nil {
		c.pos = pos
	}
	return pos, err
}

// Write makes progress a place to copy to: it counts.
func (p *progress) Write(b []byte) (int, error) {
	p.moved(int64(len(b)))
	return len(b), nil
}

// steps shows how many of a number of things are done, on a terminal only. It is not
// safe for concurrent use.
type steps struct {
	container *mpb.Progress
	bar       *mpb.Bar
	total     int
}

func newSteps(w io.Writer, name string) *steps {
	s := &steps{}
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return s
	}
	s.container = mpb.New(mpb.WithOutput(f), mpb.WithWidth(50))
	s.bar = s.container.AddBar(0, mpb.PrependDecorators(decor.Name(name+" "), decor.CountersNoUnit("%d / %d moves")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.Elapsed(decor.ET_STYLE_GO)))
	return s
}

// left says how many are still to be done; when there are more than ever, the whole
// grows.
func (s *steps) left(n int) {
	s.total = max(s.total, n)
	if s.bar != nil {
		s.bar.SetTotal(int64(s.total), false)
		s.bar.SetCurrent(int64(s.total - n))
	}
}

// done leaves the bar as it stands and waits until it is drawn.
func (s *steps) done(failed bool) {
	if s.bar == nil {
		return
	}
	if failed {
		s.bar.Abort(false)
	} else {
		s.bar.SetTotal(-1, true)
	}
	s.container.Wait()
}
