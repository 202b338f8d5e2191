package placement

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, nodes := anyLayout(t)
		nodes = changed(t, nodes)
		plan, err := l.Plan(nodes)
		if err != nil {
			t.Fatal(err)
		}
		todo, err := l.Moves(nodes, plan)
		if err != nil {
			t.Fatal(err)
		}
		if l, err = l.Begin(9, Ready(todo, nil, 9, 9)); err != nil {
			t.Fatal(err)
		}
		b, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeLayout(b); err != nil || !reflect.DeepEqual(back, l) {
			t.Fatalf("%v came back as %v, %v", l, back, err)
		}
		m := mustPlan(t, nodes, 3, NewMap(20))
		if b, err = m.Encode(); err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeMap(b); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%v came back as %v, %v", m, back, err)
		}
	})
}

// TestCodecIsSmall: what a change of the map costs in the control group's log.
func TestCodecIsSmall(t *testing.T) {
	b, err := mustPlan(t, cluster(50, 10), 3, NewMap(4096)).Encode()
	if err != nil || len(b) > 8*4096 {
		t.Errorf("4096 partitions take %d bytes, %v", len(b), err)
	}
	l, err := NewLayout(cluster(50, 10), 6, 1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Encode(); err != nil || len(b) > 16*1024 {
		t.Errorf("1024 groups of 6 take %d bytes, %v", len(b), err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	encode := func(v any) []byte {
		b, err := codec.enc.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ab, one := names{"a", "b"}, [][]uint16{{1, 2}}
	for name, r := range map[string]mapRecord{
		"node 3 of 2":  {RF: 1, Nodes: ab, Partitions: [][]uint16{{3}}},
		"twice":        {RF: 2, Nodes: ab, Partitions: [][]uint16{{1, 1}}},
		"empty slot":   {RF: 2, Nodes: ab, Partitions: [][]uint16{{0}}},
		"out of order": {RF: 2, Nodes: names{"b", "a"}, Partitions: one},
		"empty id":     {RF: 2, Nodes: names{"", "a"}, Partitions: one},
		"negative rf":  {RF: -1, Nodes: ab, Partitions: one},
	} {
		if _, err := DecodeMap(encode(r)); !object.IsKind(err, object.KindCorrupt) {
			t.Errorf("map, %s: %v", name, err)
		}
	}
	for name, r := range map[string]layoutRecord{
		"no group":        {Width: 2, Nodes: ab},
		"width 0":         {Nodes: ab, Holders: [][]uint16{{}}, Since: []uint64{0}},
		"no epoch":        {Width: 2, Nodes: ab, Holders: one},
		"later epoch":     {Width: 2, Nodes: ab, Holders: one, Since: []uint64{1}},
		"three slots":     {Width: 3, Nodes: ab, Holders: one, Since: []uint64{0}},
		"move of group 1": {Width: 2, Nodes: ab, Holders: one, Since: []uint64{0}, Next: map[int][]uint16{1: {1, 2}}},
		"slots exchanged": {Width: 2, Nodes: ab, Holders: one, Since: []uint64{0}, Next: map[int][]uint16{0: {2, 1}}},
	} {
		if _, err := DecodeLayout(encode(r)); !object.IsKind(err, object.KindCorrupt) {
			t.Errorf("layout, %s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	l, err := NewLayout(cluster(4, 2), 3, 4, 1)
	if err != nil {
		f.Fatal(err)
	}
	if l, err = l.Begin(2, []Move{{1, 0, l.Groups[1].Holders[0], "new"}}); err != nil {
		f.Fatal(err)
	}
	layout, _ := l.Encode()
	f.Add(layout)
	m, _ := mustPlan(f, cluster(4, 2), 3, NewMap(5)).Encode()
	f.Add(m)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeMap(b); err == nil {
			again, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := DecodeMap(again); err != nil || !reflect.DeepEqual(back, m) {
				t.Fatalf("%v came back as %v, %v", m, back, err)
			}
			if m.RF > 0 && len(m.Partitions) > 0 {
				if _, err := Plan(cluster(3, 1), m.RF, m); err != nil {
					t.Fatal(err)
				}
			}
		} else if !object.IsKind(err, object.KindCorrupt) {
			t.Fatal(err)
		}
		if l, err := DecodeLayout(b); err == nil {
			again, err := l.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := DecodeLayout(again); err != nil || !reflect.DeepEqual(back, l) {
				t.Fatalf("%v came back as %v, %v", l, back, err)
			}
			l.Locate(chunk(1)).Holders(nil)
		} else if !object.IsKind(err, object.KindCorrupt) {
			t.Fatal(err)
		}
	})
}
