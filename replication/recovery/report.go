// Package recovery plans how a cluster goes on that has lost a majority for good: from
// what every node that is left says of itself to one plan that all of them carry out.
//
// It is pure: package replication reads the reports and carries the plan out, on stopped
// nodes. DESIGN.md beside this file argues each decision.
package recovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// format is the version of reports and plans.
const format = 1

// maxFile bounds a report or a plan, in bytes: thousands of partitions, and the layouts.
const maxFile = 64 << 20

// Report is what one stopped node has of its cluster. It is JSON, to be carried to
// where the plan is made; it has no secrets.
type Report struct {
	Format  int
	Cluster string // hex
	Node    control.NodeID
	Store   string // hex
	Taken   time.Time
	// State is the control state as this node's replica has it; nil: it has none.
	State *State `json:",omitempty"`
	// Replicas are those of this node, by partition.
	Replicas []Replica
}

// Replica is one stopped replica.
type Replica struct {
	Partition object.PartitionID
	ID        string
	// Unusable says why its log or state cannot be used; "": they can.
	Unusable string `json:",omitempty"`

	group.Remains
}

// State is what of the control state decides about a recovery.
type State struct {
	Epoch      uint64
	Partitions int // data partitions
	Nodes      []Node
	Chunks     []Chunks
}

// Node is a node on record.
type Node struct {
	ID      control.NodeID
	Store   string // hex
	Peer    string // host:port
	Removed bool   `json:",omitempty"`
	Next    uint64 // generation of its next replica
}

// Chunks are the groups of one width.
type Chunks struct {
	Width   int
	Schemes []int              // data shards; 0: copies
	Groups  [][]control.NodeID // who holds something of each, "" for empty slots
}

// StateOf takes from a control state what a report has of it.
func StateOf(s *control.State) *State {
	out := &State{Epoch: s.Epoch, Partitions: s.Header.Partitions}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		out.Nodes = append(out.Nodes, Node{ID: n.ID, Store: hex.EncodeToString(n.Store[:]), Peer: n.Peer, Removed: n.Life == control.NodeRemoved, Next: n.Next})
	}
	for _, l := range s.Layouts {
		c := Chunks{Width: l.Width, Schemes: l.Schemes}
		for _, g := range l.Groups {
			c.Groups = append(c.Groups, slices.Concat(g.Holders, g.Next))
		}
		out.Chunks = append(out.Chunks, c)
	}
	return out
}

// replica is this node's of a partition, or nil.
func (r *Report) replica(p object.PartitionID) *Replica {
	i, found := slices.BinarySearchFunc(r.Replicas, p, func(x Replica, p object.PartitionID) int { return cmp.Compare(x.Partition, p) })
	if !found {
		return nil
	}
	return &r.Replicas[i]
}

// Digest stands for the logs that the report tells of. It changes when the node has run since.
func (r *Report) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s\n", r.Cluster, r.Node, r.Store)
	for _, x := range r.Replicas {
		fmt.Fprintf(h, "%d %q %d %d %d %d %t\n", x.Partition, x.ID, x.Term, x.Last, x.LastTerm, x.Config, x.Unusable != "")
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Encode is the report as a file.
func (r *Report) Encode() ([]byte, error) {
	r.Format = format
	return indent(r)
}

// DecodeReport reads what Encode wrote; anything else is KindInvalid, a later format KindVersion.
func DecodeReport(b []byte) (*Report, error) {
	r := &Report{}
	if err := decode(b, "report", r, &r.Format); err != nil {
		return nil, err
	}
	sorted := slices.IsSortedFunc(r.Replicas, func(a, b Replica) int { return cmp.Compare(a.Partition, b.Partition) })
	for i, x := range r.Replicas {
		sorted = sorted && (i == 0 || r.Replicas[i-1].Partition != x.Partition) && x.Partition < object.MaxPartitions
	}
	if _, err := clusterID(r.Cluster); err != nil || r.Node == "" || !sorted {
		return nil, object.Errorf(object.KindInvalid, "this is no report of a node: take one with `bucketdb cluster recover --report FILE`")
	}
	if s := r.State; s != nil && (s.Partitions < 1 || s.Partitions >= object.MaxPartitions) {
		return nil, object.Errorf(object.KindInvalid, "the report tells of %d partitions", s.Partitions)
	}
	return r, nil
}

func decode(b []byte, what string, into any, version *int) error {
	if len(b) > maxFile {
		return object.Errorf(object.KindInvalid, "a %s of %d bytes is none", what, len(b))
	}
	if err := json.Unmarshal(b, into); err != nil {
		return object.Errorf(object.KindInvalid, "this is no %s of a recovery: %w", what, err)
	}
	switch {
	case *version > format:
		return object.Errorf(object.KindVersion, "the %s has format %d, this program knows %d: use the same program on all nodes", what, *version, format)
	case *version < 1:
		return object.Errorf(object.KindInvalid, "this is no %s of a recovery", what)
	}
	return nil
}

func indent(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", " ")
	return append(b, '\n'), err
}

func clusterID(text string) (id control.ClusterID, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || copy(id[:], b) != len(id) || len(b) != len(id) {
		return id, object.Errorf(object.KindInvalid, "%q is no id of a cluster", text)
	}
	return id, nil
}
