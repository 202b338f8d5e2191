// Package group runs one partition's Raft group: it wraps hashicorp/raft over
// the shared write-ahead log and a state machine that keeps its own disk.
//
// DESIGN.md beside this file has its rules and what was measured.
package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Raft's timing, as measured in RAFT.md.
const (
	heartbeatTimeout = time.Second
	commitTimeout    = 500 * time.Millisecond
	maxAppendEntries = 64

	// raftVersion is the version of raft's own protocol.
	raftVersion = 3

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

// Config says what a Group is made of.
type Config struct {
	ID      object.PartitionID
	Node    string // the replica's id; never reused after its log was lost
	Address string // where the others reach it; "" for a group of one: Node

	Log     *wal.Group
	Machine StateMachine

	// Transport reaches the other replicas. Nil suits a group whose only voter
	// is this node, and lets it elect itself at once.
	Transport raft.Transport
	// Bootstrap makes an empty log that of a new group with Node as its only voter.
	Bootstrap bool

	Logger *slog.Logger
	// OnLeader, if set, is called one at a time when this node has become ready
	// to lead (everything before is applied), and when it no longer is.
	OnLeader func(leader bool, term uint64)
	// MaxInflight bounds the proposals under way; 0: DefaultMaxInflight.
	MaxInflight int
}

func (c *Config) complete() error {
	switch {
	case c.Node == "" || c.Log == nil || c.Machine == nil:
		return object.Errorf(object.KindInvalid, "a raft group needs a node id, a log and a state machine")
	case c.MaxInflight < 0:
		return object.Errorf(object.KindInvalid, "a raft group cannot have %d proposals in flight", c.MaxInflight)
	}
	if c.Address == "" {
		c.Address = c.Node
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
type Group struct {
	cfg  Config
	log  *slog.Logger
	raft *raft.Raft
	fsm  *fsm

	slots chan struct{} // one token for each proposal under way

	failure atomic.Pointer[object.Error] // why the group stopped by itself
	ready   atomic.Uint64                // the term in which this node leads and has applied all before

	mu      sync.Mutex    // guards changed
	changed chan struct{} // closed and replaced whenever leadership may have changed

	compactMu  sync.Mutex // one compaction at a time
	compacting atomic.Bool

	background sync.WaitGroup
	closing    chan struct{} // closed when Close begins
	stopped    chan struct{} // closed when raft has stopped: no future resolves any more
	stuck      chan struct{} // closed when raft's main loop has been parked for good: see park
	stuckOnce  sync.Once
	made       chan struct{} // closed once raft is there, or never will be
	closeOnce  sync.Once
	stopOnce   sync.Once
}

// Open starts the group from its log and its machine's state. Errors:
// KindCorrupt when log and state do not belong together (one of them was lost
// or replaced), KindInvalid for a Config that makes no group.
func Open(cfg Config) (*Group, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	snap, err := check(cfg)
	if err != nil {
		return nil, object.WithOp(err, fmt.Sprintf("open partition %d", cfg.ID), "", "")
	}
	g := &Group{
		cfg: cfg, log: cfg.Logger,
		slots:   make(chan struct{}, cfg.MaxInflight),
		changed: make(chan struct{}), closing: make(chan struct{}),
		stopped: make(chan struct{}), stuck: make(chan struct{}), made: make(chan struct{}),
	}
	g.fsm = newFSM(g, snap)
	if err := g.start(); err != nil {
		return nil, object.WithOp(err, fmt.Sprintf("open partition %d", cfg.ID), "", "")
	}
	return g, nil
}

func (g *Group) start() error {
	trans := g.cfg.Transport
	var own *raft.InmemTransport
	if trans == nil {
		_, own = raft.NewInmemTransport(raft.ServerAddress(g.cfg.Address))
		trans = own
	}
	made := sync.OnceFunc(func() { close(g.made) })
	defer made()
	r, err := raft.NewRaft(raftConfig(g.cfg), g.fsm, logs{g.cfg.Log, g}, stable{g.cfg.Log, g}, snapshots{g.cfg.Log}, trans)
	if err != nil {
		return err
	}
	g.raft = r
	made()
	observed := make(chan raft.Observation, 1)
	r.RegisterObserver(raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, is := o.Data.(raft.LeaderObservation)
		return is
	}))
	g.background.Go(func() { g.watch(observed) })
	if own != nil && g.sole() {
		if err := electSelf(g.cfg, own); err != nil {
			return errors.Join(fmt.Errorf("starting the election: %w", err), g.Close())
		}
	}
	return nil
}

func raftConfig(cfg Config) *raft.Config {
	c := raft.DefaultConfig()
	c.ProtocolVersion = raftVersion
	c.LocalID = raft.ServerID(cfg.Node)
	c.HeartbeatTimeout = heartbeatTimeout
	c.ElectionTimeout = heartbeatTimeout
	c.LeaderLeaseTimeout = heartbeatTimeout
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = maxAppendEntries
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.NoSnapshotRestoreOnStart = true
	c.NoLegacyTelemetry = true
	// Compact records snapshots; raft must never start one by itself.
	c.SnapshotInterval = 24 * time.Hour
	c.SnapshotThreshold = math.MaxUint64
	c.Logger = newRaftLog(cfg.Logger)
	return c
}

// electSelf spares a group of one the wait for a heartbeat that cannot come: it
// tells it, as an outgoing leader would, to stand for election now.
func electSelf(cfg Config, own *raft.InmemTransport) error {
	_, caller := raft.NewInmemTransportWithTimeout("", heartbeatTimeout)
	caller.Connect(own.LocalAddr(), own)
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raftVersion}}
	return caller.TimeoutNow(raft.ServerID(cfg.Node), own.LocalAddr(), req, &raft.TimeoutNowResponse{})
}

// sole reports whether this node is the only voter, counting configurations
// that are not committed yet.
func (g *Group) sole() bool {
	voters, self := 0, false
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
			self = self || s.ID == raft.ServerID(g.cfg.Node)
		}
	}
	return voters == 1 && self
}

// Stats are gauges of a group.
type Stats struct {
	State                    string // "Leader", "Follower", "Candidate", "Shutdown"
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
	first, _ := g.cfg.Log.FirstIndex() // cannot fail: the index is in memory
	snap, _, _ := g.cfg.Log.Snapshot()
	return Stats{
		State: g.raft.State().String(), Leader: leader, Term: g.raft.CurrentTerm(),
		FirstIndex: first, LastIndex: g.raft.LastIndex(), Committed: g.raft.CommitIndex(),
		Applied: g.cfg.Machine.Applied(), Durable: g.cfg.Machine.Durable(),
		Inflight: len(g.slots), InflightLimit: cap(g.slots), SnapshotIndex: snap, ReadyTerm: g.ready.Load(),
	}
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
	// Not from here: raft waits for the goroutine that applies, and may only be
	// about to be made (it replays the log before NewRaft returns).
	go func() {
		<-g.made
		if g.raft != nil {
			g.stop()
		}
	}()
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
		future, ended := g.raft.Shutdown(), make(chan error, 1)
		go func() { ended <- future.Error() }()
		select {
		case err = <-ended:
		case <-g.stuck: // it will not end; all but its main loop has
		}
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
		g.drain()
		err = g.stop()
		g.background.Wait()
	})
	<-g.stopped
	return err
}

// drain takes every slot, so that no proposal is under way or can start.
func (g *Group) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	for range cap(g.slots) {
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			return
		case <-g.stopped:
			return
		}
	}
}
