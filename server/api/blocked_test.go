package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// blockedReader gives its bytes one Read at a time and then blocks until it is
// released. It notes what no reader may see: two Reads at once.
type blockedReader struct {
	data    io.Reader
	blocked chan struct{} // closed when a Read blocks
	release chan struct{} // closed: blocked Reads end with io.EOF
	once    sync.Once
	inside  atomic.Int32
	reads   atomic.Int32
	twice   atomic.Bool
}

func newBlockedReader(data string) *blockedReader {
	return &blockedReader{data: strings.NewReader(data), blocked: make(chan struct{}), release: make(chan struct{})}
}

func (r *blockedReader) Read(b []byte) (int, error) {
	r.reads.Add(1)
	if r.inside.Add(1) > 1 {
		r.twice.Store(true)
	}
	defer r.inside.Add(-1)
	if n, _ := r.data.Read(b); n > 0 {
		return n, nil
	}
	r.once.Do(func() { close(r.blocked) })
	<-r.release
	for i := range b { // the buffer must still be the Read's own
		b[i] = 0xee
	}
	return 0, io.EOF
}

// blockedSeeker can be read again.
type blockedSeeker struct {
	*blockedReader
	seeks atomic.Int32
	early atomic.Bool // a Seek while a Read is under way
}

func (s *blockedSeeker) Seek(off int64, whence int) (int64, error) {
	s.seeks.Add(1)
	if s.inside.Load() > 0 {
		s.early.Store(true)
	}
	return s.data.(io.Seeker).Seek(off, whence)
}

// put runs a PUT of body and gives its error.
func put(t *testing.T, c *Client, ctx context.Context, body io.Reader, o PutOptions) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(ctx, "b", "k", body, o)
		done <- err
	}()
	return done
}

func wantEnd(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the call does not end")
		return nil
	}
}

// swallow reads what comes on each connection, answers nothing, and hands the
// connections out.
func swallow(t *testing.T, config *tls.Config) (addr string, conns chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	t.Cleanup(func() { l.Close() })
	conns = make(chan net.Conn, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			conns <- conn
			go io.Copy(io.Discard, conn)
		}
	}()
	return l.Addr().String(), conns
}

// The caller's cancel and deadline end a call whose body's reader blocks; the
// Read under way is the last, and takes nobody's buffer.
func TestBlockedBodyEndsWithTheContext(t *testing.T) {
	addr, _ := swallow(t, nil)
	for name, size := range map[string]int64{"declared": 1 << 20, "chunked": 0} {
		for _, kind := range []object.Kind{object.KindCanceled, object.KindTimeout} {
			t.Run(name+" "+kind.String(), func(t *testing.T) {
				c, err := NewClient([]string{addr}, ClientOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				body := newBlockedReader(strings.Repeat("x", 100))
				ctx, cancel := context.WithCancel(context.Background())
				if kind == object.KindTimeout {
					ctx, cancel = context.WithTimeout(context.Background(), 1200*time.Millisecond) // longer than the wait for 100-continue
				}
				defer cancel()
				before := runtime.NumGoroutine()
				done := put(t, c, ctx, body, PutOptions{Size: size})
				<-body.blocked
				if kind == object.KindCanceled {
					cancel()
				}
				err = wantEnd(t, done)
				if !object.IsKind(err, kind) || !errors.Is(err, ctx.Err()) {
					t.Errorf("%v", err)
				}
				reads := body.reads.Load()
				close(body.release)
				eventually(t, "the goroutines of the call to end", func() bool { return runtime.NumGoroutine() <= before })
				if body.reads.Load() != reads || body.twice.Load() {
					t.Errorf("%d reads, %d before the call ended; two at once: %v", body.reads.Load(), reads, body.twice.Load())
				}
			})
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// The node dies while the body's reader blocks, over HTTP and TLS.
func TestBlockedBodyEndsWithTheConnection(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	for scheme, config := range map[string]*tls.Config{"http": nil, "https": srv.TLS} {
		t.Run(scheme, func(t *testing.T) {
			addr, conns := swallow(t, config)
			o, err := ClientOptions{}.complete(1)
			if err != nil {
				t.Fatal(err)
			}
			o.HTTPClient.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
			c, err := NewClient([]string{scheme + "://" + addr}, o)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			body := newBlockedReader("some")
			defer close(body.release)
			done := put(t, c, context.Background(), body, PutOptions{Size: 10})
			conn := <-conns
			<-body.blocked
			conn.Close()
			if err := wantEnd(t, done); !object.IsKind(err, object.KindUnavailable) || !errors.Is(err, errCut) {
				t.Errorf("%v", err)
			}
			if body.twice.Load() || len(conns) != 0 {
				t.Errorf("two reads at once: %v; %d more attempts", body.twice.Load(), len(conns))
			}
		})
	}
}

// refuseWhen refuses a request once its body's reader blocks.
func refuseWhen(blocked <-chan struct{}, w http.ResponseWriter) {
	<-blocked
	w.Header().Set("Connection", "close")
	refuse(w, object.KindUnavailable)
}

// A refusal that could be tried again, while the body's reader blocks: it cannot.
func TestBlockedBodyIsNotSentAgain(t *testing.T) {
	var calls atomic.Int32
	body := newBlockedReader("some")
	defer close(body.release)
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		refuseWhen(body.blocked, w)
	})
	done := put(t, c, context.Background(), body, PutOptions{Size: 10})
	if err := wantEnd(t, done); !object.IsKind(err, object.KindUnavailable) || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

// A body that can be read again is, but only once the Read under way has ended;
// the caller's context ends that wait.
func TestBlockedSeekerIsReadAgainWhenItsReadEnds(t *testing.T) {
	for name, release := range map[string]bool{"its read ends": true, "the call is canceled": false} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			body, refused := &blockedSeeker{blockedReader: newBlockedReader("some")}, make(chan struct{})
			c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 1 {
					refuseWhen(body.blocked, w)
					close(refused)
					return
				}
				if b, err := io.ReadAll(r.Body); string(b) != "some" {
					t.Errorf("the body was %q, %v", b, err)
				}
				io.WriteString(w, "{}")
			})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := put(t, c, ctx, body, PutOptions{})
			<-refused
			if release {
				close(body.release)
				if err := <-done; err != nil || calls.Load() != 2 {
					t.Errorf("%v after %d calls", err, calls.Load())
				}
			} else {
				cancel()
				if err := wantEnd(t, done); !object.IsKind(err, object.KindCanceled) || calls.Load() != 1 {
					t.Errorf("%v after %d calls", err, calls.Load())
				}
				close(body.release)
			}
			if body.twice.Load() || body.early.Load() {
				t.Errorf("two reads at once: %v, a seek in a read: %v", body.twice.Load(), body.early.Load())
			}
		})
	}
}

// heldTransport gives up a request while a Read of its body goes on.
type heldTransport struct{ reading chan struct{} }

func (h heldTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	go r.Body.Read(make([]byte, 10))
	<-h.reading
	return nil, errors.New("given up")
}

// lateReader is a reader of the caller's memory whose Read takes its time.
type lateReader struct {
	reading, memory chan struct{}
	ended           atomic.Bool
}

func (l *lateReader) Read(b []byte) (int, error) {
	close(l.reading)
	<-l.memory
	l.ended.Store(true)
	return len(b), nil
}

func TestReadThatEndsSoonHasEndedWhenTheCallReturns(t *testing.T) {
	body := &lateReader{make(chan struct{}), make(chan struct{}), atomic.Bool{}}
	c, err := NewClient([]string{"h:1"}, ClientOptions{HTTPClient: &http.Client{Transport: heldTransport{body.reading}}, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-body.reading
		runtime.Gosched()
		close(body.memory)
	}()
	err = wantEnd(t, put(t, c, context.Background(), body, PutOptions{Size: 10}))
	if !object.IsKind(err, object.KindUnavailable) || !body.ended.Load() {
		t.Errorf("%v; the Read had ended: %v", err, body.ended.Load())
	}
}

// A size that is not the body's is the caller's mistake: it is said at once, and
// no other node is asked.
func TestSizeThatIsNotTheBodys(t *testing.T) {
	for _, tc := range []struct {
		name  string
		body  io.Reader
		kind  object.Kind
		calls int32
	}{
		{"memory, longer", strings.NewReader("hello"), object.KindInvalid, 0},
		{"memory, shorter", strings.NewReader("he"), object.KindInvalid, 0},
		{"stream, longer", onlyReader{strings.NewReader("hello")}, object.KindInvalid, 1},
		{"stream, shorter", onlyReader{strings.NewReader("he")}, object.KindIncomplete, 1},
	} {
		var calls atomic.Int32
		c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				<-r.Context().Done() // until the client hangs up
			}
		})
		_, err := c.Put(context.Background(), "b", "k", tc.body, PutOptions{Size: 3})
		if !object.IsKind(err, tc.kind) || calls.Load() > tc.calls {
			t.Errorf("%s: %v after %d calls", tc.name, err, calls.Load())
		}
	}
}

// BenchmarkPut64M is the PUT of 64 MiB to a server that drops it, from memory
// and from a reader of which nothing is known.
func BenchmarkPut64M(b *testing.B) {
	const size = 64 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "{}")
	}))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL}, ClientOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"memory": func(r io.Reader) io.Reader { return r },
		"reader": func(r io.Reader) io.Reader { return onlyReader{r} },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Put(context.Background(), "b", "k", wrap(bytes.NewReader(data)), PutOptions{Size: size}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
