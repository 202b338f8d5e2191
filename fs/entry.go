package fs

import (
	"context"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sys/unix"
)

// legalName reports whether a path can hold the name. Keys may have components
// that none can ("", ".", longer than 255 bytes); a mount hides those.
func legalName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= object.MaxName && !strings.ContainsAny(name, "/\x00")
}

// Lookup resolves a name. Where an object stands beside a directory of the
// same name the cluster answers with the directory.
func (f *filesystem) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > object.MaxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	ctx, done := f.begin(cancel)
	defer done()
	asked := f.nodes.asking()
	n, err := f.b.Lookup(ctx, f.inode(in.NodeId), name)
	switch {
	case err == nil:
		f.entry(out, n, asked)
		return fuse.OK
	case errnoOf(object.KindOf(err)) == syscall.ENOENT && f.notes.live.Load():
		// Cached too: the stream tells when the name appears.
		out.SetEntryTimeout(f.o.CacheTTL)
		return fuse.ENOENT
	}
	return status(err)
}

// create makes a node, which is exclusive, and takes it in.
func (f *filesystem) create(ctx context.Context, dir object.InodeID, name string, node api.NewNode) (*object.Inode, fuse.Status) {
	if len(name) > object.MaxName {
		return nil, fuse.Status(syscall.ENAMETOOLONG)
	}
	undo := f.notes.expect(dir, name, false)
	n, _, err := f.b.Create(ctx, dir, name, node)
	if err != nil {
		undo()
		return nil, status(err)
	}
	f.notes.own(n)
	return n, fuse.OK
}

// makeNode is create for everything that is not opened at once.
func (f *filesystem) makeNode(cancel <-chan struct{}, in *fuse.InHeader, name string, t object.FileType, mode, umask uint32,
	more func(*api.NewNode), out *fuse.EntryOut) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	node, st := f.newNode(in.Caller, t, mode, umask)
	if st != fuse.OK {
		return st
	}
	if more != nil {
		more(&node)
	}
	asked := f.nodes.asking()
	n, st := f.create(ctx, f.inode(in.NodeId), name, node)
	if st == fuse.OK {
		f.entry(out, n, asked)
	}
	return st
}

// Mkdir makes a directory; in the root of all buckets, a bucket.
func (f *filesystem) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeNode(cancel, &in.InHeader, name, object.TypeDirectory, in.Mode, in.Umask, nil, out)
}

// Mknod makes a file, fifo, socket or device.
func (f *filesystem) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	t, ok := typeOf(in.Mode)
	if !ok || t == object.TypeDirectory || t == object.TypeSymlink {
		return fuse.EINVAL
	}
	if t == 0 {
		t = object.TypeRegular
	}
	return f.makeNode(cancel, &in.InHeader, name, t, in.Mode, in.Umask, func(n *api.NewNode) { n.Rdev = in.Rdev }, out)
}

// Symlink makes a symbolic link.
func (f *filesystem) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if len(target) > object.MaxSymlink {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	return f.makeNode(cancel, in, name, object.TypeSymlink, 0o777, 0, func(n *api.NewNode) { n.Target = api.Name(target) }, out)
}

// Readlink returns a link's target, which never changes: the kernel keeps it.
func (f *filesystem) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	ctx, done := f.begin(cancel)
	defer done()
	n, err := f.b.GetAttr(ctx, f.inode(in.NodeId))
	if err != nil {
		return nil, statusOfInode(err)
	}
	if n.Type != object.TypeSymlink {
		return nil, fuse.EINVAL
	}
	return []byte(n.Target), fuse.OK
}

// Link gives a file another name.
func (f *filesystem) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > object.MaxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	ctx, done := f.begin(cancel)
	defer done()
	undo := f.notes.expect(f.inode(in.NodeId), name, false)
	asked := f.nodes.asking()
	n, err := f.b.Link(ctx, f.inode(in.Oldnodeid), f.inode(in.NodeId), name)
	if err != nil {
		undo()
		return status(err)
	}
	f.notes.own(n)
	f.entry(out, n, asked)
	return fuse.OK
}

// Unlink drops a name. Files that are open here are reported to the cluster
// before, so that they live on.
func (f *filesystem) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	if err := f.holds.settle(ctx); err != nil {
		return status(err)
	}
	return f.remove(ctx, f.b.Unlink, f.inode(in.NodeId), name)
}

// Rmdir drops an empty directory; in the root of all buckets, a bucket.
func (f *filesystem) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	return f.remove(ctx, f.b.Rmdir, f.inode(in.NodeId), name)
}

// remove drops a name by one of the cluster's verbs.
func (f *filesystem) remove(ctx context.Context, verb func(context.Context, object.InodeID, string) error, dir object.InodeID, name string) fuse.Status {
	defer f.epoch.Add(1)
	undo := f.notes.expect(dir, name, true)
	err := verb(ctx, dir, name)
	if err != nil {
		undo()
	}
	return status(err)
}

// Rename moves a file or a directory, over what is there unless told otherwise.
func (f *filesystem) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL // no whiteouts
	}
	if len(newName) > object.MaxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	flags := api.RenameFlags{NoReplace: in.Flags&unix.RENAME_NOREPLACE != 0, Exchange: in.Flags&unix.RENAME_EXCHANGE != 0}
	ctx, done := f.begin(cancel)
	defer done()
	if err := f.holds.settle(ctx); err != nil {
		return status(err)
	}
	defer f.epoch.Add(1)
	from, to := f.inode(in.NodeId), f.inode(in.Newdir)
	undoFrom := f.notes.expect(from, name, !flags.Exchange)
	undoTo := f.notes.expect(to, newName, false)
	err := f.b.Rename(ctx, from, name, to, newName, flags)
	if err != nil {
		undoFrom()
		undoTo()
	}
	if object.IsKind(err, object.KindNotSupported) {
		return fuse.EINVAL // what renameat2 says of a flag that is not done
	}
	return status(err)
}
