package server

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// crc64NVME is the polynomial of CRC-64/NVME, reflected (NVM Express Command
// Set Specification, 5.2.1.3.4).
const crc64NVME = 0x9a6c9329ac4bc9b5

// declared is one digest that a client announced for its body.
type declared struct {
	name string // as the client wrote it, for the message
	want []byte
	sum  hash.Hash
}

// newHash makes the hash of an algorithm by its name in x-amz-checksum-* and
// Content-Digest; nil: not known here.
func newHash(name string) hash.Hash {
	switch name {
	case "md5":
		return md5.New()
	case "sha1":
		return sha1.New()
	case "sha256", "sha-256":
		return sha256.New()
	case "sha-512":
		return sha512.New()
	case "crc32":
		return crc32.NewIEEE()
	case "crc32c":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "crc64nvme":
		return crc64.New(crc64.MakeTable(crc64NVME))
	}
	return nil
}

// amzChecksums are the algorithms of x-amz-checksum-*.
func amzChecksums() []string { return []string{"crc32", "crc32c", "crc64nvme", "sha1", "sha256"} }

// amzChecksumHeader starts the names of x-amz-checksum-*.
const amzChecksumHeader = "X-Amz-Checksum-"

// declaredDigests reads all digests that a request declares: Content-Digest
// (RFC 9530), Content-MD5, x-amz-checksum-* and x-amz-content-sha256. Of the
// last three, one that is not checked here is refused and not ignored.
func declaredDigests(h http.Header) ([]declared, error) {
	if err := refuseUnchecked(h); err != nil {
		return nil, err
	}
	var all []declared
	add := func(header, algorithm, value string, decode func(string) ([]byte, error)) error {
		sum := newHash(algorithm)
		want, err := decode(value)
		if err != nil || len(want) != sum.Size() {
			return object.Errorf(object.KindInvalid, "%s is not the digest of %d bytes that belongs there: %q", header, sum.Size(), value)
		}
		all = append(all, declared{header, want, sum})
		return nil
	}
	base64Of := base64.StdEncoding.DecodeString
	for _, v := range h["Content-Md5"] {
		if err := add("Content-MD5", "md5", v, base64Of); err != nil {
			return nil, err
		}
	}
	for _, a := range amzChecksums() {
		for _, v := range h.Values(amzChecksumHeader + a) {
			if err := add("x-amz-checksum-"+a, a, v, base64Of); err != nil {
				return nil, err
			}
		}
	}
	for _, v := range h["X-Amz-Content-Sha256"] {
		if v == unsignedPayload {
			continue
		}
		if err := add("x-amz-content-sha256", "sha256", v, hex.DecodeString); err != nil {
			return nil, err
		}
	}
	if v := h.Values("Content-Digest"); len(v) > 0 {
		digests, err := parseContentDigest(strings.Join(v, ","))
		if err != nil {
			return nil, err
		}
		for _, d := range digests {
			if err := add("Content-Digest "+d[0], d[0], d[1], base64Of); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// unsignedPayload stands in x-amz-content-sha256 where no digest is declared.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// refuseUnchecked refuses what announces a digest, or a framing of the body,
// that is not known here: the client counts on it.
func refuseUnchecked(h http.Header) error {
	for name, values := range h {
		algorithm, isChecksum := strings.CutPrefix(name, amzChecksumHeader)
		if isChecksum && !slices.ContainsFunc(amzChecksums(), func(known string) bool { return strings.EqualFold(known, algorithm) }) {
			return object.Errorf(object.KindNotSupported, "%s is not checked here; use x-amz-checksum-%s, or leave it out", name, strings.Join(amzChecksums(), ", -"))
		}
		streaming := name == "X-Amz-Content-Sha256" && strings.HasPrefix(strings.Join(values, ","), "STREAMING-")
		if streaming || name == "X-Amz-Trailer" {
			return object.Errorf(object.KindNotSupported, "%s: %q announces chunks inside of the body, which are not taken apart here; send the bytes as they are to be stored",
				name, strings.Join(values, ","))
		}
	}
	return nil
}

// parseContentDigest reads "sha-256=:BASE64:, sha-512=:BASE64:" and returns the
// pairs of those algorithms that RFC 9530 calls active; others are ignored, as
// it asks.
func parseContentDigest(header string) (pairs [][2]string, err error) {
	for _, member := range strings.Split(header, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue
		}
		name, value, found := strings.Cut(member, "=")
		if !found || len(value) < 2 || value[0] != ':' || value[len(value)-1] != ':' {
			return nil, object.Errorf(object.KindInvalid, `Content-Digest %q is not understood; write "sha-256=:BASE64:"`, header)
		}
		if name == "sha-256" || name == "sha-512" {
			pairs = append(pairs, [2]string{name, value[1 : len(value)-1]})
		}
	}
	return pairs, nil
}

// verifier passes a body on and fails with KindDigest where it would end, if it
// is not the one that was declared. When the length is known it withholds the
// last bytes of a wrong body, so that a reader who counts notices too.
type verifier struct {
	r       io.Reader
	left    int64 // bytes still expected; negative: unknown
	digests []declared
	err     error
}

// verify wraps r where digests were declared. An empty body is judged at once:
// nobody may ask for its bytes.
func verify(r io.Reader, size int64, digests []declared) (io.Reader, error) {
	if len(digests) == 0 {
		return r, nil
	}
	v := &verifier{r: r, left: size, digests: digests}
	if size == 0 {
		return v, v.compare()
	}
	return v, nil
}

// verifyWhole is verify for the whole of what is stored. Its SHA-256 becomes
// known when the client declared one; hashing every byte for it a second time
// (each chunk has a hash of its own) would cost large bodies a third of the CPU.
func verifyWhole(r io.Reader, size int64, digests []declared) (io.Reader, error) {
	checked, err := verify(r, size, digests)
	if err != nil {
		return nil, err
	}
	return replication.Unsummed(checked, func() []byte {
		for _, d := range digests {
			if len(d.want) == sha256.Size { // no other digest here has its length
				return d.want
			}
		}
		return nil
	}), nil
}

func (v *verifier) Read(b []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(b)
	for _, d := range v.digests {
		d.sum.Write(b[:n])
	}
	known := v.left >= 0
	if known {
		v.left -= int64(n)
	}
	if err == io.EOF || (known && v.left <= 0) {
		if bad := v.compare(); bad != nil {
			v.err = bad
			return 0, bad
		}
	}
	return n, err
}

func (v *verifier) compare() error {
	for _, d := range v.digests {
		if got := d.sum.Sum(nil); !bytes.Equal(got, d.want) {
			return object.Errorf(object.KindDigest, "%s declares %s, but the body that arrived has %s",
				d.name, base64.StdEncoding.EncodeToString(d.want), base64.StdEncoding.EncodeToString(got))
		}
	}
	return nil
}
