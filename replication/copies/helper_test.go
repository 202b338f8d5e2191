package copies

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	rand2 "math/rand"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// A test in which something hangs has hungStall, which is short enough to wait
// for; the others must not fail on a busy machine.
const (
	hungStall = 4 * time.Second
	calmStall = 30 * time.Second
)

// node is one holder: a real store on a faulty disk, behind the real transport
// with its secret, behind a proxy that can hang and cut.
type node struct {
	c     *cluster
	name  string
	dir   string
	disk  *vfs.Faulty
	power *vfs.PowerCut // below disk, where that is in memory
	local *chunk.Store
	store *Store
	wire  *transport.Node
	proxy *proxy.Proxy
	bend  atomic.Bool // flips a bit of what it is sent, and of what it answers

	mu      sync.Mutex // guards what follows
	layouts map[int]*placement.Layout
	dead    map[object.ChunkID]bool // what owners do not want, as this node is told
	newMap  chan struct{}           // closed and replaced
}

type cluster struct {
	t      *testing.T
	nodes  []*node
	onDisk bool
	stall  time.Duration
	late   int64

	waiting atomic.Int32 // nodes that wait for a newer map

	mu     sync.Mutex // guards missed
	missed []string
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kinds ...object.Kind) {
	t.Helper()
	if err == nil || !slices.Contains(kinds, object.KindOf(err)) {
		t.Fatalf("error %v, want kind %v", err, kinds)
	}
}

// start makes n nodes with disks in memory, and layouts for each of the widths.
func start(t *testing.T, n int, widths ...int) *cluster {
	t.Helper()
	return startOn(&cluster{t: t, stall: calmStall}, n, widths...)
}

// startHung is start for tests that wait until a hung node is given up.
func startHung(t *testing.T, n int, widths ...int) *cluster {
	t.Helper()
	return startOn(&cluster{t: t, stall: hungStall}, n, widths...)
}

func startOn(c *cluster, n int, widths ...int) *cluster {
	t := c.t
	t.Helper()
	t.Parallel()
	secret, addrs := transport.NewSecret(), &sync.Map{}
	for i := range n {
		c.nodes = append(c.nodes, c.node(fmt.Sprintf("n%d", i), secret, addrs))
	}
	for _, w := range widths {
		l, err := placement.NewLayout(c.members(), w, 8, 1)
		must(t, err)
		c.adopt(l, c.nodes...)
	}
	return c
}

func (c *cluster) members() (list []placement.Node) {
	for _, n := range c.nodes {
		list = append(list, placement.Node{ID: placement.NodeID(n.name), Weight: 1})
	}
	return list
}

func (c *cluster) node(name string, secret transport.Secret, addrs *sync.Map) *node {
	t := c.t
	n := &node{c: c, name: name, dir: t.TempDir(), layouts: map[int]*placement.Layout{}, dead: map[object.ChunkID]bool{}, newMap: make(chan struct{})}
	var err error
	n.wire, err = transport.Open(transport.Options{Cluster: "c1", Node: name, Secrets: []transport.Secret{secret}, Resolve: func(to string) (string, error) {
		if a, ok := addrs.Load(to); ok {
			return a.(string), nil
		}
		return "", object.Errorf(object.KindUnavailable, "no address of %s", to)
	}})
	must(t, err)
	if n.disk = vfs.NewFaulty(vfs.OS()); !c.onDisk {
		n.power = vfs.NewPowerCut()
		n.disk = vfs.NewFaulty(n.power)
	}
	n.boot()
	addr, err := n.wire.Listen("127.0.0.1:0")
	must(t, err)
	n.proxy = proxy.New(t, addr.String())
	addrs.Store(name, n.proxy.Addr())
	t.Cleanup(func() {
		must(t, n.wire.Close())
		n.store.Close()
		must(t, n.local.Close())
	})
	return n
}

// boot opens the store on its disk, and serves it.
func (n *node) boot() {
	t := n.c.t
	var err error
	n.local, err = chunk.Open(chunk.Options{FS: n.disk, Dirs: []string{n.dir}, Compression: chunk.S2, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	n.store, err = New(Options{Self: n.name, Local: n.local, Locate: n.locate, Client: n.wire.HTTPClient, Newer: n.newer, Live: n.live, Stall: n.c.stall, Late: n.c.late,
		RepairRate: 1 << 40, Missed: func(_ Chunk, node string, _ error) {
			n.c.mu.Lock()
			defer n.c.mu.Unlock()
			n.c.missed = append(n.c.missed, node)
		}})
	must(t, err)
	inner := n.store.Handler()
	n.wire.HandleHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.bend.Load() {
			r.Body, w = io.NopCloser(&bender{Reader: r.Body}), &benderWriter{ResponseWriter: w}
		}
		inner.ServeHTTP(w, r)
	}))
}

// crash cuts the power and boots again, on what was durable and some of the rest.
func (n *node) crash() {
	n.store.Close()
	_ = n.local.Close() // the power is gone, perhaps
	n.power = n.power.Crash(rand2.New(rand2.NewSource(rand.Int64())))
	n.disk = vfs.NewFaulty(n.power)
	n.boot()
}

func (n *node) locate(id object.ChunkID, s Scheme) (placement.Site, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.layouts[s.Width()]; l != nil {
		return l.Locate(id), nil
	}
	return placement.Site{}, object.Errorf(object.KindUnavailable, "no layout of width %d", s.Width())
}

func (n *node) newer(ctx context.Context, epoch uint64) error {
	n.c.waiting.Add(1)
	defer n.c.waiting.Add(-1)
	for {
		n.mu.Lock()
		know := uint64(0)
		for _, l := range n.layouts {
			know = max(know, l.Epoch)
		}
		wait := n.newMap
		n.mu.Unlock()
		if know >= epoch {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *node) live(_ context.Context, id object.ChunkID) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.dead[id], nil
}

func (n *node) reject(id object.ChunkID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead[id] = true
}

// adopt gives nodes a layout.
func (c *cluster) adopt(l *placement.Layout, nodes ...*node) {
	for _, n := range nodes {
		n.mu.Lock()
		n.layouts[l.Width] = l
		close(n.newMap)
		n.newMap = make(chan struct{})
		n.mu.Unlock()
	}
}

// holders are the nodes of a chunk, copy or shard 0 first, and those that hold nothing.
func (c *cluster) holders(id object.ChunkID, s Scheme) (in, out []*node) {
	site, err := c.nodes[0].locate(id, s)
	must(c.t, err)
	for i := range site.Width() {
		for _, n := range c.nodes {
			if n.name == string(site.Next(i)) {
				in = append(in, n)
			}
		}
	}
	for _, n := range c.nodes {
		if !slices.Contains(in, n) {
			out = append(out, n)
		}
	}
	return in, out
}

func (c *cluster) missing() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.missed)
}

// run starts the repairs of all nodes.
func (c *cluster) run() {
	for _, n := range c.nodes {
		go n.store.Run(c.t.Context())
	}
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

// benderWriter flips a bit of every large piece that it writes.
type benderWriter struct{ http.ResponseWriter }

func (b *benderWriter) Write(p []byte) (int, error) {
	if len(p) > 100 {
		p = slices.Clone(p)
		p[50] ^= 1
	}
	return b.ResponseWriter.Write(p)
}

func (b *benderWriter) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func someID() (id object.ChunkID) {
	id.Owner, id.Ordinal = 5, rand.Uint32N(9)
	for i := range id.Upload {
		id.Upload[i] = byte(rand.IntN(256))
	}
	return id
}

func someData(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(rand.IntN(256)), byte(n)}).Read(data) // never fails
	return data
}

// putIn stores data in pieces, scribbles over them once they are released, and
// tells when that was.
func putIn(ctx context.Context, n *node, id object.ChunkID, s Scheme, data []byte) (Chunk, <-chan struct{}, error) {
	var pieces [][]byte
	for piece := range slices.Chunk(slices.Clone(data), 2*chunk.FrameSize) {
		pieces = append(pieces, piece)
	}
	released := make(chan struct{})
	c, err := n.store.PutPieces(ctx, id, s, pieces, func() {
		for _, p := range pieces {
			clear(p) // the race detector sees whoever reads on
		}
		close(released) // twice would panic
	})
	return c, released, err
}

// put is putIn that has to succeed, and waits for the last holder.
func (c *cluster) put(n *node, id object.ChunkID, s Scheme, data []byte) Chunk {
	c.t.Helper()
	ch, released, err := putIn(c.t.Context(), n, id, s, data)
	must(c.t, err)
	within(c.t, "the release of the pieces", released)
	in, _ := c.holders(id, s)
	for i, h := range in {
		eventually(c.t, h.name+" has its copy", func() bool { return h.has(ch, i) })
	}
	return ch
}

func (n *node) has(c Chunk, shard int) bool {
	_, err := n.store.open(context.Background(), c, shard)
	return err == nil && n.local.Verify(context.Background(), c.ID) == nil
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: did not happen", what)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen", what)
		}
	}
}

// file opens the file of a chunk at a node.
func (n *node) file(t *testing.T, id object.ChunkID) (vfs.File, int64) {
	t.Helper()
	path := filepath.Join(n.dir, "chunks", fmt.Sprintf("%04x", uint16(id.Owner)), fmt.Sprintf("%02x", id.Upload[0]), id.String())
	f, err := n.disk.OpenFile("test", path, os.O_RDWR, 0)
	must(t, err)
	st, err := f.Stat()
	must(t, err)
	return f, st.Size()
}

// damage flips a bit in the middle of a node's copy.
func (n *node) damage(t *testing.T, id object.ChunkID) {
	t.Helper()
	f, size := n.file(t, id)
	b := make([]byte, 1)
	_, err := f.ReadAt(b, size/2)
	must(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b, size/2)
	must(t, err)
	must(t, f.Close())
}
