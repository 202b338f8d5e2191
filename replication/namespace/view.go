package namespace

import (
	"encoding/binary"

	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// View reads one consistent state of a partition. Whether that state is recent
// enough is the caller's business. Safe for one goroutine; Close it.
type View struct {
	snap Snapshot
	part object.PartitionID
	// txLow was true of a state before the view: it still is.
	txLow uint64
	names *names
	round uint64 // of names, from before the view
	done  func()
}

// Snapshot is what a view reads: one consistent state of a partition, here or at
// another node. The view closes it.
type Snapshot interface {
	meta.Reader
	Close() error
}

// Over makes a view that reads through a snapshot. Nothing of it is remembered.
func Over(id object.PartitionID, s Snapshot) *View {
	return &View{snap: s, part: id, names: new(names), round: 1} // odd: none is kept
}

// View opens a view.
func (m *Machine) View() *View {
	v := &View{txLow: m.txLow.Load(), part: m.o.Partition, names: &m.names, round: m.names.now()}
	v.snap = m.o.Store.View()
	return v
}

// Close ends the view.
func (v *View) Close() {
	_ = v.snap.Close() // here it cannot fail; elsewhere it ends by itself
	if v.done != nil {
		v.done()
	}
}

// OnClose has fn called once the view is closed.
func (v *View) OnClose(fn func()) { v.done = fn }

func (v *View) load(key []byte, into any) (bool, error) {
	b, ok, err := v.snap.Get(key)
	if err != nil || !ok {
		return false, err
	}
	if err := codec.dec.Unmarshal(b, into); err != nil {
		return false, object.Errorf(object.KindCorrupt, "metadata record %x cannot be read: %w", key, err)
	}
	return true, nil
}

// Inode is the record of a local inode; KindStale when there is none.
func (v *View) Inode(id object.InodeID) (*object.Inode, error) {
	var r inodeRec
	ok, err := v.load(inodeKey(id), &r)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, object.Errorf(object.KindStale, "inode %s is gone", id)
	}
	return &r.I, nil
}

// Pinned is nil while the content that an inode had when its Change was pin is
// all there. KindStale: the inode is gone. KindUnavailable: what was retired after the
// pin is being reclaimed, since its lease was lost.
func (v *View) Pinned(id object.InodeID, pin uint64) error {
	var r inodeRec
	ok, err := v.load(inodeKey(id), &r)
	switch {
	case err != nil:
		return err
	case !ok:
		return object.Errorf(object.KindStale, "inode %s is gone", id)
	case r.Gone > pin:
		return object.Errorf(object.KindUnavailable, "this version of inode %s is no longer kept: read it anew", id)
	}
	return nil
}

// Entry is what a name leads to.
type Entry struct {
	object.Dentry
	Tx *TxRef // it is being moved away
}

// Lookup finds a name as a file and as a directory; either may be nil. A
// directory that is gone is KindStale.
func (v *View) Lookup(dir object.InodeID, name string) (file, sub *Entry, err error) {
	if file, err = v.entry(dir, name, name); err != nil {
		return nil, nil, err
	}
	if sub, err = v.entry(dir, name, name+"/"); err != nil || file != nil || sub != nil {
		return file, sub, err
	}
	return nil, nil, v.dirThere(dir)
}

// LookupOne finds a name as a directory or as something else, which takes half
// as long; nil when it is not there.
func (v *View) LookupOne(dir object.InodeID, name string, isDir bool) (*Entry, error) {
	stored := name
	if isDir {
		stored += "/"
	}
	e, err := v.entry(dir, name, stored)
	switch {
	case err == nil && e == nil:
		err = v.dirThere(dir)
	case err == nil && isDir && e.Tx == nil:
		v.names.keep(v.round, spot{dir, name}, e.Inode)
	}
	return e, err
}

func (v *View) dirThere(dir object.InodeID) error {
	ok, err := v.has(inodeKey(dir))
	if err == nil && !ok {
		err = object.Errorf(object.KindStale, "the directory is gone")
	}
	return err
}

func (v *View) entry(dir object.InodeID, name, stored string) (*Entry, error) {
	var r dentryRec
	ok, err := v.load(dentryKey(dir, stored), &r)
	if err != nil || !ok {
		return nil, err
	}
	return &Entry{Dentry: object.Dentry{Name: name, Inode: r.Inode, Type: r.Type}, Tx: r.Tx}, nil
}

func (v *View) has(key []byte) (bool, error) {
	_, ok, err := v.snap.Get(key)
	return ok, err
}

// ReadDir calls fn for the entries of a directory whose stored names ("sub/"
// for a directory) are >= from, in order, until it returns false. The inode is
// given where it is local and plus is set.
// shadow leaves out a file that stands beside a directory of its name.
func (v *View) ReadDir(dir object.InodeID, from string, plus, shadow bool, fn func(stored string, e object.DirEntry, moving *TxRef) bool) error {
	prefix := dirPrefix(dir)
	return v.snap.Ascend(dentryKey(dir, from), after(prefix), func(k, b []byte) (bool, error) {
		var r dentryRec
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, object.Errorf(object.KindCorrupt, "directory entry %x cannot be read: %w", k, err)
		}
		stored := string(k[len(prefix):])
		name, isDir := plainName(stored)
		if r.Type != object.TypeDirectory || !isDir {
			name = stored
		}
		if shadow && r.Type != object.TypeDirectory {
			if hidden, err := v.has(dentryKey(dir, stored+"/")); err != nil || hidden {
				return err == nil, err
			}
		}
		e := object.DirEntry{Dentry: object.Dentry{Name: name, Inode: r.Inode, Type: r.Type}}
		if plus && r.Inode.Partition() == v.part {
			var err error
			if e.Attr, err = v.Inode(r.Inode); err != nil && !object.IsKind(err, object.KindStale) {
				return false, err
			}
		}
		return fn(stored, e, r.Tx), nil
	})
}

// Inline is the content of a file that is kept inside the metadata; it may be
// shorter than the file, the rest being zeros.
func (v *View) Inline(id object.InodeID) ([]byte, error) {
	b, _, err := v.snap.Get(inlineKey(id))
	return b, err
}

// Extents are the extents of a content that touch [from, to) as they were at
// pin (the Change of the inode when it was opened), in order; at most limit,
// and then next (the offset to go on from) is >= 0.
func (v *View) Extents(c object.ContentID, pin uint64, from, to int64, limit int) (list []object.Extent, next int64, err error) {
	next = -1
	add := func(e object.Extent) {
		if e.Born <= pin && e.End() > from && e.Offset < to {
			list = append(list, e)
		}
	}
	read := func(b []byte) (e object.Extent, err error) {
		if err = codec.dec.Unmarshal(b, &e); err != nil {
			err = object.Errorf(object.KindCorrupt, "an extent record cannot be read: %w", err)
		}
		return e, err
	}
	// trim sorts, and cuts a page that grew too long.
	trim := func() {
		sortExtents(list)
		if len(list) > limit {
			next, to = list[limit].Offset, list[limit].Offset
			list = list[:limit]
		}
	}
	if from > 0 {
		err = v.snap.Descend(extentKey(c, 0), extentKey(c, from), func(_, b []byte) (bool, error) {
			e, err := read(b)
			add(e)
			return false, err
		})
		if err != nil {
			return nil, -1, err
		}
	}
	err = v.snap.Ascend(extentKey(c, from), extentKey(c, to), func(_, b []byte) (bool, error) {
		e, err := read(b)
		if err != nil {
			return false, err
		}
		if len(list) >= limit {
			next, to = e.Offset, e.Offset
			return false, nil
		}
		add(e)
		return true, nil
	})
	if err != nil {
		return nil, -1, err
	}
	// What was retired after the pin still stood then.
	p := retiredPrefix(c)
	err = v.snap.Ascend(be64(p, pin+1), after(p), func(_, b []byte) (bool, error) {
		e, err := read(b)
		if add(e); len(list) >= 4*limit {
			trim()
		}
		return true, err
	})
	if err != nil {
		return nil, -1, err
	}
	trim()
	return list, next, nil
}

// Tx is a participant's record of a transaction (nil: finished) and the
// partition's watermark.
func (v *View) Tx(id TxID) (rec *Transaction, err error) {
	var r txRec
	ok, err := v.load(txKey(keyTx, id), &r)
	if err != nil || !ok {
		return nil, err
	}
	t := &Transaction{Ref: r.Ref, Others: r.Others, Debt: r.Debt, Owed: r.Owed, Began: r.Began}
	t.Mark, err = v.mark()
	return t, err
}

// Transaction is what a settler needs to know of a transaction.
type Transaction struct {
	Ref    TxRef
	Others []object.PartitionID
	Debt   bool
	Owed   *Decide
	Mark   uint64
	Began  int64
}

func (v *View) mark() (low uint64, err error) {
	start := txKey(keyTx, TxID{First: v.part, Seq: v.txLow})
	err = v.snap.Ascend(start, after(start[:3]), func(k, _ []byte) (bool, error) {
		low = binary.BigEndian.Uint64(k[len(k)-8:])
		return false, nil
	})
	return low, err
}

// Open lists up to limit transactions behind one that this partition has a record of.
func (v *View) Open(behind TxID, limit int) (list []TxRef, err error) {
	err = v.snap.Ascend(after(txKey(keyTx, behind)), []byte{keyTx + 1}, func(_, b []byte) (bool, error) {
		var r txRec
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, err
		}
		list = append(list, r.Ref)
		return len(list) < limit, nil
	})
	return list, err
}

// Garbage is a piece of garbage, named by where it stands.
type Garbage struct {
	At    uint64         `cbor:"1,keyasint"`
	Ord   uint8          `cbor:"2,keyasint"`
	Inode object.InodeID `cbor:"-"` // leases on it keep the garbage
	// Whole: the inode itself goes, so that any lease on it keeps it.
	Whole bool `cbor:"-"`
}

// Garbage lists up to limit pieces from (at, ord) on, oldest first.
func (v *View) Garbage(at uint64, ord uint8, limit int) (list []Garbage, err error) {
	err = v.snap.Ascend(garbageKey(at, ord), []byte{keyGarbage + 1}, func(k, b []byte) (bool, error) {
		var g garbageRec
		if err := codec.dec.Unmarshal(b, &g); err != nil {
			return false, err
		}
		list = append(list, Garbage{At: binary.BigEndian.Uint64(k[1:9]), Ord: k[9], Inode: g.Inode, Whole: g.What == garbageInode})
		return len(list) < limit, nil
	})
	return list, err
}

// Released lists up to limit chunks whose files the holders are to drop: their
// ids and schemes.
func (v *View) Released(limit int) (list []ChunkRef, err error) {
	err = v.snap.Ascend([]byte{keyRelease}, []byte{keyRelease + 1}, func(k, b []byte) (bool, error) {
		var r releaseRec
		if len(b) > 0 {
			if err := codec.dec.Unmarshal(b, &r); err != nil {
				return false, object.Errorf(object.KindCorrupt, "the record of a released chunk cannot be read: %w", err)
			}
		}
		list = append(list, ChunkRef{ID: v.chunkID(k), Scheme: r.Scheme})
		return len(list) < limit, nil
	})
	return list, err
}

// chunkID is the chunk whose key chunkTail made.
func (v *View) chunkID(k []byte) object.ChunkID {
	return object.ChunkID{Owner: v.part, Upload: object.UploadID(k[1:17]), Ordinal: binary.BigEndian.Uint32(k[17:])}
}

// Chunk is what the partition, as the owner, knows of a live chunk; live is false
// where nothing references it.
func (v *View) Chunk(id object.ChunkID) (c ChunkRef, live bool, err error) {
	var r chunkRec
	live, err = v.load(chunkTail(keyChunk, id), &r)
	return ChunkRef{ID: id, Length: r.Length, SHA256: r.SHA256, Scheme: r.Scheme}, live, err
}

// Chunks lists up to limit live chunks that the partition owns, in the order of their
// ids, behind one (zero: from the first on) of the same owner.
func (v *View) Chunks(behind object.ChunkID, limit int) (list []ChunkRef, err error) {
	start := []byte{keyChunk}
	if behind != (object.ChunkID{}) {
		start = after(chunkTail(keyChunk, behind))
	}
	err = v.snap.Ascend(start, []byte{keyChunk + 1}, func(k, b []byte) (bool, error) {
		var r chunkRec
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, err
		}
		list = append(list, ChunkRef{ID: v.chunkID(k), Length: r.Length, SHA256: r.SHA256, Scheme: r.Scheme})
		return len(list) < limit, nil
	})
	return list, err
}

// Knows reports whether the partition has a chunk on record: as live, or as
// one whose files are being dropped.
func (v *View) Knows(id object.ChunkID) (live, releasing bool, err error) {
	if live, err = v.has(chunkTail(keyChunk, id)); err != nil {
		return false, false, err
	}
	releasing, err = v.has(chunkTail(keyRelease, id))
	return live, releasing, err
}

// Staged is a content that is staged, and the incarnation that stages it.
type Staged struct {
	Content object.ContentID
	Owner   object.UploadID
}

// Staged lists up to limit staged contents behind one.
func (v *View) Staged(after object.ContentID, limit int) (list []Staged, err error) {
	start := append(stagedKey(after), 0)
	err = v.snap.Ascend(start, []byte{keyStaged + 1}, func(k, b []byte) (bool, error) {
		var r stagedRec
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, err
		}
		list = append(list, Staged{Content: object.ContentID(k[1:17]), Owner: r.Owner})
		return len(list) < limit, nil
	})
	return list, err
}

// Upload is a multipart upload.
func (v *View) Upload(id object.UploadID) (*UploadRec, error) {
	var r UploadRec
	ok, err := v.load(uploadKey(id), &r)
	if err != nil {
		return nil, err
	}
	if !ok || r.Ended {
		return nil, object.Errorf(object.KindNotFound, "no such multipart upload: it was completed or aborted")
	}
	return &r, nil
}

// HasPart is nil while the upload has this very part.
func (v *View) HasPart(id object.UploadID, number int, content object.ContentID) error {
	if _, err := v.Upload(id); err != nil {
		return err
	}
	var p PartRec
	ok, err := v.load(partKey(id, number), &p)
	if err == nil && (!ok || p.Content != content) {
		err = object.Errorf(object.KindConflict, "part %d was replaced meanwhile: list the parts again", number)
	}
	return err
}

// Uploads calls fn for the multipart uploads behind one, in the order of their
// ids, until it returns false.
func (v *View) Uploads(behind object.UploadID, fn func(id object.UploadID, r UploadRec) bool) error {
	return v.snap.Ascend(after(uploadKey(behind)), []byte{keyUpload + 1}, func(k, b []byte) (bool, error) {
		var r UploadRec
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, err
		}
		return fn(object.UploadID(k[1:17]), r), nil
	})
}

// Parts lists up to limit parts behind a number, in order.
func (v *View) Parts(id object.UploadID, behind, limit int) (list []PartRec, err error) {
	prefix := append([]byte{keyPart}, id[:]...)
	err = v.snap.Ascend(partKey(id, behind+1), after(prefix), func(_, b []byte) (bool, error) {
		var p PartRec
		if err := codec.dec.Unmarshal(b, &p); err != nil {
			return false, err
		}
		list = append(list, p)
		return len(list) < limit, nil
	})
	return list, err
}

// Result is the kept result of a token, or nil.
func (v *View) Result(t Token) (*Result, error) {
	var r Result
	ok, err := v.load(resultKey(t.Session, t.Seq), &r)
	if err != nil || !ok || len(r.Fence) > 0 {
		return nil, err
	}
	r.Recalled = true
	return &r, nil
}

// IdleSessions looks at up to limit sessions behind one and lists those that
// were not seen since a time (ns). last: where to go on; zero at the end.
func (v *View) IdleSessions(since int64, behind object.UploadID, limit int) (list []object.UploadID, last object.UploadID, err error) {
	looked := 0
	err = v.snap.Ascend(after(sessionKey(behind)), []byte{keySession + 1}, func(k, b []byte) (bool, error) {
		var r sessionRec
		if err := codec.dec.Unmarshal(b, &r); err != nil {
			return false, err
		}
		id := object.UploadID(k[1:17])
		if r.Seen < since {
			list = append(list, id)
		}
		if looked++; looked == limit {
			last = id
		}
		return looked < limit, nil
	})
	return list, last, err
}

// Epoch is the rename epoch that the partition knows, at least 1.
func (v *View) Epoch() (uint64, error) {
	b, ok, err := v.snap.Get([]byte{keyEpoch})
	if err != nil {
		return 1, err
	}
	epoch := uint64(1)
	if ok && len(b) == 8 {
		epoch = binary.BigEndian.Uint64(b)
	}
	v.names.keepEpoch(v.round, epoch)
	return epoch, nil
}

// Rename is the control group's rename record.
func (v *View) Rename() (r DirRename, err error) {
	_, err = v.load([]byte{keyRename}, &r)
	return r, err
}
