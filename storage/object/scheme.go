package object

import (
	"fmt"
	"strconv"
	"strings"
)

// Scheme says how a chunk is kept at its holders, in the form that extents and
// records carry: data shards << 8 | parity shards, where one data shard stands for
// copies. The zero value is DefaultScheme, and its only form: schemes compare with ==.
type Scheme uint16

// DefaultScheme is three copies, or as many of them as the cluster has nodes: what
// a store that names no scheme has, since it may get more nodes.
const DefaultScheme Scheme = 0

// MaxWidth is the largest number of copies or shards of a chunk.
const MaxWidth = 64

const defaultScheme Scheme = 1<<8 | 2

// NewScheme is data+parity: 1+2 is three copies, 4+2 Reed-Solomon. What cannot be is KindInvalid.
func NewScheme(data, parity int) (Scheme, error) {
	if data < 1 || parity < 0 || data > 1 && parity < 1 || data > MaxWidth || parity > MaxWidth || data+parity > MaxWidth {
		return 0, Errorf(KindInvalid, "a chunk cannot be kept as %d+%d: at least one data shard, one parity shard (none for a single copy), and at most %d together", data, parity, MaxWidth)
	}
	s := Scheme(data)<<8 | Scheme(parity)
	if s == defaultScheme {
		s = DefaultScheme
	}
	return s, nil
}

// Split is the number of data and of parity shards.
func (s Scheme) Split() (data, parity int) {
	if s == DefaultScheme {
		s = defaultScheme
	}
	return int(s >> 8), int(s & 0xff)
}

// Check refuses what NewScheme does not make: KindInvalid.
func (s Scheme) Check() error {
	same, err := NewScheme(s.Split())
	if err == nil && same != s {
		err = Errorf(KindInvalid, "a scheme is written as %#x, and has to be %#x", uint16(s), uint16(same))
	}
	return err
}

// Copies reports whether chunks are kept as copies, not as shards.
func (s Scheme) Copies() bool {
	data, _ := s.Split()
	return data == 1
}

// Width is the number of copies or shards of a chunk.
func (s Scheme) Width() int {
	data, parity := s.Split()
	return data + parity
}

// String is "replicated:3" for three copies, "rs:4+2" for four data and two parity shards.
func (s Scheme) String() string {
	data, parity := s.Split()
	if data == 1 {
		return "replicated:" + strconv.Itoa(1+parity)
	}
	return fmt.Sprintf("rs:%d+%d", data, parity)
}

// ParseScheme reads what String wrote; anything else is KindInvalid.
func ParseScheme(text string) (Scheme, error) {
	bad := Errorf(KindInvalid, "%q says not how data is kept: write replicated:3 for three copies, or rs:4+2 for four data shards and two parity shards", text)
	kind, numbers, _ := strings.Cut(text, ":")
	data, parity := "1", numbers
	if kind == "rs" {
		data, parity, _ = strings.Cut(numbers, "+")
	}
	k, err1 := strconv.Atoi(data)
	m, err2 := strconv.Atoi(parity)
	if kind == "replicated" {
		m--
	}
	if err1 != nil || err2 != nil || kind != "rs" && kind != "replicated" || kind == "rs" && k == 1 {
		return 0, bad
	}
	s, err := NewScheme(k, m)
	switch {
	case err != nil && kind == "replicated":
		return 0, Errorf(KindInvalid, "%q: a chunk has 1 to %d copies", text, MaxWidth)
	case err != nil:
		return 0, err
	case s.String() != text:
		return 0, bad
	}
	return s, nil
}
