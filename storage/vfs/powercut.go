package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ErrPowerCut is the error of every call on a PowerCut, or on one of its
// handles, after the power went.
var ErrPowerCut = errors.New("power cut")

// WriteOp is the label under which PowerCut and Faulty count the writes to a
// file that was opened with label open.
func WriteOp(open Op) Op { return open + ".write" }

// ReadOp is the same for reads; only Faulty labels them.
func ReadOp(open Op) Op { return open + ".read" }

// PowerCut is a filesystem in memory that keeps what is durable beside what is
// visible. It starts as an empty, durable root directory; relative names start
// there too. It is safe for concurrent use.
//
// The model is a journaling filesystem of the strict kind: the bytes and the
// size of a file are durable after Sync, names after SyncDir and not before,
// and until then a crash may keep any subset of the writes to a file (whole,
// torn, out of order) but only a prefix of the changes to one directory.
// A rename across directories never loses both names.
//
// A mutating call is an open that creates or truncates, a write, Truncate, Sync, Rename,
// Remove, MkdirAll, SyncDir, and a Lock that creates its file.
type PowerCut struct {
	mu    sync.Mutex // guards everything below, and all nodes
	root  *node
	dirs  []*node // every directory ever made: crash visits them in this order
	locks map[*node]bool
	calls []Op
	cutAt int // number of the call that the power goes at, from 1; 0 for never
	dead  bool
	onOp  func(call int, op Op, name string)
}

// NewPowerCut returns an empty filesystem.
func NewPowerCut() *PowerCut {
	p := &PowerCut{locks: map[*node]bool{}}
	p.root = p.newNode(fs.ModeDir | 0o755)
	return p
}

// CutAt makes the n-th mutating call from now on (1 is the next) and every call
// after it fail with ErrPowerCut. The n-th itself is caught halfway: what it
// does counts as unsynced. CutAt(0) takes the order back.
func (p *PowerCut) CutAt(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt = 0
	if n > 0 {
		p.cutAt = len(p.calls) + n
	}
}

// OnOp makes hook be called before each mutating call, with the call's number
// (from 1, as in Calls), label and name. No lock is held: the hook may Crash.
func (p *PowerCut) OnOp(hook func(call int, op Op, name string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onOp = hook
}

// Calls lists the labels of the mutating calls so far; call k is Calls()[k-1].
func (p *PowerCut) Calls() []Op {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// enter starts a call that changes nothing. It returns with p.mu held, unless it fails.
func (p *PowerCut) enter() error {
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return ErrPowerCut
	}
	return nil
}

// count announces a mutating call and reports ErrPowerCut when the power went
// before or goes at it; in the latter case cut is true and the caller still
// does its (unsynced) work. The caller holds p.mu; the hook runs without it, so
// what was looked up before must be looked up again.
func (p *PowerCut) count(op Op, name string) (cut bool, err error) {
	if p.dead {
		return false, ErrPowerCut
	}
	p.calls = append(p.calls, op)
	call := len(p.calls)
	if hook := p.onOp; hook != nil {
		p.mu.Unlock()
		hook(call, op, name)
		p.mu.Lock()
	}
	if p.dead {
		return false, ErrPowerCut
	}
	if p.cutAt > 0 && call >= p.cutAt {
		p.dead = true
		return true, ErrPowerCut
	}
	return false, nil
}

// mutate runs one mutating call: count, then do.
func (p *PowerCut) mutate(op Op, name string, do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut, err := p.count(op, name)
	if err != nil && !cut {
		return err
	}
	if doErr := do(); err == nil {
		err = doErr
	}
	return err
}

// OpenFile implements FS.
func (p *PowerCut) OpenFile(op Op, name string, flag int, perm fs.FileMode) (File, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	n, err := p.lookup(name)
	p.mu.Unlock()
	creates := errors.Is(err, fs.ErrNotExist) && flag&syscall.O_CREAT != 0
	truncates := err == nil && flag&syscall.O_TRUNC != 0
	if creates || truncates {
		err = p.mutate(op, name, func() (err error) {
			n, err = p.create(name, flag, perm)
			return err
		})
	}
	switch {
	case err != nil:
		return nil, pathError("open", name, err)
	case !creates && flag&(syscall.O_CREAT|syscall.O_EXCL) == syscall.O_CREAT|syscall.O_EXCL:
		return nil, pathError("open", name, syscall.EEXIST)
	case n.isDir() && flag&(syscall.O_WRONLY|syscall.O_RDWR) != 0:
		return nil, pathError("open", name, syscall.EISDIR)
	}
	return &cutFile{fs: p, node: n, op: op, name: name, flag: flag}, nil
}

// create makes name, or truncates it, as flag says. The caller holds p.mu.
func (p *PowerCut) create(name string, flag int, perm fs.FileMode) (*node, error) {
	dir, base, err := p.parent(name)
	if err != nil {
		return nil, err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		n = p.newNode(perm.Perm())
		dir.change(&dirOp{add: base, node: n})
	case flag&syscall.O_EXCL != 0:
		return nil, syscall.EEXIST
	case n.isDir():
		return nil, syscall.EISDIR
	case flag&syscall.O_TRUNC != 0:
		n.truncate(0)
	}
	return n, nil
}

// Rename implements FS.
func (p *PowerCut) Rename(op Op, oldName, newName string) error {
	err := p.mutate(op, oldName, func() error { return p.rename(oldName, newName) })
	return pathError("rename", oldName, err)
}

// Remove implements FS.
func (p *PowerCut) Remove(op Op, name string) error {
	err := p.mutate(op, name, func() error {
		dir, base, err := p.parent(name)
		if err != nil {
			return err
		}
		n := dir.entries[base]
		switch {
		case n == nil:
			return syscall.ENOENT
		case len(n.entries) > 0:
			return syscall.ENOTEMPTY
		}
		dir.change(&dirOp{del: base})
		return nil
	})
	return pathError("remove", name, err)
}

// MkdirAll implements FS.
func (p *PowerCut) MkdirAll(op Op, name string, perm fs.FileMode) error {
	err := p.mutate(op, name, func() error { return p.mkdirAll(name, perm) })
	return pathError("mkdir", name, err)
}

// SyncDir implements FS.
func (p *PowerCut) SyncDir(op Op, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.count(op, name)
	if err == nil { // a sync that is cut makes nothing durable
		var n *node
		if n, err = p.lookupDir(name); err == nil {
			n.syncEntries(nil)
		}
	}
	return pathError("syncdir", name, err)
}

// ReadDir implements FS.
func (p *PowerCut) ReadDir(_ Op, name string) ([]fs.DirEntry, error) {
	if err := p.enter(); err != nil {
		return nil, pathError("readdir", name, err)
	}
	defer p.mu.Unlock()
	n, err := p.lookupDir(name)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	list := make([]fs.DirEntry, 0, len(n.entries))
	for _, base := range sortedNames(n.entries) {
		list = append(list, fs.FileInfoToDirEntry(n.entries[base].info(base)))
	}
	return list, nil
}

// Stat implements FS.
func (p *PowerCut) Stat(_ Op, name string) (fs.FileInfo, error) {
	if err := p.enter(); err != nil {
		return nil, pathError("stat", name, err)
	}
	defer p.mu.Unlock()
	n, err := p.lookup(name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return n.info(path.Base(name)), nil
}

// Lock implements FS.
func (p *PowerCut) Lock(op Op, name string) (io.Closer, error) {
	f, err := p.OpenFile(op, name, syscall.O_RDWR|syscall.O_CREAT, 0o600)
	if err != nil {
		return nil, err
	}
	n := f.(*cutFile).node
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.locks[n] {
		return nil, pathError("lock", name, ErrLocked)
	}
	p.locks[n] = true
	return &cutLock{p, n}, nil
}

// Usage implements FS: a disk of 1 TiB.
func (p *PowerCut) Usage(_ Op, dir string) (Usage, error) {
	if err := p.enter(); err != nil {
		return Usage{}, err
	}
	defer p.mu.Unlock()
	if _, err := p.lookupDir(dir); err != nil {
		return Usage{}, pathError("statfs", dir, err)
	}
	const size, inodes = 1 << 40, 1 << 24
	used := p.root.usage()
	return Usage{Device: 1, TotalBytes: size, FreeBytes: size - used, TotalInodes: inodes, FreeInodes: inodes}, nil
}

// Crash cuts the power, if it is not cut already, and returns the filesystem as the next boot
// finds it. Everything unsynced is gone when rnd is nil, and otherwise kept,
// lost or torn as rnd has it. The receiver and its handles fail from now on;
// Crash may be called on it again, for another outcome of the same moment.
func (p *PowerCut) Crash(rnd *rand.Rand) *PowerCut {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	return p.boot(rnd)
}

type cutLock struct {
	fs   *PowerCut
	node *node
}

func (l *cutLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.node)
	return nil
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// nodeInfo is the fs.FileInfo of a node at one moment.
type nodeInfo struct {
	name  string
	size  int64
	mode  fs.FileMode
	mtime time.Time
}

func (i nodeInfo) Name() string       { return i.name }
func (i nodeInfo) Size() int64        { return i.size }
func (i nodeInfo) Mode() fs.FileMode  { return i.mode }
func (i nodeInfo) ModTime() time.Time { return i.mtime }
func (i nodeInfo) IsDir() bool        { return i.mode.IsDir() }
func (i nodeInfo) Sys() any           { return nil }

// Discard cuts the power for good and drops what the disk holds: whoever still
// knows the filesystem keeps no memory of it.
func (p *PowerCut) Discard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	for _, dir := range p.dirs {
		for _, op := range dir.changes {
			op.node.drop()
		}
		for _, n := range dir.entries {
			n.drop()
		}
		for _, n := range dir.durableEntries {
			n.drop()
		}
		clear(dir.entries)
		clear(dir.durableEntries)
		dir.changes = nil
	}
	p.dirs, p.calls, p.onOp = nil, nil, nil
}
