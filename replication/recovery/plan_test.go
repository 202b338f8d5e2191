package recovery

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const cluster = "00112233445566778899aabbccddeeff"

// nodes of a cluster of so many, with generation 0 of every partition.
func nodesOf(count int) (list []Node) {
	for i := range count {
		id := control.NodeID(fmt.Sprintf("n%d", i+1))
		list = append(list, Node{ID: id, Store: "store-" + string(id), Peer: string(id) + ":1", Next: 5})
	}
	return list
}

func voters(ids ...string) (list []group.Member) {
	for _, id := range ids {
		list = append(list, group.Member{ID: id, Address: id, Voter: true})
	}
	return list
}

func replica(p object.PartitionID, id string, term, last uint64, members ...string) Replica {
	return Replica{Partition: p, ID: id, Remains: group.Remains{Replica: id, Term: term, Last: last, LastTerm: term, Members: voters(members...), Config: 1}}
}

func reportOf(id control.NodeID, s *State, list ...Replica) *Report {
	return &Report{Format: format, Cluster: cluster, Node: id, Store: "store-" + string(id), State: s, Replicas: list}
}

// TestChoosesTheLongestLog: by term, then by index; those that are left keep their votes,
// and an unusable replica neither votes nor goes on.
func TestChoosesTheLongestLog(t *testing.T) {
	five := []string{"n1", "n2", "n3", "n4", "n5"}
	state := &State{Partitions: 3, Nodes: nodesOf(5), Chunks: []Chunks{{Width: 3, Schemes: []int{0}, Groups: [][]control.NodeID{{"n1", "n3", ""}, {"n3", "n4", "n5"}, {"n1", "n2", ""}}}}}
	broken := replica(3, "n1", 9, 900, "n1", "n3", "n4")
	broken.Unusable = "it is"
	a := reportOf("n1", state, replica(0, "n1", 4, 10, five...), replica(1, "n1", 3, 70, "n1", "n2", "n3"), broken)
	b := reportOf("n2", &State{Partitions: 1}, replica(0, "n2", 3, 99, five...), replica(1, "n2#4", 3, 71, "n1", "n2#4", "n3"), replica(2, "n2", 6, 5, "n2", "n3", "n4"))
	lost := []control.NodeID{"n3", "n4", "n5"}
	p, err := New([]*Report{b, a}, lost, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	again, err := New([]*Report{a, b}, []control.NodeID{"n5", "n4", "n3", "n3"}, time.Unix(1e9, 0))
	if err != nil || again.To != p.To || p.To == p.From {
		t.Errorf("the order matters: %s, %s, %v", p.To, again.To, err)
	}
	for i, want := range []struct {
		node     control.NodeID
		index    uint64
		term     uint64
		members  string
		complete bool
		founded  bool
	}{
		{"n1", 10 + Jump, 5, "n1 n2", false, false},
		{"n2", 71 + Jump, 4, "n1 n2#4", true, false},
		{"n2", 5 + Jump, 7, "n2", false, false},
		{"n2", 900 + Jump, 10, "n2#1048584", false, true}, // beyond n2#4 and its next, 5
	} {
		x := p.Partitions[i]
		var names []string
		for _, m := range x.Members {
			if names = append(names, m.ID); !m.Voter {
				t.Errorf("partition %d: %s has no vote", i, m.ID)
			}
		}
		if x.Node != want.node || x.Index != want.index || x.Term != want.term || strings.Join(names, " ") != want.members || x.Complete() != want.complete || x.Founded != want.founded {
			t.Errorf("partition %d: %+v", i, x)
		}
	}
	if c := p.Chunks[0]; c != (LostChunks{Width: 3, Groups: 2, Gone: 1}) {
		t.Errorf("%+v", c)
	}
	var out bytes.Buffer
	if err := p.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"left:   n1, n2\n", "EVERYTHING", "after entry 10\n", "nothing\n", "2 of 4 partitions have no majority left", "1 of 4 partitions are lost as a whole", "1 have no holder left"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	c, err := p.Command()
	if err != nil || !slices.Equal(c.Recover.Lost, lost) || !c.Recover.Partitions[3].Founded || len(c.Recover.Partitions[1].Voters) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestIncompleteAccounts: a plan is made of all nodes that are left, and of one cluster.
func TestIncompleteAccounts(t *testing.T) {
	three := []string{"n1", "n2", "n3"}
	state := &State{Partitions: 1, Nodes: nodesOf(3)}
	good := func(id control.NodeID) *Report {
		return reportOf(id, state, replica(0, string(id), 4, 10, three...), replica(1, string(id), 4, 10, three...))
	}
	other, stranger, blind := good("n2"), good("n9"), reportOf("n1", nil)
	other.Cluster = "ff112233445566778899aabbccddeeff"
	second := good("n2")
	second.Store = "another"
	removed := &State{Partitions: 1, Nodes: nodesOf(3)}
	removed.Nodes[2].Removed = true
	far := reportOf("n1", state, replica(0, "n1", 4, maxIndex, three...), replica(1, "n1", 4, 10, three...))
	for _, c := range []struct {
		says    string
		lost    []control.NodeID
		reports []*Report
	}{
		{"needs the report", nil, nil},
		{"n2, n3", nil, []*Report{good("n1")}},
		{"is of cluster", []control.NodeID{"n3"}, []*Report{good("n1"), other}},
		{"two reports", []control.NodeID{"n3"}, []*Report{good("n1"), good("n2"), good("n2")}},
		{"named as lost", []control.NodeID{"n2", "n3"}, []*Report{good("n1"), good("n2")}},
		{"another store", []control.NodeID{"n3"}, []*Report{good("n1"), second}},
		{"does not know node n9", []control.NodeID{"n2", "n3"}, []*Report{good("n1"), stranger}},
		{`no node "n7"`, []control.NodeID{"n2", "n3", "n7"}, []*Report{good("n1")}},
		{`no node "n3"`, []control.NodeID{"n2", "n3"}, []*Report{reportOf("n1", removed, good("n1").Replicas...)}},
		{"restore a node from a backup", []control.NodeID{"n2", "n3"}, []*Report{blind}},
		{"recovered too often", []control.NodeID{"n2", "n3"}, []*Report{far}},
	} {
		if p, err := New(c.reports, c.lost, time.Now()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", c.says, p, err)
		}
	}
}

// Whatever is read as a report or a plan is one, or is refused.
func FuzzFiles(f *testing.F) {
	state := &State{Partitions: 1, Nodes: nodesOf(2)}
	r := reportOf("n1", state, replica(0, "n1", 4, 10, "n1", "n2"), replica(1, "n1", 4, 10, "n1", "n2"))
	p, err := New([]*Report{r}, []control.NodeID{"n2"}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	for _, encode := range []func() ([]byte, error){r.Encode, p.Encode} {
		b, err := encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(bytes.Replace(b, []byte(`"n1"`), []byte(`"n3"`), 1))
	}
	f.Add([]byte(`{"Format":1}`))
	f.Add([]byte(`{"Format":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeReport(b); err == nil {
			if _, err := New([]*Report{r}, nil, time.Now()); err != nil && object.KindOf(err) == object.KindInternal {
				t.Errorf("a fault: %v", err)
			}
		}
		if p, err := DecodePlan(b); err == nil {
			again, err := p.Encode()
			if q, err2 := DecodePlan(again); err != nil || err2 != nil || q.To != p.To {
				t.Errorf("%v, %v", err, err2)
			}
		}
	})
}
