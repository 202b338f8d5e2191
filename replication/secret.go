package replication

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

const (
	secretName   = "cluster.secret"
	secretLimit  = 4 << 10 // bytes; a secret has some 70
	opSecret     = vfs.Op("secret.write")
	opSecretRead = vfs.Op("secret.read")
)

// openSecret reads the cluster's secret from the metadata path, where the first
// start of a store's first node makes it: a store is a cluster of one.
func (n *Node) openSecret() error {
	path := filepath.Join(n.cfg.MetadataPath, secretName)
	text, err := readStart(n.cfg.FS, opSecretRead, path, secretLimit)
	if err != nil {
		return err
	}
	id, err := steward.LoadIdentity(n.cfg.FS, n.cfg.MetadataPath)
	switch joins := id == nil && len(n.cfg.Join) > 0 && n.cfg.Secret != ""; {
	case err != nil:
		return err
	case text == nil, joins: // a start that did not come to an end may have made one
		if n.secret = transport.NewSecret(); n.cfg.Secret != "" {
			if n.secret, err = transport.ParseSecret(n.cfg.Secret); err != nil {
				return err
			}
		}
		return writeDurably(n.cfg.FS, opSecret, n.cfg.MetadataPath, secretName, []byte(n.secret.Reveal()+"\n"), 0o600)
	}
	if n.secret, err = transport.ParseSecret(string(text)); err != nil {
		return object.Errorf(object.KindCorrupt, "%s: %w: restore the file from a backup or from another node; a node alone may remove it and gets a new one", path, err)
	}
	return nil
}

// writeDurably writes a whole small file: temp file, fsync, rename, directory fsync.
func writeDurably(f vfs.FS, op vfs.Op, dir, name string, b []byte, mode fs.FileMode) (err error) {
	tmp := filepath.Join(dir, name+".tmp")
	file, err := f.OpenFile(op, tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err = errors.Join(err, file.Sync(op), file.Close()); err != nil {
		return err
	}
	if err := f.Rename(op, tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return f.SyncDir(op, dir)
}
