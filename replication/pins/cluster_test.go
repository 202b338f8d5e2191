package pins

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// lasts is the lease period of the nodes that talk over real connections.
const lasts = time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, or fails after ten times what is to be expected.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * lasts); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// log stands in for the partition: a file whose version rises with each entry,
// and the bytes of all versions that were not reclaimed.
type log struct {
	mu      sync.Mutex // guards what follows
	version uint64
	bytes   map[uint64]bool
}

func (l *log) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version++
	l.bytes[l.version] = true
}

func (l *log) now() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

func (l *log) has(v uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes[v]
}

// garbage is every version but the last; a version is retired by the next one.
func (l *log) garbage() (items []Item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for v := range l.bytes {
		if v < l.version && len(items) < MaxItems {
			items = append(items, Item{Inode: 1, At: v + 1})
		}
	}
	return items
}

func (l *log) drop(items []Item, free []bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, it := range items {
		if free[i] {
			delete(l.bytes, it.At-1)
		}
	}
}

// cluster is three nodes over loopback, with a proxy for each direction of each pair.
type cluster struct {
	log
	names   []string
	leader  atomic.Int32
	term    atomic.Uint64
	tables  []*Table
	proxies map[[2]string]*proxy.Proxy
}

func startCluster(t *testing.T) *cluster {
	c := &cluster{names: []string{"a", "b", "c"}, proxies: map[[2]string]*proxy.Proxy{}}
	c.bytes = map[uint64]bool{}
	c.term.Store(1)
	c.write()
	ctx, cancel := context.WithCancel(t.Context())
	secret := transport.NewSecret()
	nodes := make([]*transport.Node, len(c.names))
	var book sync.Map // [from, to] → address
	for i, self := range c.names {
		n, err := transport.Open(transport.Options{Cluster: "c1", Node: self, Secrets: []transport.Secret{secret},
			Resolve: func(node string) (string, error) {
				addr, ok := book.Load([2]string{self, node})
				if !ok {
					return "", object.Errorf(object.KindUnavailable, "no address of node %s yet", node)
				}
				return addr.(string), nil
			}})
		must(t, err)
		nodes[i] = n
		table, err := New(Options{Node: self, Period: lasts, Partitions: 1, Call: n.Call,
			Leader: func(object.PartitionID) (string, bool) { return c.names[c.leader.Load()], true },
			Leads: func(context.Context, object.PartitionID) (uint64, error) {
				if int(c.leader.Load()) != i {
					return 0, object.Errorf(object.KindUnavailable, "another leads")
				}
				return c.term.Load(), nil
			}})
		must(t, err)
		table.Serve(n)
		c.tables = append(c.tables, table)
	}
	for _, to := range nodes {
		addr, err := to.Listen("127.0.0.1:0")
		must(t, err)
		for i, from := range c.names {
			if nodes[i] != to {
				at := [2]string{from, c.names[index(nodes, to)]}
				c.proxies[at] = proxy.New(t, addr.String())
				book.Store(at, c.proxies[at].Addr())
			}
		}
	}
	var work sync.WaitGroup
	for i, table := range c.tables {
		work.Go(func() { table.Run(ctx) })
		work.Go(func() { c.reclaimer(ctx, i) })
	}
	t.Cleanup(func() {
		cancel()
		for _, n := range nodes {
			must(t, n.Close())
		}
		work.Wait()
	})
	return c
}

func index(nodes []*transport.Node, n *transport.Node) int {
	for i := range nodes {
		if nodes[i] == n {
			return i
		}
	}
	return -1
}

// reclaimer is what a node does while it leads, and tries to while it does not.
func (c *cluster) reclaimer(ctx context.Context, i int) {
	for ctx.Err() == nil {
		items := c.garbage()
		free, err := c.tables[i].Partition(0).Free(ctx, items)
		if err == nil {
			c.drop(items, free)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// open opens a reader at a node: lease, pin, view, in this order.
func (c *cluster) open(t *testing.T, node int) (Pin, uint64) {
	t.Helper()
	var pin Pin
	eventually(t, "a pin", func() (ok bool) {
		var err error
		pin, err = c.tables[node].Partition(0).Pin(t.Context(), 1)
		return err == nil
	})
	v := c.now()
	pin.Move(v)
	return pin, v
}

// hang stops what goes from one node to another, and the answers to it, or lets it go on.
func (c *cluster) hang(from, to string, hang bool) {
	if p := c.proxies[[2]string{from, to}]; hang {
		p.Hang()
	} else {
		p.Resume()
	}
}

func (c *cluster) isolate(node string, hang bool) {
	for _, other := range c.names {
		if other != node {
			c.hang(node, other, hang)
			c.hang(other, node, hang)
		}
	}
}

// read reads a pinned version until its pin is lost; the bytes must have been
// there whenever the pin still stands afterwards.
func (c *cluster) read(t *testing.T, pin *Pin, v uint64, until func() bool) (lost bool) {
	t.Helper()
	for !until() {
		there := c.has(v)
		if pin.Err() != nil {
			return true
		}
		if !there {
			t.Fatalf("version %d was reclaimed under its reader", v)
		}
		time.Sleep(100 * time.Microsecond)
	}
	return false
}

// TestCutOffReader: a node with a reader is cut off. Nothing goes under the
// reader while it reads, it ends within a period, and then reclaiming goes on.
func TestCutOffReader(t *testing.T) {
	c := startCluster(t)
	pin, v := c.open(t, 2)
	other, kept := c.open(t, 1)
	c.write()
	start := time.Now()
	c.read(t, &pin, v, func() bool { return time.Since(start) > 3*lasts }) // long enough to reclaim, if it could be
	if !c.has(v) || pin.Err() != nil {
		t.Fatalf("a reader that nobody cut off lost version %d: %v", v, pin.Err())
	}
	c.isolate("c", true)
	cut := time.Now()
	if !c.read(t, &pin, v, func() bool { return time.Since(cut) > 10*lasts }) {
		t.Fatal("a reader that was cut off went on")
	}
	t.Logf("the reader ended %v after the cut, the period is %v", time.Since(cut), lasts)
	// The node that still answers keeps what it has; a new version is written over.
	for range 3 {
		c.write()
	}
	pin.Release()
	other.Move(c.now())
	eventually(t, "reclaiming goes on", func() bool { return !c.has(v) && !c.has(kept) })
	if took := time.Since(cut); took < lasts {
		t.Errorf("reclaimed %v after the cut: the reader had a lease", took)
	} else {
		t.Logf("reclaiming went on %v after the cut", took)
	}
	if other.Err() != nil || !c.has(other.at) {
		t.Errorf("another node's reader lost its version: %v", other.Err())
	}
	c.isolate("c", false)
	again, v := c.open(t, 2)
	c.write()
	start = time.Now()
	if c.read(t, &again, v, func() bool { return time.Since(start) > 2*lasts }) {
		t.Error("after the cut a new reader lost its version")
	}
	if pin.Err() == nil {
		t.Error("a lost pin came back")
	}
}

// TestLeaderCannotAsk: a node renews its lease, but the leader cannot ask it.
func TestLeaderCannotAsk(t *testing.T) {
	c := startCluster(t)
	pin, v := c.open(t, 2)
	c.write()
	c.hang("a", "c", true)
	start := time.Now()
	if c.read(t, &pin, v, func() bool { return time.Since(start) > 4*lasts }) {
		t.Fatal("the reader lost its version")
	}
	pin.Release() // nothing renews the lease any more
	eventually(t, "reclaiming goes on", func() bool { return !c.has(v) })
}

// TestNewLeader: a reader outlives its leader, and the next one.
func TestNewLeader(t *testing.T) {
	c := startCluster(t)
	pin, v := c.open(t, 2)
	c.write()
	for leader := range 3 {
		c.term.Add(1)
		c.leader.Store(int32(leader))
		start := time.Now()
		free := func() bool { // what nobody has
			f, err := c.tables[leader].Partition(0).Free(t.Context(), []Item{{Inode: 2, At: 1}})
			return err == nil && f[0] || time.Since(start) > 20*lasts
		}
		if c.read(t, &pin, v, free) {
			t.Fatalf("under leader %d: %v", leader, pin.Err())
		}
		if took := time.Since(start); took < 2*lasts || took > 20*lasts {
			t.Errorf("leader %d reclaimed after %v", leader, took)
		}
	}
}
