package group_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestThree(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, b := c.all[0], c.all[1]
	if n := c.put(a, "k"); n != 1 {
		t.Errorf("counted %d", n)
	}
	must(t, a.Read(t.Context()))
	if a.leads.Load() == 0 || b.leads.Load() != 0 {
		t.Error("who leads was not told")
	}
	poll(t, "the leader to be known", func() bool { id, ok := b.Leader(); return ok && id == a.id })
	_, err := b.Propose(t.Context(), []byte("k"))
	wantKind(t, "a follower's Propose", err, object.KindUnavailable)
	if to, ok := group.LeaderOf(err); !ok || to != a.id {
		t.Errorf("a follower names %q as the leader: %v", to, err)
	}
	err = b.Read(t.Context())
	wantKind(t, "a follower's Read", err, object.KindUnavailable)
	if to, _ := group.LeaderOf(err); to != a.id {
		t.Errorf("a follower names %q as the leader: %v", to, err)
	}
	// A follower can serve what the leader vouches for.
	index, err := a.ReadIndex(t.Context())
	must(t, err)
	must(t, b.WaitApplied(t.Context(), index))
	if b.m.count("k") != 1 {
		t.Error("the follower that has applied the index does not have the key")
	}
	wantKind(t, "waiting for the future", b.WaitApplied(within(t, 5*time.Millisecond), index+100), object.KindTimeout)

	must(t, a.TransferLeadership(t.Context(), b.id))
	if c.leader(b) != b || c.put(b, "k") != 2 {
		t.Error("the leadership did not move")
	}
	c.same(c.all...)
	for _, r := range c.all {
		r.wire.mu.Lock()
		if r.wire.fast != nil {
			t.Error("raft's heartbeat fast path reached the transport (hashicorp/raft#695)")
		}
		r.wire.mu.Unlock()
	}
	// The vote names a replica, not only the place where one lives.
	vote, err := a.log.Group(7).Get([]byte("LastVoteCand"))
	if must(t, err); !strings.HasPrefix(string(vote), b.id+"\x00") {
		t.Errorf("the vote is for %q", vote)
	}
}

// TestLeaderKilled kills the leader of five under load, twice, and brings the dead back.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	l := c.load(8)
	l.more(200)
	first := c.leader()
	c.net.setCut(first.addr, true)
	start := time.Now()
	var rest []*replica
	for _, r := range c.all {
		if r != first {
			rest = append(rest, r)
		}
	}
	second := c.leader(rest...)
	l.more(1)
	t.Logf("writing again %v after the first was cut off", time.Since(start))
	must(t, second.TransferLeadership(t.Context(), ""))
	l.more(200)
	c.net.setCut(first.addr, false)
	l.more(100)
	l.end()
	l.wg.Wait()
	c.same(c.all...)
	l.check(c.all...)
}

// TestAllCrash cuts the power of all three under load: everything acknowledged is
// there when they are back.
func TestAllCrash(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := c.load(16)
	l.more(500)
	l.end()
	l.wg.Wait()
	c.putMany(c.leader(), "bulk", 2000) // some of it is in tables
	for _, r := range c.all {
		c.crash(r)
	}
	for _, r := range c.all {
		c.revive(r)
	}
	lead := c.leader()
	must(t, lead.Read(t.Context()))
	c.same(c.all...)
	l.check(c.all...)
	if n := len(lead.m.all()); n < 2500 {
		t.Errorf("%d keys", n)
	}
}

// TestNoQuorum: cut off from all, a leader answers nothing as if it could.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a := c.all[0]
	c.put(a, "k")
	c.net.setCut(a.addr, true)
	_, err := a.Propose(within(t, 100*time.Millisecond), []byte("k"))
	wantKind(t, "Propose without a quorum", err, object.KindTimeout)
	if err := a.Read(within(t, 50*time.Millisecond)); err == nil {
		t.Error("a read without a quorum was answered")
	}
	// It ends without the caller's help too: the leader steps down.
	start := time.Now()
	_, err = a.Propose(t.Context(), []byte("k"))
	if kind := object.KindOf(err); err == nil || kind != object.KindTimeout && kind != object.KindUnavailable {
		t.Errorf("Propose without a quorum: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	b := c.leader(c.all[1:]...)
	c.put(b, "k")
	c.net.setCut(a.addr, false)
	c.same(c.all...)
	if n := b.m.count("k"); n != 2 {
		t.Errorf("counted %d: 2 were acknowledged, none of the others reached a quorum", n)
	}
}

// TestMembers replaces a node by another while there is load.
func TestMembers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	l := c.load(4)
	l.more(100)
	lead := c.all[0]
	d := c.start(c.replica("d/1", "d"), group.Config{Join: true})
	c.net.mu.Lock()
	c.net.delay = 2 * time.Millisecond
	c.net.mu.Unlock()
	wantKind(t, "promoting a stranger", lead.Promote(t.Context(), "x", group.Basis{}), object.KindNotFound)
	must(t, lead.AddNonvoter(t.Context(), d.id, "d", group.Basis{}))
	must(t, lead.AddNonvoter(t.Context(), d.id, "d", group.Basis{})) // may be repeated
	must(t, lead.Promote(within(t, 20*time.Second), d.id, group.Basis{}))
	must(t, lead.Promote(t.Context(), d.id, group.Basis{}))
	l.more(50)
	err := lead.Remove(t.Context(), lead.id, group.Basis{})
	wantKind(t, "the leader's own removal", err, object.KindUnavailable)
	gone := lead
	c.all = append(c.all[1:len(c.all):len(c.all)], d)
	l.ask(c.all)
	lead = c.leader(c.all...)
	must(t, lead.Remove(t.Context(), gone.id, group.Basis{}))
	must(t, lead.Remove(t.Context(), gone.id, group.Basis{}))
	l.more(50)
	poll(t, "all to be told", func() bool {
		for _, r := range c.all {
			r.mu.Lock()
			told := fmt.Sprint(r.members)
			r.mu.Unlock()
			if strings.Contains(told, gone.id) || !strings.Contains(told, "{d/1 d true}") {
				return false
			}
		}
		return true
	})
	if got := lead.Members(); len(got) != 3 {
		t.Errorf("members: %v", got)
	}
	l.end()
	l.wg.Wait()
	c.same(c.all...)
	l.check(c.all...)

	// What is left at the removed one goes, and its place is free for a new replica.
	must(t, gone.Close())
	must(t, group.Destroy(t.Context(), gone.disk, filepath.Join(gone.dir, "groups"), gone.log.Group(7), 7, gone.m.DropAll))
	must(t, group.Destroy(t.Context(), gone.disk, filepath.Join(gone.dir, "groups"), gone.log.Group(7), 7, gone.m.DropAll))
	gone.Group = nil
	gone.stop(t)
	gone.id = "a/2"
	c.start(gone, group.Config{Join: true})
	must(t, lead.AddNonvoter(t.Context(), gone.id, "a", group.Basis{}))
	c.same(append(c.all, gone)...)
	c.all = append(c.all, gone)
}

// TestOldIDIsNotAnswered sends a new replica what was meant for the one that lived
// at its address before: it must not vote for it.
func TestOldIDIsNotAnswered(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	n := c.start(c.replica("d/2", "d"), group.Config{Join: true})
	c.all = append(c.all, n)
	var resp raft.RequestVoteResponse
	req := &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a/1"), Addr: []byte("d/1\x00a/1\x00a")}, Term: 99, LastLogIndex: 99, LastLogTerm: 99}
	if err := c.all[0].wire.RequestVote("d/1", "d", req, &resp); err == nil || resp.Granted {
		t.Errorf("%+v, %v", resp, err)
	}
	req = &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a/1"), Addr: []byte("a")}, Term: 99}
	if err := c.all[0].wire.RequestVote("d/2", "d", req, &resp); err == nil {
		t.Error("a request for nobody was answered")
	}
	if term := n.Stats().Term; term != 0 {
		t.Errorf("the new replica is in term %d", term)
	}
}

// TestCommitsOnlyWhatWasCompared sends a follower a leader's word that much is
// committed, together with entries that end before the follower's own log does: what
// lies behind them was not compared, and may be another leader's.
func TestCommitsOnlyWhatWasCompared(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, net: newNetwork()}
	f := c.start(c.replica("f/1", "f"), group.Config{Join: true})
	t.Cleanup(func() { f.stop(t) })
	leader := c.net.plug("x")
	send := func(term, prev, prevTerm, commit uint64, entries ...*raft.Log) {
		t.Helper()
		var resp raft.AppendEntriesResponse
		err := leader.AppendEntries("f/1", "f", &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("x/1"), Addr: []byte("f/1\x00x/1\x00x")},
			Term:      term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: commit, Entries: entries,
		}, &resp)
		if must(t, err); !resp.Success {
			t.Fatalf("%+v", resp)
		}
	}
	entry := func(index, term uint64, key string) *raft.Log {
		return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(key)}
	}
	list := raft.Configuration{Servers: []raft.Server{{ID: "x/1", Address: "x"}, {ID: "f/1", Address: "f"}, {ID: "y/1", Address: "y"}}}
	send(1, 0, 0, 0, &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(list)},
		entry(2, 1, "common"), entry(3, 1, "lost"), entry(4, 1, "lost"))
	send(2, 1, 1, 4, entry(2, 1, "common")) // this leader has others at 3 and 4
	if n := f.Stats().Committed; n != 2 {
		t.Errorf("committed up to %d, compared up to 2", n)
	}
	send(2, 2, 1, 4, entry(3, 2, "kept"), entry(4, 2, "kept"))
	poll(t, "the state", func() bool { return f.m.Applied() == 4 })
	if all := f.m.all(); all["lost"] != 0 || all["kept"] != 2 || all["common"] != 1 {
		t.Errorf("applied %v", all)
	}
}

// TestProbesTellWhatIsCommitted: a reader at a follower waits for what the leader has
// applied, and would learn that it is committed half a second later.
func TestProbesTellWhatIsCommitted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	lead := c.all[0]
	c.put(lead, "k")
	index, err := lead.ReadIndex(t.Context())
	must(t, err)
	poll(t, "a probe with the commit index", func() bool {
		must(t, lead.Read(t.Context()))
		lead.wire.mu.Lock()
		defer lead.wire.mu.Unlock()
		return lead.wire.told >= index
	})
}
