package group_test

import (
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestReadSeesWhatAFollowerHas: a follower that hears of a commit may apply the entry, and
// show it to a reader, while its leader's machine has yet to come to it. A read that
// begins at the leader then must not answer from before, nor give such a read index.
func TestReadSeesWhatAFollowerHas(t *testing.T) {
	t.Parallel()
	newCluster(t, 3).readsBehind(t)
}

// TestReadSeesWhatANonvoterHas is the same of a leader that asks nobody, since it is the
// only voter.
func TestReadSeesWhatANonvoterHas(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	d := c.start(c.replica("d/1", "d"), group.Config{Join: true})
	c.all = append(c.all, d)
	must(t, c.all[0].AddNonvoter(within(t, 30*time.Second), d.id, "d", group.Basis{}))
	c.put(c.all[0], "k")
	c.same(c.all...)
	c.readsBehind(t)
}

func (c *cluster) readsBehind(t *testing.T) {
	t.Helper()
	tested := false
	for round := 0; round < 20 && !tested && !t.Failed(); round++ {
		lead := c.leader()
		before := lead.m.count("k")
		gate := make(chan struct{})
		wait := func() { <-gate }
		lead.m.onApply.Store(&wait)
		proposed := make(chan struct{})
		go func() {
			defer close(proposed)
			_, _ = lead.Propose(t.Context(), []byte("k")) // what it comes to is looked at below
		}()
		var shown uint64
		poll(t, "a follower to apply it first", func() bool {
			for _, r := range c.all {
				if r != lead && r.m.count("k") > before {
					shown = r.m.Applied()
				}
			}
			return shown > 0 || !lead.BelievesItLeads()
		})
		if shown > 0 {
			_, err := lead.ReadIndex(within(t, 2*time.Second))
			switch n := lead.m.count("k"); {
			case err == nil && n == before:
				t.Errorf("it reads %d, when a follower showed more", n)
			case object.IsKind(err, object.KindTimeout): // it waits for its machine
				tested = true
			} // else a busy machine deposed it: once more
		}
		lead.m.onApply.Store(nil) // none came
		close(gate)
		<-proposed
		if !tested {
			continue
		}
		// With the machine free again it answers, and says how far another must be.
		lead = c.leader()
		index, err := lead.ReadIndex(within(t, 30*time.Second))
		if err == nil && (index < shown || lead.m.count("k") == before) {
			t.Errorf("it says %d, when a follower had applied %d", index, shown)
		}
	}
	if !tested && !t.Failed() {
		t.Fatal("no leader stayed one")
	}
}
