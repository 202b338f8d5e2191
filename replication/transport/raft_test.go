package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// tally is a state machine that counts and keeps what it was given.
type tally struct {
	mu    sync.Mutex
	log   []string
	bytes int
}

func (m *tally) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes += len(l.Data)
	m.log = append(m.log, string(l.Data[:min(len(l.Data), 16)]))
	return len(m.log)
}

func (m *tally) has(s string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.log, s)
}

func (m *tally) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &picture{bytes: make([]byte, m.bytes)}, nil
}

func (m *tally) Restore(r io.ReadCloser) error {
	n, err := io.Copy(io.Discard, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log, m.bytes = nil, int(n)
	return err
}

type picture struct{ bytes []byte }

func (p *picture) Persist(s raft.SnapshotSink) error {
	if _, err := s.Write(p.bytes); err != nil {
		return errors.Join(err, s.Cancel())
	}
	return s.Close()
}

func (p *picture) Release() {}

// replica is one raft group on one node, with its log in memory.
type replica struct {
	r     *raft.Raft
	g     *Group
	fsm   *tally
	store *raft.InmemStore
}

// raftConfig is raft's settings for a replica that is named like its node.
func raftConfig(n *Node) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.opt.Node)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Second, time.Second, time.Second
	c.CommitTimeout = 500 * time.Millisecond
	c.BatchApplyCh, c.NoLegacyTelemetry = true, true
	c.TrailingLogs = 4
	c.Logger = hclog.NewNullLogger()
	if os.Getenv("TRANSPORT_LOG") != "" {
		c.Logger = hclog.New(&hclog.LoggerOptions{Name: n.opt.Node, Level: hclog.Info})
	}
	return c
}

// startReplica starts a group's replica, which is named like its node; setup, if
// any, changes raft's settings. Voters: replica ids.
func startReplica(t testing.TB, n *Node, id object.PartitionID, voters []string, snapDir string, setup func(*raft.Config)) *replica {
	t.Helper()
	c := raftConfig(n)
	if setup != nil {
		setup(c)
	}
	return startOn(t, n, id, voters, snapDir, c, raft.NewInmemStore())
}

// startOn is startReplica with a log that may have been used before.
func startOn(t testing.TB, n *Node, id object.PartitionID, voters []string, snapDir string, c *raft.Config, store *raft.InmemStore) *replica {
	t.Helper()
	g, err := n.Group(id)
	must(t, err)
	var snaps raft.SnapshotStore = raft.NewInmemSnapshotStore()
	if snapDir != "" {
		snaps, err = raft.NewFileSnapshotStoreWithLogger(snapDir, 1, c.Logger)
		must(t, err)
	}
	rep := &replica{g: g, fsm: &tally{}, store: store}
	var servers []raft.Server
	for _, v := range voters {
		node, _, _ := strings.Cut(v, "#")
		servers = append(servers, raft.Server{ID: raft.ServerID(v), Address: raft.ServerAddress(node)})
	}
	if len(servers) > 0 {
		must(t, raft.BootstrapCluster(c, store, store, snaps, g, raft.Configuration{Servers: servers}))
	}
	rep.r, err = raft.NewRaft(c, rep.fsm, store, store, snaps, g)
	must(t, err)
	t.Cleanup(rep.stop)
	return rep
}

func (rep *replica) stop() {
	_ = rep.g.Close()
	_ = rep.r.Shutdown().Error()
}

func names(n int) []string { return []string{"n1", "n2", "n3", "n4", "n5"}[:n] }

// cluster is groups × nodes, without their listeners until all groups exist.
type cluster struct {
	book  *book
	nodes []*Node
	reps  [][]*replica // by group, by node
}

func startCluster(t testing.TB, groups, nodes int, secrets ...Secret) *cluster {
	t.Helper()
	return startClusterWith(t, groups, nodes, nil, secrets...)
}

func startClusterWith(t testing.TB, groups, nodes int, setup func(*raft.Config), secrets ...Secret) *cluster {
	t.Helper()
	c := &cluster{book: &book{}, reps: make([][]*replica, groups)}
	for _, name := range names(nodes) {
		c.nodes = append(c.nodes, open(t, c.book, Options{Node: name, Secrets: secrets}))
	}
	for g := range groups {
		for _, n := range c.nodes {
			c.reps[g] = append(c.reps[g], startReplica(t, n, object.PartitionID(g), names(nodes), "", setup))
		}
	}
	return c
}

// leader waits for a group's leader.
func (c *cluster) leader(t testing.TB, g int) *replica {
	t.Helper()
	var found *replica
	eventually(t, fmt.Sprintf("a leader of group %d", g), func() bool {
		for _, r := range c.reps[g] {
			if r.r.State() == raft.Leader {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// commit proposes until a leader has taken it.
func (c *cluster) commit(t testing.TB, g int, data string) {
	t.Helper()
	eventually(t, "a commit", func() bool {
		return c.leader(t, g).r.Apply([]byte(data), time.Second).Error() == nil
	})
}

func TestManyGroups(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 64, 3, NewSecret())
	var wg sync.WaitGroup
	for g := range c.reps {
		wg.Go(func() {
			for i := range 5 {
				c.commit(t, g, fmt.Sprintf("g%d-%d", g, i))
			}
			eventually(t, "it reaches all replicas", func() bool {
				for _, r := range c.reps[g] {
					if !r.fsm.has(fmt.Sprintf("g%d-4", g)) {
						return false
					}
				}
				return true
			})
		})
	}
	wg.Wait()
	for _, n := range c.nodes { // 2 peers × (urgent, bulk), each way
		if k := len(n.wires()); k > 8 {
			t.Fatalf("%d connections", k)
		}
	}
}

// TestCutGroups breaks every connection again and again under load.
func TestCutGroups(t *testing.T) {
	t.Parallel()
	s := NewSecret()
	c := startCluster(t, 4, 3, s)
	var last atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for g := range c.reps {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if c.leader(t, g).r.Apply(fmt.Appendf(nil, "%d-%d", g, i), time.Second).Error() == nil {
					last.Add(1)
				}
			}
		})
	}
	for range 8 {
		was := last.Load()
		eventually(t, "commits go on", func() bool { return last.Load() > was+20 })
		for _, n := range c.nodes {
			for _, w := range n.wires() {
				_ = w.Close()
			}
		}
	}
	stop()
	wg.Wait()
	for g := range c.reps {
		c.commit(t, g, "end")
		eventually(t, "replicas agree", func() bool {
			for _, r := range c.reps[g] {
				if !r.fsm.has("end") {
					return false
				}
			}
			return true
		})
		for _, r := range c.reps[g][1:] {
			if !slices.Equal(r.fsm.log, c.reps[g][0].fsm.log) {
				t.Fatal("replicas differ")
			}
		}
	}
}

// TestCatchUp cuts a follower off for a while; it is back soon after the wire is.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 3, NewSecret())
	lead := c.leader(t, 0)
	var follower int
	for i, r := range c.reps[0] {
		if r != lead {
			follower = i
		}
	}
	name := c.nodes[follower].opt.Node
	addr, _ := c.book.resolve(name)
	c.book.set(name, "127.0.0.1:1")
	for _, w := range c.nodes[follower].wires() {
		_ = w.Close()
	}
	for i := range 50 {
		must(t, lead.r.Apply(fmt.Appendf(nil, "%d", i), time.Second).Error())
	}
	big := make([]byte, 3<<20) // several parts
	must(t, lead.r.Apply(big, time.Second).Error())
	must(t, lead.r.Apply([]byte("last"), time.Second).Error())
	began := time.Now()
	c.book.set(name, addr)
	eventually(t, "the follower catches up", func() bool { return c.reps[0][follower].fsm.has("last") })
	d := time.Since(began)
	if t.Logf("caught up in %v", d); d > 3*time.Second {
		t.Fatal("that is too slow")
	}
}

func TestLeadershipTransferAndSnapshot(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 3, NewSecret())
	lead := c.leader(t, 0)
	must(t, lead.r.LeadershipTransfer().Error())
	eventually(t, "another leader", func() bool { _, id := lead.r.LeaderWithID(); return id != "" && string(id) != lead.g.n.opt.Node })

	lead = c.leader(t, 0)
	for range 40 {
		must(t, lead.r.Apply(make([]byte, 100<<10), 5*time.Second).Error())
	}
	must(t, lead.r.Snapshot().Error())
	must(t, lead.r.Apply([]byte("after"), time.Second).Error())
	joiner := open(t, c.book, Options{Node: "n4", Secrets: secretsOf(lead.g.n)})
	must(t, lead.r.AddNonvoter("n4", "n4", 0, 5*time.Second).Error())
	// The group opens later than it is asked for: the leader goes on asking.
	rep := startReplica(t, joiner, 0, nil, t.TempDir(), nil)
	eventually(t, "the joiner has all", func() bool { return rep.fsm.has("after") })
	if rep.fsm.bytes != lead.fsm.bytes || rep.fsm.bytes < 4000<<10 {
		t.Fatalf("%d bytes of state, the leader has %d", rep.fsm.bytes, lead.fsm.bytes)
	}
}

func secretsOf(n *Node) (out []Secret) {
	n.id.mu.Lock()
	defer n.id.mu.Unlock()
	for _, c := range n.id.trusted {
		out = append(out, c.secret)
	}
	return out
}

// TestCloseEndsAppend closes a group whose AppendEntries waits for a dead peer.
func TestCloseEndsAppend(t *testing.T) {
	t.Parallel()
	bk := &book{}
	n := open(t, bk, Options{Node: "a"})
	bk.set("dead", "127.0.0.1:1")
	g, err := n.Group(1)
	must(t, err)
	got := make(chan error, 2)
	for _, prev := range []uint64{0, 1} { // a heartbeat, and no heartbeat
		go func() {
			got <- g.AppendEntries("dead", "dead", &raft.AppendEntriesRequest{Term: 2, PrevLogEntry: prev, PrevLogTerm: prev}, &raft.AppendEntriesResponse{})
		}()
	}
	eventually(t, "both wait", func() bool {
		p, _ := n.peer("dead")
		p.bulk.mu.Lock()
		defer p.bulk.mu.Unlock()
		return p.bulk.state == laneDown && p.beats.waiting()
	})
	select {
	case err := <-got:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	// A later term of this node's own raft ends them as well.
	g.inTerm(3)
	for range 2 {
		if err := <-got; err == nil {
			t.Fatal("a dead node answered")
		}
	}
	must(t, g.Close())
	if err := g.AppendEntries("dead", "dead", &raft.AppendEntriesRequest{Term: 4}, &raft.AppendEntriesResponse{}); err == nil {
		t.Fatal("a closed group sent something")
	}
}
