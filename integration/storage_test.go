package integration

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// chunkBytes is what the chunk files of a cluster take.
func chunkBytes(t testing.TB, c *harness.Cluster) (sum int64) {
	t.Helper()
	for _, n := range c.Nodes {
		err := filepath.WalkDir(n.Storage(), func(_ string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // it went while we looked
			}
			if err == nil && d.Type().IsRegular() {
				var i fs.FileInfo
				if i, err = d.Info(); err == nil {
					sum += i.Size()
				}
			}
			return err
		})
		check(t, err)
	}
	return sum
}

// TestShardsOnProcesses: a bucket of two data and two parity shards on four processes,
// written by the command line and through a mount, at twice the data's size; one
// process is killed and both go on; then its data becomes copies.
func TestShardsOnProcesses(t *testing.T) {
	c := newCluster(t, harness.ClusterOptions{Nodes: 3})
	first := c.Nodes[0]
	if out, err := tryCLI(t, first, "mb", "box", "--scheme", "rs:2+2"); err == nil || !strings.Contains(out, "the cluster has 3") {
		t.Fatalf("%v %s", err, out)
	}
	last, err := c.Add(t.Context())
	check(t, err)
	check(t, last.Start(t.Context()))
	eventually(t, "the fourth node to take data", func() bool {
		out, err := tryCLI(t, last, "mb", "box", "--scheme", "rs:2+2")
		if err != nil && !strings.Contains(out, "the cluster has 3") {
			t.Fatalf("%v %s", err, out)
		}
		return err == nil
	})
	wantWords(t, cli(t, first, "storage", "box"), "rs:2+2")
	dir, megabytes := t.TempDir(), need.Size(24, 200)
	sh(t, dir, `head -c "$1"M /dev/urandom > a; head -c "$1"M /dev/urandom > b`, strconv.Itoa(megabytes))
	cli(t, first, "cp", dir+"/a", "bd://box/dir/a")
	m := mount(t, first, "box")
	sh(t, dir, `mkdir "$1/made"; cp b "$1/made/b"`, m.Dir)
	logical := float64(2 * megabytes << 20)
	over := func() float64 { return float64(chunkBytes(t, c)) / logical }
	eventually(t, "all shards", func() bool { return over() >= 2 })
	if o := over(); o > 2*1.02 {
		t.Fatalf("the data takes %.3f times its size", o)
	}

	check(t, c.Nodes[2].Kill())
	sh(t, dir, `cmp a "$1/dir/a"; cmp b "$1/made/b"; cp a "$1/made/c"; rm "$1/made/c"`, m.Dir)
	cli(t, last, "cp", "bd://box/made/b", dir+"/back")
	sh(t, dir, `cmp b back`)
	check(t, c.Nodes[2].Start(t.Context()))

	cli(t, last, "storage", "box", "replicated:3")
	eventually(t, "the shards to become copies", func() bool {
		var b api.Bucket
		out, err := tryCLI(t, last, "storage", "--json", "box")
		return err == nil && json.Unmarshal([]byte(out), &b) == nil && b.Rewriting == nil && b.Storage.Copies == 3
	})
	sh(t, dir, `cmp a "$1/dir/a"; cmp b "$1/made/b"`, m.Dir)
	cli(t, c.Nodes[2], "cp", "bd://box/dir/a", dir+"/again")
	sh(t, dir, `cmp a again`)
}

// eventually waits for what a cluster of processes does in the background.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}
