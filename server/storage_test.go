package server

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestStorageOfBuckets: it is shown, given, changed and followed; what cannot be says why.
func TestStorageOfBuckets(t *testing.T) {
	f := newFixture(t, Options{})
	bucket := func(body string) (b api.Bucket) {
		t.Helper()
		if err := json.Unmarshal([]byte(body), &b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	three, two := api.Storage{Type: api.StorageReplicated, Copies: 3}, api.Storage{Type: api.StorageReplicated, Copies: 2}
	if b := bucket(f.want(201, "POST", "/buckets", `{"name":"plain"}`).body); b.Storage != three {
		t.Errorf("the default is %+v", b.Storage)
	}
	if b := bucket(f.want(201, "POST", "/buckets", `{"name":"twice","storage":{"type":"replicated","copies":2}}`).body); b.Storage != two || b.Rewriting != nil {
		t.Errorf("%+v", b)
	}
	if b := bucket(f.want(200, "GET", "/buckets/twice", "").body); b.Storage != two {
		t.Errorf("%+v", b)
	}
	for _, bad := range []string{`{}`, `{"type":"mirror"}`, `{"type":"replicated"}`, `{"type":"replicated","copies":65}`, `{"type":"replicated","copies":-1}`, `{"type":"rs","data":4}`,
		`{"type":"rs","data":1,"parity":2}`, `{"type":"rs","data":60,"parity":5}`, `{"type":"rs","data":4,"parity":2,"copies":3}`, `{"type":"replicated","copies":3,"data":4}`} {
		f.want(400, "POST", "/buckets", `{"name":"bad","storage":`+bad+`}`)
		f.want(400, "PATCH", "/buckets/plain", `{"storage":`+bad+`}`)
	}
	f.want(400, "PATCH", "/buckets/plain", `{}`)
	f.want(404, "PATCH", "/buckets/none", `{"storage":{"type":"replicated","copies":2}}`)
	f.want(404, "GET", "/buckets/bad", "")
	for _, a := range []answered{f.want(400, "POST", "/buckets", `{"name":"coded","storage":{"type":"rs","data":4,"parity":2}}`),
		f.want(400, "PATCH", "/buckets/plain", `{"storage":{"type":"rs","data":4,"parity":2}}`)} {
		if !strings.Contains(a.body, "needs 6 nodes") || !strings.Contains(a.body, "the cluster has 1") {
			t.Error(a.body)
		}
	}

	f.want(201, "PUT", "/objects/plain/k", strings.Repeat("k", 100_000))
	if b := bucket(f.want(200, "PATCH", "/buckets/plain", `{"storage":{"type":"replicated","copies":2}}`).body); b.Storage != two || b.Rewriting == nil || b.Rewriting.Started.IsZero() {
		t.Errorf("%+v", b)
	}
	for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		b, err := f.client.Bucket(t.Context(), "plain")
		if err != nil || b.Storage != two {
			t.Fatal(b, err)
		}
		if b.Rewriting == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the rewriting does not end: %+v", b.Rewriting)
		}
	}
	if got := f.want(200, "GET", "/objects/plain/k", "").body; got != strings.Repeat("k", 100_000) {
		t.Error("the object is another")
	}
	b, err := f.client.SetStorage(context.Background(), "plain", three)
	if err != nil || b.Storage != three {
		t.Error(b, err)
	}
	if _, err := f.client.MakeBucket(t.Context(), api.NewBucket{Name: "plain", Storage: &two}); !object.IsKind(err, object.KindBucketExists) {
		t.Error(err)
	}
}
