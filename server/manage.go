package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// cluster is GET /cluster. A node that has no map yet shows what it knows of itself.
func (s *Server) cluster(c *gin.Context) error {
	ctx := c.Request.Context()
	st, err := s.node.Status(ctx)
	if err != nil {
		return object.WithOp(err, "cluster", "", "")
	}
	out := api.Cluster{Node: st.Node, Version: st.Version, Started: st.Started, Ready: st.Ready, Usage: usageOf(st.Usage),
		Partitions: make([]api.Partition, len(st.Partitions)), Cluster: st.Cluster, Epoch: st.Epoch, Old: true,
		Nodes: nodesOf(st.Nodes), Progress: progressOf(st.Progress), Settings: settingsOf(st.Settings)}
	for i, p := range st.Partitions {
		out.Partitions[i] = api.Partition{ID: p.ID, Leader: p.Leader, Term: p.Term, Applied: p.Applied, Durable: p.Durable}
	}
	if v, err := s.node.View(ctx); err == nil {
		out.Cluster, out.Epoch, out.Old = v.Cluster, v.Epoch, v.Old
		out.Nodes, out.Progress, out.Settings = nodesOf(v.Nodes), progressOf(v.Progress), settingsOf(v.Settings)
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// clusterNodes is GET /cluster/nodes.
func (s *Server) clusterNodes(c *gin.Context) error {
	v, err := s.node.View(c.Request.Context())
	if err != nil {
		return err
	}
	return s.writeJSON(c, http.StatusOK, api.Nodes{Epoch: v.Epoch, Old: v.Old, Nodes: nodesOf(v.Nodes)})
}

// clusterPartitions is GET /cluster/partitions.
func (s *Server) clusterPartitions(c *gin.Context) error {
	v, err := s.node.View(c.Request.Context())
	if err != nil {
		return err
	}
	out := api.Placement{Epoch: v.Epoch, Old: v.Old, Partitions: make([]api.PlacedPartition, len(v.Partitions)), Groups: make([]api.GroupsOfWidth, len(v.Groups))}
	for i, p := range v.Partitions {
		at := api.PlacedPartition{ID: p.ID, Leader: p.Leader, Term: p.Term, Applied: p.Applied, Since: p.Since,
			Replicas: make([]api.Replica, len(p.Replicas)), Planned: append([]string{}, p.Planned...), Good: p.Good, Wanted: p.Wanted, Settled: p.Settled}
		for k, r := range p.Replicas {
			at.Replicas[k] = api.Replica(r)
		}
		out.Partitions[i] = at
	}
	for i, g := range v.Groups {
		out.Groups[i] = api.GroupsOfWidth(g)
	}
	return s.writeJSON(c, http.StatusOK, out)
}

func nodesOf(list []replication.NodeStatus) []api.ClusterNode {
	out := make([]api.ClusterNode, len(list))
	for i, n := range list {
		out[i] = api.ClusterNode{ID: n.ID, State: n.State, API: n.API, Peer: n.Peer, Zone: n.Zone, Weight: n.Weight, Incarnation: n.Incarnation,
			MinProtocol: n.MinProtocol, MaxProtocol: n.MaxProtocol, Replicas: n.Replicas, PlannedReplicas: n.PlannedReplicas,
			Groups: n.Groups, PlannedGroups: n.PlannedGroups, Empty: n.Empty, Note: n.Note, Reachable: n.Reachable, Error: n.Error,
			Ready: n.Ready, Full: n.Full, Version: n.Version, Started: n.Started, Usage: usageOf(n.Usage), Leads: n.Leads,
			Chunks: api.Chunks(n.Chunks)}
	}
	return out
}

func progressOf(p replication.Progress) api.Progress {
	return api.Progress{Done: p.Done(), Planned: p.Planned, Partitions: p.Partitions, PartitionsLeft: p.PartitionsLeft, UnderReplicated: p.UnderReplicated,
		Leaderless: p.Leaderless, Groups: p.Groups, GroupsLeft: p.GroupsLeft, ShortGroups: p.ShortGroups,
		BytesToGo: p.BytesToGo, ShortChunks: p.ShortChunks, LostChunks: p.LostChunks, ReportsToGo: p.ReportsToGo}
}

func settingsOf(s replication.Settings) api.Settings {
	return api.Settings{RF: s.RF, Voters: s.Voters, GoneAfter: s.GoneAfter.String(), Moves: s.Moves, MovesPerNode: s.MovesPerNode,
		GroupMoves: s.GroupMoves, GroupsPerNode: s.GroupsPerNode, Hold: s.Hold, RepairRate: s.RepairRate, RewriteRate: s.RewriteRate}
}

// settings is GET /cluster/settings.
func (s *Server) settings(c *gin.Context) error {
	now, err := s.node.Settings(c.Request.Context())
	if err != nil {
		return err
	}
	return s.writeJSON(c, http.StatusOK, settingsOf(now))
}

// configure is PATCH /cluster/settings.
func (s *Server) configure(c *gin.Context) error {
	ctx, in, err := steering[api.SettingsChange](c, s)
	if err != nil {
		return err
	}
	var gone time.Duration
	if in.GoneAfter != nil {
		if gone, err = time.ParseDuration(*in.GoneAfter); err != nil {
			return object.Errorf(object.KindInvalid, "gone_after is %q: write a time such as 10m or 90s", *in.GoneAfter)
		}
	}
	now, err := s.node.Configure(ctx, func(to *replication.Settings) {
		for at, v := range map[*int]*int{&to.RF: in.RF, &to.Voters: in.Voters, &to.Moves: in.Moves, &to.MovesPerNode: in.MovesPerNode,
			&to.GroupMoves: in.GroupMoves, &to.GroupsPerNode: in.GroupsPerNode} {
			if v != nil {
				*at = *v
			}
		}
		for at, v := range map[*int64]*int64{&to.RepairRate: in.RepairRate, &to.RewriteRate: in.RewriteRate} {
			if v != nil {
				*at = *v
			}
		}
		if in.GoneAfter != nil {
			to.GoneAfter = gone
		}
		if in.Hold != nil {
			to.Hold = *in.Hold
		}
	})
	if err != nil {
		return err
	}
	return s.writeJSON(c, http.StatusOK, settingsOf(now))
}

// changeNode is PATCH /cluster/nodes/:node.
func (s *Server) changeNode(c *gin.Context) error {
	node, err := decodeName("node's id", c.Param("node"))
	if err != nil {
		return err
	}
	ctx, in, err := steering[api.NodeChange](c, s)
	if err != nil {
		return err
	}
	if in.Weight == nil && in.Zone == nil {
		return object.Errorf(object.KindInvalid, "nothing is to be changed: give weight, zone or both")
	}
	if in.Weight != nil {
		if err := s.node.SetWeight(ctx, node, *in.Weight); err != nil {
			return err
		}
	}
	if in.Zone != nil {
		if err := s.node.SetZone(ctx, node, *in.Zone); err != nil {
			return err
		}
	}
	return s.noContent(c)
}

// drain is POST /cluster/nodes/:node/drain, undrain the DELETE of it, and removeNode
// DELETE /cluster/nodes/:node.
func (s *Server) drain(c *gin.Context) error {
	return s.onNode(c, func(ctx context.Context, node string) error { return s.node.Drain(ctx, node, false) })
}

func (s *Server) undrain(c *gin.Context) error {
	return s.onNode(c, func(ctx context.Context, node string) error { return s.node.Drain(ctx, node, true) })
}

func (s *Server) removeNode(c *gin.Context) error { return s.onNode(c, s.node.Remove) }

// transfer is POST /cluster/partitions/:partition/transfer.
func (s *Server) transfer(c *gin.Context) error {
	id, err := strconv.ParseUint(c.Param("partition"), 10, 16)
	if err != nil {
		return object.Errorf(object.KindInvalid, "the partition is %q: write its number, as GET /cluster/partitions shows it", c.Param("partition"))
	}
	ctx, in, err := steering[api.LeadershipTransfer](c, s)
	if err != nil {
		return err
	}
	var keep time.Duration
	if in.Keep != "" {
		if keep, err = time.ParseDuration(in.Keep); err != nil || keep <= 0 {
			return object.Errorf(object.KindInvalid, "keep is %q: write a time such as 10m or 90s", in.Keep)
		}
	}
	leader, err := s.node.TransferLeadership(ctx, object.PartitionID(id), in.Node, keep)
	if err != nil {
		return err
	}
	return s.writeJSON(c, http.StatusOK, api.Leadership{Partition: object.PartitionID(id), Leader: leader})
}

func (s *Server) onNode(c *gin.Context, do func(context.Context, string) error) error {
	node, err := decodeName("node's id", c.Param("node"))
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	if err := do(ctx, node); err != nil {
		return err
	}
	return s.noContent(c)
}

// steering is request for what steers the cluster: a field that is not known is
// refused, since a setting that does nothing misleads.
func steering[T any](c *gin.Context, s *Server) (ctx context.Context, in T, err error) {
	if ctx, err = unconditional(c); err != nil {
		return ctx, in, err
	}
	raw, err := s.readSmall(c, maxJSONBody)
	if err != nil {
		return ctx, in, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return ctx, in, object.Errorf(object.KindInvalid, "the body is not the JSON that belongs here: %w", err)
	}
	return ctx, in, nil
}
