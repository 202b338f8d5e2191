package group

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// probeRetry is the pause after a request for a read that failed.
const probeRetry = 20 * time.Millisecond

// reads implements the sent-after rule of DESIGN.md for all readers of a group.
type reads struct {
	mu      sync.Mutex // guards what follows
	seq     uint64     // of the newest batch
	open    *batch     // no request has been sent since it was made: readers may join
	waiting []*batch   // all that are not confirmed, open among them, by seq
	acked   map[raft.ServerID]ack
	probing map[target]bool // one request under way to each at most
}

// target is whom a term's reads ask.
type target struct {
	raft.Server
	term uint64
}

// batch are reads that the same acknowledgements confirm.
type batch struct {
	seq, term uint64
	voters    []raft.Server // the others
	need      int           // acknowledgements, without our own
	readers   int           // who still wait
	done      chan struct{} // closed when confirmed, or when failed is set
	failed    bool
}

// ack says: in this term it acknowledged a request that was sent when seq was the
// newest batch.
type ack struct{ term, seq uint64 }

// Read returns once this node may answer from its machine's state: everything that
// was acknowledged, or shown by any replica, before the call is in it. KindUnavailable when this node
// does not lead (LeaderOf tells who does) or stops leading meanwhile, which a
// leader without a majority does within 2 s; KindTimeout or KindCanceled when ctx
// ends first.
//
// With one voter no other leader can exist, so leading with the term's barrier
// behind us suffices instead of a majority's word.
func (g *Group) Read(ctx context.Context) error {
	if !g.isReady() {
		if err := g.waitToLead(ctx); err != nil {
			return err
		}
	}
	i := g.now()
	committed := i.CommitIndex()
	// In this order: who leads alone now led alone when it was last asked.
	if !g.alone() || !g.isReady() {
		if err := g.confirm(ctx); err != nil {
			return err
		}
	}
	return g.catchUp(ctx, i, committed)
}

// catchUp waits until the machine has what was committed when a read began. It need not
// have been acknowledged: a follower may learn of the commit, apply it and show it to
// somebody while this replica's machine has yet to come to it.
func (g *Group) catchUp(ctx context.Context, i *instance, committed uint64) error {
	if g.cfg.Transport == nil {
		return nil // no other replica shows anything
	}
	for i.fsm.through.Load() < committed {
		moved := g.progress.wait()
		if i.fsm.through.Load() >= committed {
			return nil
		}
		select {
		case <-moved:
		case <-i.done: // deposed, and takes over a state; or the group stops
			return g.refused()
		case <-g.closing:
			return g.err()
		case <-ctx.Done():
			return object.Errorf(object.KindOf(ctx.Err()),
				"partition %d: this replica has not applied in time what is committed; try again: %w", g.cfg.ID, ctx.Err())
		}
	}
	return nil
}

// waitToLead waits until this node is ready to lead, or it is known that another leads.
func (g *Group) waitToLead(ctx context.Context) error {
	return g.wait(ctx, func() (bool, error) {
		if g.isReady() {
			return true, nil
		}
		if node, ok := g.Leader(); ok && node != g.cfg.Node {
			return false, g.notLeader()
		}
		return false, nil
	})
}

// confirm waits for a majority's word, sent for after now, that this node leads.
func (g *Group) confirm(ctx context.Context) error {
	b, err := g.joinBatch()
	if err != nil {
		return err
	}
	for {
		changed := g.changes()
		if !g.leadsIn(b.term) {
			g.reads.leave(b)
			return g.refused()
		}
		select {
		case <-b.done:
			if b.failed || !g.leadsIn(b.term) {
				return g.refused()
			}
			return nil
		case <-changed:
		case <-ctx.Done():
			g.reads.leave(b)
			return object.Errorf(object.KindOf(ctx.Err()),
				"partition %d: no majority of its replicas confirmed in time that this node leads; try again: %w", g.cfg.ID, ctx.Err())
		}
	}
}

// refused is why this node, which led when it was asked, does nothing.
func (g *Group) refused() error {
	if err := g.err(); err != nil {
		return err
	}
	return g.notLeader()
}

// leadsIn reports whether this node leads in that very term, with all before applied.
func (g *Group) leadsIn(term uint64) bool { return g.isReady() && g.ready.Load() == term }

func (g *Group) joinBatch() (*batch, error) {
	r := &g.reads
	r.mu.Lock()
	defer r.mu.Unlock()
	// The term is taken before anything is sent for it.
	term := g.ready.Load()
	if r.open == nil || r.open.term != term {
		if !g.leadsIn(term) {
			return nil, g.refused()
		}
		b := g.newBatch(term)
		if b.need == 0 { // the only voter by now, and still the leader
			close(b.done)
			return b, nil
		}
		if r.acked == nil {
			r.acked, r.probing = make(map[raft.ServerID]ack), make(map[target]bool)
		}
		r.seq++
		b.seq = r.seq
		r.open = b
		r.waiting = append(r.waiting, b)
	}
	b := r.open
	b.readers++
	for _, s := range b.voters {
		if to := (target{s, term}); !r.probing[to] {
			r.probing[to] = true
			go g.probe(to)
		}
	}
	return b, nil
}

// newBatch looks who must confirm: a majority of the newest configuration. Any
// majority that elected another leader before shares a voter with it.
func (g *Group) newBatch(term uint64) *batch {
	b := &batch{term: term, done: make(chan struct{})}
	all, self := 0, 0
	for _, s := range g.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		if all++; s.ID == raft.ServerID(g.cfg.Node) {
			self = 1
		} else {
			b.voters = append(b.voters, s)
		}
	}
	b.need = all/2 + 1 - self
	return b
}

// seal is called before a request is handed to the transport: later readers need
// a later request. It returns the newest batch that began before. It is also called
// when a list of members is committed, before another change can begin: readers
// never join a batch whose voters are two lists old, which need not meet a majority
// of today's.
func (r *reads) seal() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = nil
	return r.seq
}

// leave gives a batch up for one reader; without readers it is forgotten.
func (r *reads) leave(b *batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.readers--; b.readers == 0 {
		r.waiting = slices.DeleteFunc(r.waiting, func(w *batch) bool { return w == b })
		if r.open == b {
			r.open = nil
		}
	}
}

// answered takes an answer to a request of the term that was sealed at seq.
func (r *reads) answered(id raft.ServerID, term, seq uint64, resp *raft.AppendEntriesResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return
	}
	switch {
	case resp.Term > term:
		r.finish(func(b *batch) bool { b.failed = b.term <= term; return b.failed })
	case resp.Success && resp.Term == term:
		if a := r.acked[id]; a.term < term || a.term == term && a.seq < seq {
			r.acked[id] = ack{term, seq}
		}
		r.finish(r.confirmed)
	}
}

// confirmed counts who acknowledged something sent after the batch was made.
func (r *reads) confirmed(b *batch) bool {
	n := 0
	for _, s := range b.voters {
		if a := r.acked[s.ID]; a.term == b.term && a.seq >= b.seq {
			n++
		}
	}
	return n >= b.need
}

func (r *reads) finish(test func(*batch) bool) {
	r.waiting = slices.DeleteFunc(r.waiting, func(b *batch) bool {
		if !test(b) {
			return false
		}
		if r.open == b {
			r.open = nil
		}
		close(b.done)
		return true
	})
}

// wanted reports whether a batch still waits for this voter; if none does, the
// probing of it has ended.
func (r *reads) wanted(to target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.acked[to.ID]
	for _, b := range r.waiting {
		if b.term == to.term && (a.term != b.term || a.seq < b.seq) && slices.Contains(b.voters, to.Server) {
			return true
		}
	}
	delete(r.probing, to)
	return false
}

// probe sends requests to a voter, one after the other, while reads wait for it.
// It is the heartbeat that raft itself sends in the term.
func (g *Group) probe(to target) {
	i := g.now()
	req := &raft.AppendEntriesRequest{Term: to.term, RPCHeader: raft.RPCHeader{
		ProtocolVersion: raftVersion, ID: []byte(g.cfg.Node),
		Addr: i.link.EncodePeer(raft.ServerID(g.cfg.Node), i.link.LocalAddr()),
	}}
	for g.reads.wanted(to) {
		var resp raft.AppendEntriesResponse
		err := i.link.probe(to.ID, to.Address, req, &resp)
		if err == nil && resp.Term > to.term {
			i.VerifyLeader() // raft shall ask for itself, and step down
		}
		if err == nil && resp.Success {
			continue
		}
		select {
		case <-time.After(probeRetry):
		case <-g.stopped:
			return
		}
	}
}
