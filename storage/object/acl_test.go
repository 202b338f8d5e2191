package object_test

import (
	"bytes"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func list(entries ...uint16) (a object.ACL) {
	for i := 0; i < len(entries); i += 2 {
		a = append(a, object.ACLEntry{Tag: entries[i], Perm: entries[i+1], ID: 0xffffffff})
	}
	return a
}

const u, nu, g, ng, m, o = object.ACLUserObj, object.ACLUser, object.ACLGroupObj, object.ACLGroup, object.ACLMask, object.ACLOther

func TestParseACL(t *testing.T) {
	for _, c := range []struct {
		name string
		acl  object.ACL
		ok   bool
	}{
		{"minimal", list(u, 7, g, 5, o, 0), true},
		{"named", list(u, 7, nu, 7, nu, 1, g, 5, ng, 2, m, 7, o, 0), true},
		{"mask alone", list(u, 7, g, 5, m, 7, o, 0), true},
		{"empty", nil, false},
		{"no others", list(u, 7, g, 5), false},
		{"no owner", list(g, 7, o, 5), false},
		{"named without a mask", list(u, 7, nu, 7, g, 5, o, 0), false},
		{"order", list(g, 5, u, 7, o, 0), false},
		{"twice", list(u, 7, g, 5, o, 0, o, 0), false},
		{"permission bits", list(u, 8, g, 5, o, 0), false},
		{"unknown tag", list(u, 7, g, 5, o, 0, 0x40, 0), false},
	} {
		got, err := object.ParseACL(c.acl.Encode())
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		} else if c.ok && !bytes.Equal(got.Encode(), c.acl.Encode()) {
			t.Errorf("%s: read as %v", c.name, got)
		} else if !c.ok && !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%s: %v is not KindInvalid", c.name, err)
		}
	}
	for _, b := range [][]byte{nil, {2, 0, 0}, {1, 0, 0, 0}, append(list(u, 7, g, 5, o, 0).Encode(), 1)} {
		if _, err := object.ParseACL(b); err == nil {
			t.Errorf("%v was taken for an ACL", b)
		}
	}
}

// A default ACL stands in for the umask; without one, mode and umask decide.
func TestInherit(t *testing.T) {
	dir := &object.Inode{Type: object.TypeDirectory, Mode: 0o2755, GID: 7}
	file := &object.Inode{Type: object.TypeRegular, Mode: 0o644, GID: 1}
	file.Inherit(dir, 0o022)
	if file.Mode != 0o644 || file.GID != 7 || file.Xattrs != nil {
		t.Errorf("in a setgid directory: %o, group %d, %v", file.Mode, file.GID, file.Xattrs)
	}
	sub := &object.Inode{Type: object.TypeDirectory, Mode: 0o755}
	if sub.Inherit(dir, 0); sub.Mode != 0o2755 {
		t.Errorf("a directory in a setgid directory: %o", sub.Mode)
	}
	named := list(u, 7, nu, 6, g, 5, m, 7, o, 1)
	dir = &object.Inode{Type: object.TypeDirectory, Xattrs: map[string][]byte{object.XattrDefaultACL: named.Encode()}}
	file = &object.Inode{Type: object.TypeRegular, Mode: 0o644}
	file.Inherit(dir, 0o022)
	if file.Mode != 0o660 || !bytes.Equal(file.Xattrs[object.XattrACL], list(u, 6, nu, 6, g, 5, m, 6, o, 0).Encode()) || len(file.Xattrs) != 1 {
		t.Errorf("under a default ACL: %o, %v", file.Mode, file.Xattrs)
	}
	file.Chmod(0o4701)
	if !bytes.Equal(file.Xattrs[object.XattrACL], list(u, 7, nu, 6, g, 5, m, 0, o, 1).Encode()) || file.Mode != 0o4701 {
		t.Errorf("after chmod: %o, %v", file.Mode, file.Xattrs)
	}
	file.SetACL(list(u, 6, g, 4, o, 0))
	if file.Mode != 0o4640 || len(file.Xattrs) != 0 {
		t.Errorf("after a minimal ACL: %o, %v", file.Mode, file.Xattrs)
	}
	link := &object.Inode{Type: object.TypeSymlink, Mode: 0o777}
	if link.Inherit(dir, 0); link.Mode != 0o777 || link.Xattrs != nil {
		t.Errorf("a link: %o, %v", link.Mode, link.Xattrs)
	}
}
