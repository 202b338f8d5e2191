package replication

import (
	"context"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// ringSize is how many events a node keeps for subscribers that lag.
const ringSize = 1 << 14

// hub keeps the last events of all partitions in one ring, in the order they came: those
// of replicas here as they are applied, those of other partitions, while somebody
// subscribes, from a node that has one (events_feed.go).
type hub struct {
	mu     sync.Mutex
	ring   []Event // of the positions [next-len(ring), next), at position % ringSize
	next   uint64
	lost   map[object.PartitionID]uint64 // the highest index whose events are no longer here
	last   map[object.PartitionID]uint64 // how far each partition's stream is here
	wake   chan struct{}                 // closed and replaced when there is news
	closed bool

	subs int           // subscriptions that are open
	term uint64        // counts the times that the first one came
	news chan struct{} // a token: subs has changed
}

func newHub() *hub {
	return &hub{lost: map[object.PartitionID]uint64{}, last: map[object.PartitionID]uint64{}, wake: make(chan struct{}), news: make(chan struct{}, 1)}
}

// start tells where the stream of a partition begins that has a replica here from now on.
func (h *hub) start(p object.PartitionID, applied uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last, ok := h.last[p]; h.subs > 0 && (!ok || last < applied) { // it came from elsewhere until now
		h.gapLocked(p, applied)
	}
	h.lost[p] = max(h.lost[p], applied)
	h.last[p] = max(h.last[p], applied)
}

// gap tells subscribers that events of a partition up to an index were never here.
func (h *hub) gap(p object.PartitionID, applied uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gapLocked(p, applied)
}

func (h *hub) gapLocked(p object.PartitionID, applied uint64) {
	h.lost[p] = max(h.lost[p], applied)
	h.last[p] = max(h.last[p], applied)
	h.add(Event{Partition: p, Index: applied, Kind: EventGap, Time: time.Now()})
	close(h.wake)
	h.wake = make(chan struct{})
}

// publish adds the events of applied entries, but for those that came from another node
// already. It never blocks.
func (h *hub) publish(p object.PartitionID, events []namespace.Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	at, added := h.last[p], false
	for _, e := range events {
		if e.Index > at {
			h.add(asEvent(p, e))
			h.last[p], added = e.Index, true
		}
	}
	if added {
		close(h.wake)
		h.wake = make(chan struct{})
	}
}

func (h *hub) add(e Event) {
	if len(h.ring) < ringSize {
		h.ring = append(h.ring, e)
	} else {
		slot := &h.ring[h.next%ringSize]
		h.lost[slot.Partition] = max(h.lost[slot.Partition], slot.Index) // a stream may have begun anew behind it
		*slot = e
	}
	h.next++
}

func asEvent(p object.PartitionID, e namespace.Event) Event {
	kind := EventInode
	if e.Dir != 0 {
		kind = EventEntry
	}
	return Event{Partition: p, Index: e.Index, Kind: kind, Dir: e.Dir, Name: e.Name, Inode: e.Inode, Version: e.Version, Time: e.Time}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.wake)
		h.wake = make(chan struct{})
	}
}

// Subscription is an ordered stream of events. It is for one goroutine.
type Subscription struct {
	h     *hub
	pos   uint64
	since map[object.PartitionID]uint64
	gaps  []Event
	over  bool
}

// Subscribe starts a stream of changes behind the given positions (partition →
// index); of a partition that is not named, from now on. Where events behind a
// position are lost already, an EventGap comes first. Of a partition without a replica
// here that is not named, the stream begins with an EventGap, too: until it comes from
// another node, changes may pass. Close it.
func (n *Node) Subscribe(since map[object.PartitionID]uint64) *Subscription {
	here := map[object.PartitionID]uint64{} // and how far they are
	for _, p := range n.parts {
		if r := p.here.Load(); r != nil {
			here[p.id] = r.machine.Applied()
		}
	}
	h := n.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs++
	if h.subs == 1 {
		h.term++
		for _, p := range n.parts {
			if _, ok := here[p.id]; !ok {
				h.resume(p.id, since)
			}
		}
		nudge(h.news)
	}
	s := &Subscription{h: h, pos: h.next, since: map[object.PartitionID]uint64{}}
	for p, at := range since {
		s.since[p] = at
		if at < h.lost[p] {
			s.gaps = append(s.gaps, Event{Partition: p, Index: h.lost[p], Kind: EventGap, Time: time.Now()})
		}
	}
	if len(since) > 0 {
		s.pos = h.next - uint64(len(h.ring))
		for _, p := range n.parts {
			if _, ok := since[p.id]; ok {
				continue
			}
			if at, ok := here[p.id]; ok {
				s.since[p.id] = at
			} else {
				s.since[p.id] = max(h.lost[p.id], h.last[p.id])
			}
		}
	}
	return s
}

// resume says where the stream of a partition that is not here goes on, for the first
// subscription in a while: behind what is here, behind the position that is asked for, or
// from now on. mu is held.
func (h *hub) resume(p object.PartitionID, since map[object.PartitionID]uint64) {
	at, named := since[p]
	last, known := h.last[p]
	switch {
	case !named:
		h.lost[p] = max(h.lost[p], last)
		delete(h.last, p)
	case !known || at > last:
		h.last[p], h.lost[p] = at, at
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Next waits for the next events (at least one), until ctx ends. A subscriber
// that lags behind what is kept gets an EventGap for every partition.
func (s *Subscription) Next(ctx context.Context) ([]Event, error) {
	for {
		list, wake, closed := s.take()
		if len(list) > 0 {
			return list, nil
		}
		if closed {
			return nil, object.Errorf(object.KindUnavailable, "the node is stopping")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wake:
		}
	}
}

// maxEvents bounds one answer of Next.
const maxEvents = 1024

func (s *Subscription) take() (list []Event, wake <-chan struct{}, closed bool) {
	h := s.h
	h.mu.Lock()
	defer h.mu.Unlock()
	list, s.gaps = s.gaps, nil
	if oldest := h.next - uint64(len(h.ring)); s.pos < oldest {
		s.pos = oldest
		for p, at := range h.lost {
			list = append(list, Event{Partition: p, Index: at, Kind: EventGap, Time: time.Now()})
		}
	}
	for ; s.pos < h.next; s.pos++ {
		e := h.ring[s.pos%ringSize]
		// The events of one entry go together: a position names whole entries.
		if n := len(list); n >= maxEvents && (list[n-1].Partition != e.Partition || list[n-1].Index != e.Index) {
			break
		}
		if e.Index > s.since[e.Partition] {
			list = append(list, e)
		}
	}
	return list, h.wake, h.closed
}

// Close ends the stream. It may be repeated.
func (s *Subscription) Close() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	if !s.over {
		s.over = true
		s.h.subs--
		nudge(s.h.news)
	}
}
