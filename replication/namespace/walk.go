package namespace

import (
	"context"
	"encoding/binary"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Visitor gets every record of a partition that an invariant is about. All
// functions must be set.
type Visitor struct {
	Inode     func(i object.Inode, marked bool)
	Dentry    func(dir object.InodeID, e object.Dentry, marked bool)
	Extent    func(e object.Extent) // in force or retired
	Chunk     func(c ChunkRef, refs int)
	Foreign   func(id object.ChunkID, refs, held int)
	Releasing func(id object.ChunkID)
	Tx        func(TxRef)
	Garbage   func()
}

// walkBreath is how many records Walk shows between two looks at its context.
const walkBreath = 1024

// Walk shows the whole partition to a visitor, in the order of the keys: its
// chunks come in the order of their ids. It ends with ctx.
func (v *View) Walk(ctx context.Context, to Visitor) error {
	n := 0
	return v.snap.Ascend(nil, nil, func(k, b []byte) (bool, error) {
		if n++; n%walkBreath == 1 {
			if err := ctx.Err(); err != nil {
				return false, err
			}
		}
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
		to.Chunk(ChunkRef{ID: v.chunkID(k), Length: r.Length, SHA256: r.SHA256, Scheme: r.Scheme}, int(r.Refs))
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
