package copies

import (
	"context"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// deletesAtOnce bounds the nodes that are told of one deletion side by side.
const deletesAtOnce = 16

// DeleteAll removes chunks, all of one scheme, from all their holders, those of a
// move's new place too. It may be repeated; what is not there is no error. It fails
// when this node's own copies stay. A holder that cannot be reached learns of it
// by its audit, which asks the owner about every chunk: that is no error here.
func (s *Store) DeleteAll(ctx context.Context, scheme Scheme, ids []object.ChunkID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.tasks.Done()
	byNode := map[string][]object.ChunkID{}
	for _, id := range ids {
		p, err := s.locate(id, scheme)
		if err != nil {
			return err
		}
		for _, sp := range p.spots {
			if sp.node != s.o.Self {
				byNode[sp.node] = append(byNode[sp.node], id)
			}
		}
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, deletesAtOnce)
	for node, list := range byNode {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := s.deleteAt(ctx, node, scheme, list); err != nil {
				s.log.Debug("a holder did not delete chunks", "node", node, "chunks", len(list), "err", err)
			}
		})
	}
	// Its own in any case: a holder of an earlier map may still have a copy.
	err := s.deleteHere(ctx, ids)
	all.Wait()
	return err
}

// DeleteHere removes this node's own copies or shards, for the audit of what no
// owner knows: the other holders have their own. It may be repeated.
func (s *Store) DeleteHere(ctx context.Context, ids []object.ChunkID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.tasks.Done()
	return s.deleteHere(ctx, ids)
}

func (s *Store) deleteHere(ctx context.Context, ids []object.ChunkID) error {
	s.mends.mark(ids) // first: a repair that stores one behind our back deletes it again
	return s.o.Local.DeleteAll(ctx, ids)
}
