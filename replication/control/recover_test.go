package control

import (
	"slices"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestRecoverRewritesTheState: lost nodes are removed, groups are who is left, the plan and the
// chunk groups name nobody else, a repeat does nothing, and the planner goes on.
func TestRecoverRewritesTheState(t *testing.T) {
	s := newStore(t)
	to := ClusterID{9}
	l := &placement.Layout{Width: 3, Epoch: 1}
	for _, g := range []placement.Group{
		{Holders: []NodeID{"n1", "n2", "n3"}},
		{Holders: []NodeID{"n2", "n3", ""}},
		{Holders: []NodeID{"n1", "n2", ""}, Next: []NodeID{"n1", "n4", ""}},
		{Holders: []NodeID{"n1", "n4", ""}},
	} {
		g.Since = 1
		l.Groups = append(l.Groups, g)
	}
	layout := &Layout{Layout: l, Schemes: []int{0}, Copying: map[int]bool{2: true}}
	for _, g := range l.Groups {
		layout.Target = append(layout.Target, g.Holders)
	}
	r := func(node NodeID, state ReplicaState) Replica { return Replica{ID: ReplicaID{Node: node}, State: state} }
	s.set(&Header{Cluster: ClusterID{1}, Epoch: 7, Inputs: 1, Planned: 7, Partitions: 3, Groups: 4}, layout, []Partition{
		{Since: 1, Replicas: []Replica{r("n1", InForce), r("n2", InForce), r("n3", InForce), r("n4", Learner)}},
		{Since: 1, Replicas: []Replica{r("n1", InForce), r("n2", InForce), r("n4", Leaving)}},
		{Since: 1, Replicas: []Replica{r("n2", InForce), r("n3", InForce)}},
		{Since: 1, Replicas: []Replica{r("n4", InForce), r("n1", Created), r("n3", Joining)}},
	}, "n1", "n2", "n3", "n4")

	id := func(node NodeID, generation uint64) ReplicaID { return ReplicaID{Node: node, Generation: generation} }
	c := &Recover{From: ClusterID{1}, To: to, Lost: []NodeID{"n2", "n3"}, Partitions: []Recovered{
		{Voters: []ReplicaID{id("n1", 0)}, Others: []ReplicaID{id("n4", 0)}},
		{Voters: []ReplicaID{id("n1", 0)}},
		{Voters: []ReplicaID{id("n4", 100)}, Founded: true},
		{Voters: []ReplicaID{id("n4", 0)}, Others: []ReplicaID{id("n1", 0)}},
	}}
	wrong := *c
	wrong.From = ClusterID{2}
	s.refused(object.KindConflict, "make a new plan", &Command{Recover: &wrong})
	wrong = *c
	wrong.Partitions = c.Partitions[:3]
	s.refused(object.KindInvalid, "partitions", &Command{Recover: &wrong})
	wrong = *c
	wrong.Lost = []NodeID{"n2", "n3", "n4"}
	s.refused(object.KindInvalid, "not left", &Command{Recover: &wrong})
	s.ok(&Command{Recover: c})

	st := s.load()
	if st.Cluster != to || !slices.Equal(st.Former, []ClusterID{{1}}) || st.Inputs != st.Epoch {
		t.Errorf("%+v", st.Header)
	}
	for _, n := range st.Nodes {
		if gone := n.ID == "n2" || n.ID == "n3"; gone != (n.Life == NodeRemoved) || n.Gone {
			t.Errorf("%+v", n)
		}
	}
	if n := st.Node("n4"); n.Next != 101 {
		t.Errorf("n4 gets generation %d next", n.Next)
	}
	for i, want := range [][]Replica{
		{r("n1", InForce), r("n4", Learner)},
		{r("n1", InForce), r("n4", Removed)},
		{{ID: id("n4", 100), State: InForce}},
		{r("n4", InForce), r("n1", Created)},
	} {
		if got := st.Partitions[i].Replicas; !slices.Equal(got, want) {
			t.Errorf("partition %d has %v, not %v", i, got, want)
		}
	}
	for i, want := range [][]NodeID{{"n1", "", ""}, {"n4", "", ""}, {"n1", "n4", ""}, {"n1", "n4", ""}} {
		g := st.Layouts[0].Groups[i]
		if !slices.Equal(g.Holders, want) || g.Next != nil || (i < 3) != (g.Since > 7) {
			t.Errorf("chunk group %d: %+v", i, g)
		}
	}
	if len(st.Layouts[0].Copying) > 0 {
		t.Errorf("copying %v", st.Layouts[0].Copying)
	}
	before := st.Epoch
	s.ok(&Command{Recover: c}) // a repeat
	if got := s.load().Epoch; got != before {
		t.Errorf("a repeat made epoch %d of %d", got, before)
	}
	plan, err := NewPlan(s.load())
	if err != nil {
		t.Fatal(err)
	}
	s.ok(&Command{Plan: plan})
	if v := s.load().Target.Voters; len(v) != 2 {
		t.Errorf("voters %v", v)
	}
}

// set writes a state as it is.
func (s *store) set(h *Header, l *Layout, partitions []Partition, nodes ...NodeID) {
	s.Helper()
	target := soleTarget("n2", h.Partitions)
	target.Voters = []NodeID{"n1", "n2", "n3"}
	write := func(into Txn) error {
		c := &change{txn: into}
		c.store(headerKey(), h)
		c.store(settingsKey(), DefaultSettings())
		b, err := target.encode()
		c.put(targetKey(), b, err)
		c.putLayout(l)
		for i := range partitions {
			c.store(partitionKey(object.PartitionID(i)), &partitions[i])
		}
		for i, id := range nodes {
			c.putNode(&Node{ID: id, Store: StoreID{byte(i + 1)}, Incarnation: Incarnation{1}, Weight: 100, Life: NodeUp, Gone: i == 0, Versions: Versions{1, 1}, Next: 1})
		}
		return c.flush()
	}
	txn := s.part.Begin()
	defer txn.Discard()
	s.index++
	for _, err := range []error{write(txn), txn.Commit(s.index), write(s.twin)} {
		if err != nil {
			s.Fatal(err)
		}
	}
}
