package recovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// Jump is how far beyond the last surviving entry a group goes on: further than lost
	// entries can have reached. Inode numbers and versions are made of indexes, and what
	// survives elsewhere may name lost ones: none is given a second time.
	Jump = 1 << 34
	// maxIndex is below what an inode number has room for.
	maxIndex = 1<<42 - 2*Jump
	// margin keeps generations of replicas clear of those that lost entries have given.
	margin = 1 << 20
)

// Plan is a recovery, the same for every node that is left. Making it changes nothing.
type Plan struct {
	Format   int
	Made     time.Time
	From, To string // cluster ids, hex
	Lost     []control.NodeID
	Left     []Survivor
	Chunks   []LostChunks
	// Partitions has every one, the control group first.
	Partitions []Partition
}

// Survivor is a node that goes on.
type Survivor struct {
	Node   control.NodeID
	Peer   string
	Report string // its digest
}

// LostChunks counts the chunk groups of one width that lost nodes held a part of.
type LostChunks struct {
	Width, Groups int
	Gone          int // nobody is left who holds any of it
	Short         int // fewer are left than the widest scheme needs to read
}

// Partition is one partition's part of a plan.
type Partition struct {
	Partition object.PartitionID
	Node      control.NodeID // whose log goes on
	Replica   string
	Founded   bool `json:",omitempty"` // nothing was left: it begins empty
	// Last and LastTerm are where the log that goes on ends; Applied is what of it is known
	// to have been committed; At is when its last entry was made.
	Last, LastTerm, Applied uint64
	At                      time.Time
	Index, Term             uint64 // where it goes on, and in which term
	Members                 []group.Member
	// Voters and VotersLeft count the members with a vote before, and those of them that are left.
	Voters, VotersLeft int
}

// Complete reports whether everything that was ever acknowledged is there: the voters that
// are left are a majority.
func (p *Partition) Complete() bool { return !p.Founded && p.VotersLeft > p.Voters/2 }

// Needed reports whether some partition has lost its majority. If none has, the nodes that are left
// elect by themselves.
func (p *Plan) Needed() bool {
	return slices.ContainsFunc(p.Partitions, func(x Partition) bool { return !x.Complete() })
}

// New makes the plan of recovery. reports are those of all nodes that are left; lost
// names all others. KindInvalid says what is missing or contradicts itself.
func New(reports []*Report, lost []control.NodeID, now time.Time) (*Plan, error) {
	m := &maker{lost: slices.Compact(slices.Sorted(slices.Values(lost))), reports: slices.Clone(reports)}
	slices.SortFunc(m.reports, func(a, b *Report) int { return strings.Compare(string(a.Node), string(b.Node)) })
	if err := m.check(); err != nil {
		return nil, err
	}
	p := &Plan{Format: format, Made: now.UTC().Truncate(time.Second), From: m.reports[0].Cluster, Lost: m.lost, Chunks: m.chunks()}
	for _, r := range m.reports {
		p.Left = append(p.Left, Survivor{Node: r.Node, Peer: m.node(r.Node).Peer, Report: r.Digest()})
	}
	for id := range object.PartitionID(m.state.Partitions + 1) {
		part, err := m.partition(id)
		if err != nil {
			return nil, err
		}
		p.Partitions = append(p.Partitions, part)
	}
	var err error
	p.To, err = p.name()
	return p, err
}

// name is the id of the cluster that the plan makes: the same plan gives the same.
func (p *Plan) name() (string, error) {
	anonymous := *p
	anonymous.To = ""
	b, err := indent(&anonymous)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), err
}

// maker makes one plan.
type maker struct {
	reports []*Report // by node
	lost    []control.NodeID
	state   *State // that of the control group's log that goes on
}

func (m *maker) node(id control.NodeID) *Node {
	for i := range m.state.Nodes {
		if m.state.Nodes[i].ID == id {
			return &m.state.Nodes[i]
		}
	}
	return nil
}

// check refuses what is no complete account of one cluster.
func (m *maker) check() error {
	if len(m.reports) == 0 {
		return object.Errorf(object.KindInvalid, "a recovery needs the report of each node that is left")
	}
	for i, r := range m.reports {
		switch {
		case r.Cluster != m.reports[0].Cluster:
			return object.Errorf(object.KindInvalid, "node %s is of cluster %s, node %s of %s", r.Node, r.Cluster, m.reports[0].Node, m.reports[0].Cluster)
		case i > 0 && r.Node == m.reports[i-1].Node:
			return object.Errorf(object.KindInvalid, "there are two reports of node %s: give the newer", r.Node)
		case slices.Contains(m.lost, r.Node):
			return object.Errorf(object.KindInvalid, "node %s has a report and is named as lost: leave one of the two out", r.Node)
		}
	}
	best, _ := m.best(object.Control)
	if best < 0 || m.reports[best].State == nil {
		return object.Errorf(object.KindCorrupt, "no node that is left has a usable replica of the control group: it says who belongs to the cluster, and nothing can be recovered without it; restore a node from a backup")
	}
	m.state = m.reports[best].State
	return m.checkNodes()
}

// checkNodes compares the reports with who is on record.
func (m *maker) checkNodes() error {
	reported := func(id control.NodeID) *Report {
		for _, r := range m.reports {
			if r.Node == id {
				return r
			}
		}
		return nil
	}
	var missing []string
	for _, n := range m.state.Nodes {
		r := reported(n.ID)
		switch {
		case n.Removed && r != nil, r != nil && r.Store != n.Store:
			return object.Errorf(object.KindInvalid, "node %s was removed from the cluster, or has another store than the cluster knows: leave its report out", n.ID)
		case r == nil && !n.Removed && !slices.Contains(m.lost, n.ID):
			missing = append(missing, string(n.ID))
		}
	}
	if len(missing) > 0 {
		return object.Errorf(object.KindInvalid, "the cluster has more nodes, %s: stop each and give its report, or name it in --lost if it will never come back", strings.Join(missing, ", "))
	}
	for _, id := range m.lost {
		if n := m.node(id); n == nil || n.Removed {
			return object.Errorf(object.KindInvalid, "the cluster has no node %q that could be lost (any more): leave it out", id)
		}
	}
	for _, r := range m.reports {
		if m.node(r.Node) == nil {
			return object.Errorf(object.KindInvalid, "the newest control state that is left does not know node %s: leave its report out, and let it join again on empty directories", r.Node)
		}
	}
	return nil
}

// best is whose log of a partition is the longest, as an index of reports: raft's order by
// term and index of the last entry, then voters before others. -1: there is none.
func (m *maker) best(p object.PartitionID) (at int, x *Replica) {
	at = -1
	voter := func(x *Replica) int {
		if slices.ContainsFunc(x.Members, func(o group.Member) bool { return o.ID == x.ID && o.Voter }) {
			return 1
		}
		return 0
	}
	for i, r := range m.reports {
		y := r.replica(p)
		if y == nil || y.Unusable != "" || y.Last == 0 || len(y.Members) == 0 {
			continue
		}
		if x == nil || cmp.Or(cmp.Compare(y.LastTerm, x.LastTerm), cmp.Compare(y.Last, x.Last), cmp.Compare(voter(y), voter(x))) > 0 {
			at, x = i, y
		}
	}
	return at, x
}

// partition plans one.
func (m *maker) partition(id object.PartitionID) (Partition, error) {
	at, x := m.best(id)
	if at < 0 {
		return m.found(id)
	}
	p := Partition{Partition: id, Node: m.reports[at].Node, Replica: x.ID, Last: x.Last, LastTerm: x.LastTerm, Applied: x.Applied, At: x.At,
		Index: x.Last + Jump, Term: m.term(id)}
	self := false
	for _, o := range x.Members {
		if o.Voter {
			p.Voters++
		}
		left := m.usable(id, o.ID)
		if left && o.Voter {
			p.VotersLeft++
		}
		if o.ID == x.ID {
			o.Voter, self = true, true
		}
		if left {
			p.Members = append(p.Members, o)
		}
	}
	if !self {
		p.Members = append(p.Members, group.Member{ID: x.ID, Address: string(p.Node), Voter: true})
	}
	return p, m.room(&p)
}

// found plans a partition that nobody has anything of, at the node whose turn it is.
func (m *maker) found(id object.PartitionID) (Partition, error) {
	n := m.node(m.reports[int(id)%len(m.reports)].Node)
	generation := n.Next + margin
	for _, r := range m.reports {
		for i := range r.Replicas {
			if x, err := control.ParseReplicaID(r.Replicas[i].ID); err == nil && x.Node == n.ID {
				generation = max(generation, x.Generation+margin)
			}
		}
	}
	replica := control.ReplicaID{Node: n.ID, Generation: generation + uint64(id)}.String()
	p := Partition{Partition: id, Node: n.ID, Replica: replica, Founded: true, Term: m.term(id),
		Members: []group.Member{{ID: replica, Address: string(n.ID), Voter: true}}}
	for _, r := range m.reports { // its own end is not known: beyond that of all others
		for i := range r.Replicas {
			p.Index = max(p.Index, r.Replicas[i].Last)
		}
	}
	p.Index += Jump
	return p, m.room(&p)
}

func (m *maker) room(p *Partition) error {
	if p.Index >= maxIndex {
		return object.Errorf(object.KindNotSupported, "partition %d has been recovered too often: its log is at entry %d", p.Partition, p.Last)
	}
	return nil
}

// term is above all that a surviving replica of a partition knows.
func (m *maker) term(p object.PartitionID) (term uint64) {
	for _, r := range m.reports {
		if x := r.replica(p); x != nil {
			term = max(term, x.Term, x.LastTerm)
		}
	}
	return term + 1
}

// usable reports whether a member is left.
func (m *maker) usable(p object.PartitionID, id string) bool {
	for _, r := range m.reports {
		if x := r.replica(p); x != nil && x.ID == id && x.Unusable == "" {
			return true
		}
	}
	return false
}

// chunks counts what lost nodes held.
func (m *maker) chunks() (list []LostChunks) {
	for _, c := range m.state.Chunks {
		out := LostChunks{Width: c.Width}
		need := max(1, slices.Max(append([]int{0}, c.Schemes...)))
		for _, names := range c.Groups {
			held := map[control.NodeID]bool{}
			some := false
			for _, id := range names {
				if slices.Contains(m.lost, id) {
					some = true
				} else if id != "" {
					held[id] = true
				}
			}
			switch {
			case !some:
				continue
			case len(held) == 0:
				out.Gone++
			case len(held) < need:
				out.Short++
			}
			out.Groups++
		}
		list = append(list, out)
	}
	return list
}

// Of returns a node's part, or nil.
func (p *Plan) Of(node control.NodeID) *Survivor {
	for i := range p.Left {
		if p.Left[i].Node == node {
			return &p.Left[i]
		}
	}
	return nil
}

// Cluster is the id of the cluster that the plan makes.
func (p *Plan) Cluster() (control.ClusterID, error) { return clusterID(p.To) }

// Former is the id that the cluster had.
func (p *Plan) Former() (control.ClusterID, error) { return clusterID(p.From) }

// Command is the control group's first entry.
func (p *Plan) Command() (*control.Command, error) {
	from, err1 := clusterID(p.From)
	to, err2 := clusterID(p.To)
	if err := cmp.Or(err1, err2); err != nil {
		return nil, err
	}
	c := &control.Recover{From: from, To: to, Lost: p.Lost}
	for i := range p.Partitions {
		r := control.Recovered{Founded: p.Partitions[i].Founded}
		for _, m := range p.Partitions[i].Members {
			id, err := control.ParseReplicaID(m.ID)
			if err != nil {
				return nil, err
			}
			if m.Voter {
				r.Voters = append(r.Voters, id)
			} else {
				r.Others = append(r.Others, id)
			}
		}
		c.Partitions = append(c.Partitions, r)
	}
	return &control.Command{Recover: c}, nil
}

// Encode is the plan as a file.
func (p *Plan) Encode() ([]byte, error) { return indent(p) }

// DecodePlan reads what Encode wrote; anything else, and a plan that was edited, is
// KindInvalid, a later format KindVersion.
func DecodePlan(b []byte) (*Plan, error) {
	p := &Plan{}
	if err := decode(b, "plan", p, &p.Format); err != nil {
		return nil, err
	}
	name, err := p.name()
	if err != nil || name != p.To || len(p.Partitions) == 0 || len(p.Partitions) > object.MaxPartitions {
		return nil, object.Errorf(object.KindInvalid, "this is no plan of a recovery, or it was changed: make it again with `bucketdb cluster recover --plan FILE`")
	}
	for i := range p.Partitions {
		if x := &p.Partitions[i]; int(x.Partition) != i || p.Of(x.Node) == nil || x.Index == 0 {
			return nil, object.Errorf(object.KindInvalid, "the plan of partition %d makes no sense: make it again", i)
		}
	}
	_, err = p.Command()
	return p, err
}
