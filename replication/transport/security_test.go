package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestSecretText(t *testing.T) {
	t.Parallel()
	s := NewSecret()
	text := s.Reveal()
	for _, form := range []string{text, strings.ToUpper(text), " " + text + "\n"} {
		got, err := ParseSecret(form)
		must(t, err)
		if got != s {
			t.Fatalf("%q read as another secret", form)
		}
	}
	for i := range len(text) {
		for _, c := range "aq7" {
			typo := text[:i] + string(c) + text[i+1:]
			if _, err := ParseSecret(typo); typo != text && !object.IsKind(err, object.KindInvalid) {
				t.Fatalf("a typo at %d: %v", i, err)
			}
		}
	}
	if strings.Contains(s.String(), text[5:20]) || strings.Contains(s.GoString(), text[5:20]) {
		t.Fatal("String gives the secret away")
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add(NewSecret().Reveal())
	f.Add("bdb1-")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSecret(text); err == nil && s.Reveal() != strings.ToLower(strings.TrimSpace(text)) {
			t.Fatalf("%q is not the secret's spelling", text)
		}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	open(t, bk, Options{Node: "b", Secrets: []Secret{s}})
	tests := []struct {
		name string
		opt  Options
		kind object.Kind
	}{
		{"wrong secret", Options{Secrets: []Secret{NewSecret()}}, object.KindUnauthenticated},
		{"no secret", Options{}, object.KindUnavailable},
		{"wrong cluster", Options{Cluster: "c2", Secrets: []Secret{s}}, object.KindUnauthenticated},
		{"newer protocol", Options{Secrets: []Secret{s}, Versions: [2]uint64{2, 3}}, object.KindVersion},
		{"clock far off", Options{Secrets: []Secret{s}, Now: func() time.Time { return time.Now().Add(9 * 24 * time.Hour) }}, object.KindUnauthenticated},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.opt.Node = "a"
			err := echo(t, open(t, bk, test.opt), "b", "x")
			wantKind(t, err, test.kind)
			if test.kind == object.KindVersion && (!strings.Contains(err.Error(), "2 to 3") || !strings.Contains(err.Error(), "upgrade node b")) {
				t.Fatalf("the message does not help: %v", err)
			}
		})
	}
	t.Run("wrong node id", func(t *testing.T) {
		a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}})
		addr, _ := bk.resolve("b")
		bk.set("x", addr)
		wantKind(t, echo(t, a, "x", "x"), object.KindUnauthenticated)
	})
	t.Run("clock two days off is fine", func(t *testing.T) {
		for _, off := range []time.Duration{-40 * time.Hour, 40 * time.Hour} {
			a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}, Now: func() time.Time { return time.Now().Add(off) }})
			must(t, echo(t, a, "b", "x"))
		}
	})
	t.Run("a secret where the peer has none", func(t *testing.T) {
		plain := &book{}
		open(t, plain, Options{Node: "p"})
		a := open(t, plain, Options{Node: "a", Secrets: []Secret{s}})
		if err := echo(t, a, "p", "x"); err == nil {
			t.Fatal("it talked")
		}
	})
}

// TestStrangersLearnNothing connects in the ways a scanner does.
func TestStrangersLearnNothing(t *testing.T) {
	t.Parallel()
	bk := &book{}
	open(t, bk, Options{Node: "secretive", Secrets: []Secret{NewSecret()}, Release: "v9.9.9"})
	addr, _ := bk.resolve("secretive")
	for _, first := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", string([]byte{frameMagic}) + string(hello{min: 1, max: 1, role: roleCall, peer: Peer{Cluster: "c1", Node: "z"}}.encode(frameHello)), "\x00\x00\x00"} {
		c, err := net.Dial("tcp", addr)
		must(t, err)
		_, err = c.Write([]byte(first))
		must(t, err)
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		got, _ := io.ReadAll(c) // a reset is as good as an end
		if bytes.Contains(got, []byte("secretive")) || bytes.Contains(got, []byte("v9")) || bytes.Contains(got, []byte("HTTP")) || len(got) > 16 {
			t.Fatalf("a stranger was told %q", got)
		}
		_ = c.Close()
	}
	certs := 0
	_, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{alpnHTTP},
		VerifyConnection: func(s tls.ConnectionState) error { certs = len(s.PeerCertificates); return nil }})
	if err == nil || certs > 0 {
		t.Fatalf("a TLS client without the secret: error %v, %d certificates shown", err, certs)
	}
}

func TestPlainOnlyOnLoopback(t *testing.T) {
	t.Parallel()
	n, err := Open(Options{Node: "a", Cluster: "c1"})
	must(t, err)
	defer n.Close()
	_, err = n.Listen("0.0.0.0:0")
	wantKind(t, err, object.KindPermission)

	bk := &book{}
	a := open(t, bk, Options{Node: "a"})
	open(t, bk, Options{Node: "b"})
	must(t, echo(t, a, "b", "plain"))
	// As if b's address were not loopback: nothing listens there, so ask the rule itself.
	if loopback(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}) {
		t.Fatal("10.0.0.1 passes for loopback")
	}
}

func TestGuestJoins(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}})
	const join = 9
	b.HandleGuestCall(join, func(_ context.Context, from Peer, _ []byte) ([]byte, error) {
		return []byte("welcome " + from.Node), nil
	})
	guest := open(t, bk, Options{Node: "g", Cluster: "none", Secrets: []Secret{s}})
	addr, _ := bk.resolve("b")
	_, _, err := guest.CallAddress(t.Context(), addr, testMethod, nil)
	wantKind(t, err, object.KindPermission)
	who, answer, err := guest.CallAddress(t.Context(), addr, join, nil)
	must(t, err)
	if who.Node != "b" || who.Cluster != "c1" || string(answer) != "welcome g" {
		t.Fatalf("%+v answered %q", who, answer)
	}
	must(t, guest.SetCluster(who.Cluster))
	must(t, echo(t, guest, "b", "member"))
	must(t, echo(t, b, "g", "member"))
}

func TestLeafRenewal(t *testing.T) {
	t.Parallel()
	var off atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	s, bk := NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}, Now: now})
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}, Now: now})
	for range 4 { // 32 days, leaves live 5
		must(t, echo(t, a, "b", "x"))
		off.Add(int64(8 * 24 * time.Hour))
		for _, w := range append(a.wires(), b.wires()...) {
			_ = w.Close()
		}
		eventually(t, "a call with renewed leaves", func() bool { return echo(t, a, "b", "y") == nil })
	}
}

// TestRotation changes the secret while calls and their answers go both ways.
func TestRotation(t *testing.T) {
	t.Parallel()
	s1, s2, bk := NewSecret(), NewSecret(), &book{}
	nodes := []*Node{open(t, bk, Options{Node: "a", Secrets: []Secret{s1}}), open(t, bk, Options{Node: "b", Secrets: []Secret{s1}})}
	ctx, stop := context.WithCancel(t.Context())
	var calls, failed atomic.Int64
	var wg sync.WaitGroup
	for i, n := range nodes {
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, err := n.CallWait(ctx, []string{"b", "a"}[i], testMethod, []byte("x"))
					if calls.Add(1); err != nil && ctx.Err() == nil && !object.IsKind(err, object.KindTimeout) {
						failed.Add(1) // KindTimeout: under way on a connection that was dropped
						t.Log(err)
					}
				}
			})
		}
	}
	more := func() {
		t.Helper()
		for _, to := range []string{"a", "b"} {
			for _, n := range nodes {
				eventually(t, "a call", func() bool { return echo(t, n, to, "z") == nil })
			}
		}
		was := calls.Load()
		eventually(t, "traffic", func() bool { return calls.Load() > was+50 })
	}
	for _, set := range [][]Secret{{s1, s2}, {s2, s1}, {s2}} {
		for _, n := range nodes {
			must(t, n.SetSecrets(set...))
			more()
		}
	}
	stop()
	wg.Wait()
	if failed.Load() > 0 {
		t.Fatalf("%d of %d calls failed", failed.Load(), calls.Load())
	}
	for _, n := range nodes {
		for _, w := range n.wires() {
			if a, _ := newAuthority(s2); w.under != a.serverName {
				t.Fatal("a connection under the dropped secret lives on")
			}
		}
	}
	late := open(t, bk, Options{Node: "late", Secrets: []Secret{s1}})
	wantKind(t, echo(t, late, "a", "x"), object.KindUnauthenticated)
	wantKind(t, nodes[0].SetSecrets(), object.KindInvalid)
}

// TestFallbackSecret dials a node that does not know the current secret yet.
func TestFallbackSecret(t *testing.T) {
	t.Parallel()
	s1, s2, bk := NewSecret(), NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s2, s1}})
	open(t, bk, Options{Node: "b", Secrets: []Secret{s1}})
	must(t, echo(t, a, "b", "x"))
}

func TestLogsHoldNoSecret(t *testing.T) {
	t.Parallel()
	var buf syncBuffer
	log := slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, bk := NewSecret(), &book{}
	open(t, bk, Options{Node: "b", Secrets: []Secret{s}, Logger: log})
	other := NewSecret()
	_ = echo(t, open(t, bk, Options{Node: "a", Secrets: []Secret{other}, Logger: log}), "b", "x")
	eventually(t, "a line about the refusal", func() bool { return strings.Contains(buf.String(), "refused a connection") })
	for _, x := range []Secret{s, other} {
		if strings.Contains(buf.String(), x.Reveal()[5:]) {
			t.Fatal("a secret is in the log")
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestVersionIsAgreed(t *testing.T) {
	t.Parallel()
	n := &Node{opt: Options{Node: "a", Versions: [2]uint64{2, 5}}}
	for _, test := range []struct{ min, max, want uint64 }{{1, 3, 3}, {2, 9, 5}, {5, 5, 5}, {1, 1, 0}, {6, 7, 0}} {
		got, err := n.agree(hello{min: test.min, max: test.max, peer: Peer{Node: "b"}})
		if got != test.want || (err == nil) != (test.want != 0) {
			t.Fatalf("%+v: version %d, %v", test, got, err)
		}
	}
	if _, err := n.agree(hello{min: 1, max: 1, peer: Peer{Node: "b"}}); !strings.Contains(err.Error(), "upgrade node b") {
		t.Fatal(err)
	}
	if errors.Unwrap(errClosed()) == nil {
		t.Fatal("an error without a message")
	}
}
