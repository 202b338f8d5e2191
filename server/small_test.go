package server

import "testing"

// A declared digest of an attribute's value is checked, or refused.
func TestDigestsOfSmallBodies(t *testing.T) {
	f := newFixture(t, Options{})
	f.want(201, "PUT", "/objects/assets/o", "whole")
	for _, h := range []string{"Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==", "x-amz-checksum-crc32: AAAAAA==", "x-amz-checksum-sha512: AAAA",
		"Content-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", "X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "Content-Encoding: gzip"} {
		a := f.ask("PUT", "/objects/assets/o?xattr=user.x", "value", h)
		if a.status < 400 {
			t.Errorf("%s: %d", h, a.status)
		}
	}
	// The same of a marker, whose body is empty.
	for _, h := range []string{"Content-MD5: AAAAAAAAAAAAAAAAAAAAAA=="} {
		a := f.ask("PUT", "/objects/assets/dir/", "", h)
		if a.status < 400 {
			t.Errorf("%s: %d", h, a.status)
		}
	}
}
