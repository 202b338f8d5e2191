package steward

import (
	"encoding/hex"
	"encoding/json"
	"path/filepath"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// Identity is what a node keeps of the cluster that it belongs to, beside its store.
type Identity struct {
	Cluster control.ClusterID
	Node    control.NodeID
	Store   control.StoreID
	Secrets []transport.Secret // the first is current; none: a cluster on loopback
	// Peers are where other nodes were reached last, host:port, by node.
	Peers map[control.NodeID]string
	// Former are ids that the cluster had before it was recovered (control.Header).
	Former []control.ClusterID
	// Founding: this node is making the cluster, and may have been stopped in the middle.
	Founding bool
}

const (
	// IdentityName is the file that says which cluster the store belongs to.
	IdentityName    = "CLUSTER.json"
	identityVersion = 1
	maxIdentity     = 1 << 20
)

// identityFile is Identity as stored.
type identityFile struct {
	Version int               `json:"version"`
	Cluster string            `json:"cluster"`
	Node    string            `json:"node"`
	Store   string            `json:"store"`
	Secrets []string          `json:"secrets,omitempty"`
	Peers   map[string]string `json:"peers,omitempty"`
	Former  []string          `json:"former,omitempty"`

	Founding bool `json:"founding,omitempty"`
}

// LoadIdentity reads what this store knows of its cluster: nil when it belongs to
// none yet. KindCorrupt, KindVersion: the file cannot be used.
func LoadIdentity(fsys vfs.FS, dir string) (*Identity, error) {
	name := filepath.Join(dir, IdentityName)
	b, err := readFile(fsys, opIdentity, name, maxIdentity)
	if err != nil || b == nil {
		return nil, err
	}
	id, err := decodeIdentity(b)
	if err != nil {
		return nil, object.Errorf(object.KindOf(err), "%s: %w", name, err)
	}
	return id, nil
}

func (id *Identity) save(fsys vfs.FS, dir string) error {
	f := identityFile{
		Version: identityVersion, Cluster: hex.EncodeToString(id.Cluster[:]), Node: string(id.Node),
		Store: hex.EncodeToString(id.Store[:]), Peers: map[string]string{}, Founding: id.Founding,
	}
	for _, s := range id.Secrets {
		f.Secrets = append(f.Secrets, s.Reveal())
	}
	for _, c := range id.Former {
		f.Former = append(f.Former, hex.EncodeToString(c[:]))
	}
	for node, addr := range id.Peers {
		f.Peers[string(node)] = addr
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := makeDir(fsys, dir); err != nil {
		return err
	}
	return vfs.WriteBytes(fsys, opIdentity, filepath.Join(dir, IdentityName), 0o600, append(b, '\n'))
}

func decodeIdentity(b []byte) (*Identity, error) {
	damaged := func(what string) error {
		return object.Errorf(object.KindCorrupt, "this cannot be read (%s): restore the file from a backup of this very store", what)
	}
	var f identityFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, damaged(err.Error())
	}
	if f.Version > identityVersion {
		return nil, object.Errorf(object.KindVersion, "the file has format %d, this program knows %d: upgrade this program", f.Version, identityVersion)
	}
	id := &Identity{Node: control.NodeID(f.Node), Peers: map[control.NodeID]string{}, Founding: f.Founding}
	if f.Version < 1 || !fixed(id.Cluster[:], f.Cluster) || !fixed(id.Store[:], f.Store) {
		return nil, damaged("cluster or store")
	}
	if r, err := control.ParseReplicaID(f.Node); err != nil || r.Generation != 0 {
		return nil, damaged("the node's id")
	}
	for _, text := range f.Secrets {
		s, err := transport.ParseSecret(text)
		if err != nil {
			return nil, damaged("a secret")
		}
		id.Secrets = append(id.Secrets, s)
	}
	for _, text := range f.Former {
		var c control.ClusterID
		if !fixed(c[:], text) {
			return nil, damaged("a former id of the cluster")
		}
		id.Former = append(id.Former, c)
	}
	for node, addr := range f.Peers {
		id.Peers[control.NodeID(node)] = addr
	}
	return id, nil
}

// fixed reads exactly as many hexadecimal bytes as there is room for.
func fixed(into []byte, text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && copy(into, b) == len(into) && len(b) == len(into)
}

// ClusterName is how a cluster is called at the transport.
func ClusterName(id control.ClusterID) string { return hex.EncodeToString(id[:]) }

func clusterNames(ids []control.ClusterID) (names []string) {
	for _, id := range ids {
		names = append(names, ClusterName(id))
	}
	return names
}
