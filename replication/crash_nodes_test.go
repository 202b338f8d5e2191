package replication

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// crew is a cluster of three whose nodes close and come back.
type crew struct {
	t     *testing.T
	nodes []*Node // in their order; a closed one until it is opened again
}

// newCrew is a crew with the bucket "box" and three replicas of everything.
func newCrew(t *testing.T) *crew {
	t.Helper()
	c := &crew{t: t, nodes: members(t, 3, func(_ int, cfg *Config) {
		cfg.Partitions, cfg.LeasePeriod = 3, time.Second // reclaiming waits for two
	})}
	if _, err := c.nodes[0].CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	placed(t, c.nodes[0], 3, c.nodes...)
	settled(t, c.nodes[0])
	return c
}

// up are the nodes that run.
func (c *crew) up() (list []*Node) {
	for _, n := range c.nodes {
		if !n.closing.Load() {
			list = append(list, n)
		}
	}
	return list
}

// reopen opens those that were closed.
func (c *crew) reopen() {
	c.t.Helper()
	for i, n := range c.nodes {
		if n.closing.Load() {
			c.nodes[i] = openMember(c.t, n.cfg)
		}
	}
}

// settle does what the sweepers of those that run do, at once.
func (c *crew) settle() {
	c.t.Helper()
	eventually(c.t, "open transactions to be settled", func() error {
		for _, n := range c.up() {
			if err := n.sweep(0); err != nil {
				return err
			}
		}
		r, err := c.up()[0].checkWithin(c.t.Context(), whole)
		if err == nil && r.Open > 0 {
			err = fmt.Errorf("%d are open", r.Open)
		}
		return err
	})
}

// check wants every node to find nothing wrong.
func (c *crew) check() {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := n.dropStaged(n.incarnations); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		checkAtRest(c.t, n)
	}
}

// leaderOf is who leads a partition, but for not, which has to hand it on.
func (c *crew) leaderOf(id object.PartitionID, not *Node) (*Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var why error
	for attempt := 0; ; attempt++ {
		for _, n := range c.up() {
			r := n.parts[id].led()
			switch {
			case r == nil:
			case n != not:
				return n, nil
			default:
				why = r.group.TransferLeadership(ctx, "")
			}
		}
		if err := pause(ctx, attempt); err != nil {
			return nil, errors.Join(err, why)
		}
	}
}

// outcome wants an operation to have happened wholly or not at all, whoever is asked
// and as it answered; and once, however often it is sent.
func (c *crew) outcome(op crashOp, tr crashTree, tok Token, answer error) {
	c.t.Helper()
	var happened bool
	for i, n := range c.up() {
		was, err := op.outcome(c.t.Context(), n, tr, answer)
		if err != nil {
			c.t.Fatalf("%s: at %s: %v", tr.root, n.cfg.NodeID, err)
		}
		if i > 0 && was != happened {
			c.t.Fatalf("%s: nodes differ about it", tr.root)
		}
		happened = was
	}
	if answer != nil && !uncertain(answer) {
		return // the client would not send it again
	}
	tok.Retry = true
	n := c.up()[rand.Intn(len(c.up()))]
	if err := op.do(WithToken(c.t.Context(), tok), n, tr); err != nil {
		c.t.Fatalf("%s happened: %t, and again at %s: %v", tr.root, happened, n.cfg.NodeID, err)
	}
	if _, err := op.outcome(c.t.Context(), n, tr, nil); err != nil {
		c.t.Fatalf("%s, again: %v", tr.root, err)
	}
}

func newToken() Token { return Token{Session: newUploadID(), Seq: 1} }

// TestCoordinatorVanishesAtEveryStep: the coordinator of each two-partition operation
// vanishes before each of its steps and is closed. The two others settle what it left;
// after it came back the tree is sound at every node.
func TestCoordinatorVanishesAtEveryStep(t *testing.T) {
	c := newCrew(t)
	ops := crashOps()
	// Quick: the steps before and after most decisions, and some of the longer operations'.
	for crashAt := need.Size(2, 1); len(ops) > 0; crashAt++ {
		ops = c.vanish(ops, crashAt)
		if crashAt > 2 {
			crashAt += need.Size(2+rand.Intn(3), 0)
		}
	}
}

// vanish lets the coordinator vanish before the crashAt-th entry of each operation, and
// returns those that have so many.
func (c *crew) vanish(ops []crashOp, crashAt int) (longer []crashOp) {
	c.t.Helper()
	n := c.nodes[crashAt%len(c.nodes)]
	type attempt struct {
		op     crashOp
		tr     crashTree
		tok    Token
		answer error
	}
	var list []attempt
	for _, op := range ops {
		list = append(list, attempt{op, plant(c.t, n, fmt.Sprintf("vanish/%d/%s", crashAt, op.name)), newToken(), nil})
	}
	for i := range list {
		a := &list[i]
		var count atomic.Int32
		step := vanishing(&count, crashAt)
		n.step.Store(&step)
		a.answer = a.op.do(WithToken(c.t.Context(), a.tok), n, a.tr)
		undriven(c.t, n)
		n.step.Store(nil)
		switch crashed := count.Load() >= int32(crashAt); {
		case crashed:
			longer = append(longer, a.op)
			c.t.Logf("%s: crash before entry %d: %v", a.op.name, crashAt, a.answer)
		case a.answer != nil:
			c.t.Fatalf("%s without a crash: %v", a.op.name, a.answer)
		case crashAt < 3:
			c.t.Fatalf("%s has only %d steps: is it no transaction any more?", a.op.name, count.Load())
		}
	}
	gone := func(object.PartitionID) error { return errCrash }
	n.step.Store(&gone) // what it would do in the background
	if err := n.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.settle()
	for _, a := range list {
		c.outcome(a.op, a.tr, a.tok, a.answer)
	}
	c.reopen()
	c.check()
	return longer
}

// TestLeaderClosedAtEveryStep: before each step of each two-partition operation the node
// that leads the step's partition is closed, every second time while the step is on its
// way. The operation goes on through whoever leads then, or answers that it did not come about.
func TestLeaderClosedAtEveryStep(t *testing.T) {
	c := newCrew(t)
	ops := crashOps()
	if !need.Full() { // a few steps of some
		rand.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		ops = ops[:4]
	}
	for i, op := range ops {
		for step := need.Size(1+rand.Intn(4), 1); c.lead(op, step, i+step); step += need.Size(4, 1) {
		}
	}
}

// lead closes the leader before the closeAt-th entry of an operation; false: it has
// fewer.
func (c *crew) lead(op crashOp, closeAt, round int) bool {
	c.t.Helper()
	n := c.nodes[round%len(c.nodes)]
	tr := plant(c.t, n, fmt.Sprintf("lead/%s/%d", op.name, closeAt))
	var count atomic.Int32
	var closing sync.WaitGroup
	var mu sync.Mutex
	var failed error
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, err)
	}
	step := func(id object.PartitionID) error {
		if count.Add(1) != int32(closeAt) {
			return nil
		}
		leader, err := c.leaderOf(id, n)
		if err != nil {
			note(err)
			return nil
		}
		c.t.Logf("%s at %s: %s, which leads partition %d, goes at step %d", op.name, n.cfg.NodeID, leader.cfg.NodeID, id, closeAt)
		closing.Add(1)
		closed := func() {
			defer closing.Done()
			note(leader.Close())
		}
		if round%2 == 0 {
			go closed()
		} else {
			closed()
		}
		return nil
	}
	n.step.Store(&step)
	tok := newToken()
	began := time.Now()
	answer := op.do(WithToken(c.t.Context(), tok), n, tr)
	undriven(c.t, n)
	n.step.Store(nil)
	closing.Wait()
	if failed != nil {
		c.t.Fatal(failed)
	}
	more := count.Load() >= int32(closeAt)
	c.t.Logf("%s, step %d, after %v: %v", op.name, closeAt, time.Since(began).Round(time.Millisecond), answer)
	if !more && answer != nil {
		c.t.Fatalf("%s without a crash: %v", op.name, answer)
	}
	c.settle()
	c.outcome(op, tr, tok, answer)
	c.reopen()
	c.check()
	return more
}
