package copies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// node is one holder with a real store behind a real listener.
type node struct {
	name   string
	dir    string
	disk   *vfs.Faulty
	local  *chunk.Store
	store  *Store
	server *httptest.Server
	client *http.Client
	hang   atomic.Pointer[chan struct{}] // requests wait until it is closed
	bend   atomic.Bool                   // flips a bit of what goes over its wire
	epoch  atomic.Uint64
}

type cluster struct {
	nodes []*node
	place Place

	mu     sync.Mutex
	missed []string
}

func start(t *testing.T, n, quorum int) *cluster {
	t.Helper()
	c := &cluster{place: Place{Quorum: quorum, Epoch: 1}}
	for i := range n {
		nd := &node{name: fmt.Sprintf("n%d", i), dir: t.TempDir(), disk: vfs.NewFaulty(vfs.OS())}
		var err error
		nd.local, err = chunk.Open(chunk.Options{FS: nd.disk, Dirs: []string{nd.dir}, Compression: chunk.None, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		nd.store = New(Options{Self: nd.name, Local: nd.local, Peer: c.peer,
			Place: func(object.ChunkID) Place { return c.place },
			Adopt: func(epoch uint64) error {
				if epoch < nd.epoch.Load() {
					return object.Errorf(object.KindStale, "the map has epoch %d", nd.epoch.Load())
				}
				return nil
			},
			Missed: func(id object.ChunkID, node string) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.missed = append(c.missed, node)
			}})
		inner := nd.store.Handler()
		nd.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := nd.hang.Load(); h != nil {
				select {
				case <-*h:
				case <-r.Context().Done():
					return
				}
			}
			if nd.bend.Load() {
				r.Body = io.NopCloser(&bender{Reader: r.Body})
			}
			inner.ServeHTTP(w, r)
		}))
		nd.client = &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext}}
		t.Cleanup(func() {
			nd.client.CloseIdleConnections()
			nd.server.Close()
			if err := nd.local.Close(); err != nil {
				t.Error(err)
			}
		})
		c.nodes = append(c.nodes, nd)
		c.place.Nodes = append(c.place.Nodes, nd.name)
	}
	return c
}

// bender flips a bit of the first byte that it reads.
type bender struct {
	io.Reader
	done bool
}

func (b *bender) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 && !b.done {
		p[0] ^= 1
		b.done = true
	}
	return n, err
}

func (c *cluster) peer(name string) (*http.Client, string) {
	nd := c.nodes[slices.IndexFunc(c.nodes, func(n *node) bool { return n.name == name })]
	return nd.client, nd.server.URL
}

func (c *cluster) missing() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.missed)
}

func someID() (id object.ChunkID) {
	id.Owner, id.Ordinal = 5, 1
	for i := range id.Upload {
		id.Upload[i] = byte(rand.IntN(256))
	}
	return id
}

func someData(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.IntN(256))
	}
	return data
}

// putIn stores data in two pieces, scribbles over them once they are released, and
// tells when that was.
func putIn(ctx context.Context, s *Store, id object.ChunkID, data []byte) (chunk.Ref, error, <-chan struct{}) {
	half := max(len(data)/2/chunk.FrameSize*chunk.FrameSize, min(len(data), chunk.FrameSize))
	pieces := [][]byte{slices.Clone(data[:half])}
	if half < len(data) {
		pieces = append(pieces, slices.Clone(data[half:]))
	}
	released := make(chan struct{})
	ref, err := s.PutPieces(ctx, id, pieces, func() {
		for _, p := range pieces {
			clear(p) // the race detector sees whoever reads on
		}
		close(released) // twice would panic
	})
	return ref, err, released
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: did not happen", what)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen", what)
		}
	}
}

func TestAllHoldersGetIt(t *testing.T) {
	c := start(t, 3, 2)
	for _, size := range []int{1, 100, chunk.FrameSize, 1<<20 + 3, 4 << 20} {
		id, data := someID(), someData(size)
		ref, err, released := putIn(t.Context(), c.nodes[1].store, id, data)
		if err != nil {
			t.Fatal(err)
		}
		within(t, "release", released)
		for _, n := range c.nodes {
			got, err := n.local.ReadAll(t.Context(), id, ref.SHA256)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s has %d bytes, %v", n.name, len(got), err)
			}
			back := make([]byte, size+10)
			k, err := n.store.ReadAt(t.Context(), id, ref.SHA256, 0, back)
			if !errors.Is(err, io.EOF) || !bytes.Equal(back[:k], data) {
				t.Fatalf("read at %s: %d bytes, %v", n.name, k, err)
			}
		}
	}
	if m := c.missing(); len(m) > 0 {
		t.Errorf("missed: %v", m)
	}
}

// TestOneHolderHangs: a put is acknowledged without it, and a read goes elsewhere.
func TestOneHolderHangs(t *testing.T) {
	c := start(t, 3, 2)
	gate := make(chan struct{})
	c.nodes[2].hang.Store(&gate)
	id, data := someID(), someData(300_000)
	ref, err, released := putIn(t.Context(), c.nodes[0].store, id, data)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-released:
		t.Fatal("released while the third copy was on its way")
	default:
	}
	close(gate)
	within(t, "the third copy", released)
	if _, err := c.nodes[2].local.ReadAll(t.Context(), id, ref.SHA256); err != nil {
		t.Error(err)
	}
	// A reader whose nearest holder hangs.
	gate2 := make(chan struct{})
	defer close(gate2)
	c.nodes[0].hang.Store(&gate2)
	c.place.Nodes = []string{"n0", "n1"} // the reader, n2, is no holder
	back := make([]byte, 1000)
	if _, err := c.nodes[2].store.ReadAt(t.Context(), id, ref.SHA256, 5000, back); err != nil || !bytes.Equal(back, data[5000:6000]) {
		t.Error(err)
	}
}

// TestHangingDisk: the coordinator's own disk hangs; two others are enough.
func TestHangingDisk(t *testing.T) {
	c := start(t, 3, 2)
	gate := make(chan struct{})
	c.nodes[0].disk.Set(chunk.OpSync, vfs.Rule{Block: gate})
	_, err, released := putIn(t.Context(), c.nodes[0].store, someID(), someData(100_000))
	if err != nil {
		t.Fatal(err)
	}
	close(gate)
	within(t, "release", released)
}

func TestNoQuorum(t *testing.T) {
	c := start(t, 3, 2)
	c.nodes[1].server.Close()
	c.nodes[2].server.Close()
	id := someID()
	_, err, released := putIn(t.Context(), c.nodes[0].store, id, someData(5000))
	if !object.IsKind(err, object.KindUnavailable) || !strings.Contains(err.Error(), "n1") {
		t.Errorf("two of three are gone: %v", err)
	}
	within(t, "release", released)
	eventually(t, "the holders that failed are known", func() bool { m := c.missing(); return slices.Contains(m, "n1") && slices.Contains(m, "n2") })
	// The caller goes away.
	c2 := start(t, 3, 3)
	gate := make(chan struct{})
	defer close(gate)
	c2.nodes[1].hang.Store(&gate)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err, released = putIn(ctx, c2.nodes[0].store, id, someData(3<<20))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that went away: %v", err)
	}
	within(t, "release", released)
}

// TestRefusals: what holders say reaches the caller with its kind, and nothing
// that was damaged on its way is stored.
func TestRefusals(t *testing.T) {
	c := start(t, 3, 3)
	id, data := someID(), someData(200_000)
	c.nodes[1].epoch.Store(2)
	if _, err, _ := putIn(t.Context(), c.nodes[0].store, id, data); !object.IsKind(err, object.KindStale) {
		t.Errorf("an old epoch: %v", err)
	}
	c.nodes[1].epoch.Store(0)
	c.nodes[2].bend.Store(true)
	if _, err, _ := putIn(t.Context(), c.nodes[0].store, id, data); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("damaged on the wire: %v", err)
	}
	if _, err := c.nodes[2].local.Stat(t.Context(), id); !object.IsKind(err, object.KindNotFound) {
		t.Errorf("a damaged chunk was stored: %v", err)
	}
	c.nodes[2].bend.Store(false)
	if _, err, _ := putIn(t.Context(), c.nodes[0].store, id, data); err != nil {
		t.Errorf("the same put again: %v", err)
	}
	if _, err, _ := putIn(t.Context(), c.nodes[0].store, id, data[1:]); !object.IsKind(err, object.KindConflict) {
		t.Errorf("another content: %v", err)
	}
}

// TestBadCopies: one holder lost the chunk, another's is damaged.
func TestBadCopies(t *testing.T) {
	c := start(t, 3, 3)
	id, data := someID(), someData(200_000)
	ref, err, _ := putIn(t.Context(), c.nodes[0].store, id, data)
	if err != nil {
		t.Fatal(err)
	}
	file := chunkFile(t, c.nodes[0].dir)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-100_000] ^= 4
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[1].local.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, len(data))
	if n, err := c.nodes[0].store.ReadAt(t.Context(), id, ref.SHA256, 0, back); err != nil || !bytes.Equal(back[:n], data) {
		t.Fatal(n, err)
	}
	if m := c.missing(); !slices.Contains(m, "n0") || !slices.Contains(m, "n1") {
		t.Errorf("missed: %v", m)
	}
	if err := c.nodes[2].local.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes[1].store.ReadAt(t.Context(), id, ref.SHA256, 0, back); !object.IsKind(err, object.KindNotFound) && !object.IsKind(err, object.KindCorrupt) {
		t.Errorf("no good copy anywhere: %v", err)
	}
	c.nodes[2].server.Close()
	if _, err := c.nodes[1].store.ReadAt(t.Context(), id, ref.SHA256, 0, back); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("one holder cannot be asked: %v", err)
	}
}

func chunkFile(t *testing.T, dir string) (found string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "chunks"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatal("no chunk file", err)
	}
	return found
}

func TestDelete(t *testing.T) {
	c := start(t, 3, 3)
	var ids []object.ChunkID
	for range 5 {
		id := someID()
		ids = append(ids, id)
		if _, err, _ := putIn(t.Context(), c.nodes[0].store, id, someData(5000)); err != nil {
			t.Fatal(err)
		}
	}
	c.nodes[2].server.Close()
	if err := c.nodes[1].store.DeleteAll(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		for i, n := range c.nodes {
			_, err := n.local.Stat(t.Context(), id)
			if gone := object.IsKind(err, object.KindNotFound); gone != (i < 2) {
				t.Errorf("%s: %v", n.name, err)
			}
		}
	}
}

// TestBadRequests: a holder is not harmed by what makes no sense.
func TestBadRequests(t *testing.T) {
	c := start(t, 1, 1)
	url, id := c.nodes[0].server.URL, someID().String()
	for _, bad := range []struct{ method, path, body, epoch, sum string }{
		{"PUT", "/chunks/nonsense", "x", "1", "0"}, {"PUT", "/chunks/" + id, "x", "", "0"}, {"PUT", "/chunks/" + id, "x", "1", "zz"},
		{"PUT", "/chunks/" + id, "", "1", "0"}, {"PUT", "/chunks/" + id, "x", "1", "0"},
		{"GET", "/chunks/" + id, "", "", ""}, {"GET", "/chunks/" + id + "?off=-1&len=1&sha=00", "", "", ""},
		{"GET", "/chunks/" + id + "?off=0&len=99999999999&sha=00", "", "", ""}, {"GET", "/chunks/" + id + "?off=0&len=1&sha=" + strings.Repeat("0", 200), "", "", ""},
		{"POST", "/chunks", "short", "", ""},
	} {
		req, err := http.NewRequest(bad.method, url+bad.path, strings.NewReader(bad.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(headEpoch, bad.epoch)
		req.Header.Set(headSum, bad.sum)
		resp, err := c.nodes[0].client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if k := resp.Header.Get(headKind); resp.StatusCode/100 == 2 || k == "" || k == object.KindInternal.String() {
			t.Errorf("%s %s: status %d, kind %q", bad.method, bad.path, resp.StatusCode, k)
		}
	}
}
