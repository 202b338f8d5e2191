package steward_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// TestJoin: a joiner waits for a cluster that is not there yet; what it has joined it
// knows for ever; who cannot join is told.
func TestJoin(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.node("a")
	a.open()
	b := c.node("b", "127.0.0.1:1", a.addr) // nobody; and a, which is in no cluster yet
	b.open()
	b.start()
	stranger := c.secret
	c.secret = transport.NewSecret()
	x := c.node("x", a.addr)
	x.open()
	c.secret = stranger
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := x.steward.Join(ctx, x.join); err == nil || x.steward.Joined() {
		t.Fatal("a node with another secret has joined")
	} else {
		t.Log(err)
	}
	must(t, a.steward.Bootstrap(t.Context(), control.Bootstrap{Cluster: unique(), Partitions: 1, Groups: 1, Settings: c.set}))
	a.start()
	a.up()
	b.up()
	x.stop()
	c.eventually("two nodes as planned", func() bool { return c.settled(2) })

	id, err := steward.LoadIdentity(vfs.OS(), filepath.Join(b.dir, "node"))
	must(t, err)
	if id.Secrets[0] != c.secret || id.Peers["a"] != a.addr || id.Store != b.store {
		t.Errorf("it keeps %+v", id)
	}
	info, err := os.Stat(filepath.Join(b.dir, "node", "CLUSTER.json"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the secret can be read by others: %v", info.Mode())
	}

	// The process before the last one comes to life again.
	first := b.process.life
	b.join = nil // it needs nobody to tell it where the cluster is
	b.restart()
	b.up()
	b.stop()
	b.again = first
	b.open()
	b.start()
	select {
	case err := <-b.started:
		if !object.IsKind(err, object.KindStale) || !strings.Contains(err.Error(), "later process") {
			t.Fatalf("a process that was replaced: %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("a process that was replaced waits")
	}
}

// TestLostLog: a node loses its logs, then its records, too. Its replicas are made anew,
// under ids that were never used.
func TestLostLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.bootstrap("a", 1)
	c.add("b").up()
	n := c.add("c")
	n.up()
	c.eventually("three voters", func() bool { return c.settled(3) })
	for _, more := range []string{"", "node/REPLICAS"} {
		c.write("before" + more)
		before := generations(c.must(), "c")
		n.stop()
		for _, dir := range []string{"wal", "meta", "groups"} {
			must(t, os.RemoveAll(filepath.Join(n.dir, dir)))
		}
		if more != "" {
			must(t, os.Remove(filepath.Join(n.dir, more)))
		}
		n.open()
		n.start()
		n.up()
		c.eventually("new replicas on c", func() bool {
			s := c.now()
			if s == nil || !c.settled(3) {
				return false
			}
			after := generations(s, "c")
			return len(after) == 2 && slices.Min(after) > slices.Max(before)
		})
		c.check()
	}
}

// generations of the replicas that a node has.
func generations(s *control.State, node control.NodeID) (list []uint64) {
	for _, p := range s.Partitions {
		for _, r := range p.Replicas {
			if r.ID.Node == node {
				list = append(list, r.ID.Generation)
			}
		}
	}
	return list
}

// TestWiped: a node whose disks are empty comes back under its name. It waits until the
// old one was removed, and then it is a new one.
func TestWiped(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.set.GoneAfter = 3 * time.Second
	c.bootstrap("a", 1)
	c.add("b").up()
	n := c.add("c")
	n.up()
	c.eventually("three voters", func() bool { return c.settled(3) })
	c.write("before")
	before := generations(c.must(), "c")
	n.stop()
	n.dir, n.store = t.TempDir(), unique()
	n.open()
	n.start()
	c.eventually("the silent node to count as gone", func() bool { s := c.now(); return s != nil && s.Node("c").Gone })
	if n.steward.Joined() {
		t.Fatal("it took the place of another store")
	}
	c.eventually("the old node to be removed", func() bool { return c.do(&control.Command{Remove: &control.Remove{Node: "c"}}) == nil })
	n.up()
	c.eventually("new replicas on c", func() bool {
		s := c.now()
		return s != nil && c.settled(3) && slices.Min(generations(s, "c")) > slices.Max(before)
	})
	c.check()
}

// TestAddressChange: two of three nodes come back at other addresses, so that the third
// has no majority that could commit where they are, until they have told it.
func TestAddressChange(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.bootstrap("a", 1)
	b, d := c.add("b"), c.add("c")
	b.up()
	d.up()
	c.eventually("three voters", func() bool { return c.settled(3) })
	c.write("before")
	old := []string{b.addr, d.addr}
	b.stop()
	d.stop()
	b.addr, d.addr = "", ""
	b.open()
	d.open()
	b.start()
	d.start()
	b.up()
	d.up()
	c.eventually("everything as planned", func() bool { return c.settled(3) })
	c.write("after")
	c.check()
	if s := c.must(); s.Node("b").Peer != b.addr || s.Node("c").Peer != d.addr || slices.Contains(old, b.addr) {
		t.Errorf("b is said to be at %s, c at %s", s.Node("b").Peer, s.Node("c").Peer)
	}
	// Without a, the two have to find each other.
	c.all[0].stop()
	c.write("without the first")
	c.all[0].open()
	c.all[0].start()
	c.all[0].up()
	c.eventually("everything as planned", func() bool { return c.settled(3) })
	c.check()
}
