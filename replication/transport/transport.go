// Package transport is how nodes talk to each other: one listener per node,
// authenticated and encrypted from the cluster's secret, that carries the raft
// messages of all groups, calls, and bulk data.
//
// DESIGN.md beside this file has the protocol, and what a lost connection means
// at each point.
package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// MaxCall is the largest request or answer of a Call, in bytes.
	MaxCall = 4 << 20
	// MaxEntry is the largest raft entry that can be sent to another replica, in bytes.
	MaxEntry = limitBulk - 1<<20

	// DefaultMaxInflight is how many AppendEntries of one group to one peer may be
	// unanswered; see hashicorp/raft#541 for why it is small.
	DefaultMaxInflight = 2
	// DefaultBeatWindow is how long heartbeats gather at most. raft sends one to each
	// follower every 100 to 200 ms and one more window, and calls for an election after
	// a second without.
	DefaultBeatWindow = 100 * time.Millisecond
	// DefaultMaxCalls is how many calls to one peer may be unanswered.
	DefaultMaxCalls = 512
	// DefaultSnapshotRate is how many bytes of raft's snapshots a node sends in a second.
	DefaultSnapshotRate = 64 << 20

	tickEvery = time.Second
)

// The versions of the protocol that this build speaks.
const (
	MinVersion = 1
	MaxVersion = 1
)

// Peer is the other end of a connection, as authenticated.
type Peer struct {
	Cluster string // "": it belongs to no cluster yet (a guest)
	Node    string
	Address string // where it says that it can be reached; not verified
}

// Options say who this node is.
type Options struct {
	Cluster string // the cluster's id; "" until the node has joined (see SetCluster)
	Node    string // this node's id, up to 64 of [A-Za-z0-9._-], never reused
	// Advertise is where others reach this node, host:port; they are told when a
	// connection is made.
	Advertise string
	Release   string // of the program, for messages about versions

	// Secrets are trusted; the first is used for connections that this node
	// makes. None: plain TCP, between loopback addresses only.
	Secrets []Secret
	// Resolve gives a node's present address, host:port. It is asked at each dial and
	// once a second for each peer, by many goroutines, and must not block. When its
	// answer changes, connections to the new address take the place of the old ones.
	Resolve func(node string) (string, error)

	Logger *slog.Logger
	// Now is the clock for certificates; nil: time.Now.
	Now func() time.Time

	MaxInflight int           // 0: DefaultMaxInflight
	BeatWindow  time.Duration // 0: DefaultBeatWindow
	MaxCalls    int           // 0: DefaultMaxCalls
	// SnapshotRate bounds the raft snapshots that this node sends, in bytes a second,
	// all together; 0: DefaultSnapshotRate. See SetSnapshotRate.
	SnapshotRate int64

	// Versions of the protocol that are spoken, the lowest and the highest; zero: this
	// build's, MinVersion and MaxVersion. Others are for tests of mixed clusters.
	Versions [2]uint64
}

func (o *Options) complete() error {
	id := regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	switch {
	case !id.MatchString(o.Node):
		return object.Errorf(object.KindInvalid, "%q is not a node id: use 1 to 64 letters, digits, dots, dashes and underscores", o.Node)
	case o.Cluster != "" && !id.MatchString(o.Cluster):
		return object.Errorf(object.KindInvalid, "%q is not a cluster id: use 1 to 64 letters, digits, dots, dashes and underscores", o.Cluster)
	case o.MaxInflight < 0 || o.BeatWindow < 0 || o.MaxCalls < 0 || o.SnapshotRate < 0:
		return object.Errorf(object.KindInvalid, "a limit of the transport is negative")
	}
	if o.Resolve == nil {
		o.Resolve = func(node string) (string, error) {
			return "", object.Errorf(object.KindUnavailable, "the address of node %s is not known", node)
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("component", "transport")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxInflight == 0 {
		o.MaxInflight = DefaultMaxInflight
	}
	if o.BeatWindow == 0 {
		o.BeatWindow = DefaultBeatWindow
	}
	if o.MaxCalls == 0 {
		o.MaxCalls = DefaultMaxCalls
	}
	if o.SnapshotRate == 0 {
		o.SnapshotRate = DefaultSnapshotRate
	}
	if o.Versions == [2]uint64{} {
		o.Versions = [2]uint64{MinVersion, MaxVersion}
	}
	return nil
}

// Node is one node's end of all its connections. Safe for concurrent use.
type Node struct {
	opt Options
	log *slog.Logger
	id  *identity

	opened time.Time
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	http        *http.Server
	httpIn      *connQueue
	httpHandler *atomic.Pointer[http.Handler]
	inbound     atomic.Int64 // bytes of raft requests not handled yet
	beatDue     atomic.Bool  // a timer sends what heartbeats have gathered
	forged      logged       // raft requests in another node's name
	pace        *pace        // of the snapshots that are sent
	refused     atomic.Int64 // the clock when a refused connection was last logged

	handshakes chan struct{} // one token for each connection not authenticated yet

	// mu guards what follows. It is a leaf: nothing is called with it held.
	mu        sync.RWMutex
	closed    bool
	listeners []net.Listener
	peers     map[string]*peer
	groups    map[object.PartitionID]*Group
	calls     map[uint16]method
	conns     map[*wire]struct{}
	clients   map[string]*http.Client
}

// Open makes a Node that can reach others. Listen makes it reachable.
func Open(opt Options) (*Node, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	id, err := newIdentity(opt.Node, opt.Cluster, opt.Now, opt.Secrets)
	if err != nil {
		return nil, err
	}
	n := &Node{
		opt: opt, log: opt.Logger, id: id, opened: time.Now(),
		handshakes: make(chan struct{}, 256),
		peers:      map[string]*peer{}, groups: map[object.PartitionID]*Group{},
		calls: map[uint16]method{}, conns: map[*wire]struct{}{}, clients: map[string]*http.Client{},
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.pace = newPace(opt.SnapshotRate)
	n.startHTTP()
	n.tasks.Go(n.tick)
	return n, nil
}

// clock is nanoseconds since the node was opened, never 0: unlike the wall clock it never jumps.
func (n *Node) clock() int64 { return int64(time.Since(n.opened)) + 1 }

// tick looks after all connections once a second.
func (n *Node) tick() {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			now := n.clock()
			for _, w := range n.wires() {
				w.tick(now)
			}
			n.follow()
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) wires() []*wire {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([]*wire, 0, len(n.conns))
	for w := range n.conns {
		out = append(out, w)
	}
	return out
}

// register makes a connection known until it closes; it reports false when the
// node has closed, or the secret the connection stands under was dropped.
func (n *Node) register(w *wire) bool {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return false
	}
	n.conns[w] = struct{}{}
	n.mu.Unlock()
	// After it is in the table: SetSecrets sees it there, or we see the new set.
	if n.id.trusts(w.under) {
		return true
	}
	n.unregister(w)
	return false
}

func (n *Node) unregister(w *wire) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, w)
}

// SetSecrets replaces the trusted secrets; the first is used from now on for the
// connections this node makes: those under another, still trusted one are replaced
// while they go on. Connections under a secret that is no longer trusted end at
// once. A node cannot change between some and none.
func (n *Node) SetSecrets(secrets ...Secret) error {
	if (len(secrets) == 0) != (len(n.id.names()) == 0) {
		return object.Errorf(object.KindInvalid, "a running node cannot begin or stop using a cluster secret; restart it")
	}
	if err := n.id.setSecrets(secrets); err != nil {
		return err
	}
	for _, w := range n.wires() {
		if !n.id.trusts(w.under) {
			w.Close()
		}
	}
	for _, p := range n.peerList() {
		for _, l := range p.lanes() {
			nudge(l.look)
		}
	}
	return nil
}

// SetCluster names the cluster that this node has joined. Its connections are
// made anew.
func (n *Node) SetCluster(cluster string) error {
	check := Options{Node: n.opt.Node, Cluster: cluster}
	if err := check.complete(); err != nil || cluster == "" {
		return errors.Join(object.Errorf(object.KindInvalid, "%q is not a cluster id", cluster), err)
	}
	if was := n.id.clusterID(); was == cluster {
		return nil
	} else if was != "" {
		return object.Errorf(object.KindInvalid, "this node belongs to cluster %s already; give it an empty data directory to join another", was)
	}
	n.id.setCluster(cluster)
	for _, w := range n.wires() {
		w.Close()
	}
	return nil
}

// SetFormer names the ids that the cluster had before it was recovered: nodes that still
// are in one of them are refused with KindPermission and ErrLeftOut, and told why.
func (n *Node) SetFormer(clusters []string) { n.id.setFormer(clusters) }

// peer finds or makes the peer with this id.
func (n *Node) peer(node string) (*peer, error) {
	n.mu.RLock()
	p := n.peers[node]
	n.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed()
	}
	if n.peers[node] == nil {
		n.peers[node] = newPeer(n, node)
	}
	return n.peers[node], nil
}

// Forget drops the connections to a node that has left the cluster. Using it
// again starts afresh.
func (n *Node) Forget(node string) {
	n.mu.Lock()
	p, client := n.peers[node], n.clients[node]
	delete(n.peers, node)
	delete(n.clients, node)
	n.mu.Unlock()
	if p != nil {
		p.close()
	}
	if client != nil {
		client.CloseIdleConnections()
	}
}

// Close ends every connection and wait. Handlers see their contexts end and are
// waited for.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	listeners, groups, clients := n.listeners, n.groups, n.clients
	n.clients = map[string]*http.Client{}
	n.groups = map[object.PartitionID]*Group{}
	n.mu.Unlock()
	n.cancel()
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	for _, g := range groups {
		errs = append(errs, g.Close())
	}
	errs = append(errs, n.http.Close(), n.httpIn.Close())
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	for _, w := range n.wires() {
		w.Close()
	}
	n.tasks.Wait()
	return errors.Join(errs...)
}

func errClosed() error {
	return object.Errorf(object.KindUnavailable, "this node is shutting down")
}
