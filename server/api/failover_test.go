package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestRedirectIsNotFollowed(t *testing.T) {
	var followed atomic.Int32
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			followed.Add(1)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}
	own := &http.Client{}
	for _, o := range []ClientOptions{{}, {HTTPClient: own}} {
		srv := httptest.NewServer(http.HandlerFunc(handler))
		defer srv.Close()
		c, err := NewClient([]string{srv.URL}, o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.Delete(context.Background(), "b", "k", Conditions{})
		if err == nil || !strings.Contains(err.Error(), "/elsewhere") || followed.Load() != 0 {
			t.Errorf("%v, followed %d times", err, followed.Load())
		}
	}
	if own.CheckRedirect != nil {
		t.Error("the caller's http.Client was changed")
	}
}

// hungAndGood are a node that accepts requests and answers none, and one that
// works; calls counts the requests of the first.
func hungAndGood(t *testing.T) (endpoints []string, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	stop := make(chan struct{})
	hung := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		<-stop
	}))
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	t.Cleanup(good.Close)
	t.Cleanup(hung.Close)
	t.Cleanup(func() { close(stop) })
	return []string{hung.URL, good.URL}, calls
}

func TestHungNodeIsLeft(t *testing.T) {
	endpoints, calls := hungAndGood(t)
	c, err := NewClient(endpoints, ClientOptions{RetryFor: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for range 3 {
		if _, err := c.Cluster(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the hung node was asked %d times", n)
	}
}

func TestDeadlineOfTheCallerLeavesTheHungNode(t *testing.T) {
	endpoints, calls := hungAndGood(t)
	c, err := NewClient(endpoints, ClientOptions{AnswerTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(30*time.Millisecond, cancel)
	if _, err := c.Cluster(ctx); !object.IsKind(err, object.KindCanceled) {
		t.Errorf("canceled: %v", err)
	}
	if c.nodes.first() != 0 {
		t.Error("the caller's cancel moved the client to another node")
	}
	ctx, cancel = context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.Cluster(ctx); !object.IsKind(err, object.KindTimeout) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := c.Cluster(ctx); err != nil || calls.Load() != 2 {
		t.Errorf("%v; the hung node was asked %d times", err, calls.Load())
	}
}

func TestAnswerTimeoutLeavesTimeForOtherNodes(t *testing.T) {
	for _, tc := range []struct {
		nodes int
		o     ClientOptions
		want  time.Duration
	}{
		{1, ClientOptions{}, DefaultAnswerTimeout}, {2, ClientOptions{}, 5 * time.Second}, {6, ClientOptions{RetryFor: 12 * time.Second}, time.Second},
		{3, ClientOptions{AnswerTimeout: time.Minute}, time.Minute},
	} {
		o, err := tc.o.complete(tc.nodes)
		if err != nil || o.AnswerTimeout != tc.want {
			t.Errorf("%d nodes: %v, want %v, %v", tc.nodes, o.AnswerTimeout, tc.want, err)
		}
	}
}

// keepsReading is a transport that goes on with a body after its answer, as
// net/http may.
type keepsReading struct {
	status int
	body   io.ReadCloser
}

func (k *keepsReading) RoundTrip(r *http.Request) (*http.Response, error) {
	k.body = r.Body
	return &http.Response{StatusCode: k.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
}

func TestBodyIsTheCallersAgainWhenTheCallEnds(t *testing.T) {
	for _, status := range []int{200, 400, 503} {
		k := &keepsReading{status: status}
		c, err := NewClient([]string{"h:1"}, ClientOptions{HTTPClient: &http.Client{Transport: k}, Retries: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(context.Background(), "b", "k", bytes.NewReader([]byte("hello")), PutOptions{}); (err == nil) != (status == 200) {
			t.Errorf("%d: %v", status, err)
		}
		if n, err := k.body.Read(make([]byte, 5)); n != 0 || err == nil {
			t.Errorf("%d: %d bytes of the caller's body were read after the call, %v", status, n, err)
		}
	}
}

func TestBlockedBodyDoesNotHoldTheCall(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // else net/http waits for the body before it answers
		refuse(w, object.KindPermission)
	})
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(context.Background(), "b", "k", r, PutOptions{Size: 10})
		done <- err
	}()
	select {
	case err := <-done:
		if !object.IsKind(err, object.KindPermission) {
			t.Errorf("%v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("an answer waits for a body that does not come")
	}
}

func TestAnswerThatIgnoresTheRange(t *testing.T) {
	ctx := context.Background()
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "0123456789") })
	wrong := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-3/10")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, "0123")
	})
	for _, c := range []*Client{c, wrong} {
		if n, err := c.ReadRange(ctx, 7, 4, make([]byte, 4), 0); !object.IsKind(err, object.KindInternal) {
			t.Errorf("ReadRange: %d bytes, %v", n, err)
		}
		if r, err := c.OpenRange(ctx, 7, 4, 4, 0); !object.IsKind(err, object.KindInternal) {
			t.Errorf("OpenRange: %v, %v", r, err)
		}
		if r, err := c.Get(ctx, "b", "k", GetOptions{Range: &object.Range{Start: 4, End: 7}}); !object.IsKind(err, object.KindInternal) {
			t.Errorf("Get: %v, %v", r, err)
		}
	}
	dst := make([]byte, 20)
	if n, err := c.ReadRange(ctx, 7, 0, dst, 0); err != nil || string(dst[:n]) != "0123456789" {
		t.Errorf("the whole file: %q, %v", dst[:n], err)
	}
}

func TestAnswerTooLongIsSaidToBe(t *testing.T) {
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := bytes.Repeat([]byte(" "), 1<<20)
		for range maxJSON>>20 + 1 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if _, err := c.List(context.Background(), "b", ListOptions{}); !object.IsKind(err, object.KindTooLarge) {
		t.Errorf("%v", err)
	}
}
