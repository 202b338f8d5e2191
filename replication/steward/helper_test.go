package steward_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/gob"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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

	mu        sync.Mutex
	config    uint64
	committed []group.Member
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

// --- steward.Host

func (p *process) Open(_ context.Context, id object.PartitionID, replicaID control.ReplicaID, how steward.Start) (steward.Group, error) {
	if err := p.pass("open"); err != nil {
		return nil, err
	}
	r := &replica{p: p, id: replicaID.String(), m: &machine{Partition: p.db.Partition(id), applied: func() {
		if id == object.Control && p.steward != nil {
			p.steward.Wake()
		}
	}}}
	w := p.wires.open(id)
	g, err := group.Open(group.Config{
		ID: id, Node: r.id, Log: p.log.Group(id), Machine: r.m, Transport: w, Dir: filepath.Join(p.n.dir, "groups"),
		Bootstrap: how == steward.Bootstrap, Join: how == steward.Join, Members: []group.Member{{ID: r.id, Address: p.n.id, Voter: true}},
		OnLeader: func(bool, uint64) { p.steward.Wake() },
		OnMembers: func(index uint64, list []group.Member) {
			r.mu.Lock()
			r.config, r.committed = index, list
			r.mu.Unlock()
			p.steward.Wake()
		},
	})
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	r.Group = g
	p.mu.Lock()
	p.open[id] = r
	p.mu.Unlock()
	if how == steward.Bootstrap {
		if err := g.WaitReady(p.ctx); err != nil {
			return nil, err
		}
	}
	return r, p.pass("opened")
}

func (p *process) Close(id object.PartitionID, replicaID control.ReplicaID) error {
	if err := p.pass("close"); err != nil {
		return err
	}
	p.mu.Lock()
	r := p.open[id]
	delete(p.open, id)
	p.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.Group.Close()
}

func (p *process) Drop(ctx context.Context, id object.PartitionID, replicaID control.ReplicaID) error {
	if err := p.pass("drop"); err != nil {
		return err
	}
	err := group.Destroy(ctx, vfs.OS(), filepath.Join(p.n.dir, "groups"), p.log.Group(id), id, func(ctx context.Context) error {
		if err := p.db.Partition(id).DropAll(ctx); err != nil {
			return err
		}
		return p.pass("dropped the state")
	})
	if err != nil {
		return err
	}
	return p.pass("dropped")
}

func (p *process) replica(id object.PartitionID) *replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[id]
}

// --- steward.Group over today's group, which has neither prevIndex nor Observe.

func (r *replica) Observe(ctx context.Context) (steward.Observation, error) {
	if err := r.Read(ctx); err != nil {
		return steward.Observation{}, err
	}
	o, ok := r.observe()
	if !ok {
		return o, object.Errorf(object.KindUnavailable, "the members are changing")
	}
	return o, nil
}

func (r *replica) observe() (o steward.Observation, ok bool) {
	st := r.Stats()
	newest := r.Members()
	r.mu.Lock()
	o.Term, o.Config, o.Members = st.ReadyTerm, r.config, newest
	ok = slices.Equal(newest, r.committed)
	r.mu.Unlock()
	for _, x := range newest {
		if other := r.p.n.c.find(x.Address); !x.Voter && other != nil {
			if f := other.replica(r.ID()); f != nil && f.id == x.ID && f.Stats().LastIndex > 0 && f.Stats().LastIndex+64 >= st.LastIndex {
				o.CaughtUp = append(o.CaughtUp, x.ID)
			}
		}
	}
	return o, ok && r.IsLeader() && r.Stats().ReadyTerm == o.Term
}

// on is where raft's prevIndex goes: here the basis is looked at just before.
func (r *replica) on(what string, on steward.Basis, change func() error) error {
	if o, ok := r.observe(); !ok || o.Basis != on {
		return object.Errorf(object.KindConflict, "the basis is another by now")
	}
	err := r.p.pass(what)
	if err == nil {
		err = change()
	}
	if err == nil {
		err = r.p.pass(what + " done")
	}
	return err
}

func (r *replica) AddNonvoter(ctx context.Context, id, address string, on steward.Basis) error {
	return r.on("add", on, func() error { return r.Group.AddNonvoter(ctx, id, address) })
}

func (r *replica) Promote(ctx context.Context, id string, on steward.Basis) error {
	return r.on("promote", on, func() error { return r.Group.Promote(ctx, id) })
}

func (r *replica) Demote(ctx context.Context, id string, on steward.Basis) error {
	return r.on("demote", on, func() error { return r.Group.Demote(ctx, id) })
}

func (r *replica) Remove(ctx context.Context, id string, on steward.Basis) error {
	return r.on("remove", on, func() error { return r.Group.Remove(ctx, id) })
}

func (r *replica) TransferLeadership(ctx context.Context, to string) error {
	if err := r.p.pass("transfer"); err != nil {
		return err
	}
	return r.Group.TransferLeadership(ctx, to)
}

// --- the control group, as access will provide it

func (c *cluster) find(id string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		if n.id == id {
			return n.process
		}
	}
	return nil
}

// anywhere does a call here if this node leads the partition, else at the others until one has done it.
func (p *process) anywhere(ctx context.Context, part object.PartitionID, method uint16, request []byte, here func(context.Context, *replica) ([]byte, error)) ([]byte, error) {
	for {
		if r := p.replica(part); r != nil && r.IsLeader() {
			if b, err := here(ctx, r); err == nil {
				return b, nil
			}
		}
		for _, id := range p.n.c.others(p.n.id) {
			try, cancel := context.WithTimeout(ctx, 3*time.Second)
			b, err := p.wire.Call(try, id, method, request)
			cancel()
			if err == nil {
				return b, nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, object.Errorf(object.KindTimeout, "no leader of partition %d answered: %w", part, ctx.Err())
		case <-p.dead:
			return nil, errKilled
		}
	}
}

func (p *process) propose(ctx context.Context, c *control.Command) (*control.Result, error) {
	if s := c.Step; s != nil {
		if err := p.pass("step " + s.To.String()); err != nil {
			return nil, err
		}
	}
	b, err := c.Encode()
	if err != nil {
		return nil, err
	}
	b, err = p.anywhere(ctx, object.Control, methodPropose, b, func(ctx context.Context, r *replica) ([]byte, error) { return proposeHere(ctx, r, b) })
	if err != nil {
		return nil, err
	}
	var out control.Result
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&out); err != nil {
		return nil, err
	}
	if s := c.Step; s != nil {
		err = p.pass("stepped " + s.To.String())
	}
	return &out, err
}

func proposeHere(ctx context.Context, r *replica, entry []byte) ([]byte, error) {
	v, err := r.Propose(ctx, entry)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = gob.NewEncoder(&b).Encode(v.(*control.Result))
	return b.Bytes(), err
}

func (p *process) servePropose(ctx context.Context, _ transport.Peer, b []byte) ([]byte, error) {
	r := p.replica(object.Control)
	if r == nil {
		return nil, object.Errorf(object.KindUnavailable, "no control replica here")
	}
	return proposeHere(ctx, r, b)
}

// records are raw ones of partition 0: a control.Reader.
type records map[string][]byte

func (m records) Get(key []byte) ([]byte, bool, error) {
	v, ok := m[string(key)]
	return v, ok, nil
}

func (m records) Ascend(start, end []byte, fn func(k, v []byte) (bool, error)) error {
	var keys []string
	for k := range m {
		if k >= string(start) && (end == nil || k < string(end)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if more, err := fn([]byte(k), m[k]); err != nil || !more {
			return err
		}
	}
	return nil
}

func (p *process) state(ctx context.Context, linearizable bool) (*control.State, error) {
	if !linearizable {
		r := p.replica(object.Control)
		if r == nil {
			return nil, object.Errorf(object.KindNotFound, "no control replica here")
		}
		v := r.m.View()
		defer v.Close()
		return control.Load(v)
	}
	b, err := p.anywhere(ctx, object.Control, methodState, nil, stateHere)
	if err != nil {
		return nil, err
	}
	m := records{}
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&m); err != nil {
		return nil, err
	}
	return control.Load(m)
}

func stateHere(ctx context.Context, r *replica) ([]byte, error) {
	if err := r.Read(ctx); err != nil {
		return nil, err
	}
	m := records{}
	v := r.m.View()
	defer v.Close()
	if err := v.Ascend(nil, nil, func(k, v []byte) (bool, error) { m[string(k)] = bytes.Clone(v); return true, nil }); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(m)
	return b.Bytes(), err
}

func (p *process) serveState(ctx context.Context, _ transport.Peer, _ []byte) ([]byte, error) {
	r := p.replica(object.Control)
	if r == nil || !r.IsLeader() {
		return nil, object.Errorf(object.KindUnavailable, "no control leader here")
	}
	return stateHere(ctx, r)
}

func (p *process) serveWrite(ctx context.Context, _ transport.Peer, b []byte) ([]byte, error) {
	r := p.replica(object.PartitionID(b[0]))
	if r == nil {
		return nil, object.Errorf(object.KindUnavailable, "no such replica here")
	}
	_, err := r.Propose(ctx, b[1:])
	return nil, err
}

// --- what tests ask

// some is a node that runs.
func (c *cluster) some() *node {
	for _, n := range c.all {
		if n.process != nil && n.alive() {
			return n
		}
	}
	c.t.Fatal("no node runs")
	return nil
}

// now is the state, linearizable; nil when there is none to be had.
func (c *cluster) now() *control.State {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := c.some().state(ctx, true)
	if err != nil {
		return nil
	}
	return s
}

// must is now, waited for.
func (c *cluster) must() (s *control.State) {
	c.t.Helper()
	c.eventually("the control state", func() bool { s = c.now(); return s != nil })
	return s
}

func (c *cluster) do(cmd *control.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := c.some().propose(ctx, cmd)
	if err != nil {
		return err
	}
	return r.Err()
}

// write puts keys into every data partition; what is acknowledged must be there for ever.
func (c *cluster) write(name string) {
	c.t.Helper()
	for p := range object.PartitionID(c.must().Header.Partitions) {
		p++
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		from := c.some().process
		_, err := from.anywhere(ctx, p, methodWrite, append([]byte{byte(p)}, name...), func(ctx context.Context, r *replica) ([]byte, error) {
			_, err := r.Propose(ctx, []byte(name))
			return nil, err
		})
		cancel()
		if err != nil {
			c.t.Fatalf("writing %s to partition %d: %v\n%s", name, p, err, c.describe())
		}
		c.acked[p] = append(c.acked[p], name)
	}
}

// settled reports whether every partition is on n voters as planned, in the map, in raft and on the nodes.
func (c *cluster) settled(n int) bool {
	s := c.now()
	if s == nil || s.Planned < s.Inputs {
		return false
	}
	for i := range s.Partitions {
		p := &s.Partitions[i]
		want := s.Target.Of(p.ID)
		voters := 0
		for _, r := range p.Replicas {
			x := c.find(string(r.ID.Node))
			if x == nil {
				return false
			}
			at := x.replica(p.ID)
			switch {
			case r.Lost || at == nil || at.id != r.ID.String():
				return false
			case r.State == control.InForce && slices.Contains(want, r.ID.Node):
				voters++
			case r.State == control.Learner && i == 0:
			default:
				return false
			}
			m := at.Members()
			k := slices.IndexFunc(m, func(m group.Member) bool { return m.ID == at.id })
			if k < 0 || m[k].Voter != (r.State == control.InForce) || len(m) != len(p.Replicas) {
				return false
			}
		}
		if voters != len(want) || i > 0 && voters != n {
			return false
		}
	}
	return true
}

// check compares the data of all replicas with what was acknowledged.
func (c *cluster) check() {
	c.t.Helper()
	s := c.must()
	for p, keys := range c.acked {
		for _, r := range s.Partitions[p].Replicas {
			at := c.find(string(r.ID.Node)).replica(p)
			c.eventually(fmt.Sprintf("%s of partition %d to have all of %d keys", r.ID, p, len(keys)), func() bool {
				have := at.m.keys()
				return !slices.ContainsFunc(keys, func(k string) bool { return !have[k] })
			})
		}
	}
}

func (c *cluster) describe() (text string) {
	s := c.now()
	if s == nil {
		return "no control state can be read"
	}
	for _, n := range s.Nodes {
		text += fmt.Sprintf("\n%s %s weight %d at %s", n.ID, n.State(), n.Weight, n.Peer)
	}
	for i := range s.Partitions {
		p := &s.Partitions[i]
		text += fmt.Sprintf("\npartition %d since %d target %v: %v;", i, p.Since, s.Target.Of(p.ID), p.Replicas)
		for _, n := range c.all {
			if n.process == nil {
				continue
			}
			if r := n.replica(p.ID); r != nil {
				st := r.Stats()
				r.mu.Lock()
				text += fmt.Sprintf(" [%s %s in %d, ready in %d, led by %q, has %d, committed %d, %v, told %v at %d]",
					r.id, st.State, st.Term, st.ReadyTerm, st.Leader, st.LastIndex, st.Committed, r.Members(), r.committed, r.config)
				r.mu.Unlock()
			}
		}
	}
	return text + fmt.Sprintf("\nepoch %d inputs %d planned %d", s.Epoch, s.Inputs, s.Planned)
}

// --- killing at a step

// killer kills the node that comes to a step of a data partition's replica.
type killer struct {
	mu     sync.Mutex
	label  string // "": nobody
	after  int    // passes before it strikes
	only   string // the node; "": any
	victim *node
}

// arm has the node killed that comes to the step after so many have passed it; id
// "": whichever comes, else only that one.
func (k *killer) arm(label string, after int, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.label, k.after, k.only, k.victim = label, after, id, nil
}

func (k *killer) struck() *node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.victim
}

// pass is called at every step that a node comes to. Once the node is killed, it fails.
func (p *process) pass(label string) error {
	k := p.n.c.killer
	k.mu.Lock()
	if k.label == label && (k.only == "" || k.only == p.n.id) && k.victim == nil && p.alive() {
		if k.after--; k.after < 0 {
			k.label, k.victim = "", p.n
			p.kill()
		}
	}
	k.mu.Unlock()
	select {
	case <-p.dead:
		return errKilled
	default:
		return nil
	}
}

// killFS is the disk of a node's records: nothing is written any more once it is killed.
type killFS struct {
	vfs.FS
	p *process
}

func (f killFS) OpenFile(op vfs.Op, name string, flag int, perm os.FileMode) (vfs.File, error) {
	if flag != os.O_RDONLY {
		if err := f.p.pass("write " + string(op)); err != nil {
			return nil, err
		}
	}
	return f.FS.OpenFile(op, name, flag, perm)
}

func (f killFS) Rename(op vfs.Op, from, to string) error {
	if err := f.p.pass("rename " + filepath.Base(to)); err != nil {
		return err
	}
	if err := f.FS.Rename(op, from, to); err != nil {
		return err
	}
	return f.p.pass("renamed " + filepath.Base(to))
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
