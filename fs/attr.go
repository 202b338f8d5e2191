package fs

import (
	"context"
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// blockSize is what st_blksize says: stdio reads and writes that much at a
// time, and each is a round trip through the kernel.
const blockSize = 64 << 10

// typeBits is the file type as st_mode has it.
func typeBits(t object.FileType) uint32 {
	switch t {
	case object.TypeDirectory:
		return syscall.S_IFDIR
	case object.TypeSymlink:
		return syscall.S_IFLNK
	case object.TypeFIFO:
		return syscall.S_IFIFO
	case object.TypeSocket:
		return syscall.S_IFSOCK
	case object.TypeCharDevice:
		return syscall.S_IFCHR
	case object.TypeBlockDevice:
		return syscall.S_IFBLK
	}
	return syscall.S_IFREG
}

// typeOf is typeBits' inverse; false: there is no such type.
func typeOf(mode uint32) (object.FileType, bool) {
	for t := object.TypeRegular; t <= object.TypeBlockDevice; t++ {
		if typeBits(t) == mode&syscall.S_IFMT {
			return t, true
		}
	}
	return 0, mode&syscall.S_IFMT == 0
}

// attr writes the record as the kernel takes it.
func (f *filesystem) attr(a *fuse.Attr, n *object.Inode) {
	*a = fuse.Attr{
		Ino: uint64(n.ID), Size: uint64(n.Size), Blocks: uint64(n.Blocks+511) / 512, Blksize: blockSize,
		Mode: typeBits(n.Type) | n.Mode&0o7777, Nlink: n.Nlink, Rdev: n.Rdev,
		Owner: fuse.Owner{Uid: f.o.UIDs.local(n.UID), Gid: f.o.GIDs.local(n.GID)},
	}
	a.Atime, a.Atimensec = splitTime(n.Atime)
	a.Mtime, a.Mtimensec = splitTime(n.Mtime)
	a.Ctime, a.Ctimensec = splitTime(n.Ctime)
	if n.Type == object.TypeSymlink {
		a.Size = uint64(len(n.Target))
	}
}

// splitTime rounds down, so that times before 1970 are right too.
func splitTime(ns int64) (sec uint64, nsec uint32) {
	s, r := ns/1e9, ns%1e9
	if r < 0 {
		s, r = s-1, r+1e9
	}
	return uint64(s), uint32(r)
}

func joinTime(sec uint64, nsec uint32) *int64 {
	ns := int64(sec)*1e9 + int64(nsec)
	return &ns
}

// entry answers with an inode, which the kernel then remembers; asked is of before it
// was asked for (nodeTable.asking).
func (f *filesystem) entry(out *fuse.EntryOut, n *object.Inode, asked uint64) {
	f.nodes.remember(n.ID)
	f.nodes.bare(n, asked, f.o.CacheTTL)
	f.attr(&out.Attr, f.seen(n))
	out.NodeId, out.Generation = f.node(n.ID), 1 // numbers are never reused
	out.SetEntryTimeout(f.o.CacheTTL)
	out.SetAttrTimeout(f.o.CacheTTL)
}

// GetAttr is stat(2). A file with unflushed changes is flushed first, as NFS
// does: the times that a program notes down (git does) are then those that
// everybody sees from now on. A flush that fails is not stat's affair: close
// and fsync report it.
func (f *filesystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	n, err := f.getattr(ctx, f.inode(in.NodeId))
	if err != nil {
		return statusOfInode(err)
	}
	f.attr(&out.Attr, n)
	out.SetTimeout(f.o.CacheTTL)
	return fuse.OK
}

func (f *filesystem) getattr(ctx context.Context, ino object.InodeID) (*object.Inode, error) {
	if fl := f.nodes.file(ino); fl != nil {
		fl.mu.Lock()
		dirty := fl.isDirty()
		fl.mu.Unlock()
		if dirty {
			_ = f.flush(ctx, fl)
			fl.mu.Lock()
			defer fl.mu.Unlock()
			return fl.look(), nil // as fresh as the flush's answer
		}
	}
	n, err := f.b.GetAttr(ctx, ino)
	if err != nil {
		return nil, err
	}
	return f.seen(n), nil
}

// SetAttr is chmod, chown, truncate and utimens. Changes to a file with
// unflushed writes travel with the flush; so does ftruncate.
func (f *filesystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	a, st := f.wanted(in)
	if st != fuse.OK {
		return st
	}
	ino := f.inode(in.NodeId)
	if a.Mode == nil && (a.UID != nil || a.GID != nil || in.Valid&fuse.FATTR_KILL_SUIDGID != 0) {
		mode, err := f.killPriv(ctx, ino)
		if err != nil {
			return statusOfInode(err)
		}
		a.Mode = mode
	}
	n, err := f.setattr(ctx, ino, a, f.openFor(in))
	if err != nil {
		return statusOfInode(err)
	}
	f.attr(&out.Attr, n)
	out.SetTimeout(f.o.CacheTTL)
	return fuse.OK
}

// withoutPriv is mode without setuid, and without setgid where that is one.
func withoutPriv(mode uint32) uint32 {
	mode &^= syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 {
		mode &^= syscall.S_ISGID
	}
	return mode
}

// killPriv is the mode that a file has after a change of its owner or, by one
// who may not, of its content: nil when that is the one it has. The kernel
// leaves this to us (HANDLE_KILLPRIV_V2), or it would stat before each chown.
func (f *filesystem) killPriv(ctx context.Context, ino object.InodeID) (*uint32, error) {
	var n *object.Inode
	if fl := f.nodes.file(ino); fl != nil {
		fl.mu.Lock()
		n = fl.look()
		fl.mu.Unlock()
	} else {
		var err error
		if n, err = f.b.GetAttr(ctx, ino); err != nil {
			return nil, err
		}
	}
	if mode := withoutPriv(n.Mode); mode != n.Mode && !n.IsDir() {
		return &mode, nil
	}
	return nil, nil
}

// openFor is the handle that a SetAttr came through, if it may write.
func (f *filesystem) openFor(in *fuse.SetAttrIn) *handle {
	fh, ok := in.GetFh()
	if !ok {
		return nil
	}
	if h := f.handles.file(fh); h != nil && h.write {
		return h
	}
	return nil
}

// wanted reads the kernel's request.
func (f *filesystem) wanted(in *fuse.SetAttrIn) (a api.SetAttr, st fuse.Status) {
	now := time.Now().UnixNano()
	if mode, ok := in.GetMode(); ok {
		a.Mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		if uid, ok = f.o.UIDs.stored(uid); !ok {
			return a, fuse.EINVAL
		}
		a.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		if gid, ok = f.o.GIDs.stored(gid); !ok {
			return a, fuse.EINVAL
		}
		a.GID = &gid
	}
	if size, ok := in.GetSize(); ok {
		if size > object.MaxFileSize {
			return a, fuse.Status(syscall.EFBIG)
		}
		s := int64(size)
		a.Size = &s
	}
	switch {
	case in.Valid&fuse.FATTR_ATIME_NOW != 0:
		a.Atime = &now
	case in.Valid&fuse.FATTR_ATIME != 0:
		a.Atime = joinTime(in.Atime, in.Atimensec)
	}
	switch {
	case in.Valid&fuse.FATTR_MTIME_NOW != 0:
		a.Mtime = &now
	case in.Valid&fuse.FATTR_MTIME != 0:
		a.Mtime = joinTime(in.Mtime, in.Mtimensec)
	}
	return a, fuse.OK
}

// setattr applies a here, where it can travel with a flush that is due, or at
// the cluster.
func (f *filesystem) setattr(ctx context.Context, ino object.InodeID, a api.SetAttr, h *handle) (*object.Inode, error) {
	fl := f.nodes.file(ino)
	if fl != nil {
		fl.mu.Lock()
		dirty := fl.isDirty()
		fl.mu.Unlock()
		if a.Size != nil && h == nil && dirty {
			// truncate(2) by name: at once, for everybody.
			if err := f.flush(ctx, fl); err != nil {
				return nil, err
			}
		} else if dirty || a.Size != nil && h != nil {
			n, err := f.setattrHere(ctx, fl, a)
			if n != nil || err != nil {
				return n, err
			}
		}
	}
	n, err := f.b.SetAttr(ctx, ino, a)
	if err != nil {
		return nil, err
	}
	f.notes.own(n)
	if a.Size != nil {
		f.nodes.cacheMoved(ino, 0, 0)
	}
	return f.seen(n), nil
}

// setattrHere applies a in the dirty layer. It returns nil when the file was
// closed meanwhile.
func (f *filesystem) setattrHere(ctx context.Context, fl *file, a api.SetAttr) (*object.Inode, error) {
	to := int64(0)
	if a.Size != nil && *a.Size > 0 {
		to = math.MaxInt64 // behind whatever was appended
	}
	if err := f.admit(ctx, fl, to, false); err != nil {
		return nil, err
	}
	defer fl.mu.Unlock()
	return f.changeLocked(fl, func(l *layer, now int64) {
		if a.Size != nil {
			l.truncate(*a.Size, now)
		}
		l.setAttr(a, now)
	}), nil
}
