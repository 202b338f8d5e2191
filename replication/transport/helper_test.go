package transport

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const testMethod = 7

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("error %v, want kind %v", err, k)
	}
}

// eventually polls until ok, or fails after a deadline.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// book is an address book that can change.
type book struct{ m sync.Map }

func (b *book) set(node, addr string) { b.m.Store(node, addr) }

func (b *book) resolve(node string) (string, error) {
	a, ok := b.m.Load(node)
	if !ok {
		return "", object.Errorf(object.KindUnavailable, "no address of node %s", node)
	}
	return a.(string), nil
}

func testLog() *slog.Logger {
	if os.Getenv("TRANSPORT_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// open starts a node that listens and echoes calls of testMethod.
func open(t testing.TB, b *book, opt Options) *Node {
	t.Helper()
	if opt.Cluster == "" {
		opt.Cluster = "c1"
	}
	if opt.Cluster == "none" {
		opt.Cluster = ""
	}
	opt.Resolve = b.resolve
	if opt.Logger == nil {
		opt.Logger = testLog().With("on", opt.Node)
	}
	n, err := Open(opt)
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	n.HandleCall(testMethod, func(_ context.Context, _ Peer, req []byte) ([]byte, error) { return req, nil })
	addr, err := n.Listen("127.0.0.1:0")
	must(t, err)
	b.set(opt.Node, addr.String())
	return n
}

// pair opens nodes a and b under one secret.
func pair(t testing.TB) (*Node, *Node, *book) {
	t.Helper()
	bk, s := &book{}, NewSecret()
	return open(t, bk, Options{Node: "a", Secrets: []Secret{s}}), open(t, bk, Options{Node: "b", Secrets: []Secret{s}}), bk
}

func echo(t testing.TB, n *Node, to, text string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := n.Call(ctx, to, testMethod, []byte(text))
	if err == nil && string(out) != text {
		t.Fatalf("echo of %q: %q", text, out)
	}
	return err
}

// proxy stands between a dialler and target and misbehaves on demand.
type proxy struct {
	t      testing.TB
	target string
	l      net.Listener
	cutAt  atomic.Int64 // after so many bytes towards the target a connection is cut; <0: never
	back   atomic.Bool  // cutAt counts the other direction instead
	stall  atomic.Bool  // nothing is passed on, nothing is closed
	dials  atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{t: t, target: target, l: l}
	p.cutAt.Store(-1)
	go p.run()
	t.Cleanup(func() { _ = l.Close(); p.cut() })
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
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
		for p.stall.Load() {
			time.Sleep(5 * time.Millisecond)
			if _, err := dst.Write(nil); err != nil {
				return
			}
		}
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

var _ io.Closer = (*Node)(nil)
