package fs

import (
	"context"
	"encoding/binary"
	"sort"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sys/unix"
)

// kept reports whether an attribute of that name is kept, and is OK then. Who may
// read and set it is the kernel's affair: trusted.* and security.* need
// capabilities, ACLs the owner.
func kept(name string) fuse.Status {
	if isACL(name) {
		return fuse.OK
	}
	for _, prefix := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, prefix) {
			if len(name) == len(prefix) {
				return fuse.EINVAL
			}
			return fuse.OK
		}
	}
	return fuse.ENOTSUP
}

func isACL(name string) bool { return name == object.XattrACL || name == object.XattrDefaultACL }

// xattrs are the extended attributes of an inode: the cluster's, but for one that
// was told just now to have none.
func (f *filesystem) xattrs(ctx context.Context, ino object.InodeID) (map[string][]byte, error) {
	if f.nodes.isBare(ino) {
		return nil, nil
	}
	asked := f.nodes.asking()
	n, err := f.b.GetAttr(ctx, ino)
	if err != nil {
		return nil, err
	}
	f.nodes.bare(n, asked, f.o.CacheTTL)
	return n.Xattrs, nil
}

// GetXAttr reads one. The kernel asks for security.capability before each write
// that finds it without attributes. Of an open file that costs no request, and
// need not be the newest answer: the cluster drops it with every change of the content.
func (f *filesystem) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if st := kept(name); st != fuse.OK {
		return 0, st
	}
	ctx, done := f.begin(cancel)
	defer done()
	ino := f.inode(in.NodeId)
	var all map[string][]byte
	if fl := f.nodes.file(ino); fl != nil && name == object.XattrCapability {
		fl.mu.Lock()
		all = fl.base.Xattrs
		fl.mu.Unlock()
	} else {
		var err error
		if all, err = f.xattrs(ctx, ino); err != nil {
			return 0, statusOfInode(err)
		}
	}
	value, ok := all[name]
	if !ok {
		return 0, fuse.ENODATA
	}
	if isACL(name) {
		value = mapACL(value, f.o.UIDs.local, f.o.GIDs.local)
	}
	return answer(value, dest)
}

// ListXAttr lists those that GetXAttr would find. trusted.* is root's alone to see.
func (f *filesystem) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ctx, done := f.begin(cancel)
	defer done()
	all, err := f.xattrs(ctx, f.inode(in.NodeId))
	if err != nil {
		return 0, statusOfInode(err)
	}
	var names []string
	for name := range all {
		if kept(name) == fuse.OK && (in.Uid == 0 || !strings.HasPrefix(name, "trusted.")) {
			names = append(names, name+"\x00")
		}
	}
	sort.Strings(names)
	return answer([]byte(strings.Join(names, "")), dest)
}

// answer copies b into the kernel's buffer, or says how large that must be.
func answer(b, dest []byte) (uint32, fuse.Status) {
	if len(b) > len(dest) {
		return uint32(len(b)), fuse.ERANGE
	}
	return uint32(copy(dest, b)), fuse.OK
}

// mapACL is an ACL's value with the ids of its entries mapped. What is no ACL stays.
func mapACL(value []byte, uid, gid func(uint32) uint32) []byte {
	list, err := object.ParseACL(value)
	if err != nil {
		return value
	}
	for i := range list {
		switch list[i].Tag {
		case object.ACLUser:
			list[i].ID = uid(list[i].ID)
		case object.ACLGroup:
			list[i].ID = gid(list[i].ID)
		}
	}
	return list.Encode()
}

// storedACL is an ACL of this machine as the cluster keeps it.
func (f *filesystem) storedACL(value []byte) ([]byte, fuse.Status) {
	st := fuse.OK
	to := func(m IDMap) func(uint32) uint32 {
		return func(id uint32) uint32 {
			out, ok := m.stored(id)
			if !ok {
				st = fuse.EINVAL
			}
			return out
		}
	}
	return mapACL(value, to(f.o.UIDs), to(f.o.GIDs)), st
}

// SetXAttr sets one. With an access ACL the cluster sets the mode.
func (f *filesystem) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if st := kept(name); st != fuse.OK {
		return st
	}
	if len(data) > object.MaxXattrValue {
		return fuse.Status(syscall.E2BIG)
	}
	ctx, done := f.begin(cancel)
	defer done()
	ino, value := f.inode(in.NodeId), append([]byte(nil), data...)
	if isACL(name) {
		if len(value) < 4 || binary.LittleEndian.Uint32(value) != 2 {
			return fuse.ENOTSUP
		}
		var st fuse.Status
		if value, st = f.storedACL(value); st != fuse.OK {
			return st
		}
		killSetgid := in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
		if mode, ok := f.chmodOf(ino, name, value); ok && in.Flags == 0 && !killSetgid {
			_, err := f.setattr(ctx, ino, api.SetAttr{Mode: &mode}, nil)
			return statusOfInode(err)
		}
		if st := f.beforeACL(ctx, ino, killSetgid); st != fuse.OK {
			return st
		}
	}
	create, replace := in.Flags&unix.XATTR_CREATE != 0, in.Flags&unix.XATTR_REPLACE != 0
	err := f.b.SetXattr(ctx, ino, name, value, create, replace)
	f.xattrsMoved(ctx, ino, err)
	if object.IsKind(err, object.KindTooLarge) {
		return fuse.Status(syscall.ENOSPC) // xattr(7): no room for one more
	}
	return statusOfInode(err)
}

// chmodOf is the mode that an access ACL comes down to, where ok: it says no more
// than one, and the file, which is open here, has none that it would replace. cp -a
// sets such a list on each file it made; as a chmod it travels with the flush.
func (f *filesystem) chmodOf(ino object.InodeID, name string, value []byte) (mode uint32, ok bool) {
	fl := f.nodes.file(ino)
	list, err := object.ParseACL(value)
	if fl == nil || err != nil || name != object.XattrACL || !f.nodes.isBare(ino) {
		return 0, false
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return list.Mode(fl.look().Mode)
}

// beforeACL sends a mode that waits for a flush, which would come over the ACL's,
// and takes setgid away where whoever sets the ACL may not keep it.
func (f *filesystem) beforeACL(ctx context.Context, ino object.InodeID, killSetgid bool) fuse.Status {
	if fl := f.nodes.file(ino); fl != nil {
		if err := f.flush(ctx, fl); err != nil {
			return statusOfInode(err)
		}
	}
	if !killSetgid {
		return fuse.OK
	}
	n, err := f.b.GetAttr(ctx, ino)
	if err == nil && n.Mode&object.ModeSetgid != 0 {
		mode := n.Mode &^ object.ModeSetgid
		n, err = f.b.SetAttr(ctx, ino, api.SetAttr{Mode: &mode})
		if err == nil {
			f.notes.own(n)
		}
	}
	return statusOfInode(err)
}

// RemoveXAttr drops one. To remove an ACL that is not there is no error.
func (f *filesystem) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if st := kept(name); st != fuse.OK {
		return st
	}
	ctx, done := f.begin(cancel)
	defer done()
	ino := f.inode(in.NodeId)
	err := f.b.RemoveXattr(ctx, ino, name)
	f.xattrsMoved(ctx, ino, err)
	if isACL(name) && object.IsKind(err, object.KindNoAttr) {
		err = nil
	}
	return statusOfInode(err)
}

// xattrsMoved forgets what was known of an inode's extended attributes after a
// change of our own, whatever came of it; an open file learns the new ones.
func (f *filesystem) xattrsMoved(ctx context.Context, ino object.InodeID, err error) {
	f.nodes.moved(ino, 0)
	f.epoch.Add(1) // pages of listings tell which have none
	fl := f.nodes.file(ino)
	if fl == nil || err != nil {
		return
	}
	if n, err := f.b.GetAttr(ctx, ino); err == nil {
		fl.mu.Lock()
		fl.learn(n)
		fl.mu.Unlock()
	}
}
