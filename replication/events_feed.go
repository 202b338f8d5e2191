package replication

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Events of partitions that have no replica here come from a node that has one, while
// somebody here subscribes: a question waits there until there is something to tell. The
// position is the Raft index of what came last, so another node can go on; what it has not
// kept it tells as a gap.

const (
	// feedWait is how long a question waits for news, feedFor how long it may take.
	feedWait = 5 * time.Second
	feedFor  = feedWait + 3*time.Second
	// feedLook is how often it is looked whether partitions have to come from elsewhere.
	feedLook = time.Second
	// feedShun is how long a node that did not tell of a partition is not asked for it.
	feedShun = 2 * time.Second
)

// feedAsk asks for the events of partitions.
type feedAsk struct {
	Process object.UploadID `cbor:"1,keyasint"` // that Pos is of
	Pos     uint64          `cbor:"2,keyasint"` // in its ring: before it is nothing new
	Parts   []feedPart      `cbor:"3,keyasint"`
}

// feedPart is a position in a partition's stream.
type feedPart struct {
	ID    uint16 `cbor:"1,keyasint"`
	Index uint64 `cbor:"2,keyasint"`
	Now   bool   `cbor:"3,keyasint,omitempty"` // from now on, in place of behind Index
}

type feedAnswer struct {
	Process object.UploadID `cbor:"1,keyasint"`
	Pos     uint64          `cbor:"2,keyasint"`
	Absent  []uint16        `cbor:"3,keyasint,omitempty"` // no replica here
	Gaps    []feedPart      `cbor:"4,keyasint,omitempty"` // events up to Index are lost, or not wanted
	Events  []feedEvent     `cbor:"5,keyasint,omitempty"`
}

type feedEvent struct {
	Part    uint16         `cbor:"1,keyasint"`
	Index   uint64         `cbor:"2,keyasint"`
	Kind    EventKind      `cbor:"3,keyasint"`
	Dir     object.InodeID `cbor:"4,keyasint,omitempty"`
	Name    []byte         `cbor:"5,keyasint,omitempty"` // any bytes
	Inode   object.InodeID `cbor:"6,keyasint,omitempty"`
	Version uint64         `cbor:"7,keyasint,omitempty"`
	Time    int64          `cbor:"8,keyasint"` // ns since 1970
}

func decodeFeedAsk(b []byte) (a feedAsk, err error) {
	if err = cbor.Unmarshal(b, &a); err != nil || len(a.Parts) > object.MaxPartitions {
		return a, object.Errorf(object.KindInvalid, "a question about events of %d partitions cannot be read: %w", len(a.Parts), err)
	}
	return a, nil
}

// decodeFeedAnswer reads an answer; partitions that were not asked about are no answer.
func decodeFeedAnswer(b []byte, asked *feedAsk) (a feedAnswer, err error) {
	if err = cbor.Unmarshal(b, &a); err != nil {
		return a, object.Errorf(object.KindInternal, "an answer about events cannot be read: %w", err)
	}
	has := map[uint16]bool{}
	for _, p := range asked.Parts {
		has[p.ID] = true
	}
	good := true
	for _, g := range a.Gaps {
		good = good && has[g.ID]
	}
	for _, e := range a.Events {
		good = good && has[e.Part] && (e.Kind == EventEntry || e.Kind == EventInode)
	}
	if !good {
		return a, object.Errorf(object.KindInternal, "an answer about events that were not asked for")
	}
	return a, nil
}

// serveFeed answers with news of replicas here, or with nothing after a while.
func (n *Node) serveFeed(ctx context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	ask, err := decodeFeedAsk(request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, feedWait)
	defer cancel()
	for {
		answer, wake := n.feedNow(&ask)
		if len(answer.Absent)+len(answer.Gaps)+len(answer.Events) > 0 || ctx.Err() != nil {
			return cbor.Marshal(answer)
		}
		ask.Process, ask.Pos = answer.Process, answer.Pos
		select {
		case <-wake:
		case <-ctx.Done():
		case <-n.ctx.Done():
			return nil, object.Errorf(object.KindUnavailable, "the node is stopping")
		}
	}
}

// feedNow is what there is to tell, and what is closed when there is more.
func (n *Node) feedNow(ask *feedAsk) (*feedAnswer, <-chan struct{}) {
	h := n.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	a := &feedAnswer{Process: n.incarnation, Pos: h.next - uint64(len(h.ring))}
	if ask.Process == n.incarnation && ask.Pos <= h.next {
		a.Pos = max(a.Pos, ask.Pos)
	}
	since := map[object.PartitionID]uint64{}
	for _, p := range ask.Parts {
		id, at := object.PartitionID(p.ID), p.Index
		var r *replica
		if int(id) < len(n.parts) {
			r = n.parts[id].here.Load()
		}
		if r == nil {
			a.Absent = append(a.Absent, p.ID)
			continue
		}
		if p.Now { // what is applied and not published yet is behind it as well
			at = max(h.lost[id], r.machine.Applied())
			a.Gaps = append(a.Gaps, feedPart{ID: p.ID, Index: at})
		} else if at < h.lost[id] {
			at = h.lost[id]
			a.Gaps = append(a.Gaps, feedPart{ID: p.ID, Index: at})
		}
		since[id] = at
	}
	for ; a.Pos < h.next; a.Pos++ {
		e := h.ring[a.Pos%ringSize]
		if k := len(a.Events); k >= maxEvents && (a.Events[k-1].Part != uint16(e.Partition) || a.Events[k-1].Index != e.Index) {
			break // the events of one entry go together
		}
		if at, ok := since[e.Partition]; ok && e.Index > at && e.Kind != EventGap { // those are in lost
			a.Events = append(a.Events, feedEvent{Part: uint16(e.Partition), Index: e.Index, Kind: e.Kind, Dir: e.Dir, Name: []byte(e.Name), Inode: e.Inode,
				Version: e.Version, Time: e.Time.UnixNano()})
		}
	}
	return a, h.wake
}

// fed takes in an answer to a question of a term of subscriptions.
func (h *hub) fed(term uint64, a *feedAnswer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if term != h.term || h.subs == 0 {
		return
	}
	for _, g := range a.Gaps {
		if last, ok := h.last[object.PartitionID(g.ID)]; !ok || g.Index > last {
			h.gapLocked(object.PartitionID(g.ID), g.Index)
		}
	}
	// All events of an entry are in one answer: what is as old as what was here before has
	// come from another node.
	before, added := maps.Clone(h.last), false
	for _, e := range a.Events {
		if p := object.PartitionID(e.Part); e.Index > before[p] {
			h.add(Event{Partition: p, Index: e.Index, Kind: e.Kind, Dir: e.Dir, Name: string(e.Name), Inode: e.Inode, Version: e.Version, Time: time.Unix(0, e.Time)})
			h.last[p], added = e.Index, true
		}
	}
	if added {
		close(h.wake)
		h.wake = make(chan struct{})
	}
}

// feeder decides which node tells of which partition.
type feeder struct {
	n *Node

	mu    sync.Mutex // guards what follows
	at    map[object.PartitionID]string
	shun  map[feedSource]time.Time
	feeds map[string]*feed
}

type feedSource struct {
	node string
	part object.PartitionID
}

// feed is one node that tells of partitions; it ends when those are none.
type feed struct {
	parts []object.PartitionID
	term  uint64
	kick  context.CancelFunc // ends the question under way: there is another
}

// feedEvents keeps feeds running while somebody subscribes.
func (n *Node) feedEvents() {
	f := &feeder{n: n, at: map[object.PartitionID]string{}, shun: map[feedSource]time.Time{}, feeds: map[string]*feed{}}
	tick := time.NewTicker(feedLook)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		case <-n.hub.news:
		}
		f.assign()
	}
}

// assign gives each feed its partitions, by the map as it is now.
func (f *feeder) assign() {
	n := f.n
	n.hub.mu.Lock()
	wanted, term := n.hub.subs > 0, n.hub.term
	n.hub.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for s, until := range f.shun {
		if now.After(until) {
			delete(f.shun, s)
		}
	}
	parts := map[string][]object.PartitionID{}
	for _, p := range n.parts {
		if s := n.state.Load(); wanted && s != nil && p.here.Load() == nil {
			if node := f.choose(s, p.id); node != "" {
				parts[node] = append(parts[node], p.id)
				f.at[p.id] = node
			}
		}
	}
	for node, fd := range f.feeds {
		if fd.term != term || !slices.Equal(fd.parts, parts[node]) {
			fd.parts, fd.term = parts[node], term
			fd.kick()
		}
		delete(parts, node)
	}
	for node, list := range parts {
		fd := &feed{parts: list, term: term, kick: func() {}}
		f.feeds[node] = fd
		n.goWork(func() { f.run(node, fd) })
	}
}

// choose picks the node that tells of a partition; "" where nobody can. mu is held.
func (f *feeder) choose(s *control.State, p object.PartitionID) string {
	var can []string
	for _, r := range s.Replicas(p) {
		node := string(r.ID.Node)
		_, shunned := f.shun[feedSource{node, p}]
		if node != f.n.cfg.NodeID && !r.Lost && r.State != control.Joining && r.State != control.Removed && !shunned {
			can = append(can, node)
		}
	}
	leader, _ := f.n.access.Leader(p)
	return teller(can, leader, f.at[p])
}

// teller is who leads; where that is not known or cannot tell, who told until now; else the
// first that can. Not who told until now before all: a replica that is cut off from its leader
// answers, and has no news.
func teller(can []string, leader, until string) string {
	for _, node := range []string{leader, until} {
		if slices.Contains(can, node) {
			return node
		}
	}
	if len(can) == 0 {
		return ""
	}
	return can[0]
}

// run asks one node for events until it has to tell of nothing more.
func (f *feeder) run(node string, fd *feed) {
	var process object.UploadID
	var pos, of uint64
	for attempt := 0; ; {
		f.mu.Lock()
		parts, term := fd.parts, fd.term
		ctx, cancel := context.WithTimeout(f.n.ctx, feedFor)
		fd.kick = cancel
		if len(parts) == 0 || f.n.ctx.Err() != nil {
			delete(f.feeds, node)
			f.mu.Unlock()
			cancel()
			return
		}
		f.mu.Unlock()
		if of != term { // its positions may lie before what was read
			of, pos = term, 0
		}
		ask := f.n.hub.ask(parts)
		ask.Process, ask.Pos = process, pos
		answer, err := f.n.askFeed(ctx, node, ask)
		kicked := ctx.Err() == context.Canceled
		cancel()
		switch {
		case err == nil:
			attempt = 0
			process, pos = answer.Process, answer.Pos
			f.n.hub.fed(term, &answer)
			f.avoid(node, answer.Absent)
		case !kicked:
			attempt++
			f.avoid(node, idsOf(ask))
			_ = pause(f.n.ctx, attempt)
			pos = 0
		default:
			pos = 0 // other partitions may have news before it
		}
	}
}

// ask is the question about partitions: each behind what is here, or from now on.
func (h *hub) ask(parts []object.PartitionID) *feedAsk {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := &feedAsk{}
	for _, p := range parts {
		last, known := h.last[p]
		a.Parts = append(a.Parts, feedPart{ID: uint16(p), Index: last, Now: !known})
	}
	return a
}

func idsOf(a *feedAsk) (ids []uint16) {
	for _, p := range a.Parts {
		ids = append(ids, p.ID)
	}
	return ids
}

func (n *Node) askFeed(ctx context.Context, node string, ask *feedAsk) (a feedAnswer, err error) {
	b, err := cbor.Marshal(ask)
	if err != nil {
		return a, err
	}
	if b, err = n.net.Call(ctx, node, methodEvents, b); err != nil {
		return a, err
	}
	return decodeFeedAnswer(b, ask)
}

// avoid has other nodes asked about partitions for a while.
func (f *feeder) avoid(node string, parts []uint16) {
	if len(parts) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range parts {
		f.shun[feedSource{node, object.PartitionID(p)}] = time.Now().Add(feedShun)
	}
	nudge(f.n.hub.news)
}
