package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// testChunk is the chunk size of the node under test.
const testChunk = 256 << 10

// fixture is a server on a real node, listening on loopback.
type fixture struct {
	t      *testing.T
	s      *Server
	node   *replication.Node
	addr   string
	client *api.Client
	doc    *openapi3.T
	chunks string // the node's storage path
}

func newFixture(t *testing.T, opts Options) *fixture {
	t.Helper()
	chunks := t.TempDir()
	node, err := replication.Open(context.Background(), replication.Config{MetadataPath: t.TempDir(), StoragePaths: []string{chunks},
		Partitions: 4, ChunkSize: testChunk, BufferMemory: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := New(node, opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c, err := api.NewClient([]string{l.Addr().String()}, api.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.CreateBucket(context.Background(), "assets", "admin"); err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, s: s, node: node, addr: l.Addr().String(), client: c, doc: loadContract(t), chunks: chunks}
}

// answered is an answer, read to its end.
type answered struct {
	status int
	header http.Header
	body   string
}

// ask sends a request and holds its answer against the contract. Headers are "Name: value".
func (f *fixture) ask(method, target, body string, headers ...string) answered {
	f.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://"+f.addr+target, r)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, target, err)
	}
	f.holdAgainstContract(req, resp, raw)
	return answered{resp.StatusCode, resp.Header, string(raw)}
}

// holdAgainstContract validates status and body of an answer.
func (f *fixture) holdAgainstContract(req *http.Request, resp *http.Response, body []byte) {
	f.t.Helper()
	path := ""
	for _, r := range f.s.engine.Routes() {
		parts := strings.Split(req.URL.EscapedPath(), "/")
		pattern := strings.Split(r.Path, "/")
		ok := len(parts) == len(pattern) || (strings.Contains(r.Path, "*") && len(parts) >= len(pattern))
		for i := 0; ok && i < len(pattern); i++ {
			ok = pattern[i] == parts[i] || strings.HasPrefix(pattern[i], ":") || strings.HasPrefix(pattern[i], "*")
		}
		if ok && r.Method == req.Method {
			path = documentPath(r.Path)
		}
	}
	if path == "" || req.Method == http.MethodHead || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return
	}
	item := f.doc.Paths.Find(path)
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req,
			Route: &routers.Route{Spec: f.doc, Path: path, PathItem: item, Method: req.Method, Operation: item.GetOperation(req.Method)}},
		Status: resp.StatusCode, Header: resp.Header,
	}
	in.SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		f.t.Errorf("%s %s: %d %s is not what the contract says: %v", req.Method, req.URL, resp.StatusCode, body, err)
	}
}

// want asks and checks the status; of an error also kind and completeness.
func (f *fixture) want(status int, method, target, body string, headers ...string) answered {
	f.t.Helper()
	a := f.ask(method, target, body, headers...)
	if a.status != status {
		f.t.Fatalf("%s %s %q: %d %s, want %d", method, target, headers, a.status, a.body, status)
	}
	if status >= 400 && method != http.MethodHead {
		var p api.Problem
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Kind == "" || p.Message == "" || p.Hint == "" || p.RequestID == "" {
			f.t.Errorf("%s %s: the error %s is not complete", method, target, a.body)
		}
		if a.header.Get(api.HeaderError) != p.Kind || a.header.Get(api.HeaderRequestID) != p.RequestID {
			f.t.Errorf("%s %s: headers %v do not fit %s", method, target, a.header, a.body)
		}
	}
	return a
}

func TestObjectRoundTrip(t *testing.T) {
	f := newFixture(t, Options{})
	for _, body := range []string{"", "hello", strings.Repeat("0123456789abcdef", 50000)} {
		for _, method := range []string{"PUT", "POST"} {
			a := f.want(201, method, "/objects/assets/dir/file.txt", body, "Content-Type: text/plain", "X-Bucketdb-Meta-Colour: gr\u00fcn")
			var obj api.Object
			sum := sha256.Sum256([]byte(body))
			known := len(body) <= testChunk // of more than one chunk only where it was declared
			if err := json.Unmarshal([]byte(a.body), &obj); err != nil || obj.Bucket != "assets" || obj.Key != "dir/file.txt" ||
				obj.Size != int64(len(body)) || obj.ETag == "" || known != bytes.Equal(obj.SHA256, sum[:]) || !known && len(obj.SHA256) > 0 || time.Since(obj.Modified) > time.Minute {
				t.Fatalf("%s (%v)", a.body, err)
			}
			got := f.want(200, "GET", "/objects/assets/dir/file.txt", "")
			if got.body != body || got.header.Get("Content-Type") != "text/plain" || got.header.Get("X-Bucketdb-Meta-Colour") != "grün" ||
				got.header.Get("Content-Length") != fmt.Sprint(len(body)) || got.header.Get("Etag") != `"`+obj.ETag+`"` ||
				got.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Fatalf("%d bytes of %d, %v", len(got.body), len(body), got.header)
			}
			head := f.want(200, "HEAD", "/objects/assets/dir/file.txt", "")
			for name := range got.header {
				if name != "Date" && name != api.HeaderRequestID && head.header.Get(name) != got.header.Get(name) {
					t.Errorf("HEAD %s: %q, GET %q", name, head.header.Get(name), got.header.Get(name))
				}
			}
		}
	}
	f.want(204, "DELETE", "/objects/assets/dir/file.txt", "")
	f.want(404, "GET", "/objects/assets/dir/file.txt", "")
	f.want(404, "HEAD", "/objects/assets/dir/file.txt", "")
	f.want(404, "DELETE", "/objects/assets/dir/file.txt", "")
	f.want(404, "GET", "/objects/nosuch/file.txt", "")
}

func TestKeysArriveExactly(t *testing.T) {
	f := newFixture(t, Options{})
	keys := map[string]string{ // path as sent → key
		"/a%2Fb": "a/b", "/x//y": "x//y", "//lead": "/lead", "/%2Flead2": "/lead2", "/./x": "./x", "/../up": "../up", "/d/%2E%2E/f": "d/../f",
		"/a+b": "a+b", "/a%2Bc": "a+c", "/sp%20ace": "sp ace", "/%D0%BA%D0%BB%D1%8E%D1%87": "ключ", "/pct%2525": "pct%25", "/q%3Fz": "q?z",
		"/semi;x=1": "semi;x=1", "/dir/": "dir/", "/all!$&'()*,=:@~": "all!$&'()*,=:@~", "/%252F": "%2F",
	}
	for path, key := range keys {
		body := "body of " + key
		if strings.HasSuffix(key, "/") {
			body = ""
		}
		raw := rawRequest(t, f.addr, "PUT", "/objects/assets"+path, body)
		if raw.status != 201 {
			t.Errorf("PUT %s: %d %s", path, raw.status, raw.body)
			continue
		}
		obj, err := f.client.Head(context.Background(), "assets", key, api.Conditions{})
		if err != nil || obj.Size != int64(len(body)) {
			t.Errorf("%s: HEAD of %q: %+v, %v", path, key, obj, err)
		}
		if got := rawRequest(t, f.addr, "GET", "/objects/assets"+path, ""); got.status != 200 || got.body != body {
			t.Errorf("GET %s: %d %q", path, got.status, got.body)
		}
	}
	page, err := f.client.List(context.Background(), "assets", api.ListOptions{})
	if err != nil || len(page.Objects) != len(keys) {
		t.Fatalf("%d keys listed of %d, %v", len(page.Objects), len(keys), err)
	}
	for i, o := range page.Objects[1:] {
		if page.Objects[i].Key >= o.Key {
			t.Errorf("%q stands before %q", page.Objects[i].Key, o.Key)
		}
	}
	for _, bad := range []string{"/%00", "/%FF", "/" + strings.Repeat("k", 1025), "/%zz", "/"} {
		if got := rawRequest(t, f.addr, "PUT", "/objects/assets"+bad, "x"); got.status != 400 {
			t.Errorf("PUT %.20s: %d %s", bad, got.status, got.body)
		}
	}
	if got := rawRequest(t, f.addr, "PUT", "/objects/assets/"+strings.Repeat("k/", 511)+"k", "x"); got.status != 201 {
		t.Errorf("a long key: %d %s", got.status, got.body)
	}
}

// rawRequest sends a request line as it stands, with nothing tidied up.
func rawRequest(t *testing.T, addr, method, target, body string) answered {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{resp.StatusCode, resp.Header, string(raw)}
}

func TestRangeAnswers(t *testing.T) {
	f := newFixture(t, Options{})
	data := strings.Repeat("0123456789", 60000)
	f.want(201, "PUT", "/objects/assets/r", data)
	f.want(201, "PUT", "/objects/assets/empty", "")
	etag := f.want(200, "HEAD", "/objects/assets/r", "").header.Get("Etag")
	for _, tc := range []struct {
		rng, want string
		status    int
		extra     []string
	}{
		{"bytes=0-9", data[:10], 206, nil}, {"bytes=-3", "789", 206, nil}, {"bytes=262140-262150", data[262140:262151], 206, nil},
		{"bytes=599999-", "9", 206, nil}, {"bytes=0-", data, 206, nil}, {"bytes=zzz", data, 200, nil},
		{"bytes=0-9", data[:10], 206, []string{"If-Range: " + etag}}, {"bytes=0-9", data, 200, []string{`If-Range: "other"`}},
		{"bytes=0-9", data[:10], 206, []string{"If-Match: " + etag}},
	} {
		a := f.want(tc.status, "GET", "/objects/assets/r", "", append(tc.extra, "Range: "+tc.rng)...)
		if a.body != tc.want {
			t.Errorf("%s %v: %d bytes, want %d", tc.rng, tc.extra, len(a.body), len(tc.want))
		}
	}
	if a := f.want(206, "GET", "/objects/assets/r", "", "Range: bytes=5-6"); a.header.Get("Content-Range") != "bytes 5-6/600000" {
		t.Errorf("%v", a.header)
	}
	if a := f.want(416, "GET", "/objects/assets/r", "", "Range: bytes=600000-"); a.header.Get("Content-Range") != "bytes */600000" {
		t.Errorf("%v", a.header)
	}
	f.want(416, "GET", "/objects/assets/empty", "", "Range: bytes=0-0")
	f.want(412, "GET", "/objects/assets/r", "", "Range: bytes=0-0", `If-Match: "other"`)
	f.want(304, "GET", "/objects/assets/r", "", "If-None-Match: "+etag)
	f.want(304, "HEAD", "/objects/assets/r", "", "If-None-Match: "+etag)
	checkByteranges(t, f.want(206, "GET", "/objects/assets/r", "", "Range: bytes=100-199,400000-400009,-1,110-120"), data)
}

func checkByteranges(t *testing.T, a answered, data string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("%v", a.header)
	}
	r := multipart.NewReader(strings.NewReader(a.body), params["boundary"])
	want := []string{data[100:200], data[400000:400010], data[len(data)-1:]}
	for i := 0; ; i++ {
		p, err := r.NextPart()
		if err == io.EOF && i == len(want) {
			return
		}
		if err != nil || i >= len(want) {
			t.Fatalf("part %d: %v", i, err)
		}
		raw, err := io.ReadAll(p)
		if err != nil || string(raw) != want[i] || !strings.HasSuffix(p.Header.Get("Content-Range"), "/600000") {
			t.Errorf("part %d: %d bytes, %v, %v", i, len(raw), p.Header, err)
		}
	}
}

func TestHandlerWithoutAListener(t *testing.T) {
	f := newFixture(t, Options{})
	w := httptest.NewRecorder()
	f.s.Handler().ServeHTTP(w, httptest.NewRequest("PUT", "http://localhost/objects/assets/x", strings.NewReader("hi")))
	if w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	f.s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/objects/assets/x", nil))
	if w.Code != 200 || w.Body.String() != "hi" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestKindNames(t *testing.T) {
	f := newFixture(t, Options{})
	for target, kind := range map[string]object.Kind{"/objects/nosuch/x": object.KindBucketNotFound, "/objects/assets/x": object.KindNotFound, "/nosuch": object.KindNotFound} {
		if a := f.want(404, "GET", target, ""); a.header.Get(api.HeaderError) != kind.String() {
			t.Errorf("%s: %s", target, a.body)
		}
	}
	if a := f.want(405, "TRACE", "/buckets", ""); a.header.Get("Allow") == "" {
		t.Errorf("%v", a.header)
	}
}
