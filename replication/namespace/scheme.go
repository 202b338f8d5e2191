package namespace

import (
	"encoding/binary"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// How chunks are kept is a setting of a bucket. Directories hand it on to what is
// made in them, so that an entry finds it where it is applied; each extent names
// the scheme of its own chunk, so that none of this decides how it is read.
//
// A file that gets chunks of another scheme than its own is filed as a stray in the
// entry that does it, whatever the reason: a setting that changed while its body
// was under way, a copy from another bucket, a multipart upload of before. The
// partition's leader rewrites strays.

// SetScheme gives inodes of one partition a scheme. Files with content become strays,
// whether or not they have to be. Those that are gone are passed over.
type SetScheme struct {
	Inodes []object.InodeID `cbor:"1,keyasint"`
	Scheme object.Scheme    `cbor:"2,keyasint,omitempty"`
}

// Unstray ends a stray, unless it was filed anew behind Marked.
type Unstray struct {
	Inode  object.InodeID `cbor:"1,keyasint"`
	Marked uint64         `cbor:"2,keyasint"`
}

// Rewrite gives a directory a scheme, and is the record of the walk that brings it
// to all that is under it: the walk goes over the directory in passes, until one
// finds nothing to change, and then waits for the strays. It replaces one that is under way.
type Rewrite struct {
	Dir    object.InodeID `cbor:"1,keyasint"`
	Scheme object.Scheme  `cbor:"2,keyasint,omitempty"`
	// Begun is the index of the entry, which names the walk, and Started its clock, ns.
	Begun   uint64 `cbor:"3,keyasint,omitempty"`
	Started int64  `cbor:"4,keyasint,omitempty"`

	Progress Progress `cbor:"5,keyasint"`
}

// Progress is how far a Rewrite is.
type Progress struct {
	Pass    int    `cbor:"1,keyasint,omitempty"`
	After   string `cbor:"2,keyasint,omitempty"` // the last key that this pass has behind it, relative to the directory
	Seen    uint64 `cbor:"3,keyasint,omitempty"` // inodes, in this pass
	Changed uint64 `cbor:"4,keyasint,omitempty"` // of those
	// Walked: a pass found nothing to change; Left are about the files that are
	// still to be rewritten, in all partitions.
	Walked bool   `cbor:"5,keyasint,omitempty"`
	Left   uint64 `cbor:"6,keyasint,omitempty"`
}

// StepRewrite notes how far a Rewrite is; Done: it has ended.
type StepRewrite struct {
	Dir      object.InodeID `cbor:"1,keyasint"`
	Begun    uint64         `cbor:"2,keyasint"`
	Progress Progress       `cbor:"3,keyasint"`
	Done     bool           `cbor:"4,keyasint,omitempty"`
}

type strayRec struct {
	Marked uint64 `cbor:"1,keyasint"` // index of the last entry that filed it
}

// stray files a file as one with chunks of another scheme than its own.
func (s *state) stray(id object.InodeID) {
	s.store(strayKey(id), &strayRec{Marked: s.index})
	s.strayed = true
}

// Shares notes the scheme of an extent that a body shares with another content, in
// Made and Mixed. The body begins without either.
func (b *Body) Shares(e *object.Extent) {
	switch {
	case e.Data != nil || e.Scheme == b.Made:
	case b.Made == object.DefaultScheme && !b.sharing:
		b.Made = e.Scheme
	default:
		b.Mixed = true
	}
	b.sharing = b.sharing || e.Data == nil
}

// hasChunks reports whether an inode may have chunks.
func hasChunks(i *object.Inode) bool { return i.Type == object.TypeRegular && !i.Content.IsZero() }

// rescheme gives an inode a scheme; the caller stores it.
func (s *state) rescheme(r *inodeRec, scheme object.Scheme) {
	r.I.Scheme = scheme
	if hasChunks(&r.I) {
		s.stray(r.I.ID)
	}
}

// moveTo has a file that is renamed into a directory kept as what is made there.
func (s *state) moveTo(r, dir *inodeRec) {
	if r.I.Scheme != dir.I.Scheme && !r.I.IsDir() {
		s.rescheme(r, dir.I.Scheme)
	}
}

// movedTo is moveTo of an inode by its number, where it is local; it stores it.
func (s *state) movedTo(id object.InodeID, dir *inodeRec) {
	if r := s.inode(id); r != nil && r.I.Scheme != dir.I.Scheme {
		s.moveTo(r, dir)
		s.storeInode(r)
	}
}

func (s *state) setScheme(c *SetScheme) *Result {
	if err := c.Scheme.Check(); err != nil {
		return failf(object.KindInvalid, "%v", err)
	}
	for _, id := range c.Inodes {
		if r := s.inode(id); r != nil && r.I.Scheme != c.Scheme {
			s.rescheme(r, c.Scheme)
			s.storeInode(r)
		}
	}
	return &Result{}
}

func (s *state) unstray(c *Unstray) *Result {
	var rec strayRec
	if s.load(strayKey(c.Inode), &rec) && rec.Marked == c.Marked {
		s.drop(strayKey(c.Inode))
	}
	return &Result{}
}

func (s *state) rewrite(c *Rewrite) *Result {
	if err := c.Scheme.Check(); err != nil {
		return failf(object.KindInvalid, "%v", err)
	}
	d, bad := s.openDir(c.Dir)
	if bad != nil {
		return bad
	}
	d.I.Scheme = c.Scheme
	s.storeInode(d)
	s.store(rewriteKey(c.Dir), &Rewrite{Dir: c.Dir, Scheme: c.Scheme, Begun: s.index, Started: s.now, Progress: Progress{Pass: 1}})
	s.strayed = true
	return &Result{Inode: &d.I}
}

func (s *state) stepRewrite(c *StepRewrite) *Result {
	var rec Rewrite
	key := rewriteKey(c.Dir)
	switch {
	case !s.load(key, &rec) || rec.Begun != c.Begun:
		return failf(object.KindPrecondition, "the setting was changed again meanwhile")
	case c.Done:
		s.drop(key)
	default:
		rec.Progress = c.Progress
		s.store(key, &rec)
	}
	return &Result{}
}

// Stray is a file with chunks of another scheme than its own.
type Stray struct {
	Inode  object.InodeID
	Marked uint64
}

// Strays lists up to limit strays behind one.
func (v *View) Strays(behind object.InodeID, limit int) (list []Stray, err error) {
	err = v.snap.Ascend(after(strayKey(behind)), []byte{keyStray + 1}, func(k, b []byte) (bool, error) {
		var r strayRec
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, err
		}
		list = append(list, Stray{object.InodeID(binary.BigEndian.Uint64(k[1:])), r.Marked})
		return len(list) < limit, nil
	})
	return list, err
}

// Rewrites lists the walks that are under way.
func (v *View) Rewrites() (list []Rewrite, err error) {
	err = v.snap.Ascend([]byte{keyRewrite}, []byte{keyRewrite + 1}, func(_, b []byte) (bool, error) {
		var r Rewrite
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, err
		}
		list = append(list, r)
		return true, nil
	})
	return list, err
}

// Rewrite is the walk under a directory, or nil.
func (v *View) Rewrite(dir object.InodeID) (*Rewrite, error) {
	var r Rewrite
	if ok, err := v.load(rewriteKey(dir), &r); err != nil || !ok {
		return nil, err
	}
	return &r, nil
}
