package group_test

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestTransferToAHungReplica: while the leadership is being handed to a replica that
// hangs, raft takes neither proposals nor barriers; a leader that stays one goes on
// soon, and became ready all the same if it was new.
func TestTransferToAHungReplica(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for range 20 {
		lead := c.leader()
		to := c.all[0]
		if to == lead {
			to = c.all[1]
		}
		c.put(lead, "k")
		c.same(c.all...)
		if lead != c.leader() {
			continue
		}
		handed := func() int {
			lead.wire.mu.Lock()
			defer lead.wire.mu.Unlock()
			return lead.wire.handed
		}
		before, term := handed(), lead.Stats().Term
		stays := func() bool { return lead.Raft().State() == raft.Leader && lead.Stats().Term == term }
		c.net.pause(to.addr)
		transferred := make(chan error, 1)
		go func() { transferred <- lead.TransferLeadership(t.Context(), to.id) }()
		poll(t, "the word to be on its way", func() bool { return handed() > before || !stays() })
		_, errNow := lead.Propose(within(t, time.Second), []byte("k"))
		barrier, got := make(chan uint64, 1), uint64(0)
		go func() { barrier <- lead.Barrier() }()
		select {
		case got = <-barrier:
		case <-time.After(30 * time.Second):
			t.Error("the barrier waits for the replica that hangs")
		}
		ready := stays()
		poll(t, "proposals to be taken again", func() bool {
			_, err := lead.Propose(within(t, time.Second), []byte("k"))
			return err == nil || !stays()
		})
		went := stays()
		c.net.resume(to.addr)
		<-transferred
		switch {
		case ready && got != term:
			t.Fatalf("it leads in term %d and its barrier gave %d", term, got)
		case went && object.IsKind(errNow, object.KindUnavailable):
			return
		}
		// A machine so busy that the leader was deposed, or the word came late: once more.
	}
	t.Fatal("no leader stayed one")
}

// TestReadIndexOfADeposedLeader: one that is deposed after it was confirmed, and whose
// state is replaced, must not tell how far that is.
func TestReadIndexOfADeposedLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for range 20 {
		lead := c.leader()
		c.put(lead, "k")
		lead = c.leader()
		tried := make(chan struct{})
		depose := func() {
			defer close(tried)
			poll(t, "another leader", func() bool {
				_ = lead.TransferLeadership(within(t, 2*time.Second), "")
				return !lead.BelievesItLeads()
			})
		}
		lead.m.onApplied.Store(&depose)
		index, err := lead.ReadIndex(within(t, 30*time.Second))
		select {
		case <-tried:
			if err == nil {
				t.Errorf("it says %d", index)
			}
			wantKind(t, "a deposed leader", err, object.KindUnavailable)
			return
		default: // deposed before it was asked, by a busy machine: once more
			lead.m.onApplied.Store(nil)
		}
	}
	t.Fatal("no leader was asked while it led")
}

// TestTransferToAMissingReplica: a replica that is gone is not handed the leadership again
// and again: raft would take no proposals while its word to it has no end.
func TestTransferToAMissingReplica(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	lead := c.leader()
	c.put(lead, "k")
	c.same(c.all...)
	lead = c.leader()
	to := c.all[0]
	if to == lead {
		to = c.all[1]
	}
	c.net.pause(to.addr)
	defer c.net.resume(to.addr)
	refused := 0
	poll(t, "transfers to be refused at once", func() bool {
		start := time.Now()
		err := lead.TransferLeadership(within(t, 5*time.Second), to.id)
		if lead.Raft().State() != raft.Leader { // deposed, by a busy machine: once more with the other one
			lead, refused = c.leader(), 0
			return false
		}
		if !object.IsKind(err, object.KindUnavailable) {
			t.Errorf("%v", err)
		}
		if time.Since(start) < 500*time.Millisecond {
			refused++
		}
		return refused >= 3
	})
	poll(t, "proposals to be taken", func() bool {
		_, err := lead.Propose(within(t, time.Second), []byte("k"))
		return err == nil
	})
	if err := lead.TransferLeadership(within(t, 5*time.Second), ""); err != nil {
		t.Errorf("the third replica answers, and is not handed the leadership: %v", err)
	}
}

// TestLateProbeCommitsNothing: a request for a read that is late, and leaves after its
// sender was deposed, does not tell what the next leader committed: a follower that
// still is in the old term may have other entries there.
func TestLateProbeCommitsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	lead := c.leader()
	c.put(lead, "k")
	lead = c.leader()
	term, other := lead.Stats().Term, c.all[0]
	if other == lead {
		other = c.all[1]
	}
	said, err := lead.ProbeIn(term, other.id, string(other.addr))
	if now := lead.Stats(); now.Term == term && (err != nil || said == 0 || said > now.Committed) {
		t.Fatalf("the leader says that %d is committed (%v), of %d", said, err, now.Committed)
	}
	poll(t, "another leader", func() bool {
		_ = lead.TransferLeadership(within(t, 2*time.Second), "")
		return c.leader() != lead
	})
	c.put(c.leader(), "k")
	c.same(c.all...)
	if said, _ := lead.ProbeIn(term, other.id, string(other.addr)); said != 0 {
		t.Errorf("a request of term %d says in term %d that %d is committed", term, lead.Stats().Term, said)
	}
}
