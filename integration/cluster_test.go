package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// settleTime is how long a cluster may take until every partition has its voters.
const settleTime = 3 * time.Minute

// newCluster starts a cluster and waits until every partition has min(nodes, 3)
// voters. It is killed in the end, and its logs are kept when the test failed.
func newCluster(t testing.TB, o harness.ClusterOptions) *harness.Cluster {
	t.Helper()
	if o.Spaces {
		need.Root(t)
		need.Command(t, "ip", "iptables-restore", "nsenter")
	}
	o.Binary, o.Dir = bin(t), t.TempDir()
	o.Args = append([]string{"-partitions", "8"}, o.Args...)
	c, err := harness.NewCluster(t.Context(), o)
	check(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the logs, whole in %s:\n%s", keepLogs(t, c), c.Logs(8<<10))
		}
	})
	check(t, c.Start(t.Context()))
	check(t, c.Settled(t.Context(), c.Nodes[0], min(o.Nodes, 3), settleTime))
	return c
}

// failures is where what explains a failed test is kept, beyond its end.
func failures(t testing.TB) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("bucketdb-failed-%s-%d", strings.ReplaceAll(t.Name(), "/", "_"), os.Getpid()))
}

func keepLogs(t testing.TB, c *harness.Cluster) string {
	dir := failures(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
	}
	for _, n := range c.Nodes {
		if err := os.WriteFile(filepath.Join(dir, n.ID+".log"), []byte(n.Log(64<<20)), 0o600); err != nil {
			t.Error(err)
		}
	}
	return dir
}

// anywhere is a client of all nodes that begins with one of them.
func anywhere(t testing.TB, c *harness.Cluster, first int, o api.ClientOptions) *api.Client {
	t.Helper()
	cl, err := c.Client(first, o)
	check(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// TestClusterOfProcesses: three processes form a cluster; what is written at any
// is read at every other, and each of them may be killed and come back.
func TestClusterOfProcesses(t *testing.T) {
	c := newCluster(t, harness.ClusterOptions{Nodes: 3})
	_, err := client(t, c.Nodes[2], api.ClientOptions{}).CreateBucket(t.Context(), "box", "")
	check(t, err)
	want := map[string]string{}
	for victim := range c.Nodes {
		check(t, c.Nodes[victim].Kill())
		for i := range 12 {
			key := fmt.Sprintf("d%d/%d", i, victim)
			_, err := anywhere(t, c, i, api.ClientOptions{}).Put(t.Context(), "box", key, strings.NewReader("the body of "+key), api.PutOptions{})
			check(t, err)
			want[key] = "the body of " + key
		}
		check(t, c.Nodes[victim].Start(t.Context()))
		for _, n := range c.Nodes {
			expectObjects(t, n, "box", want)
		}
	}
}

// expectObjects reads objects at one node.
func expectObjects(t testing.TB, n *harness.Node, bucket string, want map[string]string) {
	t.Helper()
	c := client(t, n, api.ClientOptions{})
	for key, body := range want {
		r, err := c.Get(t.Context(), bucket, key, api.GetOptions{})
		if err != nil {
			t.Errorf("%s at %s: %v", key, n.ID, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != body {
			t.Errorf("%s at %s holds %q, want %q: %v", key, n.ID, got, body, err)
		}
		check(t, r.Close())
	}
}
