package api

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A client of several nodes stays with the cluster that answered first: a node that was
// wiped and has founded one of its own is passed over, and told so before it does anything.
func TestOneClusterOnly(t *testing.T) {
	var strange, served atomic.Int64
	node := func(cluster string, fail *atomic.Bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(HeaderCluster, cluster)
			if want := r.Header.Get(HeaderCluster); fail.Load() || want != "" && want != cluster {
				if want != cluster {
					strange.Add(1)
				}
				refuse(w, object.KindUnavailable)
				return
			}
			served.Add(1)
			_, _ = w.Write([]byte(`{"name":"b"}`))
		}
	}
	var down, never atomic.Bool
	c := newTestClient(t, node("one", &down), node("two", &never), node("one", &never))
	if _, err := c.Bucket(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	if _, err := c.Bucket(t.Context(), "b"); err != nil || strange.Load() != 1 || served.Load() != 2 {
		t.Errorf("%v; %d refused, %d served", err, strange.Load(), served.Load())
	}
}

// A call that takes as long as an object is large is not broken off by the time that a
// short one has, to begin anew elsewhere.
func TestSlowCallsAreNotBrokenOff(t *testing.T) {
	var asked atomic.Int64
	slow := func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1); asked.Load() == 1 {
			<-time.After(700 * time.Millisecond) // the answer is that slow; short calls have 500 ms
		}
		_, _ = w.Write([]byte(`{}`))
	}
	c := newTestClient(t, slow, slow)
	urls := []string{c.nodes.urls[0].String(), c.nodes.urls[1].String()}
	c, err := NewClient(urls, ClientOptions{RetryFor: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.CompleteUpload(t.Context(), "b", "k", "u", nil, Conditions{}); err != nil || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}
