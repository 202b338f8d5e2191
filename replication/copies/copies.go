// Package copies keeps each chunk on several nodes: a put is acknowledged when a
// quorum of the holders has it durably, a read takes the nearest good copy.
package copies

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Place says where a chunk belongs.
type Place struct {
	Nodes  []string // the holders, in order of preference
	Quorum int      // how many of them a put waits for; at least 1
	Epoch  uint64   // of the map that says so
}

// Options of a Store. All but Logger are required.
type Options struct {
	Self  string
	Local *chunk.Store
	// Place is where a chunk belongs now. It must not block.
	Place func(object.ChunkID) Place
	// Adopt is asked by a holder before it takes a chunk that was placed under an
	// epoch: KindStale when it knows a newer one.
	Adopt func(epoch uint64) error
	// Peer is the client for another node's Handler, and the URL that leads there.
	Peer func(node string) (*http.Client, string)
	// Missed hears of a holder that lacks a chunk, or has a bad one. It must not block.
	Missed func(id object.ChunkID, node string)
	Logger *slog.Logger
}

const (
	// lateTimeout bounds how long the copies beyond the quorum may take.
	lateTimeout = time.Minute
	// lateBytes bounds what copies beyond their quorum hold in memory: what comes
	// on top is left to repair.
	lateBytes = 32 << 20
	// serveBytes bounds what requests of other nodes hold in memory.
	serveBytes = 128 << 20
)

// Store is a node's view of all chunks. It is safe for concurrent use.
type Store struct {
	o     Options
	late  *semaphore.Weighted // bytes
	serve *semaphore.Weighted // bytes
	slow  latencies
}

// New makes a Store.
func New(o Options) *Store {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{o: o, late: semaphore.NewWeighted(lateBytes), serve: semaphore.NewWeighted(serveBytes)}
}

// DeleteAll removes chunks from all their holders. It fails when this node's own
// copies stay. A holder that cannot be reached learns of it by its audit, which
// asks the owner about every chunk: that is no error here.
func (s *Store) DeleteAll(ctx context.Context, ids []object.ChunkID) error {
	byNode := map[string][]object.ChunkID{}
	for _, id := range ids {
		for _, node := range s.o.Place(id).Nodes {
			byNode[node] = append(byNode[node], id)
		}
	}
	// Its own in any case: a holder of an earlier map may still have a copy.
	err := s.o.Local.DeleteAll(ctx, ids)
	for node, list := range byNode {
		if node == s.o.Self {
			continue
		}
		if err := s.deleteAt(ctx, node, list); err != nil {
			s.o.Logger.Debug("a holder did not delete chunks", "node", node, "chunks", len(list), "err", err)
		}
	}
	return err
}
