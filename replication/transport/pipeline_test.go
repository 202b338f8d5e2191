package transport

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestRepeatsGoWithBeats: what a pipeline says for the second time waits for the next
// heartbeats, entries and news do not wait for it. The window never ends here.
func TestRepeatsGoWithBeats(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}, BeatWindow: time.Hour})
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}})
	from, err := a.Group(1)
	must(t, err)
	to, err := b.Group(1)
	must(t, err)
	go answerAll(to, nil)
	p, err := a.peer("b")
	must(t, err)
	must(t, from.AppendEntries("b", "b", request(40), &raft.AppendEntriesResponse{})) // the connection stands
	pl, err := from.AppendEntriesPipeline("b", "b")
	must(t, err)
	send := func(args *raft.AppendEntriesRequest) raft.AppendFuture {
		t.Helper()
		f, err := pl.AppendEntries(args, &raft.AppendEntriesResponse{})
		must(t, err)
		return f
	}
	answered := func(f raft.AppendFuture) {
		t.Helper()
		select {
		case got := <-pl.Consumer():
			if got != f || got.Error() != nil || !got.Response().Success || got.Response().Term != 5 {
				t.Fatalf("%+v was answered with %+v, %v", got.Request(), got.Response(), got.Error())
			}
		case <-time.After(15 * time.Second):
			t.Fatalf("%+v was not answered", f.Request())
		}
		eventually(t, "nothing is unanswered", func() bool { return len(pl.(*pipeline).slots) == 0 })
	}
	answered(send(request(41))) // news
	waits := send(request(41))  // a repetition
	if !p.beats.waiting() {
		t.Fatal("a repetition did not wait for the next heartbeats")
	}
	answered(send(request(41))) // another, while that one waits
	news := request(41)
	news.LeaderCommitIndex = 41
	answered(send(news))
	for i := range uint64(4) { // more than may be unanswered
		entries := request(41 + i)
		entries.Entries = []*raft.Log{{Index: 42 + i, Term: 5, Data: []byte("x")}}
		answered(send(entries))
	}
	answered(send(request(45)))
	a.FlushHeartbeats()
	answered(waits)
	eventually(t, "the next may wait again", func() bool { return !pl.(*pipeline).repeat.Load() })

	waits = send(request(45))
	if !p.beats.waiting() {
		t.Fatal("a repetition did not wait for the next heartbeats")
	}
	a.FlushHeartbeats()
	answered(waits)
	eventually(t, "the next may wait again", func() bool { return !pl.(*pipeline).repeat.Load() })

	// A connection that was lost is noticed, though nothing is said.
	old := p.bulk.ready()
	_ = old.w.Close()
	eventually(t, "it is lost", func() bool { return pl.(*pipeline).l.Load().failure() != nil })
	if _, err := pl.AppendEntries(request(45), &raft.AppendEntriesResponse{}); err == nil || p.beats.waiting() {
		t.Fatalf("a pipeline without a connection goes on: %v", err)
	}

	// A pipeline that has ended sends nothing more.
	pl, err = from.AppendEntriesPipeline("b", "b")
	must(t, err)
	eventually(t, "the connection is back", func() bool { l := p.bulk.ready(); return l != nil && l != old })
	answered(send(request(45)))
	f := send(request(45))
	must(t, pl.Close())
	a.FlushHeartbeats()
	if f.Error() == nil {
		t.Fatal("a repetition was sent when the pipeline had ended")
	}
}

// request is an AppendEntries of a in term 5, behind an entry.
func request(prev uint64) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: headerFrom("a", "a"), Term: 5, PrevLogEntry: prev, PrevLogTerm: 5, LeaderCommitIndex: 40}
}

// TestBeatsOfAllPeersLeaveTogether: one timer serves them all.
func TestBeatsOfAllPeersLeaveTogether(t *testing.T) {
	t.Parallel()
	g, _, _ := confirmTrio(t)
	n := g.n
	beatOnce(t, g, "n2", 5)
	beatOnce(t, g, "n3", 5)
	n.beatDue.Store(true) // as between the first heartbeat and its beat
	done := make(chan struct{}, 2)
	for _, to := range []raft.ServerID{"n2", "n3"} {
		go func() {
			beatOnce(t, g, to, 5)
			done <- struct{}{}
		}()
	}
	eventually(t, "both gather", func() bool {
		for _, p := range n.peerList() {
			if !p.beats.waiting() {
				return false
			}
		}
		return true
	})
	n.beatDue.Store(false)
	n.beatSoon()
	<-done
	<-done
}

// TestLateVote: an answer that comes as its caller gives up is not written to what is the
// caller's again.
func TestLateVote(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	must(t, echo(t, a, "b", "hello"))
	for range 300 {
		from, err := a.Group(1)
		must(t, err)
		to, err := b.Group(1)
		must(t, err)
		go func() {
			select {
			case rpc := <-to.Consumer():
				go from.Close()
				rpc.Respond(&raft.RequestVoteResponse{Term: 7, Granted: true}, nil)
			case <-to.ctx.Done():
			}
		}()
		var resp raft.RequestVoteResponse
		err = from.RequestVote("b", "b", &raft.RequestVoteRequest{RPCHeader: headerFrom("a", "a"), Term: 7}, &resp)
		if resp.Granted = resp.Granted && err == nil; resp.Granted != (err == nil) {
			t.Fatalf("%+v, %v", resp, err)
		}
		must(t, from.Close())
		must(t, to.Close())
	}
}
