package steward_test

import (
	"fmt"
	"testing"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/replication/control"
)

// steps are where a node is killed, in the order of a replica's life. Each is passed
// by the node that creates or destroys, by the partition's leader, or by the control leader.
var steps = []struct {
	label string
	after int // so many times it is passed first
}{
	{"write steward.records", 0}, {"rename REPLICAS", 0}, {"renamed REPLICAS", 0}, {"open", 0}, {"opened", 0}, {"renamed REPLICAS", 1},
	{"step created", 0}, {"stepped created", 0}, {"add", 0}, {"add done", 0},
	{"step promoting", 0}, {"stepped promoting", 0}, {"promote", 0}, {"promote done", 0}, {"step in force", 0}, {"stepped in force", 0},
	{"step leaving", 0}, {"stepped leaving", 0}, {"step demoting", 0}, {"stepped demoting", 0}, {"demote", 0}, {"demote done", 0}, {"step learner", 0}, {"stepped learner", 0},
	{"remove", 0}, {"remove done", 0}, {"step removed", 0}, {"stepped removed", 0},
	{"renamed REPLICAS", 2}, {"close", 0}, {"drop", 0}, {"dropped the state", 0}, {"dropped", 0}, {"renamed REPLICAS", 3},
	{"step destroyed", 0}, {"stepped destroyed", 0},
}

// TestKilledAtEachStep moves replicas to and fro, and kills whoever comes to a step;
// the node starts again, and everything ends as planned with nothing lost.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	const clusters = 3
	every := need.Size(4, 1) // three clusters at once, of which each takes a third of these steps
	for k := range clusters {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.set.Voters = 3 // so that one of four nodes only learns, and votes change hands
			c.bootstrap("a", 1)
			for _, id := range []string{"b", "c", "d"} {
				c.add(id).up()
			}
			c.eventually("three voters", func() bool { return c.settled(3) })
			weigh := func(node int, weight uint32) {
				id := control.NodeID(c.all[node%4].id)
				c.eventually("the weight of "+string(id), func() bool {
					return c.do(&control.Command{SetWeight: &control.SetWeight{Node: id, Weight: weight}}) == nil
				})
			}
			for i := 0; every*(clusters*i+k) < len(steps); i++ {
				step := steps[every*(clusters*i+k)]
				c.killer.arm(step.label, step.after, "")
				weigh(i, 0)
				if i > 0 {
					weigh(i-1, 1)
				}
				what := fmt.Sprintf("%q (%d)", step.label, step.after)
				c.eventually("somebody comes to "+what, func() bool { return c.killer.struck() != nil })
				n := c.killer.struck()
				n.restart()
				n.up()
				c.eventually("everything as planned after a stop at "+what, func() bool { return c.settled(3) })
				c.write(what)
				t.Logf("killed %s at %s", n.id, what)
			}
			c.check()
		})
	}
}

// TestFoundingKilled kills the first node wherever it makes the cluster, and the
// second wherever it joins.
func TestFoundingKilled(t *testing.T) {
	t.Parallel()
	for _, step := range []struct {
		label string
		after int
	}{
		{"write steward.identity", 0}, {"rename CLUSTER.json", 0}, {"renamed CLUSTER.json", 0}, {"renamed REPLICAS", 0}, {"opened", 0}, {"opened", 1}, {"renamed REPLICAS", 1},
		{"rename CLUSTER.json", 1}, {"renamed CLUSTER.json", 1},
	} {
		c := newCluster(t)
		a := c.node("a")
		c.killer.arm(step.label, step.after, "a")
		cluster := control.ClusterID(unique())
		for try := 0; ; try++ {
			a.open()
			if a.steward.Joined() { // killed after all was done
				break
			}
			err := a.steward.Bootstrap(a.ctx, control.Bootstrap{Cluster: cluster, Partitions: 1, Groups: 1, Settings: c.set})
			if try == 0 && c.killer.struck() == nil {
				t.Fatalf("%v was not come to", step)
			}
			if err == nil {
				break
			}
			if try > 1 {
				t.Fatalf("%v: going on: %v", step, err)
			}
			a.stop()
			cluster = unique() // another attempt: the cluster keeps its id if it had one
		}
		a.start()
		a.up()
		c.eventually("one node as planned", func() bool { return c.settled(1) })
		if step.after > 0 || step.label != "renamed CLUSTER.json" && step.label != "rename CLUSTER.json" && step.label != "write steward.identity" {
			a.stop()
			continue
		}
		c.killer.arm(step.label, 0, "b")
		b := c.add("b")
		c.eventually("the joiner to be killed", func() bool { return c.killer.struck() == b })
		b.restart()
		b.up()
		c.eventually("two nodes as planned", func() bool { return c.settled(2) })
		b.stop()
		a.stop()
	}
}
