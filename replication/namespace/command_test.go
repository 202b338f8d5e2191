package namespace

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestCommandsSurviveTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "name")) // any bytes, not only UTF-8
		c := &Command{Now: rapid.Int64().Draw(t, "now"), Epoch: rapid.Uint64().Draw(t, "epoch"),
			Put: &Put{Dir: 7, Name: name, Body: Body{Size: 3, Inline: []byte(name)}, Node: object.Inode{Meta: map[string]string{"k": name}}}}
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeCommand(b)
		if err != nil {
			t.Fatal(err)
		}
		if back.Now != c.Now || back.Epoch != c.Epoch || back.Put.Name != name || back.Put.Node.Meta["k"] != name || !bytes.Equal(back.Put.Body.Inline, []byte(name)) {
			t.Fatalf("%+v became %+v", c.Put, back.Put)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(b, again) {
			t.Fatal("the same command has two encodings")
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range []*Command{{Put: &Put{Name: "x"}}, {Decide: &Decide{Lower: &Lower{Inode: 3}}}, {Unlink: &Unlink{Cascade: &Cascade{Name: "a", Up: &Cascade{}}}},
		{SetScheme: &SetScheme{Inodes: []object.InodeID{3}, Scheme: 1 << 8}}, {StepRewrite: &StepRewrite{Dir: 3, Progress: Progress{After: "k"}}},
		{Stage: &Stage{Body: Body{Extents: []object.Extent{{Length: 9, Scheme: 4<<8 | 2}}}}},
		{Prepare: &Prepare{Halves: []Half{{Refs: &Refs{Chunks: []ChunkRef{{Length: 9, SHA256: make([]byte, 32), Scheme: 1 << 8}}}}}}}} {
		b, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{commandVersion + 1, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			if k := object.KindOf(err); k != object.KindCorrupt && k != object.KindVersion {
				t.Fatalf("kind %v: %v", k, err)
			}
			return
		}
		if _, err := c.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}
