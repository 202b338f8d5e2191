package replication

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// factsFor bounds the question to a node; who takes longer is shown as unreachable.
const factsFor = time.Second

// factSheet is what a node tells others of itself (methodFacts), in JSON, so that nodes of
// different versions understand what both know.
type factSheet struct {
	Incarnation object.UploadID `json:"incarnation"`
	Version     string          `json:"version"`
	Started     time.Time       `json:"started"`
	Ready       bool            `json:"ready"`
	Full        bool            `json:"full"`
	Usage       Usage           `json:"usage"`
	Leads       []leads         `json:"leads"`
	Chunks      ChunkStatus     `json:"chunks"`
}

// leads is a partition that a node leads.
type leads struct {
	Partition object.PartitionID `json:"p"`
	Term      uint64             `json:"t"`
	Applied   uint64             `json:"a"`
}

// facts are those of this node. Without a figure for its disks it is not ready.
func (n *Node) facts(ctx context.Context) factSheet {
	f := factSheet{Incarnation: n.incarnation, Version: version(), Started: n.started, Ready: n.Ready() == nil, Full: n.full.Load(), Chunks: n.ChunkStatus()}
	var err error
	if f.Usage, err = n.Usage(ctx); err != nil {
		n.logged("the disks' usage", err)
		f.Ready = false
	}
	for _, p := range n.parts {
		if r := p.led(); r != nil {
			f.Leads = append(f.Leads, leads{p.id, r.group.Stats().Term, r.machine.Applied()})
		}
	}
	return f
}

// serveFacts answers methodFacts.
func (n *Node) serveFacts(ctx context.Context, _ transport.Peer, _ []byte) ([]byte, error) {
	return json.Marshal(n.facts(ctx))
}

// factsOf asks a node, which may be this one.
func (n *Node) factsOf(ctx context.Context, node string) (f factSheet, err error) {
	if node == n.cfg.NodeID {
		return n.facts(ctx), nil
	}
	ctx, cancel := context.WithTimeout(ctx, factsFor)
	defer cancel()
	b, err := n.net.Call(ctx, node, methodFacts, nil)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, object.Errorf(object.KindVersion, "node %s tells of itself what this one does not understand: run the same version everywhere: %w", node, err)
	}
	return f, nil
}

// heard is what came of asking a node.
type heard struct {
	factSheet
	err error
}

// askAll asks nodes for their facts, at most maxAsks at once.
func (n *Node) askAll(ctx context.Context, nodes []string) map[string]heard {
	var mu sync.Mutex
	out := make(map[string]heard, len(nodes))
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxAsks)
	for _, id := range nodes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f, err := n.factsOf(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			out[id] = heard{f, err}
		})
	}
	wg.Wait()
	return out
}

const maxAsks = 64
