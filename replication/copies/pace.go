package copies

import (
	"context"
	"sync"
	"time"
)

// Pacer spaces repairs, so that all who share it keep to a rate together. It is safe
// for concurrent use.
type Pacer struct {
	rate int64 // bytes a second

	mu   sync.Mutex // guards next
	next time.Time  // when the next one may begin
}

// NewPacer makes a Pacer of a rate in bytes a second, above 0.
func NewPacer(rate int64) *Pacer { return &Pacer{rate: rate} }

// Wait waits until n bytes may be moved. It fails with ctx alone.
func (p *Pacer) Wait(ctx context.Context, n int64) error {
	p.mu.Lock()
	now := time.Now()
	begin := p.next
	if begin.Before(now) {
		begin = now
	}
	p.next = begin.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	timer := time.NewTimer(time.Until(begin))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
