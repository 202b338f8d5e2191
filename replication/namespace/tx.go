package namespace

import (
	"encoding/binary"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The two-partition protocol; DESIGN.md beside package replication argues it.

// newTx is the id of a transaction that this entry begins.
func (s *state) newTx() TxID {
	id := TxID{First: s.part, Seq: s.index<<8 | uint64(s.txs)}
	s.txs++
	return id
}

// mark is this partition's watermark: every transaction it began below is settled.
func (s *state) mark() uint64 {
	low := s.index<<8 | uint64(s.txs)
	start := txKey(keyTx, TxID{First: s.part, Seq: s.txLow})
	s.scan(start, after(start[:3]), func(k, _ []byte) bool {
		low = binary.BigEndian.Uint64(k[len(k)-8:])
		return false
	})
	s.txLow = low
	return low
}

// owe records a step that must happen in another partition and cannot be refused there.
func (s *state) owe(to object.PartitionID, d *Decide) {
	ref := TxRef{ID: s.newTx(), Decider: to}
	s.store(txKey(keyTx, ref.ID), &txRec{Ref: ref, Debt: true, Owed: d, Began: s.now})
	s.drive = append(s.drive, ref)
}

// prepare does one participant's half. The first participant's entry gives the
// transaction its id.
func (s *state) prepare(c *Prepare) *Result {
	ref := TxRef{ID: c.Tx, Decider: c.Decider}
	if c.Tx == (TxID{}) {
		ref.ID = s.newTx()
	} else if s.has(txKey(keyTx, ref.ID)) {
		return &Result{Tx: ref.ID} // sent twice
	}
	var r *Result
	for i := range c.Halves {
		if r = s.half(&c.Halves[i], &ref); r.Failed {
			for j := range i { // all or nothing
				s.finishHalf(&c.Halves[j], &Finish{Tx: ref.ID})
			}
			return r
		}
	}
	s.store(txKey(keyTx, ref.ID), &txRec{Ref: ref, Halves: c.Halves, Others: c.Others, Began: s.now})
	r.Tx = ref.ID
	if ref.ID.First == s.part {
		r.Mark = s.mark()
	}
	return r
}

func (s *state) half(h *Half, ref *TxRef) *Result {
	switch {
	case h.Birth != nil:
		return s.birth(h.Birth)
	case h.Dead != nil:
		return s.markDead(h.Dead, ref)
	case h.Raise != nil:
		return s.raise(h.Raise)
	case h.Moving != nil:
		return s.markMoving(h.Moving, ref)
	case h.Hold != nil:
		return s.hold(h.Hold, ref)
	case h.Refs != nil:
		return s.takeRefs(h.Refs)
	}
	return failf(object.KindVersion, "a transaction half that this program does not know: upgrade this node")
}

func (s *state) birth(h *Birth) *Result {
	n := h.Node
	n.ID, n.Version, n.Change = s.newID(), s.index, s.index
	if n.Btime == 0 {
		n.Btime = s.now
	}
	n.Nlink = 1
	if n.IsDir() {
		n.Nlink = 2
	}
	h.Node = n // the record knows which inode to undo
	s.storeInode(&inodeRec{I: n})
	return &Result{Inode: &n}
}

func (s *state) markDead(h *Dead, ref *TxRef) *Result {
	d, bad := s.openDir(h.Dir)
	if bad != nil {
		bad.Again = false
		return bad
	}
	if !s.empty(h.Dir) || h.Implicit && !d.I.Implicit {
		return failf(object.KindNotEmpty, "the directory is not empty")
	}
	d.Dead = ref
	s.storeInode(d)
	return &Result{Inode: &d.I}
}

func (s *state) raise(h *Raise) *Result {
	r := s.inode(h.Inode)
	switch {
	case r == nil || r.I.Nlink == 0:
		return failf(object.KindStale, "the file is gone")
	case r.I.IsDir():
		return failf(object.KindPermission, "a directory cannot have a second name")
	case r.I.Nlink >= object.MaxNlink:
		return failf(object.KindTooManyLinks, "the file has %d names, no more are possible", r.I.Nlink)
	}
	r.I.Nlink++
	s.changed(r)
	return &Result{Inode: &r.I}
}

func (s *state) markMoving(h *Moving, ref *TxRef) *Result {
	if _, bad := s.openDir(h.Dir); bad != nil {
		return bad
	}
	e := s.dentry(h.Dir, storedName(h.Name, h.Type))
	switch {
	case e == nil:
		return failf(object.KindNotFound, "no such name")
	case e.Tx != nil:
		return meet(e.Tx)
	case e.Inode != h.Inode:
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the name leads elsewhere by now", Again: true}
	}
	e.Tx = ref
	s.store(dentryKey(h.Dir, storedName(h.Name, h.Type)), e)
	return &Result{}
}

func (s *state) hold(h *Hold, ref *TxRef) *Result {
	r := s.inode(h.Inode)
	if r == nil || r.I.Nlink == 0 {
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the file is gone", Again: true}
	}
	if r.Hold != nil {
		return meet(r.Hold)
	}
	if bad := checkCond(&h.Cond, &r.I); bad != nil {
		return bad
	}
	r.Hold, r.Still = ref, h.Still
	s.storeInode(r)
	return &Result{Inode: &r.I}
}

func (s *state) takeRefs(h *Refs) *Result {
	for _, c := range h.Chunks {
		if c.ID.Owner != s.part {
			return failf(object.KindInvalid, "chunk %s has another owner", c.ID)
		}
		if bad := checkRef(c); bad != nil {
			return bad
		}
		if !s.has(chunkTail(keyChunk, c.ID)) && (!h.New || s.has(refusedKey(c.ID.Upload)) || s.has(chunkTail(keyRelease, c.ID))) {
			return failf(object.KindConflict, "a chunk that was to be shared is gone: try again")
		}
	}
	for _, c := range h.Chunks {
		s.refLocal(c)
	}
	return &Result{}
}

// decide is the second partition's entry. A transaction that has an outcome
// keeps it; one below the watermark, or refused before, is refused.
func (s *state) decide(c *Decide) *Result {
	if r := s.decided(c.Tx); r != nil {
		return r
	}
	r := s.act(c)
	if r.Failed {
		return r // no outcome: whoever settles it refuses it then
	}
	s.forget(c.Tx.First, c.Mark)
	s.store(txKey(keyOutcome, c.Tx), &outcomeRec{Committed: true})
	return r
}

func (s *state) act(c *Decide) *Result {
	switch {
	case c.PutDentry != nil:
		return s.decidePutDentry(c.PutDentry, &c.Tx)
	case c.DropDentry != nil:
		return s.decideDropDentry(c.DropDentry, &c.Tx)
	case c.Lower != nil:
		s.lower(c.Lower.Inode)
		return &Result{}
	case c.DropRefs != nil:
		return s.dropRefs(c.DropRefs)
	case c.Put != nil:
		return s.put(c.Put, &c.Tx)
	case c.Unlink != nil:
		return s.unlink(c.Unlink, &c.Tx)
	case c.Stage != nil:
		return s.stage(c.Stage)
	case c.Splice != nil:
		return s.splice(c.Splice)
	}
	return failf(object.KindVersion, "a transaction step that this program does not know: upgrade this node")
}

// decided is the answer of a transaction whose fate is known, else nil.
func (s *state) decided(id TxID) *Result {
	var o outcomeRec
	switch {
	case s.load(txKey(keyOutcome, id), &o):
		if o.Committed {
			return &Result{Outcome: true}
		}
	case id.Seq >= s.watermark(id.First):
		return nil
	}
	return &Result{Failed: true, Kind: object.KindConflict, Message: "the operation was given up in favour of another: try again", Again: true}
}

func (s *state) watermark(first object.PartitionID) uint64 {
	if b, ok := s.loadRaw(markKey(first)); ok && len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// forget drops the outcomes of transactions that their first partition has settled.
func (s *state) forget(first object.PartitionID, mark uint64) {
	old := s.watermark(first)
	if mark <= old {
		return
	}
	var keys [][]byte
	s.scan(txKey(keyOutcome, TxID{First: first, Seq: old}), txKey(keyOutcome, TxID{First: first, Seq: mark}), func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return len(keys) < maxDropped
	})
	for _, k := range keys {
		s.drop(k)
	}
	if len(keys) == maxDropped { // the rest with the next
		last := keys[len(keys)-1]
		mark = binary.BigEndian.Uint64(last[len(last)-8:]) + 1
	}
	s.storeRaw(markKey(first), be64(nil, mark))
}

// refuseTx makes the outcome of a transaction final: what it was, or refused.
func (s *state) refuseTx(c *RefuseTx) *Result {
	var o outcomeRec
	if s.load(txKey(keyOutcome, c.Tx), &o) {
		return &Result{Outcome: o.Committed}
	}
	if c.Tx.Seq >= s.watermark(c.Tx.First) {
		s.store(txKey(keyOutcome, c.Tx), &outcomeRec{})
	}
	return &Result{}
}

func (s *state) decidePutDentry(c *PutDentry, tx *TxID) *Result {
	dir, bad := s.openDir(c.Dir)
	if bad != nil {
		return bad
	}
	if c.Inherits && c.Like != dir.I.Scheme {
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the bucket's storage was changed meanwhile", Again: true}
	}
	// The other kind of entry under this name matters to a mount only.
	isDir := c.Type == object.TypeDirectory
	if c.Mount {
		other := c.Name + "/"
		if isDir {
			other = c.Name
		}
		if o := s.dentry(c.Dir, other); o != nil {
			if o.Tx != nil {
				return meet(o.Tx)
			}
			if isDir {
				return failf(object.KindExists, "a file of this name exists")
			}
			return failf(object.KindExists, "a directory of this name exists")
		}
	}
	old := s.dentry(c.Dir, storedName(c.Name, c.Type))
	switch {
	case old != nil && old.Tx != nil && old.Tx.ID != *tx:
		return meet(old.Tx)
	case old != nil && !isDir && c.Replace == c.Inode && old.Inode == c.Inode:
		// The other name is held by the transaction, so both are there at this moment.
		return &Result{Failed: true, Kind: object.KindConflict, Message: "both names lead to the same file", Elsewhere: c.Inode}
	case old == nil && c.Replace != 0, old != nil && c.Replace != 0 && old.Inode != c.Replace:
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the new name leads elsewhere by now", Again: true}
	case old != nil && c.Replace == 0 && c.Look:
		return &Result{Failed: true, Kind: object.KindConflict, Message: "the new name was taken meanwhile", Again: true}
	case old != nil && c.Replace == 0:
		r := failf(object.KindExists, "the name is taken")
		if e := s.inode(old.Inode); e != nil {
			r.Inode = &e.I
		}
		return r
	}
	subdirs := 0
	if isDir && old == nil {
		subdirs = 1
	}
	s.putDentry(c.Dir, c.Name, dentryRec{Inode: c.Inode, Type: c.Type})
	s.touchDir(dir, subdirs, c.Mount)
	if old != nil && !isDir { // an empty directory that is replaced is a participant of its own
		s.unlinked(old.Inode)
	}
	return &Result{Made: c.Inode}
}

func (s *state) decideDropDentry(c *DropDentry, tx *TxID) *Result {
	dir := s.inode(c.Dir)
	e := s.dentry(c.Dir, c.Name+"/")
	switch {
	case dir == nil || e == nil || e.Inode != c.Inode:
		return failf(object.KindNotFound, "no such directory")
	case e.Tx != nil && e.Tx.ID != *tx:
		return meet(e.Tx)
	}
	s.dropDentry(c.Dir, c.Name, object.TypeDirectory)
	s.touchDir(dir, -1, c.Mount)
	s.cascade(dir, c.Cascade)
	return &Result{}
}

// finish finishes or undoes this participant's half and drops its record.
func (s *state) finish(c *Finish) *Result {
	var rec txRec
	key := txKey(keyTx, c.Tx)
	if !s.load(key, &rec) {
		return &Result{} // finished before
	}
	s.drop(key)
	for i := range rec.Halves {
		s.finishHalf(&rec.Halves[i], c)
	}
	return &Result{}
}

func (s *state) finishHalf(h *Half, c *Finish) {
	switch {
	case h.Birth != nil && !c.Committed:
		s.drop(inodeKey(h.Birth.Node.ID))
	case h.Dead != nil:
		s.finishDead(h.Dead, c)
	case h.Raise != nil && !c.Committed:
		s.lower(h.Raise.Inode)
	case h.Moving != nil:
		s.finishMoving(h.Moving, c)
	case h.Hold != nil:
		s.finishHold(h.Hold, c)
	case h.Refs != nil && !c.Committed:
		for _, ch := range h.Refs.Chunks {
			s.unrefLocal(ch.ID)
			if h.Refs.New {
				s.storeRaw(refusedKey(ch.ID.Upload), []byte{}) // its files go: it cannot come back
			}
		}
	}
}

func (s *state) finishDead(h *Dead, c *Finish) {
	d := s.inode(h.Dir)
	if d == nil || d.Dead == nil || d.Dead.ID != c.Tx {
		return
	}
	if c.Committed {
		s.drop(inodeKey(h.Dir))
		s.forgetLocks(h.Dir)
		s.event(Event{Inode: h.Dir})
		return
	}
	d.Dead = nil
	s.storeInode(d)
}

func (s *state) finishMoving(h *Moving, c *Finish) {
	stored := storedName(h.Name, h.Type)
	e := s.dentry(h.Dir, stored)
	if e == nil || e.Tx == nil || e.Tx.ID != c.Tx {
		return
	}
	if !c.Committed {
		e.Tx = nil
		s.store(dentryKey(h.Dir, stored), e)
		return
	}
	s.dropDentry(h.Dir, h.Name, h.Type)
	if d := s.inode(h.Dir); d != nil {
		subdirs := 0
		if h.Type == object.TypeDirectory {
			subdirs = -1
		}
		s.touchDir(d, subdirs, h.Explicit)
		s.cascade(d, h.Cascade)
	}
	if r := s.inode(e.Inode); r != nil && !r.I.IsDir() {
		s.changed(r)
	}
}

func (s *state) finishHold(h *Hold, c *Finish) {
	r := s.inode(h.Inode)
	if r == nil || r.Hold == nil || r.Hold.ID != c.Tx {
		return
	}
	r.Hold, r.Still = nil, false
	s.storeInode(r)
	if c.Committed {
		s.lower(h.Inode)
	}
}
