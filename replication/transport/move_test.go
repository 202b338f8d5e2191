package transport

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// slowMethod answers once it is let.
const slowMethod = 8

// TestAddressChanges moves a node's address while its old one still works: calls
// under way end well, none fails, and the old connections go.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	a, b, bk := pair(t)
	addr, _ := bk.resolve("b")
	before, after := proxy.New(t, addr), proxy.New(t, addr)
	bk.set("b", before.Addr())
	let, started := make(chan struct{}), make(chan struct{})
	b.HandleCall(slowMethod, func(ctx context.Context, _ Peer, req []byte) ([]byte, error) {
		close(started)
		select {
		case <-let:
			return req, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	b.HandleHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	must(t, echo(t, a, "b", "at the old address"))
	resp, err := a.HTTPClient("b").Get("http://b/")
	must(t, err)
	must(t, resp.Body.Close())
	slow := make(chan error, 1)
	go func() {
		_, err := a.Call(t.Context(), "b", slowMethod, []byte("x"))
		slow <- err
	}()
	<-started
	bk.set("b", after.Addr())
	p, err := a.peer("b")
	must(t, err)
	eventually(t, "calls take the new address", func() bool {
		must(t, echo(t, a, "b", "under way"))
		l := p.call.ready()
		return l != nil && l.w.dialled == after.Addr()
	})
	dialled := func(addr string) (n int) {
		for _, w := range a.wires() {
			if w.dialled == addr {
				n++
			}
		}
		return n
	}
	eventually(t, "only the one with a call under way stays", func() bool { return dialled(before.Addr()) == 1 })
	close(let)
	must(t, <-slow)
	eventually(t, "it goes with the answer", func() bool { return dialled(before.Addr()) == 0 })
	was := after.Dials.Load()
	resp, err = a.HTTPClient("b").Get("http://b/")
	must(t, err)
	must(t, resp.Body.Close())
	if after.Dials.Load() == was {
		t.Error("a bulk stream took the old address")
	}
}

// TestWrongAddressHarmsNothing: while nobody, or another node, answers at a node's
// new address, what stands stays.
func TestWrongAddressHarmsNothing(t *testing.T) {
	t.Parallel()
	a, _, bk := pair(t)
	open(t, bk, Options{Node: "c", Secrets: secretsOf(a)})
	addr, _ := bk.resolve("b")
	stranger, _ := bk.resolve("c")
	must(t, echo(t, a, "b", "x"))
	p, err := a.peer("b")
	must(t, err)
	old := p.call.ready()
	for _, wrong := range []string{"127.0.0.1:1", stranger} {
		bk.set("b", wrong)
		eventually(t, "the new address is tried", func() bool {
			must(t, echo(t, a, "b", "x"))
			p.call.mu.Lock()
			defer p.call.mu.Unlock()
			return p.call.unmoved == wrong
		})
	}
	if p.call.ready() != old {
		t.Error("the connection was given up for nothing")
	}
	// Once the old one fails there is nothing left: the reason names the node.
	old.fail(errClosed())
	eventually(t, "calls fail", func() bool { return echo(t, a, "b", "x") != nil })
	wantKind(t, echo(t, a, "b", "x"), object.KindUnauthenticated)
	good := proxy.New(t, addr)
	bk.set("b", good.Addr())
	eventually(t, "it is found again", func() bool { return echo(t, a, "b", "x") == nil })
}

// TestRetiredLinkEndsInTime waits for an answer that never comes.
func TestRetiredLink(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	must(t, echo(t, a, "b", "x"))
	p, err := a.peer("b")
	must(t, err)
	l := p.call.ready()
	started := make(chan struct{})
	b.HandleCall(slowMethod, func(ctx context.Context, _ Peer, _ []byte) ([]byte, error) {
		close(started)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := a.Call(ctx, "b", slowMethod, nil); gone <- err }()
	<-started
	l.retire()
	if l.failure() != nil {
		t.Error("it did not wait for the answer")
	}
	if _, err := l.send(t.Context(), newFrame(frameCall, 0), &exchange{}); err == nil {
		t.Error("a retired connection took a request")
	}
	cancel() // the caller gives up: nobody waits any more
	<-gone
	select {
	case <-l.done:
	case <-time.After(10 * time.Second):
		t.Error("nobody waits, and it stays")
	}
	eventually(t, "calls go on", func() bool { return echo(t, a, "b", "x") == nil })
}

// TestRotationCutsNothing makes another secret the current one and drops the first
// later: by then the connections stand under the new one.
func TestRotationCutsNothing(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	first, second := secretsOf(a)[0], NewSecret()
	must(t, echo(t, a, "b", "x"))
	p, err := a.peer("b")
	must(t, err)
	must(t, a.SetSecrets(second, first)) // too early: b does not know it
	eventually(t, "it was tried", func() bool { return len(p.call.look) == 0 })
	must(t, echo(t, a, "b", "x"))
	must(t, b.SetSecrets(first, second))
	must(t, a.SetSecrets(second, first))
	name := a.id.names()[0]
	eventually(t, "the connection stands under the new secret", func() bool {
		must(t, echo(t, a, "b", "x"))
		l := p.call.ready()
		return l != nil && l.w.under == name
	})
	link := p.call.ready()
	for _, n := range []*Node{a, b} {
		must(t, n.SetSecrets(second))
	}
	must(t, echo(t, a, "b", "x"))
	if p.call.ready() != link {
		t.Error("dropping the first secret cut the connection")
	}
}
