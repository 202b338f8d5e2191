package server

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestHeadersOfAFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &object.Inode{ID: object.InodeID(rapid.Uint64().Draw(t, "id")), Type: object.TypeRegular,
			Version: rapid.Uint64().Draw(t, "version"), Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
			Mtime: rapid.Int64Range(0, 1<<62).Draw(t, "mtime"), ETagValue: rapid.SampledFrom([]string{"", "abc", string(make([]byte, 300))}).Draw(t, "etag"),
			UID: rapid.Uint32().Draw(t, "uid"), ContentType: rapid.SampledFrom([]string{"", "text/plain"}).Draw(t, "type"),
			SHA256: rapid.SampledFrom([][]byte{nil, make([]byte, 32)}).Draw(t, "sha256"), Meta: map[string]string{"some-name": "v"}}
		h := http.Header{}
		setHeaders(h, n)
		want := map[string]string{"Etag": `"` + n.ETag() + `"`, "Last-Modified": time.Unix(0, n.Mtime).UTC().Format(http.TimeFormat),
			api.HeaderMtime: strconv.FormatInt(n.Mtime, 10), api.HeaderInode: n.ID.String(), api.HeaderVersion: strconv.FormatUint(n.Version, 10),
			api.HeaderMode: strconv.FormatUint(uint64(n.Mode), 8), "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff",
			"Content-Type": contentTypeOf(n), api.HeaderMeta + "Some-Name": "v"}
		if n.UID != 0 {
			want[api.HeaderUID], want[api.HeaderGID] = strconv.FormatUint(uint64(n.UID), 10), "0"
		}
		if n.SHA256 != nil {
			want[api.HeaderSHA256] = hex.EncodeToString(n.SHA256)
		}
		for name, value := range want {
			if name != http.CanonicalHeaderKey(name) || len(h[name]) != 1 || h[name][0] != value {
				t.Errorf("%s: %q, want %q", name, h[name], value)
			}
		}
		if len(h) != len(want) {
			t.Errorf("%d headers, want %d: %v", len(h), len(want), h)
		}
	})
}
