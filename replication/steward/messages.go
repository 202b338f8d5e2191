package steward

import (
	"math"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The methods of the transport that this package serves and calls. The numbers
// cross the wire: never used again for something else.
const (
	MethodReport uint16 = 0x40 // (empty) → report
	MethodCreate uint16 = 0x41 // createRequest → (empty)
	MethodJoin   uint16 = 0x42 // control.Command{Join} → joinAnswer; for guests too
)

// format is the first byte of every message; CBOR follows.
const format = 1

// maxMembers bounds what is believed of one group's size: its replicas, and those on their way.
const maxMembers = placement.MaxNodes

// report is what a node tells of itself.
type report struct {
	Incarnation control.Incarnation `cbor:"1,keyasint"`
	Epoch       uint64              `cbor:"2,keyasint,omitempty"` // durably adopted for puts
	Replicas    []heldReport        `cbor:"3,keyasint,omitempty"`
	Groups      []groupReport       `cbor:"4,keyasint,omitempty"`
	Verified    []control.GroupKey  `cbor:"5,keyasint,omitempty"` // chunk groups, complete here
}

type heldReport struct {
	_          struct{}           `cbor:",toarray"`
	Partition  object.PartitionID // ascending with the generation
	Generation uint64
	Held       control.Held
}

type groupReport struct {
	_         struct{} `cbor:",toarray"`
	Partition object.PartitionID
	Epoch     uint64
	Current   uint64
	Config    uint64
	Leader    control.ReplicaID
	Members   []memberReport
}

type memberReport struct {
	_        struct{} `cbor:",toarray"`
	ID       control.ReplicaID
	Voter    bool
	CaughtUp bool
}

// createRequest asks for a replica on the node that is called.
type createRequest struct {
	Partition  object.PartitionID `cbor:"1,keyasint"`
	Generation uint64             `cbor:"2,keyasint"`
	Node       control.NodeID     `cbor:"3,keyasint"` // whom it is for
}

// joinAnswer is what a Join came to, and what the joiner has to know then.
type joinAnswer struct {
	Failed  bool              `cbor:"1,keyasint,omitempty"`
	Kind    object.Kind       `cbor:"2,keyasint,omitempty"`
	Message string            `cbor:"3,keyasint,omitempty"`
	Cluster control.ClusterID `cbor:"4,keyasint"`
	Peers   []peerAddress     `cbor:"5,keyasint,omitempty"`
}

type peerAddress struct {
	_    struct{} `cbor:",toarray"`
	Node control.NodeID
	Peer string
}

func encode(v any) ([]byte, error) {
	b, err := cbor.Marshal(v)
	return append([]byte{format}, b...), err
}

func decode(what string, b []byte, v any) error {
	switch {
	case len(b) == 0:
		return object.Errorf(object.KindInvalid, "a %s without a byte", what)
	case b[0] != format:
		return object.Errorf(object.KindVersion, "a %s of format %d, this program knows %d: upgrade the older node", what, b[0], format)
	}
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxArrayElements: math.MaxUint16}.DecMode()
	if err != nil {
		return err
	}
	if err := mode.Unmarshal(b[1:], v); err != nil {
		return object.Errorf(object.KindInvalid, "a %s that makes no sense: %w", what, err)
	}
	return nil
}

func validReplica(id control.ReplicaID) bool {
	back, err := control.ParseReplicaID(id.String())
	return err == nil && back == id
}

// decodeReport reads a report; KindInvalid for one that no node sends.
func decodeReport(b []byte) (*report, error) {
	r := &report{}
	if err := decode("report", b, r); err != nil {
		return nil, err
	}
	for _, h := range r.Replicas {
		if h.Partition >= object.MaxPartitions || h.Held < control.HeldLive || h.Held > control.HeldDestroyed {
			return nil, object.Errorf(object.KindInvalid, "a report with replica %d of partition %d, held %d", h.Generation, h.Partition, h.Held)
		}
	}
	for _, k := range r.Verified {
		if k.Width < 1 || k.Width > placement.MaxReplicas || k.Group < 0 || k.Group >= placement.MaxGroups || k.Since == 0 {
			return nil, object.Errorf(object.KindInvalid, "a report of chunk group %d of width %d, moving since %d", k.Group, k.Width, k.Since)
		}
	}
	for _, g := range r.Groups {
		bad := g.Partition >= object.MaxPartitions || !validReplica(g.Leader) || len(g.Members) > maxMembers
		for _, m := range g.Members {
			bad = bad || !validReplica(m.ID)
		}
		if bad {
			return nil, object.Errorf(object.KindInvalid, "a report of a group of partition %d that cannot be", g.Partition)
		}
	}
	return r, nil
}

// held is the report's replicas as the planner takes them.
func (r *report) held() map[control.ReplicaKey]control.Held {
	list := make(map[control.ReplicaKey]control.Held, len(r.Replicas))
	for _, h := range r.Replicas {
		list[control.ReplicaKey{Partition: h.Partition, Generation: h.Generation}] = h.Held
	}
	return list
}

func reportOf(p object.PartitionID, g control.GroupSeen) groupReport {
	out := groupReport{Partition: p, Epoch: g.Epoch, Current: g.Current, Config: g.Config, Leader: g.Leader}
	for id, voter := range g.Members {
		out.Members = append(out.Members, memberReport{ID: id, Voter: voter, CaughtUp: g.CaughtUp[id]})
	}
	return out
}

func (g *groupReport) seen() control.GroupSeen {
	out := control.GroupSeen{Epoch: g.Epoch, Current: g.Current, Config: g.Config, Leader: g.Leader,
		Members: map[control.ReplicaID]bool{}, CaughtUp: map[control.ReplicaID]bool{}}
	for _, m := range g.Members {
		out.Members[m.ID] = m.Voter
		if m.CaughtUp {
			out.CaughtUp[m.ID] = true
		}
	}
	return out
}

func decodeCreate(b []byte) (*createRequest, error) {
	c := &createRequest{}
	if err := decode("request for a replica", b, c); err != nil {
		return nil, err
	}
	if c.Partition >= object.MaxPartitions || c.Generation == 0 {
		return nil, object.Errorf(object.KindInvalid, "a request for replica %d of partition %d", c.Generation, c.Partition)
	}
	return c, nil
}

func decodeJoinAnswer(b []byte) (*joinAnswer, error) {
	a := &joinAnswer{}
	if err := decode("answer to a join", b, a); err != nil {
		return nil, err
	}
	if !a.Failed && a.Cluster == (control.ClusterID{}) || len(a.Peers) > placement.MaxNodes {
		return nil, object.Errorf(object.KindInvalid, "an answer to a join that names no cluster, or %d nodes", len(a.Peers))
	}
	for _, p := range a.Peers {
		if !validReplica(control.ReplicaID{Node: p.Node}) || p.Peer == "" {
			return nil, object.Errorf(object.KindInvalid, "an answer to a join with node %q at %q", p.Node, p.Peer)
		}
	}
	return a, nil
}
