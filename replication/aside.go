package replication

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// opAside labels the renaming of a damaged log.
const opAside = vfs.Op("log.aside")

// asideName is in front of the number of a log that was set aside.
const asideName = "wal.damaged-"

// openLog opens the node's log. One that is damaged may lack votes, so none of the replicas
// whose log it was may go on: where the store is of a cluster with other nodes, it is set
// aside whole, and an empty one begun. Each replica then finds that it has lost its log, asks
// whether others have what it had (unopened), and only then counts as lost; the cluster makes
// a new one. Setting aside is one rename: a crash before it or after it finds the same.
// A node that is alone is refused with KindCorrupt, and nothing is changed.
func (n *Node) openLog() (err error) {
	o := wal.Options{FS: n.cfg.FS, Dir: n.logPath(), SegmentBytes: n.cfg.walSegment, Logger: n.log}
	n.wal, err = wal.Open(o)
	if err == nil {
		n.recallAside()
	}
	if !object.IsKind(err, object.KindCorrupt) {
		return err
	}
	id, why := steward.LoadIdentity(n.cfg.FS, n.cfg.MetadataPath)
	if why != nil {
		return errors.Join(err, why)
	}
	if !hasOthers(id) {
		return object.Errorf(object.KindCorrupt, "%w. No other node has what is lost: restore %s as a whole from a backup", err, n.cfg.MetadataPath)
	}
	to, why := n.freeAside()
	if why == nil {
		why = n.cfg.FS.Rename(opAside, n.logPath(), to)
	}
	if why == nil {
		why = n.cfg.FS.SyncDir(opAside, n.cfg.MetadataPath)
	}
	if why != nil {
		return object.Errorf(object.KindOf(why), "%w; it cannot be set aside: %w", err, why)
	}
	n.log.Error("the log is damaged and was set aside; this node's replicas are given up, and the cluster makes new ones from those of the other nodes. "+
		"Check the disk; remove the directory when all partitions have their replicas again (bucketdb cluster status)", "directory", to, "error", err)
	poke(n.suspect)
	n.wal, err = wal.Open(o)
	return err
}

// hasOthers reports whether a store is of a cluster with other nodes.
func hasOthers(id *steward.Identity) bool {
	if id == nil || id.Founding {
		return false
	}
	for node := range id.Peers {
		if node != id.Node {
			return true
		}
	}
	return false
}

// freeAside is a name for a damaged log that none has yet.
func (n *Node) freeAside() (string, error) {
	for i := 1; ; i++ {
		name := filepath.Join(n.cfg.MetadataPath, fmt.Sprintf("%s%d", asideName, i))
		if _, err := n.cfg.FS.Stat(opAside, name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
}

// recallAside reminds of logs that were set aside: they take room, and say why replicas
// that nobody can make anew are missing.
func (n *Node) recallAside() {
	list, err := n.cfg.FS.ReadDir(opAside, n.cfg.MetadataPath)
	if err != nil {
		n.logged("looking for logs that were set aside", err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), asideName) {
			n.log.Warn("a damaged log was set aside here at an earlier start; remove the directory when all partitions have their replicas again (bucketdb cluster status)",
				"directory", filepath.Join(n.cfg.MetadataPath, e.Name()))
		}
	}
}
