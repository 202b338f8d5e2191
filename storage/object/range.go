package object

// Range is a range of bytes as a client asks for it, before the size is known.
// Start >= 0 with End == -1 means "from Start on"; Start == -1 means "the last
// End bytes"; otherwise Start..End are inclusive, as in HTTP.
type Range struct{ Start, End int64 }

// Resolve cuts the range to a content of size bytes and returns offset and
// length; ok is false when no byte of it exists.
func (r Range) Resolve(size int64) (offset, length int64, ok bool) {
	switch {
	case r.Start < 0: // suffix
		n := min(r.End, size)
		if n <= 0 {
			return 0, 0, false
		}
		return size - n, n, true
	case r.Start >= size:
		return 0, 0, false
	case r.End < 0 || r.End >= size:
		return r.Start, size - r.Start, true
	case r.End < r.Start:
		return 0, 0, false
	}
	return r.Start, r.End - r.Start + 1, true
}
