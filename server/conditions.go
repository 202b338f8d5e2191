package server

import (
	"net/http"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// parseETags reads a list of entity tags (RFC 9110 section 8.8.3). A weak tag
// keeps its W/ where weak says so and is left out where the comparison is
// strong: it matches nothing there.
func parseETags(header string, weak bool) ([]string, error) {
	bad := func() ([]string, error) {
		return nil, object.Errorf(object.KindInvalid, `%q is not a list of entity tags; write "TAG" with its quotes, or *`, header)
	}
	rest := strings.Trim(header, " \t")
	if rest == "*" {
		return []string{"*"}, nil
	}
	tags := []string{}
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			break
		}
		isWeak := strings.HasPrefix(rest, "W/")
		rest = strings.TrimPrefix(rest, "W/")
		if rest == "" || rest[0] != '"' {
			return bad()
		}
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return bad()
		}
		tag := rest[1 : 1+end]
		rest = strings.TrimLeft(rest[end+2:], " \t")
		if rest != "" && rest[0] != ',' {
			return bad()
		}
		if !isWeak || weak {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 && strings.Trim(header, " \t,") == "" {
		return bad()
	}
	if len(tags) == 0 {
		tags = append(tags, "W/") // weak tags only: a list that matches no strong tag
	}
	return tags, nil
}

// conditionsOf reads the conditional headers. Dates that are not understood
// are ignored, as RFC 9110 asks (a mutation refuses them: checkDates); tags are not: a write must not go through
// because its condition was misread.
func conditionsOf(h http.Header) (c replication.Conditions, err error) {
	if v := h["If-Match"]; len(v) > 0 {
		if c.IfMatch, err = parseETags(strings.Join(v, ","), false); err != nil {
			return c, err
		}
	}
	if v := h["If-None-Match"]; len(v) > 0 {
		if c.IfNoneMatch, err = parseETags(strings.Join(v, ","), true); err != nil {
			return c, err
		}
	}
	if v := h["If-Modified-Since"]; len(v) == 1 && c.IfNoneMatch == nil {
		c.IfModifiedSince = parseDate(v[0])
	}
	if v := h["If-Unmodified-Since"]; len(v) == 1 && c.IfMatch == nil {
		c.IfUnmodifiedSince = parseDate(v[0])
	}
	return c, nil
}

// checkDates refuses the dates of a mutation that conditionsOf ignored because
// it did not understand them: the change would go through unconditionally.
func checkDates(h http.Header, c replication.Conditions) error {
	for _, d := range []struct {
		name    string
		ignored bool
	}{
		{"If-Unmodified-Since", c.IfUnmodifiedSince.IsZero() && c.IfMatch == nil},
		{"If-Modified-Since", c.IfModifiedSince.IsZero() && c.IfNoneMatch == nil},
	} {
		if v := h[d.name]; len(v) > 0 && d.ignored {
			return object.Errorf(object.KindInvalid, `%s: %q is not one HTTP date; write it once, such as "Mon, 02 Jan 2006 15:04:05 GMT"`, d.name, strings.Join(v, ", "))
		}
	}
	return nil
}

func parseDate(s string) time.Time {
	t, err := http.ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// isUnconditional reports that c asks nothing.
func isUnconditional(c replication.Conditions) bool {
	return c.IfMatch == nil && c.IfNoneMatch == nil && c.IfModifiedSince.IsZero() && c.IfUnmodifiedSince.IsZero()
}

// judgeRead evaluates the conditions of a read in the order of RFC 9110 section
// 13.2.2. The error is KindPrecondition (412) or KindNotModified (304).
func judgeRead(c replication.Conditions, n *object.Inode) error {
	if isUnconditional(c) {
		return nil
	}
	etag, modified := n.ETag(), time.Unix(0, n.Mtime).Truncate(time.Second)
	switch {
	case c.IfMatch != nil && !matches(c.IfMatch, etag):
		return object.Errorf(object.KindPrecondition, "If-Match does not hold: the ETag is %q", etag)
	case !c.IfUnmodifiedSince.IsZero() && modified.After(c.IfUnmodifiedSince):
		return object.Errorf(object.KindPrecondition, "If-Unmodified-Since does not hold: it was modified %s", modified.UTC().Format(time.RFC3339))
	case c.IfNoneMatch != nil && matches(c.IfNoneMatch, etag):
		return object.Errorf(object.KindNotModified, "not modified")
	case !c.IfModifiedSince.IsZero() && !modified.After(c.IfModifiedSince):
		return object.Errorf(object.KindNotModified, "not modified")
	}
	return nil
}

func matches(tags []string, etag string) bool {
	for _, t := range tags {
		if t == "*" || t == etag {
			return true
		}
	}
	return false
}

// ifRangeHolds judges If-Range (RFC 9110 section 13.1.5): a strong tag that is
// equal, or exactly the date of the last modification.
func ifRangeHolds(header string, n *object.Inode) bool {
	if header == "" {
		return true
	}
	if header[0] == '"' {
		return header == `"`+n.ETag()+`"`
	}
	t, err := http.ParseTime(header)
	return err == nil && t.Equal(time.Unix(0, n.Mtime).Truncate(time.Second))
}
