package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// linkRoom bounds the bytes that wait to be written, by one link.
	linkRoom   = 32 << 20
	linkBuffer = 64 << 10
	// retireWait is how long a connection to a node's old address may still wait for
	// answers.
	retireWait = 30 * time.Second
)

// errLost is why the requests of a connection fail that broke.
type errLost struct {
	sent  bool // the request may have reached the peer
	moved bool // nothing is wrong: there is a newer connection, to the peer's new address
	cause error
}

func (e *errLost) Error() string { return fmt.Sprintf("the connection was lost: %v", e.cause) }
func (e *errLost) Unwrap() error { return e.cause }

// exchange is a request that waits for its answer.
type exchange struct {
	sent atomic.Bool // its bytes may have left this node
	// done gets the answer, or the reason why there will be none (*errLost). It is
	// called by the reader, must not block, and reports whether that was all.
	done func(f frame, err error) bool
}

// link carries frames over a wire. The dialler asks, the acceptor answers.
type link struct {
	w    *wire
	br   *bufio.Reader
	max  int // largest payload received
	room *semaphore.Weighted

	wake   chan struct{} // cap 1: the queue is not empty
	done   chan struct{} // closed when the link has failed
	pinged atomic.Int64  // the clock when a ping went out; 0: none, -1: one is queued

	mu      sync.Mutex // guards what follows
	queue   []outgoing
	waiting map[uint64]*exchange
	lastID  uint64
	retired bool // it takes no more requests, and ends with the last answer
	err     error
}

type outgoing struct {
	buf    []byte
	ex     *exchange
	weight int64 // of room, given back when written
	ping   bool
}

func newLink(w *wire, br *bufio.Reader, r role) *link {
	l := &link{
		w: w, br: br, max: r.limit(), room: semaphore.NewWeighted(linkRoom),
		wake: make(chan struct{}, 1), done: make(chan struct{}), waiting: map[uint64]*exchange{},
	}
	w.hasten()
	w.n.tasks.Go(l.write)
	return l
}

// send queues a frame once there is room for it. ex, if any, gets the answer;
// it is not called when send fails: then nothing was sent.
func (l *link) send(ctx context.Context, buf []byte, ex *exchange) (id uint64, err error) {
	weight := int64(len(buf))
	if !l.room.TryAcquire(weight) {
		if err := l.waitRoom(ctx, weight); err != nil {
			return 0, err
		}
	}
	return l.enqueue(outgoing{buf: buf, ex: ex, weight: weight})
}

// waitRoom waits until weight bytes of the queue are free.
func (l *link) waitRoom(ctx context.Context, weight int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := l.room.Acquire(ctx, weight)
	if cause := l.failure(); err != nil && cause != nil {
		return &errLost{cause: cause}
	}
	return err
}

// post queues a small frame at once, room or not.
func (l *link) post(buf []byte, ex *exchange) (id uint64, err error) {
	return l.enqueue(outgoing{buf: buf, ex: ex})
}

// reply queues the answer to the frame with this id.
func (l *link) reply(buf []byte, id uint64) {
	finishFrame(buf, id)
	_, _ = l.enqueue(outgoing{buf: buf}) // a lost link needs no answers
}

func (l *link) enqueue(o outgoing) (uint64, error) {
	l.mu.Lock()
	if l.err != nil || l.retired && o.ex != nil {
		lost := &errLost{cause: l.err}
		if l.err == nil {
			lost.moved, lost.cause = true, errMoved()
		}
		l.mu.Unlock()
		if o.weight > 0 {
			l.room.Release(o.weight)
		}
		return 0, lost
	}
	if o.ex != nil {
		l.lastID++
		finishFrame(o.buf, l.lastID)
		l.waiting[l.lastID] = o.ex
	}
	id := l.lastID
	l.queue = append(l.queue, o)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return id, nil
}

// forget stops waiting for an answer.
func (l *link) forget(id uint64) {
	l.mu.Lock()
	delete(l.waiting, id)
	retired := l.retired
	l.mu.Unlock()
	if retired {
		l.endRetired()
	}
}

func errMoved() error {
	return object.Errorf(object.KindUnavailable, "the node has another address now")
}

// retire takes no more requests; the link ends when those under way are answered,
// or after a while.
func (l *link) retire() {
	l.mu.Lock()
	l.retired = true
	l.mu.Unlock()
	time.AfterFunc(retireWait, func() { l.fail(errMoved()) }) // once it has ended: nothing
	l.endRetired()
}

// endRetired ends a retired link that nobody waits for.
func (l *link) endRetired() {
	l.mu.Lock()
	over := l.retired && len(l.waiting) == 0
	l.mu.Unlock()
	if over {
		l.fail(errMoved())
	}
}

// write sends what is queued, many small frames in one system call, until the
// link fails.
func (l *link) write() {
	bw := bufio.NewWriterSize(l.w, linkBuffer)
	for {
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
		for {
			l.mu.Lock()
			batch := l.queue
			l.queue = nil
			for _, o := range batch {
				if o.ex != nil {
					o.ex.sent.Store(true)
				}
			}
			l.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			if err := l.writeBatch(bw, batch); err != nil {
				l.fail(err)
				return
			}
		}
	}
}

func (l *link) writeBatch(bw *bufio.Writer, batch []outgoing) error {
	ping := false
	for _, o := range batch {
		_, err := bw.Write(o.buf)
		if o.weight > 0 {
			l.room.Release(o.weight)
		}
		if err != nil {
			return err
		}
		ping = ping || o.ping
	}
	if err := bw.Flush(); err != nil {
		return err
	}
	if ping {
		l.pinged.Store(l.w.n.clock())
	}
	return nil
}

// read hands incoming frames to handle until the link fails, and returns why.
// Answers to exchanges and pings are dealt with here.
func (l *link) read(handle func(frame) error) error {
	for {
		f, err := readFrame(l.br, l.max)
		if err != nil {
			return l.fail(err)
		}
		switch f.typ {
		case framePing:
			l.reply(newFrame(framePong, 0), f.id)
		case framePong:
		case frameAnswer, frameBeatAnswers:
			l.answered(f)
		default:
			if err := handle(f); err != nil {
				return l.fail(err)
			}
		}
	}
}

func (l *link) answered(f frame) {
	l.mu.Lock()
	ex := l.waiting[f.id]
	delete(l.waiting, f.id) // ours alone now: fail may run beside us
	retired := l.retired
	l.mu.Unlock()
	if ex == nil || ex.done(f, nil) { // nil: the caller has gone
		if retired { // if only since: retire has looked itself
			l.endRetired()
		}
		return
	}
	l.mu.Lock()
	err := l.err
	if err == nil {
		l.waiting[f.id] = ex
	}
	l.mu.Unlock()
	if err != nil {
		ex.done(frame{}, &errLost{sent: true, cause: err})
	}
}

// fail ends the link; the first reason counts and is returned.
func (l *link) fail(err error) error {
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the peer closed it")
	}
	l.err = err
	waiting := l.waiting
	l.waiting, l.queue = nil, nil
	close(l.done)
	l.mu.Unlock()
	_ = l.w.Close()
	for _, ex := range waiting {
		ex.done(frame{}, &errLost{sent: ex.sent.Load(), cause: err})
	}
	return err
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// keepalive is the dialler's: it pings a peer it has not heard, and gives up on
// one that does not answer.
func (l *link) keepalive(now int64) {
	heard, pinged := l.w.heard.Load(), l.pinged.Load()
	switch {
	case pinged > 0 && heard > pinged:
		l.pinged.Store(0)
	case pinged > 0 && now-pinged > int64(pongTimeout):
		l.fail(object.Errorf(object.KindUnavailable, "the peer has been silent for %v", pongTimeout))
		return
	case pinged != 0:
		return
	}
	if now-l.w.heard.Load() >= int64(tickEvery)/2 {
		l.pinged.Store(-1)
		_, _ = l.enqueue(outgoing{buf: newFrame(framePing, 0), ping: true})
	}
}

// watchdog is the acceptor's: the dialler pings, so silence means it is gone.
func (l *link) watchdog(now int64) {
	if now-l.w.heard.Load() > int64(silentTimeout) {
		l.fail(object.Errorf(object.KindUnavailable, "the peer has been silent for %v", silentTimeout))
	}
}
