package server

import (
	"context"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// posixDir is a directory of a bucket, for the verbs of a mount.
func posixDir(t *testing.T, mode uint32) (*api.Client, *object.Inode) {
	t.Helper()
	c := newFixture(t, Options{}).client
	root, err := c.Resolve(t.Context(), "assets", "")
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := c.Create(t.Context(), root.ID, "d", api.NewNode{Type: api.Type(object.TypeDirectory), Mode: mode, GID: 7})
	if err != nil {
		t.Fatal(err)
	}
	return c, d
}

// What is made in a directory has its group where that is setgid, and its default
// ACL, which counts instead of the umask; a listing tells who has attributes.
func TestInheritedFromTheDirectory(t *testing.T) {
	c, d := posixDir(t, 0o2755)
	ctx := context.Background()
	make := func(name string, typ object.FileType, mode, umasked uint32) *object.Inode {
		t.Helper()
		n, _, err := c.Create(ctx, d.ID, name, api.NewNode{Type: api.Type(typ), Mode: mode, Umasked: umasked, GID: 1, Exclusive: true})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := make("f", object.TypeRegular, 0o644, 0o022); n.Mode != 0o644 || n.GID != 7 {
		t.Errorf("a file: mode %o, group %d", n.Mode, n.GID)
	}
	if n := make("sub", object.TypeDirectory, 0o755, 0o022); n.Mode != 0o2755 || n.GID != 7 {
		t.Errorf("a directory: mode %o, group %d", n.Mode, n.GID)
	}
	acl := object.ACL{{Tag: object.ACLUserObj, Perm: 7}, {Tag: object.ACLUser, Perm: 7, ID: 5}, {Tag: object.ACLGroupObj, Perm: 5},
		{Tag: object.ACLMask, Perm: 7}, {Tag: object.ACLOther}}
	if err := c.SetXattr(ctx, d.ID, object.XattrDefaultACL, acl.Encode(), false, false); err != nil {
		t.Fatal(err)
	}
	if n := make("g", object.TypeRegular, 0o644, 0o022); n.Mode != 0o660 || len(n.Xattrs) != 1 || n.Xattrs[object.XattrACL] == nil {
		t.Errorf("a file under a default ACL: mode %o, %v", n.Mode, n.Xattrs)
	}
	if n := make("sub2", object.TypeDirectory, 0o755, 0o022); n.Mode != 0o2770 || len(n.Xattrs) != 2 {
		t.Errorf("a directory under a default ACL: mode %o, %v", n.Mode, n.Xattrs)
	}
	entries, _, err := c.ReadDir(ctx, d.ID, "", 0, true)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if want := e.Name == "f" || e.Name == "sub"; e.Plain != want {
			t.Errorf("%s: plain is %v, want %v", e.Name, e.Plain, want)
		}
	}
	if err := c.SetXattr(ctx, d.ID, object.XattrACL, []byte("nonsense"), false, false); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("an ACL that is none: %v", err)
	}
	if _, _, err := c.Create(ctx, d.ID, "h", api.NewNode{Type: api.Type(object.TypeRegular), Umasked: 0o1000}); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("a umask with other bits: %v", err)
	}
}

// Data and holes of a file, and a file that is made longer.
func TestSeekAndGrow(t *testing.T) {
	c, d := posixDir(t, 0o755)
	ctx := context.Background()
	n, err := c.CreateWith(ctx, d.ID, "f", api.NewNode{Type: api.Type(object.TypeRegular), Mode: 0o600}, strings.NewReader(strings.Repeat("x", 40_000)), api.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := c.SetXattr(ctx, n.ID, object.XattrCapability, capability, false, false); err != nil {
		t.Fatal(err)
	}
	for _, grow := range []struct{ off, length, size int64 }{{10_000, 20_000, 40_000}, {100, 0, 40_000}, {100_000, 0, 100_000}, {90_000, 30_000, 120_000}} {
		if n, err = c.Punch(ctx, n.ID, grow.off, grow.length, true); err != nil || n.Size != grow.size {
			t.Fatalf("%+v: %+v, %v", grow, n, err)
		}
	}
	if len(n.Xattrs) != 0 {
		t.Errorf("a change of the content left %v", n.Xattrs)
	}
	if _, err := c.Punch(ctx, n.ID, 1, 0, false); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("an empty hole: %v", err)
	}
	for _, s := range []struct {
		off  int64
		hole bool
		want int64 // -1: KindRange
	}{{0, false, 0}, {0, true, 10_000}, {10_000, false, 30_000}, {15_000, true, 15_000}, {30_001, true, 40_000}, {40_000, false, -1},
		{119_999, true, 119_999}, {120_000, true, -1}, {1 << 40, false, -1}} {
		at, err := c.Seek(ctx, n.ID, s.off, s.hole)
		if s.want < 0 && !object.IsKind(err, object.KindRange) || s.want >= 0 && (err != nil || at != s.want) {
			t.Errorf("%+v: %d, %v", s, at, err)
		}
	}
}
