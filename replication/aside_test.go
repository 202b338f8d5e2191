package replication

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// flipLog flips a bit in the middle of what each segment of a stopped node's log holds.
func flipLog(t testing.TB, n *Node) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.logPath(), "*.wal"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no log in %s: %v", n.logPath(), err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(strings.TrimRight(string(b), "\x00"))/2] ^= 0x10
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedLogIsReplaced: of three nodes one comes back with a damaged log. No replica
// of it goes on under its id; all get new generations, and what was written is there.
func TestDamagedLogIsReplaced(t *testing.T) {
	nodes := threeNodes(t)
	if _, err := nodes[0].CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	settled(t, nodes[0])
	keys := strings.Split("abcdefgh", "")
	for _, dir := range keys {
		mustPut(t, nodes[1], dir+"/f", []byte(dir))
	}
	victim := nodes[0] // the founder, which has replicas of generation 0
	before := replicasOf(t, nodes[1], "n1")
	if err := victim.Close(); err != nil {
		t.Fatal(err)
	}
	flipLog(t, victim)
	again := openMember(t, victim.cfg)
	settled(t, again)
	after := replicasOf(t, again, "n1")
	for _, id := range after {
		if slices.Contains(before, id) {
			t.Errorf("%s goes on without its log", id)
		}
	}
	if len(after) == 0 || len(before) == 0 {
		t.Errorf("this node had %v, and has %v", before, after)
	}
	for _, dir := range keys {
		if got := mustGet(t, again, dir+"/f"); string(got) != dir {
			t.Errorf("%s has %q", dir, got)
		}
	}
	if kept, err := filepath.Glob(filepath.Join(victim.cfg.MetadataPath, asideName+"1", "*.wal")); err != nil || len(kept) == 0 {
		t.Errorf("the damaged log is not kept: %v", err)
	}

	// A second time it takes the next name, and the start reminds of the first.
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	flipLog(t, again)
	heard := &warnings{}
	cfg := victim.cfg
	cfg.Logger = slog.New(heard)
	for range 2 {
		again = openMember(t, cfg)
		settled(t, again)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"1", "2"} {
		if !strings.Contains(strings.Join(heard.all(), "\n"), "set aside here at an earlier start; remove the directory when all partitions have their replicas again (bucketdb cluster status) directory="+filepath.Join(cfg.MetadataPath, asideName+name)) {
			t.Errorf("nothing reminds of %s%s: %q", asideName, name, heard.all())
		}
	}
}

// replicasOf are the replicas in force of a node.
func replicasOf(t testing.TB, at *Node, node control.NodeID) (ids []string) {
	t.Helper()
	s, err := at.Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Partitions {
		for _, r := range s.Partitions[i].Replicas {
			if r.ID.Node == node && r.State == control.InForce {
				ids = append(ids, fmt.Sprintf("%d %s", i, r.ID))
			}
		}
	}
	return ids
}

// TestDamagedLogOfOneNode: where there are no other nodes the start is refused, says what
// to do, and leaves the log where it is.
func TestDamagedLogOfOneNode(t *testing.T) {
	cfg := testConfig(t)
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, n, "a/f", []byte("a"))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	flipLog(t, n)
	for range 2 {
		_, err := Open(t.Context(), cfg)
		wantKind(t, err, object.KindCorrupt)
		if !strings.Contains(err.Error(), "from a backup") {
			t.Errorf("the error does not say what to do: %v", err)
		}
	}
	if list, _ := filepath.Glob(filepath.Join(cfg.MetadataPath, asideName+"*")); len(list) > 0 {
		t.Errorf("the log was moved to %v", list)
	}
}
