package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestOneOfManyConditionalWritersWins(t *testing.T) {
	f := newFixture(t, Options{})
	const writers = 64
	race := func(cond api.Conditions) (winner string) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range writers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				body := fmt.Sprintf("writer %d", i)
				_, err := f.client.Put(context.Background(), "assets", "race", strings.NewReader(body), api.PutOptions{Cond: cond})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && winner == "":
					winner = body
				case err == nil:
					t.Errorf("both %q and %q won", winner, body)
				case !object.IsKind(err, object.KindPrecondition):
					t.Errorf("writer %d: %v", i, err)
				}
			}()
		}
		wg.Wait()
		return winner
	}
	cond := api.Conditions{IfNoneMatch: []string{"*"}}
	for round := range 3 {
		winner := race(cond)
		got := f.want(200, "GET", "/objects/assets/race", "")
		if winner == "" || got.body != winner {
			t.Fatalf("round %d: %q won, %q is there", round, winner, got.body)
		}
		cond = api.Conditions{IfMatch: []string{strings.Trim(got.header.Get("Etag"), `"`)}}
	}
}

func TestConditionsOfChanges(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/c", "one")
	etag := f.want(200, "HEAD", "/objects/assets/c", "").header.Get("Etag")
	f.want(412, "PUT", "/objects/assets/c", "two", "If-None-Match: *")
	f.want(412, "PUT", "/objects/assets/c", "two", `If-Match: "other"`)
	f.want(412, "PUT", "/objects/assets/c", "two", `If-Match: W/`+etag)
	f.want(412, "PUT", "/objects/assets/none", "two", "If-Match: *")
	f.want(400, "PUT", "/objects/assets/c", "two", "If-Match: unquoted")
	f.want(412, "PUT", "/objects/assets/c", "two", "If-Unmodified-Since: Mon, 02 Jan 2006 15:04:05 GMT")
	f.want(412, "DELETE", "/objects/assets/c", "", `If-Match: "other"`)
	f.want(412, "PATCH", "/objects/assets/c?append", "x", `If-Match: "other"`)
	f.want(412, "PATCH", "/objects/assets/c?truncate=1", "", `If-Match: "other"`)
	f.want(501, "PATCH", "/objects/assets/c?attributes", "{}", "If-Match: "+etag)
	f.want(501, "POST", "/objects/assets/c?rename", `{"key":"d"}`, "If-Match: "+etag)
	if a := f.want(200, "GET", "/objects/assets/c", ""); a.body != "one" || a.header.Get("Etag") != etag {
		t.Errorf("%q, %v", a.body, a.header)
	}
	f.want(201, "PUT", "/objects/assets/c", "two", "If-Match: "+etag)
	f.want(412, "DELETE", "/objects/assets/c", "", "If-Match: "+etag)
	f.want(204, "DELETE", "/objects/assets/c", "", "If-Match: *")
}

func TestDeclaredDigestsAndLengths(t *testing.T) {
	f := newFixture(t, Options{MaxObjectSize: 1 << 20})
	for _, body := range []string{"hello", strings.Repeat("x", 700000)} {
		sum := sha256.Sum256([]byte(body))
		good := "Content-Digest: sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
		sum[5] ^= 1
		wrong := "x-amz-checksum-sha256: " + base64.StdEncoding.EncodeToString(sum[:])
		f.want(201, "PUT", "/objects/assets/good", body, good)
		for _, method := range []string{"PUT", "POST"} {
			if a := f.want(400, method, "/objects/assets/wrong", body, good, wrong); a.header.Get(api.HeaderError) != "DigestMismatch" {
				t.Errorf("%s", a.body)
			}
		}
		f.want(404, "GET", "/objects/assets/wrong", "")
		f.want(400, "PATCH", "/objects/assets/good?append", body, wrong)
		if a := f.want(200, "GET", "/objects/assets/good", ""); a.body != body {
			t.Errorf("a patch with a wrong digest changed the object: %d bytes", len(a.body))
		}
	}
	f.want(400, "PUT", "/objects/assets/wrong", "x", "Content-MD5: nonsense")
	f.want(501, "PUT", "/objects/assets/wrong", "x", "Content-Encoding: gzip")
	if a := f.want(413, "PUT", "/objects/assets/big", strings.Repeat("x", 1<<20+1)); !strings.Contains(a.body, "multipart") {
		t.Errorf("413 does not say what to do: %s", a.body)
	}
	_, err := f.client.Put(context.Background(), "assets", "big", struct{ io.Reader }{bytes.NewReader(make([]byte, 3<<20))}, api.PutOptions{})
	if !object.IsKind(err, object.KindTooLarge) {
		t.Errorf("chunked: %v", err)
	}
	f.want(404, "HEAD", "/objects/assets/big", "")
}

// A change in place is of the file that the key led to when the request came.
func TestPatchOfAFileThatMovesMeanwhile(t *testing.T) {
	f := newFixture(t, Options{})
	for _, c := range []struct {
		name      string
		meanwhile func()
		status    int // 0: 200 or 409, by whether the file was collected
		want      map[string]string
	}{
		{"renamed", func() {
			err := f.node.RenameObject(t.Context(), "assets", "log", "assets", "log.1", replication.RenameFlags{})
			if err != nil {
				t.Error(err)
			}
			f.want(201, "PUT", "/objects/assets/log", "new ")
		}, 200, map[string]string{"log": "new ", "log.1": "old line"}},
		{"replaced", func() { f.want(201, "PUT", "/objects/assets/log", "new ") }, 0, map[string]string{"log": "new "}},
	} {
		f.want(201, "PUT", "/objects/assets/log", "old ")
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PATCH /objects/assets/log?append HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n", f.addr)
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil) // the key was looked up: the body is wanted
		if err != nil || resp.StatusCode != 100 {
			t.Fatalf("%s: %+v, %v", c.name, resp, err)
		}
		c.meanwhile()
		fmt.Fprint(conn, "line")
		if resp, err = http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status && (c.status != 0 || resp.StatusCode != 200 && resp.StatusCode != 409) {
			t.Errorf("%s: %s", c.name, resp.Status)
		}
		resp.Body.Close()
		for key, want := range c.want {
			if a := f.want(200, "GET", "/objects/assets/"+key, ""); a.body != want {
				t.Errorf("%s: %s has %q", c.name, key, a.body)
			}
		}
		f.want(204, "DELETE", "/objects/assets/log", "")
	}
}

func TestPatch(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(404, "PATCH", "/objects/assets/p?append", "x")
	f.want(201, "PUT", "/objects/assets/p", "0123456789", "Content-Type: text/plain")
	for _, step := range []struct {
		query, body, contentRange, want string
	}{
		{"", "ABC", "bytes 2-4/*", "01ABC56789"},
		{"", "XY", "bytes 9-10/*", "01ABC5678XY"},
		{"", "Z", "bytes 13-13/*", "01ABC5678XY\x00\x00Z"},
		{"?append", "tail", "", "01ABC5678XY\x00\x00Ztail"},
		{"?truncate=5", "", "", "01ABC"},
		{"?truncate=7", "", "", "01ABC\x00\x00"},
		{"?truncate=0", "", "", ""},
		{"?append", "again", "", "again"},
	} {
		var headers []string
		if step.contentRange != "" {
			headers = append(headers, "Content-Range: "+step.contentRange)
		}
		f.want(200, "PATCH", "/objects/assets/p"+step.query, step.body, headers...)
		if got := f.want(200, "GET", "/objects/assets/p", ""); got.body != step.want || got.header.Get("Content-Type") != "text/plain" {
			t.Errorf("%+v: %q", step, got.body)
		}
	}
	f.want(400, "PATCH", "/objects/assets/p", "x")
	f.want(400, "PATCH", "/objects/assets/p?append&truncate=1", "x")
	f.want(400, "PATCH", "/objects/assets/p?truncate=-1", "")
	f.want(400, "PATCH", "/objects/assets/p", "x", "Content-Range: bytes 0-5/*")
	f.want(400, "PATCH", "/objects/assets/p", "x", "Content-Range: bytes 0-0/10")
	f.want(400, "PATCH", "/objects/assets/p?%zz", "x")
	f.want(200, "PATCH", "/objects/assets/p?attributes", `{"mode":448,"mtime":"1500000000000000001","meta":{"A":"b"}}`)
	f.want(400, "PATCH", "/objects/assets/p?attributes", `{"mode":99999}`)
	f.want(400, "PATCH", "/objects/assets/p?attributes", `not json`)
	n, err := f.client.Attributes(context.Background(), "assets", "p")
	if err != nil || n.Mode != 0o700 || n.Mtime != 1500000000000000001 || n.Meta["a"] != "b" || n.Size != 5 {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestVerbs(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := context.Background()
	f.want(201, "PUT", "/objects/assets/a", "hello", "Content-Type: text/plain", "X-Bucketdb-Meta-K: v")
	f.want(201, "POST", "/objects/assets/a?copy", `{"key":"copy"}`)
	f.want(201, "POST", "/objects/assets/a?copy", `{"key":"replaced","replace":true,"content_type":"x/y"}`)
	f.want(412, "POST", "/objects/assets/a?copy", `{"key":"copy"}`, "If-None-Match: *")
	f.want(412, "POST", "/objects/assets/a?copy", `{"key":"other","source_match":["no"]}`)
	f.want(204, "POST", "/objects/assets/a?link", `{"key":"dir/link"}`)
	f.want(409, "POST", "/objects/assets/a?rename", `{"key":"copy","no_replace":true}`)
	f.want(204, "POST", "/objects/assets/a?rename", `{"key":"dir/moved"}`)
	f.want(400, "POST", "/objects/assets/copy?rename", `{"key":""}`)
	f.want(400, "POST", "/objects/assets/copy?rename", `{`)
	f.want(404, "POST", "/objects/assets/a?rename", `{"key":"x"}`)
	f.want(404, "GET", "/objects/assets/a", "")
	for _, key := range []string{"copy", "dir/link", "dir/moved"} {
		a := f.want(200, "GET", "/objects/assets/"+key, "")
		if a.body != "hello" || a.header.Get("Content-Type") != "text/plain" || a.header.Get("X-Bucketdb-Meta-K") != "v" {
			t.Errorf("%s: %q %v", key, a.body, a.header)
		}
	}
	if a := f.want(200, "GET", "/objects/assets/replaced", ""); a.header.Get("Content-Type") != "x/y" || a.header.Get("X-Bucketdb-Meta-K") != "" {
		t.Errorf("%v", a.header)
	}
	f.want(204, "PUT", "/objects/assets/copy?xattr=user.x", "value")
	f.want(409, "PUT", "/objects/assets/copy?xattr=user.x&create", "other")
	f.want(404, "PUT", "/objects/assets/copy?xattr=user.y&replace", "other")
	if a := f.want(200, "GET", "/objects/assets/copy?xattr=user.x", ""); a.body != "value" {
		t.Errorf("%q", a.body)
	}
	if n, err := f.client.Attributes(ctx, "assets", "copy"); err != nil || string(n.Xattrs["user.x"]) != "value" {
		t.Errorf("%+v, %v", n, err)
	}
	f.want(204, "DELETE", "/objects/assets/copy?xattr=user.x", "")
	f.want(404, "GET", "/objects/assets/copy?xattr=user.x", "")
	if err := f.client.RenameObject(ctx, "assets", "dir/", api.Target{Key: "moved/"}); err != nil {
		t.Error(err)
	}
	f.want(200, "GET", "/objects/assets/moved/link", "")
}

func TestMultipart(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := context.Background()
	u, err := f.client.CreateUpload(ctx, "assets", "big", api.PutOptions{ContentType: "video/x", Meta: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	one, two := strings.Repeat("1", 600000), strings.Repeat("2", 300001)
	p2, err := f.client.PutPart(ctx, "assets", "big", u.ID, 2, strings.NewReader(two), 0)
	if err != nil {
		t.Fatal(err)
	}
	p1, err := f.client.PutPart(ctx, "assets", "big", u.ID, 1, strings.NewReader(one), 0)
	if err != nil || p1.Size != int64(len(one)) {
		t.Fatalf("%+v, %v", p1, err)
	}
	if l, err := f.client.Parts(ctx, "assets", "big", u.ID, 0, 0); err != nil || len(l.Parts) != 2 || l.Parts[1].ETag != p2.ETag {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := f.client.Uploads(ctx, "assets", "", "", 0); err != nil || len(l.Uploads) != 1 || l.Uploads[0].ID != u.ID {
		t.Errorf("%+v, %v", l, err)
	}
	f.want(404, "GET", "/objects/assets/big", "")
	f.want(400, "POST", "/objects/assets/big?upload="+u.ID, `{"parts":[{"number":2},{"number":1}]}`)
	f.want(400, "PUT", "/objects/assets/big?part=0&upload="+u.ID, "x")
	obj, err := f.client.CompleteUpload(ctx, "assets", "big", u.ID, []api.Part{p1, p2}, api.Conditions{IfNoneMatch: []string{"*"}})
	if err != nil || obj.Size != int64(len(one)+len(two)) {
		t.Fatalf("%+v, %v", obj, err)
	}
	a := f.want(200, "GET", "/objects/assets/big", "")
	if a.body != one+two || a.header.Get("Content-Type") != "video/x" || a.header.Get("X-Bucketdb-Meta-K") != "v" {
		t.Errorf("%d bytes, %v", len(a.body), a.header)
	}
	u, err = f.client.CreateUpload(ctx, "assets", "gone", api.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.client.AbortUpload(ctx, "assets", "gone", u.ID); err != nil {
		t.Error(err)
	}
	if _, err := f.client.PutPart(ctx, "assets", "gone", u.ID, 1, strings.NewReader("x"), 0); !object.IsKind(err, object.KindNotFound) {
		t.Errorf("a part of an aborted upload: %v", err)
	}
}

func TestBucketsAndListing(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "POST", "/buckets", `{"name":"second","owner":"me"}`)
	f.want(409, "POST", "/buckets", `{"name":"second"}`)
	f.want(400, "POST", "/buckets", `{"name":"a/b"}`)
	f.want(200, "GET", "/buckets/second", "")
	f.want(404, "GET", "/buckets/third", "")
	var l api.BucketList
	if err := json.Unmarshal([]byte(f.want(200, "GET", "/buckets", "").body), &l); err != nil || len(l.Buckets) != 2 || l.Buckets[0].Name != "assets" || l.Buckets[1].Owner != "me" {
		t.Errorf("%+v, %v", l, err)
	}
	keys := []string{"a", "d/1", "d/2", "d/e/3", "é", "z"}
	for _, key := range keys {
		f.want(201, "PUT", "/objects/second/"+api.EscapeKey(key), key)
	}
	f.want(409, "DELETE", "/buckets/second", "")
	list := func(query string) (got []string, cursor string) {
		var page api.ObjectList
		if err := json.Unmarshal([]byte(f.want(200, "GET", "/buckets/second/objects"+query, "").body), &page); err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Objects {
			got = append(got, string(o.Key))
		}
		for _, p := range page.Prefixes {
			got = append(got, "<"+string(p)+">")
		}
		return got, page.Cursor
	}
	for query, want := range map[string]string{
		"": "a d/1 d/2 d/e/3 z é", "?delimiter=/": "a z é <d/>", "?prefix=d/": "d/1 d/2 d/e/3", "?prefix=d/&delimiter=/": "d/1 d/2 <d/e/>",
		"?after=d/2": "d/e/3 z é", "?prefix=none": "", "?limit=1000000": "a d/1 d/2 d/e/3 z é",
	} {
		if got, _ := list(query); strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	var all []string
	cursor := ""
	for range 10 {
		got, next := list("?limit=2&cursor=" + cursor)
		all = append(all, got...)
		if cursor = next; next == "" {
			break
		}
	}
	if strings.Join(all, " ") != "a d/1 d/2 d/e/3 z é" {
		t.Errorf("paged: %q", all)
	}
	for _, bad := range []string{"?limit=0", "?limit=x", "?cursor=!!"} {
		f.want(400, "GET", "/buckets/second/objects"+bad, "")
	}
	for _, key := range keys {
		f.want(204, "DELETE", "/objects/second/"+api.EscapeKey(key), "")
	}
	f.want(204, "DELETE", "/buckets/second", "")
}

func TestTokenMakesARetryHarmless(t *testing.T) {
	f := newFixture(t, Options{})
	token := func(seq int, extra ...string) []string {
		return append([]string{"Bucketdb-Session: 000000000000000000000000000000aa", fmt.Sprintf("Bucketdb-Seq: %d", seq)}, extra...)
	}
	f.want(201, "PUT", "/objects/assets/t", "", token(1)...)
	first := f.want(200, "PATCH", "/objects/assets/t?append", "once", token(2)...)
	again := f.want(200, "PATCH", "/objects/assets/t?append", "once", token(2, "Bucketdb-Retry: 1")...)
	if first.body != again.body {
		t.Errorf("the retry was answered %s, the first %s", again.body, first.body)
	}
	if a := f.want(200, "GET", "/objects/assets/t", ""); a.body != "once" {
		t.Errorf("%q", a.body)
	}
	f.want(204, "DELETE", "/objects/assets/t", "", token(3, "Bucketdb-Ack: 2")...)
	f.want(204, "DELETE", "/objects/assets/t", "", token(3, "Bucketdb-Ack: 2", "Bucketdb-Retry: 1")...)
	f.want(404, "DELETE", "/objects/assets/t", "", token(4)...)
	f.want(201, "POST", "/buckets", `{"name":"tokens"}`, token(5)...)
	f.want(201, "POST", "/buckets", `{"name":"tokens"}`, token(5, "Bucketdb-Retry: 1")...)
	f.want(409, "POST", "/buckets", `{"name":"tokens"}`, token(6)...)
}
