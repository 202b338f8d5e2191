package namespace

import (
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The largest change of extents that is let through fits a transaction of the store as
// a node opens it; one more extent is told to come in steps, not that it is too large.
func TestLargestChangeFitsTheStore(t *testing.T) {
	const base, gap = int64(1) << 45, int64(64 << 20) // offsets that are long in a record
	for _, more := range []int{0, 1} {
		a := newApplier(t)
		f := a.apply(&Command{Put: &Put{Dir: object.RootInode, Name: "f", Node: object.Inode{Type: object.TypeRegular},
			Body: Body{Size: 1, Inline: []byte{1}}}}).Inode.ID
		splice := func(i int, list ...object.Extent) {
			a.apply(&Command{Splice: &Splice{Inode: f, Offset: base + int64(i)*gap, Length: int64(len(list)) * gap, Grow: true,
				Content: object.ContentID{1}, Extents: list}})
		}
		count := 0
		for data := 0; data+object.MaxInline <= maxReplacedData; data += object.MaxInline {
			splice(count, object.Extent{Length: object.MaxInline, Data: make([]byte, object.MaxInline)})
			count++
		}
		for count < maxReplaced+more {
			var list []object.Extent
			for i := range min(MaxExtents, maxReplaced+more-count) {
				e := object.Extent{Offset: int64(i) * gap, Length: gap, ChunkLength: gap, Chunk: object.ChunkID{Owner: 7, Upload: object.UploadID{1}, Ordinal: uint32(1<<24 + count + i)}}
				for j := range e.SHA256 {
					e.SHA256[j] = 0xff
				}
				list = append(list, e)
			}
			splice(count, list...)
			count += len(list)
		}
		hole := &Command{Splice: &Splice{Inode: f, Offset: base, Length: int64(count) * gap, Content: object.ContentID{1}}}
		data, err := hole.Encode()
		if err != nil {
			t.Fatal(err)
		}
		a.index++
		got, err := a.m.Apply([]group.Entry{{Index: a.index, Data: data}})
		if err != nil {
			t.Fatal(err)
		}
		if r := got[0].(*Result); r.Failed != (more > 0) || r.Scattered != (more > 0) {
			t.Errorf("a change of %d extents: failed %t, scattered %t: %s", count, r.Failed, r.Scattered, r.Message)
		}
	}
}
