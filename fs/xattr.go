package fs

import (
	"sort"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sys/unix"
)

// userXattr reports whether an attribute is kept. Only user.* is: an ACL or a
// capability that nobody enforces would be a false promise, so those are
// refused (cp -a then sets the mode by chmod).
func userXattr(name string) bool { return strings.HasPrefix(name, "user.") && len(name) > len("user.") }

// GetXAttr reads one. The kernel asks for security.capability before each
// first write; that costs no request.
func (f *filesystem) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !userXattr(name) {
		return 0, fuse.ENOTSUP
	}
	ctx, done := f.begin(cancel)
	defer done()
	n, err := f.b.GetAttr(ctx, f.inode(in.NodeId))
	if err != nil {
		return 0, statusOfInode(err)
	}
	value, ok := n.Xattrs[name]
	if !ok {
		return 0, fuse.ENODATA
	}
	return answer(value, dest)
}

// ListXAttr lists those that GetXAttr would find.
func (f *filesystem) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ctx, done := f.begin(cancel)
	defer done()
	n, err := f.b.GetAttr(ctx, f.inode(in.NodeId))
	if err != nil {
		return 0, statusOfInode(err)
	}
	var names []string
	for name := range n.Xattrs {
		if userXattr(name) {
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

// SetXAttr sets one.
func (f *filesystem) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if !userXattr(name) {
		return fuse.ENOTSUP
	}
	if len(data) > object.MaxXattrValue {
		return fuse.Status(syscall.E2BIG)
	}
	ctx, done := f.begin(cancel)
	defer done()
	create, replace := in.Flags&unix.XATTR_CREATE != 0, in.Flags&unix.XATTR_REPLACE != 0
	err := f.b.SetXattr(ctx, f.inode(in.NodeId), name, append([]byte(nil), data...), create, replace)
	if object.IsKind(err, object.KindTooLarge) {
		return fuse.Status(syscall.ENOSPC) // xattr(7): no room for one more
	}
	return statusOfInode(err)
}

// RemoveXAttr drops one.
func (f *filesystem) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if !userXattr(name) {
		return fuse.ENOTSUP
	}
	ctx, done := f.begin(cancel)
	defer done()
	return statusOfInode(f.b.RemoveXattr(ctx, f.inode(in.NodeId), name))
}
