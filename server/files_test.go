package server

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func ptr[T any](v T) *T { return &v }

func TestFilesByInode(t *testing.T) {
	f := newFixture(t, Options{})
	ctx, c := context.Background(), f.client
	root, err := c.Resolve(ctx, "assets", "")
	if err != nil || !root.IsDir() {
		t.Fatalf("%+v, %v", root, err)
	}
	if n, err := c.Lookup(ctx, object.RootInode, "assets"); err != nil || n.ID != root.ID {
		t.Errorf("%+v, %v", n, err)
	}
	dir, created, err := c.Create(ctx, root.ID, "d", api.NewNode{Type: api.Type(object.TypeDirectory), Mode: 0o755, Exclusive: true})
	if err != nil || !created || !dir.IsDir() {
		t.Fatalf("%+v, %v", dir, err)
	}
	strange := "\xffname +%?&#"
	file, created, err := c.Create(ctx, dir.ID, strange, api.NewNode{Type: api.Type(object.TypeRegular), Mode: 0o640, UID: 7, GID: 8})
	if err != nil || !created || file.Mode != 0o640 || file.UID != 7 {
		t.Fatalf("%+v, %v", file, err)
	}
	if again, created, err := c.Create(ctx, dir.ID, strange, api.NewNode{Type: api.Type(object.TypeRegular), Mode: 0o600}); err != nil || created || again.ID != file.ID {
		t.Errorf("%+v %v, %v", again, created, err)
	}
	if _, _, err := c.Create(ctx, dir.ID, strange, api.NewNode{Type: api.Type(object.TypeRegular), Exclusive: true}); !object.IsKind(err, object.KindExists) {
		t.Errorf("exclusive: %v", err)
	}
	data := strings.Repeat("0123456789", 100000)
	n, at, err := c.Write(ctx, file.ID, 0, strings.NewReader(data), api.WriteOptions{Attr: api.SetAttr{Mode: ptr(uint32(0o600)), Mtime: ptr(int64(1e18 + 1))}})
	if err != nil || at != 0 || n.Size != int64(len(data)) || n.Mode != 0o600 || n.Mtime != 1e18+1 {
		t.Fatalf("%+v at %d, %v", n, at, err)
	}
	if n, at, err = c.Append(ctx, file.ID, strings.NewReader("tail"), api.WriteOptions{}); err != nil || at != int64(len(data)) {
		t.Errorf("append at %d, %v", at, err)
	}
	data += "tail"
	for _, off := range []int64{0, 262143, int64(len(data)) - 3} {
		dst := make([]byte, 10)
		got, err := c.ReadRange(ctx, file.ID, off, dst, n.Version)
		if want := data[off:min(off+10, int64(len(data)))]; err != nil || string(dst[:got]) != want {
			t.Errorf("at %d: %q, want %q, %v", off, dst[:got], want, err)
		}
	}
	if _, err := c.ReadRange(ctx, file.ID, 0, make([]byte, 1), n.Version+1); !object.IsKind(err, object.KindPrecondition) {
		t.Errorf("another version: %v", err)
	}
	r, err := c.OpenRange(ctx, file.ID, 5, -1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != data[5:] {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	entries, next, err := c.ReadDir(ctx, dir.ID, "", 0, true)
	if err != nil || next != "" || len(entries) != 1 || entries[0].Name != strange || entries[0].Attr == nil || entries[0].Attr.Size != int64(len(data)) {
		t.Errorf("%+v, %q, %v", entries, next, err)
	}
}

func TestFileChangesByInode(t *testing.T) {
	f := newFixture(t, Options{})
	ctx, c := context.Background(), f.client
	root, err := c.Resolve(ctx, "assets", "")
	if err != nil {
		t.Fatal(err)
	}
	file, err := c.CreateWith(ctx, root.ID, "f", api.NewNode{Type: api.Type(object.TypeRegular), Mode: 0o600}, strings.NewReader("0123456789"),
		api.WriteOptions{Attr: api.SetAttr{Mtime: ptr(int64(5)), ContentType: ptr("text/ü")}})
	if err != nil || file.Size != 10 || file.Mtime != 5 || file.ContentType != "text/ü" {
		t.Fatalf("%+v, %v", file, err)
	}
	if _, err := c.CreateWith(ctx, root.ID, "f", api.NewNode{Type: api.Type(object.TypeRegular)}, strings.NewReader("x"), api.WriteOptions{}); !object.IsKind(err, object.KindExists) {
		t.Errorf("create twice: %v", err)
	}
	if n, err := c.SetAttr(ctx, file.ID, api.SetAttr{Size: ptr(int64(4)), Atime: ptr(int64(-1))}); err != nil || n.Size != 4 || n.Atime != -1 {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := c.Punch(ctx, file.ID, 1, 2, false); err != nil || n.Size != 4 {
		t.Errorf("%+v, %v", n, err)
	}
	dst := make([]byte, 9)
	if n, err := c.ReadRange(ctx, file.ID, 0, dst, 0); err != nil || string(dst[:n]) != "0\x00\x003" {
		t.Errorf("%q, %v", dst[:n], err)
	}
	copied, _, err := c.Create(ctx, root.ID, "copied", api.NewNode{Type: api.Type(object.TypeRegular), Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if n, length, err := c.CopyRange(ctx, file.ID, 0, copied.ID, 2, 4); err != nil || length != 4 || n.Size != 6 {
		t.Errorf("%+v, %d, %v", n, length, err)
	}
	if n, err := c.Link(ctx, file.ID, root.ID, "hard"); err != nil || n.Nlink != 2 {
		t.Errorf("%+v, %v", n, err)
	}
	link, _, err := c.Create(ctx, root.ID, "sym", api.NewNode{Type: api.Type(object.TypeSymlink), Mode: 0o777, Target: "\xff/x"})
	if err != nil || link.Target != "\xff/x" {
		t.Errorf("%+v, %v", link, err)
	}
	if err := c.SetXattr(ctx, file.ID, "user.a", []byte{0, 1}, true, false); err != nil {
		t.Error(err)
	}
	if err := c.SetXattr(ctx, file.ID, "user.a", nil, true, false); !object.IsKind(err, object.KindExists) {
		t.Errorf("%v", err)
	}
	if n, err := c.GetAttr(ctx, file.ID); err != nil || string(n.Xattrs["user.a"]) != "\x00\x01" {
		t.Errorf("%+v, %v", n, err)
	}
	if err := c.RemoveXattr(ctx, file.ID, "user.a"); err != nil {
		t.Error(err)
	}
	if err := c.RemoveXattr(ctx, file.ID, "user.a"); !object.IsKind(err, object.KindNoAttr) {
		t.Errorf("%v", err)
	}
	for _, op := range []struct {
		name string
		err  error
		want object.Kind
	}{
		{"rename", c.Rename(ctx, root.ID, "f", root.ID, "hard2", api.RenameFlags{}), 0},
		{"no replace", c.Rename(ctx, root.ID, "hard2", root.ID, "copied", api.RenameFlags{NoReplace: true}), object.KindExists},
		{"unlink nothing", c.Unlink(ctx, root.ID, "f"), object.KindNotFound},
		{"rmdir of a file", c.Rmdir(ctx, root.ID, "copied"), object.KindNotDirectory},
		{"hold", c.Hold(ctx, []object.InodeID{copied.ID}), 0},
		{"renew", c.Hold(ctx, nil), 0},
		{"unlink", c.Unlink(ctx, root.ID, "copied"), 0},
		{"name with a slash", c.Unlink(ctx, root.ID, "a/b"), object.KindInvalid},
	} {
		if (op.err == nil) != (op.want == 0) || (op.err != nil && object.KindOf(op.err) != op.want) {
			t.Errorf("%s: %v", op.name, op.err)
		}
	}
	if n, err := c.ReadRange(ctx, copied.ID, 0, dst, 0); err != nil || n != 6 {
		t.Errorf("a held file: %d bytes, %v", n, err)
	}
	if err := c.Release(ctx, []object.InodeID{copied.ID}); err != nil {
		t.Error(err)
	}
}

func TestMistakesInFileRequests(t *testing.T) {
	f := newFixture(t, Options{})
	root, err := f.client.Resolve(context.Background(), "assets", "")
	if err != nil {
		t.Fatal(err)
	}
	dir, ino := "/fs/dirs/"+root.ID.String(), "/fs/inodes/"+root.ID.String()
	for _, tc := range []struct{ method, target, body string }{
		{"GET", "/fs/inodes/zz", ""}, {"GET", "/fs/inodes/0", ""}, {"GET", dir + "/entry", ""}, {"GET", dir + "/entry?name=a%2Fb", ""}, {"GET", dir + "/entry?name=%00", ""},
		{"POST", dir + "/entry?name=x", "{}"}, {"POST", dir + "/entry?name=x", `{"type":"blob"}`}, {"POST", dir + "/entry?name=x", `{"type":"file","mode":99999}`},
		{"PUT", ino + "/content", "x"}, {"PUT", ino + "/content?offset=1&append", "x"}, {"PUT", ino + "/content?offset=-1", "x"},
		{"DELETE", ino + "/content?offset=1", ""}, {"POST", ino + "/copy", `{"length":1}`}, {"POST", dir + "/rename", `{"name":"a"}`},
		{"POST", dir + "/link?name=x", `{}`}, {"POST", "/fs/hold", `{"session":"x"}`}, {"GET", dir + "/entries?limit=0", ""}, {"GET", "/events?since=x", ""},
		{"GET", ino + "/content?version=x", ""}, {"PATCH", ino, `{"size":-1}`}, {"PATCH", ino, `{"meta":{"a b":"c"}}`},
	} {
		f.want(400, tc.method, tc.target, tc.body)
	}
	f.want(400, "PUT", dir+"/entry?name=x", "y", "Bucketdb-Attr: {\"size\":1}")
	f.want(400, "PUT", dir+"/entry?name=x", "y", "Bucketdb-Node: nonsense")
	f.want(400, "PUT", "/objects/assets/x", "y", "Bucketdb-Session: 00")
	f.want(400, "PUT", "/objects/assets/x", "y", "Bucketdb-Session: 00000000000000000000000000000001")
	f.want(404, "GET", "/fs/resolve?bucket=assets&path=no/such", "")
}

func TestEventsTellOfChanges(t *testing.T) {
	f := newFixture(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := f.client.Events(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	obj, err := f.client.Put(ctx, "assets", "watched", strings.NewReader("x"), api.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	heartbeats, seen := 0, api.Event{}
	for heartbeats < 2 || seen.Kind == "" {
		e, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Kind == api.EventHeartbeat:
			heartbeats++
		case e.Kind == api.EventEntry && e.Name == "watched" && e.Inode == obj.Inode:
			seen = e
		}
	}
	// Behind a position, everything later comes again.
	if _, err := f.client.Put(ctx, "assets", "later", strings.NewReader("x"), api.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := f.client.Events(ctx, map[object.PartitionID]uint64{seen.Partition: seen.Index})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for {
		e, err := again.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Name == "watched" {
			t.Errorf("an event at the position came again: %+v", e)
		}
		if e.Name == "later" {
			return
		}
	}
}

func TestClusterPages(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := context.Background()
	f.want(200, "GET", "/cluster", "")
	f.want(200, "GET", "/healthz", "")
	f.want(200, "GET", "/readyz", "")
	f.want(200, "GET", "/openapi.json", "")
	f.want(200, "GET", "/fs/usage", "")
	f.want(201, "PUT", "/objects/assets/x", "hello")
	page := f.want(200, "GET", "/metrics", "").body
	for _, line := range []string{`bucketdb_http_requests_total{method="PUT",route="/objects/:bucket/*key",status="2xx"} 1`, "bucketdb_ready 1",
		"bucketdb_http_received_bytes_total 5", "bucketdb_partitions 5", `bucketdb_capacity_bytes{state="free"}`, "bucketdb_http_request_seconds_bucket"} {
		if !strings.Contains(page, line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	st, err := f.client.Cluster(ctx)
	if err != nil || !st.Ready || len(st.Partitions) != 5 {
		t.Errorf("%+v, %v", st, err)
	}
	if u, err := f.client.StatFS(ctx); err != nil || u.TotalBytes == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if err := f.client.Health(ctx, 0); err != nil {
		t.Error(err)
	}
}
