package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestFragmentNeverReplacesTheWhole(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/o", "whole")
	u, err := f.client.CreateUpload(context.Background(), "assets", "up", api.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.client.Attributes(context.Background(), "assets", "o")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range [][2]string{
		{"PUT", "/objects/assets/o"}, {"POST", "/objects/assets/o"}, {"PUT", "/objects/assets/up?part=1&upload=" + u.ID},
		{"PUT", "/objects/assets/o?xattr=user.x"}, {"PUT", "/fs/inodes/" + n.ID.String() + "/content?offset=0&truncate"},
	} {
		f.want(400, tc[0], tc[1], "frag", "Content-Range: bytes 0-3/5")
	}
	if a := f.want(200, "GET", "/objects/assets/o", ""); a.body != "whole" {
		t.Errorf("%q", a.body)
	}
}

func TestQueriesThatAMethodDoesNotKnowAreRefused(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/o", "whole")
	for _, tc := range []struct{ method, query, body string }{
		{"PUT", "append", "x"}, {"PUT", "part=1", "x"}, {"PUT", "create", "x"}, {"PUT", "xattr=user.x&upload=1&part=1", "x"}, {"PUT", "xattr=a&xattr=b", "x"},
		{"POST", "append", "x"}, {"POST", "rename&copy", `{"key":"p"}`}, {"POST", "copy&version=1", `{"key":"p"}`},
		{"PATCH", "append&part=1", "x"}, {"PATCH", "append&append", "x"},
		{"DELETE", "dir", ""}, {"DELETE", "version=1", ""}, {"DELETE", "xattr=user.x&upload=1", ""},
		{"GET", "version=1", ""}, {"GET", "limit=1", ""}, {"GET", "attributes&xattr=user.x", ""}, {"HEAD", "version=1", ""},
	} {
		a := f.ask(tc.method, "/objects/assets/o?"+tc.query, tc.body)
		if a.status != 400 {
			t.Errorf("%s ?%s: %d %s", tc.method, tc.query, a.status, a.body)
		}
	}
	if a := f.want(200, "GET", "/objects/assets/o", ""); a.body != "whole" {
		t.Errorf("%q", a.body)
	}
	f.want(404, "GET", "/objects/assets/p", "")
}

func TestWhatCannotBeCheckedIsRefused(t *testing.T) {
	f := newFixture(t, Options{})
	sum := sha256.Sum256([]byte("hello"))
	good := hex.EncodeToString(sum[:])
	for _, tc := range []struct {
		header string
		want   int
	}{
		{"Content-Encoding: aws-chunked", 501},
		{"X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD", 501},
		{"X-Amz-Trailer: x-amz-checksum-crc32", 501},
		{"x-amz-checksum-sha512: AAAA", 501},
		{"X-Amz-Content-Sha256: nonsense", 400},
		{"X-Amz-Content-Sha256: " + strings.Repeat("0", 64), 400},
		{"X-Amz-Content-Sha256: UNSIGNED-PAYLOAD", 201},
		{"X-Amz-Content-Sha256: " + good, 201},
		{"X-Amz-Content-Sha256: " + strings.ToUpper(good), 201},
	} {
		a := f.ask("PUT", "/objects/assets/s", "hello", tc.header)
		if a.status != tc.want {
			t.Errorf("%s: %d %s", tc.header, a.status, a.body)
		}
		if tc.want != 201 {
			f.want(404, "GET", "/objects/assets/s", "")
		}
	}
	// The second of two digests counts too.
	f.want(400, "PUT", "/objects/assets/t", "hello", "x-amz-checksum-crc32: NhCmhg==", "x-amz-checksum-crc32: AAAAAA==")
}

func TestDatesOfWritesMustBeUnderstood(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/d", "one")
	const past = "If-Unmodified-Since: Mon, 02 Jan 2006 15:04:05 GMT"
	f.want(400, "PUT", "/objects/assets/d", "two", past, past)
	f.want(400, "PUT", "/objects/assets/d", "two", "If-Unmodified-Since: yesterday")
	f.want(400, "PUT", "/objects/assets/d", "two", "If-Modified-Since: yesterday")
	f.want(400, "DELETE", "/objects/assets/d", "", past, past)
	f.want(400, "POST", "/objects/assets/d?rename", `{"key":"e"}`, past, past)
	// A read ignores them, as RFC 9110 asks.
	if a := f.want(200, "GET", "/objects/assets/d", "", past, past); a.body != "one" {
		t.Errorf("%q", a.body)
	}
	f.want(200, "GET", "/objects/assets/d", "", "If-Unmodified-Since: yesterday")
}

func TestListingsAreBoundedInBytes(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := context.Background()
	const files = 60
	value := make([]byte, 60<<10)
	for i := range files {
		key := fmt.Sprintf("d/%03d", i)
		f.want(201, "PUT", "/objects/assets/"+key, "x")
		if _, err := f.client.Attributes(ctx, "assets", key); err != nil {
			t.Fatal(err)
		}
		f.want(200, "PATCH", "/objects/assets/"+key+"?attributes", `{"meta":{"m":"`+strings.Repeat("m", 100<<10)+`"}}`)
		if i%10 == 0 {
			f.want(204, "PUT", "/objects/assets/"+key+"?xattr=user.x", string(value[:20<<10]))
		}
	}
	d, err := f.client.Resolve(ctx, "assets", "d")
	if err != nil {
		t.Fatal(err)
	}
	a := f.want(200, "GET", "/fs/dirs/"+d.ID.String()+"/entries?plus&limit=10000", "")
	var dir api.DirPage
	if err := json.Unmarshal([]byte(a.body), &dir); err != nil || len(dir.Entries) != files || len(a.body) > 1<<20 {
		t.Fatalf("%d entries in %d bytes, %v", len(dir.Entries), len(a.body), err)
	}
	for _, e := range dir.Entries {
		if e.Inode.Inode == nil || e.Inode.Xattrs != nil || e.Inode.Meta != nil {
			t.Fatalf("%+v", e)
		}
	}
	if n, err := f.client.Attributes(ctx, "assets", "d/000"); err != nil || len(n.Xattrs["user.x"]) == 0 || n.Meta["m"] == "" {
		t.Errorf("the record itself lost something: %v", err)
	}
	seen, cursor := 0, ""
	for range files {
		a := f.want(200, "GET", "/buckets/assets/objects?limit=10000&cursor="+cursor, "")
		var page api.ObjectList
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(a.body) > 5<<20 {
			t.Fatalf("%d bytes, %v", len(a.body), err)
		}
		for _, o := range page.Objects {
			if want := fmt.Sprintf("d/%03d", seen); string(o.Key) != want || o.Meta["m"] == "" {
				t.Fatalf("%q, want %q", o.Key, want)
			}
			seen++
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	if seen != files {
		t.Errorf("%d of %d objects", seen, files)
	}
}

func TestLongLinksShortenADirectoryPage(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := context.Background()
	root, err := f.client.Resolve(ctx, "assets", "")
	if err != nil {
		t.Fatal(err)
	}
	const links = 1000
	for i := range links {
		if _, _, err := f.client.Create(ctx, root.ID, fmt.Sprintf("%04d", i), api.NewNode{Type: api.Type(object.TypeSymlink), Target: api.Name(strings.Repeat("t", 4095))}); err != nil {
			t.Fatal(err)
		}
	}
	seen, pages, cursor := 0, 0, ""
	for {
		entries, next, err := f.client.ReadDir(ctx, root.ID, cursor, 10000, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if want := fmt.Sprintf("%04d", seen); e.Name != want {
				t.Fatalf("%q, want %q", e.Name, want)
			}
			seen++
		}
		pages++
		if cursor = next; next == "" {
			break
		}
	}
	if seen != links || pages < 2 {
		t.Errorf("%d of %d links in %d pages", seen, links, pages)
	}
}
