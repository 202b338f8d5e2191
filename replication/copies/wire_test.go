package copies

import (
	"bytes"
	"encoding/binary"
	"flag"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestMain lets the tests wait side by side: most of their time is a hung peer's.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestBadRequests: a holder is not harmed by what makes no sense.
func TestBadRequests(t *testing.T) {
	c := start(t, 2, 2)
	id := someID().String()
	ask := func(method, path, body, epoch, sum string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://n1"+path, strings.NewReader(body))
		must(t, err)
		req.Header.Set(headEpoch, epoch)
		req.Header.Set(headSum, sum)
		resp, err := c.nodes[0].wire.HTTPClient("n1").Do(req)
		must(t, err)
		must(t, resp.Body.Close())
		return resp
	}
	for _, bad := range []struct{ method, path, body, epoch, sum string }{
		{"PUT", "/chunks/nonsense?s=1%2B1", "x", "1", "0"}, {"PUT", "/chunks/" + id, "x", "1", "0"}, {"PUT", "/chunks/" + id + "?s=1%2B1", "x", "", "0"},
		{"PUT", "/chunks/" + id + "?s=1%2B1", "x", "1", "zz"}, {"PUT", "/chunks/" + id + "?s=1%2B1", "", "1", "0"}, {"PUT", "/chunks/" + id + "?s=1%2B1", "x", "1", "0"},
		{"PUT", "/chunks/" + id + "?s=1%2B7", "x", "1", "0"}, {"PUT", "/chunks/" + id + "?s=0%2B1", "x", "1", "0"},
		{"GET", "/chunks/" + id + "?s=1%2B1&off=-1&len=1", "", "", ""}, {"GET", "/chunks/" + id + "?s=1%2B1&len=99999999999", "", "", ""},
		{"GET", "/chunks/" + id + "?s=1%2B1&sha=00", "", "", ""}, {"GET", "/chunks/" + id + "?s=1%2B1&i=2", "", "", ""}, {"GET", "/chunks/" + id + "?s=1%2B1", "", "", ""},
		{"POST", "/chunks/delete?s=1%2B1", "short", "", ""}, {"POST", "/chunks/delete?s=1%2B1", strings.Repeat("x", (maxDelete+1)*object.ChunkIDSize), "", ""},
	} {
		resp := ask(bad.method, bad.path, bad.body, bad.epoch, bad.sum)
		if k := resp.Header.Get(headKind); resp.StatusCode/100 == 2 || k == "" || k == object.KindInternal.String() {
			t.Errorf("%s %s: status %d, kind %q", bad.method, bad.path, resp.StatusCode, k)
		}
	}
	if resp := ask("GET", "/elsewhere", "", "", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", resp.StatusCode)
	}
	c.put(c.nodes[0], someID(), Copies(2), someData(1000))
}

// TestClose refuses what comes after it.
func TestClose(t *testing.T) {
	c := start(t, 2, 2)
	ch := c.put(c.nodes[0], someID(), Copies(2), someData(1000))
	c.nodes[1].store.Close()
	_, _, err := putIn(t.Context(), c.nodes[0], someID(), Copies(2), someData(1000))
	wantKind(t, err, object.KindUnavailable)
	_, err = c.nodes[1].store.ReadAt(t.Context(), ch, 0, make([]byte, 1))
	wantKind(t, err, object.KindUnavailable)
	_, released, err := putIn(t.Context(), c.nodes[1], someID(), Copies(2), someData(1000))
	wantKind(t, err, object.KindUnavailable)
	within(t, "the release", released)
	if _, err := New(Options{Self: "a"}); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("options that lack most: %v", err)
	}
}

func TestSchemes(t *testing.T) {
	for text, want := range map[string]Scheme{"1+0": Copies(1), "1+2": Copies(3), "4+2": {4, 2}} {
		if s, err := ParseScheme(text); err != nil || s != want || s.String() != text {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "3", "0+1", "2+0", "+1+2", "1+-1", "04+2", "40+40", "1+2+3"} {
		if s, err := ParseScheme(text); err == nil {
			t.Errorf("%q: %v", text, s)
		}
	}
	for _, q := range []struct {
		s             Scheme
		holders, want int
	}{{Copies(3), 3, 2}, {Copies(3), 2, 2}, {Copies(3), 1, 1}, {Copies(5), 5, 3}, {Scheme{4, 2}, 6, 5}, {Scheme{4, 2}, 4, 5}} {
		if got := q.s.quorum(q.holders); got != q.want {
			t.Errorf("%v at %d holders: %d, want %d", q.s, q.holders, got, q.want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	var good, failure bytes.Buffer
	must(f, writeFrame(&good, []byte("some bytes")))
	must(f, writeFailure(&failure, object.Errorf(object.KindCorrupt, "bad")))
	f.Add(good.Bytes())
	f.Add(failure.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		buf := make([]byte, chunk.FrameSize)
		b, err := readFrame(bytes.NewReader(data), buf, 1000)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if must(t, writeFrame(&again, b)); len(b) > 1000 || !bytes.HasPrefix(data, again.Bytes()) {
			t.Fatalf("%q was read as %q", data, b)
		}
	})
}

func FuzzParseTrailer(f *testing.F) {
	f.Add(trailer{scheme: Scheme{4, 2}, shard: 5, length: 77, whole: [32]byte{1, 2}}.append(nil))
	f.Add(make([]byte, trailerSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == trailerSize { // half of the time with a right checksum
			if tr, err := parseTrailer(binary.BigEndian.AppendUint32(slices.Clone(data[:60]), sumOf(data[:60]))); err == nil && tr.scheme.check() != nil {
				t.Fatal("a trailer that makes no sense")
			}
		}
		if tr, err := parseTrailer(data); err == nil && !bytes.Equal(tr.append(nil), data) {
			t.Fatalf("%x was read as %+v", data, tr)
		}
	})
}

func FuzzParseWant(f *testing.F) {
	w := want{chunk: Chunk{ID: someID(), SHA256: [32]byte{7}, Scheme: Scheme{4, 2}}, shard: 3, off: 7, len: 9}
	f.Add(w.chunk.ID.String(), w.query())
	f.Add("x", "s=1%2B2&len=-1")
	f.Fuzz(func(t *testing.T, id, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		got, err := parseWant(id, q)
		if err != nil {
			return
		}
		q, err = url.ParseQuery(got.query())
		must(t, err)
		if again, err := parseWant(got.chunk.ID.String(), q); err != nil || again != got {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}

func FuzzParseIDs(f *testing.F) {
	f.Add(someID().AppendBinary(someID().AppendBinary(nil)))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, err := parseIDs(data)
		if err != nil {
			return
		}
		var again []byte
		for _, id := range ids {
			again = id.AppendBinary(again)
		}
		if !bytes.Equal(again, data) {
			t.Fatal("other ids")
		}
	})
}
