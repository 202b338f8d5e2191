package steward

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// askFor bounds a question to a node.
const askFor = 2 * time.Second

// serveReport tells another node of this one.
func (s *Steward) serveReport(ctx context.Context, _ transport.Peer, _ []byte) ([]byte, error) {
	if !s.serving() {
		return nil, errStarting(s.cfg.Self.Node)
	}
	st, err := s.cfg.State(ctx, false)
	if err != nil {
		st = nil // the records themselves are told all the same
	}
	r := report{Incarnation: s.cfg.Self.Incarnation, Epoch: s.cfg.Adopted(), Verified: s.cfg.Verified()}
	for key, held := range s.replicas.held(st) {
		r.Replicas = append(r.Replicas, heldReport{Partition: key.Partition, Generation: key.Generation, Held: held})
	}
	slices.SortFunc(r.Replicas, func(a, b heldReport) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Generation, b.Generation))
	})
	s.mu.Lock()
	for p, g := range s.seen {
		r.Groups = append(r.Groups, reportOf(p, g))
	}
	s.mu.Unlock()
	return encode(&r)
}

// serveCreate makes a replica here that a partition's leader asks for.
func (s *Steward) serveCreate(ctx context.Context, _ transport.Peer, request []byte) ([]byte, error) {
	c, err := decodeCreate(request)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Node != s.cfg.Self.Node:
		return nil, object.Errorf(object.KindInvalid, "a replica of node %s cannot be made on node %s", c.Node, s.cfg.Self.Node)
	case !s.serving():
		return nil, errStarting(s.cfg.Self.Node)
	}
	if err := s.replicas.create(ctx, c.Partition, c.Generation); err != nil {
		return nil, err
	}
	s.Wake()
	return nil, nil
}

// serving reports whether the replicas were resumed, and the node is not closing.
func (s *Steward) serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running && !s.closed
}

func errStarting(id control.NodeID) error {
	return object.Errorf(object.KindUnavailable, "node %s is starting, or shutting down: try again", id)
}

// ask asks nodes for their reports, each one at a time, and not more often than said.
// It waits a moment for the answers; later ones begin a round if they are news.
func (s *Steward) ask(nodes map[control.NodeID]time.Duration) {
	answers := make(chan struct{}, len(nodes))
	under := 0
	for node, every := range nodes {
		if !s.watch.begin(node, every) {
			continue
		}
		under++
		s.tasks.Go(func() {
			r, err := s.askNode(node)
			if err != nil && s.ctx.Err() == nil {
				s.complain.warn("ask "+string(node), "a node does not answer", err, "node", string(node))
			}
			if s.watch.end(node, r) {
				s.Wake()
			}
			answers <- struct{}{}
		})
	}
	t := time.NewTimer(s.cfg.Pause)
	defer t.Stop()
	for range under {
		select {
		case <-answers:
		case <-t.C:
			return
		}
	}
}

func (s *Steward) askNode(node control.NodeID) (*report, error) {
	ctx, cancel := context.WithTimeout(s.ctx, askFor)
	defer cancel()
	b, err := s.cfg.Transport.Call(ctx, string(node), MethodReport, nil)
	if err != nil {
		return nil, err
	}
	return decodeReport(b)
}
