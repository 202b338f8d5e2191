package api

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func FuzzName(f *testing.F) {
	for _, s := range []string{"", "plain", "münze", "\xff\x00", `{"base64":"x"}`, "<&>\u2028", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		raw, err := json.Marshal(Name(s))
		if err != nil {
			t.Fatal(err)
		}
		var back Name
		if err := json.Unmarshal(raw, &back); err != nil || string(back) != s {
			t.Fatalf("%q became %s, then %q (%v)", s, raw, back, err)
		}
	})
}

func FuzzNameJSON(f *testing.F) {
	for _, s := range []string{`"a"`, `{"base64":"/w=="}`, `{"base64":1}`, `{}`, `[`, `null`, `7`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n Name
		if err := n.UnmarshalJSON([]byte(s)); err != nil && !object.IsKind(err, object.KindInvalid) {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

func FuzzEscapeKey(f *testing.F) {
	for _, s := range []string{"a/b", "/lead", "a//b", "a/./b", "..", "dir/", "///", "a+b c%2F", "ключ", "\xff", "a?b#c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		e := EscapeKey(key)
		back, err := url.PathUnescape(e)
		if err != nil || back != key {
			t.Fatalf("%q became %q, then %q (%v)", key, e, back, err)
		}
		for _, part := range strings.Split("x/"+e, "/")[1:] {
			if part == "." || part == ".." || (part == "" && !strings.HasSuffix(e, "/") && e != "") {
				t.Fatalf("%q became %q, which a proxy may tidy up", key, e)
			}
		}
		if strings.ContainsAny(e, "?#+ ") || strings.HasPrefix(e, "/") || strings.Contains(e, "//") {
			t.Fatalf("%q became %q", key, e)
		}
	})
}

func FuzzSince(f *testing.F) {
	for _, s := range []string{"", "1:2", "1:2,3:4", "1", ":", "65536:1", "1:-1", ",,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		since, err := ParseSince(s)
		if err != nil {
			return
		}
		back, err := ParseSince(FormatSince(since))
		if err != nil || !reflect.DeepEqual(since, back) {
			t.Fatalf("%q: %v became %v (%v)", s, since, back, err)
		}
	})
}

func TestInodeSurvivesJSON(t *testing.T) {
	in := &object.Inode{
		ID: object.NewInodeID(63, 1<<41, 255), Type: object.TypeRegular, Mode: 0o4755, UID: 1<<32 - 1, GID: 7, Nlink: 3, Size: object.MaxFileSize,
		Blocks: 12, Atime: 1<<62 + 1, Mtime: -1, Ctime: 1785000000123456789, Btime: 4, Version: 1 << 41, Change: 1<<41 + 1, Inline: true,
		Target: "\xff/x", Rdev: 9, Parent: object.RootInode, Implicit: true, ContentType: "text/plain", SHA256: []byte{1, 2},
		Meta: map[string]string{"a": "ü"}, Xattrs: map[string][]byte{"user.\xfe": {0, 255}, "user.empty": {}},
	}
	for _, etag := range []string{"", "given-1"} {
		in.ETagValue = etag
		raw, err := json.Marshal(Inode{in})
		if err != nil {
			t.Fatal(err)
		}
		var out Inode
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if !reflect.DeepEqual(out.Inode, in) {
			t.Errorf("%s\n got %+v\nwant %+v", raw, out.Inode, in)
		}
	}
}

func TestEveryKindHasStatusAndHint(t *testing.T) {
	for k := object.Kind(0); !strings.HasPrefix(k.String(), "Kind("); k++ {
		if s := Status(k); s < 300 || s > 599 {
			t.Errorf("%v: status %d", k, s)
		}
		if Hint(k) == "" {
			t.Errorf("%v has no hint", k)
		}
		if k != object.KindInternal && Hint(k) == Hint(object.KindInternal) {
			t.Errorf("%v is missing in the table", k)
		}
	}
}
