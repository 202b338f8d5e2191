package replication

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Deadlocks among those who wait for locks of the POSIX class; fs/DESIGN.md argues it.

const (
	// deadlockAfter is how long one waits before it is looked whether that is for ever; the
	// time doubles with each look, up to deadlockMost.
	deadlockAfter = time.Second
	deadlockMost  = 10 * time.Second
	deadlockTick  = 250 * time.Millisecond
	// deadlockCall bounds one question for a node's queues.
	deadlockCall = 2 * time.Second
	// maxHolders bounds the holders in one answer.
	maxHolders = 16 << 10
)

// lockOwner is who has locks, and who waits for them.
type lockOwner struct {
	Session object.UploadID `cbor:"1,keyasint"`
	Owner   uint64          `cbor:"2,keyasint"`
}

// lockEdge is one who waits, and for whom.
type lockEdge struct {
	Seq   uint64      `cbor:"1,keyasint"` // with Who.Session: its token
	Since int64       `cbor:"2,keyasint"` // its leader's clock, ns since 1970
	Who   lockOwner   `cbor:"3,keyasint"`
	For   []lockOwner `cbor:"4,keyasint"`
}

func (e *lockEdge) is(o *lockEdge) bool {
	return e.Seq == o.Seq && e.Since == o.Since && e.Who == o.Who
}

// younger orders those who wait; any total order does, so long as all agree.
func younger(a, b *lockEdge) int {
	return cmp.Or(cmp.Compare(a.Since, b.Since), bytes.Compare(a.Who.Session[:], b.Who.Session[:]), cmp.Compare(a.Seq, b.Seq))
}

// standing are the edges that are in both looks.
func standing(first, second []lockEdge) (out []lockEdge) {
	for _, e := range second {
		i := slices.IndexFunc(first, func(o lockEdge) bool { return o.is(&e) })
		if i < 0 {
			continue
		}
		was := first[i].For
		e.For = slices.DeleteFunc(slices.Clone(e.For), func(w lockOwner) bool { return !slices.Contains(was, w) })
		out = append(out, e)
	}
	return out
}

// cycle is a shortest way from one who waits back to itself, as the edges along it; nil
// when there is none.
func cycle(edges []lockEdge, from *lockEdge) []*lockEdge {
	waits := map[lockOwner][]*lockEdge{} // an owner of several threads may wait more than once
	for i := range edges {
		waits[edges[i].Who] = append(waits[edges[i].Who], &edges[i])
	}
	by := map[lockOwner]*lockEdge{} // how an owner was reached
	came := map[*lockEdge]*lockEdge{}
	for todo := []*lockEdge{from}; len(todo) > 0; todo = todo[1:] {
		e := todo[0]
		for _, holder := range e.For {
			if holder == from.Who {
				var way []*lockEdge
				for ; e != nil; e = came[e] {
					way = append(way, e)
				}
				return way
			}
			if by[holder] == nil {
				by[holder] = e
				for _, next := range waits[holder] {
					came[next] = e
					todo = append(todo, next)
				}
			}
		}
	}
	return nil
}

// edgesOf are the edges of places here.
func (n *Node) edgesOf(waiting map[object.InodeID][]*lockPlace) (edges []lockEdge) {
	left := maxHolders
	for ino, places := range waiting {
		list, err := n.waiters.inForce(ino)
		if err != nil {
			continue // it leads no more: they are on their way elsewhere
		}
		for _, p := range places {
			if e := edgeOf(p, list); left > len(e.For) {
				left -= len(e.For) + 1
				edges = append(edges, e)
			}
		}
	}
	return edges
}

func edgeOf(p *lockPlace, list []object.Lock) lockEdge {
	ask := p.ask
	e := lockEdge{Seq: ask.Token.Seq, Since: p.since.UnixNano(), Who: lockOwner{ask.Lock.Session, ask.Lock.Owner}}
	for i := range list {
		holder := lockOwner{list[i].Session, list[i].Owner}
		if list[i].Conflicts(&ask.Lock) && !slices.Contains(e.For, holder) {
			e.For = append(e.For, holder)
		}
	}
	return e
}

// serveLockQueues tells another node who waits here.
func (n *Node) serveLockQueues(context.Context, transport.Peer, []byte) ([]byte, error) {
	return cbor.Marshal(n.edgesOf(n.waiters.waiting()))
}

// lookAtQueues are the edges of all nodes that answer.
func (n *Node) lookAtQueues() []lockEdge {
	edges := n.edgesOf(n.waiters.waiting())
	s := n.state.Load()
	if s == nil || n.cfg.Peer == "" {
		return edges
	}
	ctx, cancel := context.WithTimeout(n.ctx, deadlockCall)
	defer cancel()
	var mu sync.Mutex // guards edges
	var all sync.WaitGroup
	for i := range s.Nodes {
		if id := string(s.Nodes[i].ID); id != n.cfg.NodeID && s.Nodes[i].Life != control.NodeRemoved {
			all.Go(func() {
				more, err := callFor[[]lockEdge](ctx, n, id, methodLockQueues, nil)
				if err != nil {
					return // the next look may find it
				}
				mu.Lock()
				defer mu.Unlock()
				edges = append(edges, more...)
			})
		}
	}
	all.Wait()
	return edges
}

// breakDeadlocks looks now and then whether somebody who waits here waits for ever. While
// nobody waits it sleeps.
func (n *Node) breakDeadlocks() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.waiters.came:
		}
		for n.waiters.some() {
			if sleep(n.ctx, deadlockTick) != nil {
				return
			}
			if due := n.dueForLook(time.Now()); len(due) > 0 {
				n.lookForDeadlock(due)
			}
		}
	}
}

// dueForLook are the places that have waited long enough.
func (n *Node) dueForLook(now time.Time) (due []*lockPlace) {
	for _, places := range n.waiters.waiting() {
		for _, p := range places {
			n.waiters.mu.Lock()
			if !now.Before(p.look) {
				p.looks++
				p.look = now.Add(min(deadlockAfter<<min(p.looks, 10), deadlockMost))
				due = append(due, p)
			}
			n.waiters.mu.Unlock()
		}
	}
	return due
}

// lookForDeadlock cancels those of some places here that are the youngest in a cycle.
func (n *Node) lookForDeadlock(due []*lockPlace) {
	first := n.lookAtQueues()
	if !slices.ContainsFunc(due, func(p *lockPlace) bool { return n.isVictim(p, first) }) {
		return
	}
	stood := standing(first, n.lookAtQueues())
	for _, p := range due {
		if n.isVictim(p, stood) {
			n.log.Info("a lock is refused: who waits for it would wait for ever", "inode", p.ask.Inode, "owner", p.ask.Lock.Owner)
			n.waiters.cancel(n.ctx, p, object.KindDeadlock)
			// What it waited for may have been part of other cycles, too.
			stood = slices.DeleteFunc(stood, func(e lockEdge) bool {
				return e.Who.Session == p.ask.Lock.Session && e.Seq == p.ask.Token.Seq
			})
		}
	}
}

// isVictim reports whether one who waits here is the youngest of a cycle.
func (n *Node) isVictim(p *lockPlace, edges []lockEdge) bool {
	i := slices.IndexFunc(edges, func(e lockEdge) bool {
		return e.Who.Session == p.ask.Lock.Session && e.Seq == p.ask.Token.Seq
	})
	if i < 0 {
		return false
	}
	way := cycle(edges, &edges[i])
	return way != nil && slices.MaxFunc(way, younger) == &edges[i]
}
