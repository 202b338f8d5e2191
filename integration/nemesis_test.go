package integration

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// nemesis does harm to a cluster, one fault at a time, and heals it.
type nemesis struct {
	c   *harness.Cluster
	rng *rand.Rand
	run *nemesisRun

	shape sync.Mutex // held while who shall have what is changed, and back
}

// fault is one kind of harm: it is done, lasts and is undone.
type fault struct {
	name string
	do   func(ctx context.Context, n *nemesis) error
}

// faults are all kinds. None of them may cost an acknowledged write or show a stale one.
var faults = []fault{
	{"kill one", func(ctx context.Context, n *nemesis) error { return n.killed(ctx, n.some(1)) }},
	{"kill a majority", func(ctx context.Context, n *nemesis) error { return n.killed(ctx, n.some(len(n.c.Nodes)/2+1)) }},
	{"kill all", func(ctx context.Context, n *nemesis) error { return n.killed(ctx, n.some(len(n.c.Nodes))) }},
	{"stop one", func(ctx context.Context, n *nemesis) error {
		victim := n.c.Nodes[n.some(1)[0]]
		if err := victim.Stop(); err != nil {
			return err
		}
		n.last(ctx, time.Second, 3*time.Second)
		return victim.Start(ctx)
	}},
	{"pause one", func(ctx context.Context, n *nemesis) error { return n.paused(ctx, n.some(1)) }},
	{"pause a majority", func(ctx context.Context, n *nemesis) error { return n.paused(ctx, n.some(len(n.c.Nodes)/2+1)) }},
	{"pause a leader", func(ctx context.Context, n *nemesis) error { return n.pausedLeader(ctx) }},
	{"isolate one", func(ctx context.Context, n *nemesis) error {
		return n.cut(ctx, harness.Isolate(len(n.c.Nodes), n.some(1)[0]))
	}},
	{"mute one", func(ctx context.Context, n *nemesis) error {
		return n.cut(ctx, harness.Mute(len(n.c.Nodes), n.some(1)[0]))
	}},
	{"deafen one", func(ctx context.Context, n *nemesis) error {
		return n.cut(ctx, harness.Deafen(len(n.c.Nodes), n.some(1)[0]))
	}},
	{"split", func(ctx context.Context, n *nemesis) error {
		all := n.some(len(n.c.Nodes))
		return n.cut(ctx, harness.Split(all[:len(all)/2], all[len(all)/2:]))
	}},
	{"bridge", func(ctx context.Context, n *nemesis) error {
		all := n.some(len(n.c.Nodes)) // the last one hears both sides
		return n.cut(ctx, harness.Split(all[:len(all)/2], all[len(all)/2:len(all)-1]))
	}},
	{"cut one way", func(ctx context.Context, n *nemesis) error {
		two := n.some(2)
		return n.cut(ctx, []harness.Cut{{From: two[0], To: two[1]}})
	}},
	{"shatter", func(ctx context.Context, n *nemesis) error {
		return n.cut(ctx, harness.Split(n.all(), n.all()))
	}},
	{"flap", func(ctx context.Context, n *nemesis) error {
		for range 6 {
			if err := n.c.Cut(ctx, harness.Isolate(len(n.c.Nodes), n.some(1)[0])...); err != nil {
				return err
			}
			n.last(ctx, 200*time.Millisecond, 800*time.Millisecond)
		}
		return n.c.Cut(ctx)
	}},
	{"kill one behind a cut", func(ctx context.Context, n *nemesis) error {
		two := n.some(2)
		if err := n.c.Cut(ctx, harness.Isolate(len(n.c.Nodes), two[0])...); err != nil {
			return err
		}
		n.last(ctx, time.Second, 2*time.Second)
		if err := n.c.Nodes[two[1]].Kill(); err != nil {
			return err
		}
		n.last(ctx, 0, 2*time.Second)
		return errors.Join(n.c.Cut(ctx), n.c.Nodes[two[1]].Start(ctx))
	}},
}

func (n *nemesis) all() (nodes []int) {
	for i := range n.c.Nodes {
		nodes = append(nodes, i)
	}
	return nodes
}

// some are k nodes in random order.
func (n *nemesis) some(k int) []int { return n.rng.Perm(len(n.c.Nodes))[:k] }

// last lets a fault last; not a wait for anything.
func (n *nemesis) last(ctx context.Context, least, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(least + time.Duration(n.rng.Int64N(int64(most-least)))):
	}
}

// killed kills nodes and starts them again, together.
func (n *nemesis) killed(ctx context.Context, victims []int) error {
	for _, v := range victims {
		if err := n.c.Nodes[v].Kill(); err != nil {
			return err
		}
	}
	n.last(ctx, 0, 5*time.Second)
	for _, v := range victims {
		if err := n.c.Nodes[v].Launch(); err != nil {
			return err
		}
	}
	return n.c.Ready(ctx)
}

// paused stops processes in their tracks for longer than an election takes.
func (n *nemesis) paused(ctx context.Context, victims []int) (err error) {
	for _, v := range victims {
		err = errors.Join(err, n.c.Nodes[v].Pause())
	}
	n.last(ctx, time.Second, 7*time.Second)
	for _, v := range victims {
		err = errors.Join(err, n.c.Nodes[v].Resume())
	}
	return err
}

// pausedLeader moves leadership away from who leads some partition.
func (n *nemesis) pausedLeader(ctx context.Context) error {
	c, err := n.c.Client(0, api.ClientOptions{RetryFor: 5 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.ClusterPartitions(ctx)
	if err != nil || len(s.Partitions) == 0 {
		return nil // nobody can say who leads; the next fault will do
	}
	leader := s.Partitions[n.rng.IntN(len(s.Partitions))].Leader
	for i, node := range n.c.Nodes {
		if node.ID == leader {
			return n.paused(ctx, []int{i})
		}
	}
	return nil
}

func (n *nemesis) cut(ctx context.Context, cuts []harness.Cut) error {
	if err := n.c.Cut(ctx, cuts...); err != nil {
		return err
	}
	n.last(ctx, time.Second, 8*time.Second)
	return n.c.Cut(ctx)
}

// rage does harm until ctx ends, and leaves a cluster of which every node runs.
// Each kind comes before any comes again.
func (n *nemesis) rage(ctx context.Context, t *testing.T) {
	faults := allFaults()
	for {
		for _, i := range n.rng.Perm(len(faults)) {
			if ctx.Err() != nil {
				return
			}
			from := n.run.h.Now()
			// A fault is undone even when the time is over.
			if err := faults[i].do(t.Context(), n); err != nil {
				t.Errorf("%s: %v", faults[i].name, err)
				return
			}
			n.run.h.Mark(from, "%s", faults[i].name)
			t.Logf("%7.2fs to %7.2fs: %s", time.Duration(from).Seconds(), time.Duration(n.run.h.Now()).Seconds(), faults[i].name)
			n.last(ctx, 500*time.Millisecond, 4*time.Second)
		}
	}
}

// nemesisTime is how long the nemesis rages; BUCKETDB_NEMESIS is another time.
func nemesisTime(t *testing.T) time.Duration {
	if s := os.Getenv("BUCKETDB_NEMESIS"); s != "" {
		d, err := time.ParseDuration(s)
		check(t, err)
		return d
	}
	return need.Size(4*time.Minute, time.Hour)
}

// TestLinearizable: while a nemesis kills, pauses and cuts nodes off, moves leaderships, and
// drains and weighs nodes, what clients of all nodes and of mounts see is linearizable, and
// nothing acknowledged is lost, of copies and of shards.
func TestLinearizable(t *testing.T) {
	need.FUSE(t)
	c := newCluster(t, harness.ClusterOptions{Nodes: need.Size(4, 5), Spaces: true})
	first := anywhere(t, c, 0, api.ClientOptions{})
	_, err := first.CreateBucket(t.Context(), nemesisBucket, "")
	check(t, err)
	_, err = first.MakeBucket(t.Context(), api.NewBucket{Name: shardsBucket, Storage: &api.Storage{Type: "rs", Data: 2, Parity: 2}})
	check(t, err)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	run := newNemesisRun(t)
	ctx, cancel := context.WithTimeout(t.Context(), nemesisTime(t))
	defer cancel()
	working, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	clients := run.clients(c, seed)
	for i, cl := range clients {
		wg.Go(func() { cl.work(working, 15*time.Millisecond, i%3 == 2) })
	}
	var mounted []*nemesisClient
	for i := range need.Size(1, 2) {
		mounted = append(mounted, run.mounted(c, i, 2, len(clients)+2*i, seed)...)
	}
	for _, cl := range mounted {
		wg.Go(func() { cl.workMounted(working, 25*time.Millisecond) })
	}
	wg.Go(func() {
		tick := time.NewTicker(generation)
		defer tick.Stop()
		for {
			select {
			case <-working.Done():
				return
			case <-tick.C:
				run.gen.Add(1)
			}
		}
	})
	n := &nemesis{c: c, rng: rand.New(rand.NewPCG(seed, 99)), run: run}
	reshaping, even := context.WithCancel(ctx)
	var members sync.WaitGroup
	members.Go(func() { n.reshape(reshaping, t, rand.New(rand.NewPCG(seed, 98))) })
	n.rage(ctx, t)
	even()
	members.Wait()
	stop()
	wg.Wait()
	if t.Failed() {
		check(t, run.h.Check(failures(t), time.Minute))
		t.FailNow()
	}
	check(t, c.Cut(t.Context()))
	check(t, c.Ready(t.Context()))
	check(t, c.Balanced(t.Context(), c.Nodes[0], []string{"n1", "n2", "n3", "n4", "n5"}[:len(c.Nodes)], moveTime))
	check(t, c.Settled(t.Context(), c.Nodes[0], 3, settleTime))
	for i := range c.Nodes {
		clients[i].last(t.Context())
	}
	for _, cl := range mounted {
		cl.lastMounted(t)
	}
	clients[0].everythingKept(t.Context())
	all, unknown := run.h.Counts()
	t.Logf("%d operations, %d of an unknown outcome, %d keys kept, answers that were errors: %v", all, unknown, len(run.kept), run.odd)
	check(t, run.h.Check(failures(t), time.Minute))
	if len(run.kept) == 0 || all < 100 {
		t.Errorf("%d operations, %d kept keys: this is no load", all, len(run.kept))
	}
}

// clients are, of each node, one that goes on elsewhere when it is silent, one
// that stays and writes, and one that stays and reads: it is the one that sees
// what a node alone would say.
func (r *nemesisRun) clients(c *harness.Cluster, seed uint64) (all []*nemesisClient) {
	for i := range 3 * len(c.Nodes) {
		node := i / 3
		o := api.ClientOptions{AnswerTimeout: 3 * time.Second, RetryFor: 4 * time.Second}
		endpoints := c.Endpoints(node)[:1]
		if i%3 == 0 {
			endpoints, o.RetryFor = c.Endpoints(node), 20*time.Second
		}
		cl, err := api.NewClient(endpoints, o)
		check(r.t, err)
		r.t.Cleanup(cl.Close)
		all = append(all, &nemesisClient{nemesisRun: r, id: i, c: cl, rng: rand.New(rand.NewPCG(seed, uint64(i))), logs: map[string]object.InodeID{}})
	}
	return all
}
