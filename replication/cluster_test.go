package replication

import (
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// TestClusterOfOne: a store is a cluster from its first start, and each start
// tells the control group which process it is and where.
func TestClusterOfOne(t *testing.T) {
	cfg := testConfig(t)
	var before *control.State
	var incarnations []control.Incarnation
	for _, api := range []string{"", "127.0.0.1:9080", "127.0.0.1:9081"} {
		cfg.API = api
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		state, err := n.Control(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		me := state.Node(control.NodeID(n.cfg.NodeID))
		if me == nil || me.State() != control.NodeUp || me.API != api || me.Incarnation != control.Incarnation(n.incarnation) {
			t.Fatalf("%+v", me)
		}
		if before != nil && (state.Cluster != before.Cluster || state.Epoch < before.Epoch || me.Store != before.Nodes[0].Store) {
			t.Errorf("cluster %x epoch %d became cluster %x epoch %d", before.Cluster, before.Epoch, state.Cluster, state.Epoch)
		}
		if len(state.Partitions) != 1+cfg.Partitions || len(state.Replicas(3)) != 1 || state.Replicas(3)[0].ID.String() != n.cfg.NodeID {
			t.Errorf("partition 3 is at %v", state.Replicas(3))
		}
		st, err := n.Status(t.Context())
		if err != nil || st.Cluster != object.UploadID(state.Cluster).String() || len(st.Nodes) != 1 || st.Nodes[0].State != "up" || st.Nodes[0].API != api {
			t.Errorf("%+v, %v", st, err)
		}
		before, incarnations = state, append(incarnations, me.Incarnation)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if past := before.Nodes[0].Past; len(past) != 2 || past[0] != incarnations[1] || past[1] != incarnations[0] {
		t.Errorf("past incarnations %x of %x", past, incarnations)
	}
}

// TestOtherClustersLayout: a description of the store that was taken from
// another cluster does not open.
func TestOtherClustersLayout(t *testing.T) {
	cfg := testConfig(t)
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := n.store
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, cluster := range []string{newUploadID().String(), "no id"} {
		l.Cluster = cluster
		if err := writeLayout(vfs.OS(), cfg.MetadataPath, &l); err != nil {
			t.Fatal(err)
		}
		n, err := Open(t.Context(), cfg)
		if !object.IsKind(err, object.KindCorrupt) || !strings.Contains(err.Error(), "backup") {
			t.Errorf("cluster %s: %v", cluster, err)
		}
		if err == nil {
			_ = n.Close()
		}
	}
}
