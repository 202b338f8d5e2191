package control

import (
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Observed is what the caller of Next knows of the world beside the control state.
// What is missing is not known: Next then leaves out what would depend on it, so a
// partition's leader that knows only its own group gets that group's actions.
// It may be old, but never wrong about what it claims to have seen after an epoch.
type Observed struct {
	Nodes      map[NodeID]NodeSeen
	Partitions map[object.PartitionID]GroupSeen
	// Verified lists the holders on which, for a joint group, every chunk of the list (see
	// Copy) is complete and verified. The list was taken after the group's Copying entry, and
	// compared again after the copying; the holder had adopted Since before.
	Verified map[GroupKey][]NodeID
}

// GroupKey names one move of one chunk group.
type GroupKey struct {
	Width int    `cbor:"1,keyasint"`
	Group int    `cbor:"2,keyasint"`
	Since uint64 `cbor:"3,keyasint"`
}

// ReplicaKey names a replica at its node.
type ReplicaKey struct {
	Partition  object.PartitionID
	Generation uint64
}

// NodeSeen is one node, as it last answered.
type NodeSeen struct {
	Up     bool          // it answers
	Silent time.Duration // since it last answered, by the caller's monotonic clock
	// Epoch is the map's that the node has durably adopted: no put placed under an older Since passes there.
	Epoch    uint64
	Replicas map[ReplicaKey]Held
}

// Held is what a node's replica record says.
type Held uint8

// What a replica record says.
const (
	HeldLive      Held = iota + 1 // durable, and its log and vote are whole
	HeldLost                      // its log or vote is lost
	HeldDestroyed                 // dropped; the id is refused for ever
)

// GroupSeen is a partition's group, told by its leader. Changes of members are made by that
// leader in the same term, one at a time, or not at all.
type GroupSeen struct {
	// Epoch is the map's that the leader had applied before it confirmed, by the
	// sent-after rule, that it leads, and read the rest.
	Epoch  uint64
	Leader ReplicaID
	// Current is the map's epoch, asked (linearizably) of the control group after the rest
	// was read. An older state must not decide on the group's members.
	Current uint64
	// Members is the newest configuration, true for voters; Config is its index, and
	// it is committed. No change that this leader has begun is outstanding.
	Members map[ReplicaID]bool
	Config  uint64
	// CaughtUp has the non-voters that lack few entries.
	CaughtUp map[ReplicaID]bool
	// Kept: a person gave this leader the leadership, to keep for a while. It goes to the
	// preferred replica later; a leader that leaves the group hands it on all the same.
	Kept bool
}

// Actor is whose turn an Action is.
type Actor uint8

// The actors.
const (
	ControlLeader   Actor = iota + 1 // who leads partition 0
	PartitionLeader                  // who leads Action.Partition
	TheNode                          // Action.Node
)

// Verb is what an Action asks for.
type Verb uint8

// The verbs. All but Propose are physical, may be repeated, and leave their trace in
// what is observed next.
const (
	Propose      Verb = iota + 1 // Action.Command, to partition 0
	Create                       // a durable replica record and an empty group at Replica's node; refused for an id that was destroyed
	AddNonvoter                  // in raft; Config is raft's prevIndex, as for the next three
	Promote                      // in raft, to a voter
	Demote                       // in raft, to a non-voter
	RemoveMember                 // in raft
	Transfer                     // the leadership to Replica
	Destroy                      // the replica at its node: record first, then log and keys
	Copy                         // fetch and verify what Node lacks of a chunk group's list
)

var verbs = [...]string{
	Propose: "propose", Create: "create", AddNonvoter: "add non-voter", Promote: "promote", Demote: "demote",
	RemoveMember: "remove member", Transfer: "transfer leadership to", Destroy: "destroy", Copy: "copy",
}

// String is the verb for people.
func (v Verb) String() string { return name(verbs[:], int(v)) }

// Action is one thing to do next. Nothing has to be remembered about it: whoever
// takes over asks Next again.
type Action struct {
	Verb Verb
	By   Actor
	Node NodeID // of TheNode

	Command *Command // of Propose

	Partition object.PartitionID
	Replica   ReplicaID
	Config    uint64 // the change of members is refused when the configuration is another by now

	// Of Copy: the list is the union of what at least Lists old holders have.
	Group GroupKey
	Lists int
}
