package group_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// network connects the wires of a test. A message from or to a replica that is cut
// off is lost; one from or to a replica that is paused waits until it goes on.
type network struct {
	mu     sync.Mutex
	wires  map[raft.ServerAddress]*wire
	cut    map[raft.ServerAddress]chan struct{} // closed when it is cut off no more
	paused map[raft.ServerAddress]chan struct{}
	delay  time.Duration // at most; random, so that messages overtake each other
}

func newNetwork() *network {
	return &network{wires: map[raft.ServerAddress]*wire{}, cut: map[raft.ServerAddress]chan struct{}{}, paused: map[raft.ServerAddress]chan struct{}{}}
}

var errCut = errors.New("the network is cut")

// pass is the way of one message.
func (n *network) pass(from, to raft.ServerAddress, closed <-chan struct{}) error {
	n.mu.Lock()
	delay := n.delay
	n.mu.Unlock()
	if delay > 0 {
		<-time.After(rand.N(delay))
	}
	for {
		n.mu.Lock()
		cut, hold := first(n.cut[from], n.cut[to]), first(n.paused[from], n.paused[to])
		n.mu.Unlock()
		if cut != nil {
			return errCut
		}
		if hold == nil {
			return nil
		}
		select {
		case <-hold:
		case <-closed:
			return errCut
		}
	}
}

func first(a, b chan struct{}) chan struct{} {
	if a != nil {
		return a
	}
	return b
}

// connected waits for a connection, as the real transport does for appends: raft
// itself would come back only after up to 10 s.
func (n *network) connected(from, to raft.ServerAddress, closed <-chan struct{}) {
	end := time.After(2 * time.Minute)
	for {
		n.mu.Lock()
		cut := first(n.cut[from], n.cut[to])
		n.mu.Unlock()
		if cut == nil {
			return
		}
		select {
		case <-cut:
		case <-closed:
			return
		case <-end:
			return
		}
	}
}

func (n *network) setCut(a raft.ServerAddress, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch was := n.cut[a]; {
	case cut && was == nil:
		n.cut[a] = make(chan struct{})
	case !cut && was != nil:
		close(was)
		delete(n.cut, a)
	}
}

func (n *network) pause(a raft.ServerAddress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paused[a] = make(chan struct{})
}

func (n *network) resume(a raft.ServerAddress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.paused[a])
	delete(n.paused, a)
}

// wire is a transport over raft's in-memory one.
type wire struct {
	*raft.InmemTransport
	net  *network
	self raft.ServerAddress

	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	fast      func(raft.RPC) // a heartbeat handler, which must never come
	probes    int
	told      uint64 // the highest commit index of a probe
	handed    int    // leaderships
	snapshots int
}

// plug gives an address a new wire: requests to it that nobody took are gone.
func (n *network) plug(a raft.ServerAddress) *wire {
	_, t := raft.NewInmemTransportWithTimeout(a, 2*time.Second)
	w := &wire{InmemTransport: t, net: n, self: a, closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires[a] = w
	for b, other := range n.wires {
		t.Connect(b, other.InmemTransport)
		other.Connect(a, t)
	}
	return w
}

func (w *wire) SetHeartbeatHandler(h func(raft.RPC)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fast = h
}

// Close ends all calls.
func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.InmemTransport.Close()
}

// call is a request and its answer, each on its way through the network. It ends
// when either end is closed, as a connection does; do may then go on alone.
func (w *wire) call(to raft.ServerAddress, do func() error) error {
	if err := w.net.pass(w.self, to, w.closed); err != nil {
		return err
	}
	w.net.mu.Lock()
	peer := w.net.wires[to]
	w.net.mu.Unlock()
	if peer == nil {
		return errCut
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-peer.closed:
		return errCut
	case <-w.closed:
		return errCut
	}
	return w.net.pass(to, w.self, w.closed)
}

func (w *wire) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	w.net.connected(w.self, to, w.closed)
	r := new(raft.AppendEntriesResponse)
	err := w.call(to, func() error { return w.InmemTransport.AppendEntries(id, to, args, r) })
	if err == nil {
		*resp = *r
	}
	return err
}

// Probe is group.Prober's.
func (w *wire) Probe(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	w.mu.Lock()
	w.probes++
	w.told = max(w.told, args.LeaderCommitIndex)
	w.mu.Unlock()
	plain := *args
	plain.LeaderCommitIndex = 0 // it names no entry to compare, as the real one does
	return w.AppendEntries(id, to, &plain, resp)
}

func (w *wire) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return w.call(to, func() error { return w.InmemTransport.RequestVote(id, to, args, resp) })
}

func (w *wire) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return w.call(to, func() error { return w.InmemTransport.RequestPreVote(id, to, args, resp) })
}

func (w *wire) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	w.mu.Lock()
	w.handed++
	w.mu.Unlock()
	return w.call(to, func() error { return w.InmemTransport.TimeoutNow(id, to, args, resp) })
}

func (w *wire) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	w.mu.Lock()
	w.snapshots++
	w.mu.Unlock()
	w.net.connected(w.self, to, w.closed)
	// After a timeout raft closes data, while the receiver still reads.
	piped, in := io.Pipe()
	var copying sync.WaitGroup
	copying.Go(func() {
		_, err := io.Copy(in, &cuttable{data, w, to})
		in.CloseWithError(err)
	})
	defer copying.Wait()
	defer piped.Close()
	return w.call(to, func() error { return w.InmemTransport.InstallSnapshot(id, to, args, resp, piped) })
}

// cuttable is a stream that ends when the network is cut.
type cuttable struct {
	io.Reader
	w  *wire
	to raft.ServerAddress
}

func (c *cuttable) Read(p []byte) (int, error) {
	if err := c.w.net.pass(c.w.self, c.to, c.w.closed); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// AppendEntriesPipeline sends one request after the other, and lets raft go on meanwhile.
func (w *wire) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &pipe{w: w, id: id, to: to, queue: make(chan *piped, 2), done: make(chan raft.AppendFuture, 2), end: make(chan struct{})}
	go p.run()
	return p, nil
}

type pipe struct {
	w     *wire
	id    raft.ServerID
	to    raft.ServerAddress
	queue chan *piped
	done  chan raft.AppendFuture
	end   chan struct{}
	once  sync.Once
}

type piped struct {
	args  *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	start time.Time
	err   error
	ready chan struct{}
}

func (f *piped) Error() error                          { <-f.ready; return f.err }
func (f *piped) Start() time.Time                      { return f.start }
func (f *piped) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *piped) Response() *raft.AppendEntriesResponse { return f.resp }

func (p *pipe) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f := &piped{args: args, resp: resp, start: time.Now(), ready: make(chan struct{})}
	select {
	case p.queue <- f:
		return f, nil
	case <-p.end:
		return nil, raft.ErrPipelineShutdown
	}
}

func (p *pipe) run() {
	for {
		select {
		case f := <-p.queue:
			if f.err = p.w.AppendEntries(p.id, p.to, f.args, f.resp); f.err != nil {
				f.resp.Success = false
			}
			close(f.ready)
			select {
			case p.done <- f:
			case <-p.end:
				return
			}
		case <-p.end:
			return
		}
	}
}

func (p *pipe) Consumer() <-chan raft.AppendFuture { return p.done }

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.end) })
	return nil
}
