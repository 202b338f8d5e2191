package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestCallsShareAConnection(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	big := make([]byte, MaxCall)
	_, _ = rand.Read(big)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				if err := echo(t, a, "b", fmt.Sprintf("%d-%d", i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		if out, err := a.Call(t.Context(), "b", testMethod, big); err != nil || !bytes.Equal(out, big) {
			t.Error("4 MiB came back otherwise", err)
		}
	})
	wg.Wait()
	if n := len(b.wires()); n != 1 {
		t.Fatalf("%d connections", n)
	}
	_, err := a.Call(t.Context(), "b", testMethod, make([]byte, MaxCall+1))
	wantKind(t, err, object.KindTooLarge)
	must(t, echo(t, a, "a", "to myself"))
}

func TestCallErrors(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	sent := &object.Error{Op: "put", Bucket: "photos", Key: "cat.jpg", Kind: object.KindPrecondition, Err: fmt.Errorf("the ETag is another")}
	b.HandleCall(8, func(context.Context, Peer, []byte) ([]byte, error) { return nil, fmt.Errorf("wrapped: %w", sent) })
	_, err := a.Call(t.Context(), "b", 8, nil)
	wantKind(t, err, object.KindPrecondition)
	if err.Error() != sent.Error() {
		t.Fatalf("%q became %q", sent, err)
	}
	b.HandleCall(8, func(context.Context, Peer, []byte) ([]byte, error) { return make([]byte, MaxCall+1), nil })
	_, err = a.Call(t.Context(), "b", 8, nil)
	wantKind(t, err, object.KindTooLarge)
	b.HandleCall(8, func(context.Context, Peer, []byte) ([]byte, error) { panic("oops") })
	_, err = a.Call(t.Context(), "b", 8, nil)
	wantKind(t, err, object.KindInternal)
	_, err = a.Call(t.Context(), "b", 99, nil)
	wantKind(t, err, object.KindNotSupported)
	_, err = a.Call(t.Context(), "nowhere", 8, nil)
	wantKind(t, err, object.KindUnavailable)
}

func TestCallIsCancelledOverThere(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	began, ended := make(chan struct{}, 2), make(chan error, 2)
	b.HandleCall(8, func(ctx context.Context, _ Peer, _ []byte) ([]byte, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	_, err := a.Call(ctx, "b", 8, nil)
	wantKind(t, err, object.KindTimeout) // sent: the outcome is unknown
	<-ended
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = a.Call(ctx, "b", 8, nil)
	wantKind(t, err, object.KindTimeout)
	<-ended
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Call(gone, "b", testMethod, nil)
	wantKind(t, err, object.KindCanceled)
}

func TestTooManyCalls(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}, MaxCalls: 2})
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}, MaxCalls: 2})
	release := make(chan struct{})
	b.HandleCall(8, func(context.Context, Peer, []byte) ([]byte, error) { <-release; return nil, nil })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _, _ = a.Call(t.Context(), "b", 8, nil) })
	}
	eventually(t, "two calls", func() bool { p, _ := a.peer("b"); return len(p.slots) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := a.Call(ctx, "b", testMethod, nil)
	wantKind(t, err, object.KindOverload)
	close(release)
	wg.Wait()
	must(t, echo(t, a, "b", "x"))
}

func TestDownFailsFastAndComesBack(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}})
	bk.set("b", "127.0.0.1:1") // nobody listens
	wantKind(t, echo(t, a, "b", "x"), object.KindUnavailable)
	began := time.Now()
	for range 100 {
		wantKind(t, echo(t, a, "b", "x"), object.KindUnavailable)
	}
	if d := time.Since(began); d > time.Second {
		t.Fatalf("100 calls to a dead node took %v", d)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := a.CallWait(t.Context(), "b", testMethod, []byte("patience"))
		waited <- err
	}()
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}}) // and its address changes
	must(t, <-waited)
	if st := a.Peers(); len(st) != 1 || !st[0].Up || st[0].Node != "b" || st[0].Heard.IsZero() {
		t.Fatalf("status %+v", st)
	}
	must(t, b.Close())
	eventually(t, "a sees that b has gone", func() bool { return echo(t, a, "b", "x") != nil })
	a.Forget("b")
}

// TestCutAnywhere cuts the connection after each byte of greeting and call, in
// both directions: every call ends, with an error that is honest about what it knows.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		bk := &book{}
		var opt Options
		if secure {
			opt.Secrets = []Secret{NewSecret()}
		}
		opt.Node = "b"
		b := open(t, bk, opt)
		var handled atomic.Int64
		b.HandleCall(8, func(context.Context, Peer, []byte) ([]byte, error) { handled.Add(1); return []byte("done"), nil })
		addr, _ := bk.resolve("b")
		step := int64(1)
		if secure {
			step = 23
		}
		for _, back := range []bool{false, true} {
			unknown, refused := 0, 0
			for at := int64(0); ; at += step {
				p := proxy.New(t, addr)
				p.CutAt.Store(at)
				p.Back.Store(back)
				pb := &book{}
				pb.set("b", p.Addr())
				opt.Node, opt.Cluster, opt.Resolve = "a", "c1", pb.resolve
				a, err := Open(opt)
				must(t, err)
				before := handled.Load()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				out, err := a.Call(ctx, "b", 8, []byte("request"))
				cancel()
				must(t, a.Close())
				p.Die()
				if err == nil {
					if string(out) != "done" {
						t.Fatalf("cut after %d: answer %q", at, out)
					}
					break
				}
				switch object.KindOf(err) {
				case object.KindTimeout:
					unknown++
				case object.KindUnavailable, object.KindUnauthenticated:
					if refused++; handled.Load() != before {
						t.Fatalf("cut after %d: %v, but it was done", at, err)
					}
				default:
					t.Fatalf("cut after %d: %v", at, err)
				}
			}
			if unknown == 0 || refused == 0 {
				t.Fatalf("secure %v, back %v: %d unknown, %d refused: the cuts missed something", secure, back, unknown, refused)
			}
		}
	}
}

// TestHungPeer stops the wire without closing it: it is noticed within seconds.
func TestHungPeer(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}})
	open(t, bk, Options{Node: "b", Secrets: []Secret{s}})
	addr, _ := bk.resolve("b")
	p := proxy.New(t, addr)
	bk.set("b", p.Addr())
	must(t, echo(t, a, "b", "x"))
	p.Hang()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 16 { // some small, some that fill the pipe
		wg.Go(func() {
			_, err := a.Call(ctx, "b", testMethod, make([]byte, 1+i*200<<10))
			if k := object.KindOf(err); err == nil || (k != object.KindTimeout && k != object.KindUnavailable && k != object.KindOverload) {
				t.Errorf("call %d to a hung peer: %v", i, err)
			}
		})
	}
	wg.Wait()
	d := time.Since(began)
	if t.Logf("noticed after %v", d); d > 12*time.Second {
		t.Fatal("that is too late")
	}
	p.Resume()
	eventually(t, "it works again", func() bool { return echo(t, a, "b", "y") == nil })
}

func TestBulkStreams(t *testing.T) {
	t.Parallel()
	for _, secrets := range [][]Secret{nil, {NewSecret()}} {
		bk := &book{}
		a := open(t, bk, Options{Node: "a", Secrets: secrets})
		b := open(t, bk, Options{Node: "b", Secrets: secrets})
		b.HandleHTTP(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if who, ok := PeerOf(r.Context()); !ok || (secrets != nil && who.Node != "a") {
				http.Error(rw, "who are you", http.StatusForbidden)
				return
			}
			_, _ = io.Copy(rw, r.Body)
		}))
		body := make([]byte, 16<<20)
		_, _ = rand.Read(body)
		for range 3 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://b/chunk", bytes.NewReader(body))
			must(t, err)
			resp, err := a.HTTPClient("b").Do(req)
			must(t, err)
			out, err := io.ReadAll(resp.Body)
			must(t, err)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK || !bytes.Equal(out, body) {
				t.Fatalf("status %s, %d bytes", resp.Status, len(out))
			}
		}
		bk.set("x", func() string { s, _ := bk.resolve("b"); return s }())
		if secrets != nil {
			_, err := a.HTTPClient("x").Get("http://x/")
			wantKind(t, err, object.KindUnauthenticated)
			if !strings.Contains(err.Error(), "answers node b") {
				t.Fatal(err)
			}
		}
	}
}
