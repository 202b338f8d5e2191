package integration

import (
	"context"
	"crypto/sha256"
	endian "encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// filled is a stopped node that holds box/large, of two chunks, and box/small.
func filled(t *testing.T) (n *harness.Node, large string) {
	t.Helper()
	n = startNode(t, "-chunk-size", "1M", "-compression", "none")
	c := client(t, n, api.ClientOptions{})
	_, err := c.CreateBucket(t.Context(), "box", "")
	check(t, err)
	large = strings.Repeat("0123456789abcdef", 2<<20/16)
	for key, body := range map[string]string{"large": large, "small": "small"} {
		_, err := c.Put(t.Context(), "box", key, strings.NewReader(body), api.PutOptions{})
		check(t, err)
	}
	check(t, n.Stop())
	return n, large
}

// checksummed rewrites a header: change, then its CRC32C in the bytes behind it.
func checksummed(head int, order endian.ByteOrder, change func(b []byte)) func(b []byte) []byte {
	return func(b []byte) []byte {
		change(b)
		order.PutUint32(b[head-4:], crc32.Checksum(b[:head-4], crc32.MakeTable(crc32.Castagnoli)))
		return b
	}
}

// rewrite changes every file that the pattern matches, and returns what undoes it.
func rewrite(t *testing.T, pattern string, change func(b []byte) []byte) (undo func()) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	check(t, err)
	if len(files) == 0 {
		t.Fatalf("nothing is at %s", pattern)
	}
	before := map[string][]byte{}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		check(t, err)
		before[path] = raw
		check(t, os.WriteFile(path, change(slices.Clone(raw)), 0o600))
	}
	return func() {
		for path, raw := range before {
			check(t, os.WriteFile(path, raw, 0o600))
		}
	}
}

// newer makes 2 of the format version 1 in a text.
func newer(old, new string) func(b []byte) []byte {
	return func(b []byte) []byte { return []byte(strings.Replace(string(b), old, new, 1)) }
}

// TestNewerFormatIsRefused raises the format version at each place that a start
// reads: the server ends with code 1, says which directory is too new and what
// to do, and changes no data, so that the newer program can go on with it.
func TestNewerFormatIsRefused(t *testing.T) {
	n, large := filled(t)
	for _, c := range []struct {
		place, pattern string
		change         func(b []byte) []byte
		says           string // besides the version and the way out
	}{
		{"node", n.Metadata() + "/STORE.json", newer(`"version": 1`, `"version": 2`), n.Metadata()},
		{"storage path", n.Storage() + "/STORE.json", newer(`"version": 1`, `"version": 2`), n.Storage()},
		{"metadata", n.Metadata() + "/badger/FORMAT", newer("1", "2"), n.Metadata() + "/badger"},
		{"log", n.Metadata() + "/wal/*.wal", checksummed(64, endian.LittleEndian, func(b []byte) { endian.LittleEndian.PutUint32(b[8:], 2) }), n.Metadata() + "/wal"},
	} {
		t.Run(c.place, func(t *testing.T) {
			undo := rewrite(t, c.pattern, c.change)
			defer undo()
			before := contents(t, n.Dir)
			code, out := serveAndEnd(t, n)
			if code != 1 {
				t.Errorf("exit code %d", code)
			}
			wantWords(t, out, c.says, "2", "Run the version of bucketdb that wrote it, or a newer one")
			if strings.Contains(out, "goroutine ") {
				t.Error("it panicked")
			}
			after := contents(t, n.Dir)
			for _, name := range slices.Sorted(maps.Keys(merged(before, after))) {
				if before[name] != after[name] {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
	check(t, n.Start(t.Context()))
	if got := cli(t, n, "cat", "box/large"); got != large {
		t.Fatal("the object differs after the refusals")
	}
}

// TestMemberOfANewerFormat starts an older program on what a newer one wrote, as a member
// of a cluster: it ends and says why, changes nothing, and the others go on. With the right
// program the node takes part again and has what it missed.
func TestMemberOfANewerFormat(t *testing.T) {
	c := newCluster(t, harness.ClusterOptions{Nodes: 3})
	cl := anywhere(t, c, 0, api.ClientOptions{})
	_, err := cl.CreateBucket(t.Context(), "box", "")
	check(t, err)
	want := map[string]string{}
	put := func(key string) {
		t.Helper()
		want[key] = strings.Repeat(key+" ", 10_000)
		_, err := cl.Put(t.Context(), "box", key, strings.NewReader(want[key]), api.PutOptions{})
		check(t, err)
	}
	put("before")
	old := c.Nodes[1]
	check(t, old.Stop())
	next := func(b []byte) []byte { b[4]++; return b } // behind the magic number
	for _, place := range []struct {
		name, pattern string
		change        func(b []byte) []byte
	}{
		{"node", old.Metadata() + "/STORE.json", newer(`"version": 1`, `"version": 2`)},
		{"identity", old.Metadata() + "/CLUSTER.json", newer(`"version": 1`, `"version": 2`)},
		{"replica records", old.Metadata() + "/REPLICAS", next},
		{"log", old.Metadata() + "/wal/*.wal", checksummed(64, endian.LittleEndian, func(b []byte) { endian.LittleEndian.PutUint32(b[8:], 2) })},
	} {
		undo := rewrite(t, place.pattern, place.change)
		before := contents(t, old.Dir)
		code, out := serveAndEnd(t, old)
		if code != 1 {
			t.Errorf("%s: exit code %d", place.name, code)
		}
		wantWords(t, out, "this program knows", "2", "Run the version of bucketdb that wrote it, or a newer one")
		if after := contents(t, old.Dir); !maps.Equal(before, after) {
			t.Errorf("%s: the refused start has changed files", place.name)
		}
		put("meanwhile " + place.name) // through the other two
		undo()
	}
	check(t, old.Start(t.Context()))
	check(t, c.Settled(t.Context(), old, 3, settleTime))
	expectObjects(t, old, "box", want)
}

// TestNewerChunkIsRefused raises the format version of the first chunk: it alone
// cannot be read, says so, and stays where it is.
func TestNewerChunkIsRefused(t *testing.T) {
	n, large := filled(t)
	first := chunksOf(t, n)[0]
	undo := rewrite(t, first, checksummed(96, endian.BigEndian, func(b []byte) { endian.BigEndian.PutUint16(b[8:], 2) }))
	check(t, n.Start(t.Context()))
	resp, err := http.Get(n.URL() + "/objects/box/large")
	check(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusInternalServerError || resp.Header.Get(api.HeaderError) != object.KindVersion.String() {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	out, err := tryCLI(t, n, "cat", "box/large")
	if err == nil {
		t.Error("cat succeeds")
	}
	wantWords(t, out, "format version 2", "newer bucketdb")
	if got := cli(t, n, "cat", "box/small"); got != "small" {
		t.Errorf("the other object is %q", got)
	}
	check(t, n.Stop())
	undo() // it was not put into quarantine, or this would make a second file
	check(t, n.Start(t.Context()))
	if got := cli(t, n, "cat", "box/large"); got != large {
		t.Fatal("the object differs")
	}
	if left, err := filepath.Glob(n.Storage() + "/quarantine/*"); err != nil || len(left) > 0 {
		t.Errorf("%v is in quarantine, %v", left, err)
	}
}

// serveAndEnd runs the server, which is to end by itself, and returns its exit
// code and what it wrote.
func serveAndEnd(t *testing.T, n *harness.Node) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	like := n.Command()
	cmd := exec.CommandContext(ctx, like.Path, like.Args[1:]...)
	cmd.Env = like.Env
	raw, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%v, %v\n%s", err, ctx.Err(), raw)
	}
	return cmd.ProcessState.ExitCode(), string(raw)
}

// contents are the hashes of all files below dir, but for the log of the harness
// and for Badger's value logs: they are always empty, and it begins a new one
// whenever it is opened, which is before the log's format is known.
func contents(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path == filepath.Join(dir, "log") || filepath.Ext(path) == ".vlog" {
			return err
		}
		raw, err := os.ReadFile(path)
		sums[strings.TrimPrefix(path, dir)] = sha256.Sum256(raw)
		return err
	})
	check(t, err)
	return sums
}

func merged[K comparable, V any](a, b map[K]V) map[K]V {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// chunksOf lists the chunk files of a node that holds one object of several
// chunks, in the object's order.
func chunksOf(t *testing.T, n *harness.Node) []string {
	t.Helper()
	files, err := filepath.Glob(n.Storage() + "/chunks/*/*/*")
	check(t, err)
	if len(files) < 2 {
		t.Fatalf("there are %d chunk files", len(files))
	}
	slices.Sort(files) // ids of one upload end in the ordinal
	return files
}
