package group_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// What raft, left to itself, would panic at or get wrong. Labels are the log's.
var (
	readLog  = vfs.ReadOp("wal.segment.open")
	writeLog = []vfs.Op{vfs.WriteOp("wal.segment.open"), vfs.WriteOp("wal.segment.create")}
)

// onFaulty restarts a replica on a disk that can fail; its log's cache is cold then.
func (c *cluster) onFaulty(r *replica) *vfs.Faulty {
	c.t.Helper()
	disk := vfs.NewFaulty(vfs.OS())
	r.stop(c.t)
	r.disk = disk
	c.start(r, group.Config{})
	return disk
}

// TestUnreadableEntry: a follower cannot read an entry that the leader tells it is
// committed. Its group stops; the process and the other replicas go on.
func TestUnreadableEntry(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	f := c.all[2]
	c.putMany(c.all[0], "k", 20)
	c.same(c.all...)
	c.net.setCut(f.addr, true)
	disk := c.onFaulty(f)
	disk.Fail(readLog, syscall.EIO)
	c.net.setCut(f.addr, false)
	poll(t, "the group to stop", func() bool { return f.Stats().State == raft.Shutdown.String() })
	wantKind(t, "a stopped replica", f.Read(t.Context()), object.KindUnavailable)
	c.put(c.leader(c.all[:2]...), "later")
	// At the start raft reads the log, too.
	must(t, f.Close())
	disk.Clear()
	f.Group = nil
	f.stop(t)
	f.open(t)
	disk.Fail(readLog, syscall.EIO)
	f.wire = c.net.plug(f.addr)
	opened := make(chan error, 1)
	cfg := c.config(f, group.Config{})
	go func() { _, err := group.Open(cfg); opened <- err }()
	select {
	case err := <-opened:
		wantKind(t, "opening a log that cannot be read", err, object.KindUnavailable)
	case <-time.After(20 * time.Second):
		t.Fatal("it hangs at the start")
	}
	// Nothing was lost: on a sound disk it goes on.
	disk.Clear()
	f.stop(t)
	c.start(f, group.Config{})
	c.same(c.all...)
}

// TestFullDiskAtStart: a replica starts on a full disk, and follows when there is room.
func TestFullDiskAtStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	f := c.all[2]
	c.put(c.all[0], "k")
	c.same(c.all...)
	disk := c.onFaulty(f)
	f.stop(t)
	f.open(t)
	for _, op := range writeLog {
		disk.Fail(op, syscall.ENOSPC)
	}
	f.wire = c.net.plug(f.addr)
	cfg, opened := c.config(f, group.Config{}), make(chan struct{})
	var err error
	go func() { f.Group, err = group.Open(cfg); close(opened) }()
	select {
	case <-opened:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("it hangs at the start")
	}
	c.put(c.leader(), "k")
	disk.Clear()
	c.same(c.all...)
}

// TestFullDiskAtMemberChange: a leader that cannot write a new list of members to its
// log must not go by it.
func TestFullDiskAtMemberChange(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a := c.all[0]
	disk := c.onFaulty(a)
	c.put(c.leader(), "k")
	if c.leader() != a {
		must(t, c.leader().TransferLeadership(t.Context(), a.id))
	}
	c.leader(a)
	for _, op := range writeLog {
		disk.Fail(op, syscall.ENOSPC)
	}
	if err := a.Remove(t.Context(), c.all[2].id, group.Basis{}); err == nil {
		t.Error("a change that is in no log has succeeded")
	}
	for range 100 { // long enough for raft to use what it believes
		if n := len(a.Members()); n != 3 {
			t.Fatalf("it goes by %v, which is in no log", a.Members())
		}
		time.Sleep(time.Millisecond)
	}
	c.put(c.leader(c.all[1:]...), "k")
	disk.Clear()
	a.stop(t)
	c.start(a, group.Config{})
	c.same(c.all...)
	if a.m.count("k") != 2 {
		t.Errorf("counts %d", a.m.count("k"))
	}
}

// TestTooLarge: a command that no follower could be sent is refused, and harms nothing.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	if group.MaxEntry > transport.MaxEntry {
		t.Errorf("the group takes %d bytes, the transport %d", group.MaxEntry, transport.MaxEntry)
	}
	c := newCluster(t, 3)
	a := c.all[0]
	term := a.Stats().Term
	_, err := a.Propose(t.Context(), make([]byte, group.MaxEntry+1))
	wantKind(t, "a huge command", err, object.KindTooLarge)
	c.put(a, "k")
	if s := a.Stats(); s.Term != term || !a.IsLeader() {
		t.Errorf("%+v", s)
	}
}

// TestCloseWhilePeersHang: Close does not wait for peers that do not answer.
func TestCloseWhilePeersHang(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a := c.all[0]
	c.put(a, "k")
	c.net.pause("b")
	c.net.pause("c")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _, _ = a.Propose(ctx, []byte("k")) }()
	go func() { _ = a.Read(ctx) }()
	poll(t, "a proposal under way", func() bool { return a.Stats().Inflight == 1 })
	start := time.Now()
	a.stop(t)
	if took := time.Since(start); took > 6*time.Second { // 2 s for what is under way
		t.Errorf("it took %v", took)
	}
	c.net.resume("b")
	c.net.resume("c")
}

// TestTakingOverWaitsForNoPeer: a deposed leader, whose calls to a peer that is away are
// still under way, takes over a state; with it there is a majority again.
func TestTakingOverWaitsForNoPeer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a := c.all[0]
	c.put(a, "k")
	c.net.setCut(a.addr, true)
	lead := c.leaveBehind(a)
	away := c.all[1]
	if lead == away {
		away = c.all[2]
	}
	c.same(lead, away)
	c.net.setCut(away.addr, true)
	c.net.setCut(a.addr, false)
	poll(t, "the state to be taken over", func() bool { return a.restored.Load() == 1 })
	c.put(c.leader(a, lead), "k")
	c.same(a, lead) // either of them may lead, and the other hears a little later
	if n := lead.m.count("k"); n != 2 {
		t.Errorf("counts %d", n)
	}
	c.net.setCut(away.addr, false)
	c.same(c.all...)
}

// TestRestoredReplicaIsTold: what a replica missed while it was away is told to its
// node, the members too; and the words about leadership keep their order over it.
func TestRestoredReplicaIsTold(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a := c.all[0]
	var inside, overlaps atomic.Int32
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	hook := func(leader bool) {
		if inside.Add(1) > 1 {
			overlaps.Add(1)
		}
		if !leader {
			<-gate
		}
		inside.Add(-1)
	}
	a.onLeader.Store(&hook)
	seen := make(chan string, 1)
	a.m.afterward = func() error { seen <- a.Stats().State; return nil }
	c.net.setCut(a.addr, true)
	lead := c.leader(c.all[1:]...)
	must(t, lead.AddNonvoter(t.Context(), "d/1", "d", group.Basis{}))
	c.leaveBehind(a)
	c.net.setCut(a.addr, false)
	poll(t, "the state to be taken over", func() bool { return a.restored.Load() == 1 })
	if s := <-seen; s != "Restoring" {
		t.Errorf("while it took over the state it was called %q", s)
	}
	a.mu.Lock()
	if !slices.Contains(a.members, group.Member{ID: "d/1", Address: "d"}) {
		t.Errorf("it was told of %v", a.members)
	}
	a.mu.Unlock()
	c.same(c.all...)
	poll(t, "it to lead again", func() bool {
		for _, r := range c.all[1:] {
			if r.IsLeader() {
				_ = r.TransferLeadership(within(t, time.Second), a.id)
			}
		}
		// Its node has not been told yet, so it is not ready.
		return a.Raft().State() == raft.Leader
	})
	open()
	poll(t, "a leader whose node is told", func() bool { l := c.leader(); return l.leads.Load() == l.Stats().Term })
	if overlaps.Load() > 0 {
		t.Error("its node was told of two things at once")
	}
}
