package replication

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
	s, err := readSecret(n.cfg.FS, n.cfg.MetadataPath)
	if errors.Is(err, fs.ErrNotExist) {
		s = transport.NewSecret()
		err = writeDurably(n.cfg.FS, opSecret, n.cfg.MetadataPath, secretName, []byte(s.Reveal()+"\n"), 0o600)
	}
	n.secret = s
	return err
}

func readSecret(f vfs.FS, dir string) (transport.Secret, error) {
	path := filepath.Join(dir, secretName)
	file, err := f.OpenFile(opSecretRead, path, os.O_RDONLY, 0)
	if err != nil {
		return transport.Secret{}, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, secretLimit))
	if err != nil {
		return transport.Secret{}, err
	}
	s, err := transport.ParseSecret(string(b))
	if err != nil {
		return s, object.Errorf(object.KindCorrupt, "%s: %w: restore the file from a backup or from another node; a node alone may remove it and gets a new one", path, err)
	}
	return s, nil
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
