package transport

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	secretBytes    = 32
	secretPrefix   = "bdb1-"
	secretChecksum = 4
)

// Secret is the cluster's secret: whoever holds it is a node. Its String hides it; Reveal does not.
type Secret struct{ key [secretBytes]byte }

// NewSecret makes a random secret.
func NewSecret() Secret {
	var s Secret
	_, _ = rand.Read(s.key[:]) // never fails: crypto/rand ends the process instead
	return s
}

// ParseSecret reads what Reveal wrote; case and surrounding space do not
// matter. KindInvalid says whether it is no secret at all or has a typo.
func ParseSecret(text string) (Secret, error) {
	t := strings.ToLower(strings.TrimSpace(text))
	body, ok := strings.CutPrefix(t, secretPrefix)
	if !ok {
		return Secret{}, object.Errorf(object.KindInvalid, "a cluster secret begins with %s; copy the one that bootstrap printed", secretPrefix)
	}
	raw, err := secretText().DecodeString(strings.ToUpper(body))
	if err != nil || len(raw) != secretBytes+secretChecksum {
		return Secret{}, object.Errorf(object.KindInvalid, "the cluster secret is cut off or has a character that cannot be in it; copy it again")
	}
	var s Secret
	copy(s.key[:], raw)
	// The last character carries spare bits: only the canonical spelling counts.
	if !bytes.Equal(raw[secretBytes:], s.checksum()) || s.Reveal() != t {
		return Secret{}, object.Errorf(object.KindInvalid, "the cluster secret has a typo (its checksum is wrong); copy it again")
	}
	return s, nil
}

func secretText() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }

func (s Secret) checksum() []byte {
	sum := sha256.Sum256(append([]byte("bucketdb secret checksum 1"), s.key[:]...))
	return sum[:secretChecksum]
}

// Reveal is the secret's text form, for the one place where it is shown or stored.
func (s Secret) Reveal() string {
	raw := append(s.key[:], s.checksum()...)
	return secretPrefix + strings.ToLower(secretText().EncodeToString(raw))
}

// String is a fingerprint that tells secrets apart and gives nothing away.
func (s Secret) String() string { return "secret " + s.Fingerprint() }

// GoString keeps %#v from printing the key.
func (s Secret) GoString() string { return s.String() }

// Fingerprint is 8 hexadecimal digits derived from the secret, safe to log.
func (s Secret) Fingerprint() string { return hex.EncodeToString(s.derive("fingerprint", 4)) }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

func (s Secret) derive(purpose string, n int) []byte {
	out, err := hkdf.Key(sha256.New, s.key[:], nil, "bucketdb cluster "+purpose+" 1", n)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return out
}

// authority is what one secret gives: a CA, the same on every node, and the
// name a dialler must know before it is shown anything.
type authority struct {
	secret     Secret
	serverName string
	key        ed25519.PrivateKey
	cert       *x509.Certificate
	roots      *x509.CertPool
}

func newAuthority(s Secret) (*authority, error) {
	if s.IsZero() {
		return nil, object.Errorf(object.KindInvalid, "an empty cluster secret; leave it out to run without one on loopback")
	}
	key := ed25519.NewKeyFromSeed(s.derive("ca key", ed25519.SeedSize))
	name := hex.EncodeToString(s.derive("server name", 20))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		// The subject differs by secret: chains are built by it.
		Subject: pkix.Name{CommonName: "bucketdb " + name},
		// Fixed, so that every node makes the same certificate; leaves expire.
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, errors.Join(errors.New("deriving the cluster's certificate authority"), err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &authority{secret: s, serverName: name, key: key, cert: cert, roots: roots}, nil
}
