package api

import (
	"math/rand/v2"
	"net/url"
	"sync"
	"time"
)

const (
	// firstRest is how long an endpoint that did not answer is left alone; each
	// further failure doubles it, up to longestRest.
	firstRest   = time.Second
	longestRest = 30 * time.Second
)

// endpoints are the nodes of a client. Calls stay with one while it answers. One that
// does not rests, and when its rest is over one call tries it, not all. Safe for
// concurrent use.
type endpoints struct {
	urls []*url.URL
	now  func() time.Time // monotonic

	mu      sync.Mutex // guards what follows
	current int        // the one that calls begin with
	state   []rest
	cluster string // that of the first answer
}

// rest is how an endpoint is doing.
type rest struct {
	failures int       // one after the other
	until    time.Time // it is left alone until then, where others are there; zero: it is well
}

func newEndpoints(urls []*url.URL) *endpoints {
	return &endpoints{urls: urls, now: time.Now, state: make([]rest, len(urls))}
}

// of notes the cluster that an answer came from. Of one node alone it is not asked: it may
// be given another store.
func (e *endpoints) of(cluster string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cluster == "" && len(e.urls) > 1 {
		e.cluster = cluster
	}
}

// expected is the cluster that all answers are to come from; "": not known.
func (e *endpoints) expected() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cluster
}

// first is where a call begins.
func (e *endpoints) first() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.resting(e.current) {
		e.current = e.after(e.current)
	}
	return e.taken(e.current)
}

// next is where a call goes on that has just tried at.
func (e *endpoints) next(at int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.taken(e.after(at))
}

// after is the first behind at that does not rest; all do: the one behind it.
func (e *endpoints) after(at int) int {
	for i := range e.urls {
		if k := (at + 1 + i) % len(e.urls); !e.resting(k) {
			return k
		}
	}
	return (at + 1) % len(e.urls)
}

func (e *endpoints) resting(at int) bool { return e.state[at].until.After(e.now()) }

// taken notes that a call tries an endpoint: of one whose rest is over the others
// keep away until it is known how it is.
func (e *endpoints) taken(at int) int {
	if s := &e.state[at]; s.failures > 0 {
		s.until = e.now().Add(pause(s.failures))
	}
	return at
}

// answered notes that an endpoint did what it was asked for: it is the one to begin with.
func (e *endpoints) answered(at int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state[at], e.current = rest{}, at
}

// failed notes that an endpoint gave no answer. Of several calls that find that out
// together, the first counts.
func (e *endpoints) failed(at int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := &e.state[at]; s.failures == 0 || !e.resting(at) {
		s.failures++
		s.until = e.now().Add(pause(s.failures))
	}
	if e.current == at {
		e.current = e.after(at)
	}
}

// pause is the rest after so many failures, with jitter, so that many clients do not
// come back together.
func pause(failures int) time.Duration {
	d := min(firstRest<<min(failures-1, 10), longestRest)
	return d*3/4 + rand.N(d/4)
}

// Endpoint is the address of the node that calls begin with at present. What is kept
// at one node only (what Hold reports) has to be told to another one anew.
func (c *Client) Endpoint() string {
	c.nodes.mu.Lock()
	defer c.nodes.mu.Unlock()
	return c.nodes.urls[c.nodes.current].String()
}
