package chunk

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// withVersion is header b with another format version and a right checksum.
func withVersion(b []byte, v uint16) []byte {
	b = bytes.Clone(b[:headerSize])
	binary.BigEndian.PutUint16(b[8:], v)
	binary.BigEndian.PutUint32(b[92:], castagnoli(b[:92]))
	return b
}

// parseFile parses header and table, as opening a chunk does.
func parseFile(b []byte) (header, []frame, error) {
	h, err := parseHeader(b)
	if err != nil {
		return h, nil, err
	}
	frames, err := parseTable(h, b[headerSize:min(len(b), int(h.dataOffset()))])
	return h, frames, err
}

func sampleHeader(length int64, compression Compression) []byte {
	h := header{id: id(3), compression: compression, length: length, sha: [32]byte{1, 2, 3}}
	frames := make([]frame, frameCount(length))
	for i := range frames {
		frames[i] = frame{stored: int32(frameLength(length, i)), crc: uint32(i)}
		if compression != None && i%2 == 0 {
			frames[i].compressed = true
			frames[i].stored -= 10
		}
		h.stored += int64(frames[i].stored)
	}
	return appendHeader(nil, h, frames)
}

func TestFormatIsStable(t *testing.T) {
	// The first bytes of version 1: a change here is a new version.
	got := sampleHeader(100000, S2)[:40]
	want := "BktChunk\x00\x01\x01\x00\x00\x01\x00\x00"
	if !bytes.HasPrefix(got, []byte(want)) || !bytes.Equal(got[16:38], id(3).AppendBinary(nil)) {
		t.Fatalf("%q", got)
	}
}

func TestHeaderVersions(t *testing.T) {
	for v := range uint16(4) {
		_, err := parseHeader(withVersion(sampleHeader(100, None), v))
		if v == formatVersion {
			must(t, err)
		} else {
			wantKind(t, err, object.KindVersion)
		}
	}
}

// FuzzHeader: no input makes the parser panic or accept frames outside of the
// file, and what it accepts it would write the same way.
func FuzzHeader(f *testing.F) {
	f.Add(sampleHeader(1, None))
	f.Add(sampleHeader(FrameSize, None))
	f.Add(sampleHeader(3*FrameSize+50, S2))
	f.Add(sampleHeader(100000, Zstd))
	f.Add(withVersion(sampleHeader(1, None), 7))
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Right checksums, so that the checks behind them are reached.
		if len(b) >= headerSize {
			b = bytes.Clone(b)
			copy(b, magic)
			end := min(len(b), headerSize+entrySize*frameCount(int64(binary.BigEndian.Uint64(b[40:])%(MaxLength+1))))
			binary.BigEndian.PutUint32(b[88:], castagnoli(b[headerSize:end]))
			binary.BigEndian.PutUint32(b[92:], castagnoli(b[:92]))
		}
		h, frames, err := parseFile(b)
		if err != nil {
			if k := object.KindOf(err); k != object.KindCorrupt && k != object.KindVersion {
				t.Fatalf("kind %v: %v", k, err)
			}
			return
		}
		at := h.dataOffset()
		for i, fr := range frames {
			if fr.offset != at || fr.stored <= 0 || int(fr.stored) > frameLength(h.length, i) {
				t.Fatalf("frame %d is %+v", i, fr)
			}
			at += int64(fr.stored)
		}
		if at != h.fileSize() || !bytes.Equal(appendHeader(nil, h, frames), b[:h.dataOffset()]) {
			t.Fatal("it would be written in another way")
		}
	})
}

// FuzzFrame: a frame that passes its CRC may still be anything.
func FuzzFrame(f *testing.F) {
	c := newCodec()
	for _, kind := range []Compression{S2, Zstd} {
		out, _, err := c.compress(kind, make([]byte, 0, maxEncoded()), text(1000, 1))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(kind), uint16(1000), bytes.Clone(out))
	}
	f.Fuzz(func(t *testing.T, kind byte, size uint16, stored []byte) {
		if k := Compression(kind); size > 0 && (k == S2 || k == Zstd) {
			dst := make([]byte, size)
			if err := c.decompress(k, dst, stored); err != nil {
				wantKind(t, err, object.KindCorrupt)
			}
		}
	})
}
