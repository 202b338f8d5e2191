package object

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
