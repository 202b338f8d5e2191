package replication

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Overview is the whole cluster: what the control group has on record, and what the
// nodes tell of themselves.
type Overview struct {
	Cluster  string // its id
	Epoch    uint64 // of the map
	Old      bool   // the control group did not answer: this is what the node that was asked last heard
	Settings Settings
	Nodes    []NodeStatus // by id, removed ones among them
	// Partitions are by number, the control group first.
	Partitions []PlacedPartition
	Groups     []GroupsOfWidth
	Progress   Progress
}

// PlacedPartition is where a partition's replicas are, and shall be.
type PlacedPartition struct {
	ID       object.PartitionID
	Leader   string // as the nodes that answered say; "" nobody does
	Term     uint64
	Applied  uint64 // at the leader
	Since    uint64 // epoch of the map at which its replicas last changed
	Replicas []ReplicaStatus
	Planned  []string // nodes that shall have a voter, the preferred leader first
	Good     int      // replicas in force and whole, on nodes that answer
	Wanted   int      // that there shall be
	Settled  bool     // everything is as planned
}

// ReplicaStatus is one replica.
type ReplicaStatus struct {
	ID    string // in raft
	Node  string
	State string // "joining", "created", "learner", "promoting", "in force", "demoting", "leaving", "removed"
	Lost  bool   // its log or vote is gone
}

// GroupsOfWidth counts the chunk groups that keep a chunk at so many holders.
type GroupsOfWidth struct {
	Width   int
	Groups  int
	Stable  int // where they were planned, or about to leave there
	Joint   int // written at old and new holders
	Copying int // joint, and the new holders are being filled
	Behind  int // not as planned, joint ones among them
	Short   int // have a holder that is gone, or lack one that is planned
}

// Progress is what is left to do until everything is where it shall be.
type Progress struct {
	Planned         bool // the plan is for the nodes and settings as they are
	Partitions      int
	PartitionsLeft  int // not as planned
	UnderReplicated int // partitions with fewer good replicas than there shall be
	Leaderless      int // partitions that nobody leads, of those whose nodes answered
	Groups          int // chunk groups, of all widths
	GroupsLeft      int // not as planned
	ShortGroups     int // chunk groups with fewer holders than there shall be

	// Of the nodes that answered; zero in a Status.
	BytesToGo   int64 // of chunks that are being fetched, or wait for their turn
	ShortChunks int64 // live chunks that a node lacks which shall hold them
	LostChunks  int64 // live chunks of which no holder has a good copy
	ReportsToGo int64 // of missing or bad copies, not dealt with yet
}

// Done reports whether nothing is left to move.
func (p Progress) Done() bool { return p.Planned && p.PartitionsLeft == 0 && p.GroupsLeft == 0 }

// controlFor is how long an overview waits for the control group before it shows what
// this node has.
const controlFor = 2 * time.Second

// View is a picture of the cluster. It asks every node, and waits a second for those
// that do not answer; where the control group does not, it shows the newest map
// that this node has. KindUnavailable: it has none yet.
func (n *Node) View(ctx context.Context) (*Overview, error) {
	cctx, cancel := context.WithTimeout(ctx, controlFor)
	defer cancel()
	s, err := n.Control(cctx)
	old := err != nil
	if old {
		if s = n.state.Load(); s == nil {
			return nil, object.WithOp(object.Errorf(object.KindUnavailable, "this node has not received the cluster's map yet: %w", err), "cluster", "", "")
		}
	}
	var ask []string
	for i := range s.Nodes {
		if s.Nodes[i].Life != control.NodeRemoved {
			ask = append(ask, string(s.Nodes[i].ID))
		}
	}
	all := n.askAll(ctx, ask)
	o := overviewOf(s, func(id control.NodeID) bool { h, asked := all[string(id)]; return asked && h.err == nil })
	o.Old = old
	o.addFacts(all)
	return o, nil
}

// overviewOf is what the control state tells alone; answers says which nodes do.
func overviewOf(s *control.State, answers func(control.NodeID) bool) *Overview {
	o := &Overview{Cluster: object.UploadID(s.Cluster).String(), Epoch: s.Epoch, Settings: s.Settings}
	o.Progress.Planned = s.Planned >= s.Inputs
	for i := range s.Nodes {
		o.Nodes = append(o.Nodes, nodeStatus(s, &s.Nodes[i]))
	}
	for i := range s.Partitions {
		p := placedPartition(s, object.PartitionID(i), answers)
		o.Progress.Partitions++
		if !p.Settled {
			o.Progress.PartitionsLeft++
		}
		if p.Good < p.Wanted {
			o.Progress.UnderReplicated++
		}
		o.Partitions = append(o.Partitions, p)
	}
	for _, l := range s.Layouts {
		g := groupsOf(s, l)
		o.Groups = append(o.Groups, g)
		o.Progress.Groups += g.Groups
		o.Progress.GroupsLeft += g.Behind
		o.Progress.ShortGroups += g.Short
	}
	return o
}

// nodeStatus is a node as the control state has it.
func nodeStatus(s *control.State, c *control.Node) NodeStatus {
	out := NodeStatus{ID: string(c.ID), State: c.State().String(), API: c.API, Peer: c.Peer, Zone: c.Zone, Weight: c.Weight,
		Incarnation: object.UploadID(c.Incarnation).String(), MinProtocol: c.Versions.Min, MaxProtocol: c.Versions.Max}
	for i := range s.Partitions {
		p := &s.Partitions[i]
		for _, r := range p.Replicas {
			if r.ID.Node != c.ID || r.State == control.Removed || p.ID == object.Control && !votes(&r) {
				continue // everybody has the control group; only a vote there keeps a node
			}
			out.Replicas++
		}
		if slices.Contains(s.Target.Of(p.ID), c.ID) {
			out.PlannedReplicas++
		}
	}
	for _, l := range s.Layouts {
		for i, g := range l.Groups {
			if slices.Contains(g.Holders, c.ID) || slices.Contains(g.Next, c.ID) {
				out.Groups++
			}
			if i < len(l.Target) && slices.Contains(l.Target[i], c.ID) {
				out.PlannedGroups++
			}
		}
	}
	leaves := c.Draining || c.Gone || c.Weight == 0
	out.Empty = out.Replicas == 0 && out.Groups == 0
	if planned := s.Planned >= s.Inputs && out.PlannedReplicas+out.PlannedGroups > 0; leaves && planned && c.Life != control.NodeRemoved {
		out.Note = fmt.Sprintf("keeps %d replicas and %d chunk groups that no other node can take: add a node, or keep fewer copies (the replication factor, and the buckets' storage)", out.PlannedReplicas, out.PlannedGroups)
	}
	return out
}

func votes(r *control.Replica) bool {
	switch r.State {
	case control.Promoting, control.InForce, control.Demoting:
		return true
	case control.Leaving:
		return r.Was == control.InForce
	}
	return false
}

// placedPartition is one partition as the control state has it.
func placedPartition(s *control.State, id object.PartitionID, answers func(control.NodeID) bool) PlacedPartition {
	want := s.Target.Of(id)
	p := PlacedPartition{ID: id, Since: s.Partitions[id].Since, Wanted: len(want), Settled: true}
	for _, id := range want {
		p.Planned = append(p.Planned, string(id))
	}
	in := 0
	for _, r := range s.Replicas(id) {
		p.Replicas = append(p.Replicas, ReplicaStatus{ID: r.ID.String(), Node: string(r.ID.Node), State: r.State.String(), Lost: r.Lost})
		if r.State == control.InForce && !r.Lost && answers(r.ID.Node) {
			p.Good++
		}
		switch planned := slices.Contains(want, r.ID.Node); {
		case r.Lost:
			p.Settled = false
		case r.State == control.InForce && planned:
			in++
		case id == object.Control && r.State == control.Learner && !planned:
		default:
			p.Settled = false
		}
	}
	p.Settled = p.Settled && in == len(want)
	return p
}

// groupsOf counts a layout's groups.
func groupsOf(s *control.State, l *control.Layout) GroupsOfWidth {
	out := GroupsOfWidth{Width: l.Width, Groups: len(l.Groups)}
	for i, g := range l.Groups {
		switch {
		case g.Next == nil:
			out.Stable++
		case l.Copying[i]:
			out.Copying++
		default:
			out.Joint++
		}
		var want []placement.NodeID
		if i < len(l.Target) {
			want = l.Target[i]
		}
		if g.Next != nil || !slices.Equal(g.Holders, want) {
			out.Behind++
		}
		if short(s, g.Holders, want) {
			out.Short++
		}
	}
	return out
}

// short reports whether a slot that shall have a holder has none, or one that is gone.
func short(s *control.State, holders, want []placement.NodeID) bool {
	for k, id := range holders {
		if id == placement.None {
			if k < len(want) && want[k] != placement.None {
				return true
			}
			continue
		}
		if c := s.Node(id); c == nil || c.Gone || c.Life == control.NodeRemoved {
			return true
		}
	}
	return false
}

// addFacts adds what the nodes told.
func (o *Overview) addFacts(all map[string]heard) {
	for i := range o.Nodes {
		at := &o.Nodes[i]
		h, asked := all[at.ID]
		switch {
		case !asked:
			continue
		case h.err != nil:
			at.Error = h.err.Error()
			continue
		}
		at.Reachable, at.Ready, at.Full, at.Version, at.Started, at.Leads = true, h.Ready, h.Full, h.Version, h.Started, len(h.Leads)
		at.Usage, at.Chunks = h.Usage, h.Chunks
		o.Progress.BytesToGo += h.Chunks.BytesToGo
		o.Progress.ShortChunks += h.Chunks.UnderReplicated
		o.Progress.LostChunks += h.Chunks.Lost
		o.Progress.ReportsToGo += int64(h.Chunks.Waiting)
		if running := h.Incarnation.String(); running != at.Incarnation {
			at.Incarnation = running // a newer process than the map we read knows of
		}
		for _, l := range h.Leads {
			if int(l.Partition) < len(o.Partitions) {
				if p := &o.Partitions[l.Partition]; p.Leader == "" || p.Term < l.Term {
					p.Leader, p.Term, p.Applied = at.ID, l.Term, l.Applied
				}
			}
		}
	}
	for i := range o.Partitions {
		if o.Partitions[i].Leader == "" {
			o.Progress.Leaderless++
		}
	}
}
