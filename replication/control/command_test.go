package control

import (
	"reflect"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// store is partition 0 of a real database, and the same state in memory: both must agree.
type store struct {
	*testing.T
	part  *meta.Partition
	twin  memory
	index uint64
}

func newStore(t *testing.T) *store {
	db, err := meta.Open(meta.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &store{T: t, part: db.Partition(object.Control), twin: memory{}}
}

// do applies a command in a transaction of its own.
func (s *store) do(c *Command) *Result {
	s.Helper()
	txn := s.part.Begin()
	defer txn.Discard()
	r := apply(s, txn, c)
	s.index++
	if err := txn.Commit(s.index); err != nil {
		s.Fatal(err)
	}
	if other := apply(s, s.twin, c); !reflect.DeepEqual(r, other) {
		s.Fatalf("two replicas answered %+v and %+v", r, other)
	}
	return r
}

func (s *store) ok(c *Command) *Result {
	s.Helper()
	r := s.do(c)
	if r.Failed {
		s.Fatalf("%s: %v", text(c), r.Err())
	}
	return r
}

// refused expects an error whose message says something.
func (s *store) refused(kind object.Kind, says string, c *Command) {
	s.Helper()
	before := s.load()
	if r := s.do(c); !r.Failed || r.Kind != kind || !strings.Contains(r.Message, says) {
		s.Fatalf("%s: %v %q, not %v %q", text(c), r.Kind, r.Message, kind, says)
	}
	if !reflect.DeepEqual(before, s.load()) {
		s.Fatalf("%s was refused and changed the state", text(c))
	}
}

func (s *store) load() *State {
	s.Helper()
	view := s.part.View()
	defer view.Close()
	state := loaded(s, view)
	if twin := loaded(s, s.twin); !reflect.DeepEqual(state, twin) {
		s.Fatalf("two replicas have %+v and %+v", state, twin)
	}
	return state
}

func TestBootstrap(t *testing.T) {
	s := newStore(t)
	s.do(&Command{Join: joinOf("n1", 2)}) // nothing to join yet
	if _, err := Load(s.twin); !object.IsKind(err, object.KindNotFound) {
		t.Fatal(err)
	}
	c := bootstrapOf("n0", 4, 8)
	if r := s.ok(c); r.Replica.String() != "n0" || r.Cluster != (ClusterID{7}) {
		t.Fatalf("%+v", r)
	}
	s.ok(c) // again
	other := bootstrapOf("n0", 4, 8)
	other.Bootstrap.Cluster = ClusterID{8}
	s.refused(object.KindExists, "join it", other)
	state := s.load()
	for _, p := range state.Partitions {
		if len(p.Replicas) != 1 || p.Replicas[0] != (Replica{ID: ReplicaID{Node: "n0"}, State: InForce}) {
			t.Fatalf("partition %d is on %v", p.ID, p.Replicas)
		}
	}
	if l := state.Layout(3); l == nil || len(l.Groups) != 8 || l.Groups[0].Holders[0] != "n0" {
		t.Fatalf("%+v", l)
	}
	o := &Observed{Nodes: map[NodeID]NodeSeen{"n0": {Up: true}}}
	actions, err := Next(state, o)
	if err != nil || len(actions) != 1 || actions[0].Command == nil || actions[0].Command.Plan == nil {
		t.Fatalf("%+v, %v", actions, err) // the first plan confirms what is
	}
	s.ok(actions[0].Command)
	if actions, err = Next(s.load(), o); err != nil || len(actions) > 0 {
		t.Fatalf("a cluster of one has to do %+v, %v", actions, err)
	}
}

func TestJoin(t *testing.T) {
	s := newStore(t)
	s.ok(bootstrapOf("n0", 2, 2))
	join := func(id NodeID, store byte, change func(*Join)) *Command {
		j := joinOf(id, store)
		if change != nil {
			change(j)
		}
		return &Command{Join: j}
	}
	first := s.ok(join("n1", 2, nil))
	if first.Replica.String() != "n1#1" {
		t.Fatalf("%v", first.Replica)
	}
	epoch := s.load().Epoch
	again := s.ok(join("n1", 2, func(j *Join) { j.API, j.Weight = "elsewhere:1", 9 }))
	state := s.load()
	if n := state.Node("n1"); *again.Replica != *first.Replica || n.API != "elsewhere:1" || n.Weight != 1 || state.Epoch != epoch {
		t.Fatalf("%+v", n)
	}
	s.refused(object.KindExists, "another -id", join("n1", 3, nil))
	s.refused(object.KindConflict, "-id n1", join("n2", 2, nil))
	s.refused(object.KindVersion, "upgrade n0", join("n2", 3, func(j *Join) { j.Versions = Versions{2, 3} }))
	s.refused(object.KindInvalid, "node id", join("a#1", 3, nil))
	s.refused(object.KindInvalid, "address", join("n2", 3, func(j *Join) { j.Peer = "" }))

	update := func(start byte) *Command {
		return &Command{Update: &UpdateNode{"n1", StoreID{2}, Incarnation{2, start}, "a:1", "a:1", Versions{1, 2}}}
	}
	s.ok(update(2))
	s.ok(update(2))
	s.refused(object.KindStale, "must end", update(1))
	s.refused(object.KindConflict, "started again", &Command{MarkGone: &Mark{"n1", Incarnation{2, 1}}})

	s.ok(&Command{Remove: &Remove{"n1"}}) // it holds nothing yet
	s.ok(&Command{Remove: &Remove{"n1"}})
	s.refused(object.KindPermission, "empty directories", join("n1", 2, nil))
	s.refused(object.KindConflict, "empty directories", join("n2", 2, nil))
	s.refused(object.KindBusy, "replica", join("n1", 3, nil))
	p := object.Control
	s.ok(&Command{Step: &Step{p, *first.Replica, s.load().Epoch, Leaving}})
	s.ok(&Command{Step: &Step{p, *first.Replica, s.load().Epoch, Removed}})
	if r := s.ok(join("n1", 3, nil)); r.Replica.String() != "n1#2" {
		t.Fatalf("%v was used before", r.Replica)
	}
}

func TestRemoveRefuses(t *testing.T) {
	s := newStore(t)
	s.ok(bootstrapOf("n0", 2, 2))
	s.refused(object.KindBusy, "drain it", &Command{Remove: &Remove{"n0"}})
	s.refused(object.KindNotFound, "no node", &Command{Remove: &Remove{"n7"}})
	s.ok(&Command{MarkGone: &Mark{"n0", Incarnation{1, 1}}})
	s.refused(object.KindBusy, "bring it back", &Command{Remove: &Remove{"n0"}})
}

// TestReplicaLife walks one replica through its steps; every step is repeated, and
// tried out of order.
func TestReplicaLife(t *testing.T) {
	s := newStore(t)
	s.ok(bootstrapOf("n0", 1, 1))
	s.ok(&Command{Join: joinOf("n1", 2)})
	control, data := object.Control, object.PartitionID(1)
	learner := ReplicaID{"n1", 1}
	step := func(p object.PartitionID, id ReplicaID, to ReplicaState) *Command {
		return &Command{Step: &Step{p, id, s.load().Epoch, to}}
	}
	s.refused(object.KindConflict, "cannot become", step(control, learner, Promoting))
	s.refused(object.KindConflict, "no complete replica", &Command{Admit: &Admit{"n1", StoreID{2}}})
	for _, to := range []ReplicaState{Created, Learner} {
		s.ok(step(control, learner, to))
		s.ok(step(control, learner, to))
	}
	s.refused(object.KindConflict, "no voter", step(control, learner, Promoting))
	s.ok(&Command{Admit: &Admit{"n1", StoreID{2}}})
	s.refused(object.KindConflict, "no replica of partition 1 on node n1", &Command{Place: &Place{data, "n1", s.load().Epoch}})

	stalePlan, err := NewPlan(s.load())
	if err != nil {
		t.Fatal(err)
	}
	s.ok(&Command{SetZone: &SetZone{"n1", "other"}})
	s.refused(object.KindConflict, "read the map again", &Command{Plan: stalePlan})
	plan, err := NewPlan(s.load())
	if err != nil {
		t.Fatal(err)
	}
	s.ok(&Command{Plan: plan})
	s.refused(object.KindConflict, "the plan changed", &Command{Plan: plan})

	before := s.load().Epoch
	id := *s.ok(&Command{Place: &Place{data, "n1", before}}).Replica
	if again := *s.ok(&Command{Place: &Place{data, "n1", before}}).Replica; again != id || id != (ReplicaID{"n1", 2}) {
		t.Fatalf("%v, then %v", id, again)
	}
	s.refused(object.KindConflict, "read the map again", &Command{Step: &Step{data, id, before, Created}})
	for _, to := range []ReplicaState{Created, Promoting, InForce} {
		s.refused(object.KindConflict, "cannot become", step(data, id, Removed))
		s.ok(step(data, id, to))
		s.ok(step(data, id, to))
	}
	s.refused(object.KindConflict, "the plan keeps", step(data, id, Leaving))
	s.ok(&Command{Lost: &Lost{data, id}})
	s.ok(&Command{Lost: &Lost{data, id}})
	for _, to := range []ReplicaState{Leaving, Removed, Destroyed} {
		s.ok(step(data, id, to))
		s.ok(step(data, id, to))
	}
	s.refused(object.KindStale, "destroy what is left", step(data, id, Created))
	if next := *s.ok(&Command{Place: &Place{data, "n1", s.load().Epoch}}).Replica; next != (ReplicaID{"n1", 3}) {
		t.Fatalf("%v was used before", next)
	}
	first := ReplicaID{Node: "n0"}
	s.ok(&Command{Lost: &Lost{data, first}})
	s.refused(object.KindBusy, "without a majority", step(data, first, Leaving))
}

// TestOneAtATime: of one partition, one replica comes and one vote changes at a time.
func TestOneAtATime(t *testing.T) {
	s := newStore(t)
	s.ok(bootstrapOf("n0", 1, 1))
	for i := 1; i < 3; i++ {
		s.joined(nodeName(i), byte(i+1))
	}
	plan, err := NewPlan(s.load())
	if err != nil {
		t.Fatal(err)
	}
	s.ok(&Command{Plan: plan})
	promote := func(i int) *Command {
		return &Command{Step: &Step{object.Control, s.load().Partitions[0].on(nodeName(i)).ID, s.load().Epoch, Promoting}}
	}
	s.ok(promote(1))
	s.refused(object.KindConflict, "one at a time", promote(2))
	place := func(i int) *Command { return &Command{Place: &Place{1, nodeName(i), s.load().Epoch}} }
	old := place(2)
	s.ok(place(1))
	s.refused(object.KindConflict, "one at a time", place(2))
	s.refused(object.KindConflict, "read the map again", old)

	// A leader that knows its own group only has that group's steps.
	id := s.load().Partitions[0].on("n1").ID
	actions, err := Next(s.load(), &Observed{Partitions: map[object.PartitionID]GroupSeen{
		0: {Epoch: s.load().Epoch, Leader: ReplicaID{Node: "n0"}, Members: map[ReplicaID]bool{{Node: "n0"}: true, id: true}},
	}})
	if err != nil || len(actions) != 1 || actions[0].Command.Step == nil || *actions[0].Command.Step != (Step{0, id, s.load().Epoch, InForce}) {
		t.Fatalf("%+v, %v", actions, err)
	}
}

// joined makes a node known and up.
func (s *store) joined(id NodeID, number byte) {
	s.Helper()
	replica := *s.ok(&Command{Join: joinOf(id, number)}).Replica
	for _, to := range []ReplicaState{Created, Learner} {
		s.ok(&Command{Step: &Step{object.Control, replica, s.load().Epoch, to}})
	}
	s.ok(&Command{Admit: &Admit{id, StoreID{number}}})
}

// TestLimits: no more moves begin than the settings allow.
func TestLimits(t *testing.T) {
	s := newStore(t)
	s.ok(bootstrapOf("n0", 20, 40))
	set := DefaultSettings()
	set.Moves, set.MovesPerNode, set.GroupMoves, set.GroupsPerNode = 5, 4, 7, 6
	s.ok(&Command{Configure: &set})
	o := &Observed{Nodes: map[NodeID]NodeSeen{"n0": {Up: true}}}
	for i := 1; i < 4; i++ {
		s.joined(nodeName(i), byte(i+1))
		o.Nodes[nodeName(i)] = NodeSeen{Up: true}
	}
	for range 2 { // the plan, then the first moves
		actions, err := Next(s.load(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range actions {
			if a.Verb == Propose {
				s.do(a.Command)
			}
		}
	}
	state := s.load()
	moving, perNode, joint := 0, map[NodeID]int{}, 0
	for _, p := range state.Partitions[1:] {
		for _, r := range p.Replicas {
			if r.moving() {
				moving++
				perNode[r.ID.Node]++
			}
		}
	}
	groups := map[NodeID]int{}
	for _, g := range state.Layout(3).Groups {
		if g.Next == nil {
			continue
		}
		joint++
		for k, id := range g.Next {
			if id != g.Holders[k] {
				groups[id]++
				groups[g.Holders[k]]++
			}
		}
	}
	delete(groups, "")
	for id := range o.Nodes {
		if perNode[id] > 4 || groups[id] > 6 {
			t.Errorf("node %s takes part in %d moves of partitions and %d of groups", id, perNode[id], groups[id])
		}
	}
	if moving != 5 || joint != 7 {
		t.Errorf("%d partitions and %d groups move, limits are 5 and 7", moving, joint)
	}
	if actions, _ := Next(state, &Observed{Nodes: o.Nodes}); len(actions) > 5+1 {
		t.Errorf("more begins: %+v", actions)
	}
}

// TestGroupMove walks one chunk group through a move.
func TestGroupMove(t *testing.T) {
	s := newStore(t)
	s.ok(bootstrapOf("n0", 1, 1))
	for i := 1; i < 4; i++ {
		s.joined(nodeName(i), byte(i+1))
	}
	plan, err := NewPlan(s.load())
	if err != nil {
		t.Fatal(err)
	}
	s.ok(&Command{Plan: plan})
	l := s.load().Layout(3)
	target := l.Target[0]
	slot := 0
	for l.Groups[0].Holders[slot] == target[slot] {
		slot++
	}
	begin := &Command{Begin: &Begin{s.load().Epoch, 3, []SlotMove{{0, slot, l.Groups[0].Holders[slot], target[slot]}}}}
	bad := &Command{Begin: &Begin{s.load().Epoch, 3, []SlotMove{{0, slot, "", "n7"}}}}
	s.refused(object.KindConflict, "the plan has no move", bad)
	s.ok(begin)
	s.ok(begin)
	g := s.load().Layout(3).Groups[0]
	advance := func(to GroupStep, nodes ...NodeID) *Command {
		return &Command{Advance: &Advance{3, to, []AdvanceGroup{{0, g.Since, nodes}}}}
	}
	s.refused(object.KindConflict, "not begun", advance(Stable, "n0", target[slot]))
	s.refused(object.KindConflict, "wait for more", advance(Copying))
	s.ok(advance(Copying, "n0"))
	s.ok(advance(Copying, "n0"))
	s.refused(object.KindConflict, "not all verified", advance(Stable, "n0"))
	s.refused(object.KindConflict, "not all verified", advance(Stable, target[slot]))
	s.refused(object.KindConflict, "not all verified", advance(Stable, "n0", target[slot], "n9"))
	s.ok(advance(Stable, "n0", target[slot]))
	s.refused(object.KindConflict, "has ended", advance(Stable, "n0", target[slot]))
	s.refused(object.KindConflict, "has ended", advance(Canceled))

	wide, err := NewWidth(s.load(), 6, 4)
	if err != nil {
		t.Fatal(err)
	}
	s.refused(object.KindInvalid, "at least 5 nodes", wide)
	c, err := NewWidth(s.load(), 4, 2)
	if err != nil {
		t.Fatal(err)
	}
	s.ok(c)
	s.ok(c)
	c.AddWidth.Data = 0
	s.ok(c)
	if l := s.load().Layout(4); len(l.Schemes) != 2 || l.Quorum(4) != 3 || l.spare(4) != 1 || l.Lists(4) != 2 {
		t.Fatalf("%+v", l)
	}
}

// TestQuorums: the bounds that moving and removing rest upon.
func TestQuorums(t *testing.T) {
	for _, c := range []struct {
		schemes                     []int
		n, quorum, least, spare, ls int
	}{
		{[]int{0}, 1, 1, 1, 0, 1},
		{[]int{0}, 2, 2, 2, 1, 1},
		{[]int{0}, 3, 2, 2, 1, 2},
		{[]int{0}, 5, 3, 3, 2, 3},
		{[]int{4}, 6, 5, 5, 1, 2},
		{[]int{4}, 4, 4, 4, 0, 1},
		{[]int{2, 4}, 6, 5, 3, 1, 4},
		{[]int{0, 4}, 6, 5, 4, 1, 3},
	} {
		l := &Layout{Schemes: c.schemes}
		if l.Quorum(c.n) != c.quorum || l.least(c.n) != c.least || l.spare(c.n) != c.spare || l.Lists(c.n) != c.ls {
			t.Errorf("%v of %d: %d %d %d %d", c.schemes, c.n, l.Quorum(c.n), l.least(c.n), l.spare(c.n), l.Lists(c.n))
		}
	}
}

// TestConfigureJudgesWhatWas: settings that somebody else has changed meanwhile are not
// overwritten unseen; a repeat of what was done is a success.
func TestConfigureJudgesWhatWas(t *testing.T) {
	txn := memory{}
	must(t, txn, bootstrapOf("n1", 1, 1))
	was := loaded(t, txn).Settings
	first, second := was, was
	first.RF, second.Moves = 2, 5
	must(t, txn, &Command{Configure: &first, Was: &was})
	must(t, txn, &Command{Configure: &first, Was: &was})
	mustFail(t, txn, object.KindConflict, &Command{Configure: &second, Was: &was})
	if got := loaded(t, txn).Settings; got != first {
		t.Errorf("%+v", got)
	}
	must(t, txn, &Command{Configure: &second})
}
