package namespace

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What is remembered is what a fresh view shows, after every entry of a random history.
func TestNamesAreWhatAViewShows(t *testing.T) {
	for seed := range need.Size[uint64](5, 60) {
		a := newApplier(t)
		rng := rand.New(rand.NewPCG(seed, 1))
		root := object.RootInode
		names := []string{"a", "b", "c", "d"}
		pick := func() string { return names[rng.IntN(len(names))] }
		var inos []object.InodeID
		ino := func() object.InodeID {
			if len(inos) == 0 {
				return 99
			}
			return inos[rng.IntN(len(inos))]
		}
		var txs []TxID
		var hits, whole int
		send := func(cs ...*Command) {
			var es []group.Entry
			for _, c := range cs {
				c.Now = int64(a.index) + 1000
				data, err := c.Encode()
				if err != nil {
					t.Fatal(err)
				}
				a.index++
				es = append(es, group.Entry{Index: a.index, Data: data})
			}
			rs, err := a.m.Apply(es)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rs {
				res := r.(*Result)
				if !res.Failed && res.Inode != nil && res.Inode.ID != root {
					inos = append(inos, res.Inode.ID)
				}
				if !res.Failed && res.Tx != (TxID{}) {
					txs = append(txs, res.Tx)
				}
			}
		}
		make1 := func() *Command {
			mode := uint32(rng.IntN(512))
			size := int64(rng.IntN(60))
			switch rng.IntN(15) {
			case 0, 1:
				return &Command{Put: &Put{Dir: root, Name: pick(), Inherit: rng.IntN(2) == 0, Ask: true, Node: object.Inode{Type: object.TypeRegular, Mode: mode},
					Body: Body{Size: size, Inline: bytes.Repeat([]byte{byte(rng.IntN(256))}, int(size))}}}
			case 2:
				return &Command{Unlink: &Unlink{Dir: root, Name: pick()}}
			case 3:
				return &Command{Move: &Move{Dir: root, Name: pick(), NewDir: root, NewName: pick(), Exchange: rng.IntN(2) == 0}}
			case 4:
				return &Command{LinkHere: &LinkHere{Inode: ino(), Dir: root, Name: pick()}}
			case 5:
				return &Command{SetAttr: &SetAttr{Inode: ino(), Mode: &mode}}
			case 6:
				return &Command{SetAttr: &SetAttr{Inode: ino(), Size: &size}}
			case 7:
				return &Command{SetXattr: &SetXattr{Inode: ino(), Name: "user.x", Value: []byte(pick()), Remove: rng.IntN(3) == 0}}
			case 8:
				d := []byte(pick())
				return &Command{Splice: &Splice{Inode: ino(), Offset: size, Length: 1, Data: d, Grow: true, Content: object.ContentID{1, byte(a.index), byte(a.index >> 8)}}}
			case 9:
				d := bytes.Repeat([]byte("x"), 100)
				return &Command{Splice: &Splice{Inode: ino(), Offset: object.MaxInline - 50, Length: 100, Data: d, Grow: true, Content: object.ContentID{2, byte(a.index), byte(a.index >> 8)}}}
			case 10:
				return &Command{Prepare: &Prepare{Decider: 1, Halves: []Half{{Moving: &Moving{Dir: root, Name: pick(), Type: object.TypeRegular, Inode: ino()}}}}}
			case 11:
				return &Command{Prepare: &Prepare{Decider: 1, Halves: []Half{{Hold: &Hold{Inode: ino(), Still: true}}}}}
			case 12:
				if len(txs) > 0 {
					i := rng.IntN(len(txs))
					tx := txs[i]
					txs = append(txs[:i], txs[i+1:]...)
					return &Command{Finish: &Finish{Tx: tx, Committed: rng.IntN(2) == 0}}
				}
				return &Command{RaiseEpoch: &RaiseEpoch{Epoch: a.index}}
			case 13:
				v := a.m.View()
				defer v.Close()
				list, err := v.Garbage(0, 0, 3)
				if err != nil {
					t.Fatal(err)
				}
				return &Command{Reclaim: &Reclaim{Items: list}}
			}
			return &Command{Decide: &Decide{Tx: TxID{First: 1, Seq: a.index<<8 + uint64(rng.IntN(200))},
				PutDentry: &PutDentry{Dir: root, Name: pick(), Inode: object.InodeID(1<<62 + uint64(rng.IntN(9))), Type: object.TypeDirectory}}}
		}
		for range 1500 {
			var cs []*Command
			for range 1 + rng.IntN(3) {
				cs = append(cs, make1())
			}
			send(cs...)
			for _, name := range names {
				v := a.m.View()
				e, err := v.LookupOne(root, name, false)
				if err != nil {
					t.Fatal(err)
				}
				if f, ok := a.m.File(root, name); ok {
					hits++
					if e == nil || e.Tx != nil {
						t.Fatalf("%s is remembered, and is not there: %+v", name, e)
					}
					want, err := v.Inode(e.Inode)
					if err != nil || !reflect.DeepEqual(want, f.Inode) {
						t.Fatalf("%s: %+v; want %+v, %v", name, f.Inode, want, err)
					}
					if f.Whole {
						whole++
						b, err := v.Inline(e.Inode)
						if err != nil || !bytes.Equal(b, f.Inline) || int64(len(b)) != want.Size {
							t.Fatalf("%s: %d bytes, want %d, %v", name, len(f.Inline), len(b), err)
						}
					}
				}
				d, err := v.LookupOne(root, name, true)
				if err != nil {
					t.Fatal(err)
				}
				if id, ok := a.m.Dir(root, name); ok && (d == nil || d.Tx != nil || d.Inode != id) {
					t.Fatalf("%s/ is remembered as %v: %+v", name, id, d)
				}
				if e != nil && e.Tx == nil && e.Inode.Partition() == 0 && rng.IntN(2) == 0 {
					if _, err := v.File(root, e, rng.IntN(3) > 0); err != nil && !object.IsKind(err, object.KindCorrupt) { // a hold that was committed without its swap
						t.Fatal(fmt.Sprint(name, err))
					}
				}
				v.Close()
			}
		}
		t.Log(hits, whole, len(inos))
	}
}
