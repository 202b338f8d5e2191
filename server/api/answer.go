package api

import (
	"io"
	"time"
)

// answer is the body of an answer: a stall longer than idle cancels the
// request, so that a server that hangs in mid-body ends in an error.
type answer struct {
	body   io.ReadCloser
	cancel func()
	idle   time.Duration
	timer  *time.Timer
}

func newAnswer(body io.ReadCloser, idle time.Duration, cancel func()) *answer {
	a := &answer{body: body, cancel: cancel, idle: idle}
	if idle > 0 {
		a.timer = time.AfterFunc(idle, cancel)
		a.timer.Stop() // it runs only inside Read
	}
	return a
}

func (a *answer) Read(b []byte) (int, error) {
	if a.timer != nil {
		a.timer.Reset(a.idle)
		defer a.timer.Stop()
	}
	return a.body.Read(b)
}

func (a *answer) Close() error {
	if a.timer != nil {
		a.timer.Stop()
	}
	err := a.body.Close()
	a.cancel()
	return err
}
