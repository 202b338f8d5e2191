package server

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestRanges(t *testing.T) {
	for _, tc := range []struct {
		header string
		size   int64
		want   string // "ignored", or the spans
	}{
		{"bytes=0-9", 100, "[{0 10}]"},
		{"bytes=90-", 100, "[{90 10}]"},
		{"bytes=-5", 100, "[{95 5}]"},
		{"bytes=-500", 100, "[{0 100}]"},
		{"bytes=0-0, 50-59 ,", 1000, "[{0 60}]"},
		{"bytes=0-0,500-509", 1000, "[{0 1} {500 10}]"},
		{"bytes=500-509,0-0", 1000, "[{500 10} {0 1}]"},
		{"bytes=0-100,50-200", 1000, "[{0 201}]"},
		{"bytes=0-0,900-909,0-900", 1000, "[{0 910}]"},
		{"BYTES=1-2", 100, "[{1 2}]"},
		{"bytes=100-", 100, "[]"},
		{"bytes=-0", 100, "[]"},
		{"bytes=0-", 0, "[]"},
		{"bytes=99999999999999999999-", 100, "[]"},
		{"bytes=0-99999999999999999999", 100, "[{0 100}]"},
		{"bytes=5-4", 100, "ignored"},
		{"bytes=", 100, "ignored"},
		{"bytes=-", 100, "ignored"},
		{"bytes=+1-2", 100, "ignored"},
		{"bytes=a-b", 100, "ignored"},
		{"lines=1-2", 100, "ignored"},
		{"1-2", 100, "ignored"},
		{"bytes=" + strings.Repeat("0-1,", 70), 100, "ignored"},
	} {
		got := "ignored"
		if ranges, ok := parseRange(tc.header); ok {
			got = strings.ReplaceAll(fmt.Sprint(resolveRanges(ranges, tc.size)), "[]", "[]")
		}
		if got != tc.want {
			t.Errorf("%q of %d: %s, want %s", tc.header, tc.size, got, tc.want)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-9", "bytes=-5", "bytes=5-", "bytes=1-2,4-5,9-9", "bytes=", "x", "bytes=0-0,-1,,", "bytes=9223372036854775807-"} {
		f.Add(s, int64(100))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			size = -(size + 1)
		}
		ranges, ok := parseRange(header)
		if !ok {
			return
		}
		var total int64
		spans := resolveRanges(ranges, size)
		for i, s := range spans {
			if s.length <= 0 || s.offset < 0 || s.end() > size || s.end() < s.offset {
				t.Fatalf("%q of %d: span %+v", header, size, s)
			}
			for _, o := range spans[:i] {
				if s.offset < o.end() && o.offset < s.end() {
					t.Fatalf("%q of %d: %+v and %+v overlap", header, size, o, s)
				}
			}
			total += s.length
		}
		if total > size {
			t.Fatalf("%q of %d: %d bytes", header, size, total)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/*", "bytes 5-4/*", "bytes */*", "bytes 0-9/10", "bytes 0-99999999999999999999/*", "", "bytes", "bytes -/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		s, err := parseContentRange(header)
		if err != nil {
			if k := object.KindOf(err); k != object.KindInvalid && k != object.KindTooLarge {
				t.Fatalf("%q: %v", header, err)
			}
			return
		}
		if s.offset < 0 || s.length <= 0 || s.end() > object.MaxFileSize {
			t.Fatalf("%q: %+v", header, s)
		}
	})
}

func FuzzDecodeKey(f *testing.F) {
	for _, s := range []string{"/a/b", "/%2Fa", "//a", "/a%2F%2Fb", "/.", "/../x", "/a/", "/%ff", "/%00", "/%zz", "", "/a+b", "/%252F"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		key, err := decodeKey(escaped)
		if err != nil {
			if k := object.KindOf(err); k != object.KindInvalid && k != object.KindNameTooLong {
				t.Fatalf("%q: %v", escaped, err)
			}
			return
		}
		again, err := decodeKey("/" + api.EscapeKey(key))
		if err != nil || again != key {
			t.Fatalf("%q is %q, then %q (%v)", escaped, key, again, err)
		}
	})
}

func FuzzETags(f *testing.F) {
	for _, s := range []string{`"a"`, `*`, `"a", W/"b"`, `W/"b"`, `"a`, `a`, ``, `,`, `"a" "b"`, `"a,b","c"`} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, header string, weak bool) {
		tags, err := parseETags(header, weak)
		if err == nil && len(tags) == 0 {
			t.Fatalf("%q is no condition at all", header)
		}
	})
}

func FuzzContentDigest(f *testing.F) {
	for _, s := range []string{"sha-256=:AA==:", "sha-512=:x:, md5=:y:", "sha-256=", "a=b", "", ",,", "sha-256=:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		_, err := declaredDigests(http.Header{"Content-Digest": {header}})
		if err != nil && !object.IsKind(err, object.KindInvalid) {
			t.Fatalf("%q: %v", header, err)
		}
	})
}

func FuzzTokenHeaders(f *testing.F) {
	f.Add("00000000000000000000000000000001", "7", "3", "1")
	f.Add("x", "", "", "")
	f.Fuzz(func(t *testing.T, id, seq, ack, retry string) {
		tok, err := token(http.Header{api.HeaderSession: {id}, api.HeaderSeq: {seq}, api.HeaderAck: {ack}, api.HeaderRetry: {retry}})
		if err == nil && id != "" && (tok.Seq == 0 || tok.Session.IsZero() || tok.Ack >= tok.Seq) {
			t.Fatalf("%+v", tok)
		}
	})
}

func TestDigests(t *testing.T) {
	body := "123456789"
	b64 := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	sha := sha256.Sum256([]byte(body))
	sum5 := md5.Sum([]byte(body))
	c32c := crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli))
	good := map[string]string{
		"Content-Digest":           "sha-256=:" + b64(sha[:]) + ":, unknown=:AA==:",
		"Content-Md5":              b64(sum5[:]),
		"X-Amz-Checksum-sha256":    b64(sha[:]),
		"X-Amz-Checksum-crc32":     b64([]byte{0xcb, 0xf4, 0x39, 0x26}),
		"X-Amz-Checksum-crc32c":    b64([]byte{byte(c32c >> 24), byte(c32c >> 16), byte(c32c >> 8), byte(c32c)}),
		"X-Amz-Checksum-crc64nvme": b64([]byte{0xae, 0x8b, 0x14, 0x86, 0x0a, 0x79, 0x98, 0x88}), // the algorithm's published check value
		"X-Amz-Checksum-Sha1":      "98O8HYCOBHMq32eZZczDTKeuNEE=",
		"X-Amz-Content-Sha256":     hex.EncodeToString(sha[:]),
		"X-Request-Id":             "ignored",
	}
	for name, value := range good {
		for _, wrong := range []bool{false, true} {
			for _, size := range []int64{int64(len(body)), -1} {
				h := http.Header{}
				h.Set(name, value)
				sent := body
				if wrong {
					sent = "123456780"
				}
				digests, err := declaredDigests(h)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				r, err := verify(iotest.OneByteReader(strings.NewReader(sent)), size, digests)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				switch {
				case !wrong || value == "ignored":
					if err != nil || string(got) != sent {
						t.Errorf("%s size %d: %q, %v", name, size, got, err)
					}
				case !object.IsKind(err, object.KindDigest):
					t.Errorf("%s size %d, wrong body: %v", name, size, err)
				case size >= 0 && len(got) >= len(sent):
					t.Errorf("%s: the whole of a wrong body was passed on", name)
				}
			}
		}
	}
	for _, bad := range []string{"sha-256=:AA==:", "sha-256=AA==", "sha-256"} {
		if _, err := declaredDigests(http.Header{"Content-Digest": {bad}}); !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := verify(strings.NewReader(""), 0, []declared{{"x", []byte{1}, newHash("md5")}}); !object.IsKind(err, object.KindDigest) {
		t.Errorf("empty body: %v", err)
	}
}

func TestBodyErrors(t *testing.T) {
	for _, tc := range []struct {
		in   error
		want object.Kind
	}{{io.ErrUnexpectedEOF, object.KindIncomplete}, {errors.New("reset"), object.KindIncomplete}, {object.Errorf(object.KindDigest, "x"), object.KindDigest}} {
		if got := object.KindOf(bodyError(tc.in, time.Second)); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.in, got, tc.want)
		}
	}
	if bodyError(io.EOF, 0) != io.EOF {
		t.Error("the end is not an error")
	}
}

func TestReadConditions(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 500, time.UTC)
	n := &object.Inode{ID: 9, Type: object.TypeRegular, Version: 4, Mtime: at.UnixNano(), ETagValue: "tag"}
	date := func(d time.Duration) string { return at.Add(d).Format(api.TimeFormat) }
	for _, tc := range []struct {
		header string
		want   object.Kind // KindInternal: holds
	}{
		{`If-Match: "tag"`, 0}, {`If-Match: "x", "tag"`, 0}, {`If-Match: *`, 0}, {`If-Match: W/"tag"`, object.KindPrecondition}, {`If-Match: "x"`, object.KindPrecondition},
		{`If-None-Match: "tag"`, object.KindNotModified}, {`If-None-Match: W/"tag"`, object.KindNotModified}, {`If-None-Match: *`, object.KindNotModified}, {`If-None-Match: "x"`, 0},
		{`If-Modified-Since: ` + date(0), object.KindNotModified}, {`If-Modified-Since: ` + date(-time.Second), 0}, {`If-Modified-Since: garbage`, 0},
		{`If-Unmodified-Since: ` + date(0), 0}, {`If-Unmodified-Since: ` + date(-time.Second), object.KindPrecondition},
		{"If-Match: \"tag\"\nIf-Unmodified-Since: " + date(-time.Hour), 0},
		{"If-None-Match: \"x\"\nIf-Modified-Since: " + date(time.Hour), 0},
		{`If-Match: tag`, object.KindInvalid},
	} {
		h := http.Header{}
		for _, line := range strings.Split(tc.header, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			h.Add(name, value)
		}
		cond, err := conditionsOf(h)
		if err == nil {
			err = judgeRead(cond, n)
		}
		if (err == nil) != (tc.want == 0) || (err != nil && object.KindOf(err) != tc.want) {
			t.Errorf("%s: %v", tc.header, err)
		}
	}
	for header, want := range map[string]bool{"": true, `"tag"`: true, `W/"tag"`: false, `"x"`: false, date(0): true, date(time.Second): false, "x": false} {
		if got := ifRangeHolds(header, n); got != want {
			t.Errorf("If-Range %q: %v", header, got)
		}
	}
}

func TestCheckListen(t *testing.T) {
	for addr, ok := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "127.9.9.9:1": true,
		"0.0.0.0:1": false, ":1": false, "[::]:1": false, "10.0.0.1:1": false, "example.com:1": false} {
		err := CheckListen(addr, false)
		if ok != (err == nil) {
			t.Errorf("%s: %v", addr, err)
		}
		if err != nil && !(strings.Contains(err.Error(), "--allow-anonymous") && strings.Contains(err.Error(), "credentials")) {
			t.Errorf("%s: both ways out are not named: %v", addr, err)
		}
		if err := CheckListen(addr, true); err != nil {
			t.Errorf("%s, allowed: %v", addr, err)
		}
	}
	if err := CheckListen("nonsense", true); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestPutOptions(t *testing.T) {
	h := http.Header{}
	for name, value := range map[string]string{"Content-Type": "text/x", "X-Bucketdb-Meta-Colour": "grün", api.HeaderMode: "4755", api.HeaderUID: "12", api.HeaderMtime: "1500000000123456789"} {
		h.Set(name, value)
	}
	o, err := putOptions(h, 5, replication.Conditions{})
	if err != nil || o.Mode != 0o4755 || o.UID != 12 || o.Meta["colour"] != "grün" || o.Mtime.UnixNano() != 1500000000123456789 || o.Size != 5 {
		t.Errorf("%+v, %v", o, err)
	}
	for name, value := range map[string]string{api.HeaderMode: "99", api.HeaderGID: "-1", api.HeaderMtime: "x", "X-Bucketdb-Meta-A": "\xff"} {
		if _, err := putOptions(http.Header{http.CanonicalHeaderKey(name): {value}}, 0, replication.Conditions{}); !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%s %q: %v", name, value, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("a/b\xff")
	f.Fuzz(func(t *testing.T, after string) {
		got, err := decodeCursor(encodeCursor(after))
		if err != nil || got != after {
			t.Fatalf("%q: %q, %v", after, got, err)
		}
		if _, err := decodeCursor(after); err != nil && !object.IsKind(err, object.KindInvalid) {
			t.Fatal(err)
		}
	})
}

func FuzzIntParam(f *testing.F) {
	f.Add("5")
	f.Add("-1")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := intParam(url.Values{"n": {s}}, "n", 3, 1, 10)
		if err == nil && (v < 1 || v > 10) {
			t.Fatalf("%q: %d", s, v)
		}
	})
}

func TestBodyLimit(t *testing.T) {
	b := &body{r: bytes.NewReader(make([]byte, 11)), rc: http.NewResponseController(nil), idle: time.Hour, limit: 10, max: 10, armed: time.Now()}
	b.rc = http.NewResponseController(discardResponse{})
	if _, err := io.ReadAll(b); !object.IsKind(err, object.KindTooLarge) {
		t.Errorf("%v", err)
	}
}

// discardResponse is a response without a connection.
type discardResponse struct{}

func (discardResponse) Header() http.Header         { return http.Header{} }
func (discardResponse) Write(b []byte) (int, error) { return len(b), nil }
func (discardResponse) WriteHeader(int)             {}
