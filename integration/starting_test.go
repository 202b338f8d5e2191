package integration

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
)

// says waits until a node that is starting answers 503 with words of what it waits for, on
// any path, and `bucketdb health` the same.
func says(t *testing.T, n *harness.Node, words ...string) {
	t.Helper()
	missing := func(text string) error {
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("%q is not in %s", w, text)
			}
		}
		return nil
	}
	check(t, harness.Poll(t.Context(), 2*time.Minute, func() error {
		for _, path := range []string{"/readyz", "/objects/box/key", "/cluster"} {
			resp, err := http.Get(n.URL() + path)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(resp.Body)
			if err := errors.Join(err, resp.Body.Close(), missing(string(body))); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				return fmt.Errorf("%s: %s, Retry-After %q", path, resp.Status, resp.Header.Get("Retry-After"))
			}
		}
		code, text := exitCode(t, n, "health")
		if code != 1 {
			return fmt.Errorf("health: code %d", code)
		}
		return missing(text)
	}))
}

// TestStartingNodeSaysWhatItWaitsFor: a joiner before its cluster is there, and one of two nodes
// without the other, answer at once; then they serve.
func TestStartingNodeSaysWhatItWaitsFor(t *testing.T) {
	c, err := harness.NewCluster(t.Context(), harness.ClusterOptions{Binary: bin(t), Dir: t.TempDir(), Nodes: 2, Args: []string{"-partitions", "4"}})
	check(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(c.Logs(8 << 10))
		}
	})
	a, b := c.Nodes[0], c.Nodes[1]
	check(t, b.Launch())
	says(t, b, "the node is starting", "not known to its cluster", a.Peer)
	resp, err := http.Get(b.URL() + "/healthz")
	check(t, err)
	check(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %s: the process runs", resp.Status)
	}
	check(t, a.Start(t.Context()))
	check(t, b.Ready(t.Context()))
	check(t, c.Settled(t.Context(), a, 2, settleTime)) // both vote, so that neither can do without the other
	check(t, a.Stop())
	check(t, b.Stop())
	check(t, a.Launch())
	says(t, a, "the node is starting", "Check that the nodes")
	check(t, b.Start(t.Context()))
	check(t, a.Ready(t.Context()))
}
