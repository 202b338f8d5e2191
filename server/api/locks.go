package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// LockClass is the class of a lock on the wire: "posix" or "flock".
type LockClass object.LockClass

// MarshalText writes the word.
func (l LockClass) MarshalText() ([]byte, error) {
	switch object.LockClass(l) {
	case object.LockPOSIX:
		return []byte("posix"), nil
	case object.LockFlock:
		return []byte("flock"), nil
	}
	return nil, object.Errorf(object.KindInternal, "lock class %d has no name", l)
}

// UnmarshalText reads it.
func (l *LockClass) UnmarshalText(b []byte) error {
	switch string(b) {
	case "posix":
		*l = LockClass(object.LockPOSIX)
	case "flock":
		*l = LockClass(object.LockFlock)
	default:
		return object.Errorf(object.KindInvalid, `%q is not a class of locks (posix or flock)`, b)
	}
	return nil
}

// Lock is one advisory lock.
type Lock struct {
	Class     LockClass `json:"class"`
	Session   string    `json:"session,omitempty"` // in answers: whose it is
	Owner     uint64    `json:"owner,string"`
	Exclusive bool      `json:"exclusive,omitempty"`
	First     int64     `json:"first"` // byte
	Last      int64     `json:"last"`  // byte, included; 2^63-1: to the end of the file
	PID       uint32    `json:"pid,omitempty"`
}

// LockOf is a lock on the wire.
func LockOf(l object.Lock) Lock {
	w := Lock{Class: LockClass(l.Class), Owner: l.Owner, Exclusive: l.Exclusive, First: l.First, Last: l.Last, PID: l.PID}
	if !l.Session.IsZero() {
		w.Session = l.Session.String()
	}
	return w
}

// Object is the lock that was on the wire.
func (l Lock) Object() (out object.Lock, err error) {
	out = object.Lock{Class: object.LockClass(l.Class), Owner: l.Owner, Exclusive: l.Exclusive, First: l.First, Last: l.Last, PID: l.PID}
	if l.Session != "" {
		if out.Session, err = object.ParseUploadID(l.Session); err != nil {
			return out, err
		}
	}
	return out, out.Check()
}

// LockRequest is the body of POST /fs/inodes/INODE/locks and its /wait. Without First the
// lock begins with byte 0, without Last it goes to the end of the file.
type LockRequest struct {
	Lock
	First  *int64 `json:"first,omitempty"` // these two in place of Lock's
	Last   *int64 `json:"last,omitempty"`
	WaitMS int64  `json:"wait_ms,omitempty"` // of /wait
}

// LockRequestOf asks for a lock, and waits (0: it does not).
func LockRequestOf(l object.Lock, wait time.Duration) LockRequest {
	return LockRequest{Lock: LockOf(l), First: &l.First, Last: &l.Last, WaitMS: wait.Milliseconds()}
}

// Object is the lock that is asked for. Errors: KindInvalid.
func (r LockRequest) Object() (object.Lock, error) {
	l := r.Lock
	l.First, l.Last = 0, object.LastByte
	if r.First != nil {
		l.First = *r.First
	}
	if r.Last != nil {
		l.Last = *r.Last
	}
	return l.Object()
}

// LockAnswer says whether a lock was granted, or would be, and else one that is in the way.
type LockAnswer struct {
	Granted  bool  `json:"granted"`
	Conflict *Lock `json:"conflict,omitempty"`
}

// Lease is how long a session may lock without being renewed.
type Lease struct {
	LeaseMS int64 `json:"lease_ms"`
}

// OpenLease registers this client's session, so that it may lock, and returns for how long.
// Renew it within that time, counted from before the call: else the session is ended, its
// locks go to others, and no mutation of this client is made any more (KindSessionEnded).
func (c *Client) OpenLease(ctx context.Context) (time.Duration, error) {
	return c.lease(ctx, "register session", http.MethodPost)
}

// RenewLease begins the lease anew, at a moment within the call. KindSessionEnded: it is too late.
func (c *Client) RenewLease(ctx context.Context) (time.Duration, error) {
	return c.lease(ctx, "renew session", http.MethodPut)
}

// CloseLease ends the session: this client can make no mutation any more.
func (c *Client) CloseLease(ctx context.Context) error {
	return c.doJSON(ctx, &call{op: "close session", method: http.MethodDelete, path: "/fs/sessions/" + c.session.Load().id}, nil)
}

func (c *Client) lease(ctx context.Context, op, method string) (time.Duration, error) {
	var out Lease
	err := c.doJSON(ctx, &call{op: op, method: method, path: "/fs/sessions/" + c.session.Load().id}, &out)
	return time.Duration(out.LeaseMS) * time.Millisecond, err
}

// Locking is one request for a lock, which may be asked more than once: the cluster has
// one answer for it. It is for one goroutine; call Done in the end.
type Locking struct {
	c     *Client
	ino   object.InodeID
	lock  object.Lock
	kept  *Kept
	began time.Time     // of kept
	most  time.Duration // that it waits under one token
}

// maxLockToken is how long one waits under one token. As long as a token is in use the
// cluster keeps the results of all later mutations of its session.
const maxLockToken = time.Minute

// Locking begins a request for a lock of this client's session (l.Session is not looked at).
func (c *Client) Locking(ino object.InodeID, l object.Lock) *Locking {
	k := &Locking{c: c, ino: ino, lock: l, most: maxLockToken}
	k.begin()
	return k
}

func (l *Locking) begin() {
	_, l.kept = l.c.Keep(context.Background())
	l.began = time.Now()
}

// maxLockPoll is the longest that one request waits for a lock.
const maxLockPoll = 10 * time.Second

// Try asks once, without a wait; ask once, and not after Wait. Not granted, conflict is a
// lock in the way. Errors: KindPrecondition (OpenLease first), KindSessionEnded,
// KindNoLocks, KindStale; after KindTimeout and KindUnavailable Cancel finds out.
func (l *Locking) Try(ctx context.Context) (granted bool, conflict *object.Lock, err error) {
	return l.ask(ctx, "/locks", LockRequestOf(l.lock, 0))
}

// Wait asks, and waits some seconds for what is in the way. Not granted: call it again, or
// Cancel. Errors as Try's, and KindDeadlock, after which nothing is left to cancel.
func (l *Locking) Wait(ctx context.Context) (granted bool, err error) {
	if time.Since(l.began) > l.most { // it goes on with another token, at the end of the queue
		if granted, err := l.Cancel(ctx); granted || err != nil {
			return granted, err
		}
		l.Done()
		l.begin()
	}
	wait := min(maxLockPoll, l.c.opts.AnswerTimeout/2) // a node that hangs is told from one that waits
	granted, _, err = l.ask(ctx, "/locks/wait", LockRequestOf(l.lock, wait))
	return granted, err
}

func (l *Locking) ask(ctx context.Context, path string, body any) (granted bool, conflict *object.Lock, err error) {
	k, err := inodeCall("lock", http.MethodPost, l.ino, path, nil).withJSON(body)
	if err != nil {
		return false, nil, err
	}
	var out LockAnswer
	if err := l.c.doJSON(context.WithValue(ctx, keptKey{}, l.kept), k, &out); err != nil {
		return false, nil, err
	}
	if out.Conflict != nil {
		o, err := out.Conflict.Object()
		return out.Granted, &o, err
	}
	return out.Granted, nil, nil
}

// Cancel ends the request: it was granted before, or it never will be. With an error that
// is still open; Cancel again.
func (l *Locking) Cancel(ctx context.Context) (granted bool, err error) {
	var out LockAnswer
	err = l.c.doJSON(context.WithValue(ctx, keptKey{}, l.kept), inodeCall("cancel lock", http.MethodPost, l.ino, "/locks/cancel", nil), &out)
	return out.Granted, err
}

// Done says that nothing more is asked about this request.
func (l *Locking) Done() { l.kept.Done() }

// Unlock gives up what an owner of this client's session has in a range.
func (c *Client) Unlock(ctx context.Context, ino object.InodeID, l object.Lock) error {
	return c.doJSON(ctx, inodeCall("unlock", http.MethodDelete, ino, "/locks", lockQuery(l)), nil)
}

// TestLock is a lock that is in the way of one that an owner of this client's session would
// take; nil: there is none.
func (c *Client) TestLock(ctx context.Context, ino object.InodeID, l object.Lock) (*object.Lock, error) {
	q := lockQuery(l)
	q.Set("session", c.session.Load().id)
	if l.Exclusive {
		q.Set("exclusive", "")
	}
	var out LockAnswer
	if err := c.doJSON(ctx, inodeCall("test lock", http.MethodGet, ino, "/locks", q), &out); err != nil || out.Conflict == nil {
		return nil, err
	}
	o, err := out.Conflict.Object()
	return &o, err
}

func lockQuery(l object.Lock) url.Values {
	class, _ := LockClass(l.Class).MarshalText() // "" is refused by the server
	return url.Values{"class": {string(class)}, "owner": {strconv.FormatUint(l.Owner, 10)},
		"first": {strconv.FormatInt(l.First, 10)}, "last": {strconv.FormatInt(l.Last, 10)}}
}
