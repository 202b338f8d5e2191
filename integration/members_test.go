package integration

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// moveTime is how long partitions and chunks may be on their way to other nodes.
const moveTime = 4 * time.Minute

// TestNodesComeAndGo: under load a fourth and a fifth node join, the founder is
// drained and removed, and a node whose disk was wiped is replaced under its name.
// No operation fails, and in the end everything is at three nodes. A join moves what
// it has to and little more, leaves the partitions even, and no copy goes before
// the new one is there, whole.
func TestNodesComeAndGo(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newCluster(t, harness.ClusterOptions{Nodes: 3})
	first := anywhere(t, c, 0, api.ClientOptions{})
	_, err := first.CreateBucket(t.Context(), "box", "")
	check(t, err)
	kept := keepStill(t, c)
	l := startLoad(t, c, 3, seed)
	defer l.end()
	step := func(what string, at *harness.Node, ids ...string) {
		t.Helper()
		start := time.Now()
		check(t, c.Balanced(t.Context(), at, ids, moveTime))
		check(t, c.Settled(t.Context(), at, 3, moveTime))
		t.Logf("%s: done after %s", what, time.Since(start).Round(time.Millisecond))
		if t.Failed() {
			t.FailNow()
		}
	}
	for range 2 {
		n, err := c.Add(t.Context())
		check(t, err)
		before := fetchedBytes(t, first)
		done := kept.watch(c.Nodes) // the new one stands last
		check(t, n.Start(t.Context()))
		step(n.ID+" joins", n, []string{"n1", "n2", "n3", "n4", "n5"}[:len(c.Nodes)]...)
		done()
		even(t, first, len(c.Nodes))
		chunks, err := chunkSizes(n)
		check(t, err)
		least := int64(0)
		for _, size := range chunks {
			least += size
		}
		moved := fetchedBytes(t, first) - before
		t.Logf("%s: %d bytes moved of %d that are there", n.ID, moved, least)
		if least < kept.bytes/5 || float64(moved) > 1.2*float64(least) {
			t.Errorf("%s joined: %d bytes moved, %d of it had to be there", n.ID, moved, least)
		}
	}
	steer := anywhere(t, c, 4, api.ClientOptions{})
	done := kept.watch(c.Nodes)
	check(t, steer.Drain(t.Context(), "n1", false))
	check(t, harness.Poll(t.Context(), moveTime, func() error { return steer.RemoveNode(t.Context(), "n1") }))
	done()
	check(t, c.Nodes[0].Stop())
	step("n1 leaves", c.Nodes[1], "n2", "n3", "n4", "n5")

	soon := "15s"
	_, err = steer.Configure(t.Context(), api.SettingsChange{GoneAfter: &soon})
	check(t, err)
	wiped := c.Nodes[2]
	check(t, wiped.Kill())
	check(t, wiped.Wipe())
	check(t, harness.Poll(t.Context(), moveTime, func() error { return steer.RemoveNode(t.Context(), "n3") })) // once it counts as gone
	step("n3 is lost", c.Nodes[1], "n2", "n4", "n5")
	check(t, wiped.Start(t.Context()))
	step("n3 comes back empty", wiped, "n2", "n3", "n4", "n5")

	ops, slowest := l.end()
	t.Logf("%d changes, the slowest took %s", ops, slowest.Round(time.Millisecond))
	for _, n := range c.Nodes[1:] {
		verifyAll(t, n, l.writers)
	}
	kept.whole(wiped)
	repaired(t, c.Nodes[1:])
}
