package vfs

import (
	"io"
	"io/fs"
	"path"
	"syscall"
)

// cutFile is a handle on a file of a PowerCut. fs.mu guards pos and closed.
type cutFile struct {
	fs     *PowerCut
	node   *node
	op     Op // it was opened with
	name   string
	flag   int
	pos    int64
	closed bool
}

func (f *cutFile) Name() string { return f.name }

// use checks, under fs.mu, that the handle may be used with access mode deny absent.
func (f *cutFile) use(deny int) error {
	const access = syscall.O_WRONLY | syscall.O_RDWR
	switch {
	case f.closed:
		return fs.ErrClosed
	case f.node.isDir():
		return syscall.EISDIR
	case f.flag&access == deny:
		return syscall.EBADF
	}
	return nil
}

func (f *cutFile) Read(b []byte) (int, error) {
	if err := f.fs.enter(); err != nil {
		return 0, pathError("read", f.name, err)
	}
	defer f.fs.mu.Unlock()
	n, err := f.read(b, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *cutFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.enter(); err != nil {
		return 0, pathError("read", f.name, err)
	}
	defer f.fs.mu.Unlock()
	return f.read(b, off)
}

func (f *cutFile) read(b []byte, off int64) (int, error) {
	if err := f.use(syscall.O_WRONLY); err != nil {
		return 0, pathError("read", f.name, err)
	}
	if off < 0 {
		return 0, pathError("read", f.name, syscall.EINVAL)
	}
	if len(b) == 0 {
		return 0, nil
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *cutFile) Write(b []byte) (int, error) {
	err := f.fs.mutate(WriteOp(f.op), f.name, func() error {
		if err := f.use(syscall.O_RDONLY); err != nil {
			return err
		}
		if f.flag&syscall.O_APPEND != 0 {
			f.pos = int64(len(f.node.data))
		}
		f.node.write(b, f.pos)
		f.pos += int64(len(b))
		return nil
	})
	return wrote(b, err), pathError("write", f.name, err)
}

func (f *cutFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.fs.mutate(WriteOp(f.op), f.name, func() error {
		if err := f.use(syscall.O_RDONLY); err != nil {
			return err
		}
		if off < 0 || f.flag&syscall.O_APPEND != 0 { // package os refuses the latter too
			return syscall.EINVAL
		}
		f.node.write(b, off)
		return nil
	})
	return wrote(b, err), pathError("write", f.name, err)
}

func wrote(b []byte, err error) int {
	if err != nil {
		return 0
	}
	return len(b)
}

func (f *cutFile) Truncate(op Op, size int64) error {
	err := f.fs.mutate(op, f.name, func() error {
		if err := f.use(syscall.O_RDONLY); err != nil {
			return err
		}
		if size < 0 {
			return syscall.EINVAL
		}
		f.node.truncate(size)
		return nil
	})
	return pathError("truncate", f.name, err)
}

func (f *cutFile) Sync(op Op) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	_, err := f.fs.count(op, f.name)
	if err == nil && f.closed {
		err = fs.ErrClosed
	}
	if err == nil { // a sync that is cut makes nothing durable
		f.node.syncData()
	}
	return pathError("sync", f.name, err)
}

func (f *cutFile) Stat() (fs.FileInfo, error) {
	if err := f.fs.enter(); err != nil {
		return nil, pathError("stat", f.name, err)
	}
	defer f.fs.mu.Unlock()
	if f.closed {
		return nil, pathError("stat", f.name, fs.ErrClosed)
	}
	return f.node.info(path.Base(f.name)), nil
}

func (f *cutFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
