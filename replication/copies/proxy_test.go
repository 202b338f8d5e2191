package copies

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands before a node and misbehaves on demand.
type proxy struct {
	target string
	l      net.Listener
	cutAt  atomic.Int64 // after so many bytes in one direction a connection is cut; <0: never
	back   atomic.Bool  // the direction: from the node, not to it
	dials  atomic.Int64

	mu    sync.Mutex // guards what follows
	conns []net.Conn
	gate  chan struct{} // while set, nothing is passed on
}

func newProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{target: target, l: l}
	p.cutAt.Store(-1)
	go p.run()
	t.Cleanup(p.die)
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// die refuses connections, and breaks those that are.
func (p *proxy) die() {
	_ = p.l.Close()
	p.resume()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// hang stops all bytes without closing anything.
func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

func (p *proxy) wait() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (p *proxy) run() {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		p.dials.Add(1)
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		end := func() { _ = in.Close(); _ = out.Close() }
		go p.pass(out, in, false, end)
		go p.pass(in, out, true, end)
	}
}

func (p *proxy) pass(dst, src net.Conn, back bool, end func()) {
	defer end()
	passed := int64(0)
	buf := make([]byte, 32<<10)
	for {
		k, err := src.Read(buf)
		p.wait()
		if limit := p.cutAt.Load(); limit >= 0 && back == p.back.Load() && passed+int64(k) > limit {
			_, _ = dst.Write(buf[:max(limit-passed, 0)])
			return
		}
		passed += int64(k)
		if _, werr := dst.Write(buf[:k]); werr != nil || err != nil {
			return
		}
	}
}
