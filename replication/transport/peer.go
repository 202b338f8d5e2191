package transport

import (
	"context"
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

// alive hurries the lanes that wait to dial: the peer has just dialled us.
func (p *peer) alive() {
	for _, l := range []*lane{p.urgent, p.bulk, p.call} {
		l.mu.Lock()
		down := l.state == laneDown
		l.mu.Unlock()
		if down {
			nudge(l.kick)
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
	n.mu.RLock()
	peers := make([]*peer, 0, len(n.peers))
	for _, p := range n.peers {
		peers = append(peers, p)
	}
	n.mu.RUnlock()
	out := make([]PeerStatus, 0, len(peers))
	for _, p := range peers {
		s := PeerStatus{Node: p.node}
		if who := p.seen.Load(); who != nil {
			s.Address = who.Address
		}
		for _, l := range []*lane{p.urgent, p.bulk, p.call} {
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
