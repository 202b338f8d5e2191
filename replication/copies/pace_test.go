package copies

import (
	"context"
	"testing"
	"time"
)

// TestRateChangesAtOnce: who waits under a small rate goes by the new one.
func TestRateChangesAtOnce(t *testing.T) {
	t.Parallel()
	p := NewPacer(1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, p.Wait(ctx, 1<<20)) // the first need not wait; the next would for twelve days
	done := make(chan error, 3)
	for range cap(done) {
		go func() { done <- p.Wait(ctx, 1<<20) }()
	}
	for reserved := false; !reserved && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		reserved = time.Until(p.next) > 4<<20*time.Second-time.Minute
		p.mu.Unlock()
	}
	p.SetRate(1 << 40)
	for range cap(done) {
		must(t, <-done)
	}
	if got := p.Rate(); got != 1<<40 {
		t.Fatalf("the rate is %d", got)
	}
}
