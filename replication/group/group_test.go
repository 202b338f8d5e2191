package group

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// counter is a state machine on a real partition. A command is a key; its count
// is raised by one and is the result. fail makes the next Apply fail.
type counter struct {
	*meta.Partition
	fail    atomic.Bool
	applies atomic.Uint64 // entries that reached it
}

func (c *counter) Apply(entries []Entry) ([]any, error) {
	if c.fail.Load() {
		return nil, errors.New("disk on fire")
	}
	tx := c.Begin()
	defer tx.Discard()
	results := make([]any, len(entries))
	for i, e := range entries {
		old, _, err := tx.Get(e.Data)
		if err != nil {
			return nil, err
		}
		n := count(old) + 1
		if err := tx.Set(e.Data, binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return nil, err
		}
		results[i] = n
	}
	c.applies.Add(uint64(len(entries)))
	return results, tx.Commit(entries[len(entries)-1].Index)
}

func (c *counter) count(t testing.TB, key string) uint64 {
	t.Helper()
	v := c.View()
	defer v.Close()
	value, _, err := v.Get([]byte(key))
	must(t, err)
	return count(value)
}

func count(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is one node's groups over one log and one database.
type node struct {
	log      *wal.Log
	db       *meta.DB
	groups   []*Group
	machines []*counter
}

func (n *node) close(t testing.TB) {
	t.Helper()
	for _, g := range n.groups {
		must(t, g.Close())
	}
	must(t, n.log.Close())
	must(t, n.db.Close())
}

func openNode(t testing.TB, dir string, groups int, memTable int64) *node {
	t.Helper()
	n := openStores(t, dir, memTable)
	n.groups, n.machines = make([]*Group, groups), make([]*counter, groups)
	var wg sync.WaitGroup
	for i := range groups {
		wg.Go(func() { n.open(t, i, Config{Bootstrap: true}) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return n
}

func openStores(t testing.TB, dir string, memTable int64) *node {
	t.Helper()
	return openStoresOn(t, vfs.OS(), dir, memTable)
}

func openStoresOn(t testing.TB, fsys vfs.FS, dir string, memTable int64) *node {
	t.Helper()
	n := &node{}
	var err error
	n.log, err = wal.Open(wal.Options{FS: fsys, Dir: filepath.Join(dir, "wal"), SegmentBytes: 4 << 20})
	must(t, err)
	n.db, err = meta.Open(meta.Options{FS: vfs.OS(), Dir: filepath.Join(dir, "meta"), MemTableBytes: memTable,
		BlockCacheBytes: 4 << 20, IndexCacheBytes: 4 << 20})
	must(t, err)
	return n
}

// open opens group i; errors are t's.
func (n *node) open(t testing.TB, i int, cfg Config) {
	id := object.PartitionID(i)
	n.machines[i] = &counter{Partition: n.db.Partition(id)}
	cfg.ID, cfg.Node, cfg.Log, cfg.Machine = id, "n1", n.log.Group(id), n.machines[i]
	g, err := Open(cfg)
	if err != nil {
		t.Error(err)
		return
	}
	n.groups[i] = g
}

func waitReady(t testing.TB, n *node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, g := range n.groups {
		must(t, g.WaitReady(ctx))
	}
}

const small = 2 << 20

func TestNodeOfManyGroups(t *testing.T) {
	const groups, each = 65, 20
	dir := t.TempDir()
	start := time.Now()
	n := openNode(t, dir, groups, small)
	waitReady(t, n)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("%d groups were ready after %v", groups, took)
	} else {
		t.Logf("%d new groups ready after %v", groups, took)
	}
	var wg sync.WaitGroup
	for i, g := range n.groups {
		for range 4 {
			wg.Go(func() {
				for range each / 4 {
					if _, err := g.Propose(t.Context(), []byte("k")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		_ = i
	}
	wg.Wait()
	for i, g := range n.groups {
		must(t, g.Read(t.Context()))
		if got := n.machines[i].count(t, "k"); got != each {
			t.Errorf("group %d counted %d", i, got)
		}
	}
	n.close(t)

	start = time.Now()
	n = openNode(t, dir, groups, small)
	waitReady(t, n)
	t.Logf("%d groups ready again after %v", groups, time.Since(start))
	for i, m := range n.machines {
		if got := m.count(t, "k"); got != each || m.applies.Load() != 0 {
			t.Errorf("group %d: %d after a clean restart, %d entries applied again", i, got, m.applies.Load())
		}
	}
	n.close(t)
}

// TestKill copies the directories of a running node (what kill -9 leaves) and
// opens the copy: every acknowledged change is there exactly once.
func TestKill(t *testing.T) {
	const groups, proposers = 3, 16
	dir := t.TempDir()
	n := openNode(t, dir, groups, small)
	waitReady(t, n)
	defer n.close(t)
	var acked [groups][proposers]atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, g := range n.groups {
		for p := range proposers {
			wg.Go(func() {
				key := fmt.Appendf(nil, "%d-%0800d", p, 0)
				for ctx.Err() == nil {
					got, err := g.Propose(t.Context(), key)
					if err != nil {
						t.Error(err)
						return
					}
					acked[i][p].Store(got.(uint64))
				}
			})
		}
	}
	poll(t, "tables", func() bool { return n.machines[0].Durable() > 200 && n.machines[2].Durable() > 200 })
	must(t, n.groups[0].Compact())

	copied := t.TempDir()
	cancel()
	wg.Wait()
	must(t, CopyNode(copied, dir, false))
	// The log's files are complete; the database's are what a power cut may leave.
	logs, err := filepath.Glob(filepath.Join(copied, "meta", "badger", "*.mem"))
	must(t, err)
	for _, name := range logs[:len(logs)-1] {
		must(t, os.Remove(name))
	}
	c := openNode(t, copied, groups, small)
	defer c.close(t)
	if c.db.Clean() {
		t.Error("the copy passes for a clean one")
	}
	waitReady(t, c)
	replayed := uint64(0)
	for i, g := range c.groups {
		must(t, g.Read(t.Context()))
		for p := range proposers {
			if got, want := c.machines[i].count(t, fmt.Sprintf("%d-%0800d", p, 0)), acked[i][p].Load(); got != want {
				t.Errorf("group %d, proposer %d: %d after the kill, %d acknowledged", i, p, got, want)
			}
		}
		replayed += c.machines[i].applies.Load()
	}
	if replayed == 0 {
		t.Error("nothing was replayed: the test did not test")
	}
	t.Logf("%d entries replayed; group 0 started from entry %d", replayed, c.groups[0].Stats().SnapshotIndex)
}

func poll(t testing.TB, what string, test func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !test(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestCompactionBoundsTheLog(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, dir, 2, small)
	waitReady(t, n)
	g, total := n.groups[0], uint64(0)
	var wg sync.WaitGroup
	for p := range 64 {
		wg.Go(func() {
			for i := range 150 {
				if _, err := g.Propose(t.Context(), fmt.Appendf(nil, "%d-%d-%0600d", p, i, 0)); err != nil {
					t.Error(err)
				}
			}
		})
		total += 150
	}
	wg.Wait()
	poll(t, "a compaction", func() bool { return g.Stats().SnapshotIndex > total/2 })
	s := g.Stats()
	if s.FirstIndex < s.SnapshotIndex || s.SnapshotIndex > s.Durable || s.LastIndex < total {
		t.Errorf("%+v", s)
	}
	// An idle group keeps its few entries until they are in the tables.
	if err := n.groups[1].Compact(); err != nil || n.groups[1].Stats().FirstIndex > n.groups[1].Stats().LastIndex {
		t.Errorf("%v, %+v", err, n.groups[1].Stats())
	}
	n.close(t)

	// A clean close made everything durable: one entry is left.
	n = openNode(t, dir, 2, small)
	waitReady(t, n)
	for _, g := range n.groups {
		poll(t, "everything to be dropped", func() bool {
			must(t, g.Compact())
			s := g.Stats()
			return s.FirstIndex == s.LastIndex
		})
	}
	n.close(t)
	n = openNode(t, dir, 2, small)
	waitReady(t, n)
	if got, err := n.groups[0].Propose(t.Context(), []byte("new")); err != nil || got != uint64(1) {
		t.Errorf("after three lives: %v, %v", got, err)
	}
	n.close(t)
}

func TestLostStateOrLogIsRefused(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, dir, 1, small)
	waitReady(t, n)
	for range 3 {
		_, err := n.groups[0].Propose(t.Context(), []byte("k"))
		must(t, err)
	}
	n.close(t)
	for _, lost := range []string{"wal", "meta"} {
		copied := t.TempDir()
		must(t, os.CopyFS(copied, os.DirFS(dir)))
		if lost == "meta" { // the log must have been shortened to need it
			n := openNode(t, copied, 1, small)
			waitReady(t, n)
			must(t, n.groups[0].Compact())
			n.close(t)
		}
		must(t, os.RemoveAll(filepath.Join(copied, lost)))
		n := openStores(t, copied, small)
		_, err := Open(Config{Node: "n1", Log: n.log.Group(0), Machine: &counter{Partition: n.db.Partition(0)}, Bootstrap: true})
		if !object.IsKind(err, object.KindCorrupt) {
			t.Errorf("without its %s: %v", lost, err)
		}
		n.close(t)
	}
}

func TestFailingMachineStopsTheGroup(t *testing.T) {
	n := openNode(t, t.TempDir(), 1, small)
	waitReady(t, n)
	g := n.groups[0]
	_, err := g.Propose(t.Context(), []byte("k"))
	must(t, err)
	n.machines[0].fail.Store(true)
	if _, err := g.Propose(t.Context(), []byte("k")); !object.IsKind(err, object.KindTimeout) {
		t.Errorf("the entry that failed: %v", err)
	}
	for name, call := range map[string]func() error{
		"Propose":   func() error { _, err := g.Propose(t.Context(), nil); return err },
		"Read":      func() error { return g.Read(t.Context()) },
		"WaitReady": func() error { return g.WaitReady(t.Context()) },
	} {
		if err := call(); !object.IsKind(err, object.KindUnavailable) {
			t.Errorf("%s after it: %v", name, err)
		}
	}
	poll(t, "raft to stop", func() bool { return g.Stats().State == raft.Shutdown.String() })
	if got := n.machines[0].count(t, "k"); got != 1 {
		t.Errorf("count %d", got)
	}
	n.close(t)
}

// TestFailingLogStopsTheGroup breaks the log's sync under a running leader: no
// panic, no false answer, and after a restart on a sound disk all is there.
func TestFailingLogStopsTheGroup(t *testing.T) {
	dir := t.TempDir()
	disk := vfs.NewFaulty(vfs.OS())
	n := openStoresOn(t, disk, dir, small)
	n.groups, n.machines = make([]*Group, 1), make([]*counter, 1)
	n.open(t, 0, Config{Bootstrap: true})
	waitReady(t, n)
	g := n.groups[0]
	_, err := g.Propose(t.Context(), []byte("k"))
	must(t, err)
	disk.Fail("wal.append.sync", syscall.EIO)
	if _, err := g.Propose(t.Context(), []byte("k")); !object.IsKind(err, object.KindTimeout) {
		t.Errorf("the entry that was not synced: %v", err)
	}
	poll(t, "the group to stop", func() bool { return g.failure.Load() != nil })
	if err := g.Read(t.Context()); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("Read of a stopped group: %v", err)
	}
	must(t, g.Close())
	if err := n.log.Close(); err == nil {
		t.Error("the failed log closed cleanly")
	}
	must(t, n.db.Close())

	n = openNode(t, dir, 1, small)
	waitReady(t, n)
	if got := n.machines[0].count(t, "k"); got != 1 && got != 2 {
		t.Errorf("count %d: 1 was acknowledged, 1 is unknown", got)
	}
	n.close(t)
}

// TestUnreadableEntryStopsTheGroup: raft would panic with the error.
func TestUnreadableEntryStopsTheGroup(t *testing.T) {
	disk, dir := vfs.NewFaulty(vfs.OS()), t.TempDir()
	n := openNode(t, dir, 1, small)
	waitReady(t, n)
	_, err := n.groups[0].Propose(t.Context(), []byte("k"))
	must(t, err)
	last, err := n.log.Group(0).LastIndex()
	must(t, err)
	n.close(t)
	n = openStoresOn(t, disk, dir, small) // what was written before is in no cache
	n.groups, n.machines = make([]*Group, 1), make([]*counter, 1)
	n.open(t, 0, Config{Bootstrap: true})
	waitReady(t, n)
	g := n.groups[0]
	disk.Fail(vfs.ReadOp("wal.segment.open"), syscall.EIO)
	returned := make(chan error, 1)
	go func() { returned <- (&logs{Group: g.cfg.Log, g: g}).GetLog(last, new(raft.Log)) }()
	poll(t, "the group to stop", func() bool { return g.failure.Load() != nil })
	if err := g.Read(t.Context()); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("Read of a stopped group: %v", err)
	}
	must(t, g.Close())
	select {
	case err := <-returned:
		t.Errorf("raft got %v", err)
	default:
	}
	disk.Clear()
	n.close(t)
}

func TestLeadershipIsTold(t *testing.T) {
	n := openStores(t, t.TempDir(), small)
	n.groups, n.machines = make([]*Group, 1), make([]*counter, 1)
	var mu sync.Mutex
	var told []string
	n.open(t, 0, Config{Bootstrap: true, OnLeader: func(leader bool, term uint64) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(leader, term))
	}})
	waitReady(t, n)
	g := n.groups[0]
	if node, ok := g.Leader(); !ok || node != "n1" || !g.IsLeader() {
		t.Errorf("leader %q, %v", node, ok)
	}
	n.close(t)
	if fmt.Sprint(told) != "[true 2 false 2]" {
		t.Errorf("told %v", told)
	}
	if _, err := g.Propose(t.Context(), nil); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestProposalsInFlightAreBounded(t *testing.T) {
	n := openNode(t, t.TempDir(), 1, small)
	waitReady(t, n)
	g := n.groups[0]
	for range cap(g.now().slots) {
		g.now().slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := g.Propose(ctx, nil); !object.IsKind(err, object.KindOverload) {
		t.Errorf("without a slot: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := g.Propose(ctx, nil); !object.IsKind(err, object.KindCanceled) {
		t.Errorf("cancelled: %v", err)
	}
	for range cap(g.now().slots) {
		<-g.now().slots
	}
	n.close(t)
}

func FuzzDecodeSnapshot(f *testing.F) {
	conf := raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "n1"}}}
	f.Add(snapshotRecord{index: 9, term: 2, state: 7, conf: inForce{1, conf}}.encode())
	f.Add([]byte{snapshotVersion})
	f.Add(append([]byte{snapshotVersion}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSnapshot(9, 2, b)
		if err != nil {
			return
		}
		again, err := decodeSnapshot(9, 2, s.encode())
		if err != nil || again.state != s.state || again.conf.index != s.conf.index {
			t.Errorf("%+v, then %+v: %v", s, again, err)
		}
	})
}
