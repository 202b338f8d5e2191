package wal

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// recordType says what a record does. The numbers are on disk: append only.
type recordType uint8

const (
	recEntry    recordType = iota + 1 // puts one raft entry
	recDelete                         // deletes the entries min..max
	recStable                         // sets one stable value
	recVote                           // sets the term and the candidate of a vote together
	recSnapshot                       // sets the snapshot record
	recWipe                           // forgets the group
	recTypeEnd
)

// A record is crc (4), length (4), type (1), raft log type (1), group (2) and a
// body that depends on the type; integers are little-endian. The length counts
// the whole record. The CRC covers everything behind itself and is then mixed
// with the place of the record (placeMix), so that bytes which were valid in
// another segment, or elsewhere in this one, are not valid here.
const (
	recordHead   = 12
	entryFixed   = 8 + 8 + 8 + 4 // index, term, appended at, length of the extensions
	maxRecord    = 1 << 30
	noAppendedAt = math.MinInt64 // stands for the zero time
)

// record is one record in memory. Its slices belong to whoever made it: those of
// a decoded record alias the buffer it was decoded from.
type record struct {
	typ   recordType
	group object.PartitionID

	entry raft.Log // recEntry

	min, max uint64 // recDelete

	key, val []byte // recStable; of recVote val is the candidate

	term  uint64 // recVote, recSnapshot
	index uint64 // recSnapshot; val is the configuration
}

// size is the record's length on disk in bytes.
func (r *record) size() int {
	switch r.typ {
	case recEntry:
		return recordHead + entryFixed + len(r.entry.Extensions) + len(r.entry.Data)
	case recDelete:
		return recordHead + 16
	case recStable:
		return recordHead + 2 + len(r.key) + len(r.val)
	case recVote:
		return recordHead + 8 + len(r.val)
	case recSnapshot:
		return recordHead + 16 + len(r.val)
	}
	return recordHead
}

// appendTo appends the record with its CRC not yet mixed with a place.
func (r *record) appendTo(b []byte) []byte {
	le, start := binary.LittleEndian, len(b)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(r.size()))
	b = append(b, byte(r.typ), byte(r.entry.Type))
	b = le.AppendUint16(b, uint16(r.group))
	switch r.typ {
	case recEntry:
		b = le.AppendUint64(b, r.entry.Index)
		b = le.AppendUint64(b, r.entry.Term)
		b = le.AppendUint64(b, uint64(nanos(r.entry.AppendedAt)))
		b = le.AppendUint32(b, uint32(len(r.entry.Extensions)))
		b = append(b, r.entry.Extensions...)
		b = append(b, r.entry.Data...)
	case recDelete:
		b = le.AppendUint64(b, r.min)
		b = le.AppendUint64(b, r.max)
	case recStable:
		b = le.AppendUint16(b, uint16(len(r.key)))
		b = append(b, r.key...)
		b = append(b, r.val...)
	case recVote:
		b = le.AppendUint64(b, r.term)
		b = append(b, r.val...)
	case recSnapshot:
		b = le.AppendUint64(b, r.index)
		b = le.AppendUint64(b, r.term)
		b = append(b, r.val...)
	}
	le.PutUint32(b[start:], checksum(b[start+4:]))
	return b
}

// decodeRecord reads the record at the start of b, which lies at offset off of a
// segment with this salt. The result aliases b. ok is false for anything that is
// not a whole, valid record of that place.
func decodeRecord(b []byte, salt uint64, off int64) (r record, size int, ok bool) {
	le := binary.LittleEndian
	if len(b) < recordHead {
		return record{}, 0, false
	}
	size = int(le.Uint32(b[4:]))
	if size < recordHead || size > len(b) {
		return record{}, 0, false
	}
	if le.Uint32(b) != checksum(b[4:size])^placeMix(salt, off) {
		return record{}, 0, false
	}
	r.typ, r.entry.Type, r.group = recordType(b[8]), raft.LogType(b[9]), object.PartitionID(le.Uint16(b[10:]))
	if !r.decodeBody(b[recordHead:size]) || r.size() != size {
		return record{}, 0, false
	}
	return r, size, true
}

func (r *record) decodeBody(b []byte) bool {
	le := binary.LittleEndian
	switch r.typ {
	case recEntry:
		if len(b) < entryFixed {
			return false
		}
		ext := int(le.Uint32(b[24:]))
		if ext > len(b)-entryFixed {
			return false
		}
		r.entry.Index, r.entry.Term = le.Uint64(b), le.Uint64(b[8:])
		r.entry.AppendedAt = timeOf(int64(le.Uint64(b[16:])))
		r.entry.Extensions = orNil(b[entryFixed : entryFixed+ext : entryFixed+ext])
		r.entry.Data = orNil(b[entryFixed+ext:])
	case recDelete:
		if len(b) != 16 {
			return false
		}
		r.min, r.max = le.Uint64(b), le.Uint64(b[8:])
	case recStable:
		if len(b) < 2 || int(le.Uint16(b)) > len(b)-2 {
			return false
		}
		n := int(le.Uint16(b))
		r.key, r.val = b[2:2+n:2+n], b[2+n:]
	case recVote:
		if len(b) < 8 {
			return false
		}
		r.term, r.val = le.Uint64(b), b[8:]
	case recSnapshot:
		if len(b) < 16 {
			return false
		}
		r.index, r.term, r.val = le.Uint64(b), le.Uint64(b[8:]), b[16:]
	case recWipe:
		return len(b) == 0
	default:
		return false
	}
	return true
}

// orNil is nil for an empty slice, as raft's own stores give it.
func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return noAppendedAt
	}
	return t.UnixNano()
}

func timeOf(ns int64) time.Time {
	if ns == noAppendedAt {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// checksum is CRC32C.
func checksum(b []byte) uint32 { return crc32.Update(0, crc32.MakeTable(crc32.Castagnoli), b) }

// placeMix is what the CRC of a structure at offset off of a segment is XORed
// with: as good as seeding the CRC, and callers can compute the CRC before the
// place is known. The mixing is the finalizer of MurmurHash3 (fmix64).
func placeMix(salt uint64, off int64) uint32 {
	h := salt + uint64(off)*0x9E3779B97F4A7C15
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return uint32(h)
}
