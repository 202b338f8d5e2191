package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestDamagedChunk takes a chunk of a large object away, or flips one bit in it.
// Reading the object is an error that the client notices, also when the answer
// has begun; never does one wrong byte come. Everything else goes on as before.
func TestDamagedChunk(t *testing.T) {
	flip := func(path string) error {
		raw, err := os.ReadFile(path)
		if err == nil {
			raw[len(raw)/2] ^= 0x10
			err = os.WriteFile(path, raw, 0o600)
		}
		return err
	}
	for _, c := range []struct {
		name   string
		chunk  int // of two
		damage func(path string) error
		status int
	}{
		{"first missing", 0, os.Remove, http.StatusInternalServerError},
		{"second missing", 1, os.Remove, http.StatusOK},
		{"first flipped", 0, flip, http.StatusInternalServerError},
		{"second flipped", 1, flip, http.StatusOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, large := filled(t)
			bad := chunksOf(t, n)[c.chunk]
			check(t, c.damage(bad))
			check(t, n.Start(t.Context()))
			for range 2 { // also when the damage is known
				wantBroken(t, n, c.status, large)
			}
			wantOthersFine(t, n, c.chunk, large)
			// The node knows it too: the log names the object, a flipped chunk is kept for a person to look at.
			wantWords(t, n.Log(64<<10), "level=ERROR", "path=/objects/box/large", filepath.Base(bad))
			kept, err := filepath.Glob(n.Storage() + "/quarantine/*")
			check(t, err)
			if missing := strings.HasSuffix(c.name, "missing"); missing != (len(kept) == 0) {
				t.Errorf("in quarantine are %v", kept)
			}
			out, err := tryCLI(t, n, "cluster", "check")
			if err == nil {
				t.Error("the checker finds nothing")
			}
			wantWords(t, out, "1 problem", "missing-data", filepath.Base(bad), "What to do")
		})
	}
}

// wantBroken reads box/large: the answer is an error from its first byte on, or
// a cut connection after bytes that are all right.
func wantBroken(t *testing.T, n *harness.Node, status int, large string) {
	t.Helper()
	resp, err := http.Get(n.URL() + "/objects/box/large")
	check(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if resp.StatusCode != status {
		t.Errorf("%s", resp.Status)
	}
	if status == http.StatusOK {
		if err == nil || len(got) >= len(large) || !strings.HasPrefix(large, string(got)) {
			t.Errorf("%d of %d bytes, and then: %v", len(got), len(large), err)
		}
	} else {
		var p api.Problem
		check(t, json.Unmarshal(got, &p))
		if p.Kind != object.KindCorrupt.String() || p.Message == "" || p.Hint == "" {
			t.Errorf("%s", got)
		}
	}
	// The client makes an error of both.
	out, err := tryCLI(t, n, "cp", "bd://box/large", filepath.Join(t.TempDir(), "large"))
	if err == nil {
		t.Errorf("cp succeeds: %s", out)
	}
}

// wantOthersFine uses everything but the one chunk that is damaged.
func wantOthersFine(t *testing.T, n *harness.Node, damaged int, large string) {
	t.Helper()
	if got := cli(t, n, "cat", "box/small"); got != "small" {
		t.Errorf("the other object is %q", got)
	}
	wantWords(t, cli(t, n, "ls", "box"), "small", "large")
	c := client(t, n, api.ClientOptions{Retries: -1})
	if obj, err := c.Head(t.Context(), "box", "large", api.Conditions{}); err != nil || obj.Size != int64(len(large)) {
		t.Errorf("HEAD: %+v, %v", obj, err)
	}
	start := int64(1-damaged) << 20
	r, err := c.Get(t.Context(), "box", "large", api.GetOptions{Range: &object.Range{Start: start, End: start + 1<<20 - 1}})
	check(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != large[start:start+1<<20] {
		t.Errorf("the sound half of the object: %d bytes, %v", len(got), err)
	}
	_, err = c.Put(t.Context(), "box", "new", strings.NewReader(large), api.PutOptions{})
	check(t, err)
	if got := cli(t, n, "cat", "box/new"); got != large {
		t.Error("a new object comes back different")
	}
}

// TestClusterCheck runs the checker through the binary: on a sound store, on one
// with findings, and where it cannot be run.
func TestClusterCheck(t *testing.T) {
	n, large := filled(t)
	files := chunksOf(t, n)
	check(t, n.Start(t.Context()))
	wantWords(t, cli(t, n, "cluster", "check"), "every invariant holds", "2 chunks", "node       n1")
	var r api.CheckResult
	check(t, json.Unmarshal([]byte(cli(t, n, "cluster", "check", "-json")), &r))
	if !r.OK || r.Chunks != 2 || r.Problems() != 0 {
		t.Errorf("%+v", r)
	}

	// A file that nobody knows, and one that is gone: both while the node serves,
	// for at its start it drops what nobody knows.
	backup := filepath.Join(n.Dir, "backup")
	stray := strings.TrimSuffix(files[0], "0") + "7"
	check(t, os.Link(files[0], stray))
	check(t, os.Rename(files[0], backup))
	code, out := exitCode(t, n, "cluster", "check")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	wantWords(t, out, "2 problems", "missing-data (1)", "chunk "+filepath.Base(files[0])+" is missing on disk", "backup",
		"stray-data (1)", "chunk "+filepath.Base(stray)+" is on disk and nobody knows it", "bucketdb: the store of node n1 does not hold its invariants")
	code, out = exitCode(t, n, "cluster", "check", "--json")
	check(t, json.NewDecoder(strings.NewReader(out)).Decode(&r))
	kinds := []string{}
	for _, f := range r.Findings {
		kinds = append(kinds, f.Kind)
	}
	if code != 1 || r.OK || !slices.Equal(kinds, []string{api.FindingMissing, api.FindingStray}) {
		t.Errorf("exit code %d, %s", code, out)
	}
	// The advice helps: the audit takes the one away, the backup brings the other.
	check(t, n.Stop())
	check(t, os.Rename(backup, files[0]))
	check(t, n.Start(t.Context()))
	check(t, harness.Poll(t.Context(), 10*time.Second, func() error {
		code, out := exitCode(t, n, "cluster", "check")
		if code != 0 {
			return errors.New(out)
		}
		return nil
	}))
	if got := cli(t, n, "cat", "box/large"); got != large {
		t.Error("the object differs")
	}
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"cluster", "check", "--endpoint", "127.0.0.1:1"}, 1, "Nothing listens there"},
		{[]string{"cluster", "check", "--timeout", "1us"}, 1, "--timeout"},
		{[]string{"cluster", "check", "--timeout", "0"}, 2, "more than 0"},
		{[]string{"cluster", "check", "extra"}, 2, "unknown command"},
	} {
		code, out := exitCode(t, n, bad.args...)
		if code != bad.code {
			t.Errorf("%q: exit code %d", bad.args, code)
		}
		wantWords(t, out, bad.says)
	}
}

// TestClusterCheckUnderLoad runs the checker while the store changes: what is
// under way is not taken for damage.
func TestClusterCheckUnderLoad(t *testing.T) {
	n := startNode(t)
	c := client(t, n, api.ClientOptions{})
	_, err := c.CreateBucket(t.Context(), "box", "")
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range 2 {
		w := newWriter(fmt.Sprintf("w%d/", i), uint64(i))
		wg.Go(func() { w.work(ctx, t, c) })
	}
	for range 5 {
		if code, out := exitCode(t, n, "cluster", "check"); code != 0 {
			t.Errorf("exit code %d\n%s", code, out)
		}
	}
}

// TestMetadataReserve sets the reserve in each of the three ways to more than any
// disk has: the node takes nothing new, and says so; reading and deleting go on.
func TestMetadataReserve(t *testing.T) {
	n, large := filled(t)
	file := filepath.Join(n.Dir, "settings.yaml")
	check(t, os.WriteFile(file, []byte("metadata-reserve: 8000000T\n"), 0o600))
	args := n.Args
	for i, way := range []struct{ args, env []string }{
		{args: []string{"-metadata-reserve", "8000000T"}},
		{env: []string{"BUCKETDB_METADATA_RESERVE=8000000TiB"}},
		{args: []string{"-config", file}},
	} {
		n.Args, n.Env = append(slices.Clone(args), way.args...), way.env
		check(t, n.Start(t.Context()))
		c := client(t, n, api.ClientOptions{Retries: -1})
		_, err := c.Put(t.Context(), "box", "new", strings.NewReader("x"), api.PutOptions{})
		if !object.IsKind(err, object.KindNoSpace) || !strings.Contains(err.Error(), "nearly full") {
			t.Errorf("%v: %v", way, err)
		}
		if got := cli(t, n, "cat", "box/large"); got != large {
			t.Error("the object differs")
		}
		if i == 0 {
			check(t, c.Delete(t.Context(), "box", "small", api.Conditions{}))
		}
		check(t, n.Stop())
	}
	// Above the file stands the command line; 0 is no reserve.
	n.Args = append(slices.Clone(args), "-config", file, "-metadata-reserve=0")
	check(t, n.Start(t.Context()))
	_, err := client(t, n, api.ClientOptions{}).Put(t.Context(), "box", "new", strings.NewReader("x"), api.PutOptions{})
	check(t, err)
}
