package replication

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// buffers hands out memory for bodies in flight, bounded in total: who wants
// more waits. Every holder must be able to finish with what it has.
type buffers struct {
	chunk int64
	sem   *semaphore.Weighted
	pool  sync.Pool
}

// bufferWait bounds the wait for memory: then the caller is to come again.
const bufferWait = 20 * time.Second

func newBuffers(total, chunk int64) *buffers {
	b := &buffers{chunk: chunk, sem: semaphore.NewWeighted(total)}
	b.pool.New = func() any { s := make([]byte, chunk); return &s }
	return b
}

// get waits for a buffer of one chunk; put gives it back.
func (b *buffers) get(ctx context.Context) (*[]byte, error) {
	wait, cancel := context.WithTimeout(ctx, bufferWait)
	defer cancel()
	if err := b.sem.Acquire(wait, b.chunk); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, object.Errorf(object.KindOverload, "no memory for another body came free: try again (%w)", err)
	}
	return b.pool.Get().(*[]byte), nil
}

func (b *buffers) put(s *[]byte) {
	b.pool.Put(s)
	b.sem.Release(b.chunk)
}
