package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// three is a settled cluster of three nodes.
func three(t *testing.T) *world {
	w := newWorld(t, 5, 2, 2)
	w.join("n1")
	w.join("n2")
	w.settle()
	return w
}

func has(actions []Action, ok func(Action) bool) bool { return slices.ContainsFunc(actions, ok) }

// TestLateWords: what the state has yet to learn is left alone; what it knows better than
// the world is put right.
func TestLateWords(t *testing.T) {
	w := three(t)
	s, o := w.now(), w.observe()
	next := func() []Action {
		actions, err := Next(s, o)
		if err != nil {
			t.Fatal(err)
		}
		return actions
	}
	n1 := s.Node("n1")
	old, future := ReplicaID{"n1", 0}, ReplicaID{"n1", n1.Next}

	o.Partitions[1].Members[future] = false
	o.Nodes["n1"].Replicas[ReplicaKey{1, future.Generation}] = HeldLive
	if actions := next(); len(actions) > 0 {
		t.Errorf("a lagging state does %+v", actions)
	}
	o.Partitions[1].Members[old] = false
	o.Nodes["n1"].Replicas[ReplicaKey{1, old.Generation}] = HeldLive
	actions := next()
	if !has(actions, func(a Action) bool {
		return a.Verb == RemoveMember && a.Replica == old && a.Config == o.Partitions[1].Config
	}) ||
		!has(actions, func(a Action) bool { return a.Verb == Destroy && a.Replica == old }) || len(actions) != 2 {
		t.Errorf("a stranger leads to %+v", actions)
	}

	newer := o.Partitions[1]
	newer.Current = s.Epoch + 1
	o.Partitions[1] = newer
	if has(next(), func(a Action) bool { return a.Verb == RemoveMember }) {
		t.Error("a state older than what was seen changes members")
	}

	o = w.observe()
	mine := s.Partitions[2].on("n1").ID
	delete(o.Partitions[2].Members, mine)
	if actions := next(); !has(actions, func(a Action) bool {
		return a.Command != nil && a.Command.Lost != nil && a.Command.Lost.Replica == mine
	}) {
		t.Errorf("a replica that raft does not know leads to %+v", actions)
	}
	seen := o.Partitions[2]
	seen.Epoch = s.Partitions[2].Since - 1
	o.Partitions[2] = seen
	if actions := next(); len(actions) > 0 {
		t.Errorf("old words lead to %+v", actions)
	}
}

// TestKeptLeader: a leadership that a person moved stays, but not with who leaves.
func TestKeptLeader(t *testing.T) {
	w := three(t)
	s, o := w.now(), w.observe()
	seen := o.Partitions[1]
	for _, r := range s.Partitions[1].Replicas {
		if r.ID.Node != s.Target.Of(1)[0] {
			seen.Leader = r.ID
		}
	}
	for _, kept := range []bool{false, true} {
		seen.Kept = kept
		o.Partitions[1] = seen
		actions, err := Next(s, o)
		if moved := has(actions, func(a Action) bool { return a.Verb == Transfer && a.Partition == 1 }); err != nil || moved == kept {
			t.Errorf("kept: %v, and it leads to %+v, %v", kept, actions, err)
		}
	}
	leader := s.Partitions[1].on(seen.Leader.Node)
	leader.State, leader.Was = Leaving, InForce
	actions, err := Next(s, o)
	if err != nil || !has(actions, func(a Action) bool { return a.Verb == Transfer && a.Partition == 1 }) {
		t.Errorf("a leader that leaves does %+v, %v", actions, err)
	}
}

// TestNoLeadForTheLost: the leadership is not handed to a replica whose node says that it is
// lost, before the map says so too, nor to one whose node does not answer.
func TestNoLeadForTheLost(t *testing.T) {
	w := three(t)
	s := w.now()
	p := object.PartitionID(1)
	list := s.Replicas(p)
	first, second := list[0].ID, list[1].ID
	handed := func(change func(*Observed)) bool {
		t.Helper()
		o := w.observe()
		seen := o.Partitions[p]
		seen.Leader = second
		o.Partitions[p] = seen
		change(o)
		actions, err := Next(s, o)
		if err != nil {
			t.Fatal(err)
		}
		return has(actions, func(a Action) bool { return a.Verb == Transfer && a.Partition == p && a.Replica == first })
	}
	if !handed(func(*Observed) {}) {
		t.Fatal("the plan's first replica is not to lead")
	}
	for _, held := range []Held{HeldLost, HeldDestroyed} {
		if handed(func(o *Observed) { o.Nodes[first.Node].Replicas[ReplicaKey{p, first.Generation}] = held }) {
			t.Errorf("a replica that is %d at its node is to lead", held)
		}
	}
	if handed(func(o *Observed) { o.Nodes[first.Node] = NodeSeen{} }) {
		t.Error("a replica of a node that does not answer is to lead")
	}
}

// TestNeededVoter: a voter that is to leave stays while the others cannot elect without it.
func TestNeededVoter(t *testing.T) {
	w := three(t)
	set := w.now().Settings
	set.RF = 2
	w.propose(&Command{Configure: &set})
	plan, err := NewPlan(w.now())
	if err != nil {
		t.Fatal(err)
	}
	w.propose(&Command{Plan: plan})
	p := object.PartitionID(1)
	var leaver ReplicaID
	for _, r := range w.now().Partitions[p].Replicas {
		if !slices.Contains(w.now().Target.Of(p), r.ID.Node) {
			leaver = r.ID
		}
	}
	w.propose(&Command{Step: &Step{p, leaver, w.now().Epoch, Leaving}})
	other := w.now().Target.Of(p)[0]
	w.nodes[other].up = false
	w.nodes[leaver.Node].epoch = w.now().Epoch
	for _, n := range w.nodes {
		n.epoch = w.now().Epoch
	}
	actions, err := Next(w.now(), w.observe())
	if err != nil {
		t.Fatal(err)
	}
	if has(actions, func(a Action) bool { return a.Verb == RemoveMember && a.Partition == p }) ||
		!has(actions, func(a Action) bool {
			return a.Command != nil && a.Command.Step != nil && *a.Command.Step == Step{p, leaver, w.now().Epoch, InForce}
		}) {
		t.Errorf("%+v", actions)
	}
}

// TestRemoveKeeps: a gone node that may have what nobody else has is not removed.
func TestRemoveKeeps(t *testing.T) {
	w := newWorld(t, 5, 2, 2)
	w.lies = func(_ *world, a Action) bool { return a.Command != nil && a.Command.Begin != nil } // chunks never move
	w.join("n1")
	w.join("n2")
	for range 60 {
		w.heal()
		actions, err := Next(w.now(), w.observe())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range actions {
			w.run(a)
		}
	}
	gone := func(id NodeID) { w.propose(&Command{MarkGone: &Mark{id, w.now().Node(id).Incarnation}}) }
	gone("n0")
	if r := w.propose(&Command{Remove: &Remove{"n0"}}); r.Kind != object.KindBusy || !strings.Contains(r.Message, "chunks of group 0") {
		t.Errorf("%+v", r)
	}
	w.lies = nil
	w.propose(&Command{MarkBack: &Mark{"n0", w.now().Node("n0").Incarnation}})
	w.settle()
	gone("n1")
	gone("n2")
	if r := w.propose(&Command{Remove: &Remove{"n2"}}); r.Kind != object.KindBusy || !strings.Contains(r.Message, "of partition 0") {
		t.Errorf("%+v", r)
	}
	w.propose(&Command{MarkBack: &Mark{"n1", w.now().Node("n1").Incarnation}})
	if r := w.propose(&Command{Remove: &Remove{"n2"}}); r.Failed {
		t.Errorf("%v", r.Err())
	}
}

// TestGoneIsReplaced: the fourth takes over, and a gone one of three is waited for.
func TestGoneIsReplaced(t *testing.T) {
	w := three(t)
	gone := func() {
		w.nodes["n1"].up = false
		w.propose(&Command{MarkGone: &Mark{"n1", w.now().Node("n1").Incarnation}})
		for range 60 {
			w.heal()
			actions, err := Next(w.now(), w.observe())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range actions {
				w.run(a)
			}
		}
	}
	gone()
	if x := w.now().Partitions[1].on("n1"); x == nil || x.State != InForce || w.now().Layout(3).names("n1") == 0 {
		t.Errorf("with nobody to take over, n1 has %+v", x)
	}
	w.start(w.nodes["n1"])
	w.join("n3")
	w.settle()
	gone()
	for _, p := range w.now().Partitions[1:] {
		if x := p.on("n1"); x != nil && x.State != Removed {
			t.Errorf("partition %d waits for n1: %+v", p.ID, p.Replicas)
		}
	}
	if count := w.now().Layout(3).names("n1"); count > 0 {
		t.Errorf("%d chunk groups wait for n1", count)
	}
	w.start(w.nodes["n1"])
	w.settle()
}

// TestKeptHolderLost: a joint group waits until enough have adopted its epoch, and turns
// back when a holder that was to stay is lost: that one has to be replaced first.
func TestKeptHolderLost(t *testing.T) {
	w := newWorld(t, 5, 1, 4)
	w.join("n1")
	w.settle()
	two, err := NewWidth(w.now(), 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.propose(two)
	w.lies = func(_ *world, a Action) bool { return a.Command != nil && a.Command.Advance != nil }
	w.join("n2")
	w.join("n3")
	var kept NodeID
	for range 60 {
		w.heal()
		actions, err := Next(w.now(), w.observe())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range actions {
			w.run(a)
		}
	}
	for _, g := range w.now().Layout(2).Groups {
		for k, id := range g.Next {
			if id == g.Holders[k] {
				kept = id
			}
		}
	}
	copying := func(a Action) bool {
		return a.Command != nil && a.Command.Advance != nil && a.Command.Advance.To == Copying
	}
	o := w.observe()
	if actions, _ := Next(w.now(), o); !has(actions, copying) {
		t.Errorf("nothing is copied: %+v", actions)
	}
	for id, n := range o.Nodes {
		n.Epoch = 1
		o.Nodes[id] = n
	}
	if actions, _ := Next(w.now(), o); has(actions, copying) {
		t.Error("a group is copied that nobody has adopted")
	}
	if kept == "" || !w.bears(w.nodes[kept]) {
		t.Fatalf("no holder to lose: %s", w.describe())
	}
	w.nodes[kept].dead, w.nodes[kept].up = true, false
	w.lies = nil
	w.settle()
}

// BenchmarkLarge is one round of the planner, and one step, of 4096 partitions and 4096 groups on 12 nodes.
func BenchmarkLarge(b *testing.B) {
	state := memory{}
	c := bootstrapOf("n00", 4096, 4096)
	must(b, state, c)
	o := &Observed{Nodes: map[NodeID]NodeSeen{"n00": {Up: true}}}
	for i := 1; i < 12; i++ {
		id := NodeID(fmt.Sprintf("n%02d", i))
		replica := *must(b, state, &Command{Join: joinOf(id, byte(i+1))}).Replica
		for _, to := range []ReplicaState{Created, Learner} {
			must(b, state, &Command{Step: &Step{object.Control, replica, loaded(b, state).Epoch, to}})
		}
		must(b, state, &Command{Admit: &Admit{id, StoreID{byte(i + 1)}}})
		o.Nodes[id] = NodeSeen{Up: true}
	}
	plan, err := NewPlan(loaded(b, state))
	if err != nil {
		b.Fatal(err)
	}
	must(b, state, &Command{Plan: plan})
	s := loaded(b, state)
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			loaded(b, state)
		}
	})
	b.Run("Next", func(b *testing.B) {
		for b.Loop() {
			if _, err := Next(s, o); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Place", func(b *testing.B) {
		for b.Loop() {
			must(b, maps.Clone(state), &Command{Place: &Place{1, s.Target.Of(1)[1], s.Epoch}})
		}
	})
}

// TestDrainedGivesUpItsVote: of five nodes that all vote in the control group, one that
// drains is a voter no more, though there is no sixth to take its place: the setting says
// how many voters there are at most.
func TestDrainedGivesUpItsVote(t *testing.T) {
	s := newStore(t)
	s.ok(bootstrapOf("n0", 1, 1))
	for i := 1; i < MaxVoters; i++ {
		s.joined(nodeName(i), byte(i+1))
	}
	s.ok(&Command{Drain: &Drain{Node: "n0"}})
	voters := func() []NodeID {
		t.Helper()
		plan, err := NewPlan(s.load())
		if err != nil {
			t.Fatal(err)
		}
		target, err := decodeTarget(plan.Target)
		if err != nil {
			t.Fatal(err)
		}
		return target.Voters
	}
	if got := voters(); len(got) != MaxVoters-1 || slices.Contains(got, "n0") {
		t.Errorf("with n0 drained %v vote", got)
	}
	s.ok(&Command{Drain: &Drain{Node: "n0", Undo: true}})
	if got := voters(); len(got) != MaxVoters || !slices.Contains(got, "n0") {
		t.Errorf("with n0 back %v vote", got)
	}
}
