package copies

import (
	"context"
	"sync"
	"time"
)

// Pacer spaces repairs, so that all who share it keep to a rate together. It is safe
// for concurrent use.
type Pacer struct {
	mu      sync.Mutex    // guards what follows
	rate    int64         // bytes a second
	next    time.Time     // when the next one may begin
	changed chan struct{} // closed when the rate changes
}

// NewPacer makes a Pacer of a rate in bytes a second, above 0.
func NewPacer(rate int64) *Pacer { return &Pacer{rate: rate, changed: make(chan struct{})} }

// SetRate changes the rate, in bytes a second, above 0. Who waits goes by the new one at
// once: under a small rate the wait may be for hours.
func (p *Pacer) SetRate(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == rate {
		return
	}
	p.rate, p.next = rate, time.Time{}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Rate is the present one, in bytes a second.
func (p *Pacer) Rate() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// Wait waits until n bytes may be moved. It fails with ctx alone.
func (p *Pacer) Wait(ctx context.Context, n int64) error {
	for {
		begin, changed := p.reserve(n)
		timer := time.NewTimer(time.Until(begin))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-changed: // what was reserved is forgotten
			timer.Stop()
		}
	}
}

// reserve is when n bytes may begin, while the rate stays.
func (p *Pacer) reserve(n int64) (begin time.Time, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	begin = p.next
	if now := time.Now(); begin.Before(now) {
		begin = now
	}
	p.next = begin.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return begin, p.changed
}
