package replication

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// listener reads a subscription.
type listener struct {
	t     testing.TB
	sub   *Subscription
	names map[string]int
	gaps  map[object.PartitionID]int
	at    map[object.PartitionID]uint64
}

func listen(t testing.TB, n *Node, since map[object.PartitionID]uint64) *listener {
	return &listener{t: t, sub: n.Subscribe(since), names: map[string]int{}, gaps: map[object.PartitionID]int{}, at: map[object.PartitionID]uint64{}}
}

// until reads events until done, for at most ten times the second that an event may take.
func (l *listener) until(what string, done func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	for !done() {
		list, err := l.sub.Next(ctx)
		if err != nil {
			l.t.Fatalf("waiting for %s: %v; names %v", what, err, l.names)
		}
		for _, e := range list {
			if e.Index < l.at[e.Partition] {
				l.t.Errorf("event %+v comes after index %d", e, l.at[e.Partition])
			}
			l.at[e.Partition] = max(l.at[e.Partition], e.Index)
			switch e.Kind {
			case EventGap:
				l.gaps[e.Partition]++
			case EventEntry:
				l.names[e.Name]++
			}
		}
	}
}

func (l *listener) has(names []string) func() bool {
	return func() bool {
		return !slices.ContainsFunc(names, func(name string) bool { return l.names[name] == 0 })
	}
}

// lacking are the partitions of which a node has no replica.
func lacking(n *Node) (list []object.PartitionID) {
	for _, p := range n.parts {
		if p.here.Load() == nil {
			list = append(list, p.id)
		}
	}
	return list
}

// TestEventsOfPartitionsElsewhere: who subscribes at any node hears of changes made
// anywhere, also of partitions that the node has no replica of, when it comes back to its
// positions, and when the node that told it is gone.
func TestEventsOfPartitionsElsewhere(t *testing.T) {
	began := time.Now()
	nodes := twoNodes(t, func(_ int, cfg *Config) { cfg.ReplicationFactor, cfg.Partitions, cfg.Logger = 1, 4, nil })
	waitFor(t, "partitions at one node each", func() bool {
		return !slices.ContainsFunc(nodes, func(n *Node) bool { return len(lacking(n)) < 2 })
	})
	t.Log(time.Since(began), "until the replicas are in place")
	round := 0
	put := func(n *Node) (names []string) {
		t.Helper()
		round++
		for i := range 8 {
			name := fmt.Sprintf("%d-%d", round, i)
			mustPut(t, n, fmt.Sprintf("d%d/%s", i, name), []byte("x"))
			names = append(names, name)
		}
		return names
	}
	for i := range 64 { // directories in all partitions: one without an entry has nothing to tell, not even a gap
		mustPut(t, nodes[0], fmt.Sprintf("d%d/first", i), []byte("x"))
	}
	for i, n := range nodes {
		l := listen(t, n, nil)
		miss := lacking(n)
		l.until("the beginning of streams from elsewhere", func() bool {
			return !slices.ContainsFunc(miss, func(p object.PartitionID) bool { return l.gaps[p] == 0 })
		})
		names := put(nodes[(i+1)%2])
		l.until("events at "+n.cfg.NodeID, l.has(names))
		l.sub.Close()
		names = put(nodes[i])
		again := listen(t, n, l.at)
		again.until("events since the last position at "+n.cfg.NodeID, again.has(names))
		for _, name := range names {
			if again.names[name] > 1 {
				t.Errorf("%s was told %d times", name, again.names[name])
			}
		}
		again.sub.Close()
	}
	// The node that tells of it starts again, and remembers nothing.
	l := listen(t, nodes[1], nil)
	miss := lacking(nodes[1])
	l.until("the beginning", func() bool {
		return !slices.ContainsFunc(miss, func(p object.PartitionID) bool { return l.gaps[p] == 0 })
	})
	if err := nodes[0].Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), nodes[0].cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	l.until("events after the node came back", l.has(put(again)))
	l.sub.Close()
	waitFor(t, "the end of feeds", func() bool {
		nodes[1].hub.mu.Lock()
		defer nodes[1].hub.mu.Unlock()
		return nodes[1].hub.subs == 0
	})
}

// TestFeedFallsBack: a position that a node has not kept, or an index that it lacks the
// events of, is told as a gap; nothing is told twice, whoever tells it.
func TestFeedFallsBack(t *testing.T) {
	n, _ := newNode(t)
	h := n.hub
	_, dir, err := n.root(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	root := dir.Partition()
	seen := n.parts[root].here.Load().machine.Applied()
	mustPut(t, n, "a", []byte("x"))
	a, _ := n.feedNow(&feedAsk{Parts: []feedPart{{ID: uint16(root), Now: true}, {ID: 60000, Index: 3}}})
	if len(a.Absent) != 1 || a.Absent[0] != 60000 || len(a.Gaps) != 1 || a.Gaps[0].Index <= seen || len(a.Events) != 0 {
		t.Errorf("from now on: %+v", a)
	}
	a, _ = n.feedNow(&feedAsk{Parts: []feedPart{{ID: uint16(root), Index: seen}}})
	if len(a.Gaps) != 0 || len(a.Events) == 0 || a.Events[0].Index <= seen {
		t.Errorf("behind a position: %+v", a)
	}
	h.mu.Lock()
	h.lost[root] = seen + 1
	h.mu.Unlock()
	b, _ := n.feedNow(&feedAsk{Parts: []feedPart{{ID: uint16(root), Index: seen}}})
	if len(b.Gaps) != 1 || b.Gaps[0].Index != seen+1 {
		t.Errorf("behind a position that is lost: %+v", b)
	}

	to := newHub()
	to.subs, to.term = 1, 1
	to.last[root] = seen
	to.fed(1, a)
	k := len(to.ring)
	to.fed(1, a)
	to.fed(2, b)
	if k == 0 || len(to.ring) != k {
		t.Errorf("%d events became %d", k, len(to.ring))
	}
	to.fed(1, &feedAnswer{Gaps: []feedPart{{ID: uint16(root), Index: seen + 1000}}})
	if e := to.ring[len(to.ring)-1]; e.Kind != EventGap || e.Index != seen+1000 {
		t.Errorf("%+v", e)
	}
}

func FuzzFeed(f *testing.F) {
	ask := feedAsk{Parts: []feedPart{{ID: 3, Index: 7}}}
	good, err := cbor.Marshal(&feedAnswer{Gaps: []feedPart{{ID: 3}}, Events: []feedEvent{{Part: 3, Kind: EventInode, Name: []byte{0xff}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	other, _ := cbor.Marshal(&ask)
	f.Add(other)
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := decodeFeedAnswer(b, &ask); err == nil {
			h := newHub()
			h.subs = 1
			h.fed(0, &a)
			for _, e := range h.ring {
				if e.Partition != 3 {
					t.Errorf("%+v", e)
				}
			}
		}
		if a, err := decodeFeedAsk(b); err == nil && len(a.Parts) > object.MaxPartitions {
			t.Error(len(a.Parts))
		}
	})
}

// Who told until now may be cut off from its leader, and then has no news: who leads is asked as
// soon as that is known.
func TestEventsComeFromTheLeader(t *testing.T) {
	can := []string{"a", "b", "c"}
	for _, c := range []struct {
		can                 []string
		leader, until, want string
	}{{can, "c", "b", "c"}, {can, "", "b", "b"}, {can, "shunned", "b", "b"}, {can, "", "", "a"}, {can, "", "shunned", "a"}, {nil, "c", "b", ""}} {
		if got := teller(c.can, c.leader, c.until); got != c.want {
			t.Errorf("of %v, where %q leads and %q told: %q, want %q", c.can, c.leader, c.until, got, c.want)
		}
	}
}
