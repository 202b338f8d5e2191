package replication

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// pieceSize is what a body is read into at a time: one frame of a chunk. A body
// that stands still holds one, whatever it sent before.
const pieceSize = chunk.FrameSize

// buffers hands out memory for bodies in flight in pieces, bounded in total: who
// wants more waits, in turn. Room is reserved first and then taken piece by
// piece, so that what was reserved and is not used costs no memory. Who waits
// while holding some must be able to do without, or to give what it holds away.
type buffers struct {
	total   int64               // pieces
	sem     *semaphore.Weighted // of pieces
	pool    sync.Pool
	waiters atomic.Int64
}

// bufferWait bounds the wait for memory: then the caller is to come again.
const bufferWait = 20 * time.Second

// newBuffers makes memory of total bytes, and at least for two chunks.
func newBuffers(total, chunk int64) *buffers {
	total = max(total/pieceSize, 2*piecesOf(chunk))
	b := &buffers{total: total, sem: semaphore.NewWeighted(total)}
	b.pool.New = func() any { return new([pieceSize]byte) }
	return b
}

// piecesOf is how many pieces hold so many bytes.
func piecesOf(bytes int64) int64 { return (bytes + pieceSize - 1) / pieceSize }

// reserve waits, up to wait, for room for n pieces: KindOverload when there is none.
func (b *buffers) reserve(ctx context.Context, n int64, wait time.Duration) error {
	if b.sem.TryAcquire(n) {
		return nil
	}
	b.waiters.Add(1)
	defer b.waiters.Add(-1)
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := b.sem.Acquire(limited, n); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return object.Errorf(object.KindOverload, "no memory for another body came free: try again (%w)", err)
	}
	return nil
}

// release gives up room that was reserved and not taken.
func (b *buffers) release(n int64) { b.sem.Release(n) }

// wanted reports whether somebody waits for room.
func (b *buffers) wanted() bool { return b.waiters.Load() > 0 }

// take is a piece of reserved room; put gives it back, and its room.
func (b *buffers) take() []byte { return b.pool.Get().(*[pieceSize]byte)[:] }

func (b *buffers) put(pieces ...[]byte) {
	for _, p := range pieces {
		b.pool.Put((*[pieceSize]byte)(p[:pieceSize]))
	}
	b.sem.Release(int64(len(pieces)))
}
