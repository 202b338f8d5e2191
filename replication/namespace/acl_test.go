package namespace

import (
	"fmt"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// aclOf is an access control list of so many entries.
func aclOf(entries int) []byte {
	a := object.ACL{{Tag: object.ACLUserObj, Perm: 7}}
	for i := range entries - 4 {
		a = append(a, object.ACLEntry{Tag: object.ACLUser, Perm: 5, ID: uint32(i)})
	}
	return append(a, object.ACLEntry{Tag: object.ACLGroupObj}, object.ACLEntry{Tag: object.ACLMask, Perm: 7}, object.ACLEntry{Tag: object.ACLOther}).Encode()
}

// An ACL is no way past the bound of an inode's attributes, and what is inherited of
// one is small.
func TestACLsAreBounded(t *testing.T) {
	const most = (object.MaxACL - 4) / 8
	a := newApplier(t)
	a.mkdir("d", 71, 0)
	node := object.Inode{Type: object.TypeRegular, Mode: 0o600}
	f := a.apply(&Command{Put: &Put{Dir: object.RootInode, Name: "f", Node: node}}).Inode.ID
	set := func(ino object.InodeID, name string, value []byte, want object.Kind) {
		t.Helper()
		acl := name == object.XattrACL || name == object.XattrDefaultACL
		r := a.attempt(&Command{SetXattr: &SetXattr{Inode: ino, Name: name, Value: value, ACL: acl}})
		if want == 0 && r.Failed || want != 0 && r.Kind != want {
			t.Errorf("%s of %d bytes: failed %t, %v %s", name, len(value), r.Failed, r.Kind, r.Message)
		}
	}
	for _, c := range []struct {
		ino  object.InodeID
		name string
	}{{f, object.XattrACL}, {object.RootInode, object.XattrACL}, {object.RootInode, object.XattrDefaultACL}} {
		set(c.ino, c.name, aclOf(most), 0)
		set(c.ino, c.name, aclOf(most+1), object.KindNoSpace)
	}

	// What is inherited comes on top of what a file brings, and is bounded.
	child := a.apply(&Command{Put: &Put{Dir: object.RootInode, Name: "g", Parental: true, Node: node}}).Inode
	if len(child.Xattrs) != 1 || len(child.Xattrs[object.XattrACL]) != 4+most*8 {
		t.Errorf("a file inherited %d bytes in %d attributes", len(child.Xattrs[object.XattrACL]), len(child.Xattrs))
	}

	// A file that is full of attributes has no room for an ACL, but for one of its size
	// in place of the one before, and for one that a mode says.
	full := func(ino object.InodeID, more string) {
		t.Helper()
		v := a.m.View()
		n, err := v.Inode(ino)
		v.Close()
		if err != nil {
			t.Fatal(err)
		}
		room := object.MaxXattrTotal
		for k, v := range n.Xattrs {
			room -= len(k) + len(v)
		}
		for i := 0; room > 0; i++ {
			name := fmt.Sprintf("user.%s%d", more, i)
			value := min(room, 50<<10) - len(name)
			set(ino, name, make([]byte, value), 0)
			room -= len(name) + value
		}
	}
	full(f, "a")
	set(f, object.XattrACL, aclOf(most), 0)
	set(f, object.XattrACL, object.ACL{{Tag: object.ACLUserObj, Perm: 7}, {Tag: object.ACLGroupObj}, {Tag: object.ACLOther}}.Encode(), 0)
	full(f, "b")
	set(f, object.XattrACL, aclOf(5), object.KindNoSpace)
	set(f, object.XattrACL, object.ACL{{Tag: object.ACLUserObj, Perm: 6}, {Tag: object.ACLGroupObj}, {Tag: object.ACLOther}}.Encode(), 0)
}
