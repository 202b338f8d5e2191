package namespace

import (
	"crypto/sha256"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// put gives a name to a new inode. It is also the deciding step of a
// transaction; ref then names it (a mark of the transaction itself is not in the way).
func (s *state) put(c *Put, ref *TxID) *Result {
	dir, bad := s.openDir(c.Dir)
	if bad != nil {
		return bad
	}
	old, bad := s.target(c, ref)
	if bad != nil {
		return bad
	}
	if bad := s.checkBody(&c.Body); bad != nil {
		return bad
	}
	if c.Inherit && c.Ask && old != nil && old.Type == object.TypeRegular && old.Inode.Partition() != s.part {
		return elsewhere(old.Inode)
	}

	node := c.Node
	node.ID, node.Version, node.Change, node.Nlink = s.newID(), s.index, s.index, 1
	if node.Btime == 0 {
		node.Btime = s.now
	}
	if c.Inherit && old != nil && old.Inode.Partition() == s.part {
		if was := s.inode(old.Inode); was != nil && was.I.Type == object.TypeRegular {
			node.Mode, node.UID, node.GID = was.I.Mode, was.I.UID, was.I.GID
		}
	}
	if c.Parental {
		node.Inherit(&dir.I, c.Umasked)
	}
	s.attach(&node, &c.Body)
	node.Scheme = dir.I.Scheme
	if !node.Content.IsZero() && (c.Body.Mixed || c.Body.Made != node.Scheme) {
		s.stray(node.ID)
	}
	s.storeInode(&inodeRec{I: node})
	s.putDentry(c.Dir, c.Name, dentryRec{Inode: node.ID, Type: node.Type})
	s.touchDir(dir, 0, c.Mount)
	if old != nil && c.Inode == 0 { // else the transaction's hold takes the link off
		s.unlinked(old.Inode)
	}
	return &Result{Inode: &node, Created: old == nil}
}

// target judges what a Put's name leads to now: nil, or the entry that it replaces.
func (s *state) target(c *Put, ref *TxID) (*dentryRec, *Result) {
	old := s.dentry(c.Dir, c.Name)
	if old != nil && old.Tx != nil && (ref == nil || old.Tx.ID != *ref) {
		return nil, meet(old.Tx)
	}
	if c.Mount {
		if d := s.dentry(c.Dir, c.Name+"/"); d != nil {
			if d.Tx != nil {
				return nil, meet(d.Tx)
			}
			return nil, failf(object.KindExists, "a directory of this name exists")
		}
	}
	if ref != nil && c.Inode != 0 && (old == nil || old.Inode != c.Inode) {
		return nil, &Result{Failed: true, Kind: object.KindConflict, Message: "the name leads elsewhere by now", Again: true}
	}
	if old != nil && c.Exclusive {
		r := failf(object.KindExists, "the name is taken")
		if e := s.inode(old.Inode); e != nil {
			r.Inode = &e.I
		}
		return nil, r
	}
	if old != nil && old.Inode.Partition() == s.part && !c.Cond.Empty() {
		if e := s.inode(old.Inode); e != nil && e.Hold != nil {
			return nil, meet(e.Hold)
		}
	}
	if ref == nil || c.Inode == 0 {
		if bad := s.judge(&c.Cond, old); bad != nil {
			return nil, bad
		}
	}
	return old, nil
}

// checkBody refuses a content whose chunks may not be committed. It changes nothing.
func (s *state) checkBody(b *Body) *Result {
	if len(b.Inline) > object.MaxInline || len(b.Extents) > MaxExtents {
		return failf(object.KindInvalid, "too much content in one entry")
	}
	if b.Staged && !s.has(stagedKey(b.Content)) {
		return failf(object.KindConflict, "the staged content is gone: send it again")
	}
	return s.checkExtents(b.Extents, b.Existing)
}

// checkExtents refuses extents whose chunks may not be referenced.
func (s *state) checkExtents(list []object.Extent, existing bool) *Result {
	var last object.UploadID
	for i := range list {
		e := &list[i]
		if e.Data != nil {
			continue
		}
		if bad := checkRef(RefOf(e)); bad != nil {
			return bad
		}
		if e.Chunk.Owner != s.part {
			continue // a foreign chunk's reference was taken by the transaction
		}
		if existing {
			if !s.has(chunkTail(keyChunk, e.Chunk)) {
				return failf(object.KindConflict, "a chunk that was to be shared is gone: try again")
			}
			continue
		}
		if s.has(chunkTail(keyRelease, e.Chunk)) {
			return failf(object.KindConflict, "a chunk of the upload is being dropped: send it again")
		}
		if e.Chunk.Upload != last {
			last = e.Chunk.Upload
			if s.has(refusedKey(last)) {
				return failf(object.KindConflict, "the upload was given up: send it again")
			}
		}
	}
	return nil
}

// checkRef refuses a chunk that could not be found again.
func checkRef(c ChunkRef) *Result {
	if err := c.Scheme.Check(); err != nil {
		return failf(object.KindInvalid, "chunk %s: %v", c.ID, err)
	}
	if n := len(c.SHA256); n != 0 && n != sha256.Size {
		return failf(object.KindInvalid, "chunk %s is named with a SHA-256 of %d bytes", c.ID, n)
	}
	return nil
}

// attach gives a new inode its content.
func (s *state) attach(n *object.Inode, b *Body) {
	n.Content, n.Inline, n.Blocks = object.ContentID{}, false, 0
	if n.Type != object.TypeRegular {
		return
	}
	n.Size = b.Size
	switch {
	case len(b.Inline) > 0:
		n.Inline, n.Blocks = true, int64(len(b.Inline))
		s.storeRaw(inlineKey(n.ID), b.Inline)
	case b.Staged || len(b.Extents) > 0:
		n.Content = b.Content
		n.Blocks = s.addExtents(b.Content, b.Extents, 0, true)
		if b.Staged {
			var rec stagedRec
			if s.load(stagedKey(b.Content), &rec) {
				n.Blocks += rec.Size
			}
			s.drop(stagedKey(b.Content))
		}
	case b.Size > 0: // nothing but a hole
		n.Content = b.Content
	}
}

// unlink drops a name; as the deciding step of a transaction ref names that.
func (s *state) unlink(c *Unlink, ref *TxID) *Result {
	dir, bad := s.openDir(c.Dir)
	if bad != nil {
		return bad
	}
	e := s.dentry(c.Dir, c.Name)
	if e == nil {
		if s.dentry(c.Dir, c.Name+"/") != nil {
			return failf(object.KindIsDirectory, "it is a directory")
		}
		if bad := checkCond(&c.Cond, nil); bad != nil {
			return bad
		}
		return failf(object.KindNotFound, "no such name")
	}
	if e.Tx != nil {
		return meet(e.Tx)
	}
	if c.Inode != 0 && e.Inode != c.Inode {
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the name leads elsewhere by now", Again: true}
	}
	if c.Inode == 0 {
		if bad := s.judge(&c.Cond, e); bad != nil {
			return bad
		}
	}
	if r := s.inode(e.Inode); r != nil && r.Hold != nil && (ref == nil || r.Hold.ID != *ref) {
		return meet(r.Hold)
	}
	s.dropDentry(c.Dir, c.Name, e.Type)
	s.touchDir(dir, 0, c.Mount)
	if ref == nil { // else the transaction's hold takes the link off
		s.unlinked(e.Inode)
	}
	s.cascade(dir, c.Cascade)
	return &Result{}
}

// move renames within this partition: everything but directories.
func (s *state) move(c *Move) *Result {
	from, bad := s.openDir(c.Dir)
	if bad != nil {
		return bad
	}
	to := from
	if c.NewDir != c.Dir {
		if to, bad = s.openDir(c.NewDir); bad != nil {
			return bad
		}
	}
	e := s.dentry(c.Dir, c.Name)
	if e == nil {
		return failf(object.KindNotFound, "no such name")
	}
	if e.Tx != nil {
		return meet(e.Tx)
	}
	old := s.dentry(c.NewDir, c.NewName)
	if old != nil && old.Tx != nil {
		return meet(old.Tx)
	}
	if c.Mount {
		if d := s.dentry(c.NewDir, c.NewName+"/"); d != nil {
			if d.Tx != nil {
				return meet(d.Tx)
			}
			return failf(object.KindIsDirectory, "a directory of the new name exists")
		}
	}
	if c.Exchange {
		return s.exchange(c, from, to, e, old)
	}
	if old != nil && c.NoReplace {
		return failf(object.KindExists, "the new name is taken")
	}
	if old != nil && old.Inode == e.Inode {
		return &Result{} // two names of one file: rename does nothing (POSIX)
	}
	s.dropDentry(c.Dir, c.Name, e.Type)
	s.putDentry(c.NewDir, c.NewName, dentryRec{Inode: e.Inode, Type: e.Type})
	if old != nil {
		s.unlinked(old.Inode)
	}
	s.touchDir(from, 0, c.Mount)
	if to != from {
		s.touchDir(to, 0, c.Mount)
	}
	if r := s.inode(e.Inode); r != nil {
		s.moveTo(r, to)
		s.changed(r)
	}
	s.cascade(from, c.Cascade)
	return &Result{}
}

func (s *state) exchange(c *Move, from, to *inodeRec, e, old *dentryRec) *Result {
	if old == nil {
		return failf(object.KindNotFound, "no such name to exchange with")
	}
	s.putDentry(c.NewDir, c.NewName, dentryRec{Inode: e.Inode, Type: e.Type})
	s.putDentry(c.Dir, c.Name, dentryRec{Inode: old.Inode, Type: old.Type})
	s.movedTo(e.Inode, to)
	s.movedTo(old.Inode, from)
	s.touchDir(from, 0, c.Mount)
	if to != from {
		s.touchDir(to, 0, c.Mount)
	}
	return &Result{}
}

func (s *state) linkHere(c *LinkHere) *Result {
	dir, bad := s.openDir(c.Dir)
	if bad != nil {
		return bad
	}
	r := s.inode(c.Inode)
	switch {
	case r == nil || r.I.Nlink == 0:
		return failf(object.KindStale, "the file is gone")
	case r.I.IsDir():
		return failf(object.KindPermission, "a directory cannot have a second name")
	case r.I.Nlink >= object.MaxNlink:
		return failf(object.KindTooManyLinks, "the file has %d names, no more are possible", r.I.Nlink)
	}
	if bad := s.free(c.Dir, c.Name, c.Mount); bad != nil {
		return bad
	}
	r.I.Nlink++
	s.changed(r)
	s.putDentry(c.Dir, c.Name, dentryRec{Inode: c.Inode, Type: r.I.Type})
	s.touchDir(dir, 0, c.Mount)
	return &Result{Inode: &r.I}
}

// free refuses a file's name that is taken; for a mount also by a directory.
func (s *state) free(dir object.InodeID, name string, mount bool) *Result {
	stored := []string{name}
	if mount {
		stored = append(stored, name+"/")
	}
	for _, n := range stored {
		if e := s.dentry(dir, n); e != nil {
			if e.Tx != nil {
				return meet(e.Tx)
			}
			return failf(object.KindExists, "the name is taken")
		}
	}
	return nil
}
