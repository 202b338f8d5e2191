package replication

import (
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// ledBy waits until a node leads a partition.
func ledBy(t *testing.T, n *Node, p object.PartitionID) {
	t.Helper()
	waitFor(t, "the leadership of "+n.cfg.NodeID, func() bool { return n.parts[p].led() != nil })
}

// TestTransferLeadership: a person moves the leadership of partitions, the control group's
// too, through any node. It stays where it was moved for as long as was asked, then goes
// back to the preferred replica; a silent node gets none.
func TestTransferLeadership(t *testing.T) {
	nodes := threeNodes(t)
	settled(t, nodes[0])
	ctx := t.Context()
	byName := map[string]*Node{}
	for _, n := range nodes {
		byName[n.cfg.NodeID] = n
	}
	s, err := nodes[0].Control(ctx)
	if err != nil {
		t.Fatal(err)
	}
	preferred := func(p object.PartitionID) *Node { return byName[string(s.Target.Of(p)[0])] }
	for p := range object.PartitionID(len(s.Partitions)) {
		ledBy(t, preferred(p), p)
	}

	// Two partitions go to the same node, one for long and one for a moment, so that the
	// same rounds of that node decide about both.
	to := byName["n3"]
	var two []object.PartitionID
	for p := range object.PartitionID(len(s.Partitions)) {
		if preferred(p) != to {
			two = append(two, p)
		}
	}
	if len(two) < 2 || two[0] != object.Control {
		t.Fatalf("n3 is not preferred in %v alone", two)
	}
	for _, keep := range []time.Duration{time.Hour, time.Millisecond} {
		p := two[0]
		if keep == time.Millisecond {
			p = two[1]
		}
		for i, by := range nodes { // a repeat is harmless, whoever is asked
			if keep == time.Millisecond && i > 0 {
				break // it may be on its way back
			}
			if leader, err := by.TransferLeadership(ctx, p, "n3", keep); err != nil || leader != "n3" {
				t.Fatalf("partition %d through %s: %q, %v", p, by.cfg.NodeID, leader, err)
			}
			if keep == time.Hour && to.parts[p].led() == nil {
				t.Fatalf("n3 does not lead partition %d, though it was said to", p)
			}
		}
	}
	ledBy(t, preferred(two[1]), two[1])
	if to.parts[two[0]].led() == nil {
		t.Error("the leadership that was to stay for an hour went back with the other")
	}

	// Whoever it is, without a name; and back by command.
	was := preferred(two[1])
	leader, err := to.TransferLeadership(ctx, two[1], "", 0)
	if err != nil || byName[leader] == nil || byName[leader] == was {
		t.Fatalf("%q, %v", leader, err)
	}
	if leader, err = to.TransferLeadership(ctx, two[1], was.cfg.NodeID, 0); err != nil || leader != was.cfg.NodeID {
		t.Fatalf("%q, %v", leader, err)
	}

	// An attempt whose answer was lost has moved it: the next one does not carry it back.
	asked := "n9"
	if leader, err = to.handOnce(ctx, transfer{two[1], "", time.Hour}, &asked); err != nil || leader != was.cfg.NodeID || was.parts[two[1]].led() == nil {
		t.Errorf("moved on to %q, %v", leader, err)
	}

	if err := nodes[1].Close(); err != nil {
		t.Fatal(err)
	}
	for p := range object.PartitionID(len(s.Partitions)) { // n2 led some
		waitFor(t, "another leader", func() bool { return nodes[0].parts[p].led() != nil || to.parts[p].led() != nil })
	}
	for what, try := range map[string]struct {
		p    object.PartitionID
		to   string
		keep time.Duration
		kind object.Kind
		says string
	}{
		"a silent node":      {two[0], "n2", 0, object.KindBusy, "cluster nodes"},
		"nobody":             {two[0], "n9", 0, object.KindNotFound, "n9"},
		"no such partition":  {999, "n1", 0, object.KindNotFound, "no partition 999"},
		"far too long":       {two[0], "n1", 25 * time.Hour, object.KindInvalid, "24h"},
		"less than no time":  {two[0], "n1", -time.Second, object.KindInvalid, "give a time"},
		"the one that leads": {two[0], "n3", 0, object.KindInternal, ""},
	} {
		leader, err := to.TransferLeadership(ctx, try.p, try.to, try.keep)
		if try.kind == object.KindInternal {
			if err != nil || leader != try.to {
				t.Errorf("%s: %q, %v", what, leader, err)
			}
		} else if !object.IsKind(err, try.kind) || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestMayLead: what the control state alone says about who may be given the leadership.
func TestMayLead(t *testing.T) {
	in := func(node string, st control.ReplicaState) control.Replica {
		return control.Replica{ID: control.ReplicaID{Node: control.NodeID(node)}, State: st}
	}
	s := &control.State{Partitions: []control.Partition{
		{Replicas: []control.Replica{in("a", control.InForce), in("b", control.Joining), in("c", control.InForce)}},
		{ID: 1, Replicas: []control.Replica{in("a", control.InForce), in("c", control.InForce), in("d", control.InForce)}},
	}}
	for _, id := range []control.NodeID{"a", "b", "c", "d", "e"} {
		s.Nodes = append(s.Nodes, control.Node{ID: id, Life: control.NodeUp, Weight: 100})
	}
	s.Nodes[2].Draining, s.Nodes[3].Gone = true, true
	for _, try := range []struct {
		p    object.PartitionID
		to   string
		kind object.Kind
		says string
	}{
		{0, "b", object.KindInvalid, "choose one of a"},  // joining
		{0, "e", object.KindInvalid, "no replica"},       // nothing there
		{1, "c", object.KindBusy, "draining"},            //
		{1, "d", object.KindBusy, "gone"},                //
		{1, "x", object.KindNotFound, "cluster nodes"},   //
		{0, "", object.KindInvalid, "no other replica"},  // a alone is up and in force
		{2, "a", object.KindNotFound, "no partition 2:"}, //
	} {
		if err := mayLead(s, try.p, try.to); !object.IsKind(err, try.kind) || !strings.Contains(err.Error(), try.says) {
			t.Errorf("partition %d to %q: %v", try.p, try.to, err)
		}
	}
	if err := mayLead(s, 1, "a"); err != nil {
		t.Error(err)
	}
}
