package replication

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/replication/access"
	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/pins"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// partition is what this node knows of one of the cluster's partitions: as a
// coordinator always, as its replica while it has one.
type partition struct {
	id    object.PartitionID
	pins  *pins.Partition
	dirty chan struct{} // there may be garbage
	// garbage is an index below which there is none: where the reclaimer begins.
	garbage uint64
	here    atomic.Pointer[replica]
	// strayed: there may be strays, rewriting: there may be walks.
	strayed, rewriting atomic.Bool
	recount            atomic.Int64 // when strays are counted again, ns since 1970
	// opening holds a token while the replica's stores are being opened or dropped. An
	// opening that was given up goes on until the disk answers.
	opening chan struct{}
}

// replica is this node's replica of a partition, while it is open.
type replica struct {
	id      control.ReplicaID
	group   *group.Group
	machine *access.Machine
}

func (p *partition) touch() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// stray says that there may be something to rewrite.
func (p *partition) stray() {
	p.strayed.Store(true)
	p.rewriting.Store(true)
}

// led is the replica here while it leads, as far as it knows: what a leader does on
// its own is done there. Else nil.
func (p *partition) led() *replica {
	if r := p.here.Load(); r != nil && r.group.IsLeader() {
		return r
	}
	return nil
}

// host opens and closes this node's replicas for the steward.
type host struct{ n *Node }

// replicasName is the directory of what replicas keep beside their logs.
const replicasName = "replicas"

func (n *Node) replicaPath() string { return filepath.Join(n.cfg.MetadataPath, replicasName) }

// Open implements steward.Host.
func (h host) Open(ctx context.Context, id object.PartitionID, name control.ReplicaID, how steward.Start) (steward.Group, error) {
	g, err := h.open(ctx, id, name, how)
	if err != nil {
		return nil, h.n.unopened(ctx, id, name, err)
	}
	return g, nil
}

func (h host) open(ctx context.Context, id object.PartitionID, name control.ReplicaID, how steward.Start) (steward.Group, error) {
	n := h.n
	p, err := n.partition(id)
	if err != nil {
		return nil, err
	}
	if n.wal.Err() != nil {
		return nil, object.Errorf(object.KindUnavailable, "the write-ahead log failed: check the disk, then restart this node: %w", n.wal.Err())
	}
	if err := n.beginOpening(ctx, p); err != nil {
		return nil, err
	}
	r := &replica{id: name, machine: n.newMachine(p)}
	link, err := n.net.Group(id)
	if err != nil {
		<-p.opening
		return nil, err
	}
	r.group, err = n.openGroup(ctx, group.Config{
		ID: id, Node: name.String(), Address: n.cfg.NodeID, Log: n.wal.Group(id), Machine: r.machine, Transport: link, Dir: n.replicaPath(), FS: n.cfg.FS,
		Bootstrap: how == steward.Bootstrap, Join: how == steward.Join, Logger: n.log,
		OnLeader:  func(leads bool, term uint64) { n.led(p, leads, term) },
		OnMembers: func(uint64, []group.Member) { n.steward.Wake() },
		OnRestore: func(applied uint64) { n.restored(p, applied) },
	}, func() error { defer func() { <-p.opening }(); return link.Close() })
	if err != nil {
		return nil, err
	}
	defer func() { <-p.opening }()
	if err := n.access.Attach(id, access.Replica{ID: name.String(), Group: r.group, Machine: r.machine}); err != nil {
		return nil, errors.Join(err, r.group.Close())
	}
	p.here.Store(r)
	if n.cfg.opened != nil {
		n.cfg.opened(r)
	}
	if id == object.Control {
		n.mapChanged()
	}
	return r.group, nil
}

// Close implements steward.Host.
func (h host) Close(id object.PartitionID, name control.ReplicaID) error {
	p, err := h.n.partition(id)
	if err != nil {
		return err
	}
	r := p.here.Load()
	if r == nil || r.id != name {
		return nil
	}
	h.n.access.Detach(id)
	p.here.Store(nil)
	return r.group.Close()
}

// Drop implements steward.Host.
func (h host) Drop(ctx context.Context, id object.PartitionID, _ control.ReplicaID) error {
	p, err := h.n.partition(id)
	if err != nil {
		return err
	}
	if err := h.n.beginOpening(ctx, p); err != nil { // not while an opening that was given up reads it
		return err
	}
	defer func() { <-p.opening }()
	return group.Destroy(ctx, h.n.cfg.FS, h.n.replicaPath(), h.n.wal.Group(id), id, h.n.meta.Partition(id).DropAll)
}

// newMachine makes the state machine of a replica that is about to be opened.
func (n *Node) newMachine(p *partition) *access.Machine {
	keys, bytes := n.meta.MaxTxn()
	store := n.meta.Partition(p.id)
	n.hub.start(p.id, store.Applied())
	o := namespace.Options{Partition: p.id, Store: store, MaxKeys: keys, MaxBytes: bytes, Logger: n.log,
		OnApply: func(events []namespace.Event, garbage bool) {
			n.hub.publish(p.id, events)
			if garbage {
				p.touch()
			}
		},
		OnStray: p.stray, OnUnlock: n.waiters.freed}
	p.stray() // what was there before
	if p.id == object.Control {
		o.OnControl = n.mapChanged
	}
	return access.NewMachine(o)
}

// led hears that this node leads a partition, or no more. What others need may be
// known to who led before alone, so nothing is reclaimed for a while.
func (n *Node) led(p *partition, leads bool, term uint64) {
	if leads {
		p.pins.Lead(term)
	}
	p.touch()
	n.waiters.ledChanged(p.id)
	n.steward.Wake()
}

// restored hears that a replica's state was replaced by its leader's.
func (n *Node) restored(p *partition, applied uint64) {
	n.hub.gap(p.id, applied)
	p.touch()
	p.stray()
	if p.id == object.Control {
		n.mapChanged()
	}
}
