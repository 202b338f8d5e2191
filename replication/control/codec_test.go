package control

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// seedStates feeds the records of a cluster that is in the middle of many things.
func seedStates(f *testing.F) {
	for seed := range uint64(4) {
		w := newWorld(f, seed, 2, 3)
		for range 120 {
			w.event()
		}
		for _, v := range w.state {
			f.Add(v)
		}
	}
	for _, c := range []*Command{
		bootstrapOf("n0", 2, 3), {Join: joinOf("n1", 2)}, {Step: &Step{1, ReplicaID{"n1", 3}, 9, Leaving}},
		{Begin: &Begin{4, 3, []SlotMove{{0, 1, "", "n1"}}}}, {Advance: &Advance{3, Stable, []AdvanceGroup{{0, 4, []NodeID{"n1"}}}}},
	} {
		b, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzDecode: every decoder takes anything, refuses it with a kind, and writes what it
// read so that it reads the same.
func FuzzDecode(f *testing.F) {
	seedStates(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, func(b []byte) (*Node, error) { return decodeNode("n1", b) }, func(n *Node) ([]byte, error) { return encode(n) })
		again(t, b, func(b []byte) (*Partition, error) { return decodePartition(3, b) }, func(p *Partition) ([]byte, error) { return encode(p) })
		again(t, b, decodeHeader, func(h *Header) ([]byte, error) { return encode(h) })
		again(t, b, decodeSettings, func(s *Settings) ([]byte, error) { return encode(s) })
		again(t, b, decodeTarget, (*Target).encode)
		again(t, b, decodeLayout, (*Layout).encode)
		again(t, b, DecodeCommand, (*Command).Encode)
	})
}

func again[T any](t *testing.T, b []byte, read func([]byte) (*T, error), write func(*T) ([]byte, error)) {
	t.Helper()
	v, err := read(b)
	if err != nil {
		if !object.IsKind(err, object.KindCorrupt) && !object.IsKind(err, object.KindVersion) {
			t.Fatal(err)
		}
		return
	}
	written, err := write(v)
	if err != nil {
		t.Fatal(err)
	}
	back, err := read(written)
	if err != nil {
		t.Fatalf("%+v cannot be read back: %v", v, err)
	}
	if second, err := write(back); err != nil || !bytes.Equal(second, written) {
		t.Fatalf("%+v came back as %+v, %v", v, back, err)
	}
}

// FuzzApply: a command that anybody could send never fails but with a kind, changes nothing
// then, and never leaves a state that cannot be read.
func FuzzApply(f *testing.F) {
	seedStates(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		state := memory{}
		must(t, state, bootstrapOf("n0", 2, 3))
		must(t, state, &Command{Join: joinOf("n1", 2)})
		before := loaded(t, state)
		r, err := Apply(state, c)
		if err != nil {
			t.Fatal(err)
		}
		if after := loaded(t, state); r.Failed && !reflect.DeepEqual(before, after) {
			t.Fatalf("%s failed (%s) and changed the state", text(c), r.Message)
		}
	})
}

func TestFormats(t *testing.T) {
	if _, err := decodeHeader(nil); !object.IsKind(err, object.KindCorrupt) {
		t.Error(err)
	}
	if _, err := DecodeCommand([]byte{format + 1, 0}); !object.IsKind(err, object.KindVersion) {
		t.Error(err)
	}
	unknown := memory{}
	must(t, unknown, bootstrapOf("n0", 1, 1))
	mustFail(t, unknown, object.KindVersion, &Command{})
	for _, s := range []string{"", "#1", "a#", "a#0", "a#01", "a#-1", "a b", "a#1#2", "a/b"} {
		if id, err := ParseReplicaID(s); !object.IsKind(err, object.KindInvalid) {
			t.Errorf("%q is %v, %v", s, id, err)
		}
	}
	for _, id := range []ReplicaID{{"a", 0}, {"a.b-c_D", 18446744073709551615}} {
		if back, err := ParseReplicaID(id.String()); err != nil || back != id {
			t.Errorf("%v came back as %v, %v", id, back, err)
		}
	}
}
