package access

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// part is the partition of the tests.
const part = object.Control

// peers lends transport.Group the headers that it does not carry. With replica ids
// that are node ids they follow from the connection; see group.Peers.
type peers struct {
	*transport.Group
	wire *transport.Node
	self string
	rpcs chan raft.RPC
	end  chan struct{}
	once sync.Once
}

func newPeers(g *transport.Group, wire *transport.Node, self string) *peers {
	p := &peers{Group: g, wire: wire, self: self, rpcs: make(chan raft.RPC), end: make(chan struct{})}
	go p.relay()
	return p
}

func (p *peers) Consumer() <-chan raft.RPC { return p.rpcs }

// Probe is group.Prober's: a heartbeat that does not wait for the window.
func (p *peers) Probe(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	done := make(chan error, 1)
	go func() { done <- p.AppendEntries(id, to, args, resp) }()
	runtime.Gosched() // it is in the window now, or leaves with it a little later
	p.wire.FlushHeartbeats()
	return <-done
}

func (p *peers) Close() error {
	p.once.Do(func() { close(p.end) })
	return p.Group.Close()
}

func (p *peers) relay() {
	for {
		select {
		case rpc := <-p.Group.Consumer():
			p.address(rpc.Command)
			select {
			case p.rpcs <- rpc:
			case <-p.end:
				return
			}
		case <-p.end:
			return
		}
	}
}

func (p *peers) address(cmd any) {
	var h *raft.RPCHeader
	switch c := cmd.(type) {
	case *raft.AppendEntriesRequest:
		h = &c.RPCHeader
	case *raft.RequestVoteRequest:
		h = &c.RPCHeader
	case *raft.RequestPreVoteRequest:
		h = &c.RPCHeader
	case *raft.InstallSnapshotRequest:
		h = &c.RPCHeader
	case *raft.TimeoutNowRequest:
		h = &c.RPCHeader
	}
	from := string(h.ID)
	h.Addr = []byte(p.self + "\x00" + from + "\x00" + from)
}

// recorder is a machine that notes at which indexes each entry was applied.
type recorder struct {
	*Machine
	late *atomic.Int64 // how long it takes before it applies anything, in ns
	mu   sync.Mutex
	seen map[[32]byte]map[uint64]bool
}

func (r *recorder) Apply(entries []group.Entry) ([]any, error) {
	r.mu.Lock()
	for _, e := range entries {
		sum := sha256.Sum256(e.Data)
		if r.seen[sum] == nil {
			r.seen[sum] = map[uint64]bool{}
		}
		r.seen[sum][e.Index] = true
	}
	r.mu.Unlock()
	time.Sleep(time.Duration(r.late.Load()))
	return r.Machine.Apply(entries)
}

func (r *recorder) times(entry []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen[sha256.Sum256(entry)])
}

// node is one node of a test, with or without a replica.
type node struct {
	c     *cluster
	id    string
	dir   string
	check atomic.Pointer[func(entry []byte) error]

	*Partitions
	wire    *transport.Node
	log     *wal.Log
	db      *meta.DB
	group   *group.Group
	machine *recorder
	late    atomic.Int64                 // see recorder
	seen    map[[32]byte]map[uint64]bool // across restarts
	users   sync.WaitGroup               // of views, which must end before the store closes
}

type cluster struct {
	t       testing.TB
	secret  transport.Secret
	all     []*node // the last has no replica
	proxies map[[2]string]*proxy
	places  []Place
	step    time.Duration // ReadWait
	wait    time.Duration // ProposeWait and RepeatWait
	longest time.Duration // ProposeWait, when it is more
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, what string, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("%s: %v, want kind %v", what, err, k)
	}
}

// eventually polls until ok, or fails after a deadline.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func testLog() *slog.Logger {
	if os.Getenv("ACCESS_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start makes a partition with replicas at a, b and c, of which a leads, and node
// d, which has none. The root directory is there.
func start(t testing.TB) *cluster {
	t.Helper()
	return startWith(t, 0)
}

// startWith is start with another time for attempts at proposals than the default.
func startWith(t testing.TB, wait time.Duration) *cluster {
	t.Helper()
	c := &cluster{t: t, secret: transport.NewSecret(), proxies: map[[2]string]*proxy{}, step: time.Second, wait: wait}
	for _, id := range []string{"a", "b", "c", "d"} {
		n := &node{c: c, id: id, dir: t.TempDir(), seen: map[[32]byte]map[uint64]bool{}}
		c.all = append(c.all, n)
		for _, to := range []string{"a", "b", "c", "d"} {
			c.proxies[[2]string{id, to}] = newProxy(t)
		}
		if id != "d" {
			c.places = append(c.places, Place{Replica: id, Node: id})
		}
	}
	for _, n := range c.all {
		n.open()
	}
	t.Cleanup(func() {
		for _, n := range c.all {
			n.stop()
		}
	})
	c.lead(c.all[0])
	c.must(c.all[0].do(within(t, 10*time.Second), &namespace.Command{Init: &namespace.Init{}}))
	return c
}

// open starts a node, or starts it again.
func (n *node) open() {
	t := n.c.t
	t.Helper()
	var err error
	n.wire, err = transport.Open(transport.Options{Cluster: "c1", Node: n.id, Secrets: []transport.Secret{n.c.secret},
		BeatWindow: 100 * time.Microsecond, Logger: testLog(),
		Resolve: func(to string) (string, error) { return n.c.proxies[[2]string{n.id, to}].addr(), nil }})
	must(t, err)
	if n.id != "d" {
		n.openReplica()
	}
	n.Partitions, err = New(Config{Self: n.id, Transport: n.wire, Logger: testLog(), ReadWait: n.c.step, ProposeWait: max(n.c.wait, n.c.longest), RepeatWait: n.c.wait,
		Check: func(_ context.Context, _ object.PartitionID, entry []byte) error {
			if f := n.check.Load(); f != nil {
				return (*f)(entry)
			}
			return nil
		}})
	must(t, err)
	n.Update(1, map[object.PartitionID][]Place{part: n.c.places})
	if n.group != nil {
		must(t, n.Attach(part, Replica{ID: n.id, Group: n.group, Machine: n.machine.Machine}))
	}
	addr, err := n.wire.Listen("127.0.0.1:0")
	must(t, err)
	for _, from := range n.c.all {
		n.c.proxies[[2]string{from.id, n.id}].target.Store(addr.String())
	}
}

func (n *node) openReplica() {
	t := n.c.t
	t.Helper()
	var err error
	n.log, err = wal.Open(wal.Options{Dir: filepath.Join(n.dir, "wal"), SegmentBytes: 4 << 20})
	must(t, err)
	n.db, err = meta.Open(meta.Options{Dir: filepath.Join(n.dir, "meta"), MemTableBytes: 8 << 20, BlockCacheBytes: 4 << 20, IndexCacheBytes: 4 << 20})
	must(t, err)
	keys, bytes := n.db.MaxTxn()
	n.machine = &recorder{Machine: NewMachine(namespace.Options{Partition: part, Store: n.db.Partition(part), MaxKeys: keys, MaxBytes: bytes, Logger: testLog()}), late: &n.late, seen: n.seen}
	tg, err := n.wire.Group(part)
	must(t, err)
	var list []group.Member
	for _, at := range n.c.places {
		list = append(list, group.Member{ID: at.Replica, Address: at.Node, Voter: true})
	}
	n.group, err = group.Open(group.Config{ID: part, Node: n.id, Log: n.log.Group(part), Machine: n.machine, Transport: newPeers(tg, n.wire, n.id),
		Dir: filepath.Join(n.dir, "groups"), Bootstrap: true, Members: list, Logger: testLog()})
	must(t, err)
}

// stop ends a node as the others see it: at once.
func (n *node) stop() {
	t := n.c.t
	t.Helper()
	if n.wire == nil {
		return
	}
	must(t, n.wire.Close())
	n.Partitions.Close()
	n.users.Wait()
	if n.group != nil {
		must(t, n.group.Close())
		must(t, n.log.Close())
		must(t, n.db.Close())
	}
	n.wire, n.group = nil, nil
}

func (c *cluster) must(r *namespace.Result, err error) *namespace.Result {
	c.t.Helper()
	must(c.t, err)
	must(c.t, r.Err())
	return r
}

// running are the nodes that run and have a replica.
func (c *cluster) running() (list []*node) {
	for _, n := range c.all {
		if n.wire != nil && n.group != nil {
			list = append(list, n)
		}
	}
	return list
}

// leader waits for a leader that a majority confirms, among the given (nil: all that run).
func (c *cluster) leader(among ...*node) (found *node) {
	c.t.Helper()
	if among == nil {
		among = c.running()
	}
	eventually(c.t, "a leader", func() bool {
		i := slices.IndexFunc(among, func(n *node) bool { return n.group != nil && n.group.IsLeader() })
		if i < 0 {
			return false
		}
		found = among[i]
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		defer cancel()
		return found.group.Read(ctx) == nil
	})
	return found
}

// lead makes n the leader.
func (c *cluster) lead(n *node) {
	c.t.Helper()
	eventually(c.t, n.id+" as the leader", func() bool {
		l := c.leader()
		if l == n {
			return true
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		defer cancel()
		_ = l.group.TransferLeadership(ctx, n.id)
		return false
	})
}

// others are the nodes besides n, with d.
func (c *cluster) others(n *node) (list []*node) {
	for _, m := range c.all {
		if m != n && m.wire != nil {
			list = append(list, m)
		}
	}
	return list
}

// wires calls f for every connection from or to a node.
func (c *cluster) wires(n *node, f func(p *proxy)) {
	for pair, p := range c.proxies {
		if pair[0] == n.id || pair[1] == n.id {
			f(p)
		}
	}
}

var clock atomic.Int64 // makes entries unique

func encode(t testing.TB, cmd *namespace.Command) []byte {
	t.Helper()
	cmd.Now = time.Now().UnixNano()/1e6*1e6 + clock.Add(1)%1e6
	b, err := cmd.Encode()
	must(t, err)
	return b
}

func (n *node) do(ctx context.Context, cmd *namespace.Command) (*namespace.Result, error) {
	n.c.t.Helper()
	return n.Propose(ctx, part, encode(n.c.t, cmd))
}

// again is do for what may be done twice: on a busy machine a leader is deposed now
// and then with the entry in its log.
func (n *node) again(ctx context.Context, cmd *namespace.Command) (*namespace.Result, error) {
	n.c.t.Helper()
	return n.ProposeRepeatable(ctx, part, encode(n.c.t, cmd))
}

// file makes a file of the root directory.
func (c *cluster) file(name string) object.InodeID {
	c.t.Helper()
	r := c.must(c.leader().do(within(c.t, time.Minute), &namespace.Command{Put: &namespace.Put{Dir: object.RootInode, Name: name, Exclusive: true,
		Node: object.Inode{Type: object.TypeRegular, Mode: 0o644}, Body: namespace.Body{Size: 8, Inline: make([]byte, 8)}}}))
	return r.Inode.ID
}

// write is a command that sets a file to a number.
func write(id object.InodeID, v uint64) *namespace.Command {
	return &namespace.Command{Splice: &namespace.Splice{Inode: id, Length: 8, Data: binary.BigEndian.AppendUint64(nil, v)}}
}

// read reads it.
func (n *node) read(ctx context.Context, id object.InodeID) (uint64, error) {
	v, err := n.View(ctx, part)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	b, err := v.Inline(id)
	if err == nil && len(b) != 8 {
		err = fmt.Errorf("file %v has %d bytes", id, len(b))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// TestMain lets more tests run at once than there are processors: they wait for
// elections most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
