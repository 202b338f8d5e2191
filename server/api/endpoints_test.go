package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func testEndpoints(n int) (e *endpoints, advance func(time.Duration)) {
	now := time.Now()
	e = newEndpoints(make([]*url.URL, n))
	e.now = func() time.Time { return now }
	return e, func(d time.Duration) { now = now.Add(d) }
}

// An endpoint that does not answer is left alone, then tried by one call, not by all.
func TestEndpointsRest(t *testing.T) {
	e, advance := testEndpoints(3)
	if e.first() != 0 {
		t.Fatal("the first that was given comes first")
	}
	e.failed(0)
	e.failed(0) // found by another call at the same time
	if e.state[0].failures != 1 {
		t.Errorf("%d failures counted", e.state[0].failures)
	}
	if at := e.first(); at != 1 {
		t.Errorf("calls begin with %d", at)
	}
	if at := e.next(2); at != 1 {
		t.Errorf("behind 2 comes %d, which rests", at)
	}
	e.failed(1)
	advance(firstRest)
	e.failed(2) // now 0 and 1 have had their rest
	if a, b := e.next(2), e.next(2); a != 0 || b != 1 {
		t.Errorf("one call tries each: %d, %d", a, b)
	}
	e.failed(0)
	e.failed(1)
	if at := e.next(0); at != 1 {
		t.Errorf("all rest: behind 0 comes %d", at)
	}
	e.answered(2)
	if at := e.first(); at != 2 {
		t.Errorf("calls stay with who answers: %d", at)
	}
	for range 20 {
		e.failed(0)
		advance(2 * longestRest)
	}
	e.failed(0)
	if d := e.state[0].until.Sub(e.now()); d > longestRest || d < longestRest/2 {
		t.Errorf("a rest of %v", d)
	}
}

// A single node is asked again and again: there is no other.
func TestOneEndpointNeverRests(t *testing.T) {
	e, _ := testEndpoints(1)
	e.failed(0)
	if e.first() != 0 || e.next(0) != 0 {
		t.Error("it is left alone")
	}
}

// silentListener accepts connections and neither reads nor answers, as a stopped
// process does; accepted counts.
func silentListener(t *testing.T) (addr string, accepted *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = new(atomic.Int32)
	var conns sync.Map
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			conns.Store(c, true)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil || true })
	})
	return l.Addr().String(), accepted
}

// A body that a stopped node does not take goes to the next one: net/http alone would
// wait in its write for ever.
func TestBodyThatANodeDoesNotTakeGoesElsewhere(t *testing.T) {
	silent, accepted := silentListener(t)
	var got atomic.Int64
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got.Store(n)
		_, _ = io.WriteString(w, "{}")
	}))
	defer good.Close()
	c, err := NewClient([]string{silent, good.URL}, ClientOptions{AnswerTimeout: 20 * time.Second, IdleTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	body := make([]byte, 32<<20) // more than the system keeps for us
	for range 3 {
		if _, err := c.Put(ctx, "b", "k", bytes.NewReader(body), PutOptions{}); err != nil || got.Swap(0) != int64(len(body)) {
			t.Fatalf("%d bytes arrived, %v", got.Load(), err)
		}
	}
	if n := accepted.Load(); n != 1 {
		t.Errorf("the stopped node was tried %d times", n)
	}
}

// A slow reader of ours is no stalled node.
func TestSlowBodyIsNoStall(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}")
	}))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL, srv.URL}, ClientOptions{AnswerTimeout: 50 * time.Millisecond, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, w := io.Pipe()
	go func() {
		for range 4 {
			_, _ = w.Write(make([]byte, 64<<10))
			<-time.After(150 * time.Millisecond) // longer than a node may take
		}
		w.Close()
	}()
	if _, err := c.Put(t.Context(), "b", "k", r, PutOptions{}); err != nil {
		t.Error(err)
	}
}

// A stream that broke off sends the next one, and other calls, to another node.
func TestBrokenStreamLeavesItsNode(t *testing.T) {
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"heartbeat","partition":0}`+"\n")
	}))
	defer cut.Close()
	var asked atomic.Int32
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "{}")
	}))
	defer good.Close()
	c, err := NewClient([]string{cut.URL, good.URL}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Events(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Next(); !object.IsKind(err, object.KindUnavailable) {
		t.Fatalf("%v", err)
	}
	if _, err := c.Cluster(t.Context()); err != nil || asked.Load() != 1 {
		t.Errorf("%v; the other node was asked %d times", err, asked.Load())
	}
	if c.Endpoint() != good.URL {
		t.Errorf("calls begin with %s", c.Endpoint())
	}
}

// A node has to make a large body durable before it answers: it has longer for that than
// for a small one, or a busy disk would have each attempt broken off and begun anew.
func TestLargeBodiesHaveTimeToBecomeDurable(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		<-time.After(700 * time.Millisecond) // small bodies have 500 ms
		_, _ = io.WriteString(w, "{}")
	}))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL, srv.URL}, ClientOptions{RetryFor: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(t.Context(), "b", "k", bytes.NewReader(make([]byte, 64<<20)), PutOptions{}); err != nil || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// However long it took to send a body: where the node is lost then, another is asked.
func TestLongUploadIsSentAgain(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if asked.Add(1) == 1 {
			panic(http.ErrAbortHandler) // the connection ends without an answer
		}
		_, _ = io.WriteString(w, "{}")
	}))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL, srv.URL}, ClientOptions{RetryFor: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := &slowReader{Reader: bytes.NewReader(make([]byte, 64<<10)), chunk: 16 << 10, each: 400 * time.Millisecond} // longer than RetryFor
	if _, err := c.Put(t.Context(), "b", "k", body, PutOptions{}); err != nil || asked.Load() != 2 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// slowReader can be read again, and takes its time the first time.
type slowReader struct {
	*bytes.Reader
	chunk int
	each  time.Duration
	read  bool
	again bool
}

func (r *slowReader) Read(b []byte) (int, error) {
	if !r.again {
		<-time.After(r.each)
	}
	r.read = true
	return r.Reader.Read(b[:min(len(b), r.chunk)])
}

func (r *slowReader) Seek(at int64, from int) (int64, error) {
	r.again = r.read
	return r.Reader.Seek(at, from)
}

// TestNodeThatHangsAfterALargeBody: the error says that the node is silent, not that somebody canceled.
func TestNodeThatHangsAfterALargeBody(t *testing.T) {
	for _, size := range []int{1 << 10, 1 << 20} {
		end := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-end
		}))
		c, err := NewClient([]string{srv.URL, srv.URL}, ClientOptions{RetryFor: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Put(t.Context(), "b", "k", bytes.NewReader(make([]byte, size)), PutOptions{})
		if errors.Is(err, context.Canceled) {
			t.Errorf("%d bytes: nobody canceled: %v", size, err)
		}
		if !object.IsKind(err, object.KindUnavailable) {
			t.Errorf("%d bytes: %v", size, err)
		}
		close(end)
		c.Close()
		srv.Close()
	}
}
