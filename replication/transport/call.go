package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// maxCallBytes bounds the requests that one connection has under way here.
const maxCallBytes = 64 << 20

// Handler answers one call. The request is the handler's own. The context ends
// when the caller gives up, its deadline passes, its connection is lost or this
// node closes. An error crosses the wire with its kind, operation, names and message.
type Handler func(ctx context.Context, from Peer, request []byte) ([]byte, error)

type method struct {
	handler Handler
	guests  bool
}

// HandleCall registers the handler of a method, for nodes of this cluster. A
// later one for the same method takes its place.
func (n *Node) HandleCall(m uint16, h Handler) { n.handleCall(m, method{handler: h}) }

// HandleGuestCall is HandleCall for a method that may also be called by a node
// that holds the secret but belongs to no cluster yet.
func (n *Node) HandleGuestCall(m uint16, h Handler) {
	n.handleCall(m, method{handler: h, guests: true})
}

func (n *Node) handleCall(m uint16, h method) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[m] = h
}

// Call asks a node and returns its answer; both are at most MaxCall bytes. While
// the node is known to be down it fails at once.
//
// What an error means: KindUnavailable, KindOverload, KindCanceled (and
// KindVersion, KindUnauthenticated, KindPermission from this side): certainly
// not done, unless the handler itself answered so. KindTimeout: unknown; the
// request had been sent, and ctx ended or the connection was lost. Anything else
// is the handler's answer.
func (n *Node) Call(ctx context.Context, node string, m uint16, request []byte) ([]byte, error) {
	return n.callNode(ctx, node, m, request, false)
}

// CallWait is Call, but waits, as long as ctx lasts, for a node that is down.
func (n *Node) CallWait(ctx context.Context, node string, m uint16, request []byte) ([]byte, error) {
	return n.callNode(ctx, node, m, request, true)
}

func (n *Node) callNode(ctx context.Context, node string, m uint16, request []byte, wait bool) ([]byte, error) {
	if len(request) > MaxCall {
		return nil, object.Errorf(object.KindTooLarge, "a call of %d bytes; at most %d go in one", len(request), MaxCall)
	}
	if node == n.opt.Node {
		return n.dispatch(ctx, Peer{Cluster: n.id.clusterID(), Node: node, Address: n.opt.Advertise}, m, request)
	}
	p, err := n.peer(node)
	if err != nil {
		return nil, err
	}
	// Looked at before a slot is waited for: who calls a dead node fails at once.
	if _, err := p.call.get(ctx, wait); err != nil {
		return nil, err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		if err := canceled(ctx); err != nil {
			return nil, err
		}
		return nil, object.Errorf(object.KindOverload, "%d calls to node %s are under way; try again", cap(p.slots), node)
	}
	for {
		l, err := p.call.get(ctx, wait)
		if err != nil {
			return nil, err
		}
		answer, err := callOn(ctx, l, node, m, request)
		var lost *errLost
		if errors.As(err, &lost) && !lost.sent && (wait || lost.moved) && ctx.Err() == nil {
			continue
		}
		return answer, outcome(err, node)
	}
}

// CallAddress asks whoever listens at addr and holds the cluster's secret, over a
// connection made for this call, and also says who that was. It is how a node
// that belongs to no cluster yet joins one. Errors as Call's.
func (n *Node) CallAddress(ctx context.Context, addr string, m uint16, request []byte) (Peer, []byte, error) {
	if len(request) > MaxCall {
		return Peer{}, nil, object.Errorf(object.KindTooLarge, "a call of %d bytes; at most %d go in one", len(request), MaxCall)
	}
	w, err := n.dialWire(ctx, addr, "", alpnFrames)
	if err != nil {
		return Peer{}, nil, err
	}
	br := newBuffered(w)
	if err := n.greet(w, br, roleCall, ""); err != nil {
		_ = w.Close()
		return Peer{}, nil, err
	}
	l := newLink(w, br, roleCall)
	check := l.keepalive
	w.onTick.Store(&check)
	n.tasks.Go(func() {
		_ = l.read(func(frame) error { return object.Errorf(object.KindInvalid, "an unexpected frame") })
	})
	defer l.fail(errors.New("the call is over"))
	answer, err := callOn(ctx, l, addr, m, request)
	return w.peer, answer, outcome(err, addr)
}

// canceled is an error if the caller has gone; its deadline is another matter.
func canceled(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &object.Error{Kind: object.KindCanceled, Err: ctx.Err()}
	}
	return nil
}

// outcome says in our kinds what became of a call.
func outcome(err error, node string) error {
	var lost *errLost
	switch {
	case err == nil || !errors.As(err, &lost):
		return err
	case lost.sent:
		return object.Errorf(object.KindTimeout, "node %s: whether it was done is unknown, %w; look, or retry it with the same token", node, lost)
	}
	return unavailable("node %s cannot be reached: %w", node, lost)
}

// callOn makes one call over a link.
func callOn(ctx context.Context, l *link, node string, m uint16, request []byte) ([]byte, error) {
	buf := newFrame(frameCall, len(request)+16)
	buf = binary.AppendUvarint(buf, uint64(m))
	var left uint64
	if deadline, ok := ctx.Deadline(); ok {
		left = uint64(max(time.Until(deadline).Milliseconds(), 1))
	}
	buf = binary.AppendUvarint(buf, left)
	buf = append(buf, request...)

	type result struct {
		answer []byte
		err    error
	}
	got := make(chan result, 1)
	ex := &exchange{done: func(f frame, err error) bool {
		if err == nil {
			f.payload, err = decodeAnswer(f.payload)
		}
		got <- result{f.payload, err}
		return true
	}}
	if err := canceled(ctx); err != nil {
		return nil, err
	}
	id, err := l.send(ctx, buf, ex)
	if err != nil {
		if errors.As(err, new(*errLost)) {
			return nil, err
		}
		if err := canceled(ctx); err != nil {
			return nil, err
		}
		return nil, object.Errorf(object.KindOverload, "too much is queued for node %s; nothing was sent, try again", node)
	}
	select {
	case r := <-got:
		return r.answer, r.err
	case <-ctx.Done():
	}
	l.forget(id)
	_, _ = l.enqueue(outgoing{buf: finishFrame(newFrame(frameCancel, 0), id)}) // a lost link cancels by itself
	select {
	case r := <-got:
		return r.answer, r.err
	default:
	}
	return nil, object.Errorf(object.KindTimeout, "node %s has not answered in time; whether it was done is unknown (%w)", node, ctx.Err())
}

// decodeAnswer takes an answer apart: 0 and the answer, or 1 and an error.
func decodeAnswer(payload []byte) ([]byte, error) {
	r := &reader{b: payload}
	if failed := r.byte(); r.err == nil && failed == 0 {
		return r.b, nil
	}
	return nil, r.error()
}

// session is the acceptor's end of one connection of frames.
type session struct {
	n      *Node
	l      *link
	role   role
	peer   Peer
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows
	running map[uint64]context.CancelFunc
	bytes   int
}

// call starts the handler of a call.
func (s *session) call(f frame) error {
	r := &reader{b: f.payload}
	m, left := r.uint16(), r.uvarint()
	if r.err != nil {
		return r.err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	if left > 0 {
		cancel()
		ctx, cancel = context.WithTimeout(s.ctx, time.Duration(min(left, 1<<40))*time.Millisecond)
	}
	s.mu.Lock()
	// Twice the caller's own limit: it may send the next call before we have noted
	// that the last one is answered, or given up.
	full := len(s.running) >= 2*s.n.opt.MaxCalls || s.bytes+len(r.b) > maxCallBytes
	if !full {
		s.running[f.id] = cancel
		s.bytes += len(r.b)
	}
	s.mu.Unlock()
	if full {
		cancel()
		s.l.reply(answerFrame(nil, object.Errorf(object.KindOverload, "node %s has too many calls under way; try again", s.n.opt.Node)), f.id)
		return nil
	}
	size := len(r.b)
	s.n.tasks.Go(func() {
		answer, err := s.n.dispatch(ctx, s.peer, m, r.b)
		cancel()
		out := finishFrame(answerFrame(answer, err), f.id)
		_, _ = s.l.send(s.ctx, out, nil) // a lost link needs no answers
		s.mu.Lock()
		delete(s.running, f.id)
		s.bytes -= size
		s.mu.Unlock()
	})
	return nil
}

// dispatch runs a method's handler; a panic becomes an error, as in net/http.
func (n *Node) dispatch(ctx context.Context, from Peer, m uint16, request []byte) (answer []byte, err error) {
	n.mu.RLock()
	h, ok := n.calls[m]
	n.mu.RUnlock()
	if !ok {
		return nil, object.Errorf(object.KindNotSupported, "node %s does not know the method %d; is it an older release?", n.opt.Node, m)
	}
	if mine := n.id.clusterID(); !h.guests && (from.Cluster != mine || mine == "") {
		return nil, object.Errorf(object.KindPermission, "node %s belongs to another cluster, or none: let it join first", from.Node)
	}
	defer func() {
		if p := recover(); p != nil {
			n.log.Error("a handler panicked", "method", m, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer, err = nil, object.Errorf(object.KindInternal, "a fault in node %s: %v", n.opt.Node, p)
		}
	}()
	answer, err = h.handler(ctx, from, request)
	if err == nil && len(answer) > MaxCall {
		return nil, object.Errorf(object.KindTooLarge, "an answer of %d bytes; at most %d go in one", len(answer), MaxCall)
	}
	return answer, err
}

func answerFrame(answer []byte, err error) []byte {
	b := newFrame(frameAnswer, len(answer)+64)
	if err != nil {
		return appendError(append(b, 1), err)
	}
	return append(append(b, 0), answer...)
}
