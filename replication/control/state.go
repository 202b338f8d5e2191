package control

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Keys in partition 0's range; namespace uses none of these first bytes.
const (
	keyNode     = 'N' // node id → Node
	keyMap      = 'M' // see below
	keySettings = 'Z' // → Settings

	mapHeader    = 'h' // → Header
	mapTarget    = 't' // → Target
	mapPartition = 'p' // partition(2) → Partition
	mapLayout    = 'l' // width(1) → Layout
)

func nodeKey(id NodeID) []byte { return append([]byte{keyNode}, id...) }
func headerKey() []byte        { return []byte{keyMap, mapHeader} }
func targetKey() []byte        { return []byte{keyMap, mapTarget} }
func settingsKey() []byte      { return []byte{keySettings} }
func layoutKey(width int) []byte {
	return []byte{keyMap, mapLayout, byte(width)}
}
func partitionKey(p object.PartitionID) []byte {
	return binary.BigEndian.AppendUint16([]byte{keyMap, mapPartition}, uint16(p))
}

// Reader is what is read from: a meta.Snapshot, a meta.Txn, a remote view. See meta.Reader.
type Reader interface {
	Get(key []byte) (value []byte, found bool, err error)
	Ascend(start, end []byte, fn func(key, value []byte) (bool, error)) error
}

// State is the whole control state, decoded. Treat it as a value: Next and its
// other readers do not change it.
type State struct {
	Header
	Settings   Settings
	Nodes      []Node      // sorted by id, removed ones among them
	Partitions []Partition // by number: 0 is the control group
	Target     Target
	Layouts    []*Layout // sorted by width
}

// Node returns the record of a node, or nil.
func (s *State) Node(id NodeID) *Node {
	i, found := slices.BinarySearchFunc(s.Nodes, id, func(n Node, id NodeID) int { return strings.Compare(string(n.ID), string(id)) })
	if !found {
		return nil
	}
	return &s.Nodes[i]
}

// Irreplaceable reports whether nobody but a replica may have what its partition
// acknowledged: it may vote, and no other that may is left on a node that is there. It is
// never to be recorded as lost: the cluster would make an empty one in its place, or none.
func (s *State) Irreplaceable(p object.PartitionID, id ReplicaID) bool {
	if int(p) >= len(s.Partitions) {
		return false
	}
	counts := false
	for i := range s.Partitions[p].Replicas {
		r := &s.Partitions[p].Replicas[i]
		switch {
		case r.Lost || !r.mayVote():
		case r.ID == id:
			counts = true
		case s.Node(r.ID.Node).here():
			return false
		}
	}
	return counts
}

// Layout returns the layout of a width, or nil: no bucket has used it yet.
func (s *State) Layout(width int) *Layout {
	for _, l := range s.Layouts {
		if l.Width == width {
			return l
		}
	}
	return nil
}

// Replicas lists the replicas of a partition in order of preference: first those
// that the plan wants, in its order.
func (s *State) Replicas(p object.PartitionID) []Replica {
	if int(p) >= len(s.Partitions) {
		return nil
	}
	want := s.Target.Of(p)
	rank := func(r Replica) int {
		if i := slices.Index(want, r.ID.Node); i >= 0 {
			return i
		}
		return len(want)
	}
	list := slices.Clone(s.Partitions[p].Replicas)
	slices.SortStableFunc(list, func(a, b Replica) int { return rank(a) - rank(b) })
	return list
}

// Load reads the state. KindNotFound: no cluster was ever bootstrapped here.
func Load(r Reader) (*State, error) {
	s := &State{}
	read := func(key []byte, into func([]byte) error) error {
		b, found, err := r.Get(key)
		if err == nil && !found {
			err = object.Errorf(object.KindNotFound, "no cluster here yet: bootstrap one, or join one")
		}
		if err != nil {
			return err
		}
		return into(b)
	}
	for _, part := range []struct {
		key  []byte
		into func([]byte) error
	}{
		{headerKey(), func(b []byte) error { return keep(&s.Header)(decodeHeader(b)) }},
		{settingsKey(), func(b []byte) error { return keep(&s.Settings)(decodeSettings(b)) }},
		{targetKey(), func(b []byte) error { return keep(&s.Target)(decodeTarget(b)) }},
	} {
		if err := read(part.key, part.into); err != nil {
			return nil, err
		}
	}
	return s, s.loadLists(r)
}

// loadLists reads nodes, partitions and layouts.
func (s *State) loadLists(r Reader) error {
	scan := func(prefix []byte, add func(rest, value []byte) error) error {
		end := slices.Clone(prefix)
		end[len(end)-1]++
		return r.Ascend(prefix, end, func(k, v []byte) (bool, error) { return true, add(k[len(prefix):], slices.Clone(v)) })
	}
	if err := scan([]byte{keyNode}, func(id, v []byte) error {
		n, err := decodeNode(NodeID(id), v)
		if err == nil {
			s.Nodes = append(s.Nodes, *n)
		}
		return err
	}); err != nil {
		return err
	}
	if err := scan([]byte{keyMap, mapPartition}, func(id, v []byte) error {
		if len(id) != 2 || int(binary.BigEndian.Uint16(id)) != len(s.Partitions) {
			return damaged("map", "partition %x after %d", id, len(s.Partitions))
		}
		p, err := decodePartition(object.PartitionID(len(s.Partitions)), v)
		if err == nil {
			s.Partitions = append(s.Partitions, *p)
		}
		return err
	}); err != nil {
		return err
	}
	if len(s.Partitions) != 1+s.Header.Partitions {
		return damaged("map", "%d partitions of %d", len(s.Partitions)-1, s.Header.Partitions)
	}
	return scan([]byte{keyMap, mapLayout}, func(_, v []byte) error {
		l, err := decodeLayout(v)
		if err == nil {
			s.Layouts = append(s.Layouts, l)
		}
		return err
	})
}

// keep stores what a decoder gave.
func keep[T any](into *T) func(*T, error) error {
	return func(v *T, err error) error {
		if err == nil {
			*into = *v
		}
		return err
	}
}
