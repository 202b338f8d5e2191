package namespace

import (
	"bytes"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Command is one log entry of a partition: a header and exactly one operation.
// Everything that is not determined by the state (clocks, random ids) is
// chosen by the proposer and stands in here.
type Command struct {
	// Now is the proposer's clock, ns since 1970.
	Now int64 `cbor:"1,keyasint"`
	// Epoch is the rename epoch that the paths were resolved under; 0: no path was.
	Epoch uint64 `cbor:"2,keyasint,omitempty"`
	Token *Token `cbor:"3,keyasint,omitempty"`

	Put      *Put      `cbor:"10,keyasint,omitempty"`
	Unlink   *Unlink   `cbor:"11,keyasint,omitempty"`
	Move     *Move     `cbor:"12,keyasint,omitempty"`
	SetAttr  *SetAttr  `cbor:"13,keyasint,omitempty"`
	SetXattr *SetXattr `cbor:"14,keyasint,omitempty"`
	Splice   *Splice   `cbor:"15,keyasint,omitempty"`
	LinkHere *LinkHere `cbor:"16,keyasint,omitempty"`

	Stage     *Stage          `cbor:"20,keyasint,omitempty"`
	Unstage   *Unstage        `cbor:"21,keyasint,omitempty"`
	Reclaim   *Reclaim        `cbor:"22,keyasint,omitempty"`
	Released  *Released       `cbor:"23,keyasint,omitempty"`
	Refuse    *RefuseUpload   `cbor:"24,keyasint,omitempty"`
	NewUpload *NewUpload      `cbor:"25,keyasint,omitempty"`
	PutPart   *PutPart        `cbor:"26,keyasint,omitempty"`
	EndUpload *EndUpload      `cbor:"27,keyasint,omitempty"`
	Compact   *CompactExtents `cbor:"28,keyasint,omitempty"`
	Keep      *Keep           `cbor:"29,keyasint,omitempty"`

	SetScheme   *SetScheme   `cbor:"50,keyasint,omitempty"`
	Unstray     *Unstray     `cbor:"51,keyasint,omitempty"`
	Rewrite     *Rewrite     `cbor:"52,keyasint,omitempty"`
	StepRewrite *StepRewrite `cbor:"53,keyasint,omitempty"`

	Lock        *Lock        `cbor:"60,keyasint,omitempty"`
	Unlock      *Unlock      `cbor:"61,keyasint,omitempty"`
	CancelLock  *CancelLock  `cbor:"62,keyasint,omitempty"`
	DropLocks   *DropLocks   `cbor:"63,keyasint,omitempty"`
	SetLease    *SetLease    `cbor:"64,keyasint,omitempty"`
	EndSessions *EndSessions `cbor:"65,keyasint,omitempty"`

	Prepare  *Prepare  `cbor:"30,keyasint,omitempty"`
	Decide   *Decide   `cbor:"31,keyasint,omitempty"`
	RefuseTx *RefuseTx `cbor:"32,keyasint,omitempty"`
	Finish   *Finish   `cbor:"33,keyasint,omitempty"`

	Init        *Init        `cbor:"40,keyasint,omitempty"`
	RaiseEpoch  *RaiseEpoch  `cbor:"41,keyasint,omitempty"`
	BeginRename *BeginRename `cbor:"42,keyasint,omitempty"`
	EndRename   *EndRename   `cbor:"43,keyasint,omitempty"`
	EndSession  *EndSession  `cbor:"44,keyasint,omitempty"`
	Fence       *Fence       `cbor:"45,keyasint,omitempty"`
	// Control is a command of package control, encoded; in partition 0 only.
	Control []byte `cbor:"46,keyasint,omitempty"`
}

// Target is the inode whose content the command changes in place, or 0.
func (c *Command) Target() object.InodeID {
	switch {
	case c.Splice != nil:
		return c.Splice.Inode
	case c.SetAttr != nil:
		return c.SetAttr.Inode
	case c.Decide != nil && c.Decide.Splice != nil:
		return c.Decide.Splice.Inode
	}
	return 0
}

// Change is where the command changes a file's bytes in place: Over of it may be set.
func (c *Command) Change() *Change {
	switch {
	case c.Splice != nil:
		return &c.Splice.Change
	case c.SetAttr != nil && c.SetAttr.Size != nil:
		return &c.SetAttr.Change
	case c.Decide != nil && c.Decide.Splice != nil:
		return &c.Decide.Splice.Change
	}
	return nil
}

// Range is the bytes [from, to) that the command replaces or cuts off, given
// the file's size.
func (c *Command) Range(size int64) (from, to int64) {
	sp := c.Splice
	switch {
	case c.SetAttr != nil && c.SetAttr.Size != nil:
		return *c.SetAttr.Size, object.MaxFileSize
	case c.Decide != nil:
		sp = c.Decide.Splice
	}
	if from = sp.Offset; sp.Append {
		from = size
	}
	if sp.Truncate {
		return from, object.MaxFileSize
	}
	return from, from + sp.Length
}

// Change goes with every command that changes a file's bytes in place.
type Change struct {
	// Over: the file's content is first exchanged for a staged one.
	Over *Restaged `cbor:"100,keyasint,omitempty"`
}

// Restaged is a staged content that holds the bytes that a file had at a version, but
// for those that the command replaces: so a change of any size is one small entry.
type Restaged struct {
	Content object.ContentID `cbor:"1,keyasint"`
	Empty   bool             `cbor:"2,keyasint,omitempty"` // nothing was left to stage
	Was     object.ContentID `cbor:"3,keyasint"`
	Version uint64           `cbor:"4,keyasint"`
}

// Repeatable reports whether the command may stand in the log more than once:
// a token makes the second do nothing, or it only ends, settles or tells something.
func (c *Command) Repeatable() bool {
	return c.Token != nil || c.RefuseTx != nil || c.Finish != nil || c.Init != nil || c.RaiseEpoch != nil || c.EndSession != nil ||
		c.SetScheme != nil || c.Unstray != nil || c.StepRewrite != nil || c.DropLocks != nil || c.SetLease != nil || c.EndSessions != nil ||
		c.Control != nil || c.Unstage != nil || c.Reclaim != nil || c.Released != nil || c.Refuse != nil
}

// Grows reports whether the command is a client's that makes the metadata
// grow; what ends, frees or settles something does not.
func (c *Command) Grows() bool {
	return c.Put != nil || c.Splice != nil && c.Splice.grows() || c.SetAttr != nil && c.SetAttr.SetMeta || c.LinkHere != nil || c.SetXattr != nil && !c.SetXattr.Remove || c.Stage != nil ||
		c.NewUpload != nil || c.PutPart != nil || c.Lock != nil || c.Prepare != nil && c.Prepare.grows()
}

func (c *Splice) grows() bool { return len(c.Data) > 0 || len(c.Extents) > 0 } // a hole frees

func (c *Prepare) grows() bool {
	for _, h := range c.Halves {
		if h.Birth != nil || h.Raise != nil || h.Refs != nil {
			return true
		}
	}
	return false
}

// Token is a client's exactly-once token.
type Token struct {
	Session object.UploadID `cbor:"1,keyasint"`
	Seq     uint64          `cbor:"2,keyasint"`
	Ack     uint64          `cbor:"3,keyasint,omitempty"`
	// Fence names the attempt, from the second on: a partition that was fenced
	// takes no other attempt's entries.
	Fence []byte `cbor:"4,keyasint,omitempty"`
}

// Cond are conditions on the object that a name leads to. ETags without quotes.
type Cond struct {
	Match     []string `cbor:"1,keyasint,omitempty"`
	NoneMatch []string `cbor:"2,keyasint,omitempty"`
	// NotAfter: the object's mtime (ns, cut to seconds) is not later. 0: no condition.
	NotAfter int64 `cbor:"3,keyasint,omitempty"`
	// Version: the content has exactly this version. 0: no condition.
	Version uint64 `cbor:"4,keyasint,omitempty"`
}

// Empty reports whether there is nothing to judge.
func (c *Cond) Empty() bool {
	return len(c.Match) == 0 && len(c.NoneMatch) == 0 && c.NotAfter == 0 && c.Version == 0
}

// Put gives a name to a new inode, born here. What the name led to before
// loses a link.
type Put struct {
	Dir  object.InodeID `cbor:"1,keyasint"`
	Name string         `cbor:"2,keyasint"`
	// Node holds the attributes; ID, Version, Change, Nlink, Content and Inline
	// are filled in when it is applied.
	Node object.Inode `cbor:"3,keyasint"`
	Body Body         `cbor:"4,keyasint"`
	Cond Cond         `cbor:"5,keyasint"`
	// Exclusive: the name must be free.
	Exclusive bool `cbor:"6,keyasint,omitempty"`
	// Mount: a directory of that name counts as the name being taken, and the
	// parent becomes explicit.
	Mount bool `cbor:"7,keyasint,omitempty"`
	// Inherit mode, owner and group of the file that is replaced, where it is
	// local. Where it is not, with Ask, the answer is Elsewhere, and nothing is done.
	Inherit bool `cbor:"8,keyasint,omitempty"`
	Ask     bool `cbor:"10,keyasint,omitempty"`
	// Parental: the node inherits of the directory (object.Inode.Inherit), with the
	// bits Umasked. Entries of earlier releases inherit nothing.
	Parental bool   `cbor:"11,keyasint,omitempty"`
	Umasked  uint32 `cbor:"12,keyasint,omitempty"`
	// Tx: this is the deciding step of a transaction (a conditional write whose
	// inode lives elsewhere, or a content with chunks of another owner).
	Inode object.InodeID `cbor:"9,keyasint,omitempty"` // what the name must lead to (Tx only)
}

// Body is the content of a Put, Stage or PutPart.
type Body struct {
	Size    int64            `cbor:"1,keyasint,omitempty"`
	Inline  []byte           `cbor:"2,keyasint,omitempty"`
	Content object.ContentID `cbor:"3,keyasint"`
	Extents []object.Extent  `cbor:"4,keyasint,omitempty"`
	// Staged: the content's extents were staged before; Extents are the last of them.
	Staged bool `cbor:"5,keyasint,omitempty"`
	// Existing: the chunks were committed before (a copy): they must be alive.
	Existing bool `cbor:"6,keyasint,omitempty"`
	// Made is the scheme of all its chunks, staged ones among them; Mixed: they are of several.
	Made  object.Scheme `cbor:"7,keyasint,omitempty"`
	Mixed bool          `cbor:"8,keyasint,omitempty"`

	sharing bool // of Shares: an extent with a chunk was there
}

// MaxExtents is the largest number of extents in one entry.
const MaxExtents = 256

// Unlink drops a name that leads to something else than a directory.
type Unlink struct {
	Dir     object.InodeID `cbor:"1,keyasint"`
	Name    string         `cbor:"2,keyasint"`
	Inode   object.InodeID `cbor:"3,keyasint,omitempty"` // if set, what it must lead to
	Cond    Cond           `cbor:"4,keyasint"`
	Mount   bool           `cbor:"5,keyasint,omitempty"`
	Cascade *Cascade       `cbor:"6,keyasint,omitempty"`
}

// Move renames a file between two directories of this partition in one entry.
type Move struct {
	Dir       object.InodeID `cbor:"1,keyasint"`
	Name      string         `cbor:"2,keyasint"`
	NewDir    object.InodeID `cbor:"3,keyasint"`
	NewName   string         `cbor:"4,keyasint"`
	NoReplace bool           `cbor:"5,keyasint,omitempty"`
	Mount     bool           `cbor:"6,keyasint,omitempty"`
	Cascade   *Cascade       `cbor:"7,keyasint,omitempty"`
	Exchange  bool           `cbor:"8,keyasint,omitempty"`
}

// LinkHere adds a name to an inode of the same partition.
type LinkHere struct {
	Inode object.InodeID `cbor:"1,keyasint"`
	Dir   object.InodeID `cbor:"2,keyasint"`
	Name  string         `cbor:"3,keyasint"`
	Mount bool           `cbor:"4,keyasint,omitempty"`
}

// SetAttr changes the attributes that are not nil.
type SetAttr struct {
	Inode       object.InodeID    `cbor:"1,keyasint"`
	Mode        *uint32           `cbor:"2,keyasint,omitempty"`
	UID         *uint32           `cbor:"3,keyasint,omitempty"`
	GID         *uint32           `cbor:"4,keyasint,omitempty"`
	Size        *int64            `cbor:"5,keyasint,omitempty"`
	Atime       *int64            `cbor:"6,keyasint,omitempty"`
	Mtime       *int64            `cbor:"7,keyasint,omitempty"`
	ContentType *string           `cbor:"8,keyasint,omitempty"`
	Meta        map[string]string `cbor:"9,keyasint,omitempty"`
	SetMeta     bool              `cbor:"10,keyasint,omitempty"`
	// Parent moves a directory's parent pointer (a rename's last step) and makes it explicit.
	Parent object.InodeID `cbor:"11,keyasint,omitempty"`
	// Explicit makes a directory explicit.
	Explicit bool `cbor:"12,keyasint,omitempty"`
	Cond     Cond `cbor:"13,keyasint"`
	// Unmark makes an explicit directory implicit (its marker object is deleted).
	Unmark bool `cbor:"14,keyasint,omitempty"`
	Change      // of the size
}

// SetXattr sets or removes one extended attribute.
type SetXattr struct {
	Inode   object.InodeID `cbor:"1,keyasint"`
	Name    string         `cbor:"2,keyasint"`
	Value   []byte         `cbor:"3,keyasint,omitempty"`
	Create  bool           `cbor:"4,keyasint,omitempty"`
	Replace bool           `cbor:"5,keyasint,omitempty"`
	Remove  bool           `cbor:"6,keyasint,omitempty"`
	// ACL: the value is an access control list, and the mode goes with it. Entries of
	// earlier releases keep any bytes under its name.
	ACL bool `cbor:"7,keyasint,omitempty"`
}

// Splice changes bytes of a file in place.
type Splice struct {
	Inode  object.InodeID `cbor:"1,keyasint"`
	Cond   Cond           `cbor:"2,keyasint"`
	Offset int64          `cbor:"3,keyasint,omitempty"`
	Length int64          `cbor:"4,keyasint,omitempty"`
	// Append puts the bytes at the end, wherever that is now.
	Append bool `cbor:"5,keyasint,omitempty"`
	// Truncate ends the file where the write ends.
	Truncate bool `cbor:"6,keyasint,omitempty"`
	// Data (Length bytes, up to object.MaxInline) or Extents (offsets relative
	// to the write); neither: a hole of Length bytes.
	Data     []byte          `cbor:"7,keyasint,omitempty"`
	Extents  []object.Extent `cbor:"8,keyasint,omitempty"`
	Existing bool            `cbor:"9,keyasint,omitempty"`
	// Grow: the size becomes at least the end of the write (not for a hole that is punched).
	Grow bool `cbor:"10,keyasint,omitempty"`
	// Content is the id to use when the file has no content of its own yet.
	Content object.ContentID `cbor:"11,keyasint"`
	Attr    *SetAttr         `cbor:"12,keyasint,omitempty"`
	Change
}

// CompactExtents replaces the extents of a range by others that hold the same
// bytes: those that a reader saw who pinned the inode at Pin. Refused when a
// byte of the range was changed since.
type CompactExtents struct {
	Inode   object.InodeID   `cbor:"1,keyasint"`
	Content object.ContentID `cbor:"2,keyasint"`
	Pin     uint64           `cbor:"3,keyasint"`
	Offset  int64            `cbor:"4,keyasint"`
	Length  int64            `cbor:"5,keyasint"`
	Extents []object.Extent  `cbor:"6,keyasint"` // offsets relative to Offset, in order
}

// Stage adds extents to a content that belongs to no inode yet.
type Stage struct {
	Owner object.UploadID `cbor:"1,keyasint"` // the coordinator's incarnation
	Body  Body            `cbor:"2,keyasint"`
}

// Unstage gives a staged content up.
type Unstage struct {
	Content object.ContentID `cbor:"1,keyasint"`
}

// Reclaim works on pieces of garbage, a bounded amount of them. Partial in its
// result: an inode among them was spared.
type Reclaim struct {
	Items []Garbage `cbor:"1,keyasint"`
	// Seen is the index of the state that the items were found in: an inode that
	// was kept later is spared. 0, in entries of earlier releases: none is.
	Seen uint64 `cbor:"2,keyasint,omitempty"`
}

// Keep spares inodes that have lost their last name from every Reclaim whose
// proposer had not seen this entry. Those that are gone are passed over.
type Keep struct {
	Inodes []object.InodeID `cbor:"1,keyasint"`
}

// Released reports that all holders dropped the files of these chunks.
type Released struct {
	Chunks []object.ChunkID `cbor:"1,keyasint"`
}

// RefuseUpload ends an upload for ever: none of its chunks that is not
// committed yet can be committed any more.
type RefuseUpload struct {
	Upload object.UploadID `cbor:"1,keyasint"`
}

// NewUpload begins a multipart upload; PutPart adds a part; EndUpload forgets
// it and gives its parts up.
type NewUpload struct {
	ID   object.UploadID    `cbor:"1,keyasint"`
	Rec  UploadRec          `cbor:"2,keyasint"`
	Part object.PartitionID `cbor:"3,keyasint,omitempty"` // where it lives, for the kept result
}

// PutPart adds or replaces a part.
type PutPart struct {
	Upload object.UploadID `cbor:"1,keyasint"`
	Part   PartRec         `cbor:"2,keyasint"`
	Body   Body            `cbor:"3,keyasint"`
}

// EndUpload forgets a multipart upload.
type EndUpload struct {
	Upload object.UploadID `cbor:"1,keyasint"`
}

// Prepare does a participant's part and marks it with the transaction.
type Prepare struct {
	// Tx is zero in the first participant's entry, which gives it its id.
	Tx      TxID                 `cbor:"1,keyasint"`
	Decider object.PartitionID   `cbor:"2,keyasint"`
	Halves  []Half               `cbor:"3,keyasint"` // all of this partition's
	Others  []object.PartitionID `cbor:"4,keyasint,omitempty"`
}

// Decide is the second partition's entry: the moment a transaction happens.
type Decide struct {
	Tx TxID `cbor:"1,keyasint"`
	// Mark: every transaction of the same first partition below it is settled.
	Mark uint64 `cbor:"2,keyasint"`

	PutDentry  *PutDentry  `cbor:"3,keyasint,omitempty"`
	DropDentry *DropDentry `cbor:"4,keyasint,omitempty"`
	Lower      *Lower      `cbor:"5,keyasint,omitempty"`
	DropRefs   *DropRefs   `cbor:"6,keyasint,omitempty"`
	Put        *Put        `cbor:"7,keyasint,omitempty"`
	Stage      *Stage      `cbor:"8,keyasint,omitempty"`
	Splice     *Splice     `cbor:"9,keyasint,omitempty"`
	Unlink     *Unlink     `cbor:"10,keyasint,omitempty"`
}

// PutDentry gives a name to an inode that lives elsewhere.
type PutDentry struct {
	Dir   object.InodeID  `cbor:"1,keyasint"`
	Name  string          `cbor:"2,keyasint"`
	Inode object.InodeID  `cbor:"3,keyasint"`
	Type  object.FileType `cbor:"4,keyasint"`
	// Replace: what the name must lead to now (0: it must be free).
	Replace object.InodeID `cbor:"5,keyasint,omitempty"`
	Mount   bool           `cbor:"6,keyasint,omitempty"`
	// Look again when the name is taken by now: it was to be free or replaced.
	Look bool `cbor:"7,keyasint,omitempty"`
	// Inherits: a new directory that was given the scheme Like of its parent. Look
	// again when the parent has another one by now.
	Inherits bool          `cbor:"8,keyasint,omitempty"`
	Like     object.Scheme `cbor:"9,keyasint,omitempty"`
}

// DropDentry drops a directory's name, if it still leads to that directory.
type DropDentry struct {
	Dir     object.InodeID `cbor:"1,keyasint"`
	Name    string         `cbor:"2,keyasint"`
	Inode   object.InodeID `cbor:"3,keyasint"`
	Mount   bool           `cbor:"4,keyasint,omitempty"`
	Cascade *Cascade       `cbor:"5,keyasint,omitempty"`
}

// Lower takes a link off an inode; never refused.
type Lower struct {
	Inode object.InodeID `cbor:"1,keyasint"`
}

// DropRefs drops one reference for each mention of a chunk; never refused.
type DropRefs struct {
	Chunks []object.ChunkID `cbor:"1,keyasint"`
}

// RefuseTx makes the decider either show a transaction's outcome or refuse it for ever.
type RefuseTx struct {
	Tx TxID `cbor:"1,keyasint"`
}

// Finish finishes or undoes a participant's half.
type Finish struct {
	Tx        TxID `cbor:"1,keyasint"`
	Committed bool `cbor:"2,keyasint"`
}

// Init makes the root directory; the control group only.
type Init struct{}

// RaiseEpoch tells a partition of a newer rename epoch.
type RaiseEpoch struct {
	Epoch uint64 `cbor:"1,keyasint"`
}

// BeginRename takes the control group's rename record; it fails with the
// record while another one is active and not the one in Settled.
type BeginRename struct {
	Nonce   object.UploadID `cbor:"1,keyasint"`
	Dir     object.InodeID  `cbor:"2,keyasint"`
	Name    string          `cbor:"3,keyasint"`
	Settled object.UploadID `cbor:"4,keyasint"`
	Inode   object.InodeID  `cbor:"5,keyasint"`
	NewDir  object.InodeID  `cbor:"6,keyasint"`
	NewName string          `cbor:"7,keyasint"`
}

// EndRename gives the record back.
type EndRename struct {
	Nonce object.UploadID `cbor:"1,keyasint"`
}

// EndSession forgets a client's session.
type EndSession struct {
	Session object.UploadID `cbor:"1,keyasint"`
	// Since: it stays when it was seen (ns) at or after it. 0: it goes.
	Since int64 `cbor:"2,keyasint,omitempty"`
}

// Fence makes the partition refuse every entry of the command's token that is
// not of the token's own attempt; a kept result stays, and is the answer.
type Fence struct{}

// Result is what a command came to.
type Result struct {
	// Kind and Message are the error; Failed tells that there is one.
	Failed  bool        `cbor:"1,keyasint,omitempty"`
	Kind    object.Kind `cbor:"2,keyasint,omitempty"`
	Message string      `cbor:"3,keyasint,omitempty"`

	Index   uint64        `cbor:"4,keyasint"`
	Inode   *object.Inode `cbor:"5,keyasint,omitempty"`
	Offset  int64         `cbor:"6,keyasint,omitempty"` // where an append went
	Tx      TxID          `cbor:"7,keyasint"`           // of a Prepare
	Mark    uint64        `cbor:"8,keyasint,omitempty"` // of a Prepare: the first partition's watermark
	Drive   []TxRef       `cbor:"9,keyasint,omitempty"` // transactions that this entry began and the coordinator is to drive
	Rename  *DirRename    `cbor:"10,keyasint,omitempty"`
	Outcome bool          `cbor:"11,keyasint,omitempty"` // of RefuseTx: it had happened
	Done    bool          `cbor:"12,keyasint,omitempty"` // of Reclaim: nothing is left of it
	Created bool          `cbor:"13,keyasint,omitempty"`
	Length  int64         `cbor:"14,keyasint,omitempty"` // of a Splice: the bytes written
	Part    *PartRec      `cbor:"15,keyasint,omitempty"` // of PutPart
	Upload  *NewUpload    `cbor:"16,keyasint,omitempty"` // of NewUpload

	Made object.InodeID `cbor:"18,keyasint,omitempty"` // of a Decide that put a name: what it leads to

	// Fence: no result, but the only attempt whose entries are taken.
	Fence []byte `cbor:"17,keyasint,omitempty"`

	Control *control.Result `cbor:"27,keyasint,omitempty"` // of a Control; its error is this one's, too

	// Conflict is a lock in the way, of a Lock: it was not taken. Waits, with it: the
	// client waits, so this is not kept.
	Conflict *object.Lock `cbor:"60,keyasint,omitempty"`
	Waits    bool         `cbor:"61,keyasint,omitempty"`

	// Recalled: it is the kept result of an earlier entry with the same token;
	// this one did nothing.
	Recalled bool `cbor:"-"`
	// Doubtful: an attempt at the same entry whose outcome is unknown came before this
	// one. Where this result is kept for the entry's token (Kept), the earlier one can
	// do nothing any more; else it may still be applied.
	Doubtful bool `cbor:"-"`

	// Transient answers, never stored with a token: Meet is a transaction that
	// is in the way; Again asks to resolve the path anew; Elsewhere names an
	// inode of another partition that must be asked first; Fenced: another
	// attempt of the same token took this one's place; Partial: there is more to do.
	Fenced    bool           `cbor:"24,keyasint,omitempty"`
	Partial   bool           `cbor:"25,keyasint,omitempty"`
	Scattered bool           `cbor:"23,keyasint,omitempty"` // compact or restage the file first
	Pieces    bool           `cbor:"26,keyasint,omitempty"` // with Scattered: compacting would not do
	Meet      *TxRef         `cbor:"20,keyasint,omitempty"`
	Again     bool           `cbor:"21,keyasint,omitempty"`
	Elsewhere object.InodeID `cbor:"22,keyasint,omitempty"`
}

// Err is the error, or nil.
func (r *Result) Err() error {
	if !r.Failed {
		return nil
	}
	return object.Errorf(r.Kind, "%s", r.Message)
}

// Kept reports whether the result is kept for its entry's token, if that has one.
func (r *Result) Kept() bool { return !r.transient() }

func (r *Result) transient() bool {
	return r.Meet != nil || r.Again || r.Elsewhere != 0 || r.Scattered || r.Fenced || r.Partial || r.Waits
}

// Encode is the command's bytes in the log.
func (c *Command) Encode() ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, c.sizeHint()))
	b.WriteByte(commandVersion)
	if err := codec.enc.MarshalToBuffer(c, b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// sizeHint is about as long as Encode's bytes get: the log keeps them, so they
// are made in place.
func (c *Command) sizeHint() int {
	const head, each = 384, 128 // measured: a Put without content, an extent
	switch {
	case c.Put != nil:
		return head + len(c.Put.Name) + len(c.Put.Body.Inline) + each*len(c.Put.Body.Extents)
	case c.Splice != nil:
		return head + len(c.Splice.Data) + each*len(c.Splice.Extents)
	case c.Stage != nil:
		return head + each*len(c.Stage.Body.Extents)
	}
	return head
}

const commandVersion = 1

// DecodeCommand reads what Encode wrote.
func DecodeCommand(b []byte) (*Command, error) {
	if len(b) == 0 {
		return nil, object.Errorf(object.KindCorrupt, "an empty log entry")
	}
	if b[0] != commandVersion {
		return nil, object.Errorf(object.KindVersion, "a log entry of format %d; this program knows %d: use the newer BucketDB that wrote it", b[0], commandVersion)
	}
	c := new(Command)
	if err := codec.dec.Unmarshal(b[1:], c); err != nil {
		return nil, object.Errorf(object.KindCorrupt, "a log entry that cannot be read: %w", err)
	}
	return c, nil
}
