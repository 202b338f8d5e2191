package vfs

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// TempSuffix ends the name of a file that WriteFile has not finished.
const TempSuffix = ".tmp"

// SyncOp, RenameOp and DirOp label what WriteFile does after it has written under op:
// the file's sync, its renaming, the sync of its directory.
func SyncOp(op Op) Op { return op + ".sync" }

// RenameOp: see SyncOp.
func RenameOp(op Op) Op { return op + ".rename" }

// DirOp: see SyncOp.
func DirOp(op Op) Op { return op + ".dir" }

// WriteFile makes a whole file durable under its name, in place of one that may be there:
// temp file, fsync, rename, fsync of the directory. After an error before the renaming the old
// one is there; after a later one, and after a power cut, either. A temp file that a crash has left is overwritten.
func WriteFile(f FS, op Op, name string, perm fs.FileMode, write func(io.Writer) error) error {
	tmp := name + TempSuffix
	file, err := f.OpenFile(op, tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(file, 256<<10)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = file.Sync(SyncOp(op))
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.Rename(RenameOp(op), tmp, name)
	}
	if err != nil {
		return errors.Join(err, f.Remove(op+".remove", tmp))
	}
	return f.SyncDir(DirOp(op), filepath.Dir(name))
}

// WriteBytes is WriteFile of what is there already.
func WriteBytes(f FS, op Op, name string, perm fs.FileMode, b []byte) error {
	return WriteFile(f, op, name, perm, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
