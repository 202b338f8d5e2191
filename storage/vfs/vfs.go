// Package vfs is the one small filesystem interface through which every durable
// file operation goes, so that a test can fail, delay or tear exactly one call
// and can cut power (drop what was not fsynced).
//
// Badger keeps its own files and does not pass through here; what protects it
// is described in storage/DESIGN.md.
package vfs

import (
	"io"
	"io/fs"
)

// Op labels why a call is made ("wal.append.sync", "chunk.rename"), not which
// call it is, so that a fault can be aimed at one step of one protocol. Labels
// are constants of the package that makes the call.
type Op string

// FS is a filesystem. Implementations are safe for concurrent use. Errors are
// those of package os (errors.Is with fs.ErrNotExist, syscall.ENOSPC, ... works).
type FS interface {
	// OpenFile opens name with the flags of os.OpenFile.
	OpenFile(op Op, name string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces newName by oldName atomically. It is durable only after
	// SyncDir of the directory (of both, when they differ).
	Rename(op Op, oldName, newName string) error
	// Remove deletes a file or an empty directory; durable after SyncDir.
	Remove(op Op, name string) error
	// MkdirAll makes a directory and its missing parents; durable after SyncDir
	// of each parent.
	MkdirAll(op Op, name string, perm fs.FileMode) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(op Op, name string) error
	// ReadDir lists a directory in name order.
	ReadDir(op Op, name string) ([]fs.DirEntry, error)
	// Stat describes a file.
	Stat(op Op, name string) (fs.FileInfo, error)
	// Lock takes an exclusive advisory lock on name, creating it, and fails at
	// once with ErrLocked when another process (or handle) holds it. Closing
	// the result releases it; so does the death of the process.
	Lock(op Op, name string) (io.Closer, error)
	// Usage tells the capacity of the disk that holds dir.
	Usage(op Op, dir string) (Usage, error)
}

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	// Name is the name it was opened with.
	Name() string
	// Stat describes it.
	Stat() (fs.FileInfo, error)
	// Truncate changes its size; durable after Sync.
	Truncate(op Op, size int64) error
	// Sync makes its bytes and size durable (fdatasync suffices). After an
	// error the state of the unsynced bytes is unknown: the caller must not
	// retry Sync on the same file and treat a later success as durable.
	Sync(op Op) error
}

// Usage is the capacity of one disk, in bytes and in inodes.
type Usage struct {
	// Device tells disks apart: two directories with the same Device share the
	// numbers below.
	Device                  uint64
	TotalBytes, FreeBytes   uint64
	TotalInodes, FreeInodes uint64
}
