package object

// FileType is the type of an inode.
type FileType uint8

// The file types.
const (
	TypeRegular FileType = iota + 1
	TypeDirectory
	TypeSymlink
	TypeFIFO
	TypeSocket
	TypeCharDevice
	TypeBlockDevice
)

// Limits of the namespace.
const (
	// MaxName is the longest component that a mount shows, in bytes.
	MaxName = 255
	// MaxKey is the longest object key, in bytes, as in S3.
	MaxKey = 1024
	// MaxInline is the largest content that is kept inside the metadata, in bytes.
	MaxInline = 16 << 10
	// MaxNlink is the largest link count.
	MaxNlink = 65000
	// MaxXattrValue is the longest value of an extended attribute, as in Linux.
	MaxXattrValue = 64 << 10
	// MaxXattrTotal bounds all extended attributes and user metadata of one inode.
	MaxXattrTotal = 128 << 10
	// MaxACL is the longest value of an access control list, 511 entries: ext4's fit a
	// block of that size. An inode inherits two at most, on top of what it is made with.
	MaxACL = 4 << 10
	// MaxSymlink is the longest symlink target.
	MaxSymlink = 4095
	// MaxFileSize is the largest file, in bytes.
	MaxFileSize = 1 << 50
)

// Inode is the record of one file, directory or other node. Times are
// nanoseconds since 1970 (UTC).
type Inode struct {
	ID    InodeID  `cbor:"1,keyasint"`
	Type  FileType `cbor:"2,keyasint"`
	Mode  uint32   `cbor:"3,keyasint"` // permission, setuid, setgid and sticky bits (07777)
	UID   uint32   `cbor:"4,keyasint,omitempty"`
	GID   uint32   `cbor:"5,keyasint,omitempty"`
	Nlink uint32   `cbor:"6,keyasint"` // of a directory: 2 + its subdirectories
	Size  int64    `cbor:"7,keyasint,omitempty"`
	Atime int64    `cbor:"8,keyasint"`
	Mtime int64    `cbor:"9,keyasint"`
	Ctime int64    `cbor:"10,keyasint"`
	Btime int64    `cbor:"11,keyasint"`

	// Version is the Raft index (in the inode's partition) of the last change
	// of its content; Change that of the last change of anything.
	Version uint64 `cbor:"12,keyasint"`
	Change  uint64 `cbor:"13,keyasint"`

	// Content names the extents of a regular file; zero when it is empty or inline.
	Content ContentID `cbor:"14,keyasint"`
	// Inline reports that the content (up to MaxInline bytes) is kept in the metadata.
	Inline bool `cbor:"15,keyasint,omitempty"`

	Target string `cbor:"16,keyasint,omitempty"` // of a symlink
	Rdev   uint32 `cbor:"17,keyasint,omitempty"` // of a device

	// Parent is a directory's parent; zero for the root and for other types.
	Parent InodeID `cbor:"18,keyasint,omitempty"`
	// Implicit directories were made for a key below them and vanish with their last entry.
	Implicit bool `cbor:"19,keyasint,omitempty"`

	ContentType string            `cbor:"20,keyasint,omitempty"`
	ETagValue   string            `cbor:"21,keyasint,omitempty"` // a given ETag (an S3 MD5); see ETag
	SHA256      []byte            `cbor:"22,keyasint,omitempty"` // of the whole content, where known
	Meta        map[string]string `cbor:"23,keyasint,omitempty"` // user metadata, lower-case names
	Xattrs      map[string][]byte `cbor:"24,keyasint,omitempty"`
	Blocks      int64             `cbor:"25,keyasint,omitempty"` // allocated bytes: the sum of its extents' lengths

	// Scheme is how new chunks are kept: a file's own, and of a directory what is made
	// in it inherits. That of a bucket's root is the bucket's setting.
	Scheme Scheme `cbor:"26,keyasint,omitempty"`
}

// IsDir reports whether it is a directory.
func (i *Inode) IsDir() bool { return i.Type == TypeDirectory }

// ETag is the entity tag without quotes: opaque, and different for different contents.
func (i *Inode) ETag() string {
	if i.ETagValue != "" {
		return i.ETagValue
	}
	return i.ID.String() + "-" + InodeID(i.Version).String()
}

// Extent maps bytes [Offset, Offset+Length) of a content to bytes
// [ChunkOffset, ChunkOffset+Length) of a chunk. Extents of one content do not
// overlap; what none covers is a hole and reads as zeros.
type Extent struct {
	Offset      int64    `cbor:"1,keyasint,omitempty"`
	Length      int64    `cbor:"2,keyasint"`
	Chunk       ChunkID  `cbor:"3,keyasint"`
	ChunkOffset int64    `cbor:"4,keyasint,omitempty"`
	ChunkLength int64    `cbor:"5,keyasint"`           // logical length of the whole chunk
	SHA256      [32]byte `cbor:"6,keyasint"`           // of the whole chunk
	Born        uint64   `cbor:"7,keyasint,omitempty"` // version (Raft index) that put it here
	// Data holds the bytes themselves where a small write travelled in the log
	// (then there is no chunk); its length is Length.
	Data []byte `cbor:"8,keyasint,omitempty"`
	// Scheme is how the chunk is kept, where there is one. (Extents from before
	// there were schemes have none, which is the default.)
	Scheme Scheme `cbor:"9,keyasint,omitempty"`
}

// End is the first offset behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Dentry is one entry of a directory. Name has no trailing slash.
type Dentry struct {
	Name  string   `cbor:"1,keyasint"`
	Inode InodeID  `cbor:"2,keyasint"`
	Type  FileType `cbor:"3,keyasint"`
}

// DirEntry is a dentry with, where the caller asked and it was at hand, the
// inode it names.
type DirEntry struct {
	Dentry
	Attr *Inode
	// Plain: it has no extended attributes, which a listing leaves out of Attr. It is
	// set by api.Client only.
	Plain bool
}
