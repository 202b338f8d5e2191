package group

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// peers is what is known of the other replicas. It decides how much log is kept
// and when a joiner is promoted, and nothing that safety hangs on.
type peers struct {
	mu      sync.Mutex // guards what follows
	byID    map[raft.ServerID]*peer
	images  map[*outgoing]uint64 // states that are open for sending: their index
	changed chan struct{}        // closed and dropped when one has more
}

type peer struct {
	term  uint64    // in which it was heard
	at    time.Time // when it was heard last
	last  uint64    // the last entry of its log, as it said in that term
	image uint64    // index of the state that it was sent, until it has caught up or fallen silent; else 0
}

// silence is how long the log behind a state is kept for a replica that took the
// state and is not heard any more.
const silence = time.Minute

// of is what is known of one in a term. mu is held.
func (p *peers) of(id raft.ServerID, term uint64) *peer {
	q := p.byID[id]
	if q == nil {
		if p.byID == nil {
			p.byID = make(map[raft.ServerID]*peer)
		}
		q = &peer{}
		p.byID[id] = q
	}
	if q.term < term {
		*q = peer{term: term}
	}
	return q
}

// heard notes an answer, when last is the end of this node's log.
func (p *peers) heard(id raft.ServerID, term uint64, resp *raft.AppendEntriesResponse, last uint64) {
	if resp.Term != term || !resp.Success {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.of(id, term)
	if q.term != term {
		return
	}
	q.at = time.Now()
	if q.last != resp.LastLog {
		q.last = resp.LastLog
		p.tell()
	}
	if q.last+maxAppendEntries >= last {
		q.image = 0 // it has caught up, and is like any other
	}
}

// answersFor is how recently a replica must have been heard to be handed the leadership.
const answersFor = 2 * heartbeatTimeout

// answers reports whether a replica was heard of late in a term, and the last entry that it had.
func (p *peers) answers(id raft.ServerID, term uint64) (last uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.of(id, term)
	return q.last, q.term == term && time.Since(q.at) < answersFor
}

// installed notes that a replica took a state.
func (p *peers) installed(id raft.ServerID, term, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.of(id, term); q.term == term {
		q.at, q.image = time.Now(), index
		p.tell()
	}
}

// tell wakes who waits for changed. mu is held.
func (p *peers) tell() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// has is the last entry that a replica is known to have in this term; 0: unknown.
func (p *peers) has(id raft.ServerID, term uint64) (last uint64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	if q := p.of(id, term); q.term == term {
		last = max(q.last, q.image)
	}
	return last, p.changed
}

// hold keeps the log from index on while a state is open for sending.
func (p *peers) hold(o *outgoing, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.images == nil {
		p.images = make(map[*outgoing]uint64)
	}
	p.images[o] = index
}

func (p *peers) release(o *outgoing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.images, o)
}

// needs is the lowest index that a leader of the term keeps for the others now, when
// last is the end of its log.
func (p *peers) needs(now time.Time, others []raft.ServerID, term, last uint64, keep trailing) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	low := last
	for _, index := range p.images {
		low = min(low, behind(last, keep.image, index))
	}
	for _, id := range others {
		switch q := p.of(id, term); {
		case q.image == 0 || now.Sub(q.at) > silence:
			low = min(low, behind(last, keep.lagging, q.last))
		default:
			low = min(low, behind(last, keep.image, max(q.image, q.last)))
		}
	}
	return low
}

// behind is index, but at most n below last.
func behind(last, n, index uint64) uint64 {
	if last > n {
		return max(index, last-n)
	}
	return index
}
