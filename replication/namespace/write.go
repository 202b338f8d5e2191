package namespace

import (
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// file is a regular file that takes changes of its content; else why not.
func (s *state) file(id object.InodeID) (*inodeRec, *Result) {
	r := s.inode(id)
	switch {
	case r == nil:
		return nil, failf(object.KindStale, "the file is gone")
	case r.I.IsDir():
		return nil, failf(object.KindIsDirectory, "it is a directory")
	case r.I.Type != object.TypeRegular:
		return nil, failf(object.KindInvalid, "it is no regular file")
	case r.Hold != nil:
		return nil, meet(r.Hold)
	}
	return r, nil
}

// splice changes bytes of a file in place.
func (s *state) splice(c *Splice) *Result {
	r, bad := s.file(c.Inode)
	if bad != nil {
		return bad
	}
	if bad := checkCond(&c.Cond, &r.I); bad != nil {
		return bad
	}
	off := c.Offset
	if c.Append {
		off = r.I.Size
	}
	end := off + c.Length
	switch {
	case off < 0 || c.Length < 0 || end < off || end > object.MaxFileSize:
		return failf(object.KindInvalid, "no file reaches to that offset")
	case c.Data != nil && int64(len(c.Data)) != c.Length, len(c.Data) > object.MaxInline, len(c.Extents) > MaxExtents:
		return failf(object.KindInvalid, "the content of the entry does not fit its length")
	}
	if bad := s.checkExtents(c.Extents, c.Existing); bad != nil {
		return bad
	}
	if bad := s.checkOver(r, c.Over); bad != nil {
		return bad
	}
	if !s.spliceInline(r, c, off, end) {
		if bad := s.spliceExtents(r, c, off, end); bad != nil {
			return bad
		}
	}
	if c.Truncate || (c.Grow && end > r.I.Size) {
		r.I.Size = end
	}
	s.written(r)
	if c.Attr != nil {
		s.applyAttr(r, c.Attr)
	}
	if slices.ContainsFunc(c.Extents, func(e object.Extent) bool { return e.Data == nil && e.Scheme != r.I.Scheme }) {
		s.stray(r.I.ID)
	}
	s.changed(r)
	return &Result{Inode: &r.I, Offset: off, Length: c.Length}
}

// written stamps a file whose content this entry changes.
func (s *state) written(r *inodeRec) {
	r.I.Version, r.I.Mtime = s.index, s.now
	r.I.ETagValue, r.I.SHA256 = "", nil
	delete(r.I.Xattrs, object.XattrCapability)
}

// spliceInline serves files whose content is, and stays, inside the metadata.
// A pinned reader holds those bytes itself, so nothing is retired.
func (s *state) spliceInline(r *inodeRec, c *Splice, off, end int64) bool {
	if !r.I.Content.IsZero() || len(c.Extents) > 0 {
		return false
	}
	if len(c.Data) > 0 && end > object.MaxInline {
		return false
	}
	old, _ := s.loadRaw(inlineKey(r.I.ID))
	buf := append([]byte(nil), old...)
	if c.Data != nil {
		if grow := end - int64(len(buf)); grow > 0 {
			buf = append(buf, make([]byte, grow)...)
		}
		copy(buf[off:], c.Data)
	} else if off < int64(len(buf)) {
		clear(buf[off:min(end, int64(len(buf)))])
	}
	if c.Truncate && int64(len(buf)) > end {
		buf = buf[:end]
	}
	s.setInline(r, buf)
	return true
}

func (s *state) setInline(r *inodeRec, b []byte) {
	r.I.Inline, r.I.Blocks = len(b) > 0, int64(len(b))
	if r.I.Inline {
		s.storeRaw(inlineKey(r.I.ID), b)
	} else {
		s.drop(inlineKey(r.I.ID))
	}
}

func (s *state) spliceExtents(r *inodeRec, c *Splice, off, end int64) *Result {
	if r.I.Content.IsZero() {
		if c.Content.IsZero() {
			return failf(object.KindInvalid, "a write without a content id")
		}
		s.outgrow(r, c.Content)
	}
	content, to := r.I.Content, end
	if c.Truncate {
		to = object.MaxFileSize
	}
	if c.Truncate && off == 0 && c.Length == 0 {
		s.trashed(garbageRec{Inode: r.I.ID, Content: content, What: garbageContent})
		r.I.Content, r.I.Blocks = object.ContentID{}, 0
		return nil
	}
	if c.Over != nil {
		content = c.Over.Content
	}
	list := s.overlapping(content, off, to, maxReplaced+1)
	if scattered(list) {
		return tooScattered(list)
	}
	if c.Over != nil {
		s.exchangeContent(r, c.Over)
	}
	if len(list) > 0 {
		r.I.Blocks -= s.cut(content, list, off, to)
		s.trashed(garbageRec{Inode: r.I.ID, Content: content, What: garbageSplice})
	}
	if len(c.Data) > 0 {
		r.I.Blocks += s.addExtents(content, []object.Extent{{Length: c.Length, Data: c.Data}}, off, false)
	}
	r.I.Blocks += s.addExtents(content, c.Extents, off, true)
	return nil
}

// checkOver refuses a staged content that is not what the file holds.
func (s *state) checkOver(r *inodeRec, o *Restaged) *Result {
	switch {
	case o == nil:
		return nil
	case r.I.Content != o.Was || r.I.Version != o.Version:
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the file is changed all the time: try again", Scattered: true, Pieces: true}
	case !o.Empty && !s.has(stagedKey(o.Content)):
		return failf(object.KindConflict, "the staged content is gone: try again")
	}
	return nil
}

// exchangeContent gives a file a staged content. The old one is retired as a
// whole; who pinned it reads on in it.
func (s *state) exchangeContent(r *inodeRec, o *Restaged) {
	var rec stagedRec
	s.load(stagedKey(o.Content), &rec)
	s.drop(stagedKey(o.Content))
	s.trashed(garbageRec{Inode: r.I.ID, Content: r.I.Content, What: garbageContent})
	r.I.Content, r.I.Blocks = o.Content, rec.Size
}

// outgrow moves inline bytes into an extent of a content of the file's own.
func (s *state) outgrow(r *inodeRec, id object.ContentID) {
	old, _ := s.loadRaw(inlineKey(r.I.ID))
	old = append([]byte(nil), old...)
	r.I.Content, r.I.Inline, r.I.Blocks = id, false, 0
	s.drop(inlineKey(r.I.ID))
	if len(old) > 0 {
		r.I.Blocks = s.addExtents(id, []object.Extent{{Length: int64(len(old)), Data: old}}, 0, false)
	}
}

// resize cuts or extends a file.
func (s *state) resize(r *inodeRec, size int64, over *Restaged) *Result {
	if size < 0 || size > object.MaxFileSize {
		return failf(object.KindInvalid, "no file has %d bytes", size)
	}
	if bad := s.checkOver(r, over); bad != nil {
		return bad
	}
	c := &Splice{Inode: r.I.ID, Truncate: true, Change: Change{Over: over}}
	if size < r.I.Size && !s.spliceInline(r, c, size, size) {
		if bad := s.spliceExtents(r, c, size, size); bad != nil {
			return bad
		}
	}
	r.I.Size = size
	s.written(r)
	return nil
}

// compact replaces extents by others that hold the same bytes. That they do is
// exact: every change of a byte leaves an extent born later, or a gap. The
// content's version stays; Change rises, which is what readers pin.
func (s *state) compact(c *CompactExtents) *Result {
	r, bad := s.file(c.Inode)
	if bad != nil {
		return bad
	}
	if r.I.Content.IsZero() || r.I.Content != c.Content {
		return failf(object.KindPrecondition, "the content was replaced meanwhile")
	}
	if len(c.Extents) > MaxExtents {
		return failf(object.KindInvalid, "too many extents in one entry")
	}
	if bad := s.checkExtents(c.Extents, false); bad != nil {
		return bad
	}
	list := s.overlapping(c.Content, c.Offset, c.Offset+c.Length, maxReplaced+1)
	if scattered(list) {
		return failf(object.KindTooLarge, "too many extents to compact at once")
	}
	for _, e := range list {
		if e.Born > c.Pin || e.Offset < c.Offset || e.End() > c.Offset+c.Length {
			return failf(object.KindPrecondition, "the content was changed meanwhile")
		}
	}
	if !slices.Equal(Covered(list, 0), Covered(c.Extents, c.Offset)) {
		return failf(object.KindPrecondition, "the content was changed meanwhile")
	}
	r.I.Blocks -= s.cut(c.Content, list, c.Offset, c.Offset+c.Length)
	s.trashed(garbageRec{Inode: r.I.ID, Content: c.Content, What: garbageSplice})
	r.I.Blocks += s.addExtents(c.Content, c.Extents, c.Offset, false)
	r.I.Change = s.index
	s.storeInode(r)
	return &Result{Inode: &r.I}
}

// Piece is a range of bytes that extents cover without a gap.
type Piece struct{ From, To int64 }

// Covered is what a list of extents in order covers, shifted by off.
func Covered(list []object.Extent, off int64) (pieces []Piece) {
	for _, e := range list {
		if n := len(pieces); n > 0 && pieces[n-1].To == e.Offset+off {
			pieces[n-1].To = e.End() + off
			continue
		}
		pieces = append(pieces, Piece{e.Offset + off, e.End() + off})
	}
	return pieces
}

func (s *state) setAttr(c *SetAttr) *Result {
	r := s.inode(c.Inode)
	if r == nil {
		// Whoever resolved a path to it resolves again.
		return &Result{Failed: true, Kind: object.KindStale, Message: "the file is gone", Again: c.Explicit || c.Unmark}
	}
	if r.Still && (c.Mode != nil || c.UID != nil || c.GID != nil) {
		return meet(r.Hold)
	}
	if !c.Cond.Empty() {
		if r.Hold != nil {
			return meet(r.Hold)
		}
		was := &r.I
		if c.Explicit && r.I.Implicit {
			was = nil // as an object, an implicit directory does not exist
		}
		if bad := checkCond(&c.Cond, was); bad != nil {
			return bad
		}
	}
	if c.Unmark && s.empty(c.Inode) { // its last entry went just now: it is to be removed
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the directory became empty", Again: true}
	}
	if c.Explicit && r.Dead != nil {
		return meet(r.Dead)
	}
	if c.Size != nil {
		if _, bad := s.file(c.Inode); bad != nil {
			return bad
		}
		if bad := s.resize(r, *c.Size, c.Over); bad != nil {
			return bad
		}
	}
	s.applyAttr(r, c)
	s.changed(r)
	return &Result{Inode: &r.I}
}

// applyAttr sets everything but the size.
func (s *state) applyAttr(r *inodeRec, c *SetAttr) {
	set := func(dst, src *uint32) {
		if src != nil {
			*dst = *src
		}
	}
	if c.Mode != nil {
		r.I.Chmod(*c.Mode)
	}
	set(&r.I.UID, c.UID)
	set(&r.I.GID, c.GID)
	if c.UID != nil || c.GID != nil {
		delete(r.I.Xattrs, object.XattrCapability)
	}
	if c.Atime != nil {
		r.I.Atime = *c.Atime
	}
	if c.Mtime != nil {
		r.I.Mtime = *c.Mtime
	}
	if c.ContentType != nil {
		r.I.ContentType = *c.ContentType
	}
	if c.SetMeta {
		r.I.Meta = c.Meta
	}
	if c.Parent != 0 {
		r.I.Parent = c.Parent
	}
	if c.Parent != 0 || c.Explicit {
		r.I.Implicit = false
	}
	if c.Unmark {
		r.I.Implicit = true
	}
}

func (s *state) setXattr(c *SetXattr) *Result {
	r := s.inode(c.Inode)
	if r == nil {
		return failf(object.KindStale, "the file is gone")
	}
	_, has := r.I.Xattrs[c.Name]
	switch {
	case c.Create && has:
		return failf(object.KindExists, "the attribute %q exists", c.Name)
	case (c.Replace || c.Remove) && !has:
		return failf(object.KindNoAttr, "there is no attribute %q", c.Name)
	case c.Remove:
		delete(r.I.Xattrs, c.Name)
	default:
		var list object.ACL
		if c.ACL {
			var bad *Result
			if list, bad = checkACL(&r.I, c); bad != nil {
				return bad
			}
			if _, minimal := list.Mode(0); minimal && c.Name == object.XattrACL {
				r.I.SetACL(list) // nothing is kept, so it always has room
				break
			}
		}
		total := len(c.Name) + len(c.Value)
		for k, v := range r.I.Xattrs {
			if !c.ACL || k != c.Name { // a list is counted in the place of the one before
				total += len(k) + len(v)
			}
		}
		if total > object.MaxXattrTotal || len(c.Value) > object.MaxXattrValue {
			return failf(object.KindNoSpace, "the extended attributes of one file hold at most %d bytes: remove some first", object.MaxXattrTotal)
		}
		if r.I.Xattrs == nil {
			r.I.Xattrs = map[string][]byte{}
		}
		if c.ACL && c.Name == object.XattrACL {
			r.I.SetACL(list)
		} else {
			r.I.Xattrs[c.Name] = c.Value
		}
	}
	s.changed(r)
	return &Result{Inode: &r.I}
}

// checkACL judges an access control list that is to be set on an inode.
func checkACL(i *object.Inode, c *SetXattr) (object.ACL, *Result) {
	list, err := object.ParseACL(c.Value)
	switch {
	case err != nil:
		return nil, failf(object.KindInvalid, "%v", err)
	case i.Type == object.TypeSymlink:
		return nil, failf(object.KindNotSupported, "a symbolic link has no access control list")
	case c.Name == object.XattrDefaultACL && !i.IsDir():
		return nil, failf(object.KindPermission, "only a directory has a default access control list")
	case len(c.Value) > object.MaxACL:
		return nil, failf(object.KindNoSpace, "an access control list has at most %d bytes (8 an entry): name groups in it instead of users", object.MaxACL)
	}
	return list, nil
}
