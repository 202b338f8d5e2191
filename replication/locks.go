package replication

import (
	"context"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Locks of inodes, as a coordinator takes them; fs/DESIGN.md has the protocol,
// lock_queue.go who waits, leases.go the sessions.

const (
	// MaxLockWait is the longest wait of one Lock; who waits longer asks again.
	MaxLockWait = 10 * time.Second
	// lockRoom is how much longer than the wait a question to another node may take.
	lockRoom = 3 * time.Second
	// lockLook is how often it is looked whether another node leads by now, and how often
	// who cannot queue tries.
	lockLook = 250 * time.Millisecond
	// maxLockPolls bounds the questions to other nodes that wait, of which a connection
	// has room for a limited number.
	maxLockPolls = 128
)

// LockAnswer is what became of a Lock. Conflict, where it was not granted, is one of the
// locks in the way, or was a moment ago.
type LockAnswer struct {
	Granted  bool         `cbor:"1,keyasint,omitempty"`
	Conflict *object.Lock `cbor:"2,keyasint,omitempty"`
}

// Lock takes a lock on an inode for the session of ctx's token, in place of what its owner
// has in its range (l.Session is not looked at). With a wait (up to MaxLockWait) it waits
// that long for others to give up what is in the way; not granted means then: ask again,
// under the same token, or CancelLock. Without, one token has one answer.
//
// Errors: KindPrecondition (the session has no lease: OpenLease), KindSessionEnded (it had
// one, and all its locks are lost), KindDeadlock, KindCanceled (by CancelLock),
// KindNoLocks, KindStale, KindInvalid; KindTimeout and KindUnavailable: ask again.
func (n *Node) Lock(ctx context.Context, ino object.InodeID, l object.Lock, wait time.Duration) (LockAnswer, error) {
	t, err := lockToken(ctx)
	if err != nil {
		return LockAnswer{}, err
	}
	l.Session = t.Session
	if err := l.Check(); err != nil {
		return LockAnswer{}, err
	}
	if err := n.knownLease(ctx, t.Session); err != nil {
		return LockAnswer{}, err
	}
	ask := &lockAsk{Inode: ino, Lock: l, Token: *t}
	if wait <= 0 {
		r, err := n.propose(ctx, ino.Partition(), &namespace.Command{Token: t, Lock: &namespace.Lock{Inode: ino, Lock: l}})
		if err != nil {
			return LockAnswer{}, err
		}
		return answerOf(r), r.Err()
	}
	return n.awaitLock(ctx, ask, min(wait, MaxLockWait))
}

// lockToken is the token of ctx, without which nothing is locked.
func lockToken(ctx context.Context) (*namespace.Token, error) {
	t := token(ctx)
	if t == nil {
		return nil, object.Errorf(object.KindInvalid, "a lock is a session's: send its id and a sequence number (a token)")
	}
	return t, nil
}

func answerOf(r *namespace.Result) LockAnswer {
	return LockAnswer{Granted: !r.Failed && r.Conflict == nil, Conflict: r.Conflict}
}

// lockAsk is a question of one who waits to the leader of the inode's partition.
type lockAsk struct {
	Inode object.InodeID  `cbor:"1,keyasint"`
	Lock  object.Lock     `cbor:"2,keyasint"`
	Token namespace.Token `cbor:"3,keyasint"`
	Wait  int64           `cbor:"4,keyasint"` // ms
}

func (a *lockAsk) command() *namespace.Command {
	t := a.Token
	return &namespace.Command{Token: &t, Lock: &namespace.Lock{Inode: a.Inode, Lock: a.Lock, Wait: true}}
}

// awaitLock tries, and queues with whoever leads until it is decided or wait is over.
func (n *Node) awaitLock(ctx context.Context, ask *lockAsk, wait time.Duration) (LockAnswer, error) {
	end := time.Now().Add(wait)
	for {
		r, err := n.propose(ctx, ask.Inode.Partition(), ask.command())
		if err != nil {
			return LockAnswer{}, err
		}
		if !r.Waits {
			return answerOf(r), r.Err()
		}
		left := time.Until(end)
		if left <= 0 {
			return answerOf(r), nil
		}
		a, err := n.queueAt(ctx, ask, left)
		switch {
		case ctx.Err() != nil:
			return LockAnswer{}, ctx.Err()
		case err != nil && !passing(err) && !object.IsKind(err, object.KindCanceled):
			return LockAnswer{}, err
		case err == nil && (a.Granted || time.Now().After(end)):
			if !a.Granted && a.Conflict == nil {
				a.Conflict = r.Conflict // nobody has looked since
			}
			return a, nil
		}
		// Who leads has changed, or cannot be reached, and the poll was given up: the next
		// attempt finds who does, or, after a CancelLock, that this is its result.
		if err := pause(ctx, 6); err != nil {
			return LockAnswer{}, err
		}
	}
}

// queueAt waits at the node that leads, as far as is known here.
func (n *Node) queueAt(ctx context.Context, ask *lockAsk, left time.Duration) (LockAnswer, error) {
	part := ask.Inode.Partition()
	leader, ok := n.access.Leader(part)
	switch {
	case !ok:
		return LockAnswer{}, errNoLeader(part)
	case leader == n.cfg.NodeID:
		return n.waiters.poll(ctx, ask, left)
	}
	ctx, cancel := context.WithTimeout(ctx, left+lockRoom)
	defer cancel()
	select {
	case n.lockPolls <- struct{}{}:
		defer func() { <-n.lockPolls }()
	default: // too many wait elsewhere: it tries now and then
		return LockAnswer{}, sleep(ctx, min(left, lockLook))
	}
	over := make(chan struct{})
	defer close(over)
	n.goWork(func() {
		tick := time.NewTicker(lockLook)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				if now, ok := n.access.Leader(part); !ok || now != leader {
					cancel()
					return
				}
			}
		}
	})
	send := *ask
	send.Wait = left.Milliseconds()
	return callFor[LockAnswer](ctx, n, leader, methodLockWait, &send)
}

func errNoLeader(part object.PartitionID) error {
	return object.Errorf(object.KindUnavailable, "it is not known who leads partition %d: try again", part)
}

// callFor asks another node, in CBOR.
func callFor[A any](ctx context.Context, n *Node, node string, method uint16, ask any) (answer A, err error) {
	b, err := cbor.Marshal(ask)
	if err != nil {
		return answer, err
	}
	if b, err = n.net.Call(ctx, node, method, b); err != nil {
		return answer, err
	}
	if err := cbor.Unmarshal(b, &answer); err != nil {
		return answer, object.Errorf(object.KindInternal, "the answer of node %s to call %#x cannot be read: %w", node, method, err)
	}
	return answer, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// serveLockWait is who leads, asked by another node.
func (n *Node) serveLockWait(ctx context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	var ask lockAsk
	if err := cbor.Unmarshal(request, &ask); err != nil {
		return nil, object.Errorf(object.KindInvalid, "a question for a lock cannot be read: %w", err)
	}
	a, err := n.waiters.poll(ctx, &ask, time.Duration(ask.Wait)*time.Millisecond)
	if err != nil {
		return nil, err
	}
	return cbor.Marshal(a)
}

// CancelLock ends the Lock of ctx's token, which waits no longer: granted, if it had been
// before; else it never will be. KindSessionEnded: the lock is lost, or never was.
func (n *Node) CancelLock(ctx context.Context, ino object.InodeID) (granted bool, err error) {
	t, err := lockToken(ctx)
	if err != nil {
		return false, err
	}
	r, err := n.propose(ctx, ino.Partition(), &namespace.Command{Token: t, CancelLock: &namespace.CancelLock{Kind: object.KindCanceled}})
	switch {
	case err != nil:
		return false, err
	case r.Failed && r.Kind == object.KindSessionEnded:
		return false, r.Err()
	}
	return answerOf(r).Granted, nil
}

// Unlock gives up what the owner has in the range of l, for the session of ctx's token.
// Errors: KindNoLocks where that splits a lock of an inode with MaxLocks,
// KindSessionEnded, KindInvalid.
func (n *Node) Unlock(ctx context.Context, ino object.InodeID, l object.Lock) error {
	t, err := lockToken(ctx)
	if err != nil {
		return err
	}
	l.Session = t.Session
	r, err := n.propose(ctx, ino.Partition(), &namespace.Command{Token: t, Unlock: &namespace.Unlock{Inode: ino, Lock: l}})
	if err != nil {
		return err
	}
	return r.Err()
}

// TestLock is a lock that is in the way of l, nil when there is none. KindStale: the inode is gone.
func (n *Node) TestLock(ctx context.Context, ino object.InodeID, l object.Lock) (conflict *object.Lock, err error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	err = n.inView(ctx, ino.Partition(), func(v *namespace.View) error {
		if _, err := v.Inode(ino); err != nil {
			return err
		}
		conflict, err = v.Conflict(ino, &l)
		return err
	})
	return conflict, err
}
