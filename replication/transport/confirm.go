package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// mark is what one peer has acknowledged.
type mark struct {
	term, seq uint64 // the highest number acknowledged in the highest term
	probing   bool   // a probe of Confirm's is under way
	sent      raft.RPCHeader
	sentTerm  uint64 // the highest term in which raft sent it anything as leader, and the header
	has       entryID
	hasTerm   uint64 // the last entry that it acknowledged in the highest term
}

// entryID names an entry of the log.
type entryID struct{ index, term uint64 }

// lastOf is the last entry that who answers the request with success has for sure.
func lastOf(a *raft.AppendEntriesRequest) entryID {
	if n := len(a.Entries); n > 0 {
		return entryID{a.Entries[n-1].Index, a.Entries[n-1].Term}
	}
	return entryID{a.PrevLogEntry, a.PrevLogTerm}
}

// cohort is the reads that began since the same message was sent: they share
// their acknowledgements. The Group's mu guards it; done is closed with err set.
type cohort struct {
	noted, term uint64
	peers       []string
	need        int
	readers     int
	done        chan struct{}
	err         error
}

// Sent is the number of the last AppendEntries or heartbeat of this group; what
// is sent later has a higher one.
func (g *Group) Sent() uint64 { return g.sent.Load() }

// Acked is the highest number that a peer has acknowledged successfully in term; 0: none.
func (g *Group) Acked(peer string, term uint64) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.marks[peer]; m != nil && m.term == term {
		return m.seq
	}
	return 0
}

// Confirm returns once at least need of peers have acknowledged, in term, a
// message of this group that was sent after the call began. Calls that come
// close together share a round. term is one that this node leads in, peers are
// the other voters, and need is the quorum without this node; then no later
// leader had been elected when the call began. That is the sent-after rule.
// A peer that raft has sent nothing in the term yet is not probed: its header is
// not known. Raft's own first message to it will do.
//
// KindUnavailable: this node leads in term no more (another leads, or may). It
// does not notice leadership that ends within a term: end ctx then. KindTimeout,
// KindCanceled: ctx ended first. Nothing was changed in any case.
func (g *Group) Confirm(ctx context.Context, term uint64, peers []string, need int) error {
	if need <= 0 {
		return ctx.Err()
	}
	g.mu.Lock()
	if term != g.term || term != g.ledTerm || g.ctx.Err() != nil {
		g.mu.Unlock()
		return object.Errorf(object.KindUnavailable, "partition %d: this node does not lead in term %d any more; ask again", g.id, term)
	}
	c := g.join(term, peers, need)
	var probes []*beat
	for _, p := range peers {
		if m := g.mark(p); !m.probing && m.sentTerm == term {
			m.probing = true
			probes = append(probes, g.probe(p))
		}
	}
	g.mu.Unlock()
	for _, b := range probes {
		g.sendProbe(b, b.to, true)
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	g.leave(c)
	return &object.Error{Kind: object.KindOf(ctx.Err()), Err: fmt.Errorf(
		"partition %d: a majority of its replicas has not confirmed that this node leads: %w", g.id, ctx.Err())}
}

// join finds or makes the cohort of a reader that begins now. The caller holds mu.
func (g *Group) join(term uint64, peers []string, need int) *cohort {
	noted := g.sent.Load()
	if n := len(g.cohorts); n > 0 {
		c := g.cohorts[n-1]
		if c.noted == noted && c.term == term && c.need == need && slices.Equal(c.peers, peers) {
			c.readers++
			return c
		}
	}
	c := &cohort{noted: noted, term: term, peers: slices.Clone(peers), need: need, readers: 1, done: make(chan struct{})}
	g.cohorts = append(g.cohorts, c)
	return c
}

// leave drops a cohort that its last reader has left.
func (g *Group) leave(c *cohort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.readers--; c.readers == 0 {
		g.cohorts = slices.DeleteFunc(g.cohorts, func(x *cohort) bool { return x == c })
	}
}

// mark finds or makes a peer's mark. The caller holds mu.
func (g *Group) mark(peer string) *mark {
	m := g.marks[peer]
	if m == nil {
		m = &mark{}
		g.marks[peer] = m
	}
	return m
}

// probe makes a heartbeat like those that raft has sent in the term it leads in.
// The caller holds mu.
func (g *Group) probe(peer string) *beat {
	m := g.mark(peer)
	return &beat{
		g: g, req: &raft.AppendEntriesRequest{RPCHeader: m.sent, Term: m.sentTerm}, probe: true, to: peer,
		gone: func() bool { return !g.wants(peer) },
		done: func(_ raft.AppendEntriesResponse, err error) { g.probed(peer, err) },
	}
}

func (g *Group) sendProbe(b *beat, peer string, now bool) {
	p, err := g.n.peer(peer)
	if err != nil { // this node is closing: Close ends the readers
		return
	}
	p.beats.add(b, now)
}

// wants reports whether a reader still waits for this peer.
func (g *Group) wants(peer string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wanted(peer)
}

func (g *Group) wanted(peer string) bool {
	m := g.mark(peer)
	for _, c := range g.cohorts {
		if slices.Contains(c.peers, peer) && !m.after(c) {
			return true
		}
	}
	return false
}

func (m *mark) after(c *cohort) bool { return m.term == c.term && m.seq > c.noted }

// probed sends the next probe if readers came meanwhile, or this one failed.
func (g *Group) probed(peer string, err error) {
	g.mu.Lock()
	again := g.ctx.Err() == nil && g.wanted(peer) && g.mark(peer).sentTerm == g.ledTerm
	g.mark(peer).probing = again
	var b *beat
	if again {
		b = g.probe(peer)
	}
	g.mu.Unlock()
	if again {
		// After a failure with the window: no faster than that.
		g.sendProbe(b, peer, err == nil)
	}
}

// acknowledged notes the answer to a message of ours, whose last entry is given.
func (g *Group) acknowledged(peer string, seq, term uint64, last entryID, resp *raft.AppendEntriesResponse) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if resp.Term > term {
		g.endBefore(resp.Term)
		return
	}
	if resp.Term != term {
		return
	}
	if !resp.Success { // it lacks what it was thought to have: it may be another replica by now
		if m := g.mark(peer); m.hasTerm == term {
			m.has = entryID{}
		}
		return
	}
	switch m := g.mark(peer); {
	case term > m.term:
		m.term, m.seq = term, seq
	case term == m.term:
		m.seq = max(m.seq, seq)
	}
	if m := g.mark(peer); term > m.hasTerm || term == m.hasTerm && last.index > m.has.index {
		m.has, m.hasTerm = last, term
	}
	g.cohorts = slices.DeleteFunc(g.cohorts, func(c *cohort) bool {
		have := 0
		for _, p := range c.peers {
			if m := g.marks[p]; m != nil && m.after(c) {
				have++
			}
		}
		if have < c.need {
			return false
		}
		close(c.done)
		return true
	})
}

// endBefore fails the readers of earlier terms. The caller holds mu.
func (g *Group) endBefore(term uint64) {
	g.cohorts = slices.DeleteFunc(g.cohorts, func(c *cohort) bool {
		if c.term >= term {
			return false
		}
		c.err = errors.Join(object.Errorf(object.KindUnavailable, "partition %d has a newer leader", g.id), errTerm())
		close(c.done)
		return true
	})
}

// endCohorts fails all readers.
func (g *Group) endCohorts(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.cohorts {
		c.err = err
		close(c.done)
	}
	g.cohorts = nil
}
