package transport

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// peer is another node, as this one reaches it.
type peer struct {
	n      *Node
	node   string
	ctx    context.Context
	cancel context.CancelFunc

	urgent, bulk, call *lane
	beats              *beats
	slots              chan struct{} // one token for each call under way

	seen atomic.Pointer[Peer] // what it said of itself last
}

func newPeer(n *Node, node string) *peer {
	p := &peer{n: n, node: node, slots: make(chan struct{}, n.opt.MaxCalls)}
	p.ctx, p.cancel = context.WithCancel(n.ctx)
	p.beats = &beats{p: p}
	p.urgent, p.bulk, p.call = newLane(p, roleUrgent), newLane(p, roleBulk), newLane(p, roleCall)
	return p
}

func (p *peer) close() {
	p.cancel()
	p.beats.flush() // tells those that wait
}

func (p *peer) saw(who Peer) { p.seen.Store(&who) }

func (p *peer) lanes() [3]*lane { return [...]*lane{p.urgent, p.bulk, p.call} }

// alive hurries the lanes that wait to dial: the peer has just dialled us.
func (p *peer) alive() {
	for _, l := range p.lanes() {
		l.mu.Lock()
		down := l.state == laneDown
		l.mu.Unlock()
		if down {
			nudge(l.kick)
		}
	}
}

func (n *Node) peerList() []*peer {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Collect(maps.Values(n.peers))
}

// follow has every lane that stands look whether its peer is elsewhere by now, and
// lets go of streams to old addresses that rest.
func (n *Node) follow() {
	peers := n.peerList()
	now := make(map[string]string, len(peers))
	for _, p := range peers {
		addr, err := n.opt.Resolve(p.node)
		if err != nil {
			continue
		}
		now[p.node] = addr
		for _, l := range p.lanes() {
			l.mu.Lock()
			old := l.link != nil && l.link.w.dialled != addr
			l.mu.Unlock()
			if old {
				nudge(l.look)
			}
		}
	}
	for _, w := range n.wires() {
		if !w.bulk || w.dialled == "" { // of others the peer may not be known yet
			continue
		}
		if addr, ok := now[w.peer.Node]; ok && w.dialled != addr {
			n.HTTPClient(w.peer.Node).CloseIdleConnections() // those in use are seen again
		}
	}
}

// PeerStatus is what this node knows of its connections to another.
type PeerStatus struct {
	Node    string
	Address string // as the node last said itself; "" unknown
	Up      bool   // at least one connection to it stands
	Err     error  // why it is down; nil while it is up, or not needed
	Heard   time.Time
}

// Peers is the status of every node that this one has talked to.
func (n *Node) Peers() []PeerStatus {
	peers := n.peerList()
	out := make([]PeerStatus, 0, len(peers))
	for _, p := range peers {
		s := PeerStatus{Node: p.node}
		if who := p.seen.Load(); who != nil {
			s.Address = who.Address
		}
		for _, l := range p.lanes() {
			l.mu.Lock()
			if l.link != nil {
				s.Up = true
				if heard := n.opened.Add(time.Duration(l.link.w.heard.Load())); heard.After(s.Heard) {
					s.Heard = heard
				}
			} else if l.err != nil {
				s.Err = l.err
			}
			l.mu.Unlock()
		}
		if s.Up {
			s.Err = nil
		}
		out = append(out, s)
	}
	return out
}
