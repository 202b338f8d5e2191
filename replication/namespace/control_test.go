package namespace

import (
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func bootstrap(t *testing.T, cluster byte) []byte {
	t.Helper()
	c := &control.Command{Bootstrap: &control.Bootstrap{Cluster: control.ClusterID{cluster}, Partitions: 4, Groups: 16, Settings: control.DefaultSettings(),
		Node: control.Join{Node: "a", Store: control.StoreID{1}, Incarnation: control.Incarnation{1}, Weight: 1, Versions: control.Versions{Min: 1, Max: 1}}}}
	data, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestControlState: partition 0 keeps it beside its names, says when it changed,
// and a command that fails leaves it as it is.
func TestControlState(t *testing.T) {
	a := newApplier(t)
	changes := 0
	a.m.o.OnControl = func() { changes++ }
	v := a.m.View()
	if _, err := v.Control(); !object.IsKind(err, object.KindNotFound) {
		t.Errorf("before the bootstrap: %v", err)
	}
	v.Close()
	r := a.apply(&Command{Control: bootstrap(t, 1)})
	if r.Control == nil || r.Control.Cluster != (control.ClusterID{1}) || changes != 1 {
		t.Fatalf("%+v, %d changes", r.Control, changes)
	}
	for what, data := range map[string][]byte{"another cluster": bootstrap(t, 2), "nonsense": {1, 0xff}, "a later format": {9}} {
		if r := a.attempt(&Command{Control: data}); !r.Failed {
			t.Errorf("%s is taken", what)
		}
	}
	v = a.m.View()
	defer v.Close()
	s, err := v.Control()
	if err != nil {
		t.Fatal(err)
	}
	if s.Cluster != (control.ClusterID{1}) || len(s.Nodes) != 1 || changes != 1 {
		t.Errorf("cluster %x, %d nodes, %d changes", s.Cluster, len(s.Nodes), changes)
	}
	if e := a.look("a"); e != nil {
		t.Error("a node became a name")
	}
}

// TestControlStateElsewhere: other partitions refuse its commands.
func TestControlStateElsewhere(t *testing.T) {
	a := newApplier(t)
	a.m.o.Partition = 1
	if r := a.attempt(&Command{Control: bootstrap(t, 1)}); r.Kind != object.KindInvalid {
		t.Errorf("%+v", r)
	}
}

// attempt is apply for a command that may fail.
func (a *applier) attempt(c *Command) *Result {
	a.t.Helper()
	data, err := c.Encode()
	if err != nil {
		a.t.Fatal(err)
	}
	a.index++
	r, err := a.m.Apply([]group.Entry{{Index: a.index, Data: data}})
	if err != nil {
		a.t.Fatal(err)
	}
	return r[0].(*Result)
}
