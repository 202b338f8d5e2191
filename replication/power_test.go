package replication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// powerClients is how many clients work at a time.
const powerClients = 3

// powerRun is one life of a node on a disk whose power may be cut.
type powerRun struct {
	t       *testing.T
	aim     *aim
	real    string // the directory that Badger has to itself
	clients []*powerClient
	ctx     context.Context // ends when the power is gone
	nodes   []*Node
}

func newPowerRun(t *testing.T, seed int64) *powerRun {
	t.Helper()
	r := &powerRun{t: t, real: t.TempDir(), aim: &aim{pc: vfs.NewPowerCut()}}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(t.Context(), 5*time.Minute)
	r.aim.lost = cancel
	if err := r.aim.pc.MkdirAll("test", r.real, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := r.real; dir != "/"; dir = filepath.Dir(dir) { // it was there before
		if err := r.aim.pc.SyncDir("test", filepath.Dir(dir)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range powerClients {
		r.clients = append(r.clients, &powerClient{name: fmt.Sprintf("c%d", i)})
	}
	t.Cleanup(func() {
		cancel()
		for _, n := range r.nodes {
			_ = n.Close() // it has no disk any more, or was closed before
		}
		// Raft of a node without a disk is parked for good where a term cannot be
		// stored: of a thousand cuts their disks would stay in memory.
		r.aim.pc.Discard()
	})
	return r
}

// dead reports whether the power went; any other failure is one.
func (r *powerRun) dead(err error) bool {
	r.t.Helper()
	switch {
	case err == nil:
		return r.ctx.Err() != nil
	case r.ctx.Err() == nil && !errors.Is(err, vfs.ErrPowerCut):
		r.t.Fatalf("with the power on: %v", err)
	}
	return true
}

// work is what happens until the power goes: two starts, each followed by one
// half of what every client does, and two clean stops. It reports whether the
// power was on to the end.
func (r *powerRun) work(rnd *rand.Rand) bool {
	r.t.Helper()
	var halves [powerClients][2][]step
	for i, c := range r.clients {
		halves[i][0], halves[i][1] = c.steps(rnd)
	}
	for half := range 2 {
		n, err := Open(r.ctx, powerConfig(r.aim, r.real, r.real))
		if r.dead(err) {
			return false
		}
		r.nodes = append(r.nodes, n)
		if half == 0 {
			if _, err := n.CreateBucket(r.ctx, "box", "me"); r.dead(err) {
				return false
			}
		}
		g, ctx := errgroup.WithContext(r.ctx)
		for i, c := range r.clients {
			g.Go(func() error {
				if half == 0 {
					if err := c.begin(ctx, n); err != nil {
						return err
					}
				}
				return c.run(ctx, n, halves[i][half])
			})
		}
		if r.dead(g.Wait()) || r.dead(r.rest(n)) || r.dead(n.Close()) {
			return false
		}
	}
	return true
}

// rest waits until released chunks are dropped, and lets go of old segments.
func (r *powerRun) rest(n *Node) error {
	for _, p := range n.parts {
		if err := p.here.Load().group.Compact(); err != nil {
			return err
		}
	}
	waitFor(r.t, "the garbage to go", func() bool {
		for _, p := range n.parts {
			v := p.here.Load().machine.View()
			garbage, err := v.Garbage(0, 0, 1)
			released, err2 := v.Released(1)
			v.Close()
			if err := errors.Join(err, err2); err != nil {
				r.t.Fatal(err)
			}
			if len(garbage)+len(released) > 0 {
				return r.ctx.Err() != nil
			}
		}
		return true
	})
	return r.ctx.Err()
}

// boot is what the next start finds: another run on what the disk kept.
func (r *powerRun) boot(rnd *rand.Rand) *powerRun {
	r.t.Helper()
	next := newPowerRun(r.t, 0)
	next.aim.pc, next.clients = r.aim.pc.Crash(rnd), r.clients
	copyDir(r.t, filepath.Join(r.real, "badger"), filepath.Join(next.real, "badger"))
	return next
}

// recover starts a node after the power came back and brings it to rest. It
// fails when the power goes again.
func (r *powerRun) recover(there string) (*Node, error) {
	n, err := Open(r.ctx, powerConfig(r.aim, r.real, there))
	if err != nil {
		return nil, err
	}
	r.nodes = append(r.nodes, n)
	return n, n.audit(r.ctx)
}

// verify starts the node once more and compares.
func (r *powerRun) verify(there string) {
	r.t.Helper()
	n, err := r.recover(there)
	if err != nil {
		r.t.Fatalf("after the power came back: %v", err)
	}
	if _, err := n.Bucket(r.t.Context(), "box"); object.IsKind(err, object.KindBucketNotFound) {
		for _, c := range r.clients {
			if c.acked != nil {
				r.t.Fatal("the bucket is gone")
			}
		}
		return
	}
	for _, c := range r.clients {
		c.verify(r.t, n)
	}
	settleAll(r.t, n)
	if err := n.audit(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	checkAtRest(r.t, n)
}

// calls are the labels of the calls that a whole run makes, and how often it
// makes each, in the work and in the recovery from a cut.
func powerCalls(t *testing.T) (work, recovery map[vfs.Op]int) {
	t.Helper()
	count := func(list []vfs.Op) map[vfs.Op]int {
		m := map[vfs.Op]int{}
		for _, op := range list {
			m[op]++
		}
		delete(m, "test")
		return m
	}
	rnd := rand.New(rand.NewSource(0))
	r := newPowerRun(t, 0)
	if !r.work(rnd) {
		t.Fatal("nobody cut the power, and yet it went")
	}
	work = count(r.aim.pc.Calls())
	recovery = map[vfs.Op]int{}
	for i := range 4 {
		r := newPowerRun(t, int64(i))
		r.aim.pc.CutAt(100 + 150*i)
		r.work(rnd)
		next := r.boot(rnd)
		if _, err := next.recover(r.real); err != nil {
			t.Fatal(err)
		}
		for op, n := range count(next.aim.pc.Calls()) {
			recovery[op] = max(recovery[op], n)
		}
	}
	return work, recovery
}

// TestPowerCut cuts the power while several clients make changes of every kind:
// in the middle of a call with each label that the node's files are changed
// under, and at random calls; during recovery too. Afterwards the store holds
// what was acknowledged, at most what was under way besides, whole, and is sound.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	work, recovery := powerCalls(t)
	all := 0
	for _, n := range work {
		all += n
	}
	t.Logf("%d calls of %d labels: %v; in recovery: %v", all, len(work), work, recovery)
	for _, op := range slices.Sorted(maps.Keys(work)) {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			powerCutAt(t, op, work[op])
		})
	}
	for _, op := range slices.Sorted(maps.Keys(recovery)) {
		t.Run("recovery/"+string(op), func(t *testing.T) {
			t.Parallel()
			powerCutInRecovery(t, op, recovery[op], all)
		})
	}
	step, first := all/8, 1+rand.Intn(all/8)
	if need.Full() {
		step, first = 4, 1+rand.Intn(4)
	}
	for at := first; at <= all; at += step {
		t.Run(fmt.Sprintf("call/%d", at), func(t *testing.T) {
			t.Parallel()
			rnd := powerSeed(t)
			r := newPowerRun(t, 0)
			r.aim.pc.CutAt(at)
			r.work(rnd)
			r.boot(rnd).verify(r.real)
		})
	}
}

// powerSeed is chance that a log tells how to have again.
func powerSeed(t *testing.T) *rand.Rand {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewSource(seed))
}

// powerCutAt cuts in the middle of one of the calls with a label. Which calls
// are made depends on who comes first: if that one is not reached, the first is.
func powerCutAt(t *testing.T, op vfs.Op, count int) {
	t.Helper()
	rnd := powerSeed(t)
	for _, nth := range []int{1 + rnd.Intn(count), 1, 1} {
		r := newPowerRun(t, 0)
		r.aim.op, r.aim.nth = op, nth
		if cut := !r.work(rnd); cut {
			r.boot(rnd).verify(r.real)
			return
		}
	}
	t.Fatalf("no call with label %s was made in three runs", op)
}

// powerCutInRecovery cuts at a random call, and again at a label while the node recovers.
func powerCutInRecovery(t *testing.T, op vfs.Op, count, calls int) {
	t.Helper()
	rnd := powerSeed(t)
	r := newPowerRun(t, 0)
	r.aim.pc.CutAt(1 + rnd.Intn(calls))
	r.work(rnd)
	again := r.boot(rnd)
	again.aim.op, again.aim.nth = op, 1+rnd.Intn(count)
	if _, err := again.recover(r.real); err != nil && !errors.Is(err, vfs.ErrPowerCut) && again.ctx.Err() == nil {
		t.Fatalf("recovering: %v", err)
	}
	last := again.boot(rnd)
	last.verify(r.real)
}
