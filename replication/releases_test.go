package replication

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// untilTold ends a start when it has told why it waits, and who is to be upgraded.
type untilTold struct {
	testWriter
	cancel context.CancelFunc
}

func (w untilTold) Write(b []byte) (int, error) {
	if line := string(b); strings.Contains(line, "it tries again") && strings.Contains(line, "Upgrade the older") {
		w.cancel()
	}
	return w.testWriter.Write(b)
}

// speaking opens a node's store as a release that speaks other versions of the protocol.
// One that nobody answers for that reason waits, since the others may be upgraded next.
func speaking(t *testing.T, cfg Config, lowest, highest uint64) (*Node, error) {
	t.Helper()
	cfg.versions = [2]uint64{lowest, highest}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cfg.Logger = slog.New(slog.NewTextHandler(untilTold{testWriter{t}, cancel}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := Open(ctx, cfg)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("a start that waited for two minutes never told whom to upgrade: %v", err)
	}
	if err == nil {
		t.Cleanup(func() { _ = n.Close() })
	}
	return n, err
}

// TestOtherReleases: a node of a release that shares no version of the protocol with the
// others is refused, whether it is the older or the newer one, whether it was a member or is
// new; it says who has to be upgraded, and the cluster goes on without it. What it has is
// still there when the right release is started on it. Releases that share a version mix.
func TestOtherReleases(t *testing.T) {
	wrote := objects{}
	nodes := trioOf(t, wrote, 9)
	first := nodes[0]
	stopped := func(n *Node) Config {
		t.Helper()
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		return n.cfg
	}
	record := func(id control.NodeID) *control.Node {
		t.Helper()
		s, err := first.Control(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Node(id)
	}
	refused := func(what string, err error, words ...string) {
		t.Helper()
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		wrote.put(t, nodes[1], "after "+what, 150_000)
		wrote.check(t, first)
	}

	third := stopped(nodes[2])
	_, err := speaking(t, third, 2, 3)
	refused("a newer release of a member", err, "speaks versions 1 to 1", "2 to 3", "upgrade node n1")
	if r := record("n3"); r.Versions != (control.Versions{Min: 1, Max: 1}) {
		t.Errorf("the one that was refused is on record: %+v", r)
	}
	stranger := memberConfig(t, "n4")
	stranger.Join = []string{first.cfg.Peer}
	_, err = speaking(t, stranger, 2, 3)
	refused("a newer release that joins", err, "upgrade node n1")
	if record("n4") != nil {
		t.Error("a node that was refused is on record")
	}

	// A rolling upgrade: first releases that speak both, then one that has dropped the old.
	if nodes[2], err = speaking(t, third, 1, 2); err != nil {
		t.Fatal(err)
	}
	if r := record("n3"); r.Versions != (control.Versions{Min: 1, Max: 2}) {
		t.Errorf("after an upgrade the record says %+v", r)
	}
	wrote.check(t, nodes[2])
	if first, err = speaking(t, stopped(first), 1, 2); err != nil {
		t.Fatal(err)
	}
	nodes[0] = first
	second := stopped(nodes[1])
	if nodes[1], err = speaking(t, second, 2, 2); err != nil {
		t.Fatal(err)
	}
	wrote.check(t, nodes[1])

	// Back to the old release: the third could not speak to the second any more.
	third = stopped(nodes[2])
	_, err = speaking(t, third, 1, 1)
	if !object.IsKind(err, object.KindVersion) {
		t.Errorf("an older release is refused with %v", err)
	}
	refused("an older release of a member", err, "upgrade")
	if nodes[2], err = speaking(t, third, 2, 2); err != nil {
		t.Fatal(err)
	}
	complete(t, nodes)
	wrote.check(t, nodes[2])
}
