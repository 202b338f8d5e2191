package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// steerTime is how long a command may wait for the cluster between two faults.
const steerTime = 2 * time.Minute

// command has a client of all nodes do something, which the faults may prevent; only
// errors of these kinds, or of a cluster that is harmed, are no errors of the test.
func (n *nemesis) command(ctx context.Context, what string, do func(*api.Client) error, kinds ...object.Kind) (done bool, err error) {
	cl, err := n.c.Client(0, api.ClientOptions{AnswerTimeout: 5 * time.Second, Retries: -1})
	if err != nil {
		return false, err
	}
	defer cl.Close()
	err = do(cl)
	for _, k := range append(kinds, object.KindUnavailable, object.KindTimeout, object.KindCanceled, object.KindOverload, object.KindConflict) {
		if object.IsKind(err, k) {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w (%s)", what, err, object.KindOf(err))
	}
	return true, nil
}

// must is command until it is done.
func (n *nemesis) must(ctx context.Context, limit time.Duration, what string, do func(*api.Client) error, kinds ...object.Kind) error {
	var fatal error
	err := harness.Poll(ctx, limit, func() error {
		done, err := n.command(ctx, what, do, kinds...)
		if fatal = err; err == nil && !done {
			return fmt.Errorf("%s: not yet", what)
		}
		return nil
	})
	return errors.Join(fatal, err)
}

// transfer moves the leadership of some partition to some node, or any.
func (n *nemesis) transfer(ctx context.Context, to string) (done bool, err error) {
	p := object.PartitionID(n.rng.IntN(partitionsHere + 1))
	keep := fmt.Sprintf("%dms", 1+n.rng.IntN(10_000))
	return n.command(ctx, fmt.Sprintf("transfer of partition %d to %q", p, to), func(cl *api.Client) error {
		l, err := cl.TransferLeadership(ctx, p, api.LeadershipTransfer{Node: to, Keep: keep})
		if err == nil && (to != "" && l.Leader != to || l.Partition != p || l.Leader == "") {
			return fmt.Errorf("asked for %q, got %+v", to, l)
		}
		return err
	}, object.KindBusy, object.KindInvalid) // no replica there, drained, silent
}

// partitionsHere are those of newCluster, without the control group.
const partitionsHere = 8

// faultsOfMembers move leaderships, and replicas, as people do.
var faultsOfMembers = []fault{
	{"transfer leaderships", func(ctx context.Context, n *nemesis) error {
		moved := 0
		return harness.Poll(ctx, steerTime, func() error {
			for range 8 {
				to := ""
				if n.rng.IntN(4) > 0 {
					to = n.c.Nodes[n.some(1)[0]].ID
				}
				done, err := n.transfer(ctx, to)
				if err != nil {
					return err
				}
				if done {
					moved++
				}
			}
			if moved == 0 {
				return errors.New("no leadership could be moved")
			}
			return nil
		})
	}},
	{"transfer to one that hangs", func(ctx context.Context, n *nemesis) error {
		victim := n.c.Nodes[n.some(1)[0]]
		if err := victim.Pause(); err != nil {
			return err
		}
		var errs []error
		for range 2 {
			_, err := n.transfer(ctx, victim.ID)
			errs = append(errs, err)
		}
		return errors.Join(append(errs, victim.Resume())...)
	}},
}

// replaced has a node leave for good and come back empty, under its name.
func (n *nemesis) replaced(ctx context.Context) error {
	n.shape.Lock()
	defer n.shape.Unlock()
	victim := n.c.Nodes[1+n.rng.IntN(len(n.c.Nodes)-1)] // the first founds a cluster when it starts empty
	if err := n.must(ctx, steerTime, "drain", func(cl *api.Client) error { return cl.Drain(ctx, victim.ID, false) }); err != nil {
		return err
	}
	if err := n.must(ctx, moveTime, "remove", func(cl *api.Client) error { return cl.RemoveNode(ctx, victim.ID) }, object.KindBusy); err != nil {
		return err
	}
	if err := victim.Stop(); err != nil {
		return err
	}
	if err := victim.Wipe(); err != nil {
		return err
	}
	return victim.Start(ctx)
}

// reshape changes who shall have what while the other faults act: a node is drained, and
// not any more, or gets another weight, so that replicas and chunks are always on
// their way, and turn round halfway. In the end everything is as it was.
func (n *nemesis) reshape(ctx context.Context, t *testing.T, rng *rand.Rand) {
	same := func(ctx context.Context) error {
		for _, node := range n.c.Nodes {
			even := uint32(100)
			err := n.must(ctx, steerTime, "undrain", func(cl *api.Client) error {
				return errors.Join(cl.Drain(ctx, node.ID, true), cl.ChangeNode(ctx, node.ID, api.NodeChange{Weight: &even}))
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	once := func() error {
		n.shape.Lock()
		defer n.shape.Unlock()
		from := n.run.h.Now()
		node := n.c.Nodes[rng.IntN(len(n.c.Nodes))].ID
		weight := []uint32{10, 50, 300, 1000}[rng.IntN(4)]
		what, do := "drain "+node, func(cl *api.Client) error { return cl.Drain(t.Context(), node, false) }
		if rng.IntN(2) == 0 {
			what, do = fmt.Sprintf("weight %d for %s", weight, node), func(cl *api.Client) error { return cl.ChangeNode(t.Context(), node, api.NodeChange{Weight: &weight}) }
		}
		if err := n.must(t.Context(), steerTime, what, do); err != nil {
			return err
		}
		select { // it lasts; not a wait for anything
		case <-ctx.Done():
		case <-time.After(5*time.Second + time.Duration(rng.Int64N(int64(20*time.Second)))):
		}
		err := same(t.Context())
		n.run.h.Mark(from, "%s, and back", what)
		t.Logf("until %7.2fs: %s", time.Duration(n.run.h.Now()).Seconds(), what)
		return err
	}
	for ctx.Err() == nil {
		if err := once(); err != nil {
			t.Errorf("members: %v", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(5 * time.Second)))):
		}
	}
}

// all kinds of faults; a node that leaves and comes back takes long, and a spare one.
func allFaults() []fault {
	all := append(append([]fault{}, faults...), faultsOfMembers...)
	if need.Full() {
		all = append(all, fault{"replace one", func(ctx context.Context, n *nemesis) error { return n.replaced(ctx) }})
	}
	return all
}
