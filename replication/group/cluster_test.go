package group_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// counter is a state machine on a real partition, copied as a namespace is. A
// command is a key; its count is raised by one and is the result.
type counter struct {
	*meta.Partition
	onRestore func(io.Reader) io.Reader // nil, or what happens to a state on its way
	afterward func() error
	stopDrop  bool                   // a restore ends in the middle of dropping what was before
	onApplied atomic.Pointer[func()] // called by the next Applied, once
	onApply   atomic.Pointer[func()] // called by the next Apply, once, before it does anything
}

func (c *counter) Applied() uint64 {
	if f := c.onApplied.Swap(nil); f != nil {
		(*f)()
		return 0 // as while a state is restored
	}
	return c.Partition.Applied()
}

func (c *counter) Apply(entries []group.Entry) ([]any, error) {
	if f := c.onApply.Swap(nil); f != nil {
		(*f)()
	}
	tx := c.Begin()
	defer tx.Discard()
	results := make([]any, len(entries))
	for i, e := range entries {
		old, _, err := tx.Get(e.Data)
		if err != nil {
			return nil, err
		}
		n := number(old) + 1
		if err := tx.Set(e.Data, binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return nil, err
		}
		results[i] = n
	}
	return results, tx.Commit(entries[len(entries)-1].Index)
}

func (c *counter) Image() (*group.Image, error) { return namespace.ExportPartition(c.Partition) }

func (c *counter) Restore(ctx context.Context, r io.Reader) error {
	if c.onRestore != nil {
		r = c.onRestore(r)
	}
	if c.stopDrop {
		ctx = &secondLook{Context: ctx}
	}
	if err := namespace.ImportPartition(ctx, c.Partition, r, 100, 32<<10); err != nil {
		return err
	}
	if c.afterward != nil {
		return c.afterward()
	}
	return nil
}

// secondLook is a context that has ended when it is looked at for the second time.
type secondLook struct {
	context.Context
	looks atomic.Int32
}

func (s *secondLook) Err() error {
	if s.looks.Add(1) > 1 {
		return context.Canceled
	}
	return s.Context.Err()
}

// all is every key's count.
func (c *counter) all() map[string]uint64 {
	v, m := c.View(), map[string]uint64{}
	defer v.Close()
	if err := v.Ascend(nil, nil, func(k, v []byte) (bool, error) { m[string(k)] = number(v); return true, nil }); err != nil {
		panic(err)
	}
	return m
}

func (c *counter) count(key string) uint64 {
	v := c.View()
	defer v.Close()
	b, _, err := v.Get([]byte(key))
	if err != nil {
		panic(err)
	}
	return number(b)
}

func number(b []byte) uint64 {
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

func poll(t testing.TB, what string, test func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !test(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// replica is one replica on a node of its own.
type replica struct {
	*group.Group
	id   string
	addr raft.ServerAddress
	dir  string
	disk vfs.FS
	wire *wire
	log  *wal.Log
	db   *meta.DB
	m    *counter

	leads    atomic.Uint64 // the term it was told it leads in
	restored atomic.Uint64 // times its state was replaced
	onLeader atomic.Pointer[func(leader bool)]
	mu       sync.Mutex
	members  []group.Member // as it was told last
}

type cluster struct {
	t   testing.TB
	net *network
	all []*replica
}

// newCluster starts n voters, of which the first leads.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, net: newNetwork()}
	var list []group.Member
	for i := range n {
		id := string(rune('a' + i))
		list = append(list, group.Member{ID: id + "/1", Address: id, Voter: true})
	}
	for _, m := range list {
		c.all = append(c.all, c.start(c.replica(m.ID, m.Address), group.Config{Bootstrap: true, Members: list}))
	}
	t.Cleanup(func() {
		for _, r := range c.all {
			r.stop(t)
		}
	})
	c.all[0].Campaign()
	poll(t, "the first leader", func() bool {
		if s := c.all[0].Stats(); s.State == raft.Follower.String() && s.Leader != "" {
			_ = c.leader().TransferLeadership(within(t, time.Second), c.all[0].id)
		}
		return c.all[0].IsLeader()
	})
	return c
}

func (c *cluster) replica(id, addr string) *replica {
	return &replica{id: id, addr: raft.ServerAddress(addr), dir: c.t.TempDir(), disk: vfs.OS()}
}

// start opens a replica's stores and its group.
func (c *cluster) start(r *replica, cfg group.Config) *replica {
	c.t.Helper()
	g, err := c.tryStart(r, cfg)
	must(c.t, err)
	r.Group = g
	return r
}

func (c *cluster) tryStart(r *replica, cfg group.Config) (*group.Group, error) {
	c.t.Helper()
	r.open(c.t)
	r.wire = c.net.plug(r.addr)
	return group.Open(c.config(r, cfg))
}

// config completes what a replica with open stores is opened with.
func (c *cluster) config(r *replica, cfg group.Config) group.Config {
	hook, after := func(r io.Reader) io.Reader { return r }, func() error { return nil }
	if r.m != nil && r.m.onRestore != nil {
		hook, after = r.m.onRestore, r.m.afterward
	}
	r.m = &counter{Partition: r.db.Partition(7), onRestore: hook, afterward: after}
	cfg.ID, cfg.Node, cfg.Log, cfg.Machine, cfg.Transport = 7, r.id, r.log.Group(7), r.m, r.wire
	cfg.Dir, cfg.FS = filepath.Join(r.dir, "groups"), r.disk
	cfg.OnLeader = func(leader bool, term uint64) {
		if !leader {
			term = 0
		}
		r.leads.Store(term)
		if f := r.onLeader.Load(); f != nil {
			(*f)(leader)
		}
	}
	cfg.OnRestore = func(uint64) { r.restored.Add(1) }
	cfg.OnMembers = func(_ uint64, list []group.Member) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.members = list
	}
	return cfg
}

func (r *replica) open(t testing.TB) {
	t.Helper()
	var err error
	r.log, err = wal.Open(wal.Options{FS: r.disk, Dir: filepath.Join(r.dir, "wal"), SegmentBytes: 4 << 20})
	must(t, err)
	r.db, err = meta.Open(meta.Options{Dir: filepath.Join(r.dir, "meta"), MemTableBytes: 1 << 20, BlockCacheBytes: 4 << 20, IndexCacheBytes: 4 << 20})
	must(t, err)
}

// stop closes everything that is open.
func (r *replica) stop(t testing.TB) {
	t.Helper()
	if r.Group != nil {
		must(t, r.Close())
	}
	if r.log != nil {
		must(t, r.log.Close())
		must(t, r.db.Close())
	}
	r.Group, r.log, r.db = nil, nil, nil
}

// crash stops a replica and leaves what a power cut would: the synced files, and of
// the database only what is in its tables.
func (c *cluster) crash(r *replica) {
	c.t.Helper()
	c.net.setCut(r.addr, true)
	left := c.t.TempDir()
	must(c.t, group.CopyNode(left, r.dir, true))
	r.stop(c.t)
	r.dir = left
}

// revive starts a crashed replica.
func (c *cluster) revive(r *replica) {
	c.t.Helper()
	c.start(r, group.Config{}) // first: what came before would be answered by nobody
	c.net.setCut(r.addr, false)
}

// leader waits for a leader among the given (nil: all that run).
func (c *cluster) leader(among ...*replica) *replica {
	c.t.Helper()
	if among == nil {
		among = c.all
	}
	var found *replica
	poll(c.t, "a leader", func() bool {
		i := slices.IndexFunc(among, func(r *replica) bool { return r.Group != nil && r.IsLeader() })
		if i < 0 {
			return false
		}
		found = among[i]
		// One that was cut off may not know yet that it is deposed.
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		defer cancel()
		return found.Read(ctx) == nil
	})
	return found
}

// put counts a key up by one, at r if it leads. On a starved machine a leader may be
// deposed meanwhile: then at the next one, unless the first has managed it.
func (c *cluster) put(r *replica, key string) uint64 {
	c.t.Helper()
	before := r.m.count(key)
	for end := time.Now().Add(30 * time.Second); ; {
		n, err := r.Propose(c.t.Context(), []byte(key))
		switch {
		case err == nil:
			return n.(uint64)
		case time.Now().After(end), !lost(err):
			c.t.Fatalf("%s at %s: %v", key, r.id, err)
		}
		unknown := object.IsKind(err, object.KindTimeout)
		// What the next leader, which answers reads, does not have will never come.
		if r = c.leader(); unknown && r.m.count(key) > before {
			return before + 1
		}
		before = r.m.count(key)
	}
}

// lost reports whether an error may mean that the leadership was lost.
func lost(err error) bool {
	return object.IsKind(err, object.KindUnavailable) || object.IsKind(err, object.KindTimeout)
}

// putMany puts n keys of some 2000 bytes, each at least once, with several proposers.
func (c *cluster) putMany(r *replica, name string, n int) {
	c.t.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	end := time.Now().Add(30 * time.Second)
	for range 64 {
		wg.Go(func() {
			at := r
			for i := next.Add(1); i <= int64(n); {
				_, err := at.Propose(c.t.Context(), fmt.Appendf(nil, "%s-%d-%02000d", name, i, 0))
				switch {
				case err == nil:
					i = next.Add(1)
				case time.Now().After(end), !lost(err):
					c.t.Error(err)
					return
				default:
					<-time.After(10 * time.Millisecond)
					if k := slices.IndexFunc(c.all, func(r *replica) bool { return r.Group != nil && r.IsLeader() }); k >= 0 {
						at = c.all[k]
					}
				}
			}
		})
	}
	wg.Wait()
}

// same waits until all of these have applied the same, and compares their states. A
// proposal that nobody waits for any more may come through meanwhile: then again.
func (c *cluster) same(list ...*replica) {
	c.t.Helper()
	var states []map[string]uint64
	poll(c.t, "the same index everywhere", func() bool {
		index := list[0].m.Applied()
		other := func(r *replica) bool { return r.m.Applied() != index }
		if slices.ContainsFunc(list, other) {
			return false
		}
		states = states[:0]
		for _, r := range list {
			states = append(states, r.m.all())
		}
		return !slices.ContainsFunc(list, other)
	})
	for i, got := range states {
		want := states[0]
		if len(got) != len(want) {
			c.t.Fatalf("%s has %d keys, %s has %d", list[i].id, len(got), list[0].id, len(want))
		}
		for k, n := range want {
			if got[k] != n {
				c.t.Fatalf("%.40s: %s has %d, %s has %d", k, list[i].id, got[k], list[0].id, n)
			}
		}
	}
}

// load proposes unique keys to whoever leads, until stopped, and then checks that
// each acknowledged one was applied once, and no other more than once.
type load struct {
	c     *cluster
	end   context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex // guards what follows
	all   []*replica // who is asked
	acked []string
	fails atomic.Uint64
}

func (c *cluster) load(proposers int) *load {
	ctx, end := context.WithCancel(c.t.Context())
	l := &load{c: c, end: end, all: slices.Clone(c.all)}
	for p := range proposers {
		l.wg.Go(func() {
			at := c.all[0]
			for i := 0; ctx.Err() == nil; i++ {
				at = l.one(ctx, at, fmt.Sprintf("load-%d-%d", p, i))
			}
		})
	}
	return l
}

func (l *load) one(ctx context.Context, at *replica, key string) *replica {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n, err := at.Propose(ctx, []byte(key))
	switch {
	case err == nil:
		if n != uint64(1) {
			l.c.t.Errorf("%s was applied %v times", key, n)
		}
		l.mu.Lock()
		l.acked = append(l.acked, key)
		l.mu.Unlock()
		return at
	case ctx.Err() == nil:
		l.fails.Add(1)
	}
	l.mu.Lock()
	all := l.all
	l.mu.Unlock()
	if to, ok := group.LeaderOf(err); ok {
		for _, r := range all {
			if r.id == to {
				return r
			}
		}
	}
	<-time.After(2 * time.Millisecond)
	return all[(slices.Index(all, at)+1)%len(all)]
}

// ask changes who is asked.
func (l *load) ask(list []*replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.Clone(list)
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// more waits until n more are acknowledged.
func (l *load) more(n int) {
	l.c.t.Helper()
	from := l.count()
	poll(l.c.t, "progress under load", func() bool { return l.count() >= from+n })
}

func (l *load) check(list ...*replica) {
	l.c.t.Helper()
	l.end()
	l.wg.Wait()
	for _, r := range list {
		got := r.m.all()
		for _, key := range l.acked {
			if got[key] != 1 {
				l.c.t.Fatalf("%s: %s was acknowledged, and counts %d", r.id, key, got[key])
			}
		}
		for key, n := range got {
			if n > 1 {
				l.c.t.Fatalf("%s: %s was applied %d times", r.id, key, n)
			}
		}
	}
	l.c.t.Logf("%d acknowledged, %d attempts failed", len(l.acked), l.fails.Load())
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantKind(t testing.TB, what string, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Errorf("%s: %v, want kind %v", what, err, k)
	}
}

func openLog(dir string) error {
	l, err := wal.Open(wal.Options{Dir: filepath.Join(dir, "wal"), SegmentBytes: 4 << 20})
	if err != nil {
		return err
	}
	return l.Close()
}
