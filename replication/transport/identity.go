package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A leaf's life. Everyone who can renew a leaf can make one, so it is short
// only to keep a copied key from working for ever; the margins are for clocks
// that differ.
const (
	leafBefore = 48 * time.Hour
	leafAfter  = 5 * 24 * time.Hour
	leafRenew  = 24 * time.Hour
)

// The application protocols offered inside TLS.
const (
	alpnFrames = "bucketdb"
	alpnHTTP   = "http/1.1"
)

// identity is who this node is: its key, and a leaf under each trusted secret.
type identity struct {
	node string
	key  ed25519.PrivateKey
	now  func() time.Time

	mu      sync.Mutex // guards what follows
	cluster string
	former  []string      // ids that it had before
	trusted []*credential // the current one first; empty: no secret
}

// credential is an authority with this node's leaf under it.
type credential struct {
	*authority
	leaf   *tls.Certificate
	issued time.Time
}

func newIdentity(node, cluster string, now func() time.Time, secrets []Secret) (*identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id := &identity{node: node, key: key, now: now, cluster: cluster}
	return id, id.setSecrets(secrets)
}

// setSecrets replaces the trusted set; the first is current.
func (id *identity) setSecrets(secrets []Secret) error {
	var fresh []*credential
	for _, s := range secrets {
		a, err := newAuthority(s)
		if err != nil {
			return err
		}
		fresh = append(fresh, &credential{authority: a})
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.trusted = fresh
	return nil
}

func (id *identity) setCluster(cluster string) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.cluster = cluster
	for _, c := range id.trusted {
		c.leaf = nil // it names the cluster
	}
}

// wasCluster reports whether a cluster is what this one was before a recovery.
func (id *identity) wasCluster(cluster string) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return slices.Contains(id.former, cluster)
}

func (id *identity) setFormer(clusters []string) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.former = slices.Clone(clusters)
}

func (id *identity) clusterID() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cluster
}

// names are the server names of the trusted secrets, the current one first.
func (id *identity) names() []string {
	id.mu.Lock()
	defer id.mu.Unlock()
	var out []string
	for _, c := range id.trusted {
		out = append(out, c.serverName)
	}
	return out
}

// under gives the authority behind a server name and a leaf that is fresh, or an
// error that tells nothing.
func (id *identity) under(serverName string) (*authority, *tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	for _, c := range id.trusted {
		if c.serverName != serverName {
			continue
		}
		now := id.now()
		if age := now.Sub(c.issued); c.leaf == nil || age > leafRenew || age < 0 {
			leaf, err := id.issue(c.authority, now)
			if err != nil {
				return nil, nil, err
			}
			c.leaf, c.issued = leaf, now
		}
		return c.authority, c.leaf, nil
	}
	return nil, nil, object.Errorf(object.KindUnauthenticated, "the peer does not hold a trusted cluster secret")
}

// issue signs a leaf. The caller holds mu.
func (id *identity) issue(a *authority, now time.Time) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: id.node},
		URIs:         []*url.URL{{Scheme: "bucketdb", Host: id.cluster, Path: "/" + id.node}},
		NotBefore:    now.Add(-leafBefore),
		NotAfter:     now.Add(leafAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, id.key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("signing this node's certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: id.key}, nil
}

// verify checks a peer's leaf and reads who it is.
func (id *identity) verify(a *authority, state tls.ConnectionState) (Peer, error) {
	if len(state.PeerCertificates) == 0 {
		return Peer{}, object.Errorf(object.KindUnauthenticated, "the peer showed no certificate")
	}
	leaf := state.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: a.roots, CurrentTime: id.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return Peer{}, object.Errorf(object.KindUnauthenticated,
			"the peer's certificate is not good: %w (compare the clocks of the two nodes, and their cluster secrets)", err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "bucketdb" || len(leaf.URIs[0].Path) < 2 {
		return Peer{}, object.Errorf(object.KindUnauthenticated, "the peer's certificate does not name a node")
	}
	return Peer{Cluster: leaf.URIs[0].Host, Node: leaf.URIs[0].Path[1:]}, nil
}

// serverConfig answers under the secret whose name the dialler knows, else not at all.
func (id *identity) serverConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			a, leaf, err := id.under(hello.ServerName)
			if err != nil {
				return nil, err
			}
			return id.config(a, leaf, alpnFrames, alpnHTTP), nil
		},
	}
}

// clientConfig dials under one of the trusted secrets.
func (id *identity) clientConfig(serverName, alpn string) (*tls.Config, error) {
	a, leaf, err := id.under(serverName)
	if err != nil {
		return nil, err
	}
	c := id.config(a, leaf, alpn)
	c.ServerName = serverName
	return c, nil
}

func (id *identity) config(a *authority, leaf *tls.Certificate, alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*leaf},
		NextProtos:   alpn,
		ClientAuth:   tls.RequireAnyClientCert,
		// The names in our leaves are no host names: verify does what is skipped.
		InsecureSkipVerify: true,
		// A resumed session would not be verified again.
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := id.verify(a, state)
			return err
		},
	}
}

// trusts reports whether the secret behind a server name still counts; "" is
// plain TCP, which counts while there is no secret.
func (id *identity) trusts(serverName string) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	if serverName == "" {
		return len(id.trusted) == 0
	}
	for _, c := range id.trusted {
		if c.serverName == serverName {
			return true
		}
	}
	return false
}
