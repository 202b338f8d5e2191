package placement

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// chunk is the n-th of many chunk ids.
func chunk(n int) object.ChunkID {
	id := object.ChunkID{Owner: object.PartitionID(1 + n%64), Ordinal: uint32(n % 3)}
	binary.BigEndian.PutUint64(id.Upload[:], rand.New(rand.NewPCG(7, uint64(n))).Uint64())
	return id
}

// filled is the slots without the empty ones.
func filled(slots [][]NodeID) [][]NodeID {
	lists := make([][]NodeID, len(slots))
	for i, s := range slots {
		lists[i] = slices.DeleteFunc(slices.Clone(s), func(id NodeID) bool { return id == None })
	}
	return lists
}

// holders is every group's, now.
func holders(l *Layout) [][]NodeID {
	lists := make([][]NodeID, len(l.Groups))
	for i, g := range l.Groups {
		lists[i] = g.Holders
	}
	return lists
}

// anyLayout draws a layout and the nodes it is for.
func anyLayout(t *rapid.T) (*Layout, []Node) {
	nodes := anyNodes(t, 16)
	l, err := NewLayout(nodes, rapid.IntRange(1, 12).Draw(t, "width"), rapid.IntRange(1, 100).Draw(t, "groups"), 1)
	if err != nil {
		t.Fatalf("NewLayout: %v", err)
	}
	return l, nodes
}

// TestLayout: plans keep their promises, nodes keep their slots, and the steps
// lead there, with some moves given up on the way.
func TestLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, nodes := anyLayout(t)
		checkPlan(t, nodes, l.Width, make([][]NodeID, len(l.Groups)), filled(holders(l)))
		for range 2 {
			nodes = changed(t, nodes)
			plan, err := l.Plan(nodes)
			if err != nil {
				t.Fatal(err)
			}
			checkPlan(t, nodes, l.Width, holders(l), filled(plan))
			for i, g := range l.Groups {
				for k, id := range g.Holders {
					if at := slices.Index(plan[i], id); id != None && at >= 0 && at != k {
						t.Fatalf("%q goes from slot %d to %d", id, k, at)
					}
				}
			}
			l = carryOut(t, l, nodes, plan)
			if again, err := l.Plan(nodes); err != nil || !reflect.DeepEqual(again, plan) {
				t.Fatalf("a second plan changes the first: %v", err)
			}
		}
	})
}

// carryOut makes the moves of a plan, some at a time.
func carryOut(t *rapid.T, l *Layout, nodes []Node, plan [][]NodeID) *Layout {
	known := zones(nodes)
	apart := func(slots []NodeID) bool {
		list := filled([][]NodeID{slots})[0]
		return good(known, list) == len(list) && distinctZones(known, list)
	}
	for {
		todo, err := l.Moves(nodes, plan)
		if err != nil {
			t.Fatal(err)
		}
		start := Ready(todo, nil, rapid.IntRange(1, 100).Draw(t, "limit"), 20)
		if len(todo) == 0 {
			break
		}
		next, err := l.Begin(l.Epoch+1, start)
		if err != nil {
			t.Fatal(err)
		}
		if stray := next.Stray(plan); stray != nil {
			t.Fatalf("groups %v stray", stray)
		}
		targets := make([][]NodeID, len(next.Groups))
		for i, g := range next.Groups {
			targets[i] = g.target()
		}
		if again, err := next.Plan(nodes); err != nil || came(targets, again) != came(targets, plan) {
			t.Fatalf("on the way %d moves are left, planned again %d: %v", came(targets, plan), came(targets, again), err)
		}
		var done, dropped []int
		for i, mv := range start {
			if next.Groups[mv.Index].Next == nil || next.Groups[mv.Index].Since != next.Epoch {
				t.Fatalf("group %d has not begun: %v", mv.Index, next.Groups[mv.Index])
			}
			if i > 0 && rapid.IntRange(0, 9).Draw(t, "drop") == 0 {
				dropped = append(dropped, mv.Index)
			} else {
				done = append(done, mv.Index)
			}
		}
		if next, err = next.Finish(next.Epoch+1, done...); err == nil {
			next, err = next.Cancel(next.Epoch+1, dropped...)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range done {
			was, is := l.Groups[i].Holders, next.Groups[i].Holders
			if apart(was) && apart(plan[i]) && !apart(is) {
				t.Fatalf("between %v and %v, %v has two in one zone", was, plan[i], is)
			}
		}
		for _, i := range dropped {
			if !slices.Equal(next.Groups[i].Holders, l.Groups[i].Holders) {
				t.Fatalf("group %d is not where it was", i)
			}
		}
		l = next
	}
	if !reflect.DeepEqual(holders(l), plan) {
		t.Fatal("the moves do not lead to the plan")
	}
	return l
}

// TestLocate: every shard has its node, and every node its shard, moving or not.
func TestLocate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, nodes := anyLayout(t)
		nodes = changed(t, nodes)
		plan, err := l.Plan(nodes)
		if err != nil {
			t.Fatal(err)
		}
		todo, err := l.Moves(nodes, plan)
		if err != nil {
			t.Fatal(err)
		}
		if l, err = l.Begin(2, Ready(todo, nil, 50, 50)); err != nil {
			t.Fatal(err)
		}
		for n := range 50 {
			id := chunk(n)
			s := l.Locate(id)
			g := l.Groups[s.Group]
			list := s.Holders(nil)
			if s.Group != l.Group(id) || s.Since != g.Since || s.Joint != (g.Next != nil) || s.Width() != l.Width || len(list) != l.Width {
				t.Fatalf("%v does not fit %v", s, g)
			}
			for i := range l.Width {
				now, next := s.Now(i), s.Next(i)
				if now != list[i] || now != None && s.Shard(now) != i || next != None && s.Shard(next) != i {
					t.Fatalf("shard %d is on %q and %q in %v", i, now, next, s)
				}
				if k := slices.Index(g.Holders, now); now != None && g.target()[k] != next {
					t.Fatalf("shard %d of %v goes to %q", i, s, next)
				}
			}
			if s.Shard("nobody") != -1 || s.Shard(None) != -1 {
				t.Fatal("nobody has a shard")
			}
		}
	})
}

// TestChunksSpread: nodes hold their share of the chunks and of the data shards.
func TestChunksSpread(t *testing.T) {
	nodes := cluster(10, 5)
	nodes[4].Weight = 2
	l, err := NewLayout(nodes, 6, 1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	const chunks = 200_000
	all, data := map[NodeID]float64{}, map[NodeID]float64{}
	var dst []NodeID
	for n := range chunks {
		dst = l.Locate(chunk(n)).Holders(dst[:0])
		for i, id := range dst {
			all[id]++
			if i < 4 {
				data[id]++
			}
		}
	}
	share := fairShares(nodes, 1, 6)
	for _, n := range nodes {
		want, _ := share[n.ID].Float64()
		if got := all[n.ID] / chunks; got < want*0.97 || got > want*1.03 {
			t.Errorf("node %s has %.3f shards of a chunk, its share is %.3f", n.ID, got, want)
		}
		if got := data[n.ID] / all[n.ID]; got < 0.64 || got > 0.69 {
			t.Errorf("of node %s's shards %.3f are data, not 4 of 6", n.ID, got)
		}
	}
}

// TestHashIsPinned: with another hash no chunk would be found again.
func TestHashIsPinned(t *testing.T) {
	id := object.ChunkID{Owner: 0x0102, Upload: object.UploadID{1, 2, 3, 15: 16}, Ordinal: 7}
	if got := fmt.Sprintf("%016x", Hash(id)); got != "27932320e5702a33" {
		t.Errorf("the hash of %v is %s", id, got)
	}
}

func TestLocateAllocatesNothing(t *testing.T) {
	l, err := NewLayout(cluster(9, 3), 6, 64, 1)
	if err != nil {
		t.Fatal(err)
	}
	dst, id := make([]NodeID, 0, 6), chunk(1)
	if n := testing.AllocsPerRun(100, func() { dst = l.Locate(id).Holders(dst[:0]) }); n != 0 {
		t.Errorf("Locate allocates %v times", n)
	}
}

// TestStray: a destination dies on the way; the group goes back and starts again.
func TestStray(t *testing.T) {
	l, err := NewLayout(cluster(3, 1), 3, 16, 1)
	if err != nil {
		t.Fatal(err)
	}
	nodes := append(cluster(3, 1), Node{ID: "joins", Weight: 1})
	plan, _ := l.Plan(nodes)
	todo, _ := l.Moves(nodes, plan)
	moving, err := l.Begin(2, todo[:4])
	if err != nil {
		t.Fatal(err)
	}
	nodes = cluster(3, 1)
	if plan, err = moving.Plan(nodes); err != nil {
		t.Fatal(err)
	}
	stray := moving.Stray(plan)
	if len(stray) != 4 {
		t.Fatalf("%v stray", stray)
	}
	back, err := moving.Cancel(3, stray...)
	if err != nil || !reflect.DeepEqual(holders(back), holders(l)) || back.Stray(plan) != nil {
		t.Errorf("cancelled: %v, %v", back, err)
	}
}

func TestLayoutStepsRefuse(t *testing.T) {
	l, err := NewLayout(cluster(3, 1), 2, 1, 5)
	if err != nil {
		t.Fatal(err)
	}
	a, b := l.Groups[0].Holders[0], l.Groups[0].Holders[1]
	joint, err := l.Begin(6, []Move{{0, 0, a, "c"}})
	if err != nil || l.Groups[0].Next != nil {
		t.Fatalf("begun: %v, %v", err, l)
	}
	for name, try := range map[string]func() (*Layout, error){
		"old epoch":     func() (*Layout, error) { return l.Begin(5, nil) },
		"no such group": func() (*Layout, error) { return l.Begin(6, []Move{{1, 0, a, "c"}}) },
		"no such slot":  func() (*Layout, error) { return l.Begin(6, []Move{{0, 2, a, "c"}}) },
		"not there":     func() (*Layout, error) { return l.Begin(6, []Move{{0, 1, a, "c"}}) },
		"there already": func() (*Layout, error) { return l.Begin(6, []Move{{0, 0, a, b}}) },
		"slots change":  func() (*Layout, error) { return l.Begin(6, []Move{{0, 0, a, None}, {0, 1, b, a}}) },
		"joint already": func() (*Layout, error) { return joint.Begin(7, []Move{{0, 1, b, "d"}}) },
		"not joint":     func() (*Layout, error) { return l.Finish(6, 0) },
		"not joint 2":   func() (*Layout, error) { return l.Cancel(6, 0) },
		"no group":      func() (*Layout, error) { return joint.Finish(7, 1) },
	} {
		if _, err := try(); !object.IsKind(err, object.KindConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkLocate(b *testing.B) {
	l, err := NewLayout(cluster(50, 10), 6, 4096, 1)
	if err != nil {
		b.Fatal(err)
	}
	dst, id := make([]NodeID, 0, 6), chunk(1)
	b.ReportAllocs()
	for b.Loop() {
		id.Ordinal++
		dst = l.Locate(id).Holders(dst[:0])
	}
}
