// Package placement decides which nodes hold the replicas of partitions and the
// chunks: pure functions from nodes and today's map to tomorrow's, the same on every node.
//
// Nothing here reads a clock, a disk or a random number, and no floating point
// is involved, so that equal arguments give equal results on every machine. The
// one hash is XXH64 with seed 0. All functions are safe for concurrent use, and
// none changes its arguments; results share no slices with them, except where said.
package placement

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// NodeID names a node for as long as it exists; never empty.
type NodeID string

// None stands where no node is: an empty slot, the missing side of a Move.
const None NodeID = ""

// Node is what placement needs to know of a node.
type Node struct {
	ID NodeID
	// Zone is what fails together: a rack, a room, a power feed. The empty
	// string is a zone like any other.
	Zone string
	// Weight is the share the node takes beside others, in any unit (GiB, say).
	// Zero takes nothing new and gives away what others can take: it drains.
	Weight uint32
}

// Limits. Within them no sum of the planner overflows 64 bits.
const (
	MaxNodes      = 4096
	MaxReplicas   = 64 // of a partition, or slots of a chunk group (erasure.MaxShards)
	MaxPartitions = object.MaxPartitions - 1
	MaxGroups     = 8192
)

// Map says where the replicas of the data partitions are, or shall be.
type Map struct {
	Epoch uint64
	RF    int // replicas wanted; a list is shorter while there are fewer nodes
	// Partitions[i] lists the nodes of partition i+1 (partition 0 is the control
	// group) in order of preference: the first is the preferred leader.
	Partitions [][]NodeID
}

// NewMap is the map of a cluster that has placed nothing yet: the first today of Plan.
func NewMap(partitions int) *Map { return &Map{Partitions: make([][]NodeID, partitions)} }

// Replicas lists the nodes of a partition, preferred leader first; nil for one
// that the map does not have. The slice is the map's own: do not change it.
func (m *Map) Replicas(p object.PartitionID) []NodeID {
	if p == object.Control || int(p) > len(m.Partitions) {
		return nil
	}
	return m.Partitions[p-1]
}

// pool is the nodes of a plan, in an order of their own: by id.
type pool struct {
	live     []Node         // weight above 0, sorted by id
	index    map[NodeID]int // into live
	zoneOf   []int          // of each live node
	zones    [][]int        // the live nodes of each zone
	keys     []uint64       // hash of each live node's id
	draining map[NodeID]bool
	seed     uint64 // hash of all live ids
}

// newPool checks the nodes and sorts them.
func newPool(nodes []Node) (*pool, error) {
	if len(nodes) == 0 || len(nodes) > MaxNodes {
		return nil, object.Errorf(object.KindInvalid, "a plan needs 1 to %d nodes, not %d", MaxNodes, len(nodes))
	}
	sorted := slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	p := &pool{index: map[NodeID]int{}, draining: map[NodeID]bool{}}
	zone, all := map[string]int{}, xxhash.New()
	for i, n := range sorted {
		if n.ID == None || i > 0 && sorted[i-1].ID == n.ID {
			return nil, object.Errorf(object.KindInvalid, "node id %q is empty or given twice: each node needs its own", n.ID)
		}
		if n.Weight == 0 {
			p.draining[n.ID] = true
			continue
		}
		z, known := zone[n.Zone]
		if !known {
			z = len(p.zones)
			zone[n.Zone] = z
			p.zones = append(p.zones, nil)
		}
		p.index[n.ID] = len(p.live)
		p.zones[z] = append(p.zones[z], len(p.live))
		p.zoneOf = append(p.zoneOf, z)
		p.keys = append(p.keys, xxhash.Sum64String(string(n.ID)))
		p.live = append(p.live, n)
	}
	for _, k := range p.keys {
		all.Write(binary.BigEndian.AppendUint64(nil, k)) // never fails
	}
	p.seed = all.Sum64()
	return p, nil
}

// mix hashes two numbers into one.
func mix(a, b uint64) uint64 {
	var buf [16]byte
	binary.BigEndian.PutUint64(buf[:8], a)
	binary.BigEndian.PutUint64(buf[8:], b)
	return xxhash.Sum64(buf[:])
}

// ranked lists the live nodes in the order in which list i likes them:
// rendezvous hashing (Thaler and Ravishankar, 1996).
func (p *pool) ranked(i int) []int {
	score := make([]uint64, len(p.live))
	order := make([]int, len(p.live))
	for n := range order {
		score[n], order[n] = mix(p.keys[n], uint64(i)), n
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(score[b], score[a]), cmp.Compare(a, b))
	})
	return order
}

// checkLists refuses lists that no plan wrote.
func checkLists(lists [][]NodeID, most, width int) error {
	if len(lists) == 0 || len(lists) > most {
		return object.Errorf(object.KindInvalid, "a map has 1 to %d lists of nodes, not %d", most, len(lists))
	}
	for i, list := range lists {
		if len(list) > width {
			return object.Errorf(object.KindInvalid, "list %d of the map has %d nodes; at most %d are allowed", i, len(list), width)
		}
		for k, id := range list {
			if id != None && slices.Contains(list[:k], id) {
				return object.Errorf(object.KindInvalid, "list %d of the map names node %q twice", i, id)
			}
		}
	}
	return nil
}
