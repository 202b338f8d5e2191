// Package group runs one partition's Raft group: it wraps hashicorp/raft over
// the shared write-ahead log and a state machine that keeps its own disk.
//
// DESIGN.md beside this file has its rules and what was measured.
package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

const (
	// MaxEntry is the largest command, in bytes: what a transport can carry.
	MaxEntry = 15 << 20

	// DefaultMaxInflight is how many proposals of one group may be under way.
	DefaultMaxInflight = 512

	// drainTimeout is how long Close waits for proposals under way.
	drainTimeout = 2 * time.Second
)

// Entry is one committed command. Data may be shared with the log's cache: do
// not change it, and do not keep it after Apply.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// StateMachine is what the log drives. It keeps its state durable by itself.
type StateMachine interface {
	// Apply applies committed entries in order, each with an index above
	// Applied, and gives one result for each. The applied index is stored in the
	// same batch as the effects. It is deterministic, and called from one
	// goroutine. An error means the state could not be stored: it stops the
	// group for good (until a restart replays the log).
	Apply(entries []Entry) ([]any, error)
	// Applied is the index of the last entry applied.
	Applied() uint64
	// Durable is the highest index, at most Applied, up to which everything
	// survives a power cut without the log.
	Durable() uint64
}

// Imager is a StateMachine whose state can be sent to another replica. A group
// with a Transport needs one.
type Imager interface {
	StateMachine
	// Image opens the state of one moment, while Apply goes on.
	Image() (*Image, error)
	// Restore replaces the state by what another replica's Image gave. Until all of
	// it is stored Applied must say less than the image's index (0, or what it was),
	// also after a crash in the middle; then it is the image's. It need not be durable
	// yet. Apply is not called meanwhile.
	Restore(ctx context.Context, r io.Reader) error
}

// Image is a copy of a machine's state. Data has exactly Size bytes; who opened
// it closes it.
type Image struct {
	Applied uint64
	Size    int64
	Data    io.ReadCloser
}

// Member is a replica of a group.
type Member struct {
	ID      string // never used again
	Address string // where the transport finds it
	Voter   bool
}

// Config says what a Group is made of.
type Config struct {
	ID      object.PartitionID
	Node    string // the replica's id; never reused after its log was lost
	Address string // where the others reach it; "" for a group of one: Node

	Log     *wal.Group
	Machine StateMachine // an Imager, with a Transport

	// Transport reaches the other replicas. The Group closes it when it stops, if it
	// has a Close (raft.WithClose), which must end the calls under way: raft waits
	// for them. Nil suits a group whose only voter is this node.
	Transport Peers
	// Dir holds what the replica keeps beside its log: its id, and a state that it
	// receives. Groups of one node may share it. Needed with a Transport.
	Dir string
	FS  vfs.FS // nil: vfs.OS()

	// Bootstrap makes an empty log that of a new group with the voters Members
	// (none: only this replica). Every one of them may do so, with the same list.
	Bootstrap bool
	Members   []Member
	// Join opens an empty log of a replica that a leader will add. Bootstrap and
	// Join mean nothing to a replica that has run before.
	Join bool

	Logger *slog.Logger
	// OnLeader, if set, is called one at a time when this node has become ready
	// to lead (everything before is applied), and when it no longer is.
	OnLeader func(leader bool, term uint64)
	// OnMembers, if set, is called in order for every committed list of members
	// that comes by, some perhaps again after a start. It must not block. A replica
	// that is not on the list must be closed and destroyed.
	OnMembers func(index uint64, members []Member)
	// OnRestore, if set, is called after the machine's state was replaced by a
	// leader's: what was remembered of it is void. It must not block.
	OnRestore func(applied uint64)
	// MaxInflight bounds the proposals under way; 0: DefaultMaxInflight.
	MaxInflight int
}

func (c *Config) complete() error {
	_, images := c.Machine.(Imager)
	switch {
	case c.Node == "" || c.Log == nil || c.Machine == nil:
		return object.Errorf(object.KindInvalid, "a raft group needs a node id, a log and a state machine")
	case c.MaxInflight < 0:
		return object.Errorf(object.KindInvalid, "a raft group cannot have %d proposals in flight", c.MaxInflight)
	case strings.ContainsRune(c.Node, headerMark):
		return object.Errorf(object.KindInvalid, "a replica id cannot contain a zero byte")
	case c.Transport != nil && (c.Dir == "" || !images):
		return object.Errorf(object.KindInvalid, "a raft group of several needs a directory, and a state machine that can be copied")
	}
	if c.Transport != nil {
		c.Address = string(c.Transport.LocalAddr())
	}
	if c.Address == "" {
		c.Address = c.Node
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.MaxInflight == 0 {
		c.MaxInflight = DefaultMaxInflight
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("component", "raft", "partition", uint16(c.ID))
	return nil
}

// Group is one partition's Raft group on this node. Safe for concurrent use.
//
// Lock order: life, compactMu, then the others, which are leaves.
type Group struct {
	cfg      Config
	log      *slog.Logger
	reads    reads
	peers    peers
	progress progress
	changing turn

	life    sync.Mutex               // held while raft is stopped, replaced or started
	current atomic.Pointer[instance] // raft; a stopped one while a state is restored

	failure atomic.Pointer[object.Error] // why the group stopped by itself
	ready   atomic.Uint64                // the term in which this node leads and has applied all before

	mu      sync.Mutex    // guards changed
	changed chan struct{} // closed and replaced whenever leadership may have changed

	compactMu  sync.Mutex // one compaction at a time; guards keep
	keep       trailing
	compacting atomic.Bool
	receiving  sync.Mutex // one state is received at a time

	background sync.WaitGroup
	ctx        context.Context // ends when the group stops: a restore is given up
	cancel     context.CancelFunc
	closing    chan struct{} // closed when Close begins
	stopped    chan struct{} // closed when raft has stopped: no future resolves any more
	stuck      chan struct{} // closed when a goroutine of raft has been parked for good: see park
	closeOnce  sync.Once
	stopOnce   sync.Once
	stuckOnce  sync.Once
}

// Open starts the group from its log and its machine's state; a state that was
// being restored is restored first. Errors: KindCorrupt when log and state do not
// belong together or this replica has lost what it had promised to others (its
// error says what to do), KindInvalid for a Config that makes no group.
func Open(cfg Config) (*Group, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	g := &Group{
		cfg: cfg, log: cfg.Logger,
		changed: make(chan struct{}), closing: make(chan struct{}),
		stopped: make(chan struct{}), stuck: make(chan struct{}),
		changing: turn{token: make(chan struct{}, 1)},
		keep:     trailing{several: trailingOfSeveral, lagging: trailingForLagging, image: trailingForImage},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.open(); err != nil {
		g.cancel()
		return nil, object.WithOp(err, fmt.Sprintf("open partition %d", cfg.ID), "", "")
	}
	return g, nil
}

func (g *Group) open() error {
	if err := claim(g.cfg); err != nil {
		return err
	}
	if err := g.finishRestore(); err != nil {
		return err
	}
	snap, err := check(g.cfg)
	if err != nil {
		return err
	}
	if err := g.start(snap); err != nil {
		return err
	}
	if g.cfg.Transport != nil {
		g.background.Go(g.pump)
	}
	if g.sole() {
		g.now().campaign()
	}
	return nil
}

// sole reports whether this node is the only voter, counting configurations
// that are not committed yet.
func (g *Group) sole() bool { return onlyVoter(g.servers(), g.cfg.Node) }

func onlyVoter(servers []raft.Server, node string) bool {
	voters, self := 0, false
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
			self = self || s.ID == raft.ServerID(node)
		}
	}
	return voters == 1 && self
}

// alone reports whether no other replica can have been elected while this one leads: it is
// the only voter of the newest committed list that came by. It is sole without asking raft.
//
// The list in force may be the next one already, or the one after that? A next one adds a
// voter, and its majority of two needs this replica's vote, which ends its leadership first. The one after
// that begins only when the next one has come by here: who leads lets changes of members
// begin one after the other (turn), each settled behind its StoreConfiguration.
func (g *Group) alone() bool { return g.now().fsm.lone.Load() }

// servers is the newest configuration, which may not be committed yet.
func (g *Group) servers() []raft.Server {
	return g.now().GetConfiguration().Configuration().Servers
}

// Stats are gauges of a group.
type Stats struct {
	State                    string // "Leader", "Follower", "Candidate", "Restoring", "Shutdown"
	Leader                   string // node id, "" when unknown
	Term                     uint64
	FirstIndex, LastIndex    uint64 // of the log; FirstIndex 0: empty
	Committed                uint64
	Applied, Durable         uint64 // of the state machine
	Inflight, InflightLimit  int
	SnapshotIndex, ReadyTerm uint64
}

// Stats returns the gauges.
func (g *Group) Stats() Stats {
	leader, _ := g.Leader()
	r := g.now()
	first, _ := g.cfg.Log.FirstIndex() // cannot fail: the index is in memory
	snap, _, _ := g.cfg.Log.Snapshot()
	return Stats{
		State: g.state(r), Leader: leader, Term: r.CurrentTerm(),
		FirstIndex: first, LastIndex: r.LastIndex(), Committed: r.CommitIndex(),
		Applied: g.cfg.Machine.Applied(), Durable: g.cfg.Machine.Durable(),
		Inflight: len(r.slots), InflightLimit: cap(r.slots), SnapshotIndex: snap, ReadyTerm: g.ready.Load(),
	}
}

// state names what an instance does. One that has stopped, while the group has
// not, makes room for a state that a leader has sent.
func (g *Group) state(i *instance) string {
	s := i.State()
	select {
	case <-i.done: // whatever raft says: its main loop may have had the last word
		s = raft.Shutdown
	default:
	}
	if s == raft.Shutdown && g.err() == nil {
		return "Restoring"
	}
	return s.String()
}

// ID is the partition's number.
func (g *Group) ID() object.PartitionID { return g.cfg.ID }

// Fail stops the group for good, as an error of its machine does: it steps down
// and every later call fails with err. For a node whose log has failed.
func (g *Group) Fail(err error) {
	e := &object.Error{Kind: object.KindUnavailable, Err: fmt.Errorf(
		"partition %d stopped; check this node's disk, then restart it: %w", g.cfg.ID, err)}
	if !g.failure.CompareAndSwap(nil, e) {
		return
	}
	g.log.Error("the partition stopped", "error", err)
	g.notify()
	// Not from here: raft waits for the goroutine that applies.
	go g.stop()
}

// Failure is why the group stopped by itself, nil while it has not.
func (g *Group) Failure() error {
	if e := g.failure.Load(); e != nil {
		return e
	}
	return nil
}

// err is why nothing goes any more, nil while the group runs.
func (g *Group) err() error {
	if e := g.failure.Load(); e != nil {
		return e
	}
	select {
	case <-g.closing:
		return object.Errorf(object.KindUnavailable, "partition %d is shutting down", g.cfg.ID)
	default:
		return nil
	}
}

// stop ends raft, and with it every wait for a future.
func (g *Group) stop() error {
	var err error
	g.stopOnce.Do(func() {
		g.cancel()
		if t, ok := g.cfg.Transport.(raft.WithClose); ok {
			err = t.Close() // first: raft waits for its calls
		}
		g.life.Lock()
		defer g.life.Unlock()
		err = errors.Join(err, g.halt(g.now()))
		close(g.stopped)
		g.notify()
	})
	return err
}

// Close refuses new proposals, lets those under way finish for a moment, and
// stops. The log and the machine stay open: they are the caller's.
func (g *Group) Close() error {
	var err error
	g.closeOnce.Do(func() {
		close(g.closing)
		g.drain(g.now())
		err = g.stop()
		g.background.Wait()
	})
	<-g.stopped
	return err
}

// drain takes every slot, so that no proposal is under way or can start.
func (g *Group) drain(r *instance) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	for range cap(r.slots) {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return
		case <-r.done:
			return
		}
	}
}
