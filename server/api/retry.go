package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	firstDelay = 25 * time.Millisecond
	maxDelay   = 2 * time.Second
	maxProblem = 64 << 10 // bytes read of an error's body
	maxJSON    = 64 << 20 // bytes read of any JSON answer
)

// do performs a call: it returns the answer of the first attempt that succeeded
// (304 is an error too). Where the call does not consume it, the caller closes its body.
func (c *Client) do(ctx context.Context, k *call) (*http.Response, error) {
	p, err := newPayload(k.body, k.size)
	if err != nil {
		return nil, k.fail(err)
	}
	defer p.end() // from here on the body is the caller's again
	var kept *Kept
	if k.mutation {
		if kept = c.kept(ctx); kept == nil {
			ctx, kept = c.Keep(ctx)
			defer kept.Done()
		}
	}
	var spent time.Duration // in which nothing got on
	k.node = c.nodes.first()
	for attempt := 0; ; attempt++ {
		start := time.Now()
		if k.mutation {
			if k.header == nil {
				k.header = http.Header{}
			}
			kept.s.stamp(k.header, kept.seq, kept.sent.Swap(true))
		}
		resp, err := c.attempt(ctx, k, k.node, p)
		if k.mutation {
			kept.note(err)
		}
		if err == nil {
			c.nodes.answered(k.node)
			return resp, nil
		}
		if unanswered(err) && !errors.Is(ctx.Err(), context.Canceled) {
			// Other calls need not find out by themselves that this node is silent.
			c.nodes.failed(k.node)
		}
		if ctx.Err() != nil {
			return nil, k.fail(ended(ctx, err))
		}
		delay := backoff(attempt, len(c.nodes.urls))
		spent += time.Since(p.gotOn(start)) + delay
		left := c.opts.RetryFor - spent
		if k.slow {
			left += 2 * slowAnswer // one that hung leaves time to ask another node
		}
		if !retryable(err) || attempt >= c.opts.Retries || left < 0 || !again(ctx, p, left) {
			return nil, k.fail(ended(ctx, err))
		}
		c.opts.Logger.Debug("trying again", "op", k.op, "endpoint", c.nodes.urls[k.node].Host, "attempt", attempt+1, "delay", delay, "error", err)
		if err := sleep(ctx, delay); err != nil {
			return nil, k.fail(err)
		}
		k.node = c.nodes.next(k.node)
	}
}

// again prepares a further attempt, within the time that is left for one.
func again(ctx context.Context, p *payload, left time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	return p.again(ctx)
}

// ended is err, under the kind of ctx's error where that has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return &object.Error{Kind: object.KindOf(ctx.Err()), Err: err}
}

// attempt asks one node once.
func (c *Client) attempt(ctx context.Context, k *call, node int, p *payload) (*http.Response, error) {
	ctx, cancelFor := context.WithCancelCause(ctx)
	cancel := func() { cancelFor(nil) }
	req, err := c.request(ctx, k, c.nodes.urls[node], p)
	if err != nil {
		cancel()
		return nil, err
	}
	if req.Body != nil && p.large() {
		answer := c.answerTime
		if !c.opts.patient || k.slow {
			answer = nil
		}
		watched, stop := watchWrite(ctx, p.last, c.opts.IdleTimeout, answer, cancelFor)
		defer stop()
		req = req.WithContext(watched)
	}
	resp, err := c.roundTrip(req, k, p)
	if err != nil {
		if why := context.Cause(ctx); errors.Is(why, errSilent) {
			err = why // and not that somebody canceled
		}
		cancel()
		if own := p.failure(); own != nil {
			return nil, object.WithOp(own, k.op, k.bucket, k.key)
		}
		return nil, connectionError(err, c.nodes.urls[node].Host)
	}
	c.nodes.of(resp.Header.Get(HeaderCluster))
	idle := c.opts.IdleTimeout
	if k.stream {
		idle = 0
	}
	resp.Body = newAnswer(resp.Body, idle, cancel)
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problemOf(resp)
	}
	if k.consume != nil {
		defer resp.Body.Close()
		return resp, k.consume(resp)
	}
	return resp, nil
}

// answerTime is how long an answer may take once a body of so many bytes was sent.
func (c *Client) answerTime(sent int64) time.Duration {
	return min(c.opts.AnswerTimeout+time.Duration(float64(sent)/bodyRate*float64(time.Second)), slowAnswer)
}

// unanswered reports whether an attempt failed because its node said nothing,
// or broke off; the caller's cancel says nothing about the node.
func unanswered(err error) bool {
	var p *Problem
	return object.IsKind(err, object.KindUnavailable) && !errors.As(err, &p)
}

// connectionError is the kind of an attempt that got no answer.
func connectionError(err error, host string) error {
	return &object.Error{Kind: object.KindUnavailable, Err: fmt.Errorf("no answer from %s: %w", host, err)}
}

// problemOf reads an error answer.
func problemOf(resp *http.Response) error {
	kind := kindOfStatus(resp.StatusCode)
	if name := resp.Header.Get(HeaderError); name != "" {
		kind = object.ParseKind(name)
	}
	p := Problem{}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // what is missing is filled in below
	if json.Unmarshal(raw, &p) != nil || p.Message == "" {
		p.Message = fmt.Sprintf("the server answered %s", resp.Status)
	}
	if to := resp.Header.Get("Location"); resp.StatusCode < 400 && to != "" {
		p.Message, p.Hint = fmt.Sprintf("the server answered %s and points to %s", resp.Status, to), "redirects are not followed: give the client the endpoint that they lead to"
	}
	if p.Kind == "" {
		p.Kind = kind.String()
	}
	if p.Hint == "" {
		p.Hint = Hint(kind)
	}
	if p.RequestID == "" {
		p.RequestID = resp.Header.Get(HeaderRequestID)
	}
	return &object.Error{Kind: kind, Err: &p}
}

func retryable(err error) bool {
	switch object.KindOf(err) {
	case object.KindUnavailable, object.KindOverload, object.KindTimeout:
		return true
	}
	return false
}

// backoff doubles with each round through all nodes, with full jitter
// (Brooker, "Exponential Backoff And Jitter"); the first try of another node is immediate.
func backoff(attempt, nodes int) time.Duration {
	if attempt+1 < nodes {
		return 0
	}
	ceiling := min(firstDelay<<min(attempt+1-nodes, 10), maxDelay)
	return ceiling/4 + rand.N(ceiling)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// doJSON performs a call and reads its answer into out (nil: it has none).
func (c *Client) doJSON(ctx context.Context, k *call, out any) error {
	k.consume = func(resp *http.Response) error {
		if out == nil {
			_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxJSON)) // so that the connection can be used again
			return brokeOff(err)
		}
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxJSON+1))
		if err != nil {
			return brokeOff(err)
		}
		if len(raw) > maxJSON {
			return object.Errorf(object.KindTooLarge, "the answer is larger than %d bytes; if it is a listing, ask for fewer entries at a time", maxJSON)
		}
		if err := json.Unmarshal(raw, out); err != nil {
			return object.Errorf(object.KindInternal, "the server's answer is not understood (is it a bucketdb server of this version?): %w", err)
		}
		return nil
	}
	_, err := c.do(ctx, k)
	return err
}

// brokeOff is the error of an answer that ended early; nil stays nil.
func brokeOff(err error) error {
	if err == nil {
		return nil
	}
	return &object.Error{Kind: object.KindUnavailable, Err: fmt.Errorf("the answer broke off: %w", err)}
}

// withJSON gives a call a JSON body.
func (k *call) withJSON(v any) (*call, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, k.fail(&object.Error{Kind: object.KindInvalid, Err: err})
	}
	k.body = newBytes(raw)
	k.set("Content-Type", "application/json")
	return k, nil
}
