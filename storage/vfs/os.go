package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrLocked is Lock's error when somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// OS is the real filesystem of this machine.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) OpenFile(_ Op, name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(_ Op, oldName, newName string) error { return os.Rename(oldName, newName) }

func (osFS) Remove(_ Op, name string) error { return os.Remove(name) }

func (osFS) MkdirAll(_ Op, name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }

// SyncDir uses fsync: fdatasync of a directory is not promised to do anything.
func (osFS) SyncDir(_ Op, name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) ReadDir(_ Op, name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

func (osFS) Stat(_ Op, name string) (fs.FileInfo, error) { return os.Stat(name) }

func (osFS) Lock(_ Op, name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = retryEINTR(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
}

func (osFS) Usage(_ Op, dir string) (Usage, error) {
	var vfs unix.Statfs_t
	var st unix.Stat_t
	if err := retryEINTR(func() error { return unix.Statfs(dir, &vfs) }); err != nil {
		return Usage{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if err := retryEINTR(func() error { return unix.Stat(dir, &st) }); err != nil {
		return Usage{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	block := uint64(vfs.Bsize)
	return Usage{
		Device:      st.Dev,
		TotalBytes:  vfs.Blocks * block,
		FreeBytes:   vfs.Bavail * block,
		TotalInodes: vfs.Files,
		FreeInodes:  vfs.Ffree,
	}, nil
}

// osFile is an *os.File whose Sync is fdatasync: it makes bytes and size
// durable, and spares the journal commit that only a new mtime would cost.
type osFile struct{ *os.File }

func (f osFile) Truncate(_ Op, size int64) error { return f.File.Truncate(size) }

func (f osFile) Sync(_ Op) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	err = raw.Control(func(fd uintptr) {
		syncErr = retryEINTR(func() error { return unix.Fdatasync(int(fd)) })
	})
	if err == nil && syncErr != nil {
		err = &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: syncErr}
	}
	return err
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
