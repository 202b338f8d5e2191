package replication

import (
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// stateOf is a control state of nodes, with a layout of width 3 in which the first
// holders have a slot each in every group.
func stateOf(nodes, holders int) *control.State {
	s := &control.State{}
	var list []placement.Node
	for i := range nodes {
		id := control.NodeID("n" + string(rune('a'+i)))
		s.Nodes = append(s.Nodes, control.Node{ID: id, Life: control.NodeUp, Weight: 1})
		list = append(list, placement.Node{ID: id, Weight: 1})
	}
	l, err := placement.NewLayout(list[:holders], 3, 4, 1)
	if err != nil {
		panic(err)
	}
	s.Layouts = []*control.Layout{{Layout: l, Schemes: []int{0}}}
	return s
}

func TestHowManyNodesASchemeNeeds(t *testing.T) {
	for _, test := range []struct {
		nodes    int
		storage  string
		possible bool
		hint     string
	}{
		{1, "replicated:1", true, ""}, {1, "replicated:3", true, ""}, {1, "replicated:4", false, "replicated:3"}, {4, "replicated:4", true, ""}, {5, "replicated:9", false, "replicated:5"},
		{1, "rs:2+1", false, "choose copies"}, {2, "rs:2+1", false, "choose copies"}, {3, "rs:2+1", true, ""}, {5, "rs:4+2", false, "rs:4+1"}, {6, "rs:4+2", true, ""},
	} {
		err := enoughNodes(stateOf(test.nodes, 1), mustScheme(t, test.storage))
		if (err == nil) != test.possible {
			t.Errorf("%s on %d nodes: %v", test.storage, test.nodes, err)
		}
		if err != nil && (!object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), test.hint) || !strings.Contains(err.Error(), "add nodes")) {
			t.Errorf("%s on %d nodes: %v", test.storage, test.nodes, err)
		}
	}
	// Nodes that drain, are gone or have no weight take none of it.
	s := stateOf(6, 3)
	s.Nodes[0].Draining, s.Nodes[1].Gone, s.Nodes[2].Weight = true, true, 0
	if err := enoughNodes(s, mustScheme(t, "rs:2+1")); err != nil {
		t.Error(err)
	}
	wantKind(t, enoughNodes(s, mustScheme(t, "rs:2+2")), object.KindInvalid)
}

func TestShardsWaitForTheirHolders(t *testing.T) {
	for holders, want := range map[int]bool{1: false, 2: false, 3: true} {
		err := spreadOut(stateOf(3, holders), mustScheme(t, "rs:2+1"))
		if (err == nil) != want || err != nil && !object.IsKind(err, object.KindUnavailable) {
			t.Errorf("%d holders: %v", holders, err)
		}
		if err := spreadOut(stateOf(3, holders), object.DefaultScheme); err != nil {
			t.Error("copies do not wait:", err)
		}
	}
}
