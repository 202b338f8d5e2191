package wal

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func FuzzCheckFormat(f *testing.F) {
	good := (&segment{id: 1, size: maxSegmentSize}).header()
	newer := bytes.Clone(good)
	newer[8]++
	binary.LittleEndian.PutUint32(newer[segmentHead-4:], checksum(newer[:segmentHead-4]))
	for _, b := range [][]byte{good, newer, nil, good[:40]} {
		f.Add(b)
	}
	if err := CheckFormat("good", good); err != nil {
		f.Error(err)
	}
	if err := CheckFormat("newer", newer); !object.IsKind(err, object.KindVersion) {
		f.Error(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, ok := formatOf(b)
		if ok && (len(b) < segmentHead || v != binary.LittleEndian.Uint32(b[8:]) || !bytes.HasPrefix(b, []byte(segmentMagic))) {
			t.Errorf("%x has version %d", b, v)
		}
	})
}
