package api

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"time"
)

// watchedFrom is the size from which a body is watched: the system takes smaller ones
// off our hands, whatever the other side does.
const watchedFrom = 32 << 10

// errSilent is why an attempt was ended by watchWrite.
var errSilent = errors.New("the node is silent")

// watchWrite ends an attempt, by cancel, when its body does not get on its way: the
// other side takes no bytes for the time stall, and net/http waits in a write, for
// which it knows no limit. (A process that is stopped keeps its connections open.)
// answer, of how many bytes were sent, is the time for the answer after that; nil: it is the
// HTTP client's. The returned context belongs into the request, and stop is called when the attempt ends.
func watchWrite(ctx context.Context, g *guard, stall time.Duration, answer func(sent int64) time.Duration, cancel func(why error)) (_ context.Context, stop func()) {
	done := make(chan struct{})
	written := make(chan struct{}, 1)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) {
		if w.Err != nil {
			return // net/http may try another connection
		}
		select {
		case written <- struct{}{}:
		default:
		}
	}})
	go func() {
		tick := time.NewTicker(max(stall/4, time.Millisecond))
		defer tick.Stop()
		last, since := int64(-1), time.Now()
		for {
			select {
			case <-done:
				return
			case <-written: // the timeout of the answer counts from here
				if answer == nil {
					return
				}
				sent, _ := g.progress()
				if d := answer(sent); !closedWithin(done, d) {
					cancel(fmt.Errorf("%w: it took the body and did not answer within %s", errSilent, d))
				}
				return
			case now := <-tick.C:
				given, reading := g.progress()
				if given != last || reading {
					last, since = given, now
				} else if given > 0 && now.Sub(since) >= stall {
					cancel(fmt.Errorf("%w: it takes no bytes for %s", errSilent, stall))
					return
				}
			}
		}
	}()
	return ctx, func() { close(done) }
}

func closedWithin(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
