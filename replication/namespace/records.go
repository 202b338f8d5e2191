package namespace

import "github.com/skshohagmiah/bucketdb/storage/object"

// TxID names a two-partition operation: the partition that keeps its record
// and a sequence there (Raft index of the entry that began it << 8 | ordinal).
type TxID struct {
	First object.PartitionID `cbor:"1,keyasint"`
	Seq   uint64             `cbor:"2,keyasint"`
}

// TxRef is what a mark names: the operation, and the partition whose entry
// decides it.
type TxRef struct {
	ID      TxID               `cbor:"1,keyasint"`
	Decider object.PartitionID `cbor:"2,keyasint"`
}

type dentryRec struct {
	Inode object.InodeID  `cbor:"1,keyasint"`
	Type  object.FileType `cbor:"2,keyasint"`
	Tx    *TxRef          `cbor:"3,keyasint,omitempty"` // being moved away by it
}

type inodeRec struct {
	I object.Inode `cbor:"1,keyasint"`
	// Dead: an empty directory that Tx is removing; it takes no entries.
	Dead *TxRef `cbor:"2,keyasint,omitempty"`
	// Hold: a conditional write of Tx has judged this version.
	Hold *TxRef `cbor:"3,keyasint,omitempty"`
	// Still, with Hold: mode and owner stay as they are, too; a successor inherits them.
	Still bool `cbor:"4,keyasint,omitempty"`
	// Kept is the index of the last Keep; Gone the highest index at which content
	// was retired that is reclaimed by now: pins below it are worth nothing.
	Kept uint64 `cbor:"5,keyasint,omitempty"`
	Gone uint64 `cbor:"6,keyasint,omitempty"`
}

// chunkRec is what the owner knows of a chunk: repair, and the comparison with
// what the holders have, learn it here.
type chunkRec struct {
	Refs   uint32 `cbor:"1,keyasint"`
	Length int64  `cbor:"2,keyasint"`
	// SHA256 is empty in a record of before it was kept; the next reference brings it.
	SHA256 []byte        `cbor:"3,keyasint,omitempty"`
	Scheme object.Scheme `cbor:"4,keyasint,omitempty"`
}

// releaseRec is a chunk whose holders are to drop it; of a chunk of the default
// scheme it is stored as nothing at all, as before there were schemes.
type releaseRec struct {
	Scheme object.Scheme `cbor:"1,keyasint"`
}

// foreignRec counts the extents here that name a chunk of another owner, and
// the references that the owner keeps for them.
type foreignRec struct {
	Refs uint32 `cbor:"1,keyasint"`
	Held uint32 `cbor:"2,keyasint"`
}

// garbageRec is something no name leads to any more. It is reclaimed when no
// lease on Inode is older than the index it was retired at.
type garbageRec struct {
	Inode   object.InodeID   `cbor:"1,keyasint,omitempty"`
	Content object.ContentID `cbor:"2,keyasint"`
	// What goes: the inode itself with its content, a whole content, or the
	// extents of a content that were retired at the record's own index.
	What garbageKind `cbor:"3,keyasint"`
}

type garbageKind uint8

const (
	garbageInode garbageKind = iota + 1
	garbageContent
	garbageSplice
)

// stagedRec is a content that is being put together and belongs to no inode yet.
type stagedRec struct {
	// Owner is the coordinator's incarnation: a staged content whose owner has
	// ended is garbage.
	Owner object.UploadID `cbor:"1,keyasint"`
	Size  int64           `cbor:"2,keyasint"`
}

// txRec is one participant's record of a transaction. The first participant's
// is written first and dropped last.
type txRec struct {
	Ref TxRef `cbor:"1,keyasint"`
	// Halves are what this participant did and how it is finished or undone.
	Halves []Half `cbor:"2,keyasint"`
	// Others are the participants besides the first and the decider; only in
	// the first's record.
	Others []object.PartitionID `cbor:"3,keyasint,omitempty"`
	// Debt: the first half cannot be undone; whoever settles drives Owed forward.
	Debt bool    `cbor:"4,keyasint,omitempty"`
	Owed *Decide `cbor:"5,keyasint,omitempty"`
	// Began is the proposer's clock, for people who look at it.
	Began int64 `cbor:"6,keyasint"`
}

// Half is one thing that a participant prepares. Exactly one field is set.
type Half struct {
	Birth  *Birth  `cbor:"1,keyasint,omitempty"`
	Dead   *Dead   `cbor:"2,keyasint,omitempty"`
	Raise  *Raise  `cbor:"3,keyasint,omitempty"`
	Moving *Moving `cbor:"4,keyasint,omitempty"`
	Hold   *Hold   `cbor:"5,keyasint,omitempty"`
	Refs   *Refs   `cbor:"6,keyasint,omitempty"`
}

// Birth makes an inode without a name. Undone: the inode goes.
type Birth struct {
	Node object.Inode `cbor:"1,keyasint"` // ID, Version and Change are filled in when applied
}

// Dead marks an empty directory so that it takes no entry. Committed: it goes.
type Dead struct {
	Dir object.InodeID `cbor:"1,keyasint"`
	// Implicit: only if the directory is one.
	Implicit bool `cbor:"2,keyasint,omitempty"`
}

// Raise adds a link. Undone: it is taken off again.
type Raise struct {
	Inode object.InodeID `cbor:"1,keyasint"`
}

// Moving marks a dentry that is being moved away. Committed: it goes.
type Moving struct {
	Dir      object.InodeID  `cbor:"1,keyasint"`
	Name     string          `cbor:"2,keyasint"`
	Type     object.FileType `cbor:"3,keyasint"` // only tells directory from file
	Inode    object.InodeID  `cbor:"4,keyasint"` // what it must name
	Cascade  *Cascade        `cbor:"5,keyasint,omitempty"`
	Explicit bool            `cbor:"6,keyasint,omitempty"` // the directory stays when it becomes empty
}

// Hold judges conditions on an inode and freezes its version. Committed: it
// loses a link (its name was given to another inode).
type Hold struct {
	Inode object.InodeID `cbor:"1,keyasint"`
	Cond  Cond           `cbor:"2,keyasint"`
	// Still freezes mode and owner as well.
	Still bool `cbor:"3,keyasint,omitempty"`
}

// Refs takes one reference on each chunk. Undone: they are dropped.
type Refs struct {
	Chunks []ChunkRef `cbor:"1,keyasint"`
	// New: the chunks may be unknown yet (a fresh upload).
	New bool `cbor:"2,keyasint,omitempty"`
}

// ChunkRef is a chunk as its owner knows it. Where SHA256 is empty it is not known.
type ChunkRef struct {
	ID     object.ChunkID `cbor:"1,keyasint"`
	Length int64          `cbor:"2,keyasint"` // logical
	SHA256 []byte         `cbor:"3,keyasint,omitempty"`
	Scheme object.Scheme  `cbor:"4,keyasint,omitempty"`
}

// RefOf is the chunk that an extent names.
func RefOf(e *object.Extent) ChunkRef {
	c := ChunkRef{ID: e.Chunk, Length: e.ChunkLength, Scheme: e.Scheme}
	if e.SHA256 != ([32]byte{}) {
		c.SHA256 = e.SHA256[:]
	}
	return c
}

// Cascade says where an implicit directory hangs, so that it can vanish with
// its last entry: the parent, the directory's name in it, and the same for the parent.
type Cascade struct {
	Parent object.InodeID `cbor:"1,keyasint"`
	Name   string         `cbor:"2,keyasint"`
	Up     *Cascade       `cbor:"3,keyasint,omitempty"`
}

type outcomeRec struct {
	Committed bool `cbor:"1,keyasint"`
}

type sessionRec struct {
	Ack  uint64 `cbor:"1,keyasint"`
	Seen int64  `cbor:"2,keyasint"` // proposer's clock, ns
	// Ended: the session lost its locks, and no entry of it does anything any more.
	Ended bool `cbor:"3,keyasint,omitempty"`
}

// UploadRec is a multipart upload under way.
type UploadRec struct {
	Bucket  object.InodeID `cbor:"1,keyasint"` // the bucket's root directory
	Key     string         `cbor:"2,keyasint"`
	Started int64          `cbor:"3,keyasint"`
	Node    object.Inode   `cbor:"4,keyasint"`           // attributes of the object to be
	Name    string         `cbor:"5,keyasint"`           // the bucket's name
	Inherit bool           `cbor:"6,keyasint,omitempty"` // as in Put
	Ended   bool           `cbor:"7,keyasint,omitempty"` // its parts are being given up
}

// PartRec is one part of a multipart upload.
type PartRec struct {
	Number  int              `cbor:"1,keyasint"`
	Size    int64            `cbor:"2,keyasint"`
	Content object.ContentID `cbor:"3,keyasint"`
	ETag    string           `cbor:"4,keyasint"`
	SHA256  []byte           `cbor:"5,keyasint,omitempty"`
	Mtime   int64            `cbor:"6,keyasint"`
}

// DirRename is the record in the control group that serialises directory
// renames over the whole cluster.
type DirRename struct {
	Epoch uint64          `cbor:"1,keyasint"`
	Nonce object.UploadID `cbor:"2,keyasint"`
	Dir   object.InodeID  `cbor:"3,keyasint"`
	Name  string          `cbor:"4,keyasint"`
	// Active: it has not ended yet; a successor settles it first.
	Active bool `cbor:"5,keyasint"`
	// What moves where: a successor sets the parent pointer.
	Inode   object.InodeID `cbor:"6,keyasint"`
	NewDir  object.InodeID `cbor:"7,keyasint"`
	NewName string         `cbor:"8,keyasint"`
}
