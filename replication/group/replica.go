package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// keyReplica is the key in the log under which the replica's id stands.
const keyReplica = "Replica"

// readd is what to do about a replica that lost what it had promised.
const readd = "this replica must not vote again: remove it from its group and add this node anew (it gets a new replica id), " +
	"or restore a node that stands alone from a backup"

// Labels of file operations.
const (
	opDir        vfs.Op = "group.dir"
	opDirSync    vfs.Op = "group.dir.sync"
	opID         vfs.Op = "group.id"
	opImage      vfs.Op = "group.image"
	opFileRemove vfs.Op = "group.file.remove"
)

// claim makes sure that the log is this replica's and that nothing of it was lost,
// and at the first start writes the id into the log and beside it. A group without
// a directory stands alone and is not asked.
func claim(cfg Config) error {
	if cfg.Dir == "" {
		return nil
	}
	inLog, err := cfg.Log.Get([]byte(keyReplica))
	if err != nil {
		return err
	}
	beside, err := readID(cfg.FS, idFile(cfg.Dir, cfg.ID))
	if err != nil {
		return err
	}
	fresh, err := blank(cfg.Log)
	if err != nil {
		return err
	}
	switch known := string(inLog); {
	case known != "" && known != cfg.Node:
		return object.Errorf(object.KindInvalid, "the log here is that of replica %q, not of %q; destroy the old replica first", known, cfg.Node)
	case known == "" && beside != "":
		return object.Errorf(object.KindCorrupt, "replica %q has lost its log; %s", beside, readd)
	case beside != "" && beside != cfg.Node:
		return object.Errorf(object.KindInvalid, "%s says that replica %q lives here, not %q; destroy the old replica first", idFile(cfg.Dir, cfg.ID), beside, cfg.Node)
	case known == "" && fresh && !cfg.Bootstrap && !cfg.Join:
		return object.Errorf(object.KindCorrupt, "replica %q has no log here; %s", cfg.Node, readd)
	}
	if len(inLog) == 0 {
		if err := cfg.Log.Set([]byte(keyReplica), []byte(cfg.Node)); err != nil {
			return err
		}
	}
	if beside != "" {
		return nil
	}
	if err := makeDir(cfg.FS, cfg.Dir); err != nil {
		return err
	}
	return vfs.WriteFile(cfg.FS, opID, idFile(cfg.Dir, cfg.ID), 0o600, func(w io.Writer) error {
		_, err := io.WriteString(w, cfg.Node+"\n")
		return err
	})
}

// blank reports whether nothing was ever written for a group.
func blank(log *wal.Group) (bool, error) {
	last, err := log.LastIndex()
	if err != nil {
		return false, err
	}
	term, err := log.GetUint64([]byte(keyCurrentTerm))
	snap, _, _ := log.Snapshot()
	return last == 0 && term == 0 && snap == 0, err
}

// Destroy removes what a replica left here, once it is no member any more and its
// Group is closed: its files, its machine's state (by drop) and its log. After an
// error or a crash, call it again. Its id must not be used again.
func Destroy(ctx context.Context, fsys vfs.FS, dir string, log *wal.Group, id object.PartitionID, drop func(context.Context) error) error {
	// The log goes last: without it a replica that has a file, or a state, is refused.
	if err := drop(ctx); err != nil {
		return err
	}
	if err := removeImages(fsys, dir, id, ""); err != nil {
		return err
	}
	if err := removeFile(fsys, idFile(dir, id)); err != nil {
		return err
	}
	return log.Wipe()
}

func idFile(dir string, id object.PartitionID) string {
	return filepath.Join(dir, fmt.Sprintf("%04d.replica", id))
}

// imageFile is where the state of a partition up to an index waits.
func imageFile(id object.PartitionID, index uint64) string {
	return fmt.Sprintf("%04d.%d%s", id, index, imageSuffix)
}

const (
	imageSuffix = ".image"
	maxID       = 4096 // bytes
)

func readID(fsys vfs.FS, name string) (string, error) {
	f, err := fsys.OpenFile(opID, name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxID))
	return strings.TrimSpace(string(b)), errors.Join(err, f.Close())
}

func makeDir(fsys vfs.FS, dir string) error {
	if err := fsys.MkdirAll(opDir, dir, 0o700); err != nil {
		return err
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if err := fsys.SyncDir(opDirSync, filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

func removeFile(fsys vfs.FS, name string) error {
	err := fsys.Remove(opFileRemove, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fsys.SyncDir(opDirSync, filepath.Dir(name))
}

// removeImages removes the received states of a partition, whole or half, but one.
func removeImages(fsys vfs.FS, dir string, id object.PartitionID, but string) error {
	list, err := fsys.ReadDir(opDir, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		name := e.Name()
		of := strings.HasPrefix(name, fmt.Sprintf("%04d.", id))
		if of && name != but && strings.HasSuffix(strings.TrimSuffix(name, vfs.TempSuffix), imageSuffix) {
			if err := removeFile(fsys, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
