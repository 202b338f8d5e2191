// Package access reaches partitions wherever their replicas live: a coordinator
// proposes entries to them and opens linearizable views of them, from any node.
//
// DESIGN.md beside this file has the argument.
package access

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/remote"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The methods of the transport that this package serves and calls. The numbers
// cross the wire: never used again for something else.
const (
	MethodPropose uint16 = 0x20
	MethodIndex   uint16 = 0x21
	MethodView    uint16 = 0x22
)

const (
	// DefaultReadWait is how long a node may take to answer a step of a read
	// before another one is asked; each round through the replicas doubles it.
	DefaultReadWait = time.Second
	// DefaultProposeWait is how long one attempt at a proposal may take before its
	// outcome counts as unknown.
	DefaultProposeWait = 10 * time.Second
	// DefaultRepeatWait is the same for the first attempt at a proposal that may be
	// repeated; it doubles with each, up to ProposeWait.
	DefaultRepeatWait = 3 * time.Second
)

// Place is where a replica lives.
type Place struct {
	Replica string // its id in the group
	Node    string // the node that has it
}

// Config says what Partitions are made of.
type Config struct {
	Self      string // this node's id
	Transport *transport.Node

	// Check, if set, judges an entry at the leader before it is proposed there,
	// wherever it came from (a full disk refuses growth). KindUnavailable: another
	// leader may take it; any other error is the answer. It must not block.
	Check func(ctx context.Context, id object.PartitionID, entry []byte) error

	Logger *slog.Logger

	ReadWait    time.Duration // 0: DefaultReadWait
	ProposeWait time.Duration // 0: DefaultProposeWait
	RepeatWait  time.Duration // 0: DefaultRepeatWait
}

func (c *Config) complete() error {
	if c.Self == "" || c.Transport == nil {
		return object.Errorf(object.KindInvalid, "access to partitions needs a node id and a transport")
	}
	if c.ReadWait < 0 || c.ProposeWait < 0 || c.RepeatWait < 0 {
		return object.Errorf(object.KindInvalid, "a wait for a partition is negative")
	}
	for _, d := range []struct {
		wait *time.Duration
		def  time.Duration
	}{{&c.ReadWait, DefaultReadWait}, {&c.ProposeWait, DefaultProposeWait}, {&c.RepeatWait, DefaultRepeatWait}} {
		if *d.wait == 0 {
			*d.wait = d.def
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("component", "access")
	return nil
}

// Partitions are all partitions of the cluster, as seen from this node. Safe for
// concurrent use.
type Partitions struct {
	cfg      Config
	log      *slog.Logger
	views    *remote.Server
	spool    *spool
	suspects suspects
	process  object.UploadID // random: tells views of this process from those before it

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu     sync.RWMutex // guards what follows; above the locks of the partitions
	closed bool
	mapped bool   // a map was given, not only where to ask for one (epoch 0)
	epoch  uint64 // of the map
	parts  map[object.PartitionID]*partition
	tasks  sync.WaitGroup // views elsewhere that are being closed
}

// New makes Partitions and serves this node's replicas to the others. It knows
// none yet: see Attach and Update.
func New(cfg Config) (*Partitions, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	p := &Partitions{cfg: cfg, log: cfg.Logger, spool: newSpool(), parts: map[object.PartitionID]*partition{}}
	rand.Read(p.process[:]) // never fails (crypto/rand)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.views = remote.NewServer(p.openView)
	cfg.Transport.HandleCall(MethodPropose, p.servePropose)
	cfg.Transport.HandleCall(MethodIndex, p.serveIndex)
	cfg.Transport.HandleCall(MethodView, p.serveViews)
	return p, nil
}

// Close refuses everything from now on, ends what others read here, and waits for
// what is under way. Views that were opened here stay the callers'.
func (p *Partitions) Close() {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	var ids []object.PartitionID
	for id := range p.parts {
		ids = append(ids, id)
	}
	p.mu.Unlock()
	if was {
		return
	}
	p.cancel()
	p.views.Close()
	for _, id := range ids {
		p.Detach(id)
	}
	p.spool.close()
	p.tasks.Wait()
}

// Attach makes this node's replica of a partition known. Its group must be open.
func (p *Partitions) Attach(id object.PartitionID, r Replica) error {
	if r.ID == "" || r.Group == nil || r.Machine == nil || r.Group.ID() != id {
		return object.Errorf(object.KindInvalid, "partition %d: a replica needs an id, and the group and machine of that partition", id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed()
	}
	return p.made(id).attach(p.ctx, r)
}

// Detach forgets this node's replica of a partition: nobody uses it any more when
// it returns. What was under way on it ends: proposals as unknown, reads elsewhere.
// Call it before the group is closed.
func (p *Partitions) Detach(id object.PartitionID) {
	p.mu.RLock()
	pt := p.parts[id]
	p.mu.RUnlock()
	if pt != nil {
		pt.detach()
	}
}

// Update takes the map of an epoch: for each partition its replicas that can be
// used, in order of preference; none for one whose replicas are all lost. It reports false,
// and does nothing, for an older epoch than it has. Epoch 0 is no map: it says where one
// may be had, and nothing about the partitions that it leaves out.
func (p *Partitions) Update(epoch uint64, table map[object.PartitionID][]Place) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch < p.epoch {
		return false
	}
	p.mapped, p.epoch = epoch > 0, epoch
	for id, pt := range p.parts {
		if _, ok := table[id]; !ok {
			pt.setPlaces(nil, false)
		}
	}
	for id, places := range table {
		p.made(id).setPlaces(places, true)
	}
	return true
}

// Epoch is that of the map in use; 0 before the first.
func (p *Partitions) Epoch() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.epoch
}

// Leader is the node that leads a partition, as far as this one knows.
func (p *Partitions) Leader(id object.PartitionID) (node string, ok bool) {
	pt, err := p.partition(id)
	if err != nil {
		return "", false
	}
	if l := pt.use(); l != nil {
		leads := l.leads()
		l.uses.Done()
		if leads {
			return p.cfg.Self, true
		}
	}
	node = pt.leaderBut()
	return node, node != ""
}

// FindLeader asks the partition's replicas who leads it, for Leader. KindUnavailable:
// nobody does now, or none can be reached.
func (p *Partitions) FindLeader(ctx context.Context, id object.PartitionID) error {
	pt, err := p.partition(id)
	if err != nil {
		return err
	}
	if node, ok := p.Leader(id); ok && node == p.cfg.Self {
		return nil
	}
	_, err = pt.index.get(ctx, func() (uint64, error) { return p.readIndex(pt) })
	return err
}

// made finds or makes a partition. mu is held.
func (p *Partitions) made(id object.PartitionID) *partition {
	pt := p.parts[id]
	if pt == nil {
		pt = &partition{id: id}
		p.parts[id] = pt
	}
	return pt
}

// partition finds a partition that has a replica somewhere.
func (p *Partitions) partition(id object.PartitionID) (*partition, error) {
	p.mu.RLock()
	pt, mapped, closed := p.parts[id], p.mapped, p.closed
	p.mu.RUnlock()
	switch {
	case closed:
		return nil, errClosed()
	case pt != nil && pt.exists():
		return pt, nil
	case !mapped:
		return nil, object.Errorf(object.KindUnavailable, "this node does not know the cluster's map yet: try again")
	case pt != nil && pt.onMap():
		return nil, object.Errorf(object.KindUnavailable, "partition %d has no replica that can be used now: bring the nodes back that had one (\"bucketdb cluster status\" names them)", id)
	}
	return nil, object.Errorf(object.KindStale, "there is no partition %d", id)
}

func errClosed() error {
	return object.Errorf(object.KindUnavailable, "this node is shutting down: ask another")
}
