package replication

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/steward"
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

// TestRecordsAreGone: the only node of a cluster says what to do, rather than wait
// for others to tell it; what it says brings everything back.
func TestRecordsAreGone(t *testing.T) {
	cfg := testConfig(t)
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, n, "a/b", []byte("hello"))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(cfg.MetadataPath, name)); err != nil {
			t.Fatal(err)
		}
	}
	remove(steward.RecordsName)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = Open(ctx, cfg)
	if wantKind(t, err, object.KindCorrupt); !strings.Contains(err.Error(), steward.IdentityName) {
		t.Errorf("no way out is named: %v", err)
	}
	remove(steward.IdentityName)
	n = openNode(t, cfg)
	if got := mustGet(t, n, "a/b"); string(got) != "hello" {
		t.Errorf("%q", got)
	}
}

// TestControlGroupFailsWhileOpening: a node alone does not wait for what will not come.
func TestControlGroupFailsWhileOpening(t *testing.T) {
	cfg := testConfig(t)
	cfg.opened = func(r *replica) {
		if r.group.ID() == object.Control {
			r.group.Fail(errors.New("its state cannot be stored (test)"))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := Open(ctx, cfg)
	if err == nil {
		_ = n.Close()
	}
	if wantKind(t, err, object.KindUnavailable); ctx.Err() != nil || !strings.Contains(err.Error(), "(test)") {
		t.Errorf("%v", err)
	}
}

// TestFoundedStoreDoesNotJoin: its replicas are those of another cluster.
func TestFoundedStoreDoesNotJoin(t *testing.T) {
	cfg := testConfig(t)
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.MetadataPath, steward.IdentityName)); err != nil {
		t.Fatal(err)
	}
	cfg.API, cfg.Peer, cfg.Join = "127.0.0.1:1", freeAddress(t), []string{freeAddress(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = Open(ctx, cfg)
	wantKind(t, err, object.KindExists)
}

// TestJoinerWithOtherPartitions: it is refused before anything is recorded, and told what
// to do; then its name is free for the store that does.
func TestJoinerWithOtherPartitions(t *testing.T) {
	cfg := testConfig(t)
	cfg.NodeID, cfg.API, cfg.Peer = "a", "127.0.0.1:1", freeAddress(t)
	a := openNode(t, cfg)
	joiner := func(partitions int) Config {
		c := testConfig(t)
		c.NodeID, c.API, c.Peer, c.Join, c.Partitions = "b", "127.0.0.1:1", freeAddress(t), []string{a.peerAddress}, partitions
		return c
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err := Open(ctx, joiner(cfg.Partitions+1))
	wantKind(t, err, object.KindInvalid)
	if want := fmt.Sprintf("-partitions %d", cfg.Partitions); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "empty directories") {
		t.Errorf("%v: it does not say %q on empty directories", err, want)
	}
	s, err := a.Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Nodes) != 1 {
		t.Errorf("the node that was refused is on record: %d nodes", len(s.Nodes))
	}
	openNode(t, joiner(cfg.Partitions))
}
