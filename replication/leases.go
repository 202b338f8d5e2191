package replication

import (
	"context"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Leases of sessions that lock; fs/DESIGN.md has the protocol, with a crash after each step.

const (
	// leaseCall bounds one question to the leader of the control group.
	leaseCall = 5 * time.Second
	// maxKnown bounds the sessions that a node remembers to have a lease, and knownFor is
	// how long it does without looking again: less than the mark of an ended session stays
	// in each partition (sessionIdle), which refuses it when it is remembered wrongly.
	maxKnown = 1 << 14
	knownFor = time.Hour
	// leaseBatch is how many sessions one entry ends.
	leaseBatch = 256
	// leaseFences is how many partitions are fenced at a time.
	leaseFences = 16
	// lastRetry is how long at most nothing is tried after a round of ending failed.
	lastRetry = 30 * time.Second
)

// leases is what a node remembers of sessions: as any node those it has seen registered,
// as leader of the control group when it last heard of each.
type leases struct {
	mu    sync.Mutex                    // guards what follows
	known map[object.UploadID]time.Time // when it was learned

	term  uint64 // of what follows
	heard map[object.UploadID]time.Time
	ended map[object.UploadID]bool // it was decided here: they are not renewed any more

	failed int       // rounds of ending, in a row
	retry  time.Time // when the next one is
}

// in begins anew when this node leads in a later term. False: it leads in a later one than
// term by now, or (0) in none yet; nothing is touched then, for what was decided stays. mu is held.
func (l *leases) in(term uint64) bool {
	if term == 0 || term < l.term {
		return false
	}
	if l.term != term {
		l.term, l.heard, l.ended = term, map[object.UploadID]time.Time{}, map[object.UploadID]bool{}
	}
	return true
}

// hear notes a sign of a session. KindSessionEnded: it is being ended; KindUnavailable: the
// term is not the one in which this node leads.
func (l *leases) hear(term uint64, s object.UploadID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.in(term):
		return errNoLeader(object.Control)
	case l.ended[s]:
		return errSessionEnded(s)
	}
	l.heard[s] = time.Now()
	return nil
}

// expire marks those of the active sessions that were not heard of for a lease, and
// forgets others that are not there. One that is seen for the first time was heard of now.
func (l *leases) expire(term uint64, active []object.UploadID, lease time.Duration) (list []object.UploadID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.in(term) {
		return nil
	}
	now, there := time.Now(), map[object.UploadID]bool{}
	for _, s := range active {
		there[s] = true
		at, ok := l.heard[s]
		switch {
		case !ok:
			l.heard[s] = now
		case now.Sub(at) > lease:
			l.ended[s] = true
			list = append(list, s)
		}
	}
	for s, at := range l.heard {
		if !there[s] && now.Sub(at) > lease {
			delete(l.heard, s)
			delete(l.ended, s)
		}
	}
	return list
}

func (l *leases) knows(s object.UploadID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.known[s]
	if !ok {
		return false
	}
	// By the wall clock, too: a machine's other one stands still while it is suspended.
	now := time.Now()
	return now.Sub(at) < knownFor && now.Round(0).Sub(at).Abs() < knownFor
}

func (l *leases) learn(s object.UploadID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= maxKnown {
		l.known = map[object.UploadID]time.Time{}
	}
	l.known[s] = time.Now()
}

// knownLease fails unless a session was registered within knownFor: it still is, or its
// locks are refused where they are taken.
func (n *Node) knownLease(ctx context.Context, s object.UploadID) error {
	if n.leases.knows(s) {
		return nil
	}
	err := n.inView(ctx, object.Control, func(v *namespace.View) error { return leaseIn(v, s) })
	if err == nil {
		n.leases.learn(s)
	}
	return err
}

// leaseIn is nil where a session's lease is active.
func leaseIn(v *namespace.View, s object.UploadID) error {
	state, err := v.Lease(s)
	if err != nil || state == namespace.LeaseActive {
		return err
	}
	ended, err := v.SessionEnded(s)
	switch {
	case err != nil:
		return err
	case ended || state != 0:
		return errSessionEnded(s)
	}
	return object.Errorf(object.KindPrecondition, "session %s has no lease: register it before its first lock (POST /fs/sessions/%s)", s, s)
}

func errSessionEnded(s object.UploadID) error {
	return object.Errorf(object.KindSessionEnded, "session %s was ended, since it was not renewed in time or was closed: its locks are lost; begin a new one", s)
}

// leaseAsk registers or renews a session.
type leaseAsk struct {
	Session object.UploadID `cbor:"1,keyasint"`
	Begin   bool            `cbor:"2,keyasint,omitempty"`
}

type leaseAnswer struct {
	Lease int64 `cbor:"1,keyasint"` // ns
}

// OpenLease registers a session, so that it may lock, and returns for how long: RenewLease
// within that time, counted from before the call, or the session is ended: no change under
// its tokens is made from then on (KindSessionEnded), and its locks go. It may be repeated.
func (n *Node) OpenLease(ctx context.Context, s object.UploadID) (time.Duration, error) {
	if s.IsZero() {
		return 0, object.Errorf(object.KindInvalid, "a session's id is empty")
	}
	return n.askLease(ctx, leaseAsk{Session: s, Begin: true})
}

// RenewLease begins a session's lease anew, at the moment of the call. KindSessionEnded: it
// is too late. KindPrecondition: it was never registered.
func (n *Node) RenewLease(ctx context.Context, s object.UploadID) (time.Duration, error) {
	return n.askLease(ctx, leaseAsk{Session: s})
}

// CloseLease ends a session for good, whatever it has locked; its locks go soon after.
func (n *Node) CloseLease(ctx context.Context, s object.UploadID) error {
	r, err := n.propose(ctx, object.Control, &namespace.Command{SetLease: &namespace.SetLease{Sessions: []object.UploadID{s}, State: namespace.LeaseEnding}})
	if err != nil {
		return err
	}
	return r.Err()
}

// askLease asks who leads the control group until an answer comes, or ctx or the node's
// patience ends.
func (n *Node) askLease(ctx context.Context, ask leaseAsk) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.patience.Load()))
	defer cancel()
	for round := 0; ; round++ {
		a, err := n.askLeaseOnce(ctx, ask)
		if err == nil {
			n.leases.learn(ask.Session)
			return time.Duration(a.Lease), nil
		}
		if !passing(err) {
			return 0, err
		}
		if pause(ctx, round) != nil {
			return 0, err
		}
	}
}

func (n *Node) askLeaseOnce(ctx context.Context, ask leaseAsk) (a leaseAnswer, err error) {
	leader, ok := n.access.Leader(object.Control)
	if !ok {
		if err := n.access.FindLeader(ctx, object.Control); err != nil {
			return a, err
		}
		if leader, ok = n.access.Leader(object.Control); !ok {
			return a, errNoLeader(object.Control)
		}
	}
	if leader == n.cfg.NodeID {
		return n.leaseHere(ctx, ask)
	}
	ctx, cancel := context.WithTimeout(ctx, leaseCall)
	defer cancel()
	a, err = callFor[leaseAnswer](ctx, n, leader, methodLease, &ask)
	if err != nil && passing(err) {
		_ = n.access.FindLeader(ctx, object.Control) // the next attempt asks whoever that is
	}
	return a, err
}

// serveLease is askLease at the leader.
func (n *Node) serveLease(ctx context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	var ask leaseAsk
	if err := cbor.Unmarshal(request, &ask); err != nil || ask.Session.IsZero() {
		return nil, object.Errorf(object.KindInvalid, "a question for a lease cannot be read: %w", err)
	}
	a, err := n.leaseHere(ctx, ask)
	if err != nil {
		return nil, err
	}
	return cbor.Marshal(a)
}

// leaseHere notes a sign of a session, and then makes sure that this node still leads and
// that the lease is active: so a good answer is one that every later leader knows of, or
// begins after.
func (n *Node) leaseHere(ctx context.Context, ask leaseAsk) (a leaseAnswer, err error) {
	r := n.parts[object.Control].led()
	if r == nil {
		return a, errNoLeader(object.Control)
	}
	term := r.group.Stats().ReadyTerm
	if err := n.leases.hear(term, ask.Session); err != nil {
		return a, err
	}
	if ask.Begin {
		r, err := n.propose(ctx, object.Control, &namespace.Command{SetLease: &namespace.SetLease{Sessions: []object.UploadID{ask.Session}, State: namespace.LeaseActive}})
		if err != nil {
			return a, err
		}
		if err := r.Err(); err != nil {
			return a, err
		}
	}
	switch now, err := n.leadsIn(ctx, object.Control); {
	case err != nil:
		return a, err
	case now != term:
		return a, errNoLeader(object.Control)
	}
	v, err := r.machine.Local()
	if err != nil {
		return a, err
	}
	defer v.Close()
	return leaseAnswer{Lease: int64(n.cfg.LeasePeriod)}, leaseIn(v, ask.Session)
}

// keepLeases ends sessions, where this node leads the control group.
func (n *Node) keepLeases() {
	n.every(min(max(n.cfg.LeasePeriod/30, 50*time.Millisecond), time.Second), func() {
		r := n.parts[object.Control].led()
		if r == nil {
			return
		}
		if err := n.endLeases(r); err != nil {
			n.leases.putOff()
			n.logged("ending sessions", err)
		}
	})
}

// putOff waits longer after each round that failed.
func (l *leases) putOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed++
	l.retry = time.Now().Add(min(100*time.Millisecond<<min(l.failed, 10), lastRetry))
}

func (l *leases) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !time.Now().Before(l.retry)
}

func (l *leases) succeeded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed, l.retry = 0, time.Time{}
}

// endLeases ends what was not renewed, and brings every session that is being ended a
// round further.
func (n *Node) endLeases(r *replica) error {
	if !n.leases.due() {
		return nil
	}
	term := r.group.Stats().ReadyTerm
	by, err := leasesOf(r)
	if err != nil || term == 0 {
		return err
	}
	if expired := n.leases.expire(term, by[namespace.LeaseActive], n.cfg.LeasePeriod); len(expired) > 0 {
		expired = expired[:min(len(expired), leaseBatch)] // the others with the next round
		n.log.Warn("sessions that lock were not renewed in time and are ended", "sessions", len(expired), "first", expired[0])
		if err := n.setLease(expired, namespace.LeaseEnding, term); err != nil {
			return err
		}
		if by, err = leasesOf(r); err != nil {
			return err
		}
	}
	if err := n.fenceSessions(by[namespace.LeaseEnding]); err != nil {
		return err
	}
	if by, err = leasesOf(r); err != nil {
		return err
	}
	if err := n.dropLocks(by[namespace.LeaseFenced]); err != nil {
		return err
	}
	n.leases.succeeded()
	return nil
}

// leasesOf are the sessions with a lease, by its state, as this replica knows them.
func leasesOf(r *replica) (by [namespace.LeaseFenced + 1][]object.UploadID, err error) {
	v, err := r.machine.Local()
	if err != nil {
		return by, err
	}
	defer v.Close()
	err = v.Leases(func(l namespace.Lease) {
		if int(l.State) < len(by) {
			by[l.State] = append(by[l.State], l.Session)
		}
	})
	return by, err
}

// setLease brings sessions to a state; in one raft term, where that is not 0.
func (n *Node) setLease(list []object.UploadID, to namespace.LeaseState, term uint64) error {
	r, err := n.propose(n.ctx, object.Control, &namespace.Command{SetLease: &namespace.SetLease{Sessions: list, State: to, Term: term}})
	if err != nil {
		return err
	}
	return r.Err()
}

// fenceSessions has every partition refuse what sessions ask for, and then says so.
func (n *Node) fenceSessions(list []object.UploadID) error {
	if len(list) == 0 {
		return nil
	}
	list = list[:min(len(list), leaseBatch)]
	g, ctx := errgroup.WithContext(n.ctx)
	g.SetLimit(leaseFences)
	for id := range n.ids(object.Control) {
		g.Go(func() error {
			r, err := n.propose(ctx, id, &namespace.Command{EndSessions: &namespace.EndSessions{Sessions: list}})
			if err != nil {
				return err
			}
			return r.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return n.setLease(list, namespace.LeaseFenced, 0)
}

// dropLocks gives the locks of fenced sessions to others, and forgets the sessions.
func (n *Node) dropLocks(list []object.UploadID) error {
	if len(list) == 0 {
		return nil
	}
	list = list[:min(len(list), leaseBatch)]
	for id := range n.ids(object.Control) {
		var some []object.UploadID
		err := n.inView(n.ctx, id, func(v *namespace.View) error {
			for _, s := range list {
				has, err := v.HasLocks(s)
				if err != nil {
					return err
				}
				if has {
					some = append(some, s)
				}
			}
			return nil
		})
		for done := len(some) == 0; err == nil && !done; {
			var r *namespace.Result
			if r, err = n.propose(n.ctx, id, &namespace.Command{DropLocks: &namespace.DropLocks{Sessions: some}}); err == nil {
				done = r.Done
				err = r.Err()
			}
		}
		if err != nil {
			return err
		}
	}
	return n.setLease(list, 0, 0)
}
