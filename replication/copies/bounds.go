package copies

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// budget bounds something in all and for each node, so that one that hangs does
// not take what the others need.
type budget struct {
	total *semaphore.Weighted
	share int64

	mu sync.Mutex // guards of
	of map[string]*semaphore.Weighted
}

func newBudget(total, share int64) *budget {
	return &budget{total: semaphore.NewWeighted(total), share: share, of: map[string]*semaphore.Weighted{}}
}

func (b *budget) at(node string) *semaphore.Weighted {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.of[node]
	if w == nil {
		w = semaphore.NewWeighted(b.share)
		b.of[node] = w
	}
	return w
}

// acquire waits for at most patience: KindOverload.
func (b *budget) acquire(ctx context.Context, node string, n int64, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	own := b.at(node)
	err := own.Acquire(ctx, n)
	if err == nil {
		if err = b.total.Acquire(ctx, n); err != nil {
			own.Release(n)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return object.Errorf(object.KindOverload, "this node has too much to do for others: try again")
	}
	return err
}

func (b *budget) try(node string, n int64) bool {
	own := b.at(node)
	if !own.TryAcquire(n) {
		return false
	}
	if !b.total.TryAcquire(n) {
		own.Release(n)
		return false
	}
	return true
}

func (b *budget) release(node string, n int64) {
	b.total.Release(n)
	b.at(node).Release(n)
}

// watchdog ends a context when nothing moved for a while: a deadline about
// progress, which a large chunk on a slow wire meets, and a peer that hangs does not.
type watchdog struct {
	stall time.Duration
	timer *time.Timer
}

// watch starts one; stop it.
func (s *Store) watch(ctx context.Context, what string) (context.Context, *watchdog, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Canceled) })
	w := &watchdog{stall: s.o.Stall}
	w.timer = time.AfterFunc(w.stall, func() { cancel(stalled(what, w.stall)) })
	return ctx, w, func() { w.timer.Stop(); stop(); cancel(nil) }
}

// moved gives the other side as much time again.
func (w *watchdog) moved() { w.timer.Reset(w.stall) }

func stalled(what string, d time.Duration) error {
	return object.Errorf(object.KindUnavailable, "%s made no progress for %v", what, d)
}
