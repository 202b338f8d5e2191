// Package replication is the coordinator of a node: it runs the partitions'
// Raft groups, moves the data, and offers the namespace as one linearizable
// whole, by path (objects) and by inode (files).
package replication

import (
	"context"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Token makes a mutation exactly-once: its result is kept under (Session, Seq)
// until the client acknowledges it (Ack: every sequence up to it is done with)
// or its session ends. A retry with the same token gets the first one's result.
type Token struct {
	Session object.UploadID // random, one per client process; zero: no token
	Seq     uint64          // counts from 1; one number, one mutation
	Ack     uint64          // results up to here are no longer needed
	Retry   bool            // this token may have been sent before

	fence object.UploadID // of this attempt, once the earlier ones are refused
}

type tokenKey struct{}

// WithToken attaches a token to the one mutation that is made with ctx.
func WithToken(ctx context.Context, t Token) context.Context {
	return context.WithValue(ctx, tokenKey{}, t)
}

// Conditions are those of HTTP, judged where the log is applied. ETags stand
// without quotes; "*" means any existing object.
type Conditions struct {
	IfMatch           []string
	IfNoneMatch       []string
	IfUnmodifiedSince time.Time
	IfModifiedSince   time.Time // reads only
}

// PutOptions go with a whole-object write.
type PutOptions struct {
	// Size is the declared length of the body; -1: unknown. A body that ends
	// before it is KindIncomplete, one that goes on KindTooLarge.
	Size        int64
	ContentType string
	ETag        string            // a given entity tag (an S3 MD5); "" for our own
	Meta        map[string]string // user metadata
	Mode        uint32            // permission bits; 0: the default (0644)
	UID, GID    uint32
	Mtime       time.Time // zero: now
	Cond        Conditions
}

// Object is one object by its path.
type Object struct {
	Bucket string
	Key    string
	Inode  *object.Inode
}

// Bucket is one bucket.
type Bucket struct {
	Name    string
	Root    object.InodeID // the bucket's root directory
	Owner   string
	Scheme  object.Scheme // how its data is kept
	Created time.Time
}

// ListOptions select a page of a bucket's keys.
type ListOptions struct {
	Prefix    string
	Delimiter string // "" or one that groups keys into common prefixes
	After     string // only keys and prefixes that sort behind it
	Limit     int    // 1..MaxListLimit; 0: DefaultListLimit
}

// Limits of one page of a listing.
const (
	DefaultListLimit = 1000
	MaxListLimit     = 10000
)

// ListPage is a page of keys in byte order. Explicit directories are listed as
// empty objects whose keys end in "/".
type ListPage struct {
	Objects  []Object
	Prefixes []string // common prefixes, in order
	Next     string   // pass as After for the next page; "" on the last
}

// NewNode describes an inode to be made.
type NewNode struct {
	Type     object.FileType
	Mode     uint32 // 07777
	UID, GID uint32
	Rdev     uint32
	Target   string // of a symlink
	// Umasked are the permission bits that the maker's umask took from Mode. They
	// count in a directory with a default ACL.
	Umasked uint32
}

// SetAttr changes those attributes that are not nil. Times are ns since 1970.
type SetAttr struct {
	Mode  *uint32
	UID   *uint32
	GID   *uint32
	Size  *int64
	Atime *int64
	Mtime *int64
	// Ctime is set by the proposer's clock.
	ContentType *string
	Meta        map[string]string // nil: unchanged; else the whole new set
}

// WriteOptions go with a change of a file's content in place.
type WriteOptions struct {
	Size     int64 // of the body; -1: unknown
	Append   bool  // write at the end, wherever that is when it is applied; the offset is ignored
	Truncate bool  // the file ends where the write ends
	Cond     Conditions
	Attr     SetAttr // attributes that travel with the write (Size must be nil)
}

// RenameFlags as in renameat2.
type RenameFlags struct {
	NoReplace bool
	Exchange  bool
}

// Part is one part of a multipart upload.
type Part struct {
	Number   int
	Size     int64
	ETag     string
	SHA256   []byte
	Modified time.Time
}

// Upload is a multipart upload under way.
type Upload struct {
	ID          string
	Bucket, Key string
	Started     time.Time
}

// Event is one change as a partition's leader publishes it.
type Event struct {
	Partition object.PartitionID
	Index     uint64 // Raft index: the sequence number within the partition
	Kind      EventKind
	Dir       object.InodeID // of the entry, for EventEntry
	Name      string         // of the entry, for EventEntry
	Inode     object.InodeID // the inode that changed or that the entry names now (0: the entry is gone)
	Version   uint64         // of the inode's content, where it changed
	Time      time.Time
}

// EventKind says what an event is about.
type EventKind string

// The kinds of events.
const (
	EventEntry EventKind = "entry" // a dentry was put, replaced or dropped
	EventInode EventKind = "inode" // attributes or content changed
	EventGap   EventKind = "gap"   // events of the partition before Index are lost: drop what was cached of it
)

// Usage is the capacity of the cluster.
type Usage struct {
	TotalBytes, FreeBytes   uint64
	TotalInodes, FreeInodes uint64
}

// Status is what GET /cluster shows.
type Status struct {
	Node       string
	Version    string
	Started    time.Time
	Ready      bool
	Usage      Usage
	Partitions []PartitionStatus

	Chunks ChunkStatus // of this node

	// What follows is of the map that this node has, perhaps not the newest; nodes that
	// are not given up count as there.
	Cluster  string // its id
	Epoch    uint64 // of the map
	Nodes    []NodeStatus
	Progress Progress
	Settings Settings
}

// NodeStatus is one node: what the control group has on record of it, how much is on
// it, and, in an Overview, what it tells of itself.
type NodeStatus struct {
	ID          string
	State       string // "joining", "up", "draining", "gone", "removed"
	API         string // where clients reach it, host:port; "" nowhere
	Peer        string // where other nodes reach it, host:port
	Zone        string
	Weight      uint32
	Incarnation string // of its process
	// It speaks these versions of the protocol between nodes.
	MinProtocol, MaxProtocol uint64

	Replicas        int // of partitions; of the control group only one with a vote counts
	PlannedReplicas int // that it shall have
	Groups          int // chunk groups that name it
	PlannedGroups   int
	Empty           bool   // it has nothing that others need: it can be removed
	Note            string // what stands in the way of what was asked for, and what to do; "" nothing

	Reachable bool   // it answered just now; what follows is of then
	Error     string // why it did not
	Ready     bool
	Full      bool // it takes nothing that grows: its disk is down to the reserve
	Version   string
	Started   time.Time
	Usage     Usage
	Leads     int // partitions
	Chunks    ChunkStatus
}

// PartitionStatus is one Raft group.
type PartitionStatus struct {
	ID      object.PartitionID
	Leader  string
	Term    uint64
	Applied uint64
	Durable uint64
}
