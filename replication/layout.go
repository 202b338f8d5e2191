package replication

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// A store is described by a file under MetadataPath, and each storage path
// carries the store's id: directories that do not belong together are refused
// before anything else is read from them, and before anything is written.

const (
	layoutVersion = 1
	layoutName    = "STORE.json"
	lockName      = meta.LockName // the storage paths' too
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
	Cluster    string `json:"cluster,omitempty"` // its id; stands here before the control group hears of it
}

// openLayout takes the storage paths, looks at the store once more, now that
// nobody else can change it, and writes what describes a new one. The metadata's
// lock is held.
func (n *Node) openLayout() error {
	// First: a storage path that names a store outlives a power cut only if that store does.
	if err := makeDir(n.cfg.FS, n.cfg.MetadataPath); err != nil {
		return err
	}
	for _, dir := range n.cfg.StoragePaths {
		if err := makeDir(n.cfg.FS, dir); err != nil {
			return err
		}
		lock, err := n.cfg.FS.Lock(opStorageLock, filepath.Join(dir, lockName))
		if err != nil {
			return object.Errorf(object.KindBusy, "another bucketdb process uses %s: stop it, or give another storage path (%w)", dir, err)
		}
		n.locks = append(n.locks, lock)
	}
	s, err := n.survey()
	if err != nil {
		return err
	}
	fresh := s.store == nil
	if fresh {
		s.store = &layout{Version: layoutVersion, Store: newUploadID().String(), Partitions: n.cfg.Partitions, Node: n.cfg.NodeID}
	}
	switch founds := s.identity == nil && len(n.cfg.Join) == 0; {
	case founds && s.store.Cluster == "":
		s.store.Cluster = newUploadID().String() // the one that it will found
		fresh = true
	case !founds && s.identity == nil && s.store.Cluster != "":
		s.store.Cluster = "" // it was about to, and joins another after all
		fresh = true
	}
	if fresh {
		if err := writeLayout(n.cfg.FS, n.cfg.MetadataPath, s.store); err != nil {
			return err
		}
	}
	n.store = *s.store
	for _, dir := range s.unclaimed {
		// The metadata's own by another name (a link), or one named twice.
		if l, err := readLayout(n.cfg.FS, dir); err != nil || l != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := writeLayout(n.cfg.FS, dir, &layout{Version: layoutVersion, Store: s.store.Store}); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes a directory and its parents, durably: whatever is synced in a
// directory whose own name a power cut takes away is lost with it.
func makeDir(f vfs.FS, dir string) error {
	if err := f.MkdirAll(opLayout, dir, 0o755); err != nil {
		return err
	}
	for at := filepath.Dir(dir); ; at = filepath.Dir(at) {
		err := f.SyncDir(opLayout, at)
		if err != nil && !errors.Is(err, fs.ErrPermission) { // one that may not be read was not made here
			return err
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// survey is what the directories of a node say about themselves.
type survey struct {
	store     *layout           // nil: there is no store yet
	identity  *steward.Identity // nil: it is of no cluster yet
	unclaimed []string          // storage paths that belong to no store
}

// survey refuses directories that this program or this configuration must not
// write to: those of a newer program, of another store, of another node. It
// changes nothing, and needs no lock: what is written first is read last.
func (n *Node) survey() (s survey, err error) {
	if err := n.checkFormats(); err != nil {
		return s, err
	}
	if err := n.recovering(); err != nil {
		return s, err
	}
	owners := map[string]*layout{}
	for _, dir := range n.cfg.StoragePaths {
		if owners[dir], err = readLayout(n.cfg.FS, dir); err != nil {
			return s, err
		}
		if owners[dir] == nil {
			s.unclaimed = append(s.unclaimed, dir)
		}
	}
	entries, logErr := n.cfg.FS.ReadDir(opLayoutRead, n.logPath())
	if s.store, err = readLayout(n.cfg.FS, n.cfg.MetadataPath); err != nil {
		return s, err
	}
	if s.store == nil && logErr == nil && len(entries) > 0 {
		return s, object.Errorf(object.KindCorrupt, "%s holds a log but no %s: restore that file, or start on empty directories", n.cfg.MetadataPath, layoutName)
	}
	if err := n.checkStore(s.store); err != nil {
		return s, err
	}
	if s.identity, err = steward.LoadIdentity(n.cfg.FS, n.cfg.MetadataPath); err != nil {
		return s, err
	}
	if err := n.checkCluster(s.store, s.identity); err != nil {
		return s, err
	}
	if logErr == nil && len(entries) > 0 && s.store.Cluster != "" && s.identity == nil && len(n.cfg.Join) > 0 {
		return s, object.Errorf(object.KindExists, "the store in %s was made for a cluster of its own: start it without joining another, or join with empty directories", n.cfg.MetadataPath)
	}
	return s, n.checkOwners(s.store, owners)
}

// inUse is a KindBusy while another process has the directories open. It makes no file.
func (n *Node) inUse() error {
	for _, dir := range append([]string{n.metaPath()}, n.cfg.StoragePaths...) {
		name := filepath.Join(dir, lockName)
		if _, err := n.cfg.FS.Stat(opLayoutRead, name); err != nil {
			continue
		}
		lock, err := n.cfg.FS.Lock(opStorageLock, name)
		if errors.Is(err, vfs.ErrLocked) {
			return object.Errorf(object.KindBusy, "another bucketdb process uses %s: stop it, or give other directories (%w)", dir, err)
		}
		if err == nil {
			_ = lock.Close() // nothing was written
		}
	}
	return nil
}

// checkStore compares the store with the configuration.
func (n *Node) checkStore(store *layout) error {
	switch {
	case store == nil:
		return nil
	case store.Partitions != n.cfg.Partitions:
		return object.Errorf(object.KindInvalid, "the store in %s has %d partitions, not %d: they are fixed when it is made; start with -partitions %d",
			n.cfg.MetadataPath, store.Partitions, n.cfg.Partitions, store.Partitions)
	case store.Node != "" && store.Node != n.cfg.NodeID:
		return object.Errorf(object.KindInvalid, "the store in %s is that of node %s, not %s: its votes are given under that name; start with -id %s",
			n.cfg.MetadataPath, store.Node, n.cfg.NodeID, store.Node)
	}
	return nil
}

// checkCluster compares what the store was made for with what it belongs to.
func (n *Node) checkCluster(store *layout, id *steward.Identity) error {
	if store == nil || store.Cluster == "" || id == nil {
		return nil
	}
	if c, err := object.ParseUploadID(store.Cluster); err != nil || c != object.UploadID(id.Cluster) {
		return object.Errorf(object.KindCorrupt, "in %s, %s names cluster %s, the rest %x: restore the metadata path as a whole from a backup", n.cfg.MetadataPath, layoutName, store.Cluster, id.Cluster)
	}
	return nil
}

// checkOwners refuses storage paths of another store.
func (n *Node) checkOwners(store *layout, owners map[string]*layout) error {
	for _, dir := range n.cfg.StoragePaths {
		switch l := owners[dir]; {
		case l == nil:
		case store == nil:
			return object.Errorf(object.KindInvalid, "the storage path %s belongs to the store %s, whose metadata is elsewhere: give that MetadataPath, or an empty storage path", dir, l.Store)
		case l.Store != store.Store:
			return object.Errorf(object.KindInvalid, "the storage path %s belongs to another store (%s, not %s): give the paths that belong together", dir, l.Store, store.Store)
		}
	}
	return nil
}

// checkFormats refuses a log, replica records or metadata whose format this program does not
// know. What cannot be read at all is left to those who open it.
func (n *Node) checkFormats() error {
	format, err := readStart(n.cfg.FS, opLayoutRead, filepath.Join(n.metaPath(), meta.FormatName), maxMetaFormat)
	if err != nil {
		return err
	}
	if v, err := strconv.Atoi(strings.TrimSpace(string(format))); err == nil && v > meta.FormatVersion {
		return object.Errorf(object.KindVersion, "%s was written by a newer BucketDB (format %d; this program knows %d): upgrade this program",
			n.metaPath(), v, meta.FormatVersion)
	}
	if err := steward.CheckRecords(n.cfg.FS, n.cfg.MetadataPath); err != nil {
		return err
	}
	entries, err := n.cfg.FS.ReadDir(opLayoutRead, n.logPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(n.logPath(), e.Name())
		if filepath.Ext(path) != wal.Suffix {
			continue
		}
		head, err := readStart(n.cfg.FS, opLayoutRead, path, wal.HeaderSize)
		if err != nil {
			return err
		}
		if err := wal.CheckFormat(path, head); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) metaPath() string { return filepath.Join(n.cfg.MetadataPath, "badger") }
func (n *Node) logPath() string  { return filepath.Join(n.cfg.MetadataPath, "wal") }

// maxMetaFormat is more than storage/meta's FormatName holds: a number and a line feed.
const maxMetaFormat = 64

// readStart reads the first max bytes of a file; nil where there is none.
func readStart(f vfs.FS, op vfs.Op, path string, max int64) ([]byte, error) {
	file, err := f.OpenFile(op, path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, max))
}

func readLayout(f vfs.FS, dir string) (*layout, error) {
	b, err := readStart(f, opLayoutRead, filepath.Join(dir, layoutName), 64<<10)
	if err != nil || b == nil {
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
func writeLayout(f vfs.FS, dir string, l *layout) error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return vfs.WriteBytes(f, opLayout, filepath.Join(dir, layoutName), 0o644, append(b, '\n'))
}
