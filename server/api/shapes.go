package api

import (
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Bucket is one bucket.
type Bucket struct {
	Name    Name      `json:"name"`
	Owner   string    `json:"owner,omitempty"`
	Root    ID        `json:"root"` // the inode of its root directory
	Created time.Time `json:"created"`
	Storage Storage   `json:"storage"`
	// Rewriting is there, in the answers about this one bucket, while its data follows Storage.
	Rewriting *Rewriting `json:"rewriting,omitempty"`
}

// NewBucket is the body of POST /buckets.
type NewBucket struct {
	Name    Name     `json:"name"`
	Owner   string   `json:"owner,omitempty"`
	Storage *Storage `json:"storage,omitempty"` // nil: the default, three copies
}

// BucketChange is the body of PATCH /buckets/BUCKET.
type BucketChange struct {
	Storage *Storage `json:"storage"`
}

// BucketList is the answer to GET /buckets, in name order.
type BucketList struct {
	Buckets []Bucket `json:"buckets"`
}

// Object is one object by its path.
type Object struct {
	Bucket      Name              `json:"bucket"`
	Key         Name              `json:"key"`
	Size        int64             `json:"size"`
	ETag        string            `json:"etag"` // without quotes
	SHA256      Digest            `json:"sha256,omitempty"`
	Modified    time.Time         `json:"modified"`
	ContentType string            `json:"content_type,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	Inode       ID                `json:"inode"`
	Version     uint64            `json:"version"`
}

// ObjectOf describes an inode as the object that it is under a path.
func ObjectOf(bucket, key string, n *object.Inode) Object {
	return Object{
		Bucket: Name(bucket), Key: Name(key), Size: n.Size, ETag: n.ETag(), SHA256: n.SHA256, Modified: time.Unix(0, n.Mtime).UTC(),
		ContentType: n.ContentType, Meta: n.Meta, Inode: ID(n.ID), Version: n.Version,
	}
}

// ObjectList is a page of a bucket's keys, in byte order. Explicit directories
// are empty objects whose keys end in "/".
type ObjectList struct {
	Objects  []Object `json:"objects"`
	Prefixes []Name   `json:"prefixes,omitempty"` // common prefixes, where a delimiter was given
	Cursor   string   `json:"cursor,omitempty"`   // asks for the next page; "" on the last
}

// Target is the body of ?rename, ?copy and ?link: where to.
type Target struct {
	Bucket Name `json:"bucket,omitempty"` // "": the same bucket
	Key    Name `json:"key"`

	NoReplace bool `json:"no_replace,omitempty"` // rename: refuse when the target exists
	Exchange  bool `json:"exchange,omitempty"`   // rename: swap the two

	Replace     bool              `json:"replace,omitempty"` // copy: content type and metadata from here, not from the source
	ContentType string            `json:"content_type,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	SourceMatch []string          `json:"source_match,omitempty"` // copy: the source's ETag is one of these
}

// Upload is a multipart upload under way.
type Upload struct {
	ID      string    `json:"upload"`
	Bucket  Name      `json:"bucket"`
	Key     Name      `json:"key"`
	Started time.Time `json:"started"`
}

// UploadList is a page of the uploads under way.
type UploadList struct {
	Uploads []Upload `json:"uploads"`
	Cursor  string   `json:"cursor,omitempty"`
}

// Part is one part of a multipart upload; numbers run from 1 to 10000.
type Part struct {
	Number   int       `json:"number"`
	Size     int64     `json:"size"`
	ETag     string    `json:"etag"`
	SHA256   Digest    `json:"sha256,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
}

// PartList is a page of an upload's parts, and the body that completes it.
type PartList struct {
	Parts []Part `json:"parts"`
	Next  int    `json:"next,omitempty"` // pass as after for the next page; 0 on the last
}

// NewNode describes an inode to be made.
type NewNode struct {
	Type   Type   `json:"type"`
	Mode   uint32 `json:"mode"` // 07777
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
	Rdev   uint32 `json:"rdev,omitempty"`
	Target Name   `json:"target,omitempty"` // of a symlink
	// Umasked are the permission bits that the maker's umask took from Mode. They
	// count in a directory with a default ACL, which stands in for the umask.
	Umasked uint32 `json:"umasked,omitempty"`

	// Exclusive refuses a name that is taken; else the regular file that has it is the answer.
	Exclusive bool `json:"exclusive,omitempty"`
}

// Created is the answer to a create.
type Created struct {
	Inode   Inode `json:"attr"`
	Created bool  `json:"created"` // false: it was there already
}

// SetAttr changes those attributes that are present. Times are nanoseconds since 1970.
type SetAttr struct {
	Mode        *uint32           `json:"mode,omitempty"`
	UID         *uint32           `json:"uid,omitempty"`
	GID         *uint32           `json:"gid,omitempty"`
	Size        *int64            `json:"size,omitempty"`
	Atime       *int64            `json:"atime,string,omitempty"`
	Mtime       *int64            `json:"mtime,string,omitempty"`
	ContentType *string           `json:"content_type,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"` // the whole new set
}

// IsZero reports whether it changes nothing.
func (a SetAttr) IsZero() bool {
	return a.Mode == nil && a.UID == nil && a.GID == nil && a.Size == nil && a.Atime == nil && a.Mtime == nil &&
		a.ContentType == nil && a.Meta == nil
}

// Written is the answer to a write: the new record, and where the bytes went or
// how many were copied.
type Written struct {
	Inode  Inode `json:"attr"`
	Offset int64 `json:"offset"`
	Length int64 `json:"length,omitempty"`
}

// Place is the answer to a seek.
type Place struct {
	Offset int64 `json:"offset"`
}

// CopyRange is the body of a server-side copy of a range.
type CopyRange struct {
	Source       ID    `json:"source"`
	SourceOffset int64 `json:"source_offset"`
	Offset       int64 `json:"offset"`
	Length       int64 `json:"length"`
}

// DirEntry is one entry of a directory; Inode is there when it was asked for.
type DirEntry struct {
	Name  Name  `json:"name"`
	ID    ID    `json:"inode"`
	Type  Type  `json:"type"`
	Inode Inode `json:"attr,omitzero"`
	// Plain: it has no extended attributes. (Those of others are left out of Inode.)
	Plain bool `json:"plain,omitempty"`
}

// DirPage is a page of a directory.
type DirPage struct {
	Entries []DirEntry `json:"entries"`
	Cursor  Name       `json:"cursor,omitempty"` // asks for the next page; "" at the end
}

// LinkRequest names the inode that gets another name.
type LinkRequest struct {
	Inode ID `json:"inode"`
}

// RenameRequest moves the entry name of one directory.
type RenameRequest struct {
	Name      Name `json:"name"`
	NewDir    ID   `json:"new_dir"`
	NewName   Name `json:"new_name"`
	NoReplace bool `json:"no_replace,omitempty"`
	Exchange  bool `json:"exchange,omitempty"`
}

// HoldRequest names files that a session has open.
type HoldRequest struct {
	Session string `json:"session"`
	Inodes  []ID   `json:"inodes"`
}

// Usage is the capacity of the cluster, in bytes and inodes.
type Usage struct {
	TotalBytes  uint64 `json:"total_bytes"`
	FreeBytes   uint64 `json:"free_bytes"`
	TotalInodes uint64 `json:"total_inodes"`
	FreeInodes  uint64 `json:"free_inodes"`
}

// Partition is one Raft group.
type Partition struct {
	ID      object.PartitionID `json:"id"`
	Leader  string             `json:"leader,omitempty"`
	Term    uint64             `json:"term"`
	Applied uint64             `json:"applied"`
	Durable uint64             `json:"durable"`
}

// Health is the answer to GET /healthz and /readyz.
type Health struct {
	Status string `json:"status"` // "ok"
}

// The kinds of events.
const (
	EventEntry     = "entry"     // a directory entry was put, replaced or dropped
	EventInode     = "inode"     // attributes or content changed
	EventGap       = "gap"       // events of the partition up to Index are lost: drop what was cached of it
	EventHeartbeat = "heartbeat" // the stream lives; the first line of a stream is one
)

// Event is one line of the event stream. Within a partition Index never falls,
// and several events of one index are one change.
type Event struct {
	Kind      string             `json:"kind"`
	Partition object.PartitionID `json:"partition"`
	Index     uint64             `json:"index,omitempty"`
	Dir       ID                 `json:"dir,omitzero"`
	Name      Name               `json:"name,omitempty"`
	Inode     ID                 `json:"inode,omitzero"` // none: the entry is gone
	Version   uint64             `json:"version,omitempty"`
	Time      time.Time          `json:"time,omitzero"`
}
