// Package proxy stands before a server, for tests, and hangs, cuts and refuses on demand.
package proxy

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy passes TCP connections on to a target. It is safe for concurrent use.
type Proxy struct {
	CutAt atomic.Int64 // after so many bytes in one direction a connection is cut; <0: never
	Back  atomic.Bool  // the direction: from the target, not to it
	Dials atomic.Int64 // how many connections came

	target string
	l      net.Listener

	mu    sync.Mutex // guards what follows
	conns []net.Conn
	gate  chan struct{} // while set, nothing is passed on
}

// New listens on loopback until the test ends.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, l: l}
	p.CutAt.Store(-1)
	go p.run()
	t.Cleanup(p.Die)
	return p
}

// Addr is where to reach it.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Cut breaks the connections that are; new ones are taken.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// Die refuses connections, and breaks those that are.
func (p *Proxy) Die() {
	_ = p.l.Close()
	p.Resume()
	p.Cut()
}

// Hang stops all bytes without closing anything.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

// Resume ends Hang.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

func (p *Proxy) wait() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (p *Proxy) run() {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		p.Dials.Add(1)
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

func (p *Proxy) pass(dst, src net.Conn, back bool, end func()) {
	defer end()
	passed := int64(0)
	buf := make([]byte, 32<<10)
	for {
		k, err := src.Read(buf)
		p.wait()
		if limit := p.CutAt.Load(); limit >= 0 && back == p.Back.Load() && passed+int64(k) > limit {
			_, _ = dst.Write(buf[:max(limit-passed, 0)])
			return
		}
		passed += int64(k)
		if _, werr := dst.Write(buf[:k]); werr != nil || err != nil {
			return
		}
	}
}
