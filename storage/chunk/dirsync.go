package chunk

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// dirSyncs groups the syncs of directories: while one sync of a directory runs,
// all who ask for another share the next. It adds no delay.
type dirSyncs struct {
	fs          vfs.FS
	onFailure   func(err error)
	asked, made atomic.Int64

	mu   sync.Mutex // guards dirs and the states in it
	dirs map[string]*dirState
}

type dirState struct {
	running bool
	next    *syncRound
}

type syncRound struct {
	done chan struct{}
	err  error // set before done is closed
}

// sync returns after a sync of dir that began after the call. When ctx ends
// first, its error is returned and whether the sync happened is unknown.
func (g *dirSyncs) sync(ctx context.Context, dir string) error {
	g.asked.Add(1)
	g.mu.Lock()
	s := g.dirs[dir]
	if s == nil {
		s = &dirState{}
		g.dirs[dir] = s
	}
	if s.next == nil {
		s.next = &syncRound{done: make(chan struct{})}
	}
	round := s.next
	if s.running {
		g.mu.Unlock()
		select {
		case <-round.done:
			return round.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.running = true
	g.mu.Unlock()
	if g.step(dir, s) { // the others must not wait for this caller to be scheduled again
		go func() {
			for g.step(dir, s) {
			}
		}()
	}
	return round.err
}

// step runs one round and reports whether another waits.
func (g *dirSyncs) step(dir string, s *dirState) bool {
	g.mu.Lock()
	round := s.next
	s.next = nil
	g.mu.Unlock()

	g.made.Add(1)
	round.err = g.fs.SyncDir(OpDirSync, dir)
	if round.err != nil && !errors.Is(round.err, fs.ErrNotExist) {
		g.onFailure(round.err)
	}
	close(round.done)

	g.mu.Lock()
	defer g.mu.Unlock()
	if s.next != nil {
		return true
	}
	s.running = false
	delete(g.dirs, dir)
	return false
}
