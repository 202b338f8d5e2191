package chunk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A chunk file is a header, a frame table and the frames, in this order;
// integers are big-endian.
//
//	header, 96 bytes, of this form in every version:
//	   0  8  magic
//	   8  2  format version
//	  10  1  compression of those frames that are compressed
//	  11  1  zero
//	  12  4  frame size, 65536
//	  16 22  chunk id
//	  38  2  zero
//	  40  8  logical length, in bytes
//	  48  8  stored length: the sum of the frames' stored lengths
//	  56 32  SHA-256 of the logical bytes
//	  88  4  CRC32C of the frame table
//	  92  4  CRC32C of bytes 0..91
//	frame table, 8 bytes for each frame:
//	   0  4  stored length; the top bit says that the frame is compressed
//	   4  4  CRC32C of the stored bytes
//
// Every frame but the last holds FrameSize logical bytes.
const (
	magic         = "BktChunk"
	formatVersion = 1
	headerSize    = 96
	entrySize     = 8

	// FrameSize is the number of logical bytes that share one checksum: the
	// least that is read and checked for one byte.
	FrameSize = 64 << 10
	// MaxLength is the largest chunk, in bytes.
	MaxLength = 64 << 20

	compressedBit = 1 << 31
	maxFrames     = MaxLength / FrameSize
)

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// header is the parsed header of a chunk.
type header struct {
	id          object.ChunkID
	compression Compression
	length      int64 // logical
	stored      int64
	sha         [32]byte
	tableCRC    uint32
}

// frame is one entry of the frame table, with its place in the file.
type frame struct {
	offset     int64
	stored     int32
	compressed bool
	crc        uint32
}

func frameCount(length int64) int { return int((length + FrameSize - 1) / FrameSize) }

// frameLength is the logical length of frame i.
func frameLength(length int64, i int) int {
	return int(min(FrameSize, length-int64(i)*FrameSize))
}

func (h *header) dataOffset() int64 { return headerSize + entrySize*int64(frameCount(h.length)) }

func (h *header) fileSize() int64 { return h.dataOffset() + h.stored }

// appendHeader appends header and frame table.
func appendHeader(b []byte, h header, frames []frame) []byte {
	table := make([]byte, 0, entrySize*len(frames))
	for _, f := range frames {
		n := uint32(f.stored)
		if f.compressed {
			n |= compressedBit
		}
		table = binary.BigEndian.AppendUint32(table, n)
		table = binary.BigEndian.AppendUint32(table, f.crc)
	}
	start := len(b)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, formatVersion)
	b = append(b, byte(h.compression), 0)
	b = binary.BigEndian.AppendUint32(b, FrameSize)
	b = h.id.AppendBinary(b)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(h.length))
	b = binary.BigEndian.AppendUint64(b, uint64(h.stored))
	b = append(b, h.sha[:]...)
	b = binary.BigEndian.AppendUint32(b, castagnoli(table))
	b = binary.BigEndian.AppendUint32(b, castagnoli(b[start:]))
	return append(b, table...)
}

// damaged is the finding that bytes on disk are not what was written.
func damaged(format string, args ...any) error {
	return object.Errorf(object.KindCorrupt, format, args...)
}

// parseHeader reads the first headerSize bytes of a chunk file. Damage is
// KindCorrupt; a sound header of a newer version is KindVersion.
func parseHeader(b []byte) (h header, err error) {
	switch {
	case len(b) < headerSize:
		return h, damaged("the header is cut off after %d of %d bytes", len(b), headerSize)
	case !bytes.Equal(b[:8], []byte(magic)):
		return h, damaged("this is no chunk: it begins with %q", b[:8])
	case binary.BigEndian.Uint32(b[92:]) != castagnoli(b[:92]):
		return h, damaged("the header fails its checksum")
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != formatVersion {
		return h, object.Errorf(object.KindVersion,
			"the chunk is of format version %d, this program reads version %d: start a newer bucketdb", v, formatVersion)
	}
	h.compression = Compression(b[10])
	if h.id, err = object.ChunkIDFromBinary(b[16:38]); err != nil {
		return h, err
	}
	length, stored := binary.BigEndian.Uint64(b[40:]), binary.BigEndian.Uint64(b[48:])
	if h.compression > maxCompression || b[11] != 0 || b[38] != 0 || b[39] != 0 ||
		binary.BigEndian.Uint32(b[12:]) != FrameSize ||
		length == 0 || length > MaxLength || stored == 0 || stored > length {
		return h, damaged("the header makes no sense")
	}
	h.length, h.stored = int64(length), int64(stored)
	copy(h.sha[:], b[56:])
	h.tableCRC = binary.BigEndian.Uint32(b[88:])
	return h, nil
}

// parseTable reads the frame table that belongs to h.
func parseTable(h header, b []byte) ([]frame, error) {
	n := frameCount(h.length)
	if len(b) != n*entrySize {
		return nil, damaged("the frame table is cut off after %d of %d bytes", len(b), n*entrySize)
	}
	if castagnoli(b) != h.tableCRC {
		return nil, damaged("the frame table fails its checksum")
	}
	frames := make([]frame, n)
	offset := h.dataOffset()
	for i := range frames {
		word := binary.BigEndian.Uint32(b[i*entrySize:])
		f := frame{
			offset:     offset,
			stored:     int32(word &^ compressedBit),
			compressed: word&compressedBit != 0,
			crc:        binary.BigEndian.Uint32(b[i*entrySize+4:]),
		}
		full := int32(frameLength(h.length, i))
		if f.stored == 0 || f.stored > full || f.compressed != (f.stored < full) ||
			f.compressed && h.compression == None {
			return nil, damaged("entry %d of the frame table makes no sense", i)
		}
		offset += int64(f.stored)
		frames[i] = f
	}
	if offset != h.fileSize() {
		return nil, damaged("the frames have %d bytes, the header says %d", offset-h.dataOffset(), h.stored)
	}
	return frames, nil
}
