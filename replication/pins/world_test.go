package pins

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// period is the lease period of a world, in its time.
const period = time.Hour

var errCut = errors.New("no way there")

// world is some nodes with one partition, clocks of their own, links that can be
// cut, and a leader; everything happens when the test says so.
type world struct {
	mu     sync.Mutex // guards what follows
	now    time.Duration
	leader int // the one that was elected last
	term   uint64
	cut    map[[2]int]bool // from, to
	nodes  []*wnode

	// between is called between any two steps of a protocol; nil: nothing happens.
	between func()
}

type wnode struct {
	w      *world
	i      int
	rate   float64 // of its clock
	offset time.Duration
	behind bool // it takes led for the leader
	led    int
	t      *Table
}

func newWorld(nodes int) *world {
	w := &world{term: 1, cut: map[[2]int]bool{}}
	for i := range nodes {
		n := &wnode{w: w, i: i, rate: 1, offset: time.Duration(i+1) * time.Hour}
		w.nodes = append(w.nodes, n)
	}
	for _, n := range w.nodes {
		n.boot()
	}
	return w
}

// boot starts a node's process, with nothing in memory.
func (n *wnode) boot() {
	t, err := New(Options{Node: name(n.i), Period: period, Partitions: 1, Clock: n.clock, Call: n.call, serial: true,
		Leader: func(object.PartitionID) (string, bool) {
			n.w.mu.Lock()
			defer n.w.mu.Unlock()
			if n.behind {
				return name(n.led), true
			}
			return name(n.w.leader), true
		},
		Leads: n.leads})
	if err != nil {
		panic(err)
	}
	n.t = t
}

func name(i int) string { return fmt.Sprintf("n%d", i) }

func (n *wnode) part() *Partition { return n.t.Partition(0) }

func (n *wnode) clock() time.Duration {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.offset + time.Duration(n.rate*float64(n.w.now))
}

func (w *world) tick(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now += d
}

// elect makes a node the leader; some do not hear of it.
func (w *world) elect(i int, behind func(*wnode) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.behind = behind(n); n.behind {
			n.led = w.leader
		}
	}
	w.leader = i
	w.term++
}

func (w *world) step() {
	if w.between != nil {
		w.between()
	}
}

// leads judges by the moment it is called, and answers a little later.
func (n *wnode) leads(context.Context, object.PartitionID) (uint64, error) {
	n.w.mu.Lock()
	leads, term := n.w.leader == n.i, n.w.term
	n.w.mu.Unlock()
	n.w.step()
	if !leads {
		return 0, object.Errorf(object.KindUnavailable, "another leads")
	}
	return term, nil
}

func (w *world) isCut(from, to int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]int{from, to}]
}

func (w *world) setCut(from, to int, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[[2]int{from, to}] = cut
}

// isolate cuts a node off from all others, or brings it back.
func (w *world) isolate(i int, cut bool) {
	for j := range w.nodes {
		if j != i {
			w.setCut(i, j, cut)
			w.setCut(j, i, cut)
		}
	}
}

func (n *wnode) call(ctx context.Context, node string, m uint16, req []byte) ([]byte, error) {
	w, to := n.w, -1
	for i := range w.nodes {
		if name(i) == node {
			to = i
		}
	}
	w.step()
	if w.isCut(n.i, to) {
		return nil, errCut
	}
	t, from := w.nodes[to].t, transport.Peer{Node: name(n.i)}
	handle := t.HandlePins
	if m == MethodLease {
		handle = t.HandleLease
	}
	answer, err := handle(ctx, from, req)
	w.step()
	if w.isCut(to, n.i) {
		return nil, errCut
	}
	return answer, err
}
