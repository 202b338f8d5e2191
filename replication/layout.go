package replication

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// A store is described by a file under MetadataPath, and each storage path
// carries the store's id: directories that do not belong together are refused
// before anything is read from them.

const (
	layoutVersion = 1
	layoutName    = "STORE.json"
	opLayout      = vfs.Op("layout.write")
	opLayoutRead  = vfs.Op("layout.read")
	opSpace       = vfs.Op("space.read")
	opStorageLock = vfs.Op("storage.lock")
)

// layout is what is chosen when a store is made, and never changes.
type layout struct {
	Version    int    `json:"version"`
	Store      string `json:"store"`
	Partitions int    `json:"partitions,omitempty"`
	Node       string `json:"node,omitempty"`
}

// checkLayout reads or writes the description of the store. The metadata's
// lock is held.
func (n *Node) checkLayout() error {
	have, err := readLayout(n.cfg.FS, n.cfg.MetadataPath)
	if err != nil {
		return err
	}
	if have == nil {
		have = &layout{Version: layoutVersion, Store: newUploadID().String(), Partitions: n.cfg.Partitions, Node: n.cfg.NodeID}
		if err := n.refuseForeign(); err != nil {
			return err
		}
		if err := writeLayout(n.cfg.FS, n.cfg.MetadataPath, have); err != nil {
			return err
		}
	}
	if have.Partitions != n.cfg.Partitions {
		return object.Errorf(object.KindInvalid, "the store in %s has %d partitions, not %d: they are fixed when it is made; start with -partitions %d", n.cfg.MetadataPath, have.Partitions, n.cfg.Partitions, have.Partitions)
	}
	return n.claimPaths(have)
}

// refuseForeign refuses to begin a store on what is left of another: a WAL or
// chunks without their description.
func (n *Node) refuseForeign() error {
	if entries, err := n.cfg.FS.ReadDir(opLayoutRead, filepath.Join(n.cfg.MetadataPath, "wal")); err == nil && len(entries) > 0 {
		return object.Errorf(object.KindCorrupt, "%s holds a log but no %s: restore that file, or start on empty directories", n.cfg.MetadataPath, layoutName)
	}
	for _, dir := range n.cfg.StoragePaths {
		if l, err := readLayout(n.cfg.FS, dir); err != nil || l != nil {
			if err == nil {
				err = object.Errorf(object.KindInvalid, "the storage path %s belongs to the store %s, whose metadata is elsewhere: give that MetadataPath, or an empty storage path", dir, l.Store)
			}
			return err
		}
	}
	return nil
}

// claimPaths locks the storage paths and checks that they are this store's.
func (n *Node) claimPaths(have *layout) error {
	for _, dir := range n.cfg.StoragePaths {
		if err := n.cfg.FS.MkdirAll(opLayout, dir, 0o755); err != nil {
			return err
		}
		lock, err := n.cfg.FS.Lock(opStorageLock, filepath.Join(dir, "LOCK"))
		if err != nil {
			return object.Errorf(object.KindBusy, "another bucketdb process uses %s: stop it, or give another storage path (%w)", dir, err)
		}
		n.locks = append(n.locks, lock)
		l, err := readLayout(n.cfg.FS, dir)
		if err != nil {
			return err
		}
		if l == nil {
			if err := writeLayout(n.cfg.FS, dir, &layout{Version: layoutVersion, Store: have.Store}); err != nil {
				return err
			}
		} else if l.Store != have.Store {
			return object.Errorf(object.KindInvalid, "the storage path %s belongs to another store (%s, not %s): give the paths that belong together", dir, l.Store, have.Store)
		}
	}
	return nil
}

func readLayout(f vfs.FS, dir string) (*layout, error) {
	file, err := f.OpenFile(opLayoutRead, filepath.Join(dir, layoutName), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return nil, err
	}
	var l layout
	if err := json.Unmarshal(b, &l); err != nil || l.Store == "" {
		return nil, object.Errorf(object.KindCorrupt, "%s in %s cannot be read: restore it from a backup", layoutName, dir)
	}
	if l.Version > layoutVersion {
		return nil, object.Errorf(object.KindVersion, "%s was written by a newer BucketDB (format %d; this program knows %d): upgrade this program", dir, l.Version, layoutVersion)
	}
	return &l, nil
}

// writeLayout writes the description durably: temp file, fsync, rename, directory fsync.
func writeLayout(f vfs.FS, dir string, l *layout) (err error) {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, layoutName+".tmp")
	file, err := f.OpenFile(opLayout, tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(b, '\n'))
	err = errors.Join(err, file.Sync(opLayout), file.Close())
	if err != nil {
		return err
	}
	if err := f.Rename(opLayout, tmp, filepath.Join(dir, layoutName)); err != nil {
		return err
	}
	return f.SyncDir(opLayout, dir)
}
