package replication

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/recovery"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// bodyOf is what an object of these tests has; every tenth is in chunks.
func bodyOf(key string, i int) string {
	if i%10 == 0 {
		return strings.Repeat(key, 20_000)
	}
	return key
}

func putSome(t testing.TB, n *Node, prefix string, count int) {
	t.Helper()
	for i := range count {
		key := fmt.Sprintf("dir%d/%s-%d", i%5, prefix, i)
		b := bodyOf(key, i)
		if _, err := n.Put(t.Context(), "box", key, strings.NewReader(b), PutOptions{Size: int64(len(b))}); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
}

func getSome(t testing.TB, n *Node, prefix string, count int) {
	t.Helper()
	for i := range count {
		key := fmt.Sprintf("dir%d/%s-%d", i%5, prefix, i)
		r, err := n.OpenObject(t.Context(), "box", key)
		if err != nil {
			t.Fatalf("%s at %s: %v", key, n.cfg.NodeID, err)
		}
		var b bytes.Buffer
		err = r.WriteRange(t.Context(), &b, 0, r.Inode().Size)
		r.Close()
		if err != nil || b.String() != bodyOf(key, i) {
			t.Fatalf("%s at %s has %d bytes, or others: %v", key, n.cfg.NodeID, b.Len(), err)
		}
	}
}

// reopened starts a node on its directories again.
func reopened(t testing.TB, cfg Config) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := Open(ctx, cfg)
	if err != nil {
		t.Fatalf("node %s: %v", cfg.NodeID, err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func reportOf(t testing.TB, cfg Config) *recovery.Report {
	t.Helper()
	r, err := Inspect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if r, err = recovery.DecodeReport(b); err != nil { // as it is carried to where the plan is made
		t.Fatal(err)
	}
	return r
}

func planOf(t testing.TB, lost []control.NodeID, reports ...*recovery.Report) *recovery.Plan {
	t.Helper()
	p, err := recovery.New(reports, lost, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if p, err = recovery.DecodePlan(b); err != nil {
		t.Fatal(err)
	}
	return p
}

func closeAll(t testing.TB, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecoverOneOfThree: two of three nodes are lost for good. What the third has is
// there, new nodes join and replicate it, and the lost ones are told why they are refused.
func TestRecoverOneOfThree(t *testing.T) {
	nodes := threeNodes(t)
	if _, err := nodes[0].CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	putSome(t, nodes[0], "early", 20)
	settled(t, nodes[0])
	putSome(t, nodes[1], "late", 20)
	was, err := nodes[0].Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfgs := []Config{nodes[0].cfg, nodes[1].cfg, nodes[2].cfg}
	if _, err := Inspect(t.Context(), cfgs[0]); !object.IsKind(err, object.KindBusy) {
		t.Errorf("a running node is inspected: %v", err)
	}
	closeAll(t, nodes...)

	r := reportOf(t, cfgs[0])
	if _, err := recovery.New([]*recovery.Report{r}, []control.NodeID{"n2"}, time.Now()); !object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), "n3") {
		t.Errorf("a plan without a word about n3: %v", err)
	}
	p := planOf(t, []control.NodeID{"n2", "n3"}, r)
	for _, x := range p.Partitions {
		if x.Complete() || x.Founded || x.Voters != 3 || x.VotersLeft != 1 {
			t.Errorf("partition %d: %+v", x.Partition, x)
		}
	}
	if err := Recover(t.Context(), cfgs[0], p); err != nil {
		t.Fatal(err)
	}
	if err := Recover(t.Context(), cfgs[0], p); err != nil {
		t.Errorf("a repeat: %v", err)
	}

	n := reopened(t, cfgs[0])
	getSome(t, n, "early", 20)
	getSome(t, n, "late", 20)
	putSome(t, n, "after", 10)
	now, err := n.Control(t.Context())
	if err != nil || now.Cluster == was.Cluster || len(now.Former) != 1 || now.Former[0] != was.Cluster {
		t.Fatalf("cluster %x became %x, formerly %x, %v", was.Cluster, now.Cluster, now.Former, err)
	}

	// Both lost nodes are back: together they are a majority of what the cluster was.
	for _, cfg := range cfgs[1:] {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		back, err := Open(ctx, cfg)
		cancel()
		if !object.IsKind(err, object.KindPermission) || !strings.Contains(err.Error(), "recovered without node "+cfg.NodeID) {
			t.Errorf("node %s came back: %v", cfg.NodeID, err)
		}
		if err == nil {
			_ = back.Close()
		}
	}

	// On empty directories they, and others, are welcome.
	all := []*Node{n}
	for _, id := range []string{"n2", "n4"} {
		cfg := testConfig(t)
		cfg.NodeID, cfg.API, cfg.Peer, cfg.LeasePeriod = id, "127.0.0.1:1", freeAddress(t), 30*time.Second
		cfg.Join = []string{n.cfg.Peer}
		all = append(all, reopened(t, cfg))
	}
	settled(t, n)
	for _, n := range all {
		getSome(t, n, "early", 20)
		getSome(t, n, "late", 20)
		getSome(t, n, "after", 10)
	}
	closeAll(t, all[1]) // the two others have everything
	putSome(t, all[2], "last", 10)
	getSome(t, all[2], "late", 20)
}

// TestRecoverKilled: a node whose memtables were lost with its process is recovered as one
// that was stopped, from its log.
func TestRecoverKilled(t *testing.T) {
	nodes := threeNodes(t)
	if _, err := nodes[0].CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	settled(t, nodes[0])
	putSome(t, nodes[0], "k", 20)
	cfgs := []Config{nodes[0].cfg, nodes[1].cfg, nodes[2].cfg}
	// As kill -9 leaves them, but for what the disk has: copies of the open directories.
	copied := testConfig(t)
	for from, to := range map[string]string{cfgs[0].MetadataPath: copied.MetadataPath, cfgs[0].StoragePaths[0]: copied.StoragePaths[0]} {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	closeAll(t, nodes...)
	cfg := cfgs[0]
	cfg.MetadataPath, cfg.StoragePaths = copied.MetadataPath, copied.StoragePaths
	p := planOf(t, []control.NodeID{"n2", "n3"}, reportOf(t, cfg))
	if err := Recover(t.Context(), cfg, p); err != nil {
		t.Fatal(err)
	}
	n := reopened(t, cfg)
	getSome(t, n, "k", 20)
	r, err := n.Check(t.Context())
	if err != nil || len(r.Problems) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestRecoverRefused: a plan is for the stores as their reports have them.
func TestRecoverRefused(t *testing.T) {
	cfg := testConfig(t)
	n := openNode(t, cfg)
	closeAll(t, n)
	empty := testConfig(t)
	if _, err := Inspect(t.Context(), empty); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("no store: %v", err)
	}
	if _, err := os.Stat(filepath.Join(empty.MetadataPath, "badger")); err == nil {
		t.Error("something was made")
	}
	p := planOf(t, nil, reportOf(t, cfg))
	n = openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	closeAll(t, n)
	if err := Recover(t.Context(), cfg, p); !object.IsKind(err, object.KindConflict) {
		t.Errorf("the node has run since: %v", err)
	}
	n = openNode(t, cfg) // nothing was changed
	closeAll(t, n)
}
