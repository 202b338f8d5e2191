package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// world is a model of a cluster: the control state for real, and around it nodes,
// raft groups and chunks reduced to what the planner could harm.
type world struct {
	t       fataler
	rnd     *rand.Rand
	state   memory
	history []*State // after each command, the newest last
	nodes   map[NodeID]*simNode
	groups  []*simGroup             // by partition
	acked   map[groupID]map[int]int // chunk → its scheme
	chunks  int
	done    map[GroupKey][]NodeID
	given   map[string]bool // replica ids, ever
	stores  byte
	pending []Action
	seen    []*Observed
	trace   []string
	refused int
	took    map[string]int // what was taken, by kind, for the statistics
	lies    func(*world, Action) bool
}

type groupID struct{ width, group int }

type simNode struct {
	id       NodeID
	store    byte
	starts   byte
	up, dead bool // dead: never comes back
	epoch    uint64
	held     map[ReplicaKey]Held
	files    map[groupID]map[int]bool
}

// simGroup is raft: a log of which only the length counts.
type simGroup struct {
	members   map[ReplicaID]bool // true: voter
	config    uint64
	committed int
	has       map[ReplicaID]int
	leader    ReplicaID
}

func newWorld(t fataler, seed uint64, partitions, groups int) *world {
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), state: memory{}, nodes: map[NodeID]*simNode{}, acked: map[groupID]map[int]int{},
		done: map[GroupKey][]NodeID{}, given: map[string]bool{}, took: map[string]int{},
	}
	w.stores = 1
	first := w.addNode("n0", 1)
	c := bootstrapOf("n0", partitions, groups)
	c.Bootstrap.Settings.Moves, c.Bootstrap.Settings.GroupMoves = 2, 3
	must(t, w.state, c)
	id := ReplicaID{Node: "n0"}
	for p := range partitions + 1 {
		w.groups = append(w.groups, &simGroup{members: map[ReplicaID]bool{id: true}, config: 1, has: map[ReplicaID]int{}})
		first.held[ReplicaKey{object.PartitionID(p), 0}] = HeldLive
	}
	w.given[id.String()] = true
	w.history = append(w.history, loaded(t, w.state))
	return w
}

func (w *world) addNode(id NodeID, store byte) *simNode {
	n := &simNode{id: id, store: store, starts: 1, up: true, held: map[ReplicaKey]Held{}, files: map[groupID]map[int]bool{}}
	w.nodes[id] = n
	return n
}

func (w *world) now() *State { return w.history[len(w.history)-1] }

// at is the state that a node has which adopted an epoch.
func (w *world) at(epoch uint64) *State {
	for _, s := range slices.Backward(w.history) {
		if s.Epoch <= epoch {
			return s
		}
	}
	return w.history[0]
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	tail := w.trace[max(0, len(w.trace)-80):]
	text := ""
	for _, l := range tail {
		text += "\n  " + l
	}
	w.t.Fatalf(format+"%s\n%s", append(args, text, w.describe())...)
}

func (w *world) describe() (text string) {
	s := w.now()
	for _, n := range s.Nodes {
		text += fmt.Sprintf("\n%s %s weight %d", n.ID, n.State(), n.Weight)
		if m := w.nodes[n.ID]; m != nil {
			text += fmt.Sprintf(" up %v dead %v epoch %d", m.up, m.dead, m.epoch)
		}
	}
	for i, p := range s.Partitions {
		text += fmt.Sprintf("\npartition %d since %d target %v: %v; raft %v leader %v", i, p.Since, s.Target.Of(p.ID), p.Replicas, w.groups[i].members, w.groups[i].leader)
	}
	for _, l := range s.Layouts {
		text += fmt.Sprintf("\nwidth %d target %v: %v copying %v", l.Width, l.Target, l.Groups, l.Copying)
	}
	return text + fmt.Sprintf("\nepoch %d inputs %d planned %d", s.Epoch, s.Inputs, s.Planned)
}

// intact reports whether a replica is whole, whether or not its node runs.
func (w *world) intact(p int, id ReplicaID) bool {
	n := w.nodes[id.Node]
	return n != nil && !n.dead && n.held[ReplicaKey{object.PartitionID(p), id.Generation}] == HeldLive
}

func (w *world) alive(p int, id ReplicaID) bool { return w.intact(p, id) && w.nodes[id.Node].up }

// voters counts those of a configuration for which ok holds.
func (w *world) voters(members map[ReplicaID]bool, ok func(ReplicaID) bool) (good []ReplicaID, all int) {
	for id, voter := range members {
		if voter {
			if all++; ok(id) {
				good = append(good, id)
			}
		}
	}
	slices.SortFunc(good, func(a, b ReplicaID) int { return int(a.Generation) - int(b.Generation) })
	return good, all
}

// elect returns the leader of a group, if it can have one.
func (w *world) elect(p int) (ReplicaID, bool) {
	g := w.groups[p]
	good, all := w.voters(g.members, func(id ReplicaID) bool { return w.alive(p, id) })
	if len(good) <= all/2 {
		return ReplicaID{}, false
	}
	if slices.Contains(good, g.leader) && g.has[g.leader] == g.committed {
		return g.leader, true
	}
	for _, id := range good {
		if g.has[id] == g.committed {
			g.leader = id
			return id, true
		}
	}
	w.fatalf("partition %d lost what it acknowledged: none of %v has all %d entries, %v", p, good, g.committed, g.has)
	return ReplicaID{}, false
}

// commit replicates to a bare majority of some voters, the leader among them.
func (w *world) commit(p int, members map[ReplicaID]bool) bool {
	leader, ok := w.elect(p)
	if !ok {
		return false
	}
	g := w.groups[p]
	good, all := w.voters(members, func(id ReplicaID) bool { return w.alive(p, id) })
	if len(good) <= all/2 {
		return false
	}
	g.committed++
	g.has[leader] = g.committed
	w.rnd.Shuffle(len(good), func(i, k int) { good[i], good[k] = good[k], good[i] })
	need := all/2 + 1
	if members[leader] {
		need--
	}
	for _, id := range good {
		if id != leader && need > 0 {
			g.has[id] = g.committed
			need--
		}
	}
	return true
}

// propose sends a command to the control group.
func (w *world) propose(c *Command) *Result {
	if !w.commit(0, w.groups[0].members) {
		return &Result{Failed: true, Kind: object.KindUnavailable}
	}
	before := w.now()
	r := apply(w.t, w.state, c)
	if r.Failed {
		w.refused++
		w.log("refused: %v", r.Message)
		return r
	}
	w.took[kind(c)]++
	s := loaded(w.t, w.state)
	w.history = append(w.history, s)
	if c.Place != nil || c.Join != nil {
		w.note(before, s)
	}
	if st := c.Step; st != nil && (st.To == Leaving || st.To == Demoting) {
		p := &before.Partitions[st.Partition]
		if x := p.find(st.Replica); x.State == InForce && !x.Lost {
			for _, id := range before.Target.Of(p.ID) {
				if y := p.on(id); y == nil || y.State != InForce || y.Lost {
					w.fatalf("%s goes from partition %d before %s has come", x.ID, p.ID, id)
				}
			}
		}
	}
	w.checkState(s)
	return r
}

// note checks that replica ids are new.
func (w *world) note(before, after *State) {
	for i := range after.Partitions {
		for _, r := range after.Partitions[i].Replicas {
			if before.Partitions[i].find(r.ID) == nil {
				if w.given[r.ID.String()] {
					w.fatalf("replica id %s was given twice", r.ID)
				}
				w.given[r.ID.String()] = true
			}
		}
	}
}

// checkState checks what must hold after every single command.
func (w *world) checkState(s *State) {
	for i := range s.Partitions {
		p := &s.Partitions[i]
		changing := 0
		for _, r := range p.Replicas {
			if r.changing() {
				changing++
			}
		}
		if changing > 1 {
			w.fatalf("partition %d changes %d voters at once", i, changing)
		}
		w.checkVoters(p)
	}
	for _, l := range s.Layouts {
		for i, g := range l.Groups {
			all, _, _ := holders(g.Holders, nil)
			for chunk, scheme := range w.acked[groupID{l.Width, i}] {
				have, live := 0, 0
				for _, id := range g.Holders {
					if n := w.nodes[id]; n != nil && n.files[groupID{l.Width, i}][chunk] {
						if have++; !n.dead {
							live++
						}
					}
				}
				if have < quorum(scheme, all) || live < max(1, min(scheme, all)) {
					w.fatalf("chunk %d (scheme %d) of group %d is on %d of %v, %d alive", chunk, scheme, i, have, g.Holders, live)
				}
			}
		}
	}
}

// deadIn counts holders that never come back: their copies are gone with them.
func (w *world) deadIn(slots []NodeID) (count int) {
	for _, id := range slots {
		if n := w.nodes[id]; id != placement.None && (n == nil || n.dead) {
			count++
		}
	}
	return count
}

// checkVoters: the map knows everybody who may vote, and none of them is destroyed.
func (w *world) checkVoters(p *Partition) {
	for id, voter := range w.groups[p.ID].members {
		if !voter {
			continue
		}
		if r := p.find(id); r == nil || !r.mayVote() {
			w.fatalf("partition %d: %s votes, and the map does not know", p.ID, id)
		}
		if n := w.nodes[id.Node]; n != nil && n.held[ReplicaKey{p.ID, id.Generation}] == HeldDestroyed {
			w.fatalf("partition %d: %s votes and is destroyed", p.ID, id)
		}
	}
}

// observe is what a perfect observer sees now.
func (w *world) observe() *Observed {
	o := &Observed{Nodes: map[NodeID]NodeSeen{}, Partitions: map[object.PartitionID]GroupSeen{}, Verified: map[GroupKey][]NodeID{}}
	for id, n := range w.nodes {
		seen := NodeSeen{Up: n.up && !n.dead}
		if seen.Up {
			seen.Epoch, seen.Replicas = n.epoch, map[ReplicaKey]Held{}
			for k, h := range n.held {
				seen.Replicas[k] = h
			}
		} else if n.dead {
			seen.Silent = time.Hour
		}
		o.Nodes[id] = seen
	}
	for p, g := range w.groups {
		leader, ok := w.elect(p)
		if !ok || w.outstanding(p) {
			continue
		}
		seen := GroupSeen{Epoch: w.nodes[leader.Node].epoch, Current: w.now().Epoch, Leader: leader, Members: map[ReplicaID]bool{}, Config: g.config, CaughtUp: map[ReplicaID]bool{}}
		for id, voter := range g.members {
			seen.Members[id] = voter
			if !voter && w.alive(p, id) && g.has[id]+1 >= g.committed {
				seen.CaughtUp[id] = true
			}
		}
		o.Partitions[object.PartitionID(p)] = seen
	}
	for k, v := range w.done {
		o.Verified[k] = slices.Clone(v)
	}
	return o
}

// outstanding reports whether a group's leader still has a change under way; now and
// then it is given up: the leader's term has ended.
func (w *world) outstanding(p int) bool {
	mine := func(a Action) bool { return a.Verb >= AddNonvoter && a.Verb <= RemoveMember && int(a.Partition) == p }
	if w.rnd.IntN(2) == 0 {
		w.pending = slices.DeleteFunc(w.pending, mine)
	}
	return slices.ContainsFunc(w.pending, mine)
}

// do carries out an action, as far as it can be now.
func (w *world) do(a Action) {
	p := int(a.Partition)
	if w.lies != nil && w.lies(w, a) {
		return
	}
	w.took[a.Verb.String()]++
	switch n := w.nodes[a.Node]; a.Verb {
	case Propose:
		w.propose(a.Command)
	case Create:
		key := ReplicaKey{a.Partition, a.Replica.Generation}
		if n != nil && n.up && !n.dead && n.held[key] == 0 {
			n.held[key] = HeldLive
		}
	case Destroy:
		if n != nil && n.up && !n.dead {
			n.held[ReplicaKey{a.Partition, a.Replica.Generation}] = HeldDestroyed
		}
	case Copy:
		w.copyGroup(a, n)
	default:
		w.reconfigure(p, a)
	}
}

// reconfigure changes the members or the leader of a group, as raft does.
func (w *world) reconfigure(p int, a Action) {
	g := w.groups[p]
	leader, ok := w.elect(p)
	if !ok || g.config != a.Config {
		return
	}
	voter, member := g.members[a.Replica]
	next := map[ReplicaID]bool{}
	for id, v := range g.members {
		next[id] = v
	}
	switch {
	case a.Verb == Transfer:
		if voter && w.alive(p, a.Replica) {
			g.has[a.Replica], g.leader = g.committed, a.Replica
		}
		return
	case a.Verb == AddNonvoter && !member:
		next[a.Replica] = false
	case a.Verb == Promote && member && !voter && w.alive(p, a.Replica):
		next[a.Replica] = true
	case a.Verb == Demote && voter && leader != a.Replica:
		next[a.Replica] = false
	case a.Verb == RemoveMember && member && leader != a.Replica:
		delete(next, a.Replica)
	default:
		return
	}
	if w.commit(p, next) {
		g.members = next
		g.config++
	}
}

// catchUp sends logs to replicas that answer.
func (w *world) catchUp(p int, all bool) {
	if _, ok := w.elect(p); !ok {
		return
	}
	g := w.groups[p]
	for id := range g.members {
		if w.alive(p, id) && (all || w.rnd.IntN(2) == 0) {
			g.has[id] = g.committed
		}
	}
}
