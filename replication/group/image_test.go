package group

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// framed is a state on its way.
func framed(t testing.TB, image []byte) []byte {
	t.Helper()
	o := &outgoing{g: &Group{}, img: &Image{Applied: 9, Size: int64(len(image)), Data: io.NopCloser(bytes.NewReader(image))}, left: int64(len(image))}
	o.head()
	b, err := io.ReadAll(o)
	must(t, err)
	if int64(len(b)) != imageSize(int64(len(image))) {
		t.Fatalf("%d bytes for an image of %d, said %d", len(b), len(image), imageSize(int64(len(image))))
	}
	return b
}

func unframed(b []byte) ([]byte, error) {
	in, err := readImage(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(in)
}

func TestFrames(t *testing.T) {
	for _, n := range []int{0, 1, frameBytes - 1, frameBytes, frameBytes + 1, 5*frameBytes + 7} {
		image := bytes.Repeat([]byte("state "), n/6+1)[:n]
		b := framed(t, image)
		got, err := unframed(b)
		if must(t, err); !bytes.Equal(got, image) {
			t.Errorf("%d bytes came back as %d", n, len(got))
		}
		for _, at := range []int{0, 9, 13, imageHead - 1, imageHead, imageHead + 5, len(b) / 2, len(b) - 1} {
			bad := bytes.Clone(b)
			bad[at] ^= 1
			if _, err := unframed(bad); err == nil {
				t.Errorf("%d bytes: byte %d was changed in silence", n, at)
			}
			if _, err := unframed(b[:at]); !object.IsKind(err, object.KindCorrupt) {
				t.Errorf("%d bytes, cut at %d: %v", n, at, err)
			}
		}
		if _, err := unframed(append(b, 0)); !object.IsKind(err, object.KindCorrupt) {
			t.Errorf("%d bytes and one more: %v", n, err)
		}
	}
}

func FuzzReadImage(f *testing.F) {
	f.Add(framed(f, nil))
	f.Add(framed(f, []byte("some state")))
	f.Add(framed(f, make([]byte, frameBytes+1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := unframed(b)
		var ours *object.Error
		switch {
		case err != nil && !errors.As(err, &ours):
			t.Error(err)
		case err == nil && imageSize(int64(len(got))) != int64(len(b)):
			t.Errorf("%d bytes from %d", len(got), len(b))
		}
	})
}

func TestWhatIsKept(t *testing.T) {
	keep := trailing{several: 10, lagging: 100, image: 1000}
	var p peers
	now := time.Now()
	end := uint64(5000) // of the leader's log
	answer := func(id raft.ServerID, term, last uint64) {
		p.heard(id, term, &raft.AppendEntriesResponse{Term: term, Success: true, LastLog: last}, end)
	}
	want := func(what string, term, last, index uint64) {
		t.Helper()
		if got := p.needs(now, []raft.ServerID{"b", "c"}, term, last, keep); got != index {
			t.Errorf("%s: kept from %d, want %d", what, got, index)
		}
	}
	want("nobody was heard", 3, 5000, 4900)
	answer("b", 3, 5000)
	answer("c", 3, 4950)
	want("one lags a little", 3, 5000, 4950)
	want("and stays behind", 3, 5100, 5000)
	p.heard("c", 3, &raft.AppendEntriesResponse{Term: 4, LastLog: 1}, end)
	want("a refusal says nothing", 3, 5000, 4950)
	end = 5300
	o := new(outgoing)
	p.hold(o, 4400)
	want("a state is on its way", 3, 5300, 4400)
	want("for very long", 3, 6000, 5000)
	p.installed("c", 3, 4400)
	p.release(o)
	answer("b", 3, 5300)
	answer("c", 3, 4300)
	want("it has arrived", 3, 5300, 4400)
	now = now.Add(2 * silence)
	want("and has fallen silent", 3, 5300, 5200)
	now = time.Now()
	answer("c", 3, 5290)
	want("it has caught up", 3, 5300, 5290)
	want("and is away, like any other", 3, 7000, 6900)
	want("a new term", 4, 5300, 5200)
}
