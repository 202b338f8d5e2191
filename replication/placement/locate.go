package placement

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Hash is the XXH64 (seed 0) of a chunk id's 22-byte binary form. It is part of
// the format: with another one no chunk would be found again.
func Hash(id object.ChunkID) uint64 {
	var b [object.ChunkIDSize]byte
	binary.BigEndian.PutUint16(b[:], uint16(id.Owner))
	copy(b[2:], id.Upload[:])
	binary.BigEndian.PutUint32(b[18:], id.Ordinal)
	return xxhash.Sum64(b[:])
}

// Group is the group of a chunk: Hash modulo the number of groups, so that
// doubling that number later splits every group in two and moves nothing.
func (l *Layout) Group(id object.ChunkID) int { return int(Hash(id) % uint64(len(l.Groups))) }

// Site is where one chunk is. Copies or shards count from 0 to Width()-1; shard
// i of chunks of one group is on different nodes for different chunks, so that
// data shards, which serve the reads, are everywhere.
type Site struct {
	Group int
	Since uint64 // the group's: what puts carry, and holders compare
	Joint bool   // the group is moving: Next differs from Now

	now, next []NodeID
	turn      int // slot of shard 0: bits 32 and up of Hash, modulo the width
}

// Locate finds the place of a chunk, whether or not the chunk exists. With
// Holders it takes about 0.1 µs and allocates nothing. The Layout must come from
// NewLayout or DecodeLayout; the Site shares its slices.
func (l *Layout) Locate(id object.ChunkID) Site {
	h := Hash(id)
	i := int(h % uint64(len(l.Groups)))
	g := &l.Groups[i]
	return Site{
		Group: i, Since: g.Since, Joint: g.Next != nil,
		now: g.Holders, next: g.target(), turn: int((h >> 32) % uint64(l.Width)),
	}
}

// Width is the number of copies or shards.
func (s Site) Width() int { return len(s.now) }

// Now is the node that holds copy or shard i; None while there are too few nodes.
func (s Site) Now(i int) NodeID { return s.now[s.slot(i)] }

// Next is the node that is to hold copy or shard i; the same as Now unless that one moves.
func (s Site) Next(i int) NodeID { return s.next[s.slot(i)] }

// slot is the slot of shard i.
func (s Site) slot(i int) int {
	if i += s.turn; i >= len(s.now) {
		i -= len(s.now)
	}
	return i
}

// Holders appends Now of every copy or shard, in order, None included.
func (s Site) Holders(dst []NodeID) []NodeID {
	return append(append(dst, s.now[s.turn:]...), s.now[:s.turn]...)
}

// Shard is the copy or shard that a node has to hold, now or after the move
// that is under way; -1 for none. It never differs between the two: a node that stays keeps its slot.
func (s Site) Shard(id NodeID) int {
	for k := range s.now {
		if id != None && (s.now[k] == id || s.next[k] == id) {
			return (k - s.turn + len(s.now)) % len(s.now)
		}
	}
	return -1
}
