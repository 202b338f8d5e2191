package namespace

import (
	"cmp"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// addExtents files extents under a content, shifted by off, with a reference
// on each chunk; it returns the bytes they hold. taken: the transaction that
// this entry decides took one reference at the owner for each foreign chunk.
func (s *state) addExtents(c object.ContentID, list []object.Extent, off int64, taken bool) (bytes int64) {
	seen := map[object.ChunkID]bool{}
	for _, e := range list {
		e.Offset += off
		e.Born = s.index
		s.store(extentKey(c, e.Offset), &e)
		s.refExtent(&e, taken && !seen[e.Chunk])
		if e.Data == nil && e.Chunk.Owner != s.part {
			seen[e.Chunk] = true
		}
		bytes += e.Length
	}
	return bytes
}

// refLocal counts one more reference on a chunk owned here. What the record
// lacks (it may be older than the field) is taken from the reference.
func (s *state) refLocal(c ChunkRef) {
	rec := chunkRec{Length: c.Length, Scheme: c.Scheme}
	s.load(chunkTail(keyChunk, c.ID), &rec)
	if rec.Refs++; len(rec.SHA256) == 0 {
		rec.SHA256 = c.SHA256
	}
	s.store(chunkTail(keyChunk, c.ID), &rec)
}

// refExtent counts one more extent that names a chunk.
func (s *state) refExtent(e *object.Extent, taken bool) {
	switch {
	case e.Data != nil:
	case e.Chunk.Owner == s.part:
		s.refLocal(RefOf(e))
	default:
		var rec foreignRec
		s.load(foreignKey(e.Chunk), &rec)
		rec.Refs++
		if taken {
			rec.Held++
		}
		s.store(foreignKey(e.Chunk), &rec)
	}
}

// unref counts one extent less. A local chunk without references is released;
// the references kept for us at a foreign owner become debts, gathered in owed.
func (s *state) unref(e *object.Extent, owed map[object.PartitionID][]object.ChunkID) {
	switch {
	case e.Data != nil:
	case e.Chunk.Owner == s.part:
		s.unrefLocal(e.Chunk)
	default:
		var rec foreignRec
		if !s.load(foreignKey(e.Chunk), &rec) {
			return
		}
		if rec.Refs--; rec.Held > rec.Refs { // at most one for each extent that goes
			rec.Held--
			owed[e.Chunk.Owner] = append(owed[e.Chunk.Owner], e.Chunk)
		}
		if rec.Refs == 0 {
			s.drop(foreignKey(e.Chunk))
			return
		}
		s.store(foreignKey(e.Chunk), &rec)
	}
}

func (s *state) unrefLocal(id object.ChunkID) {
	var rec chunkRec
	key := chunkTail(keyChunk, id)
	if !s.load(key, &rec) {
		return
	}
	if rec.Refs > 1 {
		rec.Refs--
		s.store(key, &rec)
		return
	}
	s.drop(key)
	if key = chunkTail(keyRelease, id); rec.Scheme == object.DefaultScheme {
		s.storeRaw(key, []byte{})
	} else {
		s.store(key, &releaseRec{Scheme: rec.Scheme})
	}
	s.garbage = true
}

// overlapping is the extents of a content that touch [from, to), in order, up
// to limit of them.
func (s *state) overlapping(c object.ContentID, from, to int64, limit int) []object.Extent {
	var list []object.Extent
	data := 0
	if before, ok := s.extentBefore(c, from); ok && before.End() > from {
		list = append(list, before)
	}
	s.scan(extentKey(c, from), extentKey(c, to), func(_, v []byte) bool {
		var e object.Extent
		if err := codec.dec.Unmarshal(v, &e); err != nil {
			s.fail(err)
			return false
		}
		list = append(list, e)
		data += len(e.Data)
		return len(list) < limit && data <= maxReplacedData
	})
	return list
}

// extentBefore is the last extent that starts before off.
func (s *state) extentBefore(c object.ContentID, off int64) (e object.Extent, ok bool) {
	if s.err != nil || off <= 0 {
		return e, false
	}
	err := s.txn.Descend(extentKey(c, 0), extentKey(c, off), func(_, v []byte) (bool, error) {
		ok = true
		return false, codec.dec.Unmarshal(v, &e)
	})
	if err != nil {
		s.fail(err)
		return e, false
	}
	return e, ok
}

// maxReplaced and maxReplacedData bound how many extents one entry may
// replace, and how many bytes those may hold inside the metadata: each is
// written again as retired. The most of both together is some 2 MB, and has to
// fit a transaction of the store (TestLargestChangeFitsTheStore).
const (
	maxReplaced     = 4096
	maxReplacedData = 1 << 20
)

// scattered reports whether a list of overlapping extents is too much for one entry.
func scattered(list []object.Extent) bool {
	data := 0
	for _, e := range list {
		data += len(e.Data)
	}
	return len(list) > maxReplaced || data > maxReplacedData
}

func tooScattered(list []object.Extent) *Result {
	return &Result{Failed: true, Kind: object.KindTooLarge, Message: "the range is scattered over too many small extents: change a smaller one",
		Scattered: true, Pieces: len(Covered(list, 0)) > maxReplaced/2}
}

// cut takes [from, to) out of a content: extents that touch it are retired
// under this entry's index, for readers that pinned an earlier one, and what
// sticks out of the range is filed anew. It returns the bytes that are gone.
func (s *state) cut(c object.ContentID, list []object.Extent, from, to int64) (gone int64) {
	for _, e := range list {
		s.drop(extentKey(c, e.Offset))
		s.store(retiredKey(c, s.index, e.Offset), &e)
		gone += min(e.End(), to) - max(e.Offset, from)
		if e.Offset < from {
			s.refile(c, part(e, e.Offset, from))
		}
		if e.End() > to {
			s.refile(c, part(e, to, e.End()))
		}
	}
	return gone
}

func (s *state) refile(c object.ContentID, e object.Extent) {
	e.Born = s.index
	s.store(extentKey(c, e.Offset), &e)
	s.refExtent(&e, false)
}

// part is the piece [from, to) of an extent.
func part(e object.Extent, from, to int64) object.Extent {
	skip := from - e.Offset
	if e.Data != nil {
		e.Data = e.Data[skip : skip+to-from]
	} else {
		e.ChunkOffset += skip
	}
	e.Offset, e.Length = from, to-from
	return e
}

// trashed files a piece of garbage.
func (s *state) trashed(g garbageRec) {
	s.store(garbageKey(s.index, s.trash), &g)
	s.garbage = true
	s.trash++
}

// reclaimStep bounds the extents that one Reclaim entry drops.
const reclaimStep = 512

// maxOwed bounds the partitions that one entry comes to owe something.
const maxOwed = 200

// reclaim works on garbage. The proposer made sure that no lease needs it.
func (s *state) reclaim(c *Reclaim) *Result {
	left := reclaimStep
	spared := false
	owed := map[object.PartitionID][]object.ChunkID{}
	for _, item := range c.Items {
		if s.kept(item, c.Seen) {
			spared = true
			continue
		}
		if left = s.reclaimOne(item, left, owed); left == 0 {
			break
		}
	}
	s.owedRefs(owed)
	return &Result{Done: left > 0, Partial: spared}
}

// kept reports whether a piece of garbage is an inode that was kept after its
// proposer looked.
func (s *state) kept(item Garbage, seen uint64) bool {
	var g garbageRec
	if seen == 0 || !s.load(garbageKey(item.At, item.Ord), &g) || g.What != garbageInode {
		return false
	}
	r := s.inode(g.Inode)
	return r != nil && r.Kept > seen
}

func (s *state) keep(c *Keep) *Result {
	for _, id := range c.Inodes {
		if r := s.inode(id); r != nil {
			r.Kept = s.index
			s.storeInode(r)
		}
	}
	return &Result{}
}

// reclaimOne drops up to left extents of a piece of garbage, and the piece
// itself when nothing is left of it. It returns what remains of left.
func (s *state) reclaimOne(item Garbage, left int, owed map[object.PartitionID][]object.ChunkID) int {
	var g garbageRec
	key := garbageKey(item.At, item.Ord)
	if !s.load(key, &g) {
		return left
	}
	if g.What == garbageInode {
		s.reclaimInode(key, &g)
	} else if r := s.inode(g.Inode); r != nil && r.Gone < item.At {
		r.Gone = item.At
		s.storeInode(r)
	}
	if !g.Content.IsZero() {
		p := be64(retiredPrefix(g.Content), item.At)
		if g.What == garbageSplice {
			left = s.dropExtents(p, left, owed)
		} else {
			left = s.dropExtents(append([]byte{keyExtent}, g.Content[:]...), left, owed)
			left = s.dropExtents(retiredPrefix(g.Content), left, owed)
		}
	}
	if left == 0 {
		return 0
	}
	s.drop(key)
	return left - 1
}

// reclaimInode drops the inode in the first step, so that who comes later finds
// it gone rather than its content in pieces. The content is the one it has now:
// an unlinked file that was open may have got another since.
func (s *state) reclaimInode(key []byte, g *garbageRec) {
	r := s.inode(g.Inode)
	if r == nil {
		return
	}
	g.Content = r.I.Content
	s.store(key, g)
	s.drop(inodeKey(g.Inode))
	s.drop(inlineKey(g.Inode))
	s.forgetLocks(g.Inode)
}

// dropExtents drops up to left extents whose keys start with prefix.
func (s *state) dropExtents(prefix []byte, left int, owed map[object.PartitionID][]object.ChunkID) int {
	var keys [][]byte
	if left == 0 {
		return 0
	}
	s.scan(prefix, after(prefix), func(k, v []byte) bool {
		var e object.Extent
		if err := codec.dec.Unmarshal(v, &e); err != nil {
			s.fail(err)
			return false
		}
		keys = append(keys, append([]byte(nil), k...))
		s.unref(&e, owed)
		return len(keys) < left && len(owed) < maxOwed
	})
	if len(owed) == maxOwed {
		left = len(keys) // the rest with the next entry: debts of one entry are numbered in a byte
	}
	for _, k := range keys {
		s.drop(k)
	}
	return left - len(keys)
}

// owedRefs turns references to be dropped elsewhere into debts, in partition order.
func (s *state) owedRefs(owed map[object.PartitionID][]object.ChunkID) {
	for p := object.PartitionID(0); p < object.MaxPartitions && len(owed) > 0; p++ {
		if ids := owed[p]; ids != nil {
			s.owe(p, &Decide{DropRefs: &DropRefs{Chunks: ids}})
			delete(owed, p)
		}
	}
}

func (s *state) dropRefs(c *DropRefs) *Result {
	for _, id := range c.Chunks {
		s.unrefLocal(id)
	}
	return &Result{}
}

func (s *state) released(c *Released) *Result {
	for _, id := range c.Chunks {
		if id.Owner == s.part {
			s.drop(chunkTail(keyRelease, id))
		}
	}
	return &Result{}
}

func (s *state) refuseUpload(c *RefuseUpload) *Result {
	s.storeRaw(refusedKey(c.Upload), []byte{})
	return &Result{}
}

// stage adds extents to a content that belongs to no inode yet.
func (s *state) stage(c *Stage) *Result {
	b := &c.Body
	if len(b.Extents) > MaxExtents {
		return failf(object.KindInvalid, "too many extents in one entry")
	}
	if bad := s.checkExtents(b.Extents, b.Existing); bad != nil {
		return bad
	}
	rec := stagedRec{Owner: c.Owner}
	if !s.load(stagedKey(b.Content), &rec) && b.Staged {
		return failf(object.KindConflict, "the staged content is gone: send it again")
	}
	rec.Size += s.addExtents(b.Content, b.Extents, 0, true)
	s.store(stagedKey(b.Content), &rec)
	return &Result{}
}

func (s *state) unstage(c *Unstage) *Result {
	if s.has(stagedKey(c.Content)) {
		s.drop(stagedKey(c.Content))
		s.trashed(garbageRec{Content: c.Content, What: garbageContent})
	}
	return &Result{}
}

func sortExtents(list []object.Extent) {
	slices.SortFunc(list, func(a, b object.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
}
