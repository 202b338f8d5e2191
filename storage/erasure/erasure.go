// Package erasure cuts a chunk into k data and m parity shards, of which any k
// give it back: Reed-Solomon over GF(2^8), by klauspost/reedsolomon.
package erasure

import (
	"bytes"
	"errors"

	"github.com/klauspost/reedsolomon"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Limits.
const (
	// MaxShards bounds k+m. GF(2^8) has room for 256 shards; 64 are more nodes
	// than one chunk should wait for.
	MaxShards = 64
	// MaxData is the largest content that Encode takes: the largest chunk, in bytes.
	MaxData = 64 << 20
)

// Codec is Reed-Solomon with fixed k and m. It is safe for concurrent use.
//
// Shards carry no checksum: which of them are right is for the store to know
// (each is kept as a chunk, with one). A wrong shard given as right makes wrong data.
type Codec struct {
	k, m int
	enc  reedsolomon.Encoder
}

// New makes a codec of k data shards and m parity shards, both at least 1 and
// together at most MaxShards; anything else is KindInvalid.
func New(k, m int) (*Codec, error) {
	if k < 1 || m < 1 || k > MaxShards || m > MaxShards || k+m > MaxShards {
		return nil, object.Errorf(object.KindInvalid,
			"%d data and %d parity shards: there must be at least one of each, and at most %d together", k, m, MaxShards)
	}
	enc, err := reedsolomon.New(k, m)
	if err != nil {
		return nil, object.Errorf(object.KindInvalid, "%d data and %d parity shards: %w", k, m, err)
	}
	return &Codec{k, m, enc}, nil
}

// DataShards is k.
func (c *Codec) DataShards() int { return c.k }

// ParityShards is m.
func (c *Codec) ParityShards() int { return c.m }

// ShardSize is the length of each shard of a content of size bytes: size/k, rounded up.
func (c *Codec) ShardSize(size int) int { return (size + c.k - 1) / c.k }

// Encode returns the k+m shards of data (1 byte to MaxData), all of
// ShardSize(len(data)). The first k, laid end to end, are data and then zeros;
// the caller keeps the length. The shards share no memory with data.
func (c *Codec) Encode(data []byte) ([][]byte, error) {
	if len(data) == 0 || len(data) > MaxData {
		return nil, object.Errorf(object.KindInvalid, "%d bytes cannot be cut into shards: 1 to %d can", len(data), MaxData)
	}
	size := c.ShardSize(len(data))
	all := make([]byte, size*(c.k+c.m))
	copy(all, data)
	shards := make([][]byte, c.k+c.m)
	for i := range shards {
		shards[i] = all[i*size : (i+1)*size : (i+1)*size]
	}
	if err := c.enc.Encode(shards); err != nil {
		return nil, object.Errorf(object.KindInternal, "encoding shards: %w", err)
	}
	return shards, nil
}

// Reconstruct fills in the missing (nil or empty) shards that wanted names by
// index, or all of them when wanted is nil. shards has k+m elements, in order.
// Fewer than k present ones are KindUnavailable; what was given is not changed.
func (c *Codec) Reconstruct(shards [][]byte, wanted []int) error {
	if err := c.usable(shards); err != nil {
		return err
	}
	var err error
	if wanted == nil {
		err = c.enc.Reconstruct(shards)
	} else {
		required := make([]bool, c.k+c.m)
		for _, i := range wanted {
			if i < 0 || i >= len(required) {
				return object.Errorf(object.KindInvalid, "there is no shard %d among %d", i, len(required))
			}
			required[i] = true
		}
		err = c.enc.ReconstructSome(shards, required)
	}
	return wrapped(err)
}

// Verify reports whether all k+m shards, none missing, belong together.
func (c *Codec) Verify(shards [][]byte) (bool, error) {
	if err := c.usable(shards); err != nil {
		return false, err
	}
	for i, s := range shards {
		if len(s) == 0 {
			return false, object.Errorf(object.KindInvalid, "shard %d is missing: reconstruct it first", i)
		}
	}
	ok, err := c.enc.Verify(shards)
	return ok, wrapped(err)
}

// Join returns the content of size bytes. Missing data shards are reconstructed
// (and stay in shards); the parity shards are used only for that.
func (c *Codec) Join(shards [][]byte, size int) ([]byte, error) {
	if size < 1 || size > MaxData {
		return nil, object.Errorf(object.KindInvalid, "a content of %d bytes cannot come from shards", size)
	}
	if err := c.usable(shards); err != nil {
		return nil, err
	}
	if n, _ := shardSize(shards); n != c.ShardSize(size) {
		return nil, object.Errorf(object.KindInvalid, "shards of %d bytes do not make %d: %d bytes each would", n, size, c.ShardSize(size))
	}
	if err := c.enc.ReconstructData(shards); err != nil {
		return nil, wrapped(err)
	}
	return bytes.Join(shards[:c.k], nil)[:size:size], nil
}

// usable checks number and lengths of shards.
func (c *Codec) usable(shards [][]byte) error {
	if len(shards) != c.k+c.m {
		return object.Errorf(object.KindInvalid, "%d shards were given, %d make a set", len(shards), c.k+c.m)
	}
	size, equal := shardSize(shards)
	if !equal || size > MaxData {
		return object.Errorf(object.KindInvalid, "the shards differ in length")
	}
	have := 0
	for _, s := range shards {
		if len(s) > 0 {
			have++
		}
	}
	if have < c.k {
		return object.Errorf(object.KindUnavailable, "%d of %d shards are at hand, %d are needed", have, c.k+c.m, c.k)
	}
	return nil
}

// shardSize is the length that all present shards have.
func shardSize(shards [][]byte) (size int, equal bool) {
	for _, s := range shards {
		switch {
		case len(s) == 0:
		case size == 0:
			size = len(s)
		case size != len(s):
			return size, false
		}
	}
	return size, true
}

func wrapped(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, reedsolomon.ErrTooFewShards):
		return object.Errorf(object.KindUnavailable, "too few shards are at hand: %w", err)
	}
	return object.Errorf(object.KindInternal, "reconstructing shards: %w", err)
}
