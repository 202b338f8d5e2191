// Package object is the vocabulary of BucketDB: ids, inodes, dentries, extents,
// chunk references, ranges and error kinds. It imports only the standard library.
package object

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// PartitionID names one Raft group. Partition 0 is the control group, which
// also holds the root directory (its dentries are the buckets); data partitions
// count from 1.
type PartitionID uint16

// Control is the partition of the control group and of the root directory.
const Control PartitionID = 0

// MaxPartitions is the number of partitions that an InodeID can name.
const MaxPartitions = 1 << inodePartitionBits

const (
	inodePartitionBits = 13
	inodeIndexBits     = 42
	inodeOrdinalBits   = 8
)

// MaxBirths is the number of inodes that one log entry may give birth to.
const MaxBirths = 1 << inodeOrdinalBits

// InodeID is partition (13 bits) | Raft index of its birth (42) | ordinal in
// that entry (8): nothing to allocate, nothing to race. It is never reused and
// fits a positive int64. Zero is no inode.
type InodeID uint64

// RootInode is the root directory: its entries are the buckets. It is FUSE's
// root number too.
const RootInode InodeID = 1

// NewInodeID composes an id.
func NewInodeID(p PartitionID, index uint64, ordinal uint8) InodeID {
	return InodeID(uint64(p)<<(inodeIndexBits+inodeOrdinalBits) |
		(index&(1<<inodeIndexBits-1))<<inodeOrdinalBits | uint64(ordinal))
}

// Partition is the partition that holds the inode's record and, for a
// directory, its dentries.
func (i InodeID) Partition() PartitionID {
	return PartitionID(uint64(i) >> (inodeIndexBits + inodeOrdinalBits))
}

// String is the id in 16 hexadecimal digits.
func (i InodeID) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// ParseInodeID reads what String wrote; leading zeros may be missing.
func ParseInodeID(s string) (InodeID, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || v == 0 || v>>63 != 0 {
		return 0, Errorf(KindInvalid, "%q is not an inode number (up to 16 hexadecimal digits, not zero)", s)
	}
	return InodeID(v), nil
}

// UploadID is the unique, random id of one PUT, part or flush.
type UploadID [16]byte

// String is the id in 32 hexadecimal digits.
func (u UploadID) String() string { return hex.EncodeToString(u[:]) }

// IsZero reports whether the id is unset.
func (u UploadID) IsZero() bool { return u == UploadID{} }

// ParseUploadID reads what String wrote.
func ParseUploadID(s string) (u UploadID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(u) {
		return UploadID{}, Errorf(KindInvalid, "%q is not an upload id (32 hexadecimal digits)", s)
	}
	copy(u[:], b)
	return u, nil
}

// ContentID names what a file holds: its extents are kept under it. It is
// unique and random; a replaced file gets a new one.
type ContentID [16]byte

// String is the id in 32 hexadecimal digits.
func (c ContentID) String() string { return hex.EncodeToString(c[:]) }

// IsZero reports whether the id is unset: an empty or inline content.
func (c ContentID) IsZero() bool { return c == ContentID{} }

// ChunkID names one immutable chunk: the partition that owns it (the authority
// on whether it lives), the upload that made it, and its ordinal in that upload.
type ChunkID struct {
	Owner   PartitionID
	Upload  UploadID
	Ordinal uint32
}

// ChunkIDSize is the length of a ChunkID's binary form.
const ChunkIDSize = 2 + 16 + 4

// AppendBinary appends the 22-byte big-endian form, whose byte order is the
// order (owner, upload, ordinal).
func (c ChunkID) AppendBinary(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(c.Owner))
	b = append(b, c.Upload[:]...)
	return binary.BigEndian.AppendUint32(b, c.Ordinal)
}

// Compare is the order of ids: owner, upload, ordinal.
func (c ChunkID) Compare(o ChunkID) int {
	return cmp.Or(cmp.Compare(c.Owner, o.Owner), bytes.Compare(c.Upload[:], o.Upload[:]), cmp.Compare(c.Ordinal, o.Ordinal))
}

// ChunkIDFromBinary reads what AppendBinary wrote.
func ChunkIDFromBinary(b []byte) (c ChunkID, err error) {
	if len(b) != ChunkIDSize {
		return c, Errorf(KindCorrupt, "a chunk id has %d bytes, not %d", ChunkIDSize, len(b))
	}
	c.Owner = PartitionID(binary.BigEndian.Uint16(b))
	copy(c.Upload[:], b[2:18])
	c.Ordinal = binary.BigEndian.Uint32(b[18:])
	return c, nil
}

// String is "pppp-<upload>-oooooooo", hexadecimal, which sorts as the binary form does.
func (c ChunkID) String() string {
	return fmt.Sprintf("%04x-%s-%08x", uint16(c.Owner), c.Upload, c.Ordinal)
}

// ParseChunkID reads what String wrote.
func ParseChunkID(s string) (c ChunkID, err error) {
	bad := func() (ChunkID, error) { return ChunkID{}, Errorf(KindInvalid, "%q is not a chunk id", s) }
	parts := strings.Split(s, "-")
	if len(s) != 4+1+32+1+8 || len(parts) != 3 || len(parts[0]) != 4 || len(parts[2]) != 8 || s != strings.ToLower(s) {
		return bad()
	}
	owner, err1 := strconv.ParseUint(parts[0], 16, 16)
	ordinal, err2 := strconv.ParseUint(parts[2], 16, 32)
	upload, err3 := ParseUploadID(parts[1])
	if err1 != nil || err2 != nil || err3 != nil {
		return bad()
	}
	return ChunkID{PartitionID(owner), upload, uint32(ordinal)}, nil
}
