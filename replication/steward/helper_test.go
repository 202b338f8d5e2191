package steward_test

import (
	"context"
	"encoding/binary"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

const (
	methodPropose uint16 = 0xF1
	methodState   uint16 = 0xF2
	methodWrite   uint16 = 0xF3
)

// machine is a partition's state machine on Badger: the control state in partition
// 0, counters of keys elsewhere.
type machine struct {
	*meta.Partition
	applied func()
}

func (m *machine) Apply(entries []group.Entry) ([]any, error) {
	tx := m.Begin()
	defer tx.Discard()
	results := make([]any, len(entries))
	for i, e := range entries {
		if m.ID() == object.Control {
			c, err := control.DecodeCommand(e.Data)
			if err != nil {
				return nil, err
			}
			if results[i], err = control.Apply(tx, c); err != nil {
				return nil, err
			}
			continue
		}
		if err := tx.Set(e.Data, binary.BigEndian.AppendUint64(nil, e.Index)); err != nil {
			return nil, err
		}
	}
	if err := tx.Commit(entries[len(entries)-1].Index); err != nil {
		return nil, err
	}
	m.applied()
	return results, nil
}

func (m *machine) Image() (*group.Image, error) { return namespace.ExportPartition(m.Partition) }

func (m *machine) Restore(ctx context.Context, r io.Reader) error {
	defer m.applied()
	return namespace.ImportPartition(ctx, m.Partition, r, 100, 32<<10)
}

// keys are those that a data partition has.
func (m *machine) keys() map[string]bool {
	v, list := m.View(), map[string]bool{}
	defer v.Close()
	_ = v.Ascend(nil, nil, func(k, _ []byte) (bool, error) { list[string(k)] = true; return true, nil })
	return list
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, or fails after a deadline, saying what the test knows.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("in vain: %s\n%s", what, c.describe())
		}
	}
}

// cluster is the nodes of a test, in one process.
type cluster struct {
	t      testing.TB
	secret transport.Secret
	all    []*node
	set    control.Settings
	killer *killer
	acked  map[object.PartitionID][]string

	mu sync.Mutex // guards all and the nodes' processes; only the test's goroutine changes them
}

// node is one node, whose parts are opened and closed as a process would.
type node struct {
	c     *cluster
	id    string
	dir   string
	store control.StoreID
	addr  string              // where it listens; "": anywhere
	again control.Incarnation // of the next process; zero: a new one
	join  []string

	*process
}

// process is one life of a node. It implements steward.Host.
type process struct {
	n       *node
	life    control.Incarnation
	wire    *transport.Node
	wires   *wires
	book    *steward.Book
	log     *wal.Log
	db      *meta.DB
	steward *steward.Steward
	started chan error // one: what Start gave
	ctx     context.Context
	end     context.CancelFunc
	dead    chan struct{} // closed when it is killed: nothing that it does counts any more
	once    sync.Once

	mu   sync.Mutex
	open map[object.PartitionID]*replica
}

// replica is an open one, and steward.Group on today's group.
type replica struct {
	*group.Group
	p  *process
	id string
	m  *machine
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t, secret: transport.NewSecret(), set: control.DefaultSettings(), acked: map[object.PartitionID][]string{}, killer: &killer{}}
	c.set.MovesPerNode = 8
	t.TempDir() // first, so that directories go after the nodes have stopped
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, n := range c.all {
			wg.Go(n.stop)
		}
		wg.Wait()
	})
	return c
}

var stores struct {
	sync.Mutex
	n uint64
}

func unique() (b [16]byte) {
	stores.Lock()
	defer stores.Unlock()
	stores.n++
	binary.BigEndian.PutUint64(b[:], stores.n)
	b[15] = 1
	return b
}

func (c *cluster) node(id string, join ...string) *node {
	n := &node{c: c, id: id, dir: c.t.TempDir(), store: unique(), join: join}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, n)
	return n
}

// others are the ids of the nodes besides one.
func (c *cluster) others(id string) (list []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		if n.id != id {
			list = append(list, n.id)
		}
	}
	return list
}

// bootstrap makes the first node, with some data partitions.
func (c *cluster) bootstrap(id string, partitions int) *node {
	n := c.node(id)
	n.open()
	must(c.t, n.steward.Bootstrap(n.ctx, control.Bootstrap{Cluster: unique(), Partitions: partitions, Groups: 4, Settings: c.set}))
	n.start()
	n.up()
	return n
}

// add makes another node, which joins by the first one's address.
func (c *cluster) add(id string) *node {
	n := c.node(id, c.all[0].addr)
	n.open()
	n.start()
	return n
}

func testLog(id string) *slog.Logger {
	if os.Getenv("STEWARD_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("on", id)
}

// open opens a node's stores and its steward.
func (n *node) open() {
	t := n.c.t
	t.Helper()
	p := &process{n: n, life: unique(), book: steward.NewBook(), dead: make(chan struct{}), open: map[object.PartitionID]*replica{}, started: make(chan error, 1)}
	if n.again != (control.Incarnation{}) {
		p.life = n.again
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	var err error
	p.log, err = wal.Open(wal.Options{Dir: filepath.Join(n.dir, "wal"), SegmentBytes: 1 << 20})
	must(t, err)
	p.db, err = meta.Open(meta.Options{Dir: filepath.Join(n.dir, "meta"), MemTableBytes: 1 << 20, BlockCacheBytes: 1 << 20, IndexCacheBytes: 1 << 20})
	must(t, err)
	p.wire, err = transport.Open(transport.Options{Node: n.id, Advertise: n.addr, Secrets: []transport.Secret{n.c.secret}, Resolve: p.book.Resolve, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	p.wires = newWires(p.wire, n.id)
	p.wire.HandleCall(methodPropose, p.servePropose)
	p.wire.HandleCall(methodState, p.serveState)
	p.wire.HandleCall(methodWrite, p.serveWrite)
	listen := n.addr
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	n.c.eventually("the address "+listen, func() bool {
		a, err := p.wire.Listen(listen)
		if err == nil {
			n.addr = a.String()
		}
		return err == nil
	})
	p.steward, err = steward.Open(steward.Config{
		Self:    control.Join{Node: control.NodeID(n.id), Store: n.store, Incarnation: p.life, API: n.addr, Peer: n.addr, Zone: n.id, Weight: 1, Versions: control.Versions{Min: 1, Max: 1}},
		Secrets: []transport.Secret{n.c.secret}, Dir: filepath.Join(n.dir, "node"), FS: killFS{vfs.OS(), p}, Host: p, Transport: p.wire, Book: p.book,
		Propose: p.propose, State: p.state, Logger: testLog(n.id), Tick: 500 * time.Millisecond, Pause: 20 * time.Millisecond,
	})
	must(t, err)
	n.set(p)
}

func (n *node) set(p *process) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.process = p
}

// start has the node join or go on, beside the test; see up.
func (n *node) start() {
	p := n.process
	go func() {
		err := p.steward.Join(p.ctx, n.join)
		if err == nil {
			err = p.steward.Start(p.ctx)
		}
		p.started <- err
	}()
}

// up waits until a node serves.
func (n *node) up() {
	n.c.t.Helper()
	select {
	case err := <-n.started:
		if err != nil {
			n.c.t.Fatalf("node %s: %v", n.id, err)
		}
	case <-time.After(60 * time.Second):
		n.c.t.Fatalf("node %s does not start\n%s", n.id, n.c.describe())
	}
}

func (p *process) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// kill ends a node at once: nothing of it takes effect from now on.
func (p *process) kill() { p.once.Do(func() { close(p.dead) }) }

// stop ends a node and closes its stores; a later open starts it again.
func (n *node) stop() {
	p := n.process
	if p == nil {
		return
	}
	p.kill()
	p.end()
	_ = p.wire.Close()
	_ = p.steward.Close()
	p.mu.Lock()
	left := p.open
	p.mu.Unlock()
	for _, r := range left {
		_ = r.Group.Close()
	}
	_ = p.log.Close()
	_ = p.db.Close()
	n.set(nil)
}

func (n *node) restart() {
	n.stop()
	n.open()
	n.start()
}

// TestMain lets more tests run at once than there are processors: they wait for
// elections most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
