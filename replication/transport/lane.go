package transport

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 500 * time.Millisecond
	// laneIdle is how long a lane nobody uses is kept connected.
	laneIdle = time.Minute
	// laneStable is how long a connection lives before its loss is answered by
	// dialling at once.
	laneStable = time.Second
)

type laneState uint8

const (
	laneIdleState laneState = iota
	laneConnecting
	laneUp
	laneDown
)

// lane is the connection of one role to one peer, and the story of its losses.
// One goroutine dials, reads, and dials again.
type lane struct {
	p    *peer
	role role

	used atomic.Int64  // the clock at the last use
	want chan struct{} // cap 1: somebody needs it
	kick chan struct{} // cap 1: the peer is back: do not wait for the backoff
	look chan struct{} // cap 1: the peer may have another address by now, or the secret changed

	mu      sync.Mutex // guards what follows
	state   laneState
	link    *link         // while up
	err     error         // why it is down
	changed chan struct{} // closed and replaced when state changes
	unmoved string        // the new address that did not answer, and was logged
}

func newLane(p *peer, r role) *lane {
	l := &lane{p: p, role: r, want: make(chan struct{}, 1), kick: make(chan struct{}, 1), look: make(chan struct{}, 1), changed: make(chan struct{})}
	p.n.tasks.Go(l.run)
	return l
}

// get is the link once the lane is up. While it is down: the reason at once, or,
// if wait, not before ctx ends.
func (l *lane) get(ctx context.Context, wait bool) (*link, error) {
	for {
		l.used.Store(l.p.n.clock())
		l.mu.Lock()
		state, link, changed, why := l.state, l.link, l.changed, l.err
		l.mu.Unlock()
		switch {
		case state == laneUp && link.failure() == nil: // else it is about to change
			return link, nil
		case state == laneDown && !wait:
			return nil, l.down(why)
		case state == laneIdleState:
			nudge(l.want)
		}
		select {
		case <-changed:
		case <-l.p.ctx.Done():
			return nil, errClosed()
		case <-ctx.Done():
			if why == nil {
				why = context.Cause(ctx)
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, &object.Error{Kind: object.KindCanceled, Err: ctx.Err()}
			}
			return nil, l.down(why)
		}
	}
}

// ready is the link if the lane is up now, else nil; it does not wait.
func (l *lane) ready() *link {
	l.used.Store(l.p.n.clock())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == laneIdleState {
		nudge(l.want)
	}
	return l.link
}

// down is the error of who needs a lane that is down: certainly nothing was sent.
func (l *lane) down(why error) error {
	k := object.KindUnavailable
	switch kind := object.KindOf(why); kind {
	case object.KindVersion, object.KindUnauthenticated, object.KindPermission:
		k = kind // waiting does not help: a person has to act
	}
	return object.Errorf(k, "node %s cannot be reached: %w", l.p.node, why)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *lane) set(s laneState, link *link, err error) {
	l.mu.Lock()
	was := l.state
	l.state, l.link, l.err = s, link, err
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if s == laneDown && was != laneDown && l.p.n.ctx.Err() == nil { // a node that stops does not complain of itself
		l.p.n.log.Warn("a node cannot be reached", "node", l.p.node, "connection", l.role.String(), "error", err)
	}
}

func (l *lane) run() {
	for {
		select {
		case <-l.want:
		case <-l.p.ctx.Done():
			return
		}
		l.connected()
	}
}

// connected keeps the lane connected until nobody has used it for a while.
func (l *lane) connected() {
	l.set(laneConnecting, nil, nil)
	for failures := 0; ; {
		began := time.Now()
		link, err := l.dial(l.p.ctx)
		if err == nil {
			err = l.serve(link)
			if failures++; time.Since(began) > laneStable {
				failures = 0
			}
		} else {
			failures++
		}
		idle := l.p.n.clock()-l.used.Load() > int64(laneIdle)
		if l.role == roleUrgent {
			l.p.beats.flush() // drops those whose callers have gone
			idle = idle && !l.p.beats.waiting()
		}
		switch {
		case l.p.ctx.Err() != nil:
			l.set(laneDown, nil, errClosed())
			return
		case idle:
			l.set(laneIdleState, nil, nil)
			return
		case failures == 0:
			l.set(laneConnecting, nil, err)
			continue
		}
		l.set(laneDown, nil, err)
		l.pause(failures)
	}
}

// pause waits out the backoff, or until the peer is seen to live.
func (l *lane) pause(failures int) {
	d := min(backoffMin<<min(failures-1, 8), backoffMax)
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.kick:
	case <-l.p.ctx.Done():
	}
}

func (l *lane) dial(ctx context.Context) (*link, error) {
	n := l.p.n
	addr, err := n.opt.Resolve(l.p.node)
	if err != nil {
		return nil, err
	}
	w, err := n.dialWire(ctx, addr, l.p.node, alpnFrames)
	if err != nil {
		return nil, err
	}
	br := newBuffered(w)
	if err := n.greet(w, br, l.role, l.p.node); err != nil {
		_ = w.Close()
		return nil, err
	}
	l.p.saw(w.peer)
	return newLink(w, br, l.role), nil
}

// serve keeps the link in use until it is lost, and returns why. When the peer is
// said to be elsewhere, or the current secret is another, a new link takes its
// place; until that one stands the old one serves, if it still does.
func (l *lane) serve(link *link) error {
	l.open(link)
	for {
		select {
		case <-link.done:
			return link.failure()
		case <-l.look:
		}
		next, err := l.move(link)
		switch {
		case next != nil:
			l.open(next)
			link.retire()
			link = next
		case err != nil:
			l.stay(link, err)
		}
	}
}

// open puts a link to use.
func (l *lane) open(link *link) {
	check := link.keepalive
	link.w.onTick.Store(&check)
	l.p.n.tasks.Go(func() {
		stop := context.AfterFunc(l.p.ctx, func() { link.fail(errClosed()) })
		defer stop()
		err := link.read(func(f frame) error {
			return object.Errorf(object.KindInvalid, "a frame of type %d on a connection that this node dialled", f.typ)
		})
		l.p.n.log.Debug("a connection ended", "node", l.p.node, "connection", l.role.String(), "error", err)
	})
	select {
	case <-l.kick: // from before: it is up
	default:
	}
	l.set(laneUp, link, nil)
	if l.role == roleUrgent {
		l.p.beats.flush() // what gathered while it was down
	}
}

// move dials the peer's present address under the current secret, if the link is
// not that already. It gives up when the link is lost: then run dials.
func (l *lane) move(old *link) (*link, error) {
	addr, err := l.p.n.opt.Resolve(l.p.node)
	if err != nil {
		addr = old.w.dialled // unknown now: nothing better than what there is
	}
	names := l.p.n.id.names()
	if addr == old.w.dialled && (len(names) == 0 || names[0] == old.w.under) {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(l.p.ctx)
	defer cancel()
	go func() {
		select {
		case <-old.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	next, err := l.dial(ctx)
	if err == nil && next.w.dialled == old.w.dialled && next.w.under == old.w.under {
		next.fail(errMoved()) // the peer does not know the current secret yet
		return nil, nil
	}
	return next, err
}

// stay notes, once for each address, that the peer does not answer at its new one.
func (l *lane) stay(link *link, err error) {
	addr, _ := l.p.n.opt.Resolve(l.p.node)
	l.mu.Lock()
	known := addr == l.unmoved
	if link.failure() == nil {
		l.unmoved = addr
	}
	l.mu.Unlock()
	if known || link.failure() != nil {
		return
	}
	l.p.n.log.Warn("a node does not answer at its new address; the connection to the old one stays for now",
		"node", l.p.node, "connection", l.role.String(), "address", addr, "old", link.w.dialled, "error", err)
}
