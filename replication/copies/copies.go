// Package copies keeps each chunk at several nodes, as copies or as Reed-Solomon
// shards: a put is acknowledged when a quorum of the holders has it durably, a
// read takes the nearest good copy and hedges. DESIGN.md beside this file has the
// protocol and what a crash at each step leaves.
package copies

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Chunk is a chunk as its extent names it.
type Chunk struct {
	ID     object.ChunkID
	SHA256 [32]byte // of its bytes
	Length int64    // its bytes
	Scheme Scheme
}

// keptLength is how many bytes each holder keeps of it; 0 where that is not known.
func (c Chunk) keptLength() int64 {
	return (c.Length + int64(c.Scheme.Data) - 1) / int64(c.Scheme.Data)
}

// Options of a Store. All but Newer, Live, Missed, Logger, Stall and RepairRate are required.
type Options struct {
	Self  string
	Local *chunk.Store
	// Locate is where a chunk belongs under the newest map that this node has
	// adopted; KindUnavailable while it has none. It must not block.
	Locate func(object.ChunkID, Scheme) (placement.Site, error)
	// Client is the client for bulk streams to another node's Handler, as
	// transport.Node.HTTPClient gives it.
	Client func(node string) *http.Client
	// Newer waits until this node has adopted a map of at least that epoch; nil:
	// a stale map ends the call with KindUnavailable.
	Newer func(ctx context.Context, epoch uint64) error
	// Live asks the leader of a chunk's owner whether the chunk is referenced, for
	// Repair; nil: every chunk is.
	Live func(context.Context, object.ChunkID) (bool, error)
	// Missed, where set, hears of a holder that lacks a chunk or has a bad one.
	// It must not block. Run mends it; this is for counting and showing.
	Missed func(c Chunk, node string, why error)
	Logger *slog.Logger
	// Stall is how long a holder may make no progress at all before it counts as
	// failed; 0 is DefaultStall.
	Stall time.Duration
	// RepairRate is how many bytes a second Run repairs; 0 is DefaultRepairRate.
	RepairRate int64
	// Late bounds the bytes of puts that have their quorum, and whose pieces slower
	// holders still read, half of it for each holder; 0 is DefaultLate. It is memory
	// of the callers', which have to do with the rest of what they have.
	Late int64
}

// Defaults of Options.
const (
	DefaultStall      = 10 * time.Second
	DefaultRepairRate = 32 << 20
	DefaultLate       = 64 << 20
)

// Bounds of memory, in bytes unless said otherwise.
const (
	serveBytes   = 192 << 20 // uploads of other nodes; at most chunk.MaxLength of one
	localBytes   = 64 << 20  // our own puts that are inside our own disks, hung ones included
	codeBytes    = 256 << 20 // encoded shards, and shards gathered for a rebuild
	localReads   = 256       // reads inside our own disks, a frame each
	serveReads   = 512       // reads of other nodes, a frame each
	peerReads    = 192       // of one node
	attemptBound = 2 * time.Minute
)

// Store is a node's view of all chunks. It is safe for concurrent use. Close it
// before the local store; Run its repairs in a goroutine.
type Store struct {
	o      Options
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	late   *budget
	served *budget
	gets   *budget
	local  *semaphore.Weighted // bytes
	reads  *semaphore.Weighted
	code   *semaphore.Weighted // bytes
	frames sync.Pool           // *[]byte of one frame

	lastPut atomic.Int64 // when our disks finished one, in ms since 1970

	speed  speeds
	codecs codecs
	hints  *hints
	mends  mends
	pace   *Pacer // of repairs
	stats  counters

	mu     sync.Mutex // guards what follows
	closed bool
	tasks  sync.WaitGroup // Add under mu while not closed
}

// New makes a Store. A wrong set of Options is KindInvalid.
func New(o Options) (*Store, error) {
	if o.Self == "" || o.Local == nil || o.Locate == nil || o.Client == nil || o.Stall < 0 || o.RepairRate < 0 || o.Late < 0 {
		return nil, object.Errorf(object.KindInvalid, "copies needs a node id, a chunk store, a map and a client, and no negative limits")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Stall == 0 {
		o.Stall = DefaultStall
	}
	if o.RepairRate == 0 {
		o.RepairRate = DefaultRepairRate
	}
	if o.Late == 0 {
		o.Late = DefaultLate
	}
	if o.Live == nil {
		o.Live = func(context.Context, object.ChunkID) (bool, error) { return true, nil }
	}
	s := &Store{
		o: o, log: o.Logger.With("component", "copies"),
		late:   newBudget(o.Late, max(o.Late/2, 1)),
		served: newBudget(serveBytes, chunk.MaxLength),
		gets:   newBudget(serveReads, peerReads),
		local:  semaphore.NewWeighted(localBytes),
		reads:  semaphore.NewWeighted(localReads),
		code:   semaphore.NewWeighted(codeBytes),
		hints:  newHints(),
		pace:   NewPacer(o.RepairRate),
	}
	s.speed.tokens = hedgeBurst
	s.frames.New = func() any { b := make([]byte, chunk.FrameSize); return &b }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// SetRepairRate changes Options.RepairRate, at once; above 0.
func (s *Store) SetRepairRate(rate int64) { s.pace.SetRate(rate) }

// Close refuses new calls, ends those to other nodes, and waits for everything
// that uses the local store. A disk that hangs in the kernel holds it.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.tasks.Wait()
}

// enter makes Close wait for the caller until it calls tasks.Done.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return object.Errorf(object.KindUnavailable, "this node is shutting down")
	}
	s.tasks.Add(1)
	return nil
}

// background runs fn beside a call that has entered.
func (s *Store) background(fn func()) {
	s.tasks.Add(1)
	go func() {
		defer s.tasks.Done()
		fn()
	}()
}

// bounded is ctx, but ends with the store too.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

type counters struct {
	hedged, rebuilt, lateDropped, missed, repaired, repairFailed, fetched atomic.Int64
}

// Stats are counts since New.
type Stats struct {
	Hedged       int64 // reads that a second holder was asked for because the first was slow
	Rebuilt      int64 // reads of a shard that was computed from others
	LateDropped  int64 // copies cut off after the quorum for want of memory
	Missed       int64 // copies found missing or bad
	Repaired     int64 // copies of this node that Repair made
	Fetched      int64 // bytes that Repair got from other holders
	RepairFailed int64 // reports given up after several tries
	Waiting      int   // reports not dealt with yet
}

// Stats is the counts of now.
func (s *Store) Stats() Stats {
	c := &s.stats
	return Stats{
		Hedged: c.hedged.Load(), Rebuilt: c.rebuilt.Load(), LateDropped: c.lateDropped.Load(), Missed: c.missed.Load(),
		Repaired: c.repaired.Load(), RepairFailed: c.repairFailed.Load(), Fetched: c.fetched.Load(), Waiting: s.hints.waiting(),
	}
}

// missed notes a copy that is missing or bad, and has it mended.
func (s *Store) missed(c Chunk, node string, why error) {
	s.stats.missed.Add(1)
	if s.o.Missed != nil {
		s.o.Missed(c, node, why)
	}
	s.hints.add(hint{chunk: c, node: node})
}
