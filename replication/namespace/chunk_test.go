package namespace

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What was written before extents and records named schemes (commit 7072710).
const (
	oldExtent = "a7011a00400000021903e803a3654f776e6572076655706c6f61645001020300000000000000000000000009674f7264696e616c04041818051a00010000065820aa000000000000000000000000000000000000000000000000000000000000bb070c"
	oldChunk  = "a20103021a00010000"
	oldRefs   = "01a20105181ea301a20100020002000381a106a20181a201a3654f776e6572076655706c6f61645001020300000000000000000000000009674f7264696e616c04021a0001000002f5"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func oldChunkID(owner object.PartitionID) object.ChunkID {
	return object.ChunkID{Owner: owner, Upload: object.UploadID{1, 2, 3, 15: 9}, Ordinal: 4}
}

func TestExtentsFromBeforeSchemesAreRead(t *testing.T) {
	var e object.Extent
	if err := codec.dec.Unmarshal(unhex(t, oldExtent), &e); err != nil {
		t.Fatal(err)
	}
	want := object.Extent{Offset: 4 << 20, Length: 1000, Chunk: oldChunkID(7), ChunkOffset: 24, ChunkLength: 65536,
		SHA256: [32]byte{0xaa, 31: 0xbb}, Born: 12, Scheme: object.DefaultScheme}
	if e.Data != nil || e.Chunk != want.Chunk || e.SHA256 != want.SHA256 || e.Scheme != want.Scheme || e.ChunkLength != want.ChunkLength || e.Born != want.Born {
		t.Fatalf("%+v, want %+v", e, want)
	}
	// One of the default scheme is written as it always was.
	if b, err := codec.enc.Marshal(&e); err != nil || !bytes.Equal(b, unhex(t, oldExtent)) {
		t.Fatalf("%x, %v", b, err)
	}
	c, err := DecodeCommand(unhex(t, oldRefs))
	if err != nil || c.Prepare.Halves[0].Refs.Chunks[0].ID != oldChunkID(7) || c.Prepare.Halves[0].Refs.Chunks[0].Length != 65536 {
		t.Fatalf("%+v, %v", c, err)
	}
}

// stored writes a record behind the state machine's back, as an older program left it.
func (a *applier) stored(key, value []byte) {
	a.t.Helper()
	a.index++
	txn := a.m.o.Store.Begin()
	if err := txn.Set(key, value); err != nil {
		a.t.Fatal(err)
	}
	if err := txn.Commit(a.index); err != nil {
		a.t.Fatal(err)
	}
}

func (a *applier) chunk(id object.ChunkID) (ChunkRef, bool) {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	c, live, err := v.Chunk(id)
	if err != nil {
		a.t.Fatal(err)
	}
	return c, live
}

func (a *applier) released() []ChunkRef {
	a.t.Helper()
	v := a.m.View()
	defer v.Close()
	list, err := v.Released(10)
	if err != nil {
		a.t.Fatal(err)
	}
	return list
}

func TestOwnersLearnWhatTheirOldRecordsLack(t *testing.T) {
	a := newApplier(t)
	id := oldChunkID(object.Control)
	a.stored(chunkTail(keyChunk, id), unhex(t, oldChunk))
	if c, live := a.chunk(id); !live || c.Length != 65536 || len(c.SHA256) != 0 || c.Scheme != object.DefaultScheme {
		t.Fatalf("%+v, %v", c, live)
	}
	sum := [32]byte{1, 31: 2}
	a.apply(&Command{Stage: &Stage{Body: Body{Content: object.ContentID{5}, Existing: true,
		Extents: []object.Extent{{Length: 9, Chunk: id, ChunkLength: 65536, SHA256: sum}}}}})
	if c, live := a.chunk(id); !live || !bytes.Equal(c.SHA256, sum[:]) || c.Length != 65536 {
		t.Fatalf("%+v, %v", c, live)
	}
	a.stored(chunkTail(keyRelease, id), []byte{}) // an old record of a release
	if list := a.released(); len(list) != 1 || list[0].ID != id || list[0].Scheme != object.DefaultScheme {
		t.Fatalf("%+v", list)
	}
}

// A chunk's scheme goes from the extent to the owner's record, and from there to
// the list of what its holders are to drop.
func TestSchemesStayWithTheirChunks(t *testing.T) {
	a := newApplier(t)
	coded, err := object.NewScheme(4, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, scheme := range []object.Scheme{object.DefaultScheme, coded, 1 << 8} {
		id := object.ChunkID{Upload: object.UploadID{1, byte(i)}, Ordinal: uint32(i)}
		foreign := object.ChunkID{Upload: object.UploadID{2, byte(i)}}
		sum := [32]byte{9, byte(i)}
		a.apply(&Command{Stage: &Stage{Body: Body{Content: object.ContentID{7, byte(i)},
			Extents: []object.Extent{{Length: 9, Chunk: id, ChunkLength: 99, SHA256: sum, Scheme: scheme}}}}})
		tx := a.apply(&Command{Prepare: &Prepare{Decider: 1, Halves: []Half{{Refs: &Refs{New: true,
			Chunks: []ChunkRef{{ID: foreign, Length: 77, SHA256: sum[:], Scheme: scheme}}}}}}}).Tx
		for id, length := range map[object.ChunkID]int64{id: 99, foreign: 77} {
			if c, live := a.chunk(id); !live || c.Length != length || c.Scheme != scheme || !bytes.Equal(c.SHA256, sum[:]) {
				t.Fatalf("%v: %+v, %v", scheme, c, live)
			}
		}
		a.apply(&Command{Finish: &Finish{Tx: tx}}) // undone
		if list := a.released(); len(list) != 1 || list[0].ID != foreign || list[0].Scheme != scheme {
			t.Fatalf("%v: %+v", scheme, list)
		}
		a.apply(&Command{Released: &Released{Chunks: []object.ChunkID{foreign}}})
	}
}

func TestChunksThatNobodyCouldFindAreRefused(t *testing.T) {
	a := newApplier(t)
	for _, e := range []object.Extent{
		{Length: 1, Chunk: object.ChunkID{Upload: object.UploadID{1}}, Scheme: 1<<8 | 2}, // has another form: 0
		{Length: 1, Chunk: object.ChunkID{Upload: object.UploadID{1}}, Scheme: 2 << 8},
		{Length: 1, Chunk: object.ChunkID{Owner: 3, Upload: object.UploadID{1}}, Scheme: 5},
	} {
		for _, c := range []*Command{
			{Stage: &Stage{Body: Body{Content: object.ContentID{5}, Extents: []object.Extent{e}}}},
			{Prepare: &Prepare{Decider: 1, Halves: []Half{{Refs: &Refs{New: true, Chunks: []ChunkRef{{Scheme: e.Scheme}}}}}}},
			{Prepare: &Prepare{Decider: 1, Halves: []Half{{Refs: &Refs{New: true, Chunks: []ChunkRef{{SHA256: []byte{1}}}}}}}},
		} {
			data, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			a.index++
			r, err := a.m.Apply([]group.Entry{{Index: a.index, Data: data}})
			if err != nil {
				t.Fatal(err)
			}
			if res := r[0].(*Result); !res.Failed || res.Kind != object.KindInvalid {
				t.Fatalf("%+v: %+v", c, res)
			}
		}
	}
}

// FuzzChunkRecords reads records of chunks, and writes what it could read as it was.
func FuzzChunkRecords(f *testing.F) {
	f.Add(unhex(f, oldExtent))
	f.Add(unhex(f, oldChunk))
	for _, v := range []any{&object.Extent{Length: 3, Scheme: 4<<8 | 2}, &chunkRec{Refs: 1, SHA256: make([]byte, 32), Scheme: 1 << 8}, &releaseRec{Scheme: 7}} {
		b, err := codec.enc.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(object.Extent), new(chunkRec), new(releaseRec)} {
			if codec.dec.Unmarshal(b, v) != nil {
				continue
			}
			once, err := codec.enc.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := codec.dec.Unmarshal(once, v); err != nil {
				t.Fatalf("%x, written again as %x: %v", b, once, err)
			}
			if twice, err := codec.enc.Marshal(v); err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%x, then %x, %v", once, twice, err)
			}
		}
	})
}
