package group_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// reader reads the key at one replica over and over, and compares what it gets
// with what had been acknowledged before it asked.
type reader struct {
	r                          *replica
	answered, stale            uint64
	naive, verified, naiveRead uint64 // stale, by other rules; and how many reads those were
}

func (d *reader) run(ctx context.Context, acked *atomic.Uint64) {
	for ctx.Err() == nil {
		want := acked.Load()
		if d.r.BelievesItLeads() {
			d.naiveRead++
			if d.r.m.count("k") < want {
				d.naive++
			}
		}
		one, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		err := d.r.Read(one)
		cancel()
		if err != nil {
			<-time.After(200 * time.Microsecond)
			continue
		}
		d.answered++
		if d.r.m.count("k") < want {
			d.stale++
		}
	}
}

func (d *reader) verify(ctx context.Context, acked *atomic.Uint64) {
	for ctx.Err() == nil {
		want := acked.Load()
		if d.r.Raft().VerifyLeader().Error() != nil {
			<-time.After(200 * time.Microsecond)
		} else if d.r.m.count("k") < want {
			d.verified++
		}
	}
}

// TestNoStaleRead is the experiment of RAFT.md: a leader is cut off in the middle of
// everything, so that acknowledgements of it are on their way; another is elected
// and commits; the first goes on. It must not answer from the past, not even when
// the old acknowledgements arrive.
func TestNoStaleRead(t *testing.T) {
	t.Parallel()
	const rounds = 200
	c := newCluster(t, 3)
	var acked atomic.Uint64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var readers []*reader
	for _, r := range c.all {
		for range 2 {
			d := &reader{r: r}
			readers = append(readers, d)
			wg.Go(func() { d.run(ctx, &acked) })
		}
		d := &reader{r: r}
		readers = append(readers, d)
		wg.Go(func() { d.verify(ctx, &acked) })
	}
	tries, committed := 0, 0
	for round := range rounds {
		old := c.ready(t)
		if n, err := old.Propose(within(t, 20*time.Second), []byte("k")); err == nil {
			acked.Store(n.(uint64))
		} // else a campaign of the round before was late
		c.net.pause(old.addr)
		var next *replica
		poll(t, fmt.Sprintf("another leader in round %d", round), func() bool {
			for _, r := range c.all {
				if r != old && r.IsLeader() {
					next = r
					return true
				}
			}
			// Whoever has the longer log wins; the other may not, so both try in turn.
			if tries++; tries%8 == 0 {
				if r := c.all[tries/8%3]; r != old && r.Raft().State() == raft.Follower {
					r.Campaign()
				}
			}
			return false
		})
		if n, err := next.Propose(within(t, 20*time.Second), []byte("k")); err == nil {
			committed++
			acked.Store(n.(uint64))
		}
		c.net.resume(old.addr)
	}
	stop()
	wg.Wait()
	var sum reader
	for _, d := range readers {
		sum.answered += d.answered
		sum.stale += d.stale
		sum.naive += d.naive
		sum.naiveRead += d.naiveRead
		sum.verified += d.verified
	}
	t.Logf("%d rounds: %d stale of %d; by the leader's own belief %d of %d; by VerifyLeader %d", rounds, sum.stale, sum.answered, sum.naive, sum.naiveRead, sum.verified)
	if sum.stale > 0 {
		t.Errorf("%d stale answers", sum.stale)
	}
	if sum.answered < rounds || committed < rounds*9/10 || sum.naive == 0 {
		t.Error("the test did not test: nobody read, or not even belief was wrong")
	}
}

// ready waits for a leader that answers.
func (c *cluster) ready(t *testing.T) (found *replica) {
	t.Helper()
	poll(t, "a leader", func() bool {
		for _, r := range c.all {
			if r.IsLeader() && r.Read(within(t, 100*time.Millisecond)) == nil {
				found = r
				return true
			}
		}
		return false
	})
	return found
}
