package server

import (
	"strconv"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// maxRanges is how many ranges one request may ask for; more are ignored as a
// whole, as RFC 9110 section 14.2 permits against abuse.
const maxRanges = 64

// span is a resolved range: length > 0 bytes from offset.
type span struct{ offset, length int64 }

func (s span) end() int64 { return s.offset + s.length }

// parseRange reads a Range header (RFC 9110 section 14). ok is false when the
// header must be ignored: another unit, a mistake in it, or too many ranges.
func parseRange(header string) (ranges []object.Range, ok bool) {
	unit, set, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Count(set, ",") >= maxRanges {
		return nil, false
	}
	for _, spec := range strings.Split(set, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue // a list may have empty elements
		}
		r, ok := parseRangeSpec(spec)
		if !ok {
			return nil, false
		}
		ranges = append(ranges, r)
	}
	return ranges, len(ranges) > 0
}

func parseRangeSpec(spec string) (object.Range, bool) {
	first, last, found := strings.Cut(spec, "-")
	if !found {
		return object.Range{}, false
	}
	end := int64(-1)
	if last != "" {
		var ok bool
		if end, ok = digits(last); !ok {
			return object.Range{}, false
		}
	}
	if first == "" {
		return object.Range{Start: -1, End: end}, last != ""
	}
	start, ok := digits(first)
	if !ok || (last != "" && end < start) {
		return object.Range{}, false
	}
	return object.Range{Start: start, End: end}, true
}

// digits reads a number as HTTP writes one: digits and nothing else. What is
// too large for us is behind the end of every object.
func digits(s string) (int64, bool) {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, s != ""
	}
	return v, true
}

// resolveRanges cuts ranges to a content of size bytes and drops those of which
// nothing exists; none left means 416. Ranges that overlap or nearly touch are
// joined where more than one is asked for, so that an answer is never longer
// than the content and its framing.
func resolveRanges(ranges []object.Range, size int64) []span {
	var spans []span
	for _, r := range ranges {
		if off, n, ok := r.Resolve(size); ok {
			spans = append(spans, span{off, n})
		}
	}
	if len(spans) < 2 {
		return spans
	}
	return joinSpans(spans)
}

// joinGap is the gap between two ranges below which sending it is cheaper than
// another part's header.
const joinGap = 80

// joinSpans keeps the order of what was asked; each span takes in later ones
// that touch it, until nothing changes.
func joinSpans(spans []span) []span {
	for changed := true; changed; {
		changed = false
		var out []span
	next:
		for _, s := range spans {
			for i, o := range out {
				if s.offset <= o.end()+joinGap && o.offset <= s.end()+joinGap {
					lo, hi := min(s.offset, o.offset), max(s.end(), o.end())
					out[i], changed = span{lo, hi - lo}, true
					continue next
				}
			}
			out = append(out, s)
		}
		spans = out
	}
	return spans
}

// parseContentRange reads the header of a range write: "bytes FIRST-LAST/*".
func parseContentRange(header string) (span, error) {
	bad := func() (span, error) {
		return span{}, object.Errorf(object.KindInvalid, `Content-Range %q is not understood; write "bytes FIRST-LAST/*"`, header)
	}
	unit, rest, found := strings.Cut(header, " ")
	if !found || !strings.EqualFold(unit, "bytes") {
		return bad()
	}
	rng, total, found := strings.Cut(rest, "/")
	first, last, dash := strings.Cut(rng, "-")
	if !found || !dash || total != "*" {
		return bad()
	}
	start, ok1 := digits(first)
	end, ok2 := digits(last)
	if !ok1 || !ok2 || end < start {
		return bad()
	}
	if end >= object.MaxFileSize {
		return span{}, object.Errorf(object.KindTooLarge, "the range ends behind the largest file size, %d bytes", int64(object.MaxFileSize))
	}
	return span{start, end - start + 1}, nil
}
