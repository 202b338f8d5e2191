package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// binary builds bucketdb once for all tests; TestMain removes it.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bucketdb-integration-")
	if err != nil {
		return "", err
	}
	return harness.Build(context.Background(), dir, os.Getenv("BUCKETDB_RACE_BINARY") == "1")
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func bin(t testing.TB) string {
	t.Helper()
	path, err := binary()
	check(t, err)
	return path
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newNode is a node with a directory of its own that is not started; it is
// killed in the end, and its log is shown when the test failed.
func newNode(t testing.TB, args ...string) *harness.Node {
	t.Helper()
	n, err := harness.NewNode(bin(t), t.TempDir(), append([]string{"-partitions", "16"}, args...)...)
	check(t, err)
	t.Cleanup(func() {
		if n.Running() {
			if err := n.Kill(); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			t.Logf("the node's log:\n%s", n.Log(16<<10))
		}
	})
	return n
}

func startNode(t testing.TB, args ...string) *harness.Node {
	t.Helper()
	n := newNode(t, args...)
	check(t, n.Start(t.Context()))
	return n
}

// client gives up at once (no retries) unless o says otherwise.
func client(t testing.TB, n *harness.Node, o api.ClientOptions) *api.Client {
	t.Helper()
	c, err := n.Client(o)
	check(t, err)
	t.Cleanup(c.Close)
	return c
}

// mount mounts target on a directory of its own.
func mount(t testing.TB, n *harness.Node, target string, args ...string) *harness.Mount {
	t.Helper()
	need.FUSE(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	m, err := harness.StartMount(t.Context(), n.Binary, n.URL(), target, dir, args...)
	check(t, err)
	t.Cleanup(func() {
		if err := m.Detach(); err != nil && !t.Failed() {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the mount's log:\n%s", m.Log(16<<10))
		}
	})
	return m
}

// cli runs bucketdb with arguments and returns what it printed; it must succeed.
func cli(t testing.TB, n *harness.Node, args ...string) string {
	t.Helper()
	out, err := tryCLI(t, n, args...)
	if err != nil {
		t.Fatalf("bucketdb %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryCLI(t testing.TB, n *harness.Node, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin(t), args...)
	cmd.Env = append(os.Environ(), "BUCKETDB_ENDPOINT="+n.URL())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// exitCode is tryCLI for a command whose exit code is looked at.
func exitCode(t testing.TB, n *harness.Node, args ...string) (int, string) {
	t.Helper()
	out, err := tryCLI(t, n, args...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), out
	}
	return 0, out
}

// sh runs a shell script that must succeed, in dir, and returns its output.
func sh(t testing.TB, dir, script string, args ...string) string {
	t.Helper()
	start := time.Now()
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-euo", "pipefail", "-c", script, "sh"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "LC_ALL=C",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@t", "GOFLAGS=-mod=mod")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, tail(string(out), 4<<10))
	}
	t.Logf("%6.2fs  %s", time.Since(start).Seconds(), firstLine(script))
	return string(out)
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func firstLine(s string) string {
	line, rest, more := strings.Cut(strings.TrimSpace(s), "\n")
	if more && rest != "" {
		line += fmt.Sprintf(" … (%d lines)", strings.Count(rest, "\n")+1)
	}
	return line
}
