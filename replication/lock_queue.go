package replication

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// lockKeep is how long a place in a queue is kept after its poll ended.
const lockKeep = 2 * time.Second

// lockQueues are those who wait for locks on inodes of partitions that this node leads.
// What is in memory here decides nothing: a Lock does, where it is applied.
type lockQueues struct {
	n    *Node
	came chan struct{} // a token: somebody waits

	mu sync.Mutex // guards what follows, and every queue and place
	at map[object.InodeID]*lockQueue
}

// lockQueue is who waits for locks on one inode, in the order in which they came.
type lockQueue struct {
	places []*lockPlace
	// running: a pass over the places is under way; again: and what it saw is old.
	running, again bool
}

// lockPlace is one who waits.
type lockPlace struct {
	ask   *lockAsk // these two never change
	since time.Time

	polls int       // that are here
	left  time.Time // when the last one went

	conflict *object.Lock // that was in the way last
	over     chan struct{}
	decided  bool // over is closed; the place is no more
	answer   LockAnswer
	err      error

	// look is when a deadlock is looked for, if it still waits; looks is how often it was.
	look  time.Time
	looks int
}

func newLockQueues(n *Node) *lockQueues {
	return &lockQueues{n: n, came: make(chan struct{}, 1), at: map[object.InodeID]*lockQueue{}}
}

// poll waits until a lock is granted or refused, or for wait: it is not granted then, and
// the place is kept a moment. KindUnavailable: this node does not lead (any more).
func (l *lockQueues) poll(ctx context.Context, ask *lockAsk, wait time.Duration) (LockAnswer, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	p := l.join(ask)
	select {
	case <-p.over:
	case <-timer.C:
	case <-ctx.Done():
	case <-l.n.ctx.Done():
		return LockAnswer{}, object.Errorf(object.KindUnavailable, "the node is stopping")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.decided {
		return p.answer, p.err
	}
	if p.polls--; p.polls == 0 {
		p.left = time.Now()
		time.AfterFunc(lockKeep, func() { l.freed([]object.InodeID{ask.Inode}) })
	}
	if err := ctx.Err(); err != nil {
		return LockAnswer{}, err
	}
	return LockAnswer{Conflict: p.conflict}, nil
}

// join takes or finds the place of a token.
func (l *lockQueues) join(ask *lockAsk) *lockPlace {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.at[ask.Inode]
	if q == nil {
		q = &lockQueue{}
		l.at[ask.Inode] = q
	}
	i := slices.IndexFunc(q.places, func(p *lockPlace) bool {
		return p.ask.Token.Session == ask.Token.Session && p.ask.Token.Seq == ask.Token.Seq
	})
	if i < 0 {
		i = len(q.places)
		now := time.Now()
		q.places = append(q.places, &lockPlace{ask: ask, since: now, look: now.Add(deadlockAfter), over: make(chan struct{})})
	}
	p := q.places[i]
	p.polls++
	l.kick(ask.Inode, q)
	nudge(l.came)
	return p
}

// some reports whether anybody waits here.
func (l *lockQueues) some() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.at) > 0
}

// freed has those who wait for locks on some inodes looked at: something was given up
// there. It never blocks.
func (l *lockQueues) freed(inos []object.InodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ino := range inos {
		if q := l.at[ino]; q != nil {
			l.kick(ino, q)
		}
	}
}

// ledChanged has those looked at who wait in a partition that this node may lead no more.
func (l *lockQueues) ledChanged(part object.PartitionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ino, q := range l.at {
		if ino.Partition() == part {
			l.kick(ino, q)
		}
	}
}

// kick begins a pass over a queue, or has the one under way followed by another. mu is held.
func (l *lockQueues) kick(ino object.InodeID, q *lockQueue) {
	if q.running {
		q.again = true
		return
	}
	if l.n.ctx.Err() != nil {
		return
	}
	q.running = true
	l.n.goWork(func() { l.run(ino, q) })
}

// run makes passes over a queue until there is nothing new.
func (l *lockQueues) run(ino object.InodeID, q *lockQueue) {
	for {
		l.mu.Lock()
		q.again = false
		q.places = slices.DeleteFunc(q.places, func(p *lockPlace) bool {
			return p.decided || p.polls == 0 && time.Since(p.left) >= lockKeep
		})
		places := slices.Clone(q.places)
		if len(places) == 0 {
			delete(l.at, ino)
		}
		l.mu.Unlock()
		if len(places) == 0 {
			return
		}
		if err := l.pass(ino, places); err != nil {
			for _, p := range places {
				l.decide(p, LockAnswer{}, err)
			}
		}
		l.mu.Lock()
		if !q.again && !slices.ContainsFunc(places, func(p *lockPlace) bool { return p.decided }) {
			q.running = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// pass takes the locks, in order, of those who wait and fit what is in force. An error is
// the answer to all who are left.
func (l *lockQueues) pass(ino object.InodeID, places []*lockPlace) error {
	list, err := l.inForce(ino)
	if err != nil {
		return err
	}
	var reserved []object.Lock // of places that are kept while their polls are on their way
	for _, p := range places {
		ask := p.ask
		l.mu.Lock()
		here := p.polls > 0
		l.mu.Unlock()
		if i := slices.IndexFunc(list, func(o object.Lock) bool { return o.Conflicts(&ask.Lock) }); i >= 0 {
			l.blocked(p, &list[i])
			continue
		}
		if slices.ContainsFunc(reserved, func(o object.Lock) bool { return o.Conflicts(&ask.Lock) }) {
			continue
		}
		if !here {
			reserved = append(reserved, ask.Lock)
			continue
		}
		r, err := l.n.propose(l.n.ctx, ino.Partition(), ask.command())
		switch {
		case err != nil:
			l.decide(p, LockAnswer{}, err)
		case r.Waits:
			l.blocked(p, r.Conflict)
		default:
			l.decide(p, answerOf(r), r.Err())
		}
		if list, err = l.inForce(ino); err != nil {
			return err
		}
	}
	return nil
}

// inForce are an inode's locks, as the leader of its partition knows them: what it does
// not know yet, it will hear of (freed).
func (l *lockQueues) inForce(ino object.InodeID) ([]object.Lock, error) {
	p, err := l.n.partition(ino.Partition())
	if err != nil {
		return nil, err
	}
	r := p.led()
	if r == nil {
		return nil, object.Errorf(object.KindUnavailable, "node %s does not lead partition %d: ask again", l.n.cfg.NodeID, p.id)
	}
	v, err := r.machine.Local()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return v.Locks(ino)
}

func (l *lockQueues) blocked(p *lockPlace, by *object.Lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conflict := *by
	p.conflict = &conflict
}

// decide ends a wait. The first call counts.
func (l *lockQueues) decide(p *lockPlace, a LockAnswer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !p.decided {
		p.decided, p.answer, p.err = true, a, err
		close(p.over)
	}
}

// waiting are the places whose polls are here, by inode, of the POSIX class.
func (l *lockQueues) waiting() map[object.InodeID][]*lockPlace {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[object.InodeID][]*lockPlace{}
	for ino, q := range l.at {
		for _, p := range q.places {
			if !p.decided && p.polls > 0 && p.ask.Lock.Class == object.LockPOSIX {
				out[ino] = append(out[ino], p)
			}
		}
	}
	return out
}

// cancel ends a wait for a reason, unless it was granted before.
func (l *lockQueues) cancel(ctx context.Context, p *lockPlace, kind object.Kind) {
	t := p.ask.Token
	r, err := l.n.propose(ctx, p.ask.Inode.Partition(), &namespace.Command{Token: &t, CancelLock: &namespace.CancelLock{Kind: kind}})
	if err != nil {
		l.decide(p, LockAnswer{}, err)
		return
	}
	l.decide(p, answerOf(r), r.Err())
}
