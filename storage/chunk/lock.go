package chunk

import (
	"context"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// idLocks gives one lock to each chunk id in use: puts, deletes and the
// quarantine of one id exclude each other. Nobody holds two at once.
type idLocks struct {
	mu sync.Mutex // guards m and the refs in it
	m  map[object.ChunkID]*idLock
}

type idLock struct {
	slot chan struct{} // holds a token while locked
	refs int
}

// lock waits for the id's lock, or until ctx ends.
func (l *idLocks) lock(ctx context.Context, id object.ChunkID) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[object.ChunkID]*idLock{}
	}
	k := l.m[id]
	if k == nil {
		k = &idLock{slot: make(chan struct{}, 1)}
		l.m[id] = k
	}
	k.refs++
	l.mu.Unlock()

	select {
	case k.slot <- struct{}{}:
		return func() { <-k.slot; l.drop(id, k) }, nil
	case <-ctx.Done():
		l.drop(id, k)
		return nil, ctx.Err()
	}
}

func (l *idLocks) drop(id object.ChunkID, k *idLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.refs--; k.refs == 0 {
		delete(l.m, id)
	}
}
