// Package control is the control state of a cluster: who its nodes are, where
// replicas and chunks live, and what has to happen next for them to live where they should.
//
// The state stands in partition 0, so every node has it. Commands change it (Apply,
// deterministic); Next reads it and says what is to be done. DESIGN.md beside this
// file lists records, commands and what a crash leaves.
package control

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// NodeID names a node: 1 to 64 of [A-Za-z0-9._-].
type NodeID = placement.NodeID

// ClusterID, StoreID and Incarnation are random. A StoreID is made with a node's
// directories, an Incarnation at each start of its process.
type (
	ClusterID   [16]byte
	StoreID     [16]byte
	Incarnation [16]byte
)

// MaxVoters is the largest number of voters of the control group.
const MaxVoters = 5

// ReplicaID names a replica for ever: the counter in the node's record gives every
// generation once, over all partitions.
type ReplicaID struct {
	Node       NodeID `cbor:"1,keyasint"`
	Generation uint64 `cbor:"2,keyasint,omitempty"`
}

// String is the raft server id: the bare node id for generation 0 (what a single
// node wrote before it was a cluster), else "node#generation".
func (r ReplicaID) String() string {
	if r.Generation == 0 {
		return string(r.Node)
	}
	return string(r.Node) + "#" + strconv.FormatUint(r.Generation, 10)
}

// ParseReplicaID reads what String wrote; anything else is KindInvalid.
func ParseReplicaID(s string) (ReplicaID, error) {
	node, generation, numbered := strings.Cut(s, "#")
	r := ReplicaID{Node: NodeID(node)}
	if numbered {
		g, err := strconv.ParseUint(generation, 10, 64)
		if err != nil {
			return ReplicaID{}, object.Errorf(object.KindInvalid, "%q is not a replica id (node or node#generation)", s)
		}
		r.Generation = g
	}
	if !validID(r.Node) || r.String() != s {
		return ReplicaID{}, object.Errorf(object.KindInvalid, "%q is not a replica id (node or node#generation)", s)
	}
	return r, nil
}

func validID(id NodeID) bool {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	return len(id) > 0 && len(id) <= 64 && strings.IndexFunc(string(id), func(r rune) bool { return !ok(r) }) < 0
}

// NodeState is what a node is for the planner. The numbers are stored.
type NodeState uint8

// The states of a node.
const (
	NodeJoining  NodeState = iota + 1 // known; its replica of partition 0 is not there yet
	NodeUp                            // takes replicas and chunks
	NodeDraining                      // gives away what others can take
	NodeGone                          // silent for too long: others take over what it holds
	NodeRemoved                       // never comes back with this store; the record stays
)

var nodeStates = [...]string{NodeJoining: "joining", NodeUp: "up", NodeDraining: "draining", NodeGone: "gone", NodeRemoved: "removed"}

// String is the state's name for people.
func (s NodeState) String() string { return name(nodeStates[:], int(s)) }

// Node is one node, key N.
type Node struct {
	ID          NodeID      `cbor:"-"` // in the key
	Store       StoreID     `cbor:"1,keyasint"`
	Incarnation Incarnation `cbor:"2,keyasint"`
	API         string      `cbor:"3,keyasint"` // host:port of the REST API
	Peer        string      `cbor:"4,keyasint"` // host:port for other nodes
	Zone        string      `cbor:"5,keyasint,omitempty"`
	Weight      uint32      `cbor:"6,keyasint,omitempty"`
	// Life is NodeJoining, NodeUp or NodeRemoved; State adds the flags.
	Life     NodeState `cbor:"7,keyasint"`
	Draining bool      `cbor:"8,keyasint,omitempty"`
	Gone     bool      `cbor:"9,keyasint,omitempty"`
	Versions Versions  `cbor:"10,keyasint"`
	// Next is the generation of the next replica that the node gets.
	Next uint64 `cbor:"11,keyasint"`
	// Past are the last incarnations before this one, newest first: a delayed
	// message of an ended process must not bring it back.
	Past []Incarnation `cbor:"12,keyasint,omitempty"`
}

// pastKept bounds Node.Past.
const pastKept = 16

// State is what the node is, with the flag that counts most.
func (n *Node) State() NodeState {
	switch {
	case n.Life == NodeRemoved:
		return NodeRemoved
	case n.Gone:
		return NodeGone
	case n.Draining:
		return NodeDraining
	}
	return n.Life
}

// here reports whether the node is thought to be alive.
func (n *Node) here() bool { return n != nil && n.Life != NodeRemoved && !n.Gone }

// Versions are the protocol versions that a node speaks, both included.
type Versions struct {
	Min uint64 `cbor:"1,keyasint"`
	Max uint64 `cbor:"2,keyasint"`
}

// ReplicaState is where in its life a replica is. The numbers are stored.
type ReplicaState uint8

// The life of a replica. In raft, InForce, Promoting, Demoting and Leaving may be
// voters, the others never are; of the middle three a partition has one at a time.
const (
	Joining   ReplicaState = iota + 1 // in the map; its node may not know yet
	Created                           // the node's replica record is durable; a non-voter or about to be
	Learner                           // partition 0 only: caught up, and stays a non-voter
	Promoting                         // caught up, about to be a voter, or one
	InForce                           // a voter that counts
	Demoting                          // partition 0 only: about to be a non-voter, or one
	Leaving                           // about to be taken out of the group, or out
	Removed                           // out of the group; its node has yet to destroy it
	Destroyed                         // never stored: the step that drops the record
)

var replicaStates = [...]string{
	Joining: "joining", Created: "created", Learner: "learner", Promoting: "promoting", InForce: "in force",
	Demoting: "demoting", Leaving: "leaving", Removed: "removed", Destroyed: "destroyed",
}

// String is the state's name for people.
func (s ReplicaState) String() string { return name(replicaStates[:], int(s)) }

func name(names []string, i int) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("state %d", i)
}

// Replica is one replica of a partition.
type Replica struct {
	ID    ReplicaID    `cbor:"1,keyasint"`
	State ReplicaState `cbor:"2,keyasint"`
	// Was is the state before Leaving or Demoting.
	Was ReplicaState `cbor:"3,keyasint,omitempty"`
	// Lost: its log or vote is gone, or its node is removed. It never votes again.
	Lost bool `cbor:"4,keyasint,omitempty"`
}

// changing reports whether the replica's vote is being given or taken.
func (r *Replica) changing() bool {
	return r.State == Promoting || r.State == Demoting || r.State == Leaving
}

// moving reports whether the replica is on its way in or out.
func (r *Replica) moving() bool { return r.changing() || r.State == Joining || r.State == Created }

// mayVote reports whether the replica may be a voter in raft.
func (r *Replica) mayVote() bool {
	state := r.State
	if state == Leaving {
		state = r.Was
	}
	return state == InForce || state == Promoting || state == Demoting
}

// Partition is where one partition's replicas are, key M p.
type Partition struct {
	ID       object.PartitionID `cbor:"-"` // in the key
	Since    uint64             `cbor:"1,keyasint"`
	Replicas []Replica          `cbor:"2,keyasint"`
}

// find returns the replica of an id, or nil.
func (p *Partition) find(id ReplicaID) *Replica {
	for i := range p.Replicas {
		if p.Replicas[i].ID == id {
			return &p.Replicas[i]
		}
	}
	return nil
}

// on returns the newest replica on a node, whatever its state, or nil.
func (p *Partition) on(id NodeID) (r *Replica) {
	for i := range p.Replicas {
		if p.Replicas[i].ID.Node == id {
			r = &p.Replicas[i]
		}
	}
	return r
}

// Header is what the whole map has in common, key M h.
type Header struct {
	Cluster    ClusterID `cbor:"1,keyasint"`
	Epoch      uint64    `cbor:"2,keyasint"` // rises with every change of the map or of what plans depend on
	Inputs     uint64    `cbor:"3,keyasint"` // epoch at which nodes or settings that plans depend on changed
	Planned    uint64    `cbor:"4,keyasint"` // epoch of the plan
	Partitions int       `cbor:"5,keyasint"` // data partitions
	Groups     int       `cbor:"6,keyasint"` // chunk groups of every layout
	// Former are the ids that the cluster had before a majority was lost and it was
	// recovered (Recover), oldest first: nodes that still are in one of those were left out.
	Former []ClusterID `cbor:"7,keyasint,omitempty"`
}

// Target is the plan: where the partitions' replicas shall be, key M t.
type Target struct {
	Data   *placement.Map // of the data partitions
	Voters []NodeID       // of the control group, preferred leader first
}

// Of lists the nodes that shall have a voter of a partition, preferred leader first.
func (t *Target) Of(p object.PartitionID) []NodeID {
	if p == object.Control {
		return t.Voters
	}
	return t.Data.Replicas(p)
}

// Layout is the chunks of one width, key M l: where they are and where they shall be.
type Layout struct {
	*placement.Layout
	// Schemes are the numbers of data shards of the schemes of this width, ascending;
	// 0 is copies. A coordinator writes a scheme only under a map that lists it.
	Schemes []int
	// Copying has the joint groups that so many old holders have adopted that the others
	// acknowledge nothing alone. The union of the lists of any Lists old holders, taken
	// after that, has every chunk that was acknowledged before.
	Copying map[int]bool
	// Target is the planned slots of every group.
	Target [][]NodeID
}

// quorum is how many of n holders acknowledge a write of a scheme: a majority of
// copies, k+1 shards or more.
func quorum(scheme, n int) int {
	if scheme > 0 {
		return min(scheme+1, n)
	}
	return n/2 + 1
}

// Quorum is how many of n holders suffice for every scheme.
func (l *Layout) Quorum(n int) (most int) {
	for _, k := range l.Schemes {
		most = max(most, quorum(k, n))
	}
	return most
}

// least is how many of n holders suffice for some scheme: fewer acknowledge nothing.
func (l *Layout) least(n int) int {
	least := n
	for _, k := range l.Schemes {
		least = min(least, quorum(k, n))
	}
	return least
}

// Lists is how many of n holders have, together, every acknowledged chunk.
func (l *Layout) Lists(n int) int { return n - l.least(n) + 1 }

// spare is how many of n holders can be lost for sure without a loss of data.
func (l *Layout) spare(n int) int {
	spare := n
	for _, k := range l.Schemes {
		spare = min(spare, max(0, quorum(k, n)-max(k, 1)))
	}
	return spare
}

// Settings are the cluster's, key Z.
type Settings struct {
	RF            int           `cbor:"1,keyasint"` // replicas of each data partition
	Voters        int           `cbor:"2,keyasint"` // of the control group
	GoneAfter     time.Duration `cbor:"3,keyasint"` // silence after which others take over
	Moves         int           `cbor:"4,keyasint"` // partitions that move at once
	MovesPerNode  int           `cbor:"5,keyasint"` // of them, those that touch one node
	GroupMoves    int           `cbor:"6,keyasint"` // chunk groups of a width that are joint at once
	GroupsPerNode int           `cbor:"7,keyasint"`
	// Hold keeps the data of every chunk: nothing is released or given up as an orphan. A
	// recovery sets it: what says that a chunk is needed may be among what was lost.
	Hold bool `cbor:"8,keyasint,omitempty"`
	// RepairRate bounds what each node fetches to mend chunks, and as much again of what
	// moves to it; RewriteRate what it rewrites because a bucket's storage has changed. Bytes
	// a second; 0: what the node was started with.
	RepairRate  int64 `cbor:"9,keyasint,omitempty"`
	RewriteRate int64 `cbor:"10,keyasint,omitempty"`
}

// LeastRate is the lowest rate that can be set, in bytes a second: slower, damage would be
// mended too late.
const LeastRate = 1 << 10

// DefaultSettings suit three nodes and three hundred. Many chunk groups move at once: what
// they carry keeps to each node's rate, and a joint group costs its writes one holder more.
func DefaultSettings() Settings {
	return Settings{RF: 3, Voters: MaxVoters, GoneAfter: 10 * time.Minute, Moves: 8, MovesPerNode: 2, GroupMoves: 256, GroupsPerNode: 128}
}

// Validate says what is wrong with the settings, as KindInvalid.
func (s *Settings) Validate() error {
	switch {
	case s.RF < 1 || s.RF > placement.MaxReplicas:
		return object.Errorf(object.KindInvalid, "a replication factor of %d is not possible: choose 1 to %d", s.RF, placement.MaxReplicas)
	case s.Voters < 1 || s.Voters > MaxVoters:
		return object.Errorf(object.KindInvalid, "%d voters of the control group are not possible: choose 1 to %d", s.Voters, MaxVoters)
	case s.GoneAfter < time.Second:
		return object.Errorf(object.KindInvalid, "a node cannot be given up after %s: choose a second or more", s.GoneAfter)
	case s.Moves < 1 || s.MovesPerNode < 1 || s.GroupMoves < 1 || s.GroupsPerNode < 1:
		return object.Errorf(object.KindInvalid, "the limits of moves must be at least 1, or nothing would ever move")
	case s.RepairRate != 0 && s.RepairRate < LeastRate || s.RewriteRate != 0 && s.RewriteRate < LeastRate:
		return object.Errorf(object.KindInvalid, "a rate of less than %d bytes a second is not possible: give more, or 0 for what each node was started with", LeastRate)
	}
	return nil
}
