package control

import (
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Command is one change of the control state: exactly one field is set (and Was with Configure). All may be
// repeated: a repeat changes nothing, and is KindConflict when the state has gone
// beyond. Epoch, where a command has one, is the header's that its author saw.
type Command struct {
	Bootstrap *Bootstrap  `cbor:"1,keyasint,omitempty"`
	Join      *Join       `cbor:"2,keyasint,omitempty"`
	Update    *UpdateNode `cbor:"3,keyasint,omitempty"`
	Admit     *Admit      `cbor:"4,keyasint,omitempty"`
	Drain     *Drain      `cbor:"5,keyasint,omitempty"`
	Remove    *Remove     `cbor:"6,keyasint,omitempty"`
	SetWeight *SetWeight  `cbor:"7,keyasint,omitempty"`
	SetZone   *SetZone    `cbor:"8,keyasint,omitempty"`
	MarkGone  *Mark       `cbor:"9,keyasint,omitempty"`
	MarkBack  *Mark       `cbor:"10,keyasint,omitempty"`
	Configure *Settings   `cbor:"11,keyasint,omitempty"`
	// Was goes with Configure: KindConflict unless these are the settings.
	Was *Settings `cbor:"12,keyasint,omitempty"`

	Plan  *Plan  `cbor:"20,keyasint,omitempty"`
	Place *Place `cbor:"21,keyasint,omitempty"`
	Step  *Step  `cbor:"22,keyasint,omitempty"`
	Lost  *Lost  `cbor:"23,keyasint,omitempty"`

	AddWidth *AddWidth `cbor:"30,keyasint,omitempty"`
	Begin    *Begin    `cbor:"31,keyasint,omitempty"`
	Advance  *Advance  `cbor:"32,keyasint,omitempty"`

	Recover *Recover `cbor:"40,keyasint,omitempty"`
}

// DecodeCommand reads what Encode wrote; anything else is KindCorrupt, a later format KindVersion.
func DecodeCommand(b []byte) (*Command, error) {
	c := &Command{}
	if err := decode("command", b, c); err != nil {
		return nil, err
	}
	return c, nil
}

// Encode is the command with its format byte, for a log entry of its own.
func (c *Command) Encode() ([]byte, error) { return encode(c) }

// Bootstrap makes a cluster of one: the node has generation 0 of all partitions,
// and holds all chunk groups.
type Bootstrap struct {
	Cluster    ClusterID `cbor:"1,keyasint"`
	Node       Join      `cbor:"2,keyasint"`
	Partitions int       `cbor:"3,keyasint"` // data partitions, for ever
	Groups     int       `cbor:"4,keyasint"` // chunk groups, for ever
	Settings   Settings  `cbor:"5,keyasint"`
}

// Join makes a node known, or tells where it is now. Zone and weight are those of
// the first Join; SetZone and SetWeight change them.
type Join struct {
	Node        NodeID      `cbor:"1,keyasint"`
	Store       StoreID     `cbor:"2,keyasint"`
	Incarnation Incarnation `cbor:"3,keyasint"`
	API         string      `cbor:"4,keyasint"`
	Peer        string      `cbor:"5,keyasint"`
	Zone        string      `cbor:"6,keyasint,omitempty"`
	Weight      uint32      `cbor:"7,keyasint"`
	Versions    Versions    `cbor:"8,keyasint"`
	// Partitions is the number of data partitions of the joiner's store; 0: it did not say. Who is
	// asked compares it (steward): the cluster's never changes.
	Partitions int `cbor:"9,keyasint,omitempty"`
}

// UpdateNode tells a known node's incarnation, addresses and versions.
type UpdateNode struct {
	Node        NodeID      `cbor:"1,keyasint"`
	Store       StoreID     `cbor:"2,keyasint"`
	Incarnation Incarnation `cbor:"3,keyasint"`
	API         string      `cbor:"4,keyasint"`
	Peer        string      `cbor:"5,keyasint"`
	Versions    Versions    `cbor:"6,keyasint"`
}

// Admit: the joining node has the control state and serves.
type Admit struct {
	Node  NodeID  `cbor:"1,keyasint"`
	Store StoreID `cbor:"2,keyasint"`
}

// Drain begins to empty a node, or (Undo) takes that back.
type Drain struct {
	Node NodeID `cbor:"1,keyasint"`
	Undo bool   `cbor:"2,keyasint,omitempty"`
}

// Remove ends a node for ever: KindBusy while it holds what nobody else has.
type Remove struct {
	Node NodeID `cbor:"1,keyasint"`
}

// SetWeight changes a node's share; 0 gives everything away.
type SetWeight struct {
	Node   NodeID `cbor:"1,keyasint"`
	Weight uint32 `cbor:"2,keyasint"`
}

// SetZone changes what fails together with a node.
type SetZone struct {
	Node NodeID `cbor:"1,keyasint"`
	Zone string `cbor:"2,keyasint"`
}

// Mark says that a node is gone or back, as judged of this incarnation.
type Mark struct {
	Node        NodeID      `cbor:"1,keyasint"`
	Incarnation Incarnation `cbor:"2,keyasint"`
}

// Plan replaces the target. KindConflict: nodes, settings or the plan changed after Epoch.
type Plan struct {
	Epoch   uint64        `cbor:"1,keyasint"`
	Target  []byte        `cbor:"2,keyasint"` // Target
	Layouts []PlanOfWidth `cbor:"3,keyasint,omitempty"`
}

// PlanOfWidth is the planned slots of every group of a layout.
type PlanOfWidth struct {
	Width int    `cbor:"1,keyasint"`
	Slots []byte `cbor:"2,keyasint"` // encodeSlots
}

// Place gives a node a new replica; the Result names it.
type Place struct {
	Partition object.PartitionID `cbor:"1,keyasint"`
	Node      NodeID             `cbor:"2,keyasint"`
	Epoch     uint64             `cbor:"3,keyasint"`
}

// Step takes a replica to the next state of its life, from what Epoch showed.
type Step struct {
	Partition object.PartitionID `cbor:"1,keyasint"`
	Replica   ReplicaID          `cbor:"2,keyasint"`
	Epoch     uint64             `cbor:"3,keyasint"`
	To        ReplicaState       `cbor:"4,keyasint"`
}

// Lost reports that a replica's log or vote is gone: it never runs under its id again.
type Lost struct {
	Partition object.PartitionID `cbor:"1,keyasint"`
	Replica   ReplicaID          `cbor:"2,keyasint"`
}

// AddWidth makes the layout of a width at a bucket's first use, or adds a scheme to it.
type AddWidth struct {
	Epoch uint64 `cbor:"1,keyasint"`
	Width int    `cbor:"2,keyasint"`
	Data  int    `cbor:"3,keyasint,omitempty"` // data shards of the scheme; 0: copies
	Slots []byte `cbor:"4,keyasint"`           // encodeSlots of NewLayout's groups
}

// Begin makes chunk groups joint.
type Begin struct {
	Epoch uint64     `cbor:"1,keyasint"`
	Width int        `cbor:"2,keyasint"`
	Moves []SlotMove `cbor:"3,keyasint"`
}

// SlotMove exchanges the holder of one slot of a group; empty names stand for none.
type SlotMove struct {
	Group int    `cbor:"1,keyasint"`
	Slot  int    `cbor:"2,keyasint"`
	From  NodeID `cbor:"3,keyasint,omitempty"`
	To    NodeID `cbor:"4,keyasint,omitempty"`
}

// GroupStep is what a joint group goes to.
type GroupStep uint8

// The steps of a joint group.
const (
	Copying  GroupStep = iota + 1 // Nodes: old holders that have durably adopted Since
	Stable                        // Nodes: the new holders that are verified complete
	Canceled                      // back to the old holders
)

// String is the step for people.
func (s GroupStep) String() string {
	return name([]string{Copying: "copying", Stable: "stable", Canceled: "canceled"}, int(s))
}

// Advance takes joint groups a step on.
type Advance struct {
	Width  int            `cbor:"1,keyasint"`
	To     GroupStep      `cbor:"2,keyasint"`
	Groups []AdvanceGroup `cbor:"3,keyasint"`
}

// AdvanceGroup names the move by the epoch at which the group became joint.
type AdvanceGroup struct {
	Group int      `cbor:"1,keyasint"`
	Since uint64   `cbor:"2,keyasint"`
	Nodes []NodeID `cbor:"3,keyasint,omitempty"`
}

// Result is what a command came to.
type Result struct {
	// Kind and Message are the error; Failed tells that there is one.
	Failed  bool        `cbor:"1,keyasint,omitempty"`
	Kind    object.Kind `cbor:"2,keyasint,omitempty"`
	Message string      `cbor:"3,keyasint,omitempty"`

	Epoch   uint64     `cbor:"4,keyasint,omitempty"` // of the map, after the command
	Cluster ClusterID  `cbor:"5,keyasint"`
	Replica *ReplicaID `cbor:"6,keyasint,omitempty"` // of Join (in partition 0) and Place
}

// Err is the error, or nil.
func (r *Result) Err() error {
	if !r.Failed {
		return nil
	}
	return object.Errorf(r.Kind, "%s", r.Message)
}
