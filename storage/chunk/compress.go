package chunk

import (
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Compression is the way frames are compressed. The numbers stand in files.
type Compression uint8

// The compressions.
const (
	None Compression = 0
	S2   Compression = 1 // S2 blocks, https://github.com/klauspost/compress/tree/master/s2
	Zstd Compression = 2 // RFC 8878, one zstd frame for each of ours

	maxCompression = Zstd
)

// leastSaving is the part of a frame, or of a chunk, that compression must
// save to be used: one sixteenth. Below that the time to decompress costs more.
const leastSaving = 16

// String is the name that ParseCompression reads.
func (c Compression) String() string {
	switch c {
	case None:
		return "none"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	}
	return "unknown"
}

// ParseCompression reads a compression's name: none, s2 (also snappy) or zstd.
// The empty name is none.
func ParseCompression(name string) (Compression, error) {
	switch strings.ToLower(name) {
	case "", "none":
		return None, nil
	case "s2", "snappy":
		return S2, nil
	case "zstd":
		return Zstd, nil
	}
	return None, object.Errorf(object.KindInvalid, "%q is not a compression: use snappy, zstd or none", name)
}

// codec compresses and decompresses frames; it is safe for concurrent use. The
// zstd halves are made when they are first needed.
type codec struct {
	encoder func() (*zstd.Encoder, error)
	decoder func() (*zstd.Decoder, error)
}

func newCodec() *codec {
	return &codec{
		encoder: sync.OnceValues(func() (*zstd.Encoder, error) {
			return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
				zstd.WithWindowSize(FrameSize), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
		}),
		decoder: sync.OnceValues(func() (*zstd.Decoder, error) {
			return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(FrameSize), zstd.WithDecoderConcurrency(0))
		}),
	}
}

func worthwhile(stored, full int) bool { return stored <= full-max(1, full/leastSaving) }

// maxEncoded is the room that compress wants for one frame.
func maxEncoded() int { return s2.MaxEncodedLen(FrameSize) + 64 }

// compress returns the compressed form of one frame of src, in buf where it
// fits, or ok false when that does not save enough.
func (c *codec) compress(kind Compression, buf, src []byte) (out []byte, ok bool, err error) {
	switch kind {
	case S2:
		out = s2.Encode(buf[:cap(buf)], src)
	case Zstd:
		enc, err := c.encoder()
		if err != nil {
			return nil, false, err
		}
		out = enc.EncodeAll(src, buf[:0])
	default:
		return nil, false, nil
	}
	return out, worthwhile(len(out), len(src)), nil
}

// decompress fills dst with the logical bytes of a frame, or finds it damaged.
func (c *codec) decompress(kind Compression, dst, stored []byte) error {
	var out []byte
	var err error
	switch kind {
	case S2:
		if n, lerr := s2.DecodedLen(stored); lerr != nil || n != len(dst) {
			return damaged("a frame does not decompress to its length")
		}
		out, err = s2.Decode(dst, stored)
	case Zstd:
		var dec *zstd.Decoder
		if dec, err = c.decoder(); err != nil {
			return err
		}
		out, err = dec.DecodeAll(stored, dst[:0])
	}
	if err != nil || len(out) != len(dst) {
		return damaged("a frame does not decompress (%v)", err)
	}
	if &out[0] != &dst[0] {
		copy(dst, out) // the decoder wanted more room than the frame has
	}
	return nil
}
