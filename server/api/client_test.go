package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// onlyReader hides every other method, so that a body can be read once.
type onlyReader struct{ io.Reader }

func newTestClient(t *testing.T, handlers ...http.HandlerFunc) *Client {
	t.Helper()
	var urls []string
	for _, h := range handlers {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		urls = append(urls, srv.URL)
	}
	c, err := NewClient(urls, ClientOptions{IdleTimeout: 5 * time.Second, RetryFor: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func refuse(w http.ResponseWriter, k object.Kind) {
	w.Header().Set(HeaderError, k.String())
	w.WriteHeader(Status(k))
	io.WriteString(w, `{"kind":"`+k.String()+`","message":"refused","hint":"wait","request_id":"r1"}`)
}

// seen records the tokens of requests.
type seen struct {
	mu   sync.Mutex
	list []string
}

func (s *seen) add(r *http.Request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, strings.Join([]string{r.Header.Get(HeaderSeq), r.Header.Get(HeaderAck), r.Header.Get(HeaderRetry)}, "/"))
	return len(s.list)
}

func TestMutationIsRetriedUnderItsToken(t *testing.T) {
	var tokens seen
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "hello" {
			t.Errorf("body %q, %v", body, err)
		}
		switch tokens.add(r) {
		case 1:
			refuse(w, object.KindUnavailable)
		case 2:
			panic(http.ErrAbortHandler) // the connection breaks after it may have happened
		case 3: // the answer breaks off
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"bu`)
		default:
			io.WriteString(w, `{"bucket":"b","key":"k","size":5,"etag":"e","inode":"0000000000000007","version":1}`)
		}
	})
	for range 2 {
		obj, err := c.Put(context.Background(), "b", "k", strings.NewReader("hello"), PutOptions{})
		if err != nil || obj.Inode != 7 || obj.Size != 5 {
			t.Fatalf("%+v, %v", obj, err)
		}
	}
	want := "1// 1//1 1//1 1//1 2/1/"
	if got := strings.Join(tokens.list, " "); got != want {
		t.Errorf("tokens %q, want %q", got, want)
	}
}

func TestBodyThatCannotBeReadAgain(t *testing.T) {
	calls := 0
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		io.Copy(io.Discard, r.Body)
		refuse(w, object.KindUnavailable)
	})
	_, err := c.Put(context.Background(), "b", "k", onlyReader{strings.NewReader("hello")}, PutOptions{})
	if !object.IsKind(err, object.KindUnavailable) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestUntouchedBodyGoesToTheNextNode(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, `{"size":`+strconv.Itoa(len(b))+`}`)
	}))
	defer srv.Close()
	c, err := NewClient([]string{dead, srv.URL}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	obj, err := c.Put(context.Background(), "b", "k", onlyReader{strings.NewReader("hello")}, PutOptions{Size: 5})
	if err != nil || obj.Size != 5 {
		t.Errorf("%+v, %v", obj, err)
	}
}

func TestOwnReadErrorIsNotRetried(t *testing.T) {
	broken := object.Errorf(object.KindNoSpace, "my own error")
	calls := 0
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) { calls++; io.Copy(io.Discard, r.Body) })
	body := io.MultiReader(strings.NewReader("hel"), onlyReader{errReader{broken}})
	if _, err := c.Put(context.Background(), "b", "k", body, PutOptions{}); !errors.Is(err, broken.Err) || !object.IsKind(err, object.KindNoSpace) {
		t.Errorf("%v", err)
	}
	if calls > 1 {
		t.Errorf("%d calls", calls)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestErrorsCrossTheWire(t *testing.T) {
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cluster" { // a proxy's error page
			http.Error(w, "<html>", http.StatusForbidden)
			return
		}
		refuse(w, object.KindNotEmpty)
	})
	err := c.DeleteBucket(context.Background(), "b")
	var p *Problem
	if !object.IsKind(err, object.KindNotEmpty) || !errors.As(err, &p) || p.Hint != "wait" || p.RequestID != "r1" || p.Message != "refused" {
		t.Errorf("%v, %+v", err, p)
	}
	if _, err := c.Head(context.Background(), "b", "k", Conditions{}); !object.IsKind(err, object.KindNotEmpty) {
		t.Errorf("HEAD: %v", err)
	}
	if _, err := c.Cluster(context.Background()); !object.IsKind(err, object.KindPermission) {
		t.Errorf("proxy: %v", err)
	}
}

// content answers ranges of data; broken says how many bytes of the n-th answer arrive.
func content(data string, broken func(n int, length int) int) http.HandlerFunc {
	var mu sync.Mutex
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n++
		call := n
		mu.Unlock()
		w.Header().Set("Etag", `"tag"`)
		if m := r.Header.Get("If-Match"); m != "" && m != `"tag"` {
			refuse(w, object.KindPrecondition)
			return
		}
		rec := httptest.NewRecorder()
		r.Header.Del("If-Match")
		http.ServeContent(rec, r, "", time.Time{}, strings.NewReader(data))
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		body := rec.Body.Bytes()
		keep := broken(call, len(body))
		w.Write(body[:keep])
		if keep < len(body) {
			panic(http.ErrAbortHandler)
		}
	}
}

func TestReaderGoesOnWhereANodeBrokeOff(t *testing.T) {
	data := strings.Repeat("0123456789abcdef", 40000)
	half := func(n, length int) int {
		if n%2 == 1 && length > 100 {
			return length / 2
		}
		return length
	}
	c := newTestClient(t, content(data, half), content(data, half))
	for _, o := range []GetOptions{{}, {Range: &object.Range{Start: 1000, End: 500000}}, {Range: &object.Range{Start: -1, End: 300001}}} {
		r, err := c.Get(context.Background(), "b", "k", o)
		if err != nil {
			t.Fatal(err)
		}
		want := data
		if o.Range != nil {
			off, n, _ := o.Range.Resolve(int64(len(data)))
			want = data[off : off+n]
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != want || r.Size != int64(len(data)) || r.Length != int64(len(want)) {
			t.Errorf("%+v: %d bytes of %d, %v", o, len(got), len(want), err)
		}
		r.Close()
	}
}

func TestBrokenBodyIsNeverACleanEnd(t *testing.T) {
	data := strings.Repeat("x", 100000)
	srv := httptest.NewServer(content(data, func(n, length int) int {
		if n == 1 {
			return length / 2
		}
		return 0
	}))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL}, ClientOptions{Retries: 2})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Get(context.Background(), "b", "k", GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestReadRange(t *testing.T) {
	data := "0123456789"
	c := newTestClient(t, content(data, func(n, length int) int {
		if n == 1 {
			return length / 2 // the first answer breaks off and is asked again
		}
		return length
	}))
	for _, tc := range []struct {
		off  int64
		n    int
		want string
	}{{0, 4, "0123"}, {8, 10, "89"}, {10, 4, ""}, {99, 1, ""}, {3, 0, ""}} {
		dst := make([]byte, tc.n)
		n, err := c.ReadRange(context.Background(), 7, tc.off, dst, 0)
		if err != nil || string(dst[:n]) != tc.want {
			t.Errorf("%+v: %q, %v", tc, dst[:n], err)
		}
	}
}

func TestHungServerEndsInAnError(t *testing.T) {
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write(bytes.Repeat([]byte("x"), 10))
		w.(http.Flusher).Flush()
		<-stop
	}))
	defer srv.Close()
	defer close(stop)
	c, err := NewClient([]string{srv.URL}, ClientOptions{IdleTimeout: 50 * time.Millisecond, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadRange(context.Background(), 7, 0, make([]byte, 100), 0); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestCancelEndsTheRetries(t *testing.T) {
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) { refuse(w, object.KindUnavailable) })
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Millisecond)
	defer cancel()
	if _, err := c.Cluster(ctx); !object.IsKind(err, object.KindTimeout) && !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("%v", err)
	}
	if ctx.Err() == nil {
		t.Error("the retries ended before the context")
	}
}

func TestSessionAcknowledgesWithoutGaps(t *testing.T) {
	s := newSession(object.UploadID{1})
	a, b, c := s.begin(), s.begin(), s.begin()
	ack := func() string {
		h := http.Header{}
		s.stamp(h, c, false)
		return h.Get(HeaderAck)
	}
	s.end(b)
	if got := ack(); got != "" {
		t.Errorf("ack %q while %d is under way", got, a)
	}
	s.end(a)
	if got := ack(); got != "2" {
		t.Errorf("ack %q, want 2", got)
	}
	if len(s.done) != 0 {
		t.Errorf("%d numbers kept", len(s.done))
	}
}

func TestEventStream(t *testing.T) {
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("since"); got != "1:5,2:9" {
			t.Errorf("since %q", got)
		}
		io.WriteString(w, `{"kind":"heartbeat"}`+"\n"+`{"kind":"entry","partition":1,"index":6,"dir":"0000000000000001","name":{"base64":"/w=="}}`+"\n")
	})
	s, err := c.Events(context.Background(), map[object.PartitionID]uint64{2: 9, 1: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	e, err := s.Next()
	if err != nil || e.Kind != EventEntry || e.Name != "\xff" || e.Dir != 1 || e.Index != 6 {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := s.Next(); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("the end: %v", err)
	}
}

func TestEndpoints(t *testing.T) {
	for _, bad := range []string{"", "ftp://x", "http://", "http://x?y=1"} {
		if _, err := NewClient([]string{bad}, ClientOptions{}); !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := NewClient(nil, ClientOptions{}); err == nil {
		t.Error("no endpoint is accepted")
	}
}

// Times that cannot be are refused, not found out by a ticker that panics in the middle of a body.
func TestNegativeTimesAreRefused(t *testing.T) {
	for _, o := range []ClientOptions{{IdleTimeout: -1}, {RetryFor: -time.Second}, {ConnectTimeout: -1}, {AnswerTimeout: -1}} {
		if c, err := NewClient([]string{"http://127.0.0.1:1"}, o); !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%+v: %v, %v", o, c, err)
		}
	}
	// One that is shorter than a tick ends a body that stands still, and nothing else.
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer srv.Close()
	c, err := NewClient([]string{srv.URL}, ClientOptions{IdleTimeout: 1, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Put(t.Context(), "box", "k", bytes.NewReader(make([]byte, 1<<20)), PutOptions{Size: 1 << 20}) // it may fail; it does not panic
}
