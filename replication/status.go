package replication

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// usageFor bounds the question to the disks: one that hangs in the kernel never answers.
const usageFor = 2 * time.Second

// Usage is the capacity of the disks. KindTimeout: one does not answer. However many ask
// meanwhile, one question is under way.
func (n *Node) Usage(ctx context.Context) (Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, usageFor)
	defer cancel()
	select {
	case r := <-n.asking.DoChan("usage", func() (any, error) { return n.usage() }):
		if r.Err != nil {
			return Usage{}, r.Err
		}
		return r.Val.(Usage), nil
	case <-ctx.Done():
		return Usage{}, object.Errorf(object.KindTimeout, "a disk of the storage paths does not say how full it is: look whether it hangs: %w", ctx.Err())
	}
}

func (n *Node) usage() (Usage, error) {
	disks, err := n.chunks.Usage()
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	seen := map[uint64]bool{}
	for _, d := range disks {
		if seen[d.Device] {
			continue // two paths on one disk
		}
		seen[d.Device] = true
		u.TotalBytes += d.TotalBytes
		u.FreeBytes += d.FreeBytes
		u.TotalInodes += d.TotalInodes
		u.FreeInodes += d.FreeInodes
	}
	return u, nil
}

// Status is a picture of this node.
func (n *Node) Status(ctx context.Context) (Status, error) {
	u, err := n.Usage(ctx)
	if err != nil {
		return Status{}, err
	}
	s := Status{Node: n.cfg.NodeID, Version: version(), Started: n.started, Ready: n.Ready() == nil, Usage: u}
	for _, p := range n.parts {
		r := p.here.Load()
		if r == nil {
			continue // others show it
		}
		leader, _ := r.group.Leader()
		st := r.group.Stats()
		s.Partitions = append(s.Partitions, PartitionStatus{ID: p.id, Leader: leader, Term: st.Term, Applied: r.machine.Applied(), Durable: r.machine.Durable()})
	}
	s.Chunks = n.ChunkStatus()
	n.clusterStatus(&s)
	return s, nil
}

// clusterStatus adds what this node has of the control state, perhaps not the
// newest: a node in trouble shows what it can.
func (n *Node) clusterStatus(s *Status) {
	state := n.state.Load()
	if state == nil {
		return
	}
	o := overviewOf(state, func(id control.NodeID) bool {
		c := state.Node(id)
		return c != nil && !c.Gone && c.Life != control.NodeRemoved
	})
	s.Cluster, s.Epoch, s.Nodes, s.Progress, s.Settings = o.Cluster, o.Epoch, o.Nodes, o.Progress, o.Settings
}

// ClusterID names the cluster that this node belongs to, for as long as it runs.
func (n *Node) ClusterID() string {
	if s := n.state.Load(); s != nil {
		return steward.ClusterName(s.Header.Cluster)
	}
	return ""
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}
