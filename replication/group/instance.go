package group

import (
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Raft's timing, as measured in RAFT.md.
const (
	heartbeatTimeout = time.Second
	commitTimeout    = 500 * time.Millisecond
	maxAppendEntries = 64

	// raftVersion is the version of raft's own protocol.
	raftVersion = 3
)

// instance is one life of raft: a group gets a new one when its state was
// replaced by a leader's.
type instance struct {
	*raft.Raft
	fsm   *fsm
	link  *link
	rpcs  chan raft.RPC // requests of other replicas; see link
	slots chan struct{} // one token for each proposal under way
	done  chan struct{} // closed when it has stopped: no future of it resolves any more
	told  chan struct{} // closed when OnLeader will not be called for it any more
}

// now is the present instance, which may have stopped.
func (g *Group) now() *instance { return g.current.Load() }

// start starts raft from the snapshot record. life is held, or nobody else is there yet.
func (g *Group) start(snap snapshotRecord) error {
	i := &instance{
		fsm: newFSM(g, snap), rpcs: make(chan raft.RPC),
		slots: make(chan struct{}, g.cfg.MaxInflight), done: make(chan struct{}), told: make(chan struct{}),
	}
	i.link = newLink(g, i.rpcs)
	r, err := g.newRaft(i)
	if err != nil {
		return err
	}
	i.Raft = r
	observed := make(chan raft.Observation, 1)
	r.RegisterObserver(raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, is := o.Data.(raft.LeaderObservation)
		return is
	}))
	before := g.current.Swap(i)
	g.background.Go(func() {
		defer close(i.told)
		if before != nil {
			<-before.told
		}
		g.watch(i, observed)
	})
	g.notify()
	return nil
}

// newRaft is raft.NewRaft, which reads the log from the record on. An error of the
// log stops the group; one that says that the log is damaged keeps its kind.
func (g *Group) newRaft(i *instance) (*raft.Raft, error) {
	var r *raft.Raft
	var err error
	made := make(chan struct{})
	go func() { // logs and stable never return when the disk fails
		defer close(made)
		defer func() {
			if p := recover(); p != nil {
				r, err = nil, object.Errorf(object.KindCorrupt, "raft cannot start from its log (%v); %s", p, readd)
			}
		}()
		r, err = raft.NewRaft(raftConfig(g.cfg), i.fsm, &logs{Group: g.cfg.Log, g: g}, stable{g.cfg.Log, g}, snapshots{g}, i.link)
	}()
	select {
	case <-made:
		if r != nil || err != nil {
			return r, err
		} // it was stuck, and has ended
	case <-g.stuck:
	}
	go func() { // if it was another goroutine that is stuck
		if <-made; r != nil {
			r.Shutdown()
		}
	}()
	if e := g.failure.Load(); e != nil {
		if cause := errors.Unwrap(e.Err); object.IsKind(cause, object.KindCorrupt) {
			return nil, cause
		}
	}
	return nil, g.err()
}

// halt stops an instance; more than once, or of none, does no harm. life is held.
func (g *Group) halt(i *instance) error {
	if i == nil { // the first could not be started
		return nil
	}
	select {
	case <-i.done:
		return nil
	default:
	}
	close(i.link.ending)
	future, ended := i.Shutdown(), make(chan error, 1)
	go func() { ended <- future.Error() }()
	var err error
	select {
	case err = <-ended:
	case <-g.stuck: // it will not end
	}
	i.fsm.retire()
	close(i.done)
	return err
}

// campaign makes the instance stand for election now, as an outgoing leader would
// tell it to: a sole voter need not wait for a heartbeat that cannot come.
func (i *instance) campaign() {
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raftVersion}}
	select {
	case i.rpcs <- raft.RPC{Command: req, RespChan: make(chan raft.RPCResponse, 1)}:
	case <-i.done:
	}
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
