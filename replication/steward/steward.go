// Package steward carries out what control.Next says: it watches this node and the
// others, and makes the replicas of the cluster's partitions live where the plan has them.
//
// DESIGN.md beside this file has the rounds, the records, and what a crash leaves.
package steward

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

const (
	// DefaultTick is the longest pause between two rounds, and between two
	// questions to a node that is well.
	DefaultTick = 2 * time.Second
	// DefaultPause is the shortest pause between two rounds.
	DefaultPause = 100 * time.Millisecond
	// DefaultUpFor is how long an answer counts as a sign of life.
	DefaultUpFor = 5 * time.Second

	// maxJobs bounds the actions that are done at once.
	maxJobs = 32
)

// Start says what is known of a replica that is opened.
type Start uint8

// The starts.
const (
	Resume    Start = iota + 1 // it ran before: without its log it is lost
	Join                       // it may be new: an empty group that knows no peers
	Bootstrap                  // it may be new: the only voter of a new group
)

// Host is the node whose replicas these are. Calls for one partition come one at a
// time; those for different partitions may come at once. All may be repeated.
type Host interface {
	// Open opens a replica's stores and starts its group; the address of every member
	// is its node's id. KindCorrupt: its log or vote is lost; it is never opened again.
	Open(ctx context.Context, p object.PartitionID, id control.ReplicaID, how Start) (Group, error)
	// Close stops using a replica and stops its group; what is not open is no error.
	Close(p object.PartitionID, id control.ReplicaID) error
	// Drop removes everything of a closed replica: state, files, the log last.
	Drop(ctx context.Context, p object.PartitionID, id control.ReplicaID) error
}

// Group is what the steward needs of a replica's raft group. Safe for concurrent use.
type Group interface {
	// IsLeader reports whether this replica leads, as far as it knows.
	IsLeader() bool
	// Observe tells what the group is: a majority acknowledged something that was sent
	// after the call, and the rest was read after that. The list of members is the newest
	// and committed, and no change of it that this replica has begun can come any more,
	// also none whose outcome was unknown. An error: it cannot be told now.
	Observe(ctx context.Context) (Observation, error)

	// The changes of members are made on that basis or not at all: KindConflict when the
	// newest list or the term is another (the list's index is raft's prevIndex),
	// KindUnavailable when this replica does not lead. KindTimeout: unknown. The context bounds the wait.
	AddNonvoter(ctx context.Context, id, address string, on Basis) error
	Promote(ctx context.Context, id string, on Basis) error
	Demote(ctx context.Context, id string, on Basis) error
	Remove(ctx context.Context, id string, on Basis) error
	// TransferLeadership hands the leadership to a voter.
	TransferLeadership(ctx context.Context, to string) error
}

// Basis and Observation are group's.
type (
	Basis       = group.Basis
	Observation = group.Observation
)

var _ Group = (*group.Group)(nil)

// Config says what a Steward is made of.
type Config struct {
	// Self says who this node is; Incarnation is new with each start.
	Self control.Join
	// Secrets are those the transport was opened with; they are kept with what is joined (SetSecrets).
	Secrets []transport.Secret

	Dir string // where records and identity are kept, beside the store's layout file
	FS  vfs.FS // nil: vfs.OS()

	Host      Host
	Transport *transport.Node
	Book      *Book // the transport's Resolve
	// Seeds are addresses (host:port) that this start was given: asked as well, since all nodes
	// may have moved since this one looked last.
	Seeds []string

	// Propose proposes a command to the control group, through whoever leads it, until
	// ctx ends. All commands may be repeated. The Result's own error is not looked at.
	Propose func(ctx context.Context, c *control.Command) (*control.Result, error)
	// State is the control state: what this node has of it, or, linearizable, one in
	// which everything is that was acknowledged before the call. KindNotFound: this
	// node has none, or there is no cluster yet.
	State func(ctx context.Context, linearizable bool) (*control.State, error)
	// Adopted is the map's epoch that this node has durably adopted for puts; nil: none.
	Adopted func() uint64
	// Copy fetches and verifies what this node lacks of the lists of joint chunk groups; one
	// call at a time. It may return before all of them are verified: it is called again. nil:
	// this node has no chunks, and as the control leader begins no moves of chunk groups.
	Copy func(ctx context.Context, moves []CopyMove) error
	// Verified are the moves whose lists are complete and verified here (control.Observed says
	// what that means). Required with Copy.
	Verified func() []control.GroupKey
	// Waiting is told what Join and Start wait for, and why; nil: nobody asks.
	Waiting func(what string, why error)

	Logger *slog.Logger

	Tick, Pause, UpFor time.Duration // 0: the defaults

	now func() time.Time // for tests; monotonic
}

// CopyMove asks for what a joint chunk group's new holder has to have: the union of
// what at least Lists of the old holders have.
type CopyMove struct {
	Group control.GroupKey
	Lists int
}

func (c *Config) complete() error {
	switch {
	case (c.Copy == nil) != (c.Verified == nil):
		return object.Errorf(object.KindInvalid, "a steward that copies chunk groups needs a way to say which are verified")
	case c.Self.Node == "" || c.Self.Incarnation == control.Incarnation{} || c.Self.Store == control.StoreID{}:
		return object.Errorf(object.KindInvalid, "a steward needs a node id, a store id and an incarnation")
	case c.Dir == "" || c.Host == nil || c.Transport == nil || c.Book == nil || c.Propose == nil || c.State == nil:
		return object.Errorf(object.KindInvalid, "a steward needs a directory, a host, a transport, and ways to the control group")
	case c.Tick < 0 || c.Pause < 0 || c.UpFor < 0:
		return object.Errorf(object.KindInvalid, "a pause of the steward is negative")
	}
	for _, d := range []struct {
		is  *time.Duration
		def time.Duration
	}{{&c.Tick, DefaultTick}, {&c.Pause, DefaultPause}, {&c.UpFor, DefaultUpFor}} {
		if *d.is == 0 {
			*d.is = d.def
		}
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Adopted == nil {
		c.Adopted = func() uint64 { return 0 }
	}
	if c.Waiting == nil {
		c.Waiting = func(string, error) {}
	}
	if c.Verified == nil {
		c.Verified = func() []control.GroupKey { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("component", "steward")
	if c.now == nil {
		c.now = time.Now
	}
	return nil
}

// Steward is one node's. Safe for concurrent use.
//
// Lock order: a partition's turn (replicas), then saving, then mu, then those of records, book and watch, which are leaves.
type Steward struct {
	cfg      Config
	log      *slog.Logger
	replicas *replicas
	watch    *watch
	complain *complaints

	wake   chan struct{} // one token: something has changed
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	slots  chan struct{} // one token for each job under way

	saving   sync.Mutex // held while the identity file is written
	mu       sync.Mutex // guards what follows
	closed   bool
	identity *Identity // nil: of no cluster yet
	running  bool      // the replicas were resumed
	jobs     map[string]bool
	seen     map[object.PartitionID]control.GroupSeen // of the last round, for reports
	terms    map[object.PartitionID]uint64            // in which a group was looked at last, until its actions are done
	kept     map[object.PartitionID]time.Time         // until when a leadership that a person gave stays here
	swept    time.Time                                // when all groups led here were looked at
	failed   bool                                     // a job, since the last round
}

// Open reads what is kept here and answers the calls of others; nothing runs before
// Start. KindCorrupt, KindVersion: the files cannot be used. KindInvalid: they are another node's.
func Open(cfg Config) (*Steward, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	id, err := LoadIdentity(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	if id != nil && (id.Node != cfg.Self.Node || id.Store != cfg.Self.Store) {
		return nil, object.Errorf(object.KindInvalid, "%s is of node %s and another store: start it with -id %s on its own directories, or this node on empty ones", cfg.Dir, id.Node, id.Node)
	}
	rec, err := openRecords(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Steward{
		cfg: cfg, log: cfg.Logger, identity: id, complain: newComplaints(cfg.Logger, cfg.now),
		wake: make(chan struct{}, 1), slots: make(chan struct{}, maxJobs), jobs: map[string]bool{},
		seen: map[object.PartitionID]control.GroupSeen{}, terms: map[object.PartitionID]uint64{}, kept: map[object.PartitionID]time.Time{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.replicas = newReplicas(&s.cfg, rec)
	s.watch = newWatch(cfg.Self.Node, cfg.now, cfg.UpFor, 2*cfg.Tick)
	if id != nil {
		if err := s.SetSecrets(cfg.Secrets); err != nil {
			return nil, err
		}
		for node, addr := range id.Peers {
			cfg.Book.adopt(node, addr)
		}
		cfg.Transport.SetFormer(clusterNames(id.Former))
		if err := cfg.Transport.SetCluster(ClusterName(id.Cluster)); err != nil {
			return nil, err
		}
	}
	cfg.Transport.HandleCall(MethodReport, s.serveReport)
	cfg.Transport.HandleCall(MethodCreate, s.serveCreate)
	cfg.Transport.HandleGuestCall(MethodJoin, s.serveJoin)
	return s, nil
}

// Joined reports whether this store belongs to a cluster already: then Start is
// next, else Bootstrap or Join.
func (s *Steward) Joined() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity != nil && !s.identity.Founding
}

// Wake begins a round soon. Call it when an entry of the control group was
// applied, and when a group's leader or members have changed. It never blocks.
func (s *Steward) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Start opens the replicas that this node has, registers its incarnation, for which it
// waits until ctx ends, and begins the rounds. When it returns nil, the node may
// serve. Errors: KindStale (a later process of this node has started), KindPermission (it
// was removed), KindVersion, KindUnavailable or KindCanceled (ctx ended).
func (s *Steward) Start(ctx context.Context) error {
	if !s.Joined() {
		return object.Errorf(object.KindInvalid, "this store belongs to no cluster yet: bootstrap one, or join one")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	left := make(chan error, 1)
	go func() { left <- s.leftOut(ctx) }()
	s.replicas.resume(ctx)
	if err := <-left; err != nil {
		return err
	}
	s.mu.Lock()
	s.running = true
	s.mu.Unlock()
	if err := s.register(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed()
	}
	s.tasks.Go(s.loop)
	return nil
}

// Close ends the rounds and what is under way, and closes the replicas. The
// transport stays open: it is the caller's, and answers calls with an error.
func (s *Steward) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	if was {
		return nil
	}
	err := s.replicas.close()
	s.tasks.Wait()
	return err
}

func errClosed() error {
	return object.Errorf(object.KindUnavailable, "this node is shutting down: ask another")
}

// Bootstrap makes this node a cluster of one, with generation 0 of every partition;
// b.Node is filled in. It may be repeated, also after a crash in the middle (the cluster keeps
// the id that it got first); Start comes after it. KindExists: the store belongs to another cluster.
func (s *Steward) Bootstrap(ctx context.Context, b control.Bootstrap) error {
	b.Node = s.cfg.Self
	if b.Partitions < 1 || b.Partitions >= object.MaxPartitions {
		return object.Errorf(object.KindInvalid, "%d partitions are not possible: choose 1 to %d", b.Partitions, object.MaxPartitions-1)
	}
	s.mu.Lock()
	was := s.identity
	s.mu.Unlock()
	switch {
	case was != nil && was.Founding:
		b.Cluster = was.Cluster
	case was != nil && was.Cluster != b.Cluster:
		return object.Errorf(object.KindExists, "this node is in cluster %x already: to make another one, start on empty directories", was.Cluster)
	case was != nil:
		return nil
	}
	peers := map[control.NodeID]string{s.cfg.Self.Node: s.cfg.Self.Peer}
	if err := s.belong(b.Cluster, nil, peers, true); err != nil {
		return err
	}
	fresh := map[object.PartitionID]record{}
	for p := range object.PartitionID(b.Partitions + 1) {
		if s.replicas.rec.get(p) == (record{}) {
			fresh[p] = record{0, lifeJoining}
		}
	}
	if err := s.replicas.rec.put(fresh); err != nil {
		return err
	}
	if err := s.replicas.bootstrap(ctx, b.Partitions); err != nil {
		return err
	}
	r, err := s.cfg.Propose(ctx, &control.Command{Bootstrap: &b})
	if err != nil {
		return err
	}
	if err := r.Err(); err != nil {
		return err
	}
	return s.belong(b.Cluster, nil, peers, false)
}

// belong keeps durably what cluster this node is of, and takes its name.
func (s *Steward) belong(cluster control.ClusterID, former []control.ClusterID, peers map[control.NodeID]string, founding bool) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	id := &Identity{Cluster: cluster, Former: former, Node: s.cfg.Self.Node, Store: s.cfg.Self.Store, Secrets: s.cfg.Secrets, Peers: peers, Founding: founding}
	if err := id.save(s.cfg.FS, s.cfg.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	s.identity = id
	s.mu.Unlock()
	for node, addr := range peers {
		s.cfg.Book.adopt(node, addr)
	}
	s.cfg.Transport.SetFormer(clusterNames(former))
	return s.cfg.Transport.SetCluster(ClusterName(cluster))
}

// SetSecrets keeps other secrets with the cluster's name, and no longer those before: what was
// taken out of use shall not stand on the disk, nor be found there again.
func (s *Steward) SetSecrets(secrets []transport.Secret) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.cfg.Secrets = slices.Clone(secrets)
	s.mu.Lock()
	was := s.identity
	s.mu.Unlock()
	if was == nil || slices.Equal(was.Secrets, secrets) {
		return nil
	}
	id := *was
	id.Secrets = s.cfg.Secrets
	if err := id.save(s.cfg.FS, s.cfg.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	s.identity = &id
	s.mu.Unlock()
	return nil
}

// adopt takes the nodes' addresses from the control state, and keeps them for the next start.
func (s *Steward) adopt(st *control.State) error {
	peers := map[control.NodeID]string{}
	for _, n := range st.Nodes {
		if n.Life != control.NodeRemoved {
			s.cfg.Book.adopt(n.ID, n.Peer)
			peers[n.ID] = n.Peer
		}
	}
	s.mu.Lock()
	same := maps.Equal(peers, s.identity.Peers) && slices.Equal(st.Former, s.identity.Former)
	cluster := s.identity.Cluster
	s.mu.Unlock()
	if same {
		return nil
	}
	return s.belong(cluster, st.Former, peers, false)
}
