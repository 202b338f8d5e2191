package replication

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

const (
	secretName   = "cluster.secret"
	givenName    = "cluster.secret.given" // fingerprints of the text that a start was given last
	secretLimit  = 4 << 10                // bytes; a secret has some 70, and there are two or three while they are changed
	secretPoll   = 5 * time.Second
	opSecret     = vfs.Op("secret.write")
	opSecretRead = vfs.Op("secret.read")
	opGiven      = vfs.Op("secret.given")
)

// findSecrets finds the secrets that this node trusts, the current one first: those it
// is given, else those it was given before (cluster.secret under the metadata path). A text that
// the last start was given already is no news: what was changed since counts (DESIGN.md).
// A node that founds a cluster and can be reached from other machines makes one. None
// is left to nodes on loopback, which talk in the clear then, and to a node alone.
// It writes nothing; fresh: they have to be kept.
func (n *Node) findSecrets() (fresh bool, err error) {
	id, err := steward.LoadIdentity(n.cfg.FS, n.cfg.MetadataPath)
	if err != nil {
		return false, err
	}
	if n.cfg.Peer == "" && n.hasOthers(id) {
		return false, object.Errorf(object.KindInvalid, "this store belongs to a cluster of several nodes: give the address of its port for them (-http)")
	}
	kept, err := n.keptSecrets(id)
	if err != nil {
		return false, err
	}
	given, err := n.givenSecrets()
	switch {
	case errors.Is(err, fs.ErrNotExist) && id == nil && len(kept) == 0 && len(n.cfg.Join) == 0:
		n.makeSecret() // the file is made with the cluster
		return true, nil
	case err != nil:
		return false, err
	}
	if len(kept) > 0 && n.cfg.SecretFile == "" && len(given) > 0 {
		before, err := readStart(n.cfg.FS, opSecretRead, filepath.Join(n.cfg.MetadataPath, givenName), secretLimit)
		if err != nil {
			return false, err
		}
		if string(before) == prints(given) {
			if given[0] != kept[0] {
				n.log.Info("the secret that this node was started with is an old one: it goes on with those in "+secretName, "given", given[0].Fingerprint(), "current", kept[0].Fingerprint())
			}
			given = nil
		}
	}
	switch {
	case len(given) > 0:
		n.secrets = given
		return !slices.Equal(given, kept) || n.cfg.Secret != "", nil
	case len(kept) > 0:
		n.secrets = kept
		_, err := n.cfg.FS.Stat(opSecretRead, filepath.Join(n.cfg.MetadataPath, secretName))
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil // they were found with the cluster's name
		}
		return false, err
	case n.cfg.Peer == "":
		return false, nil
	case id == nil && len(n.cfg.Join) > 0:
		if !onLoopback(append(n.cfg.Join, n.cfg.Peer)...) {
			return false, object.Errorf(object.KindInvalid, "joining %s needs the cluster's secret: give the join token that its first node printed, which is in %s under that node's metadata path (--cluster-secret-file, or BUCKETDB_CLUSTER_SECRET)",
				n.cfg.Join[0], secretName)
		}
		return false, nil
	case onLoopback(n.cfg.Peer):
		return false, nil
	case n.hasOthers(id):
		return false, object.Errorf(object.KindInvalid, "this cluster has no secret, and %s can be reached from other machines: stop all its nodes, and start each with the same --cluster-secret-file", n.cfg.Peer)
	}
	n.makeSecret()
	return true, nil
}

// prints are the fingerprints of secrets, one a line.
func prints(secrets []transport.Secret) (text string) {
	for _, s := range secrets {
		text += s.Fingerprint() + "\n"
	}
	return text
}

func (n *Node) makeSecret() {
	made := transport.NewSecret()
	n.secrets, n.joinToken = []transport.Secret{made}, made.Reveal()
}

// hasOthers reports whether the cluster had other nodes when this one looked last.
func (n *Node) hasOthers(id *steward.Identity) bool {
	if id == nil {
		return false
	}
	for node := range id.Peers {
		if string(node) != n.cfg.NodeID {
			return true
		}
	}
	return false
}

// keptSecrets are those of the last start. The file comes first; without it, what was
// kept with the cluster's name.
func (n *Node) keptSecrets(id *steward.Identity) ([]transport.Secret, error) {
	path := filepath.Join(n.cfg.MetadataPath, secretName)
	text, err := readStart(n.cfg.FS, opSecretRead, path, secretLimit)
	if err != nil || text == nil {
		if id != nil && err == nil {
			return id.Secrets, nil
		}
		return nil, err
	}
	secrets, err := parseSecrets(string(text))
	if err != nil {
		return nil, object.Errorf(object.KindCorrupt, "%s: %w: restore the file from a backup or from another node; a node alone may remove it", path, err)
	}
	return secrets, nil
}

// givenSecrets are those of the configuration.
func (n *Node) givenSecrets() ([]transport.Secret, error) {
	text := n.cfg.Secret
	if path := n.cfg.SecretFile; path != "" {
		if text != "" {
			return nil, object.Errorf(object.KindInvalid, "the cluster's secret is given twice, as a text and as the file %s: give one of them", path)
		}
		b, err := readStart(n.cfg.FS, opSecretRead, path, secretLimit)
		if err == nil && b == nil {
			err = fs.ErrNotExist
		}
		if err != nil {
			return nil, object.Errorf(object.KindInvalid, "the cluster's secret cannot be read: copy the file from the cluster's first node: %s: %w", path, err)
		}
		if text = string(b); strings.TrimSpace(text) == "" {
			return nil, object.Errorf(object.KindInvalid, "%s is empty: put the join token into it", path)
		}
	}
	if text == "" {
		return nil, nil
	}
	secrets, err := parseSecrets(text)
	if err != nil {
		return nil, object.Errorf(object.KindInvalid, "the cluster's secret: %w", err)
	}
	return secrets, nil
}

// parseSecrets reads one secret a line, the current one first; empty lines and those
// that begin with # are for people.
func parseSecrets(text string) (secrets []transport.Secret, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		s, err := transport.ParseSecret(line)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(secrets, s) {
			secrets = append(secrets, s)
		}
	}
	if len(secrets) == 0 {
		return nil, object.Errorf(object.KindInvalid, "there is no secret in it")
	}
	return secrets, nil
}

// keepSecrets writes them down before anybody is told; those that this start made
// also to the file that was to have them.
func (n *Node) keepSecrets(secrets []transport.Secret) error {
	var b strings.Builder
	for _, s := range secrets {
		b.WriteString(s.Reveal() + "\n")
	}
	if path := n.cfg.SecretFile; path != "" && n.joinToken != "" && !n.ready.Load() {
		if err := vfs.WriteBytes(n.cfg.FS, opSecret, path, 0o600, []byte(b.String())); err != nil {
			return object.Errorf(object.KindOf(err), "the new cluster's secret cannot be written to %s: %w", path, err)
		}
	}
	if err := vfs.WriteBytes(n.cfg.FS, opSecret, filepath.Join(n.cfg.MetadataPath, secretName), 0o600, []byte(b.String())); err != nil {
		return err
	}
	if n.cfg.Secret == "" {
		return nil
	}
	// After the secrets: a crash in between has the same text taken once more.
	return vfs.WriteBytes(n.cfg.FS, opGiven, filepath.Join(n.cfg.MetadataPath, givenName), 0o600, []byte(prints(secrets)))
}

// forgetGiven drops what an earlier start was given as text, where this one was given
// none: the same text is news then. Before the secrets are kept: a crash in between
// leaves those of before, and the next text counts.
func (n *Node) forgetGiven() error {
	if n.cfg.Secret != "" {
		return nil
	}
	if err := n.cfg.FS.Remove(opGiven, filepath.Join(n.cfg.MetadataPath, givenName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return n.cfg.FS.SyncDir(opGiven, n.cfg.MetadataPath) // also what a start before removed
}

// JoinToken is the cluster's secret if this start made it, to be shown once; else "".
func (n *Node) JoinToken() string { return n.joinToken }

// secretWatcher follows the file of the secrets, so that they are changed without a
// restart: add the new one everywhere, make it the first everywhere, take the old one out.
func (n *Node) secretWatcher() {
	if len(n.secrets) == 0 || n.cfg.Peer == "" {
		return
	}
	path := n.cfg.SecretFile
	if path == "" {
		path = filepath.Join(n.cfg.MetadataPath, secretName)
	}
	now, seen := n.secrets, ""
	n.every(secretPoll, func() {
		text, err := readStart(n.cfg.FS, opSecretRead, path, secretLimit)
		if err == nil && text == nil {
			err = fs.ErrNotExist
		}
		if err == nil && string(text) == seen {
			return
		}
		var secrets []transport.Secret
		if err == nil {
			if secrets, err = parseSecrets(string(text)); err == nil && !slices.Equal(secrets, now) {
				err = n.changeSecrets(secrets)
			}
		}
		if err != nil {
			n.logged("the cluster's secrets in "+path+" (the ones before stay in use)", err)
			return
		}
		now, seen = secrets, string(text)
	})
}

// changeSecrets takes other secrets into use.
func (n *Node) changeSecrets(secrets []transport.Secret) error {
	var prints []string
	for _, s := range secrets {
		prints = append(prints, s.Fingerprint())
	}
	if n.cfg.SecretFile != "" {
		if err := n.keepSecrets(secrets); err != nil {
			return err
		}
	}
	if err := n.net.SetSecrets(secrets...); err != nil {
		return err
	}
	if err := n.steward.SetSecrets(secrets); err != nil {
		return err
	}
	n.log.Info("the cluster's secrets have changed; the first is current", "fingerprints", prints)
	return nil
}

// onLoopback reports whether all of these, host:port, are of this machine alone.
func onLoopback(addresses ...string) bool {
	for _, a := range addresses {
		host, _, err := net.SplitHostPort(a)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// bind opens the port for other nodes, and says where they reach it.
func (n *Node) bind(ctx context.Context) (net.Listener, error) {
	if n.cfg.Peer == "" {
		return nil, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", n.cfg.Peer)
	if err != nil {
		return nil, object.Errorf(object.KindUnavailable, "the port for other nodes, %s, does not open (another process may use it): choose another address with -http: %w", n.cfg.Peer, err)
	}
	host, _, _ := net.SplitHostPort(n.cfg.Peer)
	bound := l.Addr().(*net.TCPAddr)
	if n.cfg.Advertise != "" {
		host = n.cfg.Advertise
	} else if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = ownAddress(); err != nil {
			_ = l.Close()
			return nil, err
		}
	}
	n.peerAddress = reachedAt(host, bound.Port)
	return l, nil
}

// reachedAt adds the port to a host that has none.
func reachedAt(host string, port int) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
}

// ownAddress is the machine's only address that others can reach.
func ownAddress() (string, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	var found []string
	for _, a := range list {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			found = append(found, ip.IP.String())
		}
	}
	if len(found) != 1 {
		return "", object.Errorf(object.KindInvalid, "this machine has %d addresses (%s): say with --advertise at which of them, or under which name, other nodes reach this one", len(found), strings.Join(found, ", "))
	}
	return found[0], nil
}
