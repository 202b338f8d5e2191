package fs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// holdDelay is how long a file is open before the cluster hears of it: most
// are closed again by then and cost nothing.
const holdDelay = 250 * time.Millisecond

// holdBatch is how many files one request reports at most, so that it stays
// small and quick however many are open.
const holdBatch = 1000

// holder reports open files to the cluster, so that they live on when their
// last name goes. Files that this mount itself may be about to unlink are
// reported before. It is safe for concurrent use.
type holder struct {
	f *filesystem

	asking chan struct{} // taken for the time of a request: they go one by one

	mu   sync.Mutex // guards what follows
	want map[object.InodeID]bool
	held map[object.InodeID]bool // those the cluster was asked to hold; false: it is gone there
}

func newHolder(f *filesystem) *holder {
	return &holder{f: f, asking: make(chan struct{}, 1), want: map[object.InodeID]bool{}, held: map[object.InodeID]bool{}}
}

func (h *holder) open(ino object.InodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.want[ino] = true
}

func (h *holder) close(ino object.InodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.want, ino)
}

// diff is what is to be held and what to be released.
func (h *holder) diff() (hold, release []object.InodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ino := range h.want {
		if _, asked := h.held[ino]; !asked {
			hold = append(hold, ino)
		}
	}
	for ino := range h.held {
		if !h.want[ino] {
			release = append(release, ino)
		}
	}
	return hold, release
}

// settle returns when the cluster knows every file that was open when it was
// called.
func (h *holder) settle(ctx context.Context) error {
	if hold, _ := h.diff(); len(hold) == 0 {
		return nil
	}
	select {
	case h.asking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-h.asking }()
	hold, _ := h.diff()
	return h.hold(ctx, hold)
}

// hold reports files; asking is taken. A batch that fails does not keep the
// others from being held.
func (h *holder) hold(ctx context.Context, inos []object.InodeID) error {
	var errs []error
	for batch := range slices.Chunk(inos, holdBatch) {
		errs = append(errs, h.ask(ctx, batch))
	}
	return errors.Join(errs...)
}

// ask sends one request. The cluster stops at the first file that is gone:
// halves find that one, which is not asked for again, and hold the others.
func (h *holder) ask(ctx context.Context, inos []object.InodeID) error {
	err := h.f.b.Hold(ctx, inos)
	switch half := len(inos) / 2; {
	case err != nil && !gone(err):
		return err
	case err != nil && half > 0:
		return errors.Join(h.ask(ctx, inos[:half]), h.ask(ctx, inos[half:]))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ino := range inos {
		h.held[ino] = err == nil
	}
	return nil
}

// renew reports again all files that are held and still open: a hold lasts for
// a lease only, and a server that restarted, or another one, knows of none.
func (h *holder) renew(ctx context.Context) error {
	h.mu.Lock()
	var inos []object.InodeID
	for ino, there := range h.held {
		if there && h.want[ino] {
			inos = append(inos, ino)
		}
	}
	h.mu.Unlock()
	return h.hold(ctx, inos)
}

func gone(err error) bool {
	return object.IsKind(err, object.KindNotFound) || object.IsKind(err, object.KindStale)
}

// run tells the cluster what was opened and closed, and renews the holds.
func (h *holder) run() {
	tick := time.NewTicker(holdDelay)
	defer tick.Stop()
	old, renewed := map[object.InodeID]bool{}, time.Now()
	told := h.f.b.Endpoint() // who knows of the holds
	for {
		select {
		case <-h.f.ctx.Done():
			return
		case now := <-tick.C:
			at := h.f.b.Endpoint()
			renew := now.Sub(renewed) >= h.f.o.HoldRenew || at != told
			if err := h.step(old, renew); err != nil {
				h.f.log.Warn("open files cannot be reported; they may be lost if they are unlinked elsewhere", "error", err)
			} else if renew {
				renewed, told = now, at
			}
		}
	}
}

// step is one round: what was open in the round before is held now.
func (h *holder) step(old map[object.InodeID]bool, renew bool) error {
	hold, release := h.diff()
	var ripe []object.InodeID
	for _, ino := range hold {
		if old[ino] {
			ripe = append(ripe, ino)
		}
	}
	clear(old)
	for _, ino := range hold {
		old[ino] = true
	}
	h.mu.Lock()
	renew = renew && len(h.held) > 0
	h.mu.Unlock()
	if len(ripe) == 0 && len(release) == 0 && !renew {
		return nil
	}
	ctx, done := h.f.begin(nil)
	defer done()
	h.asking <- struct{}{}
	defer func() { <-h.asking }()
	var err error
	if renew {
		err = h.renew(ctx)
	}
	return errors.Join(err, h.hold(ctx, ripe), h.release(ctx))
}

// release gives back what is not open any more; asking is taken, so that
// nothing is held and released in the wrong order.
func (h *holder) release(ctx context.Context) error {
	_, inos := h.diff()
	if len(inos) == 0 {
		return nil
	}
	h.mu.Lock()
	for _, ino := range inos {
		delete(h.held, ino) // a file opened from here on is held anew, afterwards
	}
	h.mu.Unlock()
	return h.f.b.Release(ctx, inos)
}

// releaseAll ends every hold, at the end of the mount.
func (h *holder) releaseAll() {
	h.mu.Lock()
	clear(h.want)
	h.mu.Unlock()
	ctx, done := h.f.begin(nil)
	defer done()
	select {
	case h.asking <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-h.asking }()
	if err := h.release(ctx); err != nil {
		h.f.log.Warn("held files are released when the session's lease ends", "error", err)
	}
}
