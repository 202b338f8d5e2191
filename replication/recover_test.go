package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/recovery"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
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
	inForce(t, nodes[0], 3, 3)
	putSome(t, nodes[1], "late", 20)
	was, err := nodes[0].Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfgs := []Config{nodes[0].cfg, nodes[1].cfg, nodes[2].cfg}
	if _, err := Inspect(t.Context(), cfgs[0]); !object.IsKind(err, object.KindBusy) {
		t.Errorf("a running node is inspected: %v", err)
	}
	level(t, nodes...)
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

	n := openMember(t, cfgs[0])
	if now, err := n.Settings(t.Context()); err != nil || !now.Hold || !n.keepsAll() {
		t.Errorf("after a recovery the data of chunks may be dropped: %+v, %v", now, err)
	}
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
		all = append(all, joinNode(t, n, id))
	}
	inForce(t, n, 3, 3)
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
	inForce(t, nodes[0], 3, 3)
	putSome(t, nodes[0], "k", 20)
	cfgs := []Config{nodes[0].cfg, nodes[1].cfg, nodes[2].cfg}
	// As kill -9 leaves them, but for what the disk has: copies of the open directories.
	copied := testConfig(t)
	for from, to := range map[string]string{cfgs[0].MetadataPath: copied.MetadataPath, cfgs[0].StoragePaths[0]: copied.StoragePaths[0]} {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	level(t, nodes...)
	closeAll(t, nodes...)
	cfg := cfgs[0]
	cfg.MetadataPath, cfg.StoragePaths = copied.MetadataPath, copied.StoragePaths
	p := planOf(t, []control.NodeID{"n2", "n3"}, reportOf(t, cfg))
	if err := Recover(t.Context(), cfg, p); err != nil {
		t.Fatal(err)
	}
	n := openMember(t, cfg)
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

// TestRecoverSeveral: three of five nodes are lost, all those among them that had a replica
// of one partition. The two that are left go on together: what one of them lacks it gets from the
// other, the lost partition begins empty, and what is in the others is there.
func TestRecoverSeveral(t *testing.T) {
	nodes := members(t, 5, nil)
	n1 := nodes[0]
	if _, err := n1.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	inForce(t, n1, 5, 3)
	st, err := n1.Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lost []control.NodeID
	var whole object.PartitionID // whose replicas are all lost; n1 holds the chunks
	for i := len(st.Partitions) - 1; i > 0 && lost == nil; i-- {
		for _, r := range st.Partitions[i].Replicas {
			lost = append(lost, r.ID.Node)
		}
		if whole = object.PartitionID(i); slices.Contains(lost, "n1") {
			lost = nil
		}
	}
	if lost == nil {
		t.Fatal("n1 has a replica of every partition: of 24 replicas on five nodes it should have 5")
	}
	// A directory for each partition, and a file in it.
	where := map[string]object.PartitionID{}
	for i := range 60 {
		key := fmt.Sprintf("d%d/f", i)
		if _, err := n1.Put(t.Context(), "box", key, strings.NewReader(key), PutOptions{Size: int64(len(key))}); err != nil {
			t.Fatal(err)
		}
		r, err := n1.OpenObject(t.Context(), "box", key)
		if err != nil {
			t.Fatal(err)
		}
		where[key] = r.Inode().ID.Partition()
		r.Close()
	}
	root := bucketPartition(t, n1)
	level(t, nodes...) // what a majority of the lost alone has is lost
	closeAll(t, nodes...)

	var reports []*recovery.Report
	var left []Config
	for _, n := range nodes {
		if !slices.Contains(lost, control.NodeID(n.cfg.NodeID)) {
			reports, left = append(reports, reportOf(t, n.cfg)), append(left, n.cfg)
		}
	}
	p := planOf(t, lost, reports...)
	if x := p.Partitions[whole]; !x.Founded || x.Complete() || !p.Needed() {
		t.Errorf("partition %d of %v without %v: %+v", whole, st.Partitions[whole], lost, x)
	}
	if err := Recover(t.Context(), left[0], p); err != nil {
		t.Fatal(err)
	}
	if err := Recover(t.Context(), left[1], p); err != nil {
		t.Fatal(err)
	}
	a, b := reopenedPair(t, left[0], left[1])
	if _, err := a.CreateBucket(t.Context(), "other", "me"); err != nil {
		t.Errorf("a bucket anew: %v", err)
	}
	for key, at := range where {
		for _, n := range []*Node{a, b} {
			r, err := n.OpenObject(t.Context(), "box", key)
			switch {
			case at == whole || root == whole:
				if err == nil {
					r.Close()
					t.Errorf("%s of the lost partition is there", key)
				}
			case err != nil:
				t.Errorf("%s in partition %d at %s: %v", key, at, n.cfg.NodeID, err)
			default:
				r.Close()
			}
		}
	}
	inForce(t, a, 2, 2)
}

// level waits until all replicas of each partition have applied as much.
func level(t testing.TB, nodes ...*Node) {
	t.Helper()
	waitFor(t, "all replicas to have the same", func() bool {
		for id := range nodes[0].parts {
			applied := map[uint64]bool{}
			for _, n := range nodes {
				if r := n.parts[id].here.Load(); r != nil {
					applied[r.machine.Applied()] = true
				}
			}
			if len(applied) != 1 {
				return false
			}
		}
		return true
	})
}

// bucketPartition is where the bucket's root directory is.
func bucketPartition(t testing.TB, n *Node) object.PartitionID {
	t.Helper()
	b, err := n.Bucket(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	return b.Root.Partition()
}

// reopenedPair starts two nodes that need each other.
func reopenedPair(t testing.TB, x, y Config) (a, b *Node) {
	t.Helper()
	var g errgroup.Group
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g.Go(func() (err error) { a, err = Open(ctx, x); return err })
	g.Go(func() (err error) { b, err = Open(ctx, y); return err })
	err := g.Wait()
	t.Cleanup(func() {
		for _, n := range []*Node{a, b} {
			if n != nil {
				_ = n.Close()
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// TestRecoverStoppedAnywhere: a recovery that fails at any kind of call is finished by the
// next one, and the node does not start between the two.
func TestRecoverStoppedAnywhere(t *testing.T) {
	t.Parallel()
	origin := testConfig(t)
	origin.Partitions = 2
	n := openNode(t, origin)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	putSome(t, n, "k", 12)
	closeAll(t, n)
	p := planOf(t, nil, reportOf(t, origin))
	fresh := func() Config {
		cfg := testConfig(t)
		cfg.Partitions = origin.Partitions
		for from, to := range map[string]string{origin.MetadataPath: cfg.MetadataPath, origin.StoragePaths[0]: cfg.StoragePaths[0]} {
			if err := os.CopyFS(to, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
		}
		return cfg
	}
	cfg := fresh()
	count := vfs.NewFaulty(vfs.OS())
	cfg.FS = count
	if err := Recover(t.Context(), cfg, p); err != nil {
		t.Fatal(err)
	}
	refused := 0
	calls := count.Ops()
	for i, op := range slices.Sorted(maps.Keys(calls)) {
		if i%need.Size(2, 1) != 0 && !strings.HasPrefix(string(op), "recovery.") {
			continue
		}
		times, skips := calls[op], []int{0}
		if need.Full() {
			skips = slices.Compact([]int{0, times / 2, times - 1})
		}
		for _, skip := range skips {
			cfg := fresh()
			f := vfs.NewFaulty(vfs.OS())
			f.Set(op, vfs.Rule{Skip: skip, Times: 1, Err: errors.New("stopped here"), After: (times+skip)%2 == 1})
			cfg.FS = f
			stop := Recover(t.Context(), cfg, p)
			cfg.FS = nil
			if _, begun := os.Stat(filepath.Join(cfg.MetadataPath, recoveryName)); begun == nil {
				if n, err := Open(t.Context(), cfg); !object.IsKind(err, object.KindBusy) || !strings.Contains(err.Error(), "--force") {
					t.Errorf("%s: a node starts in the middle: %v", op, err)
					if n != nil {
						_ = n.Close()
					}
				}
				refused++
			}
			if err := Recover(t.Context(), cfg, p); err != nil {
				t.Fatalf("%s, call %d, after %v: %v", op, skip, stop, err)
			}
			n := openNode(t, cfg)
			getSome(t, n, "k", 12)
			putSome(t, n, "more", 2)
			if s, err := n.Control(t.Context()); err != nil || fmt.Sprintf("%x", s.Cluster) != p.To {
				t.Errorf("%s: cluster %x, %v", op, s.Cluster, err)
			}
			closeAll(t, n)
		}
	}
	if refused < 3 {
		t.Errorf("only %d stops were in the middle", refused)
	}
}
