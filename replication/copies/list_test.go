package copies

import (
	"bytes"
	"context"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// listOf is what a node says that another keeps.
func (n *node) listOf(of *node, sel Selection) (ids []object.ChunkID, err error) {
	err = n.store.List(context.Background(), of.name, sel, func(id object.ChunkID) error {
		ids = append(ids, id)
		return nil
	})
	return ids, err
}

// TestList: a list has the chunks of the groups that were asked for, of each holder,
// from near and far, and is whole or an error.
func TestList(t *testing.T) {
	c := start(t, 3, 3)
	here, far := c.nodes[0], c.nodes[1]
	sel := Selection{Of: 8, Groups: []int{1, 6}}
	var want []object.ChunkID
	for range 40 {
		id := someID()
		c.put(here, id, Copies(3), someData(100))
		if g := placement.Hash(id) % 8; g == 1 || g == 6 {
			want = append(want, id)
		}
	}
	order := func(a, b object.ChunkID) int { return bytes.Compare(a.AppendBinary(nil), b.AppendBinary(nil)) }
	slices.SortFunc(want, order)
	for _, of := range []*node{here, far} {
		got, err := here.listOf(of, sel)
		must(t, err)
		if slices.SortFunc(got, order); !slices.Equal(got, want) {
			t.Fatalf("%s lists %v, want %v", of.name, got, want)
		}
	}
	if got, err := here.listOf(far, Selection{Of: 8}); err != nil || len(got) > 0 {
		t.Fatalf("of no group: %v, %v", got, err)
	}
	for _, of := range []*node{here, far} { // page by page
		var pages []object.ChunkID
		for page := (Selection{Of: 8, Groups: []int{1, 6}, Max: 3}); ; page.After = pages[len(pages)-1] {
			some, err := here.listOf(of, page)
			must(t, err)
			if pages = append(pages, some...); len(some) > 3 {
				t.Fatalf("a page of %d", len(some))
			} else if len(some) < 3 {
				break
			}
		}
		if !slices.Equal(pages, want) {
			t.Fatalf("%s lists in pages %v, want %v", of.name, pages, want)
		}
	}
	for _, bad := range []Selection{{Of: 8, Max: -1}, {Of: 8, Groups: []int{8}}, {Of: 0}, {Of: 8, Groups: []int{-1}}} {
		_, err := here.listOf(far, bad)
		wantKind(t, err, object.KindInvalid)
	}
	far.disk.Fail(chunk.OpList, os.ErrPermission)
	if got, err := here.listOf(far, sel); err == nil {
		t.Fatalf("a directory that cannot be read gave the list %v", got)
	}
	far.disk.Clear()
	far.proxy.Die()
	_, err := here.listOf(far, sel)
	wantKind(t, err, object.KindUnavailable)
}

// TestPageOfWhatWasNotAskedFor: a holder that knows nothing of pages is told from one that does.
func TestPageOfWhatWasNotAskedFor(t *testing.T) {
	ids := []object.ChunkID{{Ordinal: 1}, {Ordinal: 2}, {Ordinal: 3}}
	for _, sel := range []Selection{{Max: 2}, {After: ids[0]}, {Max: 3, After: ids[1]}} {
		var err error
		take := sel.page(func(object.ChunkID) error { return nil })
		for _, id := range ids {
			if err == nil {
				err = take(id)
			}
		}
		wantKind(t, err, object.KindVersion)
	}
}

// TestListThatBreaksOff: no beginning of a list is taken for the list.
func TestListThatBreaksOff(t *testing.T) {
	w := httptest.NewRecorder()
	l := &lister{w: w}
	for range 5 {
		must(t, l.add(someID()))
	}
	for _, end := range []uint64{0, listEnd} {
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
		must(t, writeFrame(w, mark(l.n|end)))
	}
	whole := w.Body.Bytes()
	for n := range whole {
		if err := readList(bytes.NewReader(whole[:n]), make([]byte, listFrame), func() {}, func(object.ChunkID) error { return nil }); err == nil {
			t.Fatalf("%d of %d bytes passed for the list", n, len(whole))
		}
	}
	got := 0
	must(t, readList(bytes.NewReader(whole), make([]byte, listFrame), func() {}, func(object.ChunkID) error { got++; return nil }))
	if got != 5 {
		t.Fatalf("%d chunks of 5", got)
	}
}

func FuzzList(f *testing.F) {
	var b bytes.Buffer
	l := &lister{w: &b}
	_ = l.add(object.ChunkID{Owner: 1, Ordinal: 2})
	_ = l.flush()
	_ = writeFrame(&b, mark(1|listEnd))
	f.Add(b.Bytes(), "8", []byte{0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, list []byte, of string, groups []byte) {
		n := 0
		if err := readList(bytes.NewReader(list), make([]byte, listFrame), func() {}, func(object.ChunkID) error { n++; return nil }); err == nil && n*object.ChunkIDSize > len(list) {
			t.Fatalf("%d chunks in %d bytes", n, len(list))
		}
		if sel, err := parseSelection(url.Values{"of": {of}}, groups); err == nil && !bytes.Equal(sel.body(), groups) {
			t.Fatalf("%x became %+v", groups, sel)
		}
	})
}
