package placement

import (
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// codec is CBOR (RFC 8949) with integer keys: a field may be added without
// breaking what is stored, a number is never reused.
var codec = func() (c struct {
	enc cbor.EncMode
	dec cbor.DecMode
}) {
	var err error
	if c.enc, err = (cbor.EncOptions{Sort: cbor.SortBytewiseLexical}).EncMode(); err != nil {
		panic(err) // the options are constant
	}
	if c.dec, err = (cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid, DupMapKey: cbor.DupMapKeyEnforcedAPF}).DecMode(); err != nil {
		panic(err)
	}
	return c
}()

// names numbers the nodes of a map from 1, in the order of their ids; 0 is None.
// Lists of numbers take a quarter of the room of lists of ids.
type names []NodeID

// namesOf collects the nodes of lists.
func namesOf(lists ...[][]NodeID) names {
	var all names
	seen := map[NodeID]bool{None: true}
	for _, l := range lists {
		for _, list := range l {
			for _, id := range list {
				if !seen[id] {
					seen[id] = true
					all = append(all, id)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// pack turns ids into numbers. Its inverse is unpack.
func (n names) pack(list []NodeID) []uint16 {
	packed := make([]uint16, len(list))
	for k, id := range list {
		if i, found := slices.BinarySearch(n, id); found {
			packed[k] = uint16(i + 1)
		}
	}
	return packed
}

// unpack turns numbers into distinct ids.
func (n names) unpack(packed []uint16) ([]NodeID, error) {
	list := make([]NodeID, len(packed))
	for k, i := range packed {
		switch {
		case int(i) > len(n):
			return nil, damaged("node %d of %d", i, len(n))
		case i == 0:
		case slices.Contains(packed[:k], i):
			return nil, damaged("node %q twice in a list", n[i-1])
		default:
			list[k] = n[i-1]
		}
	}
	return list, nil
}

// check refuses names that namesOf did not make.
func (n names) check() error {
	for i, id := range n {
		if id == None || i > 0 && n[i-1] >= id {
			return damaged("node ids out of order")
		}
	}
	return nil
}

// damaged is a stored map that no version of this program wrote.
func damaged(format string, args ...any) error {
	return object.Errorf(object.KindCorrupt, "the stored map is damaged: "+format, args...)
}

// mapRecord is a Map as it is stored.
type mapRecord struct {
	Epoch      uint64     `cbor:"1,keyasint"`
	RF         int        `cbor:"2,keyasint"`
	Nodes      names      `cbor:"3,keyasint"`
	Partitions [][]uint16 `cbor:"4,keyasint"`
}

// Encode is the map as it is stored: about 7 bytes for three replicas.
func (m *Map) Encode() ([]byte, error) {
	r := mapRecord{Epoch: m.Epoch, RF: m.RF, Nodes: namesOf(m.Partitions)}
	for _, list := range m.Partitions {
		r.Partitions = append(r.Partitions, r.Nodes.pack(list))
	}
	return codec.enc.Marshal(r)
}

// DecodeMap reads what Encode wrote; anything else is KindCorrupt.
func DecodeMap(b []byte) (*Map, error) {
	var r mapRecord
	if err := codec.dec.Unmarshal(b, &r); err != nil {
		return nil, damaged("%w", err)
	}
	if r.RF < 0 || r.RF > MaxReplicas || len(r.Partitions) > MaxPartitions {
		return nil, damaged("%d partitions of %d replicas", len(r.Partitions), r.RF)
	}
	if err := r.Nodes.check(); err != nil {
		return nil, err
	}
	m := &Map{Epoch: r.Epoch, RF: r.RF, Partitions: make([][]NodeID, len(r.Partitions))}
	for i, packed := range r.Partitions {
		if len(packed) > MaxReplicas || slices.Contains(packed, 0) {
			return nil, damaged("partition %d", i+1)
		}
		list, err := r.Nodes.unpack(packed)
		if err != nil {
			return nil, err
		}
		m.Partitions[i] = list
	}
	return m, nil
}

// layoutRecord is a Layout as it is stored.
type layoutRecord struct {
	Epoch   uint64           `cbor:"1,keyasint"`
	Width   int              `cbor:"2,keyasint"`
	Nodes   names            `cbor:"3,keyasint"`
	Holders [][]uint16       `cbor:"4,keyasint"`
	Since   []uint64         `cbor:"5,keyasint"`
	Next    map[int][]uint16 `cbor:"6,keyasint,omitempty"` // by group, the joint ones
}

// Encode is the layout as it is stored.
func (l *Layout) Encode() ([]byte, error) {
	var holders, next [][]NodeID
	for _, g := range l.Groups {
		holders, next = append(holders, g.Holders), append(next, g.Next)
	}
	r := layoutRecord{Epoch: l.Epoch, Width: l.Width, Nodes: namesOf(holders, next), Next: map[int][]uint16{}}
	for i, g := range l.Groups {
		r.Holders = append(r.Holders, r.Nodes.pack(g.Holders))
		r.Since = append(r.Since, g.Since)
		if g.Next != nil {
			r.Next[i] = r.Nodes.pack(g.Next)
		}
	}
	return codec.enc.Marshal(r)
}

// DecodeLayout reads what Encode wrote; anything else is KindCorrupt.
func DecodeLayout(b []byte) (*Layout, error) {
	var r layoutRecord
	if err := codec.dec.Unmarshal(b, &r); err != nil {
		return nil, damaged("%w", err)
	}
	count := len(r.Holders)
	if r.Width < 1 || r.Width > MaxReplicas || count < 1 || count > MaxGroups || len(r.Since) != count {
		return nil, damaged("%d groups of %d slots, %d epochs", count, r.Width, len(r.Since))
	}
	if err := r.Nodes.check(); err != nil {
		return nil, err
	}
	l := &Layout{Epoch: r.Epoch, Width: r.Width, Groups: make([]Group, count)}
	var err error
	for i := range l.Groups {
		g := &l.Groups[i]
		if g.Since = r.Since[i]; g.Since > r.Epoch {
			return nil, damaged("group %d is of epoch %d, the layout of %d", i, g.Since, r.Epoch)
		}
		if g.Holders, err = r.slots(r.Holders[i]); err != nil {
			return nil, err
		}
	}
	for i, packed := range r.Next {
		if i < 0 || i >= count {
			return nil, damaged("a move of group %d of %d", i, count)
		}
		g := &l.Groups[i]
		if g.Next, err = r.slots(packed); err != nil {
			return nil, err
		}
		for k, id := range g.Next {
			if old := slices.Index(g.Holders, id); id != None && old >= 0 && old != k {
				return nil, damaged("node %q changes its slot in group %d", id, i)
			}
		}
	}
	return l, nil
}

// slots unpacks the slots of one group.
func (r *layoutRecord) slots(packed []uint16) ([]NodeID, error) {
	if len(packed) != r.Width {
		return nil, damaged("a group of %d slots, not %d", len(packed), r.Width)
	}
	return r.Nodes.unpack(packed)
}
