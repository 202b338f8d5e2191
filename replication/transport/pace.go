package transport

import (
	"context"
	"sync"
	"time"
)

const (
	// paceBurst is how far ahead of its rate a pace lets go, in time: timers are coarse.
	paceBurst = 50 * time.Millisecond
	// snapshotStreams is how many snapshots are sent at a time: each keeps a state and
	// a piece of the log at its leader, so a few quick ones are better than many slow.
	snapshotStreams = 4
)

// pace spreads the bytes of all snapshots that a node sends over time. It is a
// leaky bucket kept as one moment: when everything taken so far will have passed.
type pace struct {
	streams chan struct{} // one token for each that is being sent

	mu   sync.Mutex // guards what follows
	rate int64      // bytes a second
	next time.Time
}

func newPace(rate int64) *pace {
	return &pace{streams: make(chan struct{}, snapshotStreams), rate: rate}
}

// begin waits for its turn; end gives it up.
func (p *pace) begin(ctx context.Context) (end func(), err error) {
	select {
	case p.streams <- struct{}{}:
		return func() { <-p.streams }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// wait returns once n more bytes may be sent.
func (p *pace) wait(ctx context.Context, n int) error {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now.Add(-paceBurst)) {
		p.next = now.Add(-paceBurst)
	}
	d := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *pace) set(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// SetSnapshotRate changes Options.SnapshotRate, also for what is under way.
func (n *Node) SetSnapshotRate(bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		bytesPerSecond = DefaultSnapshotRate
	}
	n.pace.set(bytesPerSecond)
}
