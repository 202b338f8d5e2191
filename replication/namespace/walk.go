package namespace

import (
	"encoding/binary"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Visitor gets every record of a partition that an invariant is about. All
// functions must be set.
type Visitor struct {
	Inode     func(i object.Inode, marked bool)
	Dentry    func(dir object.InodeID, e object.Dentry, marked bool)
	Extent    func(e object.Extent) // in force or retired
	Chunk     func(id object.ChunkID, refs int)
	Foreign   func(id object.ChunkID, refs, held int)
	Releasing func(id object.ChunkID)
	Tx        func(TxRef)
	Garbage   func()
}

// Walk shows the whole partition to a visitor.
func (v *View) Walk(to Visitor) error {
	return v.snap.Ascend(nil, nil, func(k, b []byte) (bool, error) {
		if len(k) == 0 {
			return true, nil
		}
		return true, v.visit(to, k, b)
	})
}

func (v *View) visit(to Visitor, k, b []byte) error {
	decode := codec.dec.Unmarshal
	switch k[0] {
	case keyInode:
		var r inodeRec
		if err := decode(b, &r); err != nil {
			return err
		}
		to.Inode(r.I, r.Dead != nil || r.Hold != nil)
	case keyDentry:
		var r dentryRec
		if err := decode(b, &r); err != nil {
			return err
		}
		name := string(k[11:])
		if r.Type == object.TypeDirectory {
			name, _ = plainName(name)
		}
		dir := object.InodeID(binary.BigEndian.Uint64(k[1:9]))
		to.Dentry(dir, object.Dentry{Name: name, Inode: r.Inode, Type: r.Type}, r.Tx != nil)
	case keyExtent, keyRetired:
		var e object.Extent
		if err := decode(b, &e); err != nil {
			return err
		}
		to.Extent(e)
	case keyChunk:
		var r chunkRec
		if err := decode(b, &r); err != nil {
			return err
		}
		to.Chunk(v.chunkID(k), int(r.Refs))
	case keyForeign:
		var r foreignRec
		if err := decode(b, &r); err != nil {
			return err
		}
		id, err := object.ChunkIDFromBinary(k[1:])
		if err != nil {
			return err
		}
		to.Foreign(id, int(r.Refs), int(r.Held))
	case keyRelease:
		to.Releasing(v.chunkID(k))
	case keyTx:
		var r txRec
		if err := decode(b, &r); err != nil {
			return err
		}
		to.Tx(r.Ref)
	case keyGarbage:
		to.Garbage()
	}
	return nil
}
