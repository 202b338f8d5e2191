package fstest

import (
	"context"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Lookup is Backend's.
func (f *Fake) Lookup(ctx context.Context, dir object.InodeID, name string) (*object.Inode, error) {
	unlock, err := f.begin(ctx, "lookup")
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, err := f.find(dir, name)
	if err != nil {
		return nil, err
	}
	return copyOf(n), nil
}

// get locks and returns an inode's record.
func (f *Fake) get(ctx context.Context, op string, ino object.InodeID) (*object.Inode, func(), error) {
	unlock, err := f.begin(ctx, op)
	if err != nil {
		return nil, nil, err
	}
	n := f.inodes[ino]
	if n == nil {
		unlock()
		return nil, nil, fail(object.KindStale)
	}
	return n, unlock, nil
}

// GetAttr is Backend's.
func (f *Fake) GetAttr(ctx context.Context, ino object.InodeID) (*object.Inode, error) {
	n, unlock, err := f.get(ctx, "getattr", ino)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return copyOf(n), nil
}

// SetAttr is Backend's.
func (f *Fake) SetAttr(ctx context.Context, ino object.InodeID, a api.SetAttr) (*object.Inode, error) {
	n, _, err := f.once(ctx, "setattr", ino, func(n *object.Inode) (int64, error) { return 0, f.setAttr(n, a) })
	return n, err
}

func (f *Fake) setAttr(n *object.Inode, a api.SetAttr) error {
	if a.Size != nil {
		f.resize(n.ID, *a.Size)
	}
	f.changed(n, a.Size != nil)
	apply(n, a)
	return nil
}

func apply(n *object.Inode, a api.SetAttr) {
	set := func(to, from *uint32) {
		if from != nil {
			*to = *from
		}
	}
	set(&n.Mode, a.Mode)
	set(&n.UID, a.UID)
	set(&n.GID, a.GID)
	if a.Atime != nil {
		n.Atime = *a.Atime
	}
	if a.Mtime != nil {
		n.Mtime = *a.Mtime
	}
}

func (f *Fake) resize(ino object.InodeID, size int64) {
	c := f.content[ino]
	if size <= int64(len(c)) {
		f.content[ino] = c[:size:size]
		return
	}
	f.content[ino] = append(c, make([]byte, size-int64(len(c)))...)
}

// ReadDir is Backend's.
func (f *Fake) ReadDir(ctx context.Context, dir object.InodeID, cursor string, limit int, plus bool) ([]object.DirEntry, string, error) {
	_, unlock, err := f.get(ctx, "readdir", dir)
	if err != nil {
		return nil, "", err
	}
	defer unlock()
	var keys []string
	for key := range f.dirs[dir] {
		if key > cursor {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	next := ""
	if len(keys) > limit {
		keys = keys[:limit]
		next = keys[limit-1]
	}
	var out []object.DirEntry
	for _, key := range keys {
		n := f.inodes[f.dirs[dir][key]]
		name := key
		if n.IsDir() {
			name = strings.TrimSuffix(key, "/")
		}
		e := object.DirEntry{Dentry: object.Dentry{Name: name, Inode: n.ID, Type: n.Type}}
		if plus {
			e.Attr, e.Plain = copyOf(n), len(n.Xattrs) == 0
			e.Attr.Xattrs = nil
		}
		out = append(out, e)
	}
	return out, next, nil
}

// Create is Backend's.
func (f *Fake) Create(ctx context.Context, dir object.InodeID, name string, node api.NewNode) (*object.Inode, bool, error) {
	unlock, err := f.begin(ctx, "create")
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	n, err := f.find(dir, name)
	switch {
	case err == nil && !node.Exclusive && n.Type == object.TypeRegular:
		return copyOf(n), false, nil
	case err == nil:
		return nil, false, fail(object.KindExists)
	case !object.IsKind(err, object.KindNotFound):
		return nil, false, err
	case dir == object.RootInode && object.FileType(node.Type) != object.TypeDirectory:
		return nil, false, fail(object.KindPermission)
	}
	return copyOf(f.mknod(dir, name, node)), true, nil
}

// Link is Backend's.
func (f *Fake) Link(ctx context.Context, ino, dir object.InodeID, name string) (*object.Inode, error) {
	n, unlock, err := f.get(ctx, "link", ino)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := f.find(dir, name); err == nil {
		return nil, fail(object.KindExists)
	}
	n.Nlink++
	f.changed(n, false)
	f.dirs[dir][name] = ino
	f.touchDir(dir, name, ino)
	return copyOf(n), nil
}

// Unlink is Backend's.
func (f *Fake) Unlink(ctx context.Context, dir object.InodeID, name string) error {
	unlock, err := f.begin(ctx, "unlink")
	if err != nil {
		return err
	}
	defer unlock()
	n, err := f.find(dir, name)
	if err != nil {
		return err
	}
	if n.IsDir() {
		return fail(object.KindIsDirectory)
	}
	delete(f.dirs[dir], name)
	f.dropLink(n)
	f.touchDir(dir, name, 0)
	return nil
}

// Rmdir is Backend's.
func (f *Fake) Rmdir(ctx context.Context, dir object.InodeID, name string) error {
	unlock, err := f.begin(ctx, "rmdir")
	if err != nil {
		return err
	}
	defer unlock()
	n, err := f.find(dir, name)
	switch {
	case err != nil:
		return err
	case !n.IsDir():
		return fail(object.KindNotDirectory)
	case len(f.dirs[n.ID]) > 0:
		return fail(object.KindNotEmpty)
	}
	f.index++
	delete(f.dirs[dir], name+"/")
	f.inodes[dir].Nlink--
	f.reap(n.ID)
	f.touchDir(dir, name, 0)
	return nil
}

// Rename is Backend's.
func (f *Fake) Rename(ctx context.Context, dir object.InodeID, name string, newDir object.InodeID, newName string, flags api.RenameFlags) error {
	unlock, err := f.begin(ctx, "rename")
	if err != nil {
		return err
	}
	defer unlock()
	n, err := f.find(dir, name)
	if err != nil {
		return err
	}
	for d := newDir; n.IsDir() && d != 0; d = f.inodes[d].Parent {
		if d == n.ID {
			return fail(object.KindLoop)
		}
	}
	old, err := f.find(newDir, newName)
	if err != nil && !object.IsKind(err, object.KindNotFound) {
		return err
	}
	switch {
	case flags.Exchange:
		return fail(object.KindNotSupported)
	case old == n:
		return nil // two names of one file: nothing happens
	case old != nil && flags.NoReplace:
		return fail(object.KindExists)
	case old != nil && old.IsDir() && !n.IsDir():
		return fail(object.KindIsDirectory)
	case old != nil && !old.IsDir() && n.IsDir():
		return fail(object.KindNotDirectory)
	case old != nil && old.IsDir() && len(f.dirs[old.ID]) > 0:
		return fail(object.KindNotEmpty)
	}
	f.index++
	if old != nil {
		delete(f.dirs[newDir], dirKey(old, newName))
		if old.IsDir() {
			f.inodes[newDir].Nlink--
			f.reap(old.ID)
		} else {
			f.dropLink(old)
		}
	}
	delete(f.dirs[dir], dirKey(n, name))
	f.dirs[newDir][dirKey(n, newName)] = n.ID
	if n.IsDir() {
		n.Parent = newDir
		f.inodes[dir].Nlink--
		f.inodes[newDir].Nlink++
	}
	f.changed(n, false)
	f.touchDir(dir, name, 0)
	f.touchDir(newDir, newName, n.ID)
	return nil
}

// ReadRange is Backend's.
func (f *Fake) ReadRange(ctx context.Context, ino object.InodeID, off int64, dst []byte, version uint64) (int, error) {
	n, unlock, err := f.get(ctx, "read", ino)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if version != 0 && version != n.Version {
		return 0, fail(object.KindPrecondition)
	}
	if c := f.content[ino]; off < int64(len(c)) {
		return copy(dst, c[off:]), nil
	}
	return 0, nil
}

// Write is Backend's.
func (f *Fake) Write(ctx context.Context, ino object.InodeID, off int64, body io.Reader, o api.WriteOptions) (*object.Inode, int64, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, 0, err
	}
	return f.once(ctx, "write", ino, func(n *object.Inode) (int64, error) { return f.write(n, off, data, o) })
}

func (f *Fake) write(n *object.Inode, off int64, data []byte, o api.WriteOptions) (at int64, err error) {
	if len(o.Cond.IfMatch) > 0 && o.Cond.IfMatch[0] != n.ETag() {
		return 0, fail(object.KindPrecondition)
	}
	if o.Append {
		off = int64(len(f.content[n.ID]))
	}
	end := off + int64(len(data))
	if end > int64(len(f.content[n.ID])) || o.Truncate {
		f.resize(n.ID, end)
	}
	copy(f.content[n.ID][off:], data)
	f.changed(n, true)
	apply(n, o.Attr)
	return off, nil
}

// Punch is Backend's.
func (f *Fake) Punch(ctx context.Context, ino object.InodeID, off, length int64, grow bool) (*object.Inode, error) {
	n, unlock, err := f.get(ctx, "punch", ino)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c := f.content[ino]
	if size := int64(len(c)); off < size {
		clear(c[off:min(size, off+length)])
	}
	if grow && off+length > int64(len(c)) {
		f.resize(ino, off+length)
	}
	f.changed(n, true)
	return copyOf(n), nil
}

// Seek is Backend's. A file of the Fake has no holes.
func (f *Fake) Seek(ctx context.Context, ino object.InodeID, off int64, hole bool) (int64, error) {
	n, unlock, err := f.get(ctx, "seek", ino)
	if err != nil {
		return 0, err
	}
	defer unlock()
	switch {
	case off >= n.Size:
		return 0, fail(object.KindRange)
	case hole:
		return n.Size, nil
	}
	return off, nil
}

// CopyRange is Backend's.
func (f *Fake) CopyRange(ctx context.Context, src object.InodeID, srcOff int64, dst object.InodeID, dstOff, length int64) (*object.Inode, int64, error) {
	n, unlock, err := f.get(ctx, "copy", dst)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	from := f.content[src]
	if srcOff >= int64(len(from)) {
		return copyOf(n), 0, nil
	}
	data := append([]byte(nil), from[srcOff:min(int64(len(from)), srcOff+length)]...)
	if end := dstOff + int64(len(data)); end > int64(len(f.content[dst])) {
		f.resize(dst, end)
	}
	copy(f.content[dst][dstOff:], data)
	f.changed(n, true)
	return copyOf(n), int64(len(data)), nil
}

// SetXattr is Backend's.
func (f *Fake) SetXattr(ctx context.Context, ino object.InodeID, name string, value []byte, create, replace bool) error {
	n, unlock, err := f.get(ctx, "setxattr", ino)
	if err != nil {
		return err
	}
	defer unlock()
	_, has := n.Xattrs[name]
	switch {
	case has && create:
		return fail(object.KindExists)
	case !has && replace:
		return fail(object.KindNoAttr)
	case n.Xattrs == nil:
		n.Xattrs = map[string][]byte{}
	}
	n.Xattrs[name] = append([]byte{}, value...)
	f.changed(n, false)
	return nil
}

// RemoveXattr is Backend's.
func (f *Fake) RemoveXattr(ctx context.Context, ino object.InodeID, name string) error {
	n, unlock, err := f.get(ctx, "removexattr", ino)
	if err != nil {
		return err
	}
	defer unlock()
	if _, has := n.Xattrs[name]; !has {
		return fail(object.KindNoAttr)
	}
	delete(n.Xattrs, name)
	f.changed(n, false)
	return nil
}

// Hold is Backend's.
func (f *Fake) Hold(ctx context.Context, inos []object.InodeID) error {
	unlock, err := f.begin(ctx, "hold")
	if err != nil {
		return err
	}
	defer unlock()
	for _, ino := range inos {
		if f.inodes[ino] == nil {
			return fail(object.KindStale)
		}
		f.holds[ino] = time.Now().Add(f.lease)
	}
	return nil
}

// Endpoint is Backend's.
func (f *Fake) Endpoint() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.node
}

// SetEndpoint makes another node answer, which knows of no hold.
func (f *Fake) SetEndpoint(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node != node {
		clear(f.holds)
	}
	f.node = node
}

// Release is Backend's.
func (f *Fake) Release(ctx context.Context, inos []object.InodeID) error {
	unlock, err := f.begin(ctx, "release")
	if err != nil {
		return err
	}
	defer unlock()
	for _, ino := range inos {
		f.drop(ino)
	}
	return nil
}

// StatFS is Backend's.
func (f *Fake) StatFS(ctx context.Context) (api.Usage, error) {
	unlock, err := f.begin(ctx, "statfs")
	if err != nil {
		return api.Usage{}, err
	}
	defer unlock()
	return api.Usage{TotalBytes: 1 << 40, FreeBytes: 1 << 39, TotalInodes: 1 << 30, FreeInodes: 1 << 29}, nil
}
