package control

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestConverges throws faults, membership changes, lost, repeated and late actions at
// the planner, and then lets it finish.
func TestConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 4).Draw(t, "partitions"), rapid.IntRange(1, 5).Draw(t, "groups"))
		for range rapid.SampledFrom([]int{0, 40, 80, 150, 300}).Draw(t, "steps") {
			w.event()
		}
		w.settle()
	})
}

// event is one thing that happens.
func (w *world) event() {
	old := w.history[max(0, len(w.history)-1-w.rnd.IntN(6))]
	switch k := w.rnd.IntN(20); {
	case k < 8:
		s, o := w.now(), w.observe()
		w.seen = append(w.seen, o)
		if w.rnd.IntN(3) == 0 {
			s = old // the driver's replica lags
		}
		if w.rnd.IntN(3) == 0 { // so does what it was told
			o = w.seen[max(0, len(w.seen)-1-w.rnd.IntN(6))]
		}
		w.drive(s, o)
	case k < 10:
		w.late()
	case k < 12:
		p := w.rnd.IntN(len(w.groups))
		w.commit(p, w.groups[p].members)
		for range 4 {
			w.write()
		}
	case k < 15:
		for p := range w.groups {
			w.catchUp(p, false)
		}
		for _, n := range w.sorted() {
			if n.up && w.rnd.IntN(2) == 0 {
				n.epoch = max(n.epoch, w.history[max(0, len(w.history)-1-w.rnd.IntN(3))].Epoch)
			}
			w.audit(n)
		}
	case k < 18:
		w.fault()
	default:
		w.operate()
	}
}

func (w *world) sorted() (list []*simNode) {
	for _, n := range w.nodes {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *simNode) int { return bytes.Compare([]byte(a.id), []byte(b.id)) })
	return list
}

func (w *world) any() *simNode {
	list := w.sorted()
	return list[w.rnd.IntN(len(list))]
}

// drive asks what is next and does some of it, some twice, some later.
func (w *world) drive(s *State, o *Observed) {
	actions, err := Next(s, o)
	if err != nil {
		w.fatalf("no plan: %v", err)
	}
	fresh := s == w.now() && o == w.seen[len(w.seen)-1]
	for _, a := range actions {
		if fresh {
			w.guard(a)
		}
		switch w.rnd.IntN(6) {
		case 0: // lost
		case 1:
			w.pending = append(w.pending, a)
		case 2:
			w.run(a)
			w.run(a)
		default:
			w.run(a)
		}
	}
}

func (w *world) run(a Action) {
	w.logAction(a)
	w.do(a)
}

func (w *world) logAction(a Action) {
	if a.Verb == Propose {
		w.log("propose %s", text(a.Command))
	} else {
		w.log("%s %s of %d at %q (group %v, config %d)", a.Verb, a.Replica, a.Partition, a.Node, a.Group, a.Config)
	}
}

// late does an action that was put off.
func (w *world) late() {
	if len(w.pending) > 0 {
		i := w.rnd.IntN(len(w.pending))
		a := w.pending[i]
		w.pending = slices.Delete(w.pending, i, i+1)
		w.log("late:")
		w.run(a)
	}
}

// fault stops, starts and damages nodes, but never beyond what a majority bears.
func (w *world) fault() {
	n := w.any()
	if n.dead {
		return
	}
	switch k := w.rnd.IntN(10); {
	case k < 4 && n.up:
		w.log("stop %s", n.id)
		n.up = false
	case k < 7:
		w.start(n)
	case k == 7 && w.bears(n):
		w.log("%s dies", n.id)
		n.dead, n.up = true, false
	case k == 8 && n.up:
		w.log("%s counts as gone", n.id)
		if rec := w.now().Node(n.id); rec != nil {
			n.up = false
			w.propose(&Command{MarkGone: &Mark{n.id, rec.Incarnation}})
		}
	case k == 9:
		w.loseReplica(n)
	}
}

func (w *world) start(n *simNode) {
	if n.up || n.dead {
		return
	}
	n.up, n.starts = true, n.starts+1
	w.log("start %s", n.id)
	j := joinOf(n.id, n.store)
	j.Incarnation = Incarnation{n.store, n.starts}
	w.propose(&Command{Update: &UpdateNode{j.Node, j.Store, j.Incarnation, j.API, j.Peer, j.Versions}})
}

// bears reports whether the cluster can do without a node for ever.
func (w *world) bears(n *simNode) bool {
	n.dead = true
	defer func() { n.dead = false }()
	for p := range w.groups {
		if !w.bearable(p) {
			return false
		}
	}
	for _, l := range w.now().Layouts {
		for _, g := range l.Groups {
			all, _, _ := holders(g.Holders, nil)
			if w.deadIn(g.Holders) > l.spare(all) {
				return false
			}
			if all, _, _ := holders(g.Next, nil); g.Next != nil && w.deadIn(g.Next) > l.spare(all) {
				return false
			}
		}
	}
	return true
}

// bearable reports whether the intact voters are a majority that has everything.
func (w *world) bearable(p int) bool {
	good, all := w.voters(w.groups[p].members, func(id ReplicaID) bool { return w.intact(p, id) })
	return len(good) > all/2
}

// loseReplica damages the log of one replica.
func (w *world) loseReplica(n *simNode) {
	for key, held := range n.held {
		if held != HeldLive {
			continue
		}
		n.held[key] = HeldLost
		if !w.bearable(int(key.Partition)) {
			n.held[key] = HeldLive
			continue
		}
		w.log("%s loses replica %d of partition %d", n.id, key.Generation, key.Partition)
		return
	}
}

// operate is what a person does.
func (w *world) operate() {
	n := w.any()
	switch w.rnd.IntN(9) {
	case 0, 1, 2:
		if n.dead && w.now().Node(n.id).Life == NodeRemoved {
			w.join(n.id) // the same name with another store
		} else if len(w.nodes) < 6 {
			w.join(nodeName(len(w.nodes)))
		}
	case 3:
		w.log("drain %s", n.id)
		w.propose(&Command{Drain: &Drain{Node: n.id, Undo: w.rnd.IntN(2) == 0}})
	case 4:
		w.removeNode(n)
	case 5:
		w.propose(&Command{SetWeight: &SetWeight{n.id, uint32(w.rnd.IntN(3))}})
	case 6:
		w.propose(&Command{SetZone: &SetZone{n.id, []string{"a", "b", "z"}[w.rnd.IntN(3)]}})
	case 7:
		set := w.now().Settings
		set.RF, set.Voters = 1+w.rnd.IntN(4), 1+w.rnd.IntN(5)
		w.propose(&Command{Configure: &set})
	case 8:
		if c, err := NewWidth(w.now(), 2+w.rnd.IntN(4), w.rnd.IntN(2)); err == nil {
			if slots, _ := decodeSlots(c.AddWidth.Width, c.AddWidth.Slots); !slices.ContainsFunc(slots, func(s []NodeID) bool { return w.deadIn(s) > 0 }) {
				w.propose(c) // else a node died that nobody misses yet: that is no test of the planner
			}
		}
	}
}

func (w *world) join(id NodeID) {
	w.stores++
	j := joinOf(id, w.stores)
	j.Zone = []string{"a", "b", "z"}[w.rnd.IntN(3)]
	w.log("join %s", id)
	if r := w.propose(&Command{Join: j}); !r.Failed {
		w.addNode(id, w.stores)
	}
}

// removeNode removes a node; its process ends.
func (w *world) removeNode(n *simNode) {
	if r := w.propose(&Command{Remove: &Remove{n.id}}); r.Failed {
		return
	}
	w.log("removed %s", n.id)
	n.dead, n.up = true, false
}

// settle ends all faults and checks that the plan is reached, and then left alone.
func (w *world) settle() {
	w.log("--- settle")
	w.pending = nil
	for _, n := range w.sorted() {
		w.start(n)
	}
	for round := 0; ; round++ {
		if round == 400 {
			actions, err := Next(w.now(), w.observe())
			for _, a := range actions {
				w.logAction(a)
			}
			w.fatalf("not done after %d rounds: %d actions, %v", round, len(actions), err)
		}
		w.heal()
		actions, err := Next(w.now(), w.observe())
		if err != nil {
			w.fatalf("no plan: %v", err)
		}
		if len(actions) == 0 {
			w.checkGone()
			if w.bury() {
				break
			}
		}
		for _, a := range actions {
			w.guard(a)
			w.run(a)
		}
	}
	w.checkConverged()
}

// heal does what goes on by itself.
func (w *world) heal() {
	for p := range w.groups {
		w.catchUp(p, true)
	}
	for _, n := range w.sorted() {
		if n.up {
			n.epoch = w.now().Epoch
			w.audit(n)
		}
	}
	w.repair()
}

// bury removes dead nodes, and reports whether none is left.
func (w *world) bury() bool {
	all := true
	for _, n := range w.sorted() {
		if rec := w.now().Node(n.id); n.dead && rec.Life != NodeRemoved {
			all = false
			if rec.Gone {
				w.propose(&Command{Remove: &Remove{n.id}})
			}
		}
	}
	return all
}

// checkGone: while there are others, nothing is left to nodes that are gone.
func (w *world) checkGone() {
	s, live := w.now(), 0
	for _, n := range s.Plannable() {
		if n.Weight > 0 {
			live++
		}
	}
	for i := range s.Partitions[1:] {
		for _, r := range s.Partitions[i+1].Replicas {
			if live >= s.Settings.RF && r.State == InForce && s.Node(r.ID.Node).Gone {
				w.fatalf("partition %d waits for %s, which is gone", i+1, r.ID)
			}
		}
	}
}

// guard: with everything known, no change of voters leaves less than a majority that answers.
func (w *world) guard(a Action) {
	if a.Verb != RemoveMember && a.Verb != Demote {
		return
	}
	p := int(a.Partition)
	if w.groups[p].config != a.Config || !w.groups[p].members[a.Replica] {
		return
	}
	rest := map[ReplicaID]bool{}
	for id, voter := range w.groups[p].members {
		rest[id] = voter && id != a.Replica
	}
	if good, all := w.voters(rest, func(id ReplicaID) bool { return w.alive(p, id) }); len(good) <= all/2 {
		w.fatalf("%s %s would leave partition %d with %d of %d voters", a.Verb, a.Replica, p, len(good), all)
	}
}

// checkConverged: everything is where the plan has it, and the plan is placement's.
func (w *world) checkConverged() {
	s := w.now()
	for i := range s.Partitions {
		p := &s.Partitions[i]
		var have []NodeID
		for _, r := range p.Replicas {
			if r.State == InForce && !r.Lost {
				have = append(have, r.ID.Node)
			} else if r.State != Learner || i != 0 {
				w.fatalf("partition %d: %s is %s for ever", i, r.ID, r.State)
			}
			if w.groups[i].members[r.ID] != (r.State == InForce) {
				w.fatalf("partition %d: %s is %s in the map and voter=%v in raft", i, r.ID, r.State, w.groups[i].members[r.ID])
			}
		}
		want := slices.Clone(s.Target.Of(p.ID))
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(have, want) {
			w.fatalf("partition %d is on %v, planned on %v", i, have, want)
		}
		if leader := w.groups[i].leader; !slices.Contains(want, leader.Node) {
			w.fatalf("partition %d is led by %s", i, leader)
		}
	}
	for _, l := range s.Layouts {
		if !slices.EqualFunc(targets(l.Layout), l.Target, slices.Equal[[]NodeID]) {
			w.fatalf("width %d is not as planned", l.Width)
		}
	}
	plan, err := NewPlan(s)
	if err != nil {
		w.fatalf("%v", err)
	}
	epoch := s.Epoch
	w.propose(&Command{Plan: plan})
	if actions, _ := Next(w.now(), w.observe()); len(actions) > 0 {
		for _, a := range actions {
			w.logAction(a)
		}
		w.fatalf("planned again at %d, the plan moves %d things", epoch, len(actions))
	}
	for id, n := range w.nodes {
		for key, held := range n.held {
			if held == HeldLive && !n.dead && s.Partitions[key.Partition].find(ReplicaID{id, key.Generation}) == nil {
				w.fatalf("%s keeps replica %d of partition %d, which is in no map", id, key.Generation, key.Partition)
			}
		}
	}
}
