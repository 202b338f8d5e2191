package meta

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// FormatVersion is the version of the layout that this code reads and writes.
const FormatVersion = 1

// The labels of this package's file operations.
const (
	OpMkdir      vfs.Op = "meta.mkdir"
	OpLock       vfs.Op = "meta.lock"
	OpFormat     vfs.Op = "meta.format"
	OpCleanSet   vfs.Op = "meta.clean.set"
	OpCleanUnset vfs.Op = "meta.clean.unset"
	OpDropLogs   vfs.Op = "meta.memlogs.drop"
	OpDamage     vfs.Op = "meta.damage"
)

const (
	LockName   = "LOCK"
	FormatName = "FORMAT"
	cleanName  = "CLEAN"
	damageName = "DAMAGED"
	dataName   = "badger"
	memSuffix  = ".mem"
)

// directory is the database's directory: LOCK, FORMAT, CLEAN and badger/.
type directory struct {
	fs    vfs.FS
	path  string
	lock  io.Closer
	clean bool // the marker was there when it was opened
}

func (d *directory) data() string            { return filepath.Join(d.path, dataName) }
func (d *directory) name(file string) string { return filepath.Join(d.path, file) }

// openDirectory locks and checks the directory and prepares it for Badger: from
// here on a stop is unclean until leaveClean.
func openDirectory(fsys vfs.FS, path string, log *slog.Logger) (*directory, error) {
	d := &directory{fs: fsys, path: path}
	if err := fsys.MkdirAll(OpMkdir, d.data(), 0o700); err != nil {
		return nil, fmt.Errorf("making the metadata directory: %w", err)
	}
	lock, err := fsys.Lock(OpLock, d.name(LockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, object.Errorf(object.KindBusy,
			"another bucketdb process uses this directory (%s): stop it, or give this one a directory of its own", path)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the metadata directory: %w", err)
	}
	d.lock = lock
	if err := d.prepare(log); err != nil {
		return nil, errors.Join(err, d.unlock())
	}
	return d, nil
}

func (d *directory) prepare(log *slog.Logger) error {
	if err := d.checkFormat(); err != nil {
		return err
	}
	if err := d.checkDamage(); err != nil {
		return err
	}
	if err := d.unsetClean(); err != nil {
		return fmt.Errorf("removing the clean marker: %w", err)
	}
	dropped, err := d.dropMemLogs()
	if err != nil {
		return fmt.Errorf("removing memtable logs: %w", err)
	}
	if !d.clean && dropped > 0 {
		log.Info("unclean stop: memtable logs dropped, the write-ahead log will be replayed", "files", dropped)
	}
	return nil
}

// checkFormat reads the FORMAT file, or writes it for a new database.
func (d *directory) checkFormat() error {
	data, err := d.readFile(OpFormat, FormatName)
	if errors.Is(err, fs.ErrNotExist) {
		return d.writeFile(OpFormat, FormatName, fmt.Sprintf("%d\n", FormatVersion))
	}
	if err != nil {
		return fmt.Errorf("reading the format of the metadata directory: %w", err)
	}
	version, err := parseFormat(data)
	if err != nil {
		return object.Errorf(object.KindCorrupt, "%s: %w", d.name(FormatName), err)
	}
	if version > FormatVersion {
		return object.Errorf(object.KindVersion,
			"%s was written by a newer BucketDB (format %d, this one reads up to %d): upgrade", d.path, version, FormatVersion)
	}
	return nil
}

// checkDamage refuses a database that is known to have lost something.
func (d *directory) checkDamage() error {
	text, err := d.readFile(OpDamage, damageName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.name(damageName), err)
	}
	return damaged(strings.TrimSpace(string(text)) + " (noted in " + d.name(damageName) + ")")
}

// parseFormat reads the text of a FORMAT file: a decimal number and a line feed.
func parseFormat(data []byte) (int, error) {
	text, ok := strings.CutSuffix(string(data), "\n")
	version, err := strconv.ParseUint(text, 10, 31)
	if !ok || err != nil || version == 0 {
		return 0, fmt.Errorf("%q is not a format version", data)
	}
	return int(version), nil
}

// unsetClean removes the marker durably, before anything can change.
func (d *directory) unsetClean() error {
	err := d.fs.Remove(OpCleanUnset, d.name(cleanName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d.clean = true
	return d.fs.SyncDir(OpCleanUnset, d.path)
}

// dropMemLogs removes Badger's memtable logs. A clean close leaves none; after
// an unclean stop one in the middle may be missing, and what the later ones add
// would not be a prefix.
func (d *directory) dropMemLogs() (int, error) {
	entries, err := d.fs.ReadDir(OpDropLogs, d.data())
	if err != nil {
		return 0, err
	}
	dropped := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), memSuffix) {
			continue
		}
		if err := d.fs.Remove(OpDropLogs, filepath.Join(d.data(), e.Name())); err != nil {
			return dropped, err
		}
		dropped++
	}
	if dropped == 0 {
		return 0, nil
	}
	return dropped, d.fs.SyncDir(OpDropLogs, d.data())
}

// leaveClean writes the marker and lets the directory go. Nil is a no-op.
func (d *directory) leaveClean() error {
	if d == nil {
		return nil
	}
	return errors.Join(d.writeFile(OpCleanSet, cleanName, "closed\n"), d.unlock())
}

// unlock lets the directory go without a marker. Nil is a no-op.
func (d *directory) unlock() error {
	if d == nil || d.lock == nil {
		return nil
	}
	lock := d.lock
	d.lock = nil
	return lock.Close()
}

func (d *directory) readFile(op vfs.Op, name string) ([]byte, error) {
	f, err := d.fs.OpenFile(op, d.name(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, 4<<10))
	return data, errors.Join(err, f.Close())
}

// writeFile makes a small file durable: temp, fsync, rename, directory fsync.
func (d *directory) writeFile(op vfs.Op, name, text string) error {
	temp := d.name(name + ".tmp")
	f, err := d.fs.OpenFile(op, temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	if err == nil {
		err = f.Sync(op)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.fs.Rename(op, temp, d.name(name)); err != nil {
		return err
	}
	return d.fs.SyncDir(op, d.path)
}
