package steward_test

import (
	"context"
	"path/filepath"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

func (p *process) Open(_ context.Context, id object.PartitionID, replicaID control.ReplicaID, how steward.Start) (steward.Group, error) {
	if err := p.pass("open"); err != nil {
		return nil, err
	}
	r := &replica{p: p, id: replicaID.String(), m: &machine{Partition: p.db.Partition(id), applied: func() {
		if id == object.Control && p.steward != nil {
			p.steward.Wake()
		}
	}}}
	w := p.wires.open(id)
	g, err := group.Open(group.Config{
		ID: id, Node: r.id, Log: p.log.Group(id), Machine: r.m, Transport: w, Dir: filepath.Join(p.n.dir, "groups"),
		Bootstrap: how == steward.Bootstrap, Join: how == steward.Join, Members: []group.Member{{ID: r.id, Address: p.n.id, Voter: true}},
		OnLeader:  func(bool, uint64) { p.steward.Wake() },
		OnMembers: func(uint64, []group.Member) { p.steward.Wake() },
	})
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	r.Group = g
	p.mu.Lock()
	p.open[id] = r
	p.mu.Unlock()
	if how == steward.Bootstrap {
		if err := g.WaitReady(p.ctx); err != nil {
			return nil, err
		}
	}
	return r, p.pass("opened")
}

func (p *process) Close(id object.PartitionID, replicaID control.ReplicaID) error {
	if err := p.pass("close"); err != nil {
		return err
	}
	p.mu.Lock()
	r := p.open[id]
	delete(p.open, id)
	p.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.Group.Close()
}

func (p *process) Drop(ctx context.Context, id object.PartitionID, replicaID control.ReplicaID) error {
	if err := p.pass("drop"); err != nil {
		return err
	}
	err := group.Destroy(ctx, vfs.OS(), filepath.Join(p.n.dir, "groups"), p.log.Group(id), id, func(ctx context.Context) error {
		if err := p.db.Partition(id).DropAll(ctx); err != nil {
			return err
		}
		return p.pass("dropped the state")
	})
	if err != nil {
		return err
	}
	return p.pass("dropped")
}

func (p *process) replica(id object.PartitionID) *replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[id]
}

func (r *replica) on(what string, change func() error) error {
	err := r.p.pass(what)
	if err == nil {
		err = change()
	}
	if err == nil {
		err = r.p.pass(what + " done")
	}
	return err
}

func (r *replica) AddNonvoter(ctx context.Context, id, address string, on steward.Basis) error {
	return r.on("add", func() error { return r.Group.AddNonvoter(ctx, id, address, on) })
}

func (r *replica) Promote(ctx context.Context, id string, on steward.Basis) error {
	return r.on("promote", func() error { return r.Group.Promote(ctx, id, on) })
}

func (r *replica) Demote(ctx context.Context, id string, on steward.Basis) error {
	return r.on("demote", func() error { return r.Group.Demote(ctx, id, on) })
}

func (r *replica) Remove(ctx context.Context, id string, on steward.Basis) error {
	return r.on("remove", func() error { return r.Group.Remove(ctx, id, on) })
}

func (r *replica) TransferLeadership(ctx context.Context, to string) error {
	if err := r.p.pass("transfer"); err != nil {
		return err
	}
	return r.Group.TransferLeadership(ctx, to)
}
