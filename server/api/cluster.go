package api

import (
	"context"
	"fmt"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Cluster is the answer to GET /cluster: the node that answers, and a summary of
// the cluster.
type Cluster struct {
	Node       string      `json:"node"`
	Version    string      `json:"version"`
	Started    time.Time   `json:"started"`
	Ready      bool        `json:"ready"`
	Usage      Usage       `json:"usage"`
	Partitions []Partition `json:"partitions"` // those that this node carries

	Cluster  string        `json:"cluster"` // its id
	Epoch    uint64        `json:"epoch"`   // of the cluster's map
	Old      bool          `json:"old"`     // the control group did not answer: this is what the node last heard
	Settings Settings      `json:"settings"`
	Nodes    []ClusterNode `json:"nodes"`
	Progress Progress      `json:"progress"`
}

// Nodes is the answer to GET /cluster/nodes.
type Nodes struct {
	Epoch uint64        `json:"epoch"`
	Old   bool          `json:"old"`
	Nodes []ClusterNode `json:"nodes"` // by id
}

// ClusterNode is one node of the cluster: what is on record of it, and what it told
// just now.
type ClusterNode struct {
	ID          string `json:"id"`
	State       string `json:"state"`          // joining, up, draining, gone, removed
	API         string `json:"api,omitempty"`  // host:port, for clients
	Peer        string `json:"peer,omitempty"` // host:port, for other nodes
	Zone        string `json:"zone,omitempty"`
	Weight      uint32 `json:"weight"`
	Incarnation string `json:"incarnation,omitempty"` // of its process
	MinProtocol uint64 `json:"min_protocol"`          // between nodes
	MaxProtocol uint64 `json:"max_protocol"`

	Replicas        int    `json:"replicas"`         // of partitions
	PlannedReplicas int    `json:"planned_replicas"` // that it shall have
	Groups          int    `json:"groups"`           // chunk groups that name it
	PlannedGroups   int    `json:"planned_groups"`
	Empty           bool   `json:"empty"`          // it can be removed
	Note            string `json:"note,omitempty"` // what stands in the way of what was asked for

	Reachable bool      `json:"reachable"`
	Error     string    `json:"error,omitempty"` // why it is not
	Ready     bool      `json:"ready"`
	Full      bool      `json:"full"` // its disk is down to the reserve
	Version   string    `json:"version,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Usage     Usage     `json:"usage"`
	Leads     int       `json:"leads"` // partitions
	Chunks    Chunks    `json:"chunks"`
}

// Chunks is what a node knows of the chunks that it has to hold; counts are since it
// started.
type Chunks struct {
	UnderReplicated int64 `json:"under_replicated"` // live chunks that it lacked when it last compared, less those fetched since
	Corrupt         int64 `json:"corrupt"`          // copies and shards found damaged
	Repaired        int64 `json:"repaired"`         // fetched from others, also of groups that moved here
	RepairedBytes   int64 `json:"repaired_bytes"`
	Lost            int64 `json:"lost"`          // live chunks of which no holder has a good copy
	Dropped         int64 `json:"dropped"`       // files of chunks that moved away
	Waiting         int   `json:"waiting"`       // reports of missing or bad copies, not dealt with yet
	BytesToGo       int64 `json:"bytes_to_go"`   // being fetched, or waiting for its turn under the rate
	MovingGroups    int   `json:"moving_groups"` // chunk groups of the cluster that are on their way
	MovesLeft       int   `json:"moves_left"`    // slots of groups that are not where they are planned
	Compared        int64 `json:"compared"`      // when its files were last compared with the owners' lists, Unix seconds; 0: not yet
}

// Placement is the answer to GET /cluster/partitions.
type Placement struct {
	Epoch      uint64            `json:"epoch"`
	Old        bool              `json:"old"`
	Partitions []PlacedPartition `json:"partitions"` // by number; 0 is the control group
	Groups     []GroupsOfWidth   `json:"groups"`
}

// PlacedPartition is where a partition's replicas are, and shall be.
type PlacedPartition struct {
	ID       object.PartitionID `json:"id"`
	Leader   string             `json:"leader,omitempty"`
	Term     uint64             `json:"term"`
	Applied  uint64             `json:"applied"` // at the leader
	Since    uint64             `json:"since"`   // epoch at which its replicas last changed
	Replicas []Replica          `json:"replicas"`
	Planned  []string           `json:"planned"` // nodes, the preferred leader first
	Good     int                `json:"good"`    // replicas in force on nodes that answer
	Wanted   int                `json:"wanted"`
	Settled  bool               `json:"settled"` // all is as planned
}

// Replica is one replica of a partition.
type Replica struct {
	ID    string `json:"id"`
	Node  string `json:"node"`
	State string `json:"state"` // joining, created, learner, promoting, in force, demoting, leaving, removed
	Lost  bool   `json:"lost"`
}

// GroupsOfWidth counts the chunk groups whose chunks have so many holders.
type GroupsOfWidth struct {
	Width   int `json:"width"`
	Groups  int `json:"groups"`
	Stable  int `json:"stable"`
	Joint   int `json:"joint"`   // written at old and new holders
	Copying int `json:"copying"` // joint, and the new holders are being filled
	Behind  int `json:"behind"`  // not as planned
	Short   int `json:"short"`   // a holder is missing or gone
}

// Progress is what is left to do until everything is where it shall be.
type Progress struct {
	Done            bool `json:"done"`
	Planned         bool `json:"planned"` // false: the plan is about to be made anew
	Partitions      int  `json:"partitions"`
	PartitionsLeft  int  `json:"partitions_left"`
	UnderReplicated int  `json:"under_replicated"` // partitions
	Leaderless      int  `json:"leaderless"`
	Groups          int  `json:"groups"`
	GroupsLeft      int  `json:"groups_left"`
	ShortGroups     int  `json:"short_groups"`

	BytesToGo   int64 `json:"bytes_to_go"`   // of chunks, at the nodes that answered
	ShortChunks int64 `json:"short_chunks"`  // that a holder lacks
	LostChunks  int64 `json:"lost_chunks"`   // that nobody has whole
	ReportsToGo int64 `json:"reports_to_go"` // of missing or bad copies
}

// Settings are the cluster's.
type Settings struct {
	RF            int    `json:"rf"`              // replicas of each partition
	Voters        int    `json:"voters"`          // of the control group
	GoneAfter     string `json:"gone_after"`      // silence after which others take over, such as "10m0s"
	Moves         int    `json:"moves"`           // partitions that move at once
	MovesPerNode  int    `json:"moves_per_node"`  // of them, those that touch one node
	GroupMoves    int    `json:"group_moves"`     // chunk groups that move at once
	GroupsPerNode int    `json:"groups_per_node"` // of them, those that touch one node
	Hold          bool   `json:"hold"`            // no chunk's data is dropped; set by a recovery
	// Of each node, in bytes a second; 0: what it was started with.
	RepairRate  int64 `json:"repair_rate"`  // of mending chunks, and as much again of moving them
	RewriteRate int64 `json:"rewrite_rate"` // of rewriting what is of a bucket whose storage has changed
}

// SettingsChange is the body of PATCH /cluster/settings; nil leaves a setting as it is.
type SettingsChange struct {
	RF            *int    `json:"rf,omitempty"`
	Voters        *int    `json:"voters,omitempty"`
	GoneAfter     *string `json:"gone_after,omitempty"`
	Moves         *int    `json:"moves,omitempty"`
	MovesPerNode  *int    `json:"moves_per_node,omitempty"`
	GroupMoves    *int    `json:"group_moves,omitempty"`
	GroupsPerNode *int    `json:"groups_per_node,omitempty"`
	Hold          *bool   `json:"hold,omitempty"`
	RepairRate    *int64  `json:"repair_rate,omitempty"`
	RewriteRate   *int64  `json:"rewrite_rate,omitempty"`
}

// NodeChange is the body of PATCH /cluster/nodes/NODE; nil leaves a field as it is.
type NodeChange struct {
	Weight *uint32 `json:"weight,omitempty"`
	Zone   *string `json:"zone,omitempty"`
}

// LeadershipTransfer is the body of POST /cluster/partitions/PARTITION/transfer.
type LeadershipTransfer struct {
	Node string `json:"node,omitempty"` // that is to lead; "": any other that can
	Keep string `json:"keep,omitempty"` // how long before it goes back to the preferred node, as "10m"; "": ten minutes
}

// Leadership is the answer to it: who leads now.
type Leadership struct {
	Partition object.PartitionID `json:"partition"`
	Leader    string             `json:"leader"`
}

// Cluster tells of the node that answers, and of the cluster.
func (c *Client) Cluster(ctx context.Context) (s Cluster, err error) {
	return s, c.doJSON(ctx, &call{op: "cluster", method: "GET", path: "/cluster"}, &s)
}

// ClusterNodes lists the nodes, removed ones among them.
func (c *Client) ClusterNodes(ctx context.Context) (n Nodes, err error) {
	return n, c.doJSON(ctx, &call{op: "nodes", method: "GET", path: "/cluster/nodes"}, &n)
}

// ClusterPartitions tells where every partition's replicas are.
func (c *Client) ClusterPartitions(ctx context.Context) (p Placement, err error) {
	return p, c.doJSON(ctx, &call{op: "partitions", method: "GET", path: "/cluster/partitions"}, &p)
}

// Drain begins to empty a node, or (undo) takes that back. It returns when that is
// on record; ClusterNodes shows when the node is empty.
func (c *Client) Drain(ctx context.Context, node string, undo bool) error {
	method := "POST"
	if undo {
		method = "DELETE"
	}
	return c.doJSON(ctx, &call{op: "drain", method: method, path: nodePath(node) + "/drain"}, nil)
}

// RemoveNode ends a node's membership for ever; KindBusy says what to wait for.
func (c *Client) RemoveNode(ctx context.Context, node string) error {
	return c.doJSON(ctx, &call{op: "remove", method: "DELETE", path: nodePath(node)}, nil)
}

// ChangeNode changes a node's weight or zone.
func (c *Client) ChangeNode(ctx context.Context, node string, change NodeChange) error {
	k, err := (&call{op: "change node", method: "PATCH", path: nodePath(node)}).withJSON(change)
	if err != nil {
		return err
	}
	return c.doJSON(ctx, k, nil)
}

// TransferLeadership has another node lead a partition for a while, and returns which.
// KindBusy, KindInvalid and KindNotFound say why that node cannot; to repeat it is harmless.
func (c *Client) TransferLeadership(ctx context.Context, partition object.PartitionID, to LeadershipTransfer) (l Leadership, err error) {
	k, err := (&call{op: "transfer leadership", method: "POST", path: fmt.Sprintf("/cluster/partitions/%d/transfer", partition)}).withJSON(to)
	if err != nil {
		return l, err
	}
	return l, c.doJSON(ctx, k, &l)
}

// ClusterSettings are the cluster's settings.
func (c *Client) ClusterSettings(ctx context.Context) (s Settings, err error) {
	return s, c.doJSON(ctx, &call{op: "settings", method: "GET", path: "/cluster/settings"}, &s)
}

// Configure changes settings and returns all of them.
func (c *Client) Configure(ctx context.Context, change SettingsChange) (s Settings, err error) {
	k, err := (&call{op: "settings", method: "PATCH", path: "/cluster/settings"}).withJSON(change)
	if err != nil {
		return s, err
	}
	return s, c.doJSON(ctx, k, &s)
}

func nodePath(node string) string { return "/cluster/nodes/" + EscapeKey(node) }
