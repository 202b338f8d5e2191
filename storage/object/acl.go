package object

import (
	"encoding/binary"
	"maps"
)

// Names of extended attributes that mean something to the namespace.
const (
	XattrACL        = "system.posix_acl_access"
	XattrDefaultACL = "system.posix_acl_default"
	// XattrCapability holds a program's capabilities; it goes when content or owner change.
	XattrCapability = "security.capability"
)

// The tags of ACL entries, as linux/posix_acl.h has them.
const (
	ACLUserObj  = 0x01
	ACLUser     = 0x02
	ACLGroupObj = 0x04
	ACLGroup    = 0x08
	ACLMask     = 0x10
	ACLOther    = 0x20
)

// ModeSetgid is the set-group-ID bit of a mode.
const ModeSetgid = 0o2000

// ACLEntry is one entry of a POSIX ACL. Perm is of r 4, w 2, x 1; ID is of a
// user's or a group's entry only.
type ACLEntry struct {
	Tag, Perm uint16
	ID        uint32
}

// ACL is a POSIX access control list (the withdrawn draft 1003.1e, as acl(5) of
// Linux has it). Its encoding is that of the attribute: version 2, little-endian,
// 8 bytes an entry.
type ACL []ACLEntry

const (
	aclVersion = 2
	aclEntry   = 8
)

// ParseACL reads an attribute's value; KindInvalid when it is none that acl(5)
// allows.
func ParseACL(b []byte) (ACL, error) {
	if len(b) < 4 || (len(b)-4)%aclEntry != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, Errorf(KindInvalid, "it is no access control list of version %d", aclVersion)
	}
	var a ACL
	for b = b[4:]; len(b) > 0; b = b[aclEntry:] {
		a = append(a, ACLEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])})
	}
	return a, a.check()
}

// check wants the entries in the order of their tags: one for owner, group and
// others each, and a mask where users or groups are named.
func (a ACL) check() error {
	count, last := map[uint16]int{}, uint16(0)
	for _, e := range a {
		switch {
		case e.Perm > 7 || e.Tag < last:
			return Errorf(KindInvalid, "the entries of an access control list are out of order")
		case e.Tag != ACLUser && e.Tag != ACLGroup && e.Tag == last:
			return Errorf(KindInvalid, "an entry of an access control list is there twice")
		}
		count[e.Tag]++
		last = e.Tag
	}
	named := count[ACLUser] + count[ACLGroup]
	if count[ACLUserObj] != 1 || count[ACLGroupObj] != 1 || count[ACLOther] != 1 || named > 0 && count[ACLMask] == 0 ||
		count[ACLUserObj]+count[ACLGroupObj]+count[ACLOther]+count[ACLMask]+named != len(a) {
		return Errorf(KindInvalid, "an access control list needs owner, group and others, and a mask where it names somebody")
	}
	return nil
}

// Encode is the attribute's value.
func (a ACL) Encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range a {
		b = binary.LittleEndian.AppendUint16(b, e.Tag)
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		b = binary.LittleEndian.AppendUint32(b, e.ID)
	}
	return b
}

// shift is where a tag's permissions stand in a mode. The group's bits are the
// mask's, where there is one. ok is false for an entry that no mode shows.
func (a ACL) shift(tag uint16) (bits uint, ok bool) {
	switch tag {
	case ACLUserObj:
		return 6, true
	case ACLGroupObj:
		return 3, !a.masked()
	case ACLMask:
		return 3, true
	case ACLOther:
		return 0, true
	}
	return 0, false
}

func (a ACL) masked() bool {
	for _, e := range a {
		if e.Tag == ACLMask {
			return true
		}
	}
	return false
}

// Mode is mode with the permissions that the list gives. minimal: it says no more
// than that.
func (a ACL) Mode(mode uint32) (_ uint32, minimal bool) {
	minimal = true
	for _, e := range a {
		if bits, ok := a.shift(e.Tag); ok {
			mode = mode&^(7<<bits) | uint32(e.Perm)<<bits
		}
		minimal = minimal && (e.Tag == ACLUserObj || e.Tag == ACLGroupObj || e.Tag == ACLOther)
	}
	return mode, minimal
}

// WithMode is the list after a chmod.
func (a ACL) WithMode(mode uint32) ACL {
	out := append(ACL(nil), a...)
	for i := range out {
		if bits, ok := a.shift(out[i].Tag); ok {
			out[i].Perm = uint16(mode >> bits & 7)
		}
	}
	return out
}

// Inherit gives a new inode what it has of its directory: the group of a setgid
// directory, and its default ACL. umasked are the permission bits that the umask
// took from Mode: they count where there is a default ACL, which stands in for
// the umask.
func (i *Inode) Inherit(dir *Inode, umasked uint32) {
	if dir.Mode&ModeSetgid != 0 {
		i.GID = dir.GID
		if i.IsDir() {
			i.Mode |= ModeSetgid
		}
	}
	value, ok := dir.Xattrs[XattrDefaultACL]
	if !ok || i.Type == TypeSymlink {
		return
	}
	list, err := ParseACL(value)
	if err != nil || len(value) > MaxACL {
		return // kept before it was checked
	}
	i.Xattrs = maps.Clone(i.Xattrs)
	if i.Xattrs == nil {
		i.Xattrs = map[string][]byte{}
	}
	if i.IsDir() {
		i.Xattrs[XattrDefaultACL] = value
	}
	i.Mode |= umasked & 0o777
	most, _ := list.Mode(0)
	i.Mode &= most | 0o7000
	if _, minimal := list.Mode(0); !minimal {
		i.Xattrs[XattrACL] = list.WithMode(i.Mode).Encode()
	}
}

// Chmod sets the mode, and with it the entries of the access ACL that show in it.
func (i *Inode) Chmod(mode uint32) {
	i.Mode = mode & 0o7777
	if value, ok := i.Xattrs[XattrACL]; ok {
		if list, err := ParseACL(value); err == nil {
			i.Xattrs[XattrACL] = list.WithMode(i.Mode).Encode()
		}
	}
}

// SetACL sets the access ACL, and the mode with it; one that says no more than a
// mode is not kept.
func (i *Inode) SetACL(list ACL) {
	minimal := false
	if i.Mode, minimal = list.Mode(i.Mode); minimal {
		delete(i.Xattrs, XattrACL)
		return
	}
	if i.Xattrs == nil {
		i.Xattrs = map[string][]byte{}
	}
	i.Xattrs[XattrACL] = list.Encode()
}
