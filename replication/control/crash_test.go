package control

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestCrashAtEveryStep plays one life of a cluster (three nodes join, one is drained
// and removed, one dies and is replaced, one loses a replica) and stops the acting node
// before or after each single action in turn; all that it knew is forgotten.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	count := life(t, -1, false)
	if count < 120 {
		t.Fatalf("a life has %d actions only", count)
	}
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for at := 0; at < count; at += stride {
		life(t, at, false)
		if at%4 == 0 { // otherwise as good as before the next one
			life(t, at, true)
		}
	}
}

// life plays and returns the number of actions.
func life(t fataler, at int, after bool) (count int) {
	w := newWorld(t, 1, 1, 2)
	w.log("crash at %d, after: %v", at, after)
	var stopped *simNode
	w.lies = func(w *world, a Action) bool {
		if stopped != nil {
			return true // the rest of the round was in its memory
		}
		if count++; count-1 != at {
			return false
		}
		if stopped = w.nodes[w.actor(a)]; after {
			hook := w.lies
			w.lies = nil
			w.do(a)
			w.lies = hook
		}
		w.log("crash of %s", stopped.id)
		stopped.up = false
		return true
	}
	settle := func() {
		for round := 0; ; round++ {
			if stopped != nil {
				w.start(stopped)
				stopped = nil
			}
			w.heal()
			w.write()
			actions, err := Next(w.now(), w.observe())
			if err != nil || round == 200 {
				w.fatalf("round %d: %d actions, %v", round, len(actions), err)
			}
			if w.bury() && len(actions) == 0 {
				return
			}
			for _, a := range actions {
				if stopped == nil {
					w.guard(a)
				}
				w.run(a)
			}
		}
	}
	for _, change := range []func(){
		func() { w.join("n1"); w.join("n2") },
		func() { w.join("n3") },
		func() { must(t, w.state, &Command{Drain: &Drain{Node: "n0"}}); w.reload() },
		func() { w.removeNode(w.nodes["n0"]) },
		func() { w.nodes["n2"].dead, w.nodes["n2"].up = true, false },
		func() { w.join("n4") },
		func() { w.loseReplica(w.nodes["n1"]) },
	} {
		change()
		settle()
	}
	w.checkConverged()
	return count
}

// reload reads the state after a command that did not pass propose.
func (w *world) reload() { w.history = append(w.history, loaded(w.t, w.state)) }

// actor is the node whose turn an action is.
func (w *world) actor(a Action) NodeID {
	p := int(a.Partition)
	switch a.By {
	case TheNode:
		return a.Node
	case ControlLeader:
		p = 0
	}
	if leader, ok := w.elect(p); ok {
		return leader.Node
	}
	return w.sorted()[0].id
}

// TestSimulationCatches plants executors that break a promise each.
func TestSimulationCatches(t *testing.T) {
	for name, lie := range map[string]struct {
		says string
		how  func(*world, Action) bool
	}{
		"a replica is destroyed while it votes": {"votes and is destroyed", func(w *world, a Action) bool {
			if a.Verb == Promote && a.Partition != object.Control {
				w.nodes[a.Replica.Node].held[ReplicaKey{a.Partition, a.Replica.Generation}] = HeldDestroyed
				w.groups[a.Partition].members[a.Replica] = true
				return true
			}
			return false
		}},
		"a copy is verified that was never made": {"is on", func(w *world, a Action) bool {
			if a.Verb == Copy {
				w.done[a.Group] = append(w.done[a.Group], a.Node)
				return true
			}
			return false
		}},
		"a vote that the map does not know": {"the map does not know", func(w *world, a Action) bool {
			if a.Verb == AddNonvoter && a.Partition != object.Control {
				w.groups[a.Partition].members[a.Replica] = true
			}
			return false
		}},
		"logs that are never sent": {"not done after", func(w *world, a Action) bool {
			return a.Verb == AddNonvoter
		}},
	} {
		caught := catch(func(t fataler) {
			w := newWorld(t, 3, 2, 2)
			w.lies = lie.how
			for i := range 300 {
				w.event()
				if i == 20 {
					w.join("x1")
					w.join("x2")
				}
			}
			w.settle()
		})
		if !strings.Contains(caught, lie.says) {
			t.Errorf("%s: %.200q", name, caught)
		}
	}
}

// catch returns what a check says when it fails.
func catch(check func(fataler)) (said string) {
	defer func() {
		if r := recover(); r != nil {
			said = fmt.Sprint(r)
		}
	}()
	check(panics{})
	return ""
}

type panics struct{}

func (panics) Helper()                           {}
func (panics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
