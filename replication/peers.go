package replication

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What nodes tell each other of themselves: that the disk of their metadata is down to its
// reserve, so that nobody who leads a partition of theirs takes what grows; and what time it
// is. Nothing that is decided between nodes compares clocks, but times of files do.

const (
	// peersEvery is how often nodes tell each other what time it is. Full disks are told
	// every spaceEvery, and believed for fullFor without another word.
	peersEvery = time.Minute
	fullFor    = 5 * spaceEvery
	// peerWait bounds one such exchange.
	peerWait = 2 * time.Second
	// maxSkew is how far the clock of another node may be off before somebody is told.
	maxSkew = 5 * time.Second
)

// peerNews is what a node says of itself.
type peerNews struct {
	Full bool  `cbor:"1,keyasint"` // its metadata's disk is at its reserve
	Now  int64 `cbor:"2,keyasint"` // ns since 1970
}

// peers is what other nodes said of themselves. Safe for concurrent use.
type peers struct {
	some atomic.Bool // full may not be empty

	mu     sync.Mutex // guards what follows
	full   map[string]time.Time
	skew   map[string]time.Duration // how far their clocks are ahead of this node's
	warned map[string]bool
}

// now is the time of this node's clock, which may be wrong.
func (n *Node) now() time.Time {
	if n.cfg.clock != nil {
		return n.cfg.clock()
	}
	return time.Now()
}

func (n *Node) news() peerNews { return peerNews{Full: n.full.Load(), Now: n.now().UnixNano()} }

// servePeer hears what a node says of itself, and answers with the same.
func (n *Node) servePeer(_ context.Context, from transport.Peer, request []byte) ([]byte, error) {
	said, err := decodeNews(request)
	if err != nil {
		return nil, err
	}
	n.peers.isFull(from.Node, said.Full)
	return cbor.Marshal(n.news())
}

func decodeNews(b []byte) (p peerNews, err error) {
	if err = cbor.Unmarshal(b, &p); err != nil {
		return p, object.Errorf(object.KindInvalid, "what a node says of itself cannot be read: %w", err)
	}
	return p, nil
}

// tellPeers exchanges news with every other node. Who does not answer hears it next time.
func (n *Node) tellPeers() {
	s := n.state.Load()
	if s == nil || n.cfg.Peer == "" {
		return
	}
	n.peers.forget(s)
	var all sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range s.Nodes {
		if id := string(s.Nodes[i].ID); id != n.cfg.NodeID && s.Nodes[i].Life != control.NodeRemoved {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				n.tellPeer(id)
			})
		}
	}
	all.Wait()
}

func (n *Node) tellPeer(id string) {
	ctx, cancel := context.WithTimeout(n.ctx, peerWait)
	defer cancel()
	b, err := cbor.Marshal(n.news())
	if err != nil {
		return
	}
	began, at := time.Now(), n.now()
	if b, err = n.net.Call(ctx, id, methodPeer, b); err != nil {
		return // whoever needs the node says so
	}
	said, err := decodeNews(b)
	if err != nil {
		n.logged("news of node "+id, err)
		return
	}
	took := time.Since(began)
	n.peers.isFull(id, said.Full)
	// Its clock was read at some moment within the call.
	ahead := time.Unix(0, said.Now).Sub(at.Add(took / 2))
	switch off, news := n.peers.clock(id, ahead, took/2); {
	case off && news:
		n.log.Warn("the clock of another node, or of this one, is wrong: times of files and sessions will be; set them by NTP", "node", id, "ahead", ahead.Round(time.Millisecond))
	case news:
		n.log.Info("the clock of another node agrees with this one's again", "node", id)
	}
}

// isFull notes whether a node's disk is at its reserve.
func (p *peers) isFull(node string, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !full {
		delete(p.full, node)
	} else {
		if p.full == nil {
			p.full = map[string]time.Time{}
		}
		p.full[node] = time.Now().Add(fullFor)
	}
	p.some.Store(len(p.full) > 0)
}

// fullAt reports whether a node said lately that its disk is at its reserve.
func (p *peers) fullAt(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, said := p.full[node]
	return said && time.Now().Before(until)
}

// clock notes how far a node's clock is ahead, known to within give. news: whether that
// is too far has changed since it was told.
func (p *peers) clock(node string, ahead, give time.Duration) (off, news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.skew == nil {
		p.skew, p.warned = map[string]time.Duration{}, map[string]bool{}
	}
	p.skew[node] = ahead
	off = ahead.Abs() > maxSkew+give
	news = off != p.warned[node]
	p.warned[node] = off
	return off, news
}

// worst is the greatest difference between this node's clock and another's.
func (p *peers) worst() (d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ahead := range p.skew {
		d = max(d, ahead.Abs())
	}
	return d
}

// forget drops nodes that were removed.
func (p *peers) forget(s *control.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node := range p.skew {
		if x := s.Node(control.NodeID(node)); x == nil || x.Life == control.NodeRemoved {
			delete(p.skew, node)
			delete(p.warned, node)
			delete(p.full, node)
		}
	}
}

// watchPeers tells the others when this disk fills, again and again while it is full,
// and now and then what time it is.
func (n *Node) watchPeers() {
	told, at := false, time.Time{}
	n.every(spaceEvery, func() {
		if full := n.full.Load(); full || full != told || time.Since(at) >= peersEvery {
			told, at = full, time.Now()
			n.tellPeers()
		}
	})
}

// fullVoter is a node whose full disk keeps a partition from growing; "" if none does. A
// voter that cannot apply an entry would be lost: who leads asks for all of them.
func (n *Node) fullVoter(id object.PartitionID) string {
	if n.full.Load() {
		return n.cfg.NodeID
	}
	if !n.peers.some.Load() || int(id) >= len(n.parts) {
		return ""
	}
	r := n.parts[id].here.Load()
	if r == nil {
		return ""
	}
	for _, m := range r.group.Members() {
		replica, err := control.ParseReplicaID(m.ID)
		if err == nil && m.Voter && n.peers.fullAt(string(replica.Node)) {
			return string(replica.Node)
		}
	}
	return ""
}

func (n *Node) errFull(node string) error {
	if node == n.cfg.NodeID {
		return object.Errorf(object.KindNoSpace, "the disk of %s is nearly full (less than %d MiB are free): free some space there", n.cfg.MetadataPath, n.cfg.MetadataReserve>>20)
	}
	return object.Errorf(object.KindNoSpace, "the disk with the metadata of node %s, which keeps these names as well, is nearly full: free some space there", node)
}

// admit judges an entry at the leader, whoever proposes it: full disks take nothing that
// grows.
func (n *Node) admit(_ context.Context, id object.PartitionID, entry []byte) error {
	who := n.fullVoter(id)
	if who == "" {
		return nil
	}
	cmd, err := namespace.DecodeCommand(entry)
	if err == nil && cmd.Grows() {
		return n.errFull(who)
	}
	return nil
}
