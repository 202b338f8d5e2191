package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func answerOf(t *testing.T, conn net.Conn) *http.Response {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestTruncatedAndAbandonedUploads(t *testing.T) {
	f := newFixture(t, Options{})
	for _, size := range []int{100, 900000} {
		conn := dial(t, f.addr)
		fmt.Fprintf(conn, "PUT /objects/assets/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size-1))
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if resp := answerOf(t, conn); resp.StatusCode != 400 || resp.Header.Get(api.HeaderError) != "IncompleteBody" {
			t.Errorf("%d bytes: %d %v", size, resp.StatusCode, resp.Header)
		}
		conn = dial(t, f.addr) // this one goes away without a word
		fmt.Fprintf(conn, "PUT /objects/assets/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size-1))
		eventually(t, "the upload begins", func() bool { return f.s.inFlight.Load() == 1 })
		if err := conn.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		eventually(t, "the upload ends", func() bool { return f.s.inFlight.Load() == 0 })
	}
	conn := dial(t, f.addr)
	fmt.Fprintf(conn, "PUT /objects/assets/cut HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if resp := answerOf(t, conn); resp.StatusCode != 400 {
		t.Errorf("chunked: %d", resp.StatusCode)
	}
	f.want(404, "GET", "/objects/assets/cut", "")
}

func TestExpectContinueIsJudgedFirst(t *testing.T) {
	f := newFixture(t, Options{MaxObjectSize: 1000})
	for _, tc := range []struct {
		size   int
		header string
		want   int
	}{{2000, "", 413}, {5, "If-Match: unquoted\r\n", 400}, {5, "", 100}} {
		conn := dial(t, f.addr)
		fmt.Fprintf(conn, "PUT /objects/assets/e HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n%s\r\n", tc.size, tc.header)
		if got := answerOf(t, conn).StatusCode; got != tc.want {
			t.Errorf("%+v: %d", tc, got)
		}
		if tc.want == 100 {
			io.WriteString(conn, "hello")
			if got := answerOf(t, conn).StatusCode; got != 201 {
				t.Errorf("after the body: %d", got)
			}
		}
	}
}

func TestSlowButSteadyIsServedAndStalledIsNot(t *testing.T) {
	f := newFixture(t, Options{IdleTimeout: 300 * time.Millisecond})
	conn := dial(t, f.addr)
	fmt.Fprintf(conn, "PUT /objects/assets/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n")
	tick := time.NewTicker(40 * time.Millisecond) // 20 bytes: over twice the idle timeout in all
	defer tick.Stop()
	for range 20 {
		<-tick.C
		io.WriteString(conn, "x")
	}
	if resp := answerOf(t, conn); resp.StatusCode != 201 {
		t.Errorf("steady: %d", resp.StatusCode)
	}
	conn = dial(t, f.addr)
	fmt.Fprintf(conn, "PUT /objects/assets/stalled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\nxx")
	if resp := answerOf(t, conn); resp.StatusCode != 400 {
		t.Errorf("stalled: %d", resp.StatusCode)
	}
	f.want(404, "GET", "/objects/assets/stalled", "")
}

func TestReaderThatStallsIsCut(t *testing.T) {
	f := newFixture(t, Options{IdleTimeout: 200 * time.Millisecond})
	_, err := f.client.Put(context.Background(), "assets", "big", bytes.NewReader(make([]byte, 32<<20)), api.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, f.addr)
	fmt.Fprintf(conn, "GET /objects/assets/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
	eventually(t, "the read begins", func() bool { return f.s.inFlight.Load() == 1 })
	eventually(t, "the read is given up", func() bool { return f.s.inFlight.Load() == 0 })
}

// damage flips a bit in the middle of every chunk file.
func damage(t *testing.T, dir string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil || len(raw) < 1000 {
			return err
		}
		raw[len(raw)/2] ^= 1
		n++
		return os.WriteFile(path, raw, 0o600)
	})
	if err != nil || n == 0 {
		t.Fatalf("%d chunks damaged, %v", n, err)
	}
}

func TestOverload(t *testing.T) {
	f := newFixture(t, Options{MaxInFlight: 1})
	conn := dial(t, f.addr)
	fmt.Fprintf(conn, "PUT /objects/assets/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
	eventually(t, "the first request runs", func() bool { return f.s.inFlight.Load() == 1 })
	if a := f.want(503, "GET", "/buckets", ""); a.header.Get(api.HeaderError) != "Overload" || a.header.Get("Retry-After") == "" {
		t.Errorf("%v", a.header)
	}
	f.want(200, "GET", "/healthz", "")
	io.WriteString(conn, "hello")
	if resp := answerOf(t, conn); resp.StatusCode != 201 {
		t.Errorf("%d", resp.StatusCode)
	}
	f.want(200, "GET", "/buckets", "")
}

func TestForeignPagesAreRefused(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(403, "PUT", "/objects/assets/x", "x", "Origin: http://evil.example")
	f.want(403, "POST", "/buckets", `{"name":"x"}`, "Sec-Fetch-Site: cross-site")
	f.want(201, "PUT", "/objects/assets/x", "x", "Origin: http://"+f.addr)
}

// A page whose name was made to resolve to the server (DNS rebinding) gets nothing, also where
// everybody else does. The names that an operator has said, and those that nobody else can own, work.
func TestHostNames(t *testing.T) {
	for _, anonymous := range []bool{false, true} {
		f := newFixture(t, Options{AllowAnonymous: anonymous, AllowHosts: []string{"N1:9080", "", "store.example.", "[fd00::1]:1"}})
		f.want(201, "PUT", "/objects/assets/x", "x")
		for host, want := range map[string]int{
			"rebound.example": 403, "rebound.example:9080": 403, "n2": 403, "localhost.evil.example": 403, "notlocalhost": 403, "127.0.0.1.evil.example:80": 403, "*": 403,
			"localhost": 200, "LocalHost:9080": 200, "bucket.localhost:1": 200, "127.0.0.1:1": 200, "10.1.2.3": 200, "[::1]:9080": 200, "[::1]": 200,
			"n1": 200, "N1:8000": 200, "store.example": 200, "STORE.example.:80": 200,
		} {
			for _, path := range []string{"/objects/assets/x", "/readyz"} {
				conn := dial(t, f.addr)
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
				resp := answerOf(t, conn)
				body, err := io.ReadAll(resp.Body)
				if resp.StatusCode != want || err != nil {
					t.Errorf("%s, %s, anonymous %v: %d %s, %v", host, path, anonymous, resp.StatusCode, body, err)
				}
				if want == 403 && !strings.Contains(string(body), "--allow-host") {
					t.Errorf("%s: %s: it does not say what to do", host, body)
				}
			}
		}
	}
	f := newFixture(t, Options{AllowHosts: []string{AnyHost}})
	conn := dial(t, f.addr)
	fmt.Fprintf(conn, "GET /readyz HTTP/1.1\r\nHost: any.example\r\n\r\n")
	if resp := answerOf(t, conn); resp.StatusCode != 200 {
		t.Errorf("any name was allowed: %d", resp.StatusCode)
	}
}

// logBuffer is a log that tests can read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPanicsAndRequestIDs(t *testing.T) {
	log := &logBuffer{}
	s, err := New(nil, Options{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	s.handle("GET", "/boom", exempt, func(c *gin.Context) error { panic("boom") }) // exempt: there is no node
	s.handle("GET", "/late", exempt, func(c *gin.Context) error {
		s.begin(c, 200, 10)
		c.Writer.WriteString("part")
		return object.Errorf(object.KindCorrupt, "a bad chunk in mid-body")
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Shutdown(context.Background())
	req, _ := http.NewRequest("GET", "http://"+l.Addr().String()+"/boom", nil)
	req.Header.Set(api.HeaderRequestID, "my-id")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 500 || resp.Header.Get(api.HeaderRequestID) != "my-id" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	eventually(t, "the panic is logged", func() bool {
		return strings.Contains(log.String(), "request_id=my-id") && strings.Contains(log.String(), "boom") && strings.Contains(log.String(), "stack=")
	})
	resp, err = http.Get("http://" + l.Addr().String() + "/late")
	if err == nil { // its header may have left already
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
	}
	if err == nil {
		t.Error("a body that broke off ended cleanly")
	}
	if s.inFlight.Load() != 0 {
		t.Error("requests are still counted")
	}
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	f := newFixture(t, Options{})
	stream, err := f.client.Events(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	conn := dial(t, f.addr)
	fmt.Fprintf(conn, "PUT /objects/assets/last HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhel")
	eventually(t, "the request runs", func() bool { return f.s.inFlight.Load() == 1 })
	done := make(chan error, 1)
	go func() { done <- f.s.Shutdown(context.Background()) }()
	for {
		if _, err := stream.Next(); err != nil {
			break // the stream ends at once
		}
	}
	io.WriteString(conn, "lo")
	if resp := answerOf(t, conn); resp.StatusCode != 201 {
		t.Errorf("%d", resp.StatusCode)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if obj, err := f.node.Stat(context.Background(), "assets", "last"); err != nil || obj.Inode.Size != 5 {
		t.Errorf("%+v, %v", obj, err)
	}
}

func TestServeRefusesToBeOpenToAll(t *testing.T) {
	s, err := New(nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); !object.IsKind(err, object.KindPermission) {
		t.Errorf("%v", err)
	}
}

func TestFlippedBitIsNeverServed(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/small", strings.Repeat("s", 100000))
	f.want(201, "PUT", "/objects/assets/large", strings.Repeat("0123456789abcdef", 200000))
	damage(t, f.chunks)
	if a := f.want(500, "GET", "/objects/assets/small", ""); a.header.Get(api.HeaderError) != "Corrupt" {
		t.Errorf("%v", a.header)
	}
	resp, err := http.Get("http://" + f.addr + "/objects/assets/large")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if resp.StatusCode == 200 && err == nil {
		t.Errorf("%d bytes of a damaged object ended cleanly", len(raw))
	}
	f.want(200, "HEAD", "/objects/assets/large", "")
}

// A server that has no node yet says what the start waits for, and serves once it has one.
func TestServerBeforeItsNode(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/x", "x")
	what := ""
	s, err := New(nil, Options{Waiting: func() string { return what }})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
		return w
	}
	for _, what = range []string{"", "it waits for the others"} {
		for path, want := range map[string]int{"/objects/assets/x": 503, "/cluster": 503, "/readyz": 503, "/events": 503, "/healthz": 200, "/openapi.json": 200, "/metrics": 200, "/nothing": 404} {
			w := ask(path)
			if w.Code != want || want == 503 && !(strings.Contains(w.Body.String(), "the node is starting") && strings.Contains(w.Body.String(), what)) {
				t.Errorf("%s: %d %.300s", path, w.Code, w.Body)
			}
			if path == "/metrics" && !strings.Contains(w.Body.String(), "bucketdb_ready 0") {
				t.Errorf("the metrics do not say that it is not ready: %.300s", w.Body)
			}
		}
	}
	s.Attach(f.node)
	if w := ask("/objects/assets/x"); w.Code != 200 || w.Body.String() != "x" || w.Header().Get(api.HeaderCluster) != f.node.ClusterID() {
		t.Errorf("with its node: %d %s", w.Code, w.Body)
	}
}
