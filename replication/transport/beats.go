package transport

import (
	"context"
	"encoding/binary"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// beatAnswerWindow is how long the answers to one frame of heartbeats gather.
	beatAnswerWindow = 3 * time.Millisecond
	// maxBeats is the number of heartbeats that a decoder accepts in one frame, and
	// sendBeats how many are sent in one: with headers they must fit it.
	maxBeats  = 1 << 14
	sendBeats = 1 << 10
)

// beats gathers the heartbeats of all groups to one peer, so that they share a
// frame. While the peer is away they wait; each caller has its own deadline.
type beats struct {
	p *peer

	mu      sync.Mutex // guards what follows
	pending []*beat
	soon    bool // a flush is about to be made: probes that come meanwhile share it
}

// beat is one AppendEntries without entries: a heartbeat, what Probe sends, or what a
// pipeline repeats.
type beat struct {
	g     *Group
	req   *raft.AppendEntriesRequest // not changed
	probe bool                       // a reader waits: the peer answers at once
	to    string                     // of a probe of Confirm's: the peer
	seq   uint64                     // given when it is sent
	// done gets the answer. It is called once, and must not block.
	done func(resp raft.AppendEntriesResponse, err error)
	gone func() bool // the caller has given up
}

// add queues a heartbeat; it is sent at the node's next beat, or now if now is set,
// with those of other readers that come at the same moment.
func (b *beats) add(h *beat, now bool) {
	b.mu.Lock()
	b.pending = append(b.pending, h)
	flush := now && !b.soon
	b.soon = b.soon || now
	b.mu.Unlock()
	switch {
	case flush:
		runtime.Gosched() // whoever is ready to read as well comes first
		b.flush()
	case !now:
		b.p.n.beatSoon()
	}
}

// beatSoon has the heartbeats that gather for all peers sent at the next beat: at the
// next multiple of the window on the node's clock, so that an idle process wakes once
// for all of them.
func (n *Node) beatSoon() {
	if n.beatDue.Swap(true) {
		return
	}
	window := n.opt.BeatWindow
	time.AfterFunc(window-time.Duration(n.clock())%window, func() {
		n.beatDue.Store(false) // what is added from here on may come too late for this one
		n.FlushHeartbeats()
	})
}

// flush sends what has gathered, or leaves it until the connection is back.
func (b *beats) flush() {
	l := b.p.urgent.ready()
	b.mu.Lock()
	b.soon = false
	batch := b.pending
	b.pending = nil
	b.mu.Unlock()
	// Not under mu: gone and done take the locks of groups.
	var live []*beat
	for _, h := range batch {
		switch {
		case b.p.ctx.Err() != nil:
			h.done(raft.AppendEntriesResponse{}, errClosed())
		case h.gone():
			h.done(raft.AppendEntriesResponse{}, context.Canceled)
		default:
			live = append(live, h)
		}
	}
	if l == nil {
		b.mu.Lock()
		b.pending = append(live, b.pending...)
		b.mu.Unlock()
		if b.p.urgent.ready() == nil {
			return // flushed again when it is up
		}
		b.flush() // it came up meanwhile
		return
	}
	for len(live) > 0 {
		k := min(len(live), sendBeats)
		b.send(l, live[:k:k])
		live = live[k:]
	}
}

// waiting reports whether heartbeats wait for the connection.
func (b *beats) waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pending) > 0
}

func (b *beats) send(l *link, batch []*beat) {
	buf := newFrame(frameBeats, 16*len(batch)+8)
	buf = binary.AppendUvarint(buf, uint64(len(batch)))
	var before raft.RPCHeader
	for _, h := range batch {
		h.seq = h.g.sent.Add(1)
		buf = appendBeat(binary.AppendUvarint(buf, uint64(h.g.id)), h.req, h.probe, before)
		before = h.req.RPCHeader
	}
	left := len(batch) // touched by the link's reader only
	ex := &exchange{done: func(f frame, err error) bool {
		if err == nil {
			err = b.answered(batch, &left, f.payload)
		}
		if err != nil {
			for i, h := range batch {
				if h != nil {
					batch[i] = nil
					h.done(raft.AppendEntriesResponse{}, err)
				}
			}
			return true
		}
		return left == 0
	}}
	if _, err := l.post(buf, ex); err != nil {
		for _, h := range batch {
			h.done(raft.AppendEntriesResponse{}, err)
		}
	}
}

// answered hands out the answers of one frame: number, then position and answer of each.
func (b *beats) answered(batch []*beat, left *int, payload []byte) error {
	r := &reader{b: payload}
	for range r.uvarint() {
		at := r.uvarint()
		body := &reader{b: r.bytes()}
		if r.err != nil {
			return r.err
		}
		if at >= uint64(len(batch)) || batch[at] == nil {
			return object.Errorf(object.KindInvalid, "an answer to a heartbeat that was not sent")
		}
		h := batch[at]
		batch[at] = nil
		*left--
		var resp raft.AppendEntriesResponse
		err := body.response(&resp)
		if err == nil {
			h.g.acknowledged(b.p.node, h.seq, h.req.Term, lastOf(h.req), &resp)
		}
		h.done(resp, err)
	}
	return r.err
}

// beat sends an AppendEntries without entries and waits for the answer.
func (g *Group) beat(ctx context.Context, p *peer, args *raft.AppendEntriesRequest, probe bool, resp *raft.AppendEntriesResponse) error {
	type result struct {
		resp raft.AppendEntriesResponse
		err  error
	}
	done := make(chan result, 1)
	p.beats.add(&beat{
		g: g, req: args, probe: probe, gone: func() bool { return ctx.Err() != nil },
		done: func(r raft.AppendEntriesResponse, err error) { done <- result{r, err} },
	}, probe)
	select {
	case r := <-done:
		*resp = r.resp
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// FlushHeartbeats sends the heartbeats that gather for every peer now.
func (n *Node) FlushHeartbeats() {
	for _, p := range n.peerList() {
		p.beats.flush()
	}
}

// beatAnswers gathers raft's answers to one frame of heartbeats.
type beatAnswers struct {
	l  *link
	id uint64

	mu    sync.Mutex // guards what follows
	buf   []byte     // position and answer of each
	ready uint64
	left  int
	timer bool
}

// receiveBeats takes a frame of heartbeats apart and hands each to its group.
func (n *Node) receiveBeats(l *link, from Peer, f frame) error {
	r := &reader{b: f.payload}
	count := r.uvarint()
	if count > maxBeats || count > uint64(len(r.b)) {
		return object.Errorf(object.KindInvalid, "%d heartbeats in one frame", count)
	}
	type one struct {
		id    object.PartitionID
		req   *raft.AppendEntriesRequest
		probe bool
	}
	list := make([]one, count)
	var before raft.RPCHeader
	for i := range list {
		o := &list[i]
		o.id = object.PartitionID(r.uint16())
		o.req, o.probe = r.beat(before)
		before = o.req.RPCHeader
	}
	if err := r.end(); err != nil {
		return err
	}
	out := &beatAnswers{l: l, id: f.id, left: len(list)}
	for i, o := range list {
		reply := func(resp any, err error) { out.add(uint64(i), resp, err, o.probe) }
		g := n.group(o.id)
		err := n.verifySender(o.id, o.req.RPCHeader, from)
		switch {
		case err != nil:
			reply(nil, err)
		case g == nil:
			reply(nil, n.noGroup(o.id))
		default:
			g.in.push(o.req, nil, 0, reply)
		}
	}
	return nil
}

// add sends the answers when all are there, when a reader waits for this one, or
// when they have gathered for a while.
func (a *beatAnswers) add(at uint64, resp any, err error, now bool) {
	body := appendResponse(make([]byte, 0, 32), resp, err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.buf = appendBytes(binary.AppendUvarint(a.buf, at), body)
	a.ready++
	a.left--
	switch {
	case now || a.left == 0:
		a.send()
	case !a.timer:
		a.timer = true
		time.AfterFunc(beatAnswerWindow, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.timer = false
			a.send()
		})
	}
}

// send sends what is ready. The caller holds mu.
func (a *beatAnswers) send() {
	if a.ready == 0 {
		return
	}
	b := binary.AppendUvarint(newFrame(frameBeatAnswers, len(a.buf)+8), a.ready)
	a.l.reply(append(b, a.buf...), a.id)
	a.buf, a.ready = a.buf[:0], 0
}
