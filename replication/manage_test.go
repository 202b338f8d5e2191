package replication

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// viewed waits until an overview from a node shows something. Its time is long: a
// drain moves a thousand chunk groups.
func viewed(t *testing.T, n *Node, what string, ok func(*Overview) bool) *Overview {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		o, err := n.View(t.Context())
		if err == nil && ok(o) {
			return o
		}
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s: %v", what, err)
		}
	}
}

func nodeIn(o *Overview, id string) *NodeStatus {
	for i := range o.Nodes {
		if o.Nodes[i].ID == id {
			return &o.Nodes[i]
		}
	}
	return &NodeStatus{}
}

// TestSteerAlone: what can be asked of a cluster of one, and what it refuses.
func TestSteerAlone(t *testing.T) {
	n := openNode(t, testConfig(t))
	ctx := t.Context()
	o := viewed(t, n, "everything in place", func(o *Overview) bool { return o.Progress.Done() && o.Progress.Leaderless == 0 })
	me := nodeIn(o, n.cfg.NodeID)
	if o.Old || !me.Reachable || !me.Ready || me.Usage.TotalBytes == 0 || me.Leads != len(o.Partitions) || me.Replicas != len(o.Partitions) || me.Empty || me.Note != "" {
		t.Errorf("%+v of %d partitions", me, len(o.Partitions))
	}
	if p := o.Partitions[1]; p.Leader != n.cfg.NodeID || p.Good != 1 || p.Wanted != 1 || len(p.Replicas) != 1 || p.Replicas[0].State != "in force" {
		t.Errorf("%+v", p)
	}
	for what, try := range map[string]struct {
		err  error
		kind object.Kind
		says string
	}{
		"drain of the last":   {n.Drain(ctx, n.cfg.NodeID, false), object.KindInvalid, "-join"},
		"drain of nobody":     {n.Drain(ctx, "nobody", false), object.KindNotFound, "nobody"},
		"removal":             {n.Remove(ctx, n.cfg.NodeID), object.KindBusy, "drain it"},
		"weight of nobody":    {n.SetWeight(ctx, "nobody", 1), object.KindNotFound, "nobody"},
		"too much weight":     {n.SetWeight(ctx, n.cfg.NodeID, maxWeight+1), object.KindInvalid, "0 to"},
		"zone without an end": {n.SetZone(ctx, n.cfg.NodeID, strings.Repeat("z", 10_000)), object.KindInvalid, "choose a name"},
	} {
		if !object.IsKind(try.err, try.kind) || !strings.Contains(try.err.Error(), try.says) {
			t.Errorf("%s: %v", what, try.err)
		}
	}
	if err := n.SetWeight(ctx, n.cfg.NodeID, 7); err != nil {
		t.Fatal(err)
	}
	if err := n.SetZone(ctx, n.cfg.NodeID, "cellar"); err != nil {
		t.Fatal(err)
	}
	o = viewed(t, n, "the plan for that", func(o *Overview) bool { return o.Progress.Planned })
	if me := nodeIn(o, n.cfg.NodeID); me.Weight != 7 || me.Zone != "cellar" {
		t.Errorf("%+v", me)
	}
}

// TestRates: rates that are set hold at every node without a restart, and after one; 0 gives
// each node its own back.
func TestRates(t *testing.T) {
	first := joinNode(t, nil, "n1")
	cfg := memberConfig(t, "n2")
	cfg.Join, cfg.RepairRate = []string{first.cfg.Peer}, 3<<20
	second := openMember(t, cfg)
	hold := func(n *Node, repair, rewrite int64) {
		t.Helper()
		eventually(t, "the rates at "+n.cfg.NodeID, func() error {
			m := &n.moves
			if m.fetch.Rate() != repair || m.mend.Rate() != repair || m.read.Rate() != readFactor*repair || m.scrub.Rate() != repair/scrubShare || m.rewrite.Rate() != rewrite {
				return fmt.Errorf("fetch %d, mend %d, read %d, scrub %d, rewrite %d; want %d and %d", m.fetch.Rate(), m.mend.Rate(), m.read.Rate(), m.scrub.Rate(), m.rewrite.Rate(), repair, rewrite)
			}
			return nil
		})
	}
	hold(first, DefaultRepairRate, rewriteRate)
	hold(second, 3<<20, rewriteRate)
	set := func(repair, rewrite int64) {
		t.Helper()
		if _, err := first.Configure(t.Context(), func(s *Settings) { s.RepairRate, s.RewriteRate = repair, rewrite }); err != nil {
			t.Fatal(err)
		}
	}
	set(8<<20, 5<<20)
	hold(first, 8<<20, 5<<20)
	hold(second, 8<<20, 5<<20)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Join = nil
	second = openMember(t, cfg)
	hold(second, 8<<20, 5<<20)
	set(0, 0)
	hold(first, DefaultRepairRate, rewriteRate)
	hold(second, 3<<20, rewriteRate)
	if _, err := first.Configure(t.Context(), func(s *Settings) { s.RepairRate = 1 }); !object.IsKind(err, object.KindInvalid) {
		t.Fatal(err)
	}
}

// TestConfigureTogether: of people who change different settings at once nobody's
// change is lost.
func TestConfigureTogether(t *testing.T) {
	n := openNode(t, testConfig(t))
	var g errgroup.Group
	for _, change := range []func(*Settings){
		func(s *Settings) { s.RF = 2 }, func(s *Settings) { s.Moves = 3 }, func(s *Settings) { s.GroupMoves = 5 }, func(s *Settings) { s.GoneAfter = time.Hour },
	} {
		g.Go(func() error {
			_, err := n.Configure(t.Context(), change)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := n.Settings(t.Context())
	if err != nil || s.RF != 2 || s.Moves != 3 || s.GroupMoves != 5 || s.GoneAfter != time.Hour {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := n.Configure(t.Context(), func(s *Settings) { s.RF = 99 }); !object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), "choose 1 to") {
		t.Errorf("%v", err)
	}
}

// TestDrainNeedsRoom: a drain that nobody has room for is told as such, and can be taken
// back; without a majority the overview shows what the node last heard, soon.
func TestDrainNeedsRoom(t *testing.T) {
	nodes := threeNodes(t)
	viewed(t, nodes[0], "three replicas of everything", func(o *Overview) bool {
		return o.Progress.Done() && o.Progress.UnderReplicated == 0 && len(o.Partitions[1].Replicas) == 3
	})
	ctx := t.Context()
	if err := nodes[1].Remove(ctx, "n3"); !object.IsKind(err, object.KindBusy) {
		t.Errorf("removal of a node in use: %v", err)
	}
	if err := nodes[1].Drain(ctx, "n3", false); err != nil {
		t.Fatal(err)
	}
	// Nobody can take what three nodes have three times; the overview says so, and what helps.
	viewed(t, nodes[0], "a note that the drain cannot end", func(o *Overview) bool {
		return strings.Contains(nodeIn(o, "n3").Note, "add a node") && nodeIn(o, "n3").State == "draining"
	})
	if err := nodes[2].Remove(ctx, "n3"); !object.IsKind(err, object.KindBusy) { // asked of the node itself
		t.Errorf("removal of a node that is not empty: %v", err)
	}
	if err := nodes[0].Drain(ctx, "n3", true); err != nil {
		t.Fatal(err)
	}
	viewed(t, nodes[2], "a drain taken back", func(o *Overview) bool {
		n := nodeIn(o, "n3")
		return n.State == "up" && n.Note == "" && o.Progress.Planned && n.PlannedReplicas == len(o.Partitions)
	})
	for _, n := range nodes[1:] {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	o, err := nodes[0].View(ctx)
	if err != nil || !o.Old || nodeIn(o, "n2").Reachable || nodeIn(o, "n2").Error == "" || o.Progress.UnderReplicated == 0 {
		t.Errorf("without a majority: %+v, %v", o, err)
	}
	if took := time.Since(began); took > 10*(controlFor+factsFor) {
		t.Errorf("it took %v", took)
	}
}
