package steward

import (
	"maps"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Book is where the nodes are, for transport.Options.Resolve: from the control state, from what
// nodes say of themselves before that is committed, and from what was kept at the
// last start. Safe for concurrent use.
type Book struct {
	mu sync.Mutex // guards m; a leaf
	m  map[control.NodeID]place
}

// place is one node's address. What it said of itself counts until the state has another than it had then.
type place struct{ state, said string }

func (p place) addr() string {
	if p.said != "" {
		return p.said
	}
	return p.state
}

// NewBook makes an empty book.
func NewBook() *Book { return &Book{m: map[control.NodeID]place{}} }

// Resolve is transport.Options.Resolve.
func (b *Book) Resolve(node string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.m[control.NodeID(node)].addr(); a != "" {
		return a, nil
	}
	return "", object.Errorf(object.KindUnavailable, "the address of node %s is not known here yet", node)
}

// say notes where a node says that it is.
func (b *Book) say(node control.NodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.m[node]
	if p.said = addr; addr == p.state {
		p.said = ""
	}
	b.m[node] = p
}

// adopt notes where the control state says that a node is.
func (b *Book) adopt(node control.NodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.m[node]; p.state != addr {
		b.m[node] = place{state: addr}
	}
}

// addresses are all that are known.
func (b *Book) addresses() map[control.NodeID]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := map[control.NodeID]string{}
	for node, p := range maps.All(b.m) {
		list[node] = p.addr()
	}
	return list
}
