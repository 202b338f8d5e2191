package replication

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// holder keeps chunks for a Node under test, and does nothing else: a real store
// behind a real transport, behind a proxy.
type holder struct {
	local *chunk.Store
	store *copies.Store
	proxy *proxy.Proxy
}

// trio is a Node with two holders beside it; all three keep every chunk.
type trio struct {
	*Node
	b, c *holder
}

// newTrio opens a node of the configuration among the three.
func newTrio(t *testing.T, cfg Config) *trio {
	t.Helper()
	secret, addrs, places := transport.NewSecret(), &sync.Map{}, &places{}
	l, err := placement.NewLayout([]placement.Node{{ID: "node1", Weight: 1}, {ID: "b", Weight: 1}, {ID: "c", Weight: 1}}, 3, 8, 1)
	if err != nil {
		t.Fatal(err)
	}
	places.adopt(l)
	wire := func(name string) *transport.Node {
		w, err := transport.Open(transport.Options{Cluster: "test", Node: name, Secrets: []transport.Secret{secret}, Resolve: func(to string) (string, error) {
			if a, ok := addrs.Load(to); ok {
				return a.(string), nil
			}
			return "", object.Errorf(object.KindUnavailable, "no address of %s", to)
		}})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	listen := func(name string, w *transport.Node, s *copies.Store) *proxy.Proxy {
		w.HandleHTTP(s.Handler())
		addr, err := w.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := proxy.New(t, addr.String())
		addrs.Store(name, p.Addr())
		return p
	}
	ours := wire("node1")
	cfg.net = &chunkNet{places: places, client: ours.HTTPClient}
	tr := &trio{Node: openNode(t, cfg)}
	t.Cleanup(func() { _ = ours.Close() })
	listen("node1", ours, tr.copies)
	other := func(name string) *holder {
		h, w := &holder{}, wire(name)
		var err error
		if h.local, err = chunk.Open(chunk.Options{FS: vfs.OS(), Dirs: []string{t.TempDir()}, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			h.store, err = copies.New(copies.Options{Self: name, Local: h.local, Locate: places.locate, Client: w.HTTPClient, Live: tr.wanted})
		}
		if err != nil {
			t.Fatal(err)
		}
		h.proxy = listen(name, w, h.store)
		t.Cleanup(func() {
			_ = w.Close()
			h.store.Close()
			if err := h.local.Close(); err != nil {
				t.Error(err)
			}
		})
		return h
	}
	tr.b, tr.c = other("b"), other("c")
	return tr
}

// refs are the chunks of an object, as their owner knows them.
func (tr *trio) refs(t *testing.T, ino object.InodeID) (list []copies.Chunk) {
	t.Helper()
	r, err := tr.OpenInode(t.Context(), ino)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = r.extents(t.Context(), 0, r.inode.Size, func(e object.Extent) error {
		return tr.inView(t.Context(), e.Chunk.Owner, func(v *namespace.View) error {
			c, live, err := v.Chunk(e.Chunk)
			if err == nil && (!live || !bytes.Equal(c.SHA256, e.SHA256[:]) || c.Length != e.ChunkLength || c.Scheme != e.Scheme) {
				t.Fatalf("the owner knows %+v (live: %v) of %+v", c, live, e)
			}
			list = append(list, chunkOf(&e))
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// good reports that a store has sound copies of all chunks.
func good(t *testing.T, s *chunk.Store, list []copies.Chunk) bool {
	t.Helper()
	for _, c := range list {
		if got, err := s.ReadAll(t.Context(), c.ID, c.SHA256); err != nil || int64(len(got)) != c.Length {
			return false
		}
	}
	return true
}

// none reports that a store has none of the chunks.
func none(t *testing.T, s *chunk.Store, list []copies.Chunk) bool {
	t.Helper()
	for _, c := range list {
		if _, err := s.Stat(t.Context(), c.ID); !object.IsKind(err, object.KindNotFound) {
			return false
		}
	}
	return true
}

func (tr *trio) box(t *testing.T) {
	t.Helper()
	if _, err := tr.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
}

// TestThreeCopies: a put through the node is at all three; with one of them dead,
// puts, reads and deletes go on; with both dead what is here is read, and nothing
// is acknowledged or left behind.
func TestThreeCopies(t *testing.T) {
	tr := newTrio(t, testConfig(t))
	tr.box(t)
	body := randomBytes(1, 1<<20+77)
	first := tr.refs(t, mustPut(t, tr.Node, "first", body).Inode.ID)
	for name, s := range map[string]*chunk.Store{"node1": tr.chunks, "b": tr.b.local, "c": tr.c.local} {
		waitFor(t, "copies at "+name, func() bool { return good(t, s, first) })
	}

	tr.b.proxy.Die()
	second := tr.refs(t, mustPut(t, tr.Node, "second", body).Inode.ID)
	for _, key := range []string{"first", "second"} {
		if !bytes.Equal(mustGet(t, tr.Node, key), body) {
			t.Fatal(key, "is not what was put")
		}
	}
	waitFor(t, "copies at c", func() bool { return good(t, tr.c.local, second) })
	if !good(t, tr.chunks, second) || !none(t, tr.b.local, second) {
		t.Fatal("it was put somewhere else")
	}
	waitFor(t, "what is missing at b to be known", func() bool { return tr.copies.Stats().Missed >= int64(len(second)) })
	if err := tr.Delete(t.Context(), "box", "first", Conditions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the release", func() bool { return none(t, tr.chunks, first) && none(t, tr.c.local, first) })
	late := body[:first[0].Length]
	if _, err := tr.c.local.Put(t.Context(), first[0].ID, late); err != nil { // a copy that was on its way
		t.Fatal(err)
	}
	if err := tr.copies.Repair(t.Context(), first[0]); !object.IsKind(err, object.KindNotFound) || !none(t, tr.chunks, first) {
		t.Fatal("what was released came back:", err)
	}

	tr.c.proxy.Die()
	before := countChunks(t, tr.Node)
	_, err := tr.Put(t.Context(), "box", "third", bytes.NewReader(body), PutOptions{Size: int64(len(body))})
	wantKind(t, err, object.KindUnavailable)
	if n := countChunks(t, tr.Node); n != before {
		t.Fatalf("%d chunks, there were %d before the put that failed", n, before)
	}
	if !bytes.Equal(mustGet(t, tr.Node, "second"), body) {
		t.Fatal("our own copies are not read")
	}
}

// damageChunks flips a bit in the middle of every file of a node's chunks.
func damageChunks(t *testing.T, dir string) (files []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "chunks", "*", "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no chunks", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err == nil {
			b[len(b)/2] ^= 8
			err = os.WriteFile(name, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestBadCopiesAreReadElsewhereAndMended: damaged ones, then missing ones.
func TestBadCopiesAreReadElsewhereAndMended(t *testing.T) {
	cfg := testConfig(t)
	tr := newTrio(t, cfg)
	tr.box(t)
	body := randomBytes(2, 1<<20+5)
	list := tr.refs(t, mustPut(t, tr.Node, "k", body).Inode.ID)
	for _, h := range []*holder{tr.b, tr.c} {
		waitFor(t, "all copies", func() bool { return good(t, h.local, list) })
	}
	var files []string
	for round := int64(1); round <= 2; round++ {
		files = damageChunks(t, cfg.StoragePaths[0])
		if round == 1 && !bytes.Equal(mustGet(t, tr.Node, "k"), body) {
			t.Fatal("damage was answered")
		}
		for _, c := range list { // found by nobody who wants the chunk
			// The scrub that the first damage began may come before, and the repair, too.
			if err := tr.chunks.Verify(t.Context(), c.ID); err != nil && !object.IsKind(err, object.KindCorrupt) && !object.IsKind(err, object.KindNotFound) {
				t.Fatal(err)
			}
		}
		waitFor(t, "the repair", func() bool { return good(t, tr.chunks, list) })
		if s := tr.chunks.Stats(); s.Corrupt < round*int64(len(list)) {
			t.Fatalf("%d of %d damaged copies went to quarantine", s.Corrupt, round*int64(len(list)))
		}
	}

	removed := lose(t, tr, files)
	tr.b.proxy.Die() // one is enough
	if removed == 0 {
		t.Fatal("nothing was removed")
	}
	waitFor(t, "the repair of what is missing", func() bool { // a read may pass by a disk that was slow lately
		if !bytes.Equal(mustGet(t, tr.Node, "k"), body) {
			t.Fatal("not what was put")
		}
		return good(t, tr.chunks, list)
	})
}

// lose removes files of chunks behind the store's back, as a lost disk
// does; what it has open goes, too.
func lose(t *testing.T, tr *trio, files []string) (removed int) {
	t.Helper()
	for _, name := range files {
		id, err := object.ParseChunkID(filepath.Base(name))
		if err == nil {
			err = tr.chunks.Delete(t.Context(), id)
		}
		if err != nil {
			t.Fatal(err)
		}
		removed++
	}
	return removed
}

// TestAStoreThatGrows: what a node alone stored is of three copies from the first
// day, so that nodes that join have to have it, and can tell from the owner.
func TestAStoreThatGrows(t *testing.T) {
	cfg := testConfig(t)
	alone, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	body := randomBytes(3, 700_000)
	ino := mustPut(t, alone, "k", body).Inode.ID
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	tr := newTrio(t, cfg)
	list := tr.refs(t, ino)
	if !bytes.Equal(mustGet(t, tr.Node, "k"), body) {
		t.Fatal("not what was put")
	}
	for _, c := range list {
		if err := tr.b.store.Repair(t.Context(), copies.Chunk{ID: c.ID, Scheme: c.Scheme}); err != nil {
			t.Fatal(err)
		}
	}
	if !good(t, tr.b.local, list) || !none(t, tr.c.local, list) {
		t.Fatal("b repaired, and nobody else")
	}
	// The only copy of before is lost: b has it.
	for _, c := range list {
		if err := tr.chunks.Delete(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(mustGet(t, tr.Node, "k"), body) {
		t.Fatal("not what was put")
	}
}

// TestAHungHolderLeavesMemory: bodies may not wait for the pieces that it holds.
func TestAHungHolderLeavesMemory(t *testing.T) {
	cfg := testConfig(t)
	cfg.ChunkSize, cfg.BufferMemory = 64<<10, 1<<20
	tr := newTrio(t, cfg)
	tr.box(t)
	body := randomBytes(4, 256<<10)
	mustPut(t, tr.Node, "warm", body)
	tr.c.proxy.Hang()
	for range 8 { // twice the memory that there is
		mustPut(t, tr.Node, "k", body)
	}
	if s := tr.copies.Stats(); s.LateDropped == 0 {
		t.Fatal("a holder that hangs may keep all the memory of bodies")
	}
	if !bytes.Equal(mustGet(t, tr.Node, "k"), body) {
		t.Fatal("not what was put")
	}
	tr.c.proxy.Resume()
}

func TestPlaces(t *testing.T) {
	p := &places{}
	layout := func(epoch uint64, id placement.NodeID) *placement.Layout {
		l, err := placement.NewLayout([]placement.Node{{ID: id, Weight: 1}}, 3, 4, epoch)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	_, err := p.locate(object.ChunkID{}, copies.Copies(3))
	wantKind(t, err, object.KindUnavailable)
	for _, l := range []*placement.Layout{layout(4, "a"), layout(6, "b"), layout(5, "c")} {
		p.adopt(l)
	}
	site, err := p.locate(object.ChunkID{}, copies.Copies(3))
	if err != nil || site.Since != 6 || site.Shard("b") < 0 || site.Shard("c") >= 0 {
		t.Fatal("the newest layout is not in force", site, err)
	}
	_, err = p.locate(object.ChunkID{}, copies.Scheme{Data: 4, Parity: 2})
	wantKind(t, err, object.KindUnavailable)
}

// TestCheckAtEveryHolder: a check looks for each chunk at every node that is to hold it,
// and says which node lacks one, or did not answer.
func TestCheckAtEveryHolder(t *testing.T) {
	tr := newTrio(t, testConfig(t))
	tr.box(t)
	o := mustPut(t, tr.Node, "a/b", randomBytes(5, 300_000))
	list := tr.refs(t, o.Inode.ID)
	waitFor(t, "three copies", func() bool { return good(t, tr.b.local, list) && good(t, tr.c.local, list) })
	checkAtRest(t, tr.Node)
	if err := tr.b.local.Delete(t.Context(), list[1].ID); err != nil {
		t.Fatal(err)
	}
	check := func() *CheckReport {
		t.Helper()
		r, err := tr.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := check()
	if len(r.Problems) != 1 || r.Problems[0].Kind != ProblemMissing || !strings.Contains(r.Problems[0].Text, "node b") || !strings.Contains(r.Problems[0].Text, list[1].ID.String()) {
		t.Errorf("one chunk is gone at b: %v", r.Problems)
	}
	tr.c.proxy.Die()
	r = check()
	want := fmt.Sprintf("node c did not answer: %d chunks", len(list))
	if len(r.Problems) != 2 || r.Problems[1].Kind != ProblemUnchecked || !strings.Contains(r.Problems[1].Text, want) {
		t.Errorf("c is cut off, and %d chunks are there: %v", len(list), r.Problems)
	}
}
