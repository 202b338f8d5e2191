package namespace

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func (s *state) inode(id object.InodeID) *inodeRec {
	r := new(inodeRec)
	if id.Partition() != s.part || !s.load(inodeKey(id), r) {
		return nil
	}
	return r
}

func (s *state) storeInode(r *inodeRec) { s.store(inodeKey(r.I.ID), r) }

// changed stamps an inode that this entry changes and stores it.
func (s *state) changed(r *inodeRec) {
	r.I.Ctime, r.I.Change = s.now, s.index
	s.storeInode(r)
	s.event(Event{Inode: r.I.ID, Version: r.I.Version})
}

// newID is the number of an inode that is born in this entry.
func (s *state) newID() object.InodeID {
	id := object.NewInodeID(s.part, s.index, s.births)
	s.births++
	return id
}

func (s *state) dentry(dir object.InodeID, stored string) *dentryRec {
	r := new(dentryRec)
	if !s.load(dentryKey(dir, stored), r) {
		return nil
	}
	return r
}

// openDir is the directory, if it takes changes of its entries; else why not.
func (s *state) openDir(id object.InodeID) (*inodeRec, *Result) {
	d := s.inode(id)
	switch {
	case d == nil:
		return nil, &Result{Failed: true, Kind: object.KindStale, Message: "the directory is gone", Again: true}
	case !d.I.IsDir():
		return nil, failf(object.KindNotDirectory, "inode %s is not a directory", id)
	case d.Dead != nil:
		return nil, meet(d.Dead)
	}
	return d, nil
}

// touchDir stamps a directory whose entries this entry changes. subdirs is the
// change of its link count. A mount's change makes it explicit.
func (s *state) touchDir(d *inodeRec, subdirs int, mount bool) {
	d.I.Mtime, d.I.Ctime, d.I.Change = s.now, s.now, s.index
	d.I.Nlink = uint32(int64(d.I.Nlink) + int64(subdirs))
	if mount {
		d.I.Implicit = false
	}
	s.storeInode(d)
}

// empty reports whether a directory has no entry.
func (s *state) empty(dir object.InodeID) bool {
	p := dirPrefix(dir)
	found := false
	s.scan(p, after(p), func(_, _ []byte) bool {
		found = true
		return false
	})
	return !found
}

func (s *state) putDentry(dir object.InodeID, name string, e dentryRec) {
	s.store(dentryKey(dir, storedName(name, e.Type)), &e)
	s.event(Event{Dir: dir, Name: name, Inode: e.Inode})
}

func (s *state) dropDentry(dir object.InodeID, name string, t object.FileType) {
	s.drop(dentryKey(dir, storedName(name, t)))
	s.event(Event{Dir: dir, Name: name})
}

// checkCond judges conditions on what a name leads to; ino nil: nothing.
func checkCond(c *Cond, ino *object.Inode) *Result {
	any := func(tags []string) bool {
		return ino != nil && (slices.Contains(tags, "*") || slices.Contains(tags, ino.ETag()))
	}
	switch {
	case len(c.Match) > 0 && !any(c.Match):
		return failf(object.KindPrecondition, "the object is not the one that If-Match names")
	case len(c.NoneMatch) > 0 && any(c.NoneMatch):
		return failf(object.KindPrecondition, "the object is one that If-None-Match names")
	case c.NotAfter != 0 && (ino == nil || ino.Mtime/int64(time.Second) > c.NotAfter/int64(time.Second)):
		return failf(object.KindPrecondition, "the object was modified since")
	case c.Version != 0 && (ino == nil || ino.Version != c.Version):
		return failf(object.KindPrecondition, "the content was changed meanwhile")
	}
	return nil
}

// Check judges conditions on an inode (nil: there is none).
func (c *Cond) Check(ino *object.Inode) error {
	if r := checkCond(c, ino); r != nil {
		return r.Err()
	}
	return nil
}

// judge judges conditions on the inode that a dentry names. An inode of
// another partition can only be judged there (unless its mere existence decides).
func (s *state) judge(c *Cond, e *dentryRec) *Result {
	if c.Empty() {
		return nil
	}
	if e == nil {
		return checkCond(c, nil)
	}
	if e.Inode.Partition() == s.part {
		if r := s.inode(e.Inode); r != nil {
			return checkCond(c, &r.I)
		}
		return failf(object.KindCorrupt, "the entry names inode %s, which is gone", e.Inode)
	}
	star := func(tags []string) bool { return slices.Contains(tags, "*") }
	switch {
	case star(c.NoneMatch):
		return failf(object.KindPrecondition, "the object exists")
	case star(c.Match) && len(c.NoneMatch) == 0 && c.NotAfter == 0 && c.Version == 0:
		return nil
	}
	return elsewhere(e.Inode)
}

// elsewhere asks for a transaction that holds an inode of another partition.
func elsewhere(id object.InodeID) *Result {
	return &Result{Failed: true, Kind: object.KindConflict, Message: "the object's inode lives elsewhere", Elsewhere: id}
}

// unlinked takes a link off what a dentry that is gone named: at once where
// the inode is local, as a debt to its partition otherwise.
func (s *state) unlinked(id object.InodeID) {
	if id.Partition() != s.part {
		s.owe(id.Partition(), &Decide{Lower: &Lower{Inode: id}})
		return
	}
	s.lower(id)
}

// lower takes a link off a local inode; without links it is garbage.
func (s *state) lower(id object.InodeID) {
	r := s.inode(id)
	if r == nil || r.I.Nlink == 0 {
		return
	}
	r.I.Nlink--
	s.changed(r)
	if r.I.Nlink == 0 {
		s.trashed(garbageRec{Inode: id, Content: r.I.Content, What: garbageInode})
	}
}

// cascade marks an implicit directory whose last entry just went as dead and
// begins the transaction that drops its name in the parent.
func (s *state) cascade(d *inodeRec, c *Cascade) {
	if c == nil || !d.I.Implicit || d.Dead != nil || !s.empty(d.I.ID) {
		return
	}
	ref := TxRef{ID: s.newTx(), Decider: c.Parent.Partition()}
	d.Dead = &ref
	s.storeInode(d)
	s.store(txKey(keyTx, ref.ID), &txRec{
		Ref: ref, Halves: []Half{{Dead: &Dead{Dir: d.I.ID}}}, Began: s.now,
		Owed: &Decide{DropDentry: &DropDentry{Dir: c.Parent, Name: c.Name, Inode: d.I.ID, Cascade: c.Up}},
	})
	s.drive = append(s.drive, ref)
}

func (s *state) epoch() uint64 {
	if b, ok := s.loadRaw([]byte{keyEpoch}); ok && len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (s *state) raiseEpoch(c *RaiseEpoch) *Result {
	if c.Epoch > s.epoch() {
		s.storeRaw([]byte{keyEpoch}, be64(nil, c.Epoch))
	}
	return &Result{}
}

func (s *state) init() *Result {
	if s.inode(object.RootInode) == nil {
		s.storeInode(&inodeRec{I: object.Inode{ID: object.RootInode, Type: object.TypeDirectory, Mode: 0o755, Nlink: 2,
			Atime: s.now, Mtime: s.now, Ctime: s.now, Btime: s.now, Version: s.index, Change: s.index}})
	}
	return &Result{}
}

func (s *state) beginRename(c *BeginRename) *Result {
	var rec DirRename
	s.load([]byte{keyRename}, &rec)
	if rec.Active && rec.Nonce != c.Nonce && rec.Nonce != c.Settled {
		return &Result{Failed: true, Kind: object.KindBusy, Message: "another directory is being renamed", Rename: &rec}
	}
	if rec.Nonce != c.Nonce {
		// The epoch between belongs to whoever settled a predecessor. Epoch 1
		// is that of paths resolved before the first rename.
		rec = DirRename{Epoch: max(rec.Epoch, 1) + 1, Nonce: c.Nonce, Dir: c.Dir, Name: c.Name, Active: true,
			Inode: c.Inode, NewDir: c.NewDir, NewName: c.NewName}
		if c.Settled != (object.UploadID{}) {
			rec.Epoch++
		}
		s.store([]byte{keyRename}, &rec)
	}
	return &Result{Rename: &rec}
}

func (s *state) endRename(c *EndRename) *Result {
	var rec DirRename
	if s.load([]byte{keyRename}, &rec) && rec.Nonce == c.Nonce {
		rec.Active = false
		s.store([]byte{keyRename}, &rec)
	}
	return &Result{}
}
