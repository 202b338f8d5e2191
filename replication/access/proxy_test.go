package access

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between one node and another and misbehaves on demand.
type proxy struct {
	l      net.Listener
	target atomic.Value // string; the other node, as it listens now

	mu    sync.Mutex // guards what follows
	conns []net.Conn
	cut   bool
	mute  bool          // gate is for what comes back only
	gate  chan struct{} // while set, nothing is passed on, nothing is closed
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{l: l}
	p.target.Store("")
	go p.run()
	t.Cleanup(func() { _ = l.Close(); p.setCut(true); p.resume() })
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// setCut refuses connections and breaks those that are, or lets them be made again.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.conns = nil
	}
}

func (p *proxy) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate, p.mute = nil, false
	}
}

// hush holds back what the other node says; what it is told passes.
func (p *proxy) hush() {
	p.pause()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = true
}

func (p *proxy) wait(back bool) {
	p.mu.Lock()
	gate := p.gate
	if p.mute && !back {
		gate = nil
	}
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
		out, err := net.Dial("tcp", p.target.Load().(string))
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		if p.cut {
			_ = in.Close()
			_ = out.Close()
		} else {
			p.conns = append(p.conns, in, out)
		}
		p.mu.Unlock()
		go p.pass(out, in, false)
		go p.pass(in, out, true)
	}
}

func (p *proxy) pass(dst, src net.Conn, back bool) {
	defer func() { _ = src.Close(); _ = dst.Close() }()
	buf := make([]byte, 32<<10)
	for {
		k, err := src.Read(buf)
		p.wait(back)
		if _, werr := dst.Write(buf[:k]); werr != nil || err != nil {
			return
		}
	}
}
