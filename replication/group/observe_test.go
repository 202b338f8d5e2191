package group_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// observe is what whoever leads says.
func (c *cluster) observe() (lead *replica, o group.Observation) {
	c.t.Helper()
	poll(c.t, "an observation", func() bool {
		lead = c.leader()
		var err error
		o, err = lead.Observe(within(c.t, 5*time.Second))
		if err != nil && !lost(err) {
			c.t.Fatal(err)
		}
		return err == nil
	})
	return lead, o
}

// TestObserve: changes of members are made on what was seen, or not at all.
func TestObserve(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	d := c.start(c.replica("d/1", "d"), group.Config{Join: true})
	t.Cleanup(func() { d.stop(t) })
	lead, first := c.observe()
	if first.Config != 1 || len(first.Members) != 3 || len(first.CaughtUp) != 0 || first.Term != lead.Stats().Term {
		t.Fatalf("at first: %+v", first)
	}
	for _, r := range c.all {
		if r != lead {
			_, err := r.Observe(within(t, 5*time.Second))
			wantKind(t, "a follower's word", err, object.KindUnavailable)
			break
		}
	}
	ctx := within(t, 60*time.Second)
	wantKind(t, "another list", lead.AddNonvoter(ctx, d.id, "d", group.Basis{Term: first.Term, Config: 7}), object.KindConflict)
	wantKind(t, "another term", lead.AddNonvoter(ctx, d.id, "d", group.Basis{Term: first.Term - 1, Config: 1}), object.KindConflict)

	// Of two that were decided on the same, one is made.
	var wg sync.WaitGroup
	var made, refused atomic.Int32
	for range 2 {
		wg.Go(func() {
			switch err := lead.AddNonvoter(ctx, d.id, "d", first.Basis); {
			case err == nil:
				made.Add(1)
			case object.IsKind(err, object.KindConflict):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 || refused.Load() != 1 {
		t.Errorf("%d were made, %d refused", made.Load(), refused.Load())
	}
	var second group.Observation
	poll(t, "the joiner to catch up", func() bool {
		lead, second = c.observe()
		return slices.Equal(second.CaughtUp, []string{d.id})
	})
	if second.Config <= first.Config || !slices.Contains(second.Members, group.Member{ID: d.id, Address: "d"}) {
		t.Errorf("then: %+v", second)
	}
	wantKind(t, "what was decided before", lead.Promote(ctx, d.id, first.Basis), object.KindConflict)
	must(t, lead.Promote(ctx, d.id, second.Basis))
	wantKind(t, "what was decided before", lead.Demote(ctx, d.id, second.Basis), object.KindConflict)
	wantKind(t, "what was decided before", lead.Remove(ctx, d.id, second.Basis), object.KindConflict)
	if lead, third := c.observe(); len(third.CaughtUp) != 0 || third.Config <= second.Config {
		t.Errorf("at last: %+v", third)
	} else {
		must(t, lead.Demote(ctx, d.id, third.Basis))
	}
	lead, fourth := c.observe()
	wantKind(t, "the leader's own vote", lead.Demote(ctx, lead.id, first.Basis), object.KindConflict)
	wantKind(t, "the leader's own vote", lead.Demote(ctx, lead.id, fourth.Basis), object.KindUnavailable)
	if c.leader() == lead && lead.Stats().Term == fourth.Term {
		t.Error("it did not hand the leadership on")
	}
}

// TestNothingIsOutstanding: while a change is under way no other begins and nothing
// is told, and the replica that may still make it wins no later term.
func TestNothingIsOutstanding(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	lead, seen := c.observe()
	done, err := lead.SettleLater(t.Context(), seen.Term)
	must(t, err)
	_, err = lead.Observe(within(t, 100*time.Millisecond))
	if !object.IsKind(err, object.KindOverload) && !lost(err) {
		t.Errorf("while a change is under way: %v", err)
	}
	err = lead.AddNonvoter(within(t, 100*time.Millisecond), "d/1", "d", seen.Basis)
	if !object.IsKind(err, object.KindOverload) && !lost(err) {
		t.Errorf("a second change: %v", err)
	}
	rest := slices.DeleteFunc(slices.Clone(c.all), func(r *replica) bool { return r == lead })
	poll(t, "another leader", func() bool {
		_ = lead.TransferLeadership(within(t, 2*time.Second), rest[0].id)
		return !lead.BelievesItLeads()
	})
	won := func() bool { s := lead.Stats(); return s.State == raft.Leader.String() && s.Term > seen.Term }
	for range 3 {
		next := c.leader(rest...)
		_ = next.TransferLeadership(within(t, 2*time.Second), lead.id)
		if c.leader(rest...); won() {
			t.Fatal("it leads in a later term with a change of an earlier one in its queue")
		}
	}
	done()
	poll(t, "it to lead again", func() bool {
		_ = c.leader().TransferLeadership(within(t, 2*time.Second), lead.id)
		return won()
	})
	poll(t, "an observation", func() bool {
		_, err := lead.Observe(within(t, time.Second))
		return err == nil || !won()
	})

	// One that raft never settles holds nobody up when the group stops.
	_, err = lead.SettleLater(t.Context(), seen.Term)
	must(t, err)
	told := make(chan error, 1)
	go func() { _, err := lead.Observe(t.Context()); told <- err }()
	must(t, lead.Close())
	select {
	case err := <-told:
		wantKind(t, "a stopped group", err, object.KindUnavailable)
	case <-time.After(20 * time.Second):
		t.Error("it waits for a change that nobody makes")
	}
}
