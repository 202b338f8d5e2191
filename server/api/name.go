package api

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Name is a name, key, cursor or link target: any bytes. In JSON it is a plain
// string when it is valid UTF-8 and {"base64": "..."} when it is not, so that
// nothing is lost.
type Name string

// rawName is the form of a name that is not UTF-8.
type rawName struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON writes either form.
func (n Name) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(n)) {
		return json.Marshal(string(n))
	}
	return json.Marshal(rawName{[]byte(n)})
}

// UnmarshalJSON reads either form.
func (n *Name) UnmarshalJSON(b []byte) error {
	var (
		r   rawName
		s   string
		err error
	)
	if len(b) > 0 && b[0] == '{' {
		err = json.Unmarshal(b, &r)
		s = string(r.Base64)
	} else {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return object.Errorf(object.KindInvalid, `a name is a string or {"base64": "..."}: %w`, err)
	}
	*n = Name(s)
	return nil
}

// EscapeKey percent-encodes a key as the rest of a URL path, so that it arrives
// byte for byte: '/' stays, except where proxies like to tidy up (at the start
// and behind another '/'), and the components "." and ".." are encoded too.
func EscapeKey(key string) string {
	var b strings.Builder
	b.Grow(len(key) + 8)
	for i, part := range strings.Split(key, "/") {
		if i > 0 {
			slash := "/"
			if s := b.String(); s == "" || strings.HasSuffix(s, "/") || strings.HasSuffix(s, "%2F") {
				slash = "%2F"
			}
			b.WriteString(slash)
		}
		if part == "." || part == ".." {
			b.WriteString(strings.ReplaceAll(part, ".", "%2E"))
			continue
		}
		escapeInto(&b, part)
	}
	return b.String()
}

// escapeInto writes s with all but RFC 3986's unreserved characters encoded.
func escapeInto(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
}
