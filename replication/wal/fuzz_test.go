package wal

import (
	"bytes"
	"testing"
)

func seeds() []record {
	return []record{
		{typ: recEntry, group: 3, entry: *entryOf(step{term: 7, size: 20}, 4)},
		{typ: recDelete, group: 1, min: 4, max: 9},
		{typ: recStable, group: 2, key: []byte("CurrentTerm"), val: []byte{0, 0, 0, 0, 0, 0, 0, 9}},
		{typ: recVote, group: 2, term: 5, val: []byte("node-1")},
		{typ: recSnapshot, group: 65535, index: 8, term: 2, val: []byte("conf")},
		{typ: recWipe, group: 9},
	}
}

// FuzzRecord: no bytes make the parser panic, and what it accepts is written
// back the same.
func FuzzRecord(f *testing.F) {
	for _, r := range seeds() {
		f.Add(r.appendTo(nil), uint64(0), int64(0), true)
	}
	f.Add([]byte{0, 0, 0, 0, 12, 0, 0, 0, 1}, uint64(5), int64(64), true)
	f.Fuzz(func(t *testing.T, b []byte, salt uint64, off int64, fix bool) {
		if fix && len(b) >= recordHead { // get past the checksum
			b = bytes.Clone(b)
			copy(b[4:], le32(uint32(len(b))))
			copy(b, le32(checksum(b[4:])^placeMix(salt, off)))
		}
		r, size, ok := decodeRecord(b, salt, off)
		if !ok {
			return
		}
		again := r.appendTo(nil)
		if !bytes.Equal(again[4:], b[4:size]) && r.typ != recWipe {
			// The raft log type of other records is not kept.
			again[9] = b[9]
			if !bytes.Equal(again[4:], b[4:size]) {
				t.Fatalf("%x reads as %+v and is written as %x", b[:size], r, again)
			}
		}
		if _, _, ok := decodeRecord(b, salt, off+8); ok {
			t.Fatal("the record is valid in another place, too")
		}
	})
}

// FuzzHeader does the same for batch and segment headers.
func FuzzHeader(f *testing.F) {
	b := make([]byte, batchHead)
	header{kind: kindBatch, count: 3, length: 99, oldest: 2}.put(b, 1, 64)
	f.Add(b, uint64(1), int64(64))
	f.Add((&segment{id: 1, salt: 2, size: 1024, oldest: 1}).header(), uint64(1), int64(64))
	f.Fuzz(func(t *testing.T, b []byte, salt uint64, off int64) {
		if len(b) >= batchHead {
			fixed := bytes.Clone(b)
			copy(fixed, le32(batchMagic))
			copy(fixed[4:], le32(checksum(fixed[8:batchHead])^placeMix(salt, off)))
			if h, ok := parseHeader(fixed, salt, off); ok && (h.span() < batchHead || h.span()%batchAlign != 0) {
				t.Fatalf("%x gives %+v", b, h)
			}
		}
		parseHeader(b, salt, off)
		s := &segment{path: "x"}
		if s.parseHeader(b) == nil && !bytes.Equal(s.header()[:48], b[:48]) {
			t.Fatalf("%x reads as %+v", b, s)
		}
	})
}
