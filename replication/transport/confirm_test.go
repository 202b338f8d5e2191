package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// follower answers a group's requests in place of a raft, when it is let.
type follower struct {
	g    *Group
	term atomic.Uint64
	hold atomic.Bool
	got  atomic.Int64
}

func newFollower(t *testing.T, n *Node) *follower {
	t.Helper()
	g, err := n.Group(1)
	must(t, err)
	f := &follower{g: g}
	f.term.Store(5)
	go func() {
		for {
			select {
			case rpc := <-g.Consumer():
				f.got.Add(1)
				for f.hold.Load() && g.ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				a, ok := rpc.Command.(*raft.AppendEntriesRequest)
				if !ok {
					rpc.Respond(nil, errClosed())
					continue
				}
				term := f.term.Load()
				rpc.Respond(&raft.AppendEntriesResponse{Term: max(term, a.Term), Success: a.Term >= term}, nil)
			case <-g.ctx.Done():
				return
			}
		}
	}()
	return f
}

func confirmTrio(t *testing.T) (*Group, *follower, *follower) {
	t.Helper()
	s, bk := NewSecret(), &book{}
	var nodes []*Node
	for _, name := range names(3) {
		nodes = append(nodes, open(t, bk, Options{Node: name, Secrets: []Secret{s}}))
	}
	g, err := nodes[0].Group(1)
	must(t, err)
	return g, newFollower(t, nodes[1]), newFollower(t, nodes[2])
}

var others = []string{"n2", "n3"}

func beatOnce(t *testing.T, g *Group, to raft.ServerID, term uint64) {
	t.Helper()
	must(t, g.AppendEntries(to, raft.ServerAddress(to), &raft.AppendEntriesRequest{Term: term, RPCHeader: headerFrom(g.n.opt.Node, g.n.opt.Node)}, &raft.AppendEntriesResponse{}))
}

// TestConfirm is the sent-after rule: an answer to what was sent before a read
// began does not count, one minority does not suffice, a newer term ends it.
func TestConfirm(t *testing.T) {
	t.Parallel()
	g, f2, f3 := confirmTrio(t)
	wantKind(t, g.Confirm(t.Context(), 5, others, 1), object.KindUnavailable) // it has never led
	beatOnce(t, g, "n2", 5)
	beatOnce(t, g, "n3", 5)
	must(t, g.Confirm(t.Context(), 5, others, 1))
	must(t, g.Confirm(t.Context(), 5, others, 2))
	wantKind(t, g.Confirm(t.Context(), 4, others, 1), object.KindUnavailable)

	// Both hold an answer to a message sent before the read; the read must not
	// take it, so it needs another, which they handle after that.
	f2.hold.Store(true)
	f3.hold.Store(true)
	was2, was3 := f2.got.Load(), f3.got.Load()
	var wg sync.WaitGroup
	for _, to := range []raft.ServerID{"n2", "n3"} {
		wg.Go(func() { beatOnce(t, g, to, 5) })
	}
	eventually(t, "both hold it", func() bool { return f2.got.Load() > was2 && f3.got.Load() > was3 })
	noted := g.Sent()
	read := make(chan error, 1)
	go func() { read <- g.Confirm(t.Context(), 5, others, 2) }()
	eventually(t, "the read waits", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return len(g.cohorts) == 1 })
	f2.hold.Store(false)
	if seq := g.Acked("n3", 5); seq > noted {
		t.Fatalf("n3 acknowledged %d, which was sent after", seq)
	}
	select {
	case err := <-read:
		t.Fatalf("confirmed by a minority: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	f3.term.Store(6) // it votes for somebody else before it handles what the read sent
	f3.hold.Store(false)
	wantKind(t, <-read, object.KindUnavailable)
	wg.Wait()
}

func TestConfirmInTime(t *testing.T) {
	t.Parallel()
	g, f2, f3 := confirmTrio(t)
	beatOnce(t, g, "n2", 5)
	beatOnce(t, g, "n3", 5)
	f2.hold.Store(true)
	f3.hold.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	wantKind(t, g.Confirm(ctx, 5, others, 1), object.KindTimeout)
	f3.hold.Store(false) // one suffices
	must(t, g.Confirm(t.Context(), 5, others, 1))
	read := make(chan error, 1)
	go func() { read <- g.Confirm(t.Context(), 5, others, 2) }()
	eventually(t, "the read waits", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return len(g.cohorts) == 1 })
	must(t, g.Close())
	wantKind(t, <-read, object.KindUnavailable)
}

// TestConfirmSharesRounds has many readers at once: they need few messages.
func TestConfirmSharesRounds(t *testing.T) {
	t.Parallel()
	g, f2, f3 := confirmTrio(t)
	beatOnce(t, g, "n2", 5)
	beatOnce(t, g, "n3", 5)
	before := f2.got.Load() + f3.got.Load()
	const readers, each = 100, 20
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for range each {
				if err := g.Confirm(t.Context(), 5, others, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if sent := f2.got.Load() + f3.got.Load() - before; sent > readers*each {
		t.Fatalf("%d reads took %d messages", readers*each, sent)
	}
	// The connections break: the probes are sent again.
	for range 5 {
		for _, w := range g.n.wires() {
			_ = w.Close()
		}
		must(t, g.Confirm(t.Context(), 5, others, 2))
	}
}

// TestHeartbeatsShareFrames counts what 64 groups' heartbeats to one peer need.
func TestHeartbeatsShareFrames(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	var wg, others sync.WaitGroup
	others.Add(1) // until all are under way
	for id := range object.PartitionID(64) {
		ga, err := a.Group(id)
		must(t, err)
		gb, err := b.Group(id)
		must(t, err)
		go func() {
			for {
				select {
				case rpc := <-gb.Consumer():
					if id == 63 { // one group is stuck until the others are answered
						others.Wait()
					}
					rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
				case <-gb.ctx.Done():
					return
				}
			}
		}()
		if id == 63 {
			wg.Go(func() { beatOnce(t, ga, "b", 1) })
		} else {
			others.Go(func() { beatOnce(t, ga, "b", 1) })
		}
	}
	others.Done()
	wg.Wait()
	others.Wait()
	p, _ := a.peer("b")
	l := p.urgent.ready()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastID > 4 || len(l.waiting) > 0 {
		t.Fatalf("%d frames for 64 heartbeats, %d unanswered", l.lastID, len(l.waiting))
	}
}

// TestClosedGroupSendsNothing: a group that stopped while its raft goes on, or is
// stuck, must not keep its followers from electing another leader.
func TestClosedGroupSendsNothing(t *testing.T) {
	t.Parallel()
	g, f2, f3 := confirmTrio(t)
	beatOnce(t, g, "n2", 5)
	commit := &raft.AppendEntriesRequest{Term: 5, RPCHeader: headerFrom("n1", "n1"), PrevLogEntry: 1, PrevLogTerm: 1}
	must(t, g.AppendEntries("n2", "n2", commit, &raft.AppendEntriesResponse{}))
	pl, err := g.AppendEntriesPipeline("n2", "n2")
	must(t, err)
	must(t, g.Close())
	sent, was := g.Sent(), f2.got.Load()+f3.got.Load()
	_, errPipeline := pl.AppendEntries(commit, &raft.AppendEntriesResponse{})
	beat := &raft.AppendEntriesRequest{Term: 5, RPCHeader: commit.RPCHeader}
	for what, err := range map[string]error{
		"commit index": g.AppendEntries("n2", "n2", commit, &raft.AppendEntriesResponse{}),
		"heartbeat":    g.AppendEntries("n2", "n2", beat, &raft.AppendEntriesResponse{}),
		"probe":        g.Probe("n2", "n2", beat, &raft.AppendEntriesResponse{}),
		"vote":         g.RequestVote("n2", "n2", &raft.RequestVoteRequest{Term: 6, RPCHeader: commit.RPCHeader}, &raft.RequestVoteResponse{}),
		"pre-vote":     g.RequestPreVote("n2", "n2", &raft.RequestPreVoteRequest{Term: 6, RPCHeader: commit.RPCHeader}, &raft.RequestPreVoteResponse{}),
		"timeout":      g.TimeoutNow("n2", "n2", &raft.TimeoutNowRequest{RPCHeader: commit.RPCHeader}, &raft.TimeoutNowResponse{}),
		"snapshot":     g.InstallSnapshot("n2", "n2", &raft.InstallSnapshotRequest{Term: 5, RPCHeader: commit.RPCHeader}, &raft.InstallSnapshotResponse{}, nil),
	} {
		if !object.IsKind(err, object.KindUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if errPipeline == nil {
		t.Error("a pipeline of a closed group took a request")
	}
	// Another group's message on each connection comes behind what was sent.
	other, err := g.n.Group(1)
	must(t, err)
	beatOnce(t, other, "n2", 5)
	must(t, other.AppendEntries("n2", "n2", commit, &raft.AppendEntriesResponse{}))
	if n := f2.got.Load() + f3.got.Load() - was; n != 2 || g.Sent() != sent {
		t.Errorf("a closed group has sent %d requests", n-2)
	}
}
