package transport

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
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

var _ io.Closer = (*Node)(nil)
