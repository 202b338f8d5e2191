package transport

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func probeRequest(node string, term uint64) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: headerFrom(node, node), Term: term}
}

// answerAll answers a group's appends in their term, with success unless seen says no.
func answerAll(g *Group, seen func(*raft.AppendEntriesRequest) bool) {
	for {
		select {
		case rpc := <-g.Consumer():
			a := rpc.Command.(*raft.AppendEntriesRequest)
			rpc.Respond(&raft.AppendEntriesResponse{Term: a.Term, Success: seen == nil || seen(a)}, nil)
		case <-g.ctx.Done():
			return
		}
	}
}

// TestProbe does not wait for the window, which never ends here, and says what is committed.
func TestProbe(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}, BeatWindow: time.Hour})
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}})
	from, err := a.Group(1)
	must(t, err)
	to, err := b.Group(1)
	must(t, err)
	seen := make(chan raft.AppendEntriesRequest, 9)
	var lacks atomic.Bool
	go answerAll(to, func(a *raft.AppendEntriesRequest) bool { seen <- *a; return !lacks.Load() })
	for _, want := range []*raft.AppendEntriesRequest{
		probeRequest("a", 5),
		{RPCHeader: headerFrom("a", "a"), Term: 5, PrevLogEntry: 41, PrevLogTerm: 3, LeaderCommitIndex: 40},
	} {
		var resp raft.AppendEntriesResponse
		must(t, from.Probe("b", "b", want, &resp))
		if got := <-seen; !reflect.DeepEqual(got, *want) || !resp.Success || resp.Term != 5 {
			t.Errorf("%+v came as %+v, answered %+v", *want, got, resp)
		}
	}
	// Without an entry, the last that the peer has acknowledged in the term is taken.
	entries := []*raft.Log{{Index: 42, Term: 4, Data: []byte("x")}}
	for _, c := range []struct{ known, commit, prev, want uint64 }{{0, 50, 41, 41}, {0, 30, 41, 30}, {42, 50, 42, 42}} {
		if c.known > 0 {
			must(t, from.AppendEntries("b", "b", &raft.AppendEntriesRequest{RPCHeader: headerFrom("a", "a"), Term: 5, PrevLogEntry: 41, PrevLogTerm: 3, Entries: entries}, &raft.AppendEntriesResponse{}))
			<-seen
		}
		req := probeRequest("a", 5)
		req.LeaderCommitIndex = c.commit
		must(t, from.Probe("b", "b", req, &raft.AppendEntriesResponse{}))
		if got := <-seen; got.PrevLogEntry != c.prev || got.LeaderCommitIndex != c.want {
			t.Errorf("%+v came as %+v", c, got)
		}
	}
	lacks.Store(true) // another replica lives there now, which has nothing
	req := probeRequest("a", 5)
	req.LeaderCommitIndex = 42
	for _, want := range []uint64{42, 0} {
		var resp raft.AppendEntriesResponse
		must(t, from.Probe("b", "b", req, &resp))
		if got := <-seen; got.PrevLogEntry != want || resp.Success {
			t.Errorf("%+v, answered %+v", got, resp)
		}
	}
	lacks.Store(false)
	later := probeRequest("a", 6) // what it acknowledged in term 5 counts no more
	later.LeaderCommitIndex = 50
	must(t, from.Probe("b", "b", later, &raft.AppendEntriesResponse{}))
	if got := <-seen; got.PrevLogEntry != 0 || got.LeaderCommitIndex != 0 {
		t.Errorf("in a new term: %+v", got)
	}
	// An entry above what is compared could be another one at the follower.
	wantKind(t, from.Probe("b", "b", &raft.AppendEntriesRequest{Term: 6, PrevLogEntry: 1, LeaderCommitIndex: 2}, &raft.AppendEntriesResponse{}), object.KindInvalid)
	wantKind(t, from.Probe("b", "b", &raft.AppendEntriesRequest{Term: 6, Entries: []*raft.Log{{}}}, &raft.AppendEntriesResponse{}), object.KindInvalid)
	wantKind(t, from.Probe("b", "b", probeRequest("a", 5), &raft.AppendEntriesResponse{}), object.KindUnavailable)
}

// TestProbeIsBounded asks one that hangs, one that is down and one that hangs up.
func TestProbeIsBounded(t *testing.T) {
	t.Parallel()
	a, b, bk := pair(t)
	from, err := a.Group(1)
	must(t, err)
	to, err := b.Group(1)
	must(t, err)
	var resp raft.AppendEntriesResponse
	began := time.Now()
	wantKind(t, from.Probe("b", "b", probeRequest("a", 5), &resp), object.KindTimeout)
	if took := time.Since(began); took > 10*probeWait {
		t.Errorf("it took %v", took)
	}
	<-to.Consumer()
	lost := make(chan error, 1)
	go func() { lost <- from.Probe("b", "b", probeRequest("a", 5), &resp) }()
	<-to.Consumer()
	for _, w := range b.wires() {
		_ = w.Close()
	}
	wantKind(t, <-lost, object.KindUnavailable)
	bk.set("dead", "127.0.0.1:1")
	wantKind(t, from.Probe("dead", "dead", probeRequest("a", 5), &resp), object.KindUnavailable)
	late := make(chan error, 1)
	go func() { late <- from.Probe("b", "b", probeRequest("a", 5), &resp) }()
	<-to.Consumer()
	from.inTerm(6) // this node votes for another
	wantKind(t, <-late, object.KindUnavailable)
}

// TestProbesShareFrames has readers of 64 groups come at one moment.
func TestProbesShareFrames(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t)
	must(t, echo(t, a, "b", "x"))
	p, err := a.peer("b")
	must(t, err)
	_, err = p.urgent.get(t.Context(), true)
	must(t, err)
	p.beats.mu.Lock()
	p.beats.soon = true // as between the first one's arrival and its flush
	p.beats.mu.Unlock()
	var wg sync.WaitGroup
	for id := range object.PartitionID(64) {
		ga, err := a.Group(id)
		must(t, err)
		gb, err := b.Group(id)
		must(t, err)
		go answerAll(gb, nil)
		wg.Go(func() {
			var resp raft.AppendEntriesResponse
			if err := ga.Probe("b", "b", probeRequest("a", 1), &resp); err != nil || !resp.Success {
				t.Errorf("%+v, %v", resp, err)
			}
		})
	}
	eventually(t, "all are there", func() bool {
		p.beats.mu.Lock()
		defer p.beats.mu.Unlock()
		return len(p.beats.pending) == 64
	})
	p.beats.flush()
	wg.Wait()
	l := p.urgent.ready()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastID != 1 {
		t.Errorf("%d frames for 64 probes", l.lastID)
	}
}

// TestProbeTellsOfCommits: a follower that hears of no later entry learns from the
// probe that what it has is committed.
func TestProbeTellsOfCommits(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, 3, func(conf *raft.Config) { conf.CommitTimeout = time.Hour }, NewSecret())
	told := 0
	for i := 0; told < 20; i++ {
		text := fmt.Sprintf("entry %d", i)
		lead := c.leader(t, 0)
		f := lead.r.Apply([]byte(text), 5*time.Second)
		if f.Error() != nil { // on a starved machine leaders change
			continue
		}
		var entry raft.Log
		must(t, lead.store.GetLog(f.Index(), &entry))
		for _, rep := range c.reps[0] {
			node := raft.ServerAddress(rep.g.n.opt.Node)
			req := probeRequest(lead.g.n.opt.Node, entry.Term)
			req.LeaderCommitIndex = entry.Index
			if i%2 == 0 { // or let the transport find out what the follower has
				req.PrevLogEntry, req.PrevLogTerm = entry.Index, entry.Term
			}
			leads := func() bool { return lead.r.State() == raft.Leader && lead.r.CurrentTerm() == entry.Term }
			eventually(t, "the follower is told", func() bool {
				var resp raft.AppendEntriesResponse
				return rep == lead || rep.r.CommitIndex() >= entry.Index || !leads() ||
					lead.g.Probe(raft.ServerID(node), node, req, &resp) == nil && resp.Success && rep.r.CommitIndex() >= entry.Index
			})
			eventually(t, "the follower has applied it", func() bool { return rep.fsm.has(text) || !leads() })
			if rep != lead && leads() {
				told++
			}
		}
	}
}

func FuzzBeat(f *testing.F) {
	before := headerFrom("n1#2", "n2\x00n1#2\x00n1")
	for _, a := range []*raft.AppendEntriesRequest{{RPCHeader: before, Term: 9}, probeRequest("n1", 3),
		{RPCHeader: before, Term: 1 << 40, PrevLogEntry: 4, PrevLogTerm: 2, LeaderCommitIndex: 4}} {
		f.Add(appendBeat(nil, a, true, before))
		f.Add(appendBeat(nil, a, false, raft.RPCHeader{}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reader{b: b}
		a, probe := r.beat(before)
		if r.err != nil {
			return
		}
		if a.LeaderCommitIndex > a.PrevLogEntry {
			t.Fatalf("%+v commits what it does not compare", a)
		}
		r = &reader{b: appendBeat(nil, a, probe, before)}
		if again, p := r.beat(before); r.end() != nil || p != probe || !same(a, again) {
			t.Fatalf("%+v became %+v", a, again)
		}
	})
}

// same compares heartbeats, and takes no bytes for an empty slice.
func same(a, b *raft.AppendEntriesRequest) bool {
	x, y := *a, *b
	if string(x.ID) != string(y.ID) || string(x.Addr) != string(y.Addr) || x.ProtocolVersion != y.ProtocolVersion {
		return false
	}
	x.RPCHeader, y.RPCHeader = raft.RPCHeader{}, raft.RPCHeader{}
	return reflect.DeepEqual(x, y)
}
