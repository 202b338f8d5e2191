package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// flipByte changes one byte of a file.
func flipByte(t testing.TB, path string, rng *rand.Rand, lo, hi int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	at, b := lo+rng.Int64N(hi-lo), make([]byte, 1)
	_, err = f.ReadAt(b, at)
	check(t, err)
	b[0] ^= byte(1 + rng.IntN(255))
	_, err = f.WriteAt(b, at)
	check(t, err)
}

// damageChunks changes a byte in so many random chunk files of a stopped node.
func damageChunks(t testing.TB, n *harness.Node, rng *rand.Rand, count int) {
	t.Helper()
	sums, err := chunkSums(n)
	check(t, err)
	names := make([]string, 0, len(sums))
	for name := range sums {
		names = append(names, name)
	}
	if len(names) < count {
		t.Fatalf("node %s has %d chunk files, fewer than %d", n.ID, len(names), count)
	}
	slices.Sort(names)
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:count] {
		path := filepath.Join(n.Storage(), "chunks", name)
		info, err := os.Stat(path)
		check(t, err)
		flipByte(t, path, rng, 0, info.Size())
	}
}

// damageLog changes so many bytes of what a stopped node's log holds, before its last 4 KiB:
// the last batch can be taken for one that was never whole.
func damageLog(t testing.TB, n *harness.Node, rng *rand.Rand, count int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.Metadata(), "wal", "*.wal"))
	check(t, err)
	if len(files) == 0 {
		t.Fatalf("node %s has no log", n.ID)
	}
	for range count {
		path := files[rng.IntN(len(files))]
		raw, err := os.ReadFile(path)
		check(t, err)
		used := int64(len(bytes.TrimRight(raw, "\x00")))
		if path == files[len(files)-1] {
			if used -= 4 << 10; used <= 0 {
				path, used = files[0], 64 // the header
			}
		}
		flipByte(t, path, rng, 0, used)
	}
}

// readAll reads every object through one node.
func readAll(ctx context.Context, c *api.Client, bodies map[string][]byte) error {
	var g errgroup.Group
	g.SetLimit(4)
	for key, want := range bodies {
		g.Go(func() error {
			r, err := c.Get(ctx, "kept", key, api.GetOptions{})
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("%s: %d bytes of %d, or others: %w", key, len(got), len(want), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// TestDamagedNode: one of three nodes comes back with bytes changed in random chunk files
// and in its log, under load. Every object is read right from every node, no operation fails,
// and in the end all partitions have three voters and all chunks three good copies.
func TestDamagedNode(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	c := newCluster(t, harness.ClusterOptions{Nodes: 3})
	first := anywhere(t, c, 0, api.ClientOptions{})
	for _, bucket := range []string{"box", "kept"} {
		_, err := first.CreateBucket(t.Context(), bucket, "")
		check(t, err)
	}
	objects, bad := need.Size(150, 1500), need.Size(100, 1000)
	bodies := map[string][]byte{}
	var g errgroup.Group
	g.SetLimit(8)
	for i := range objects {
		key, body := fmt.Sprintf("d%d/%d", i%16, i), bytes.Repeat([]byte(fmt.Sprintf("%016x", rng.Uint64())), 1<<10+rng.IntN(1<<10))
		bodies[key] = body
		g.Go(func() error {
			_, err := first.Put(t.Context(), "kept", key, bytes.NewReader(body), api.PutOptions{Size: int64(len(body))})
			return err
		})
	}
	check(t, g.Wait())
	l := startLoad(t, c, 3, seed)
	defer l.end()
	victim := c.Nodes[rng.IntN(3)]
	check(t, victim.Stop())
	damageChunks(t, victim, rng, bad)
	damageLog(t, victim, rng, 10)
	start := time.Now()
	check(t, victim.Launch())
	for _, n := range c.Nodes {
		if n != victim {
			check(t, readAll(t.Context(), client(t, n, api.ClientOptions{}), bodies))
		}
	}
	check(t, harness.Poll(t.Context(), settleTime, func() error { return victim.Ready(t.Context()) }))
	t.Logf("%s is ready after %s", victim.ID, time.Since(start).Round(time.Millisecond))
	for _, n := range c.Nodes {
		check(t, readAll(t.Context(), client(t, n, api.ClientOptions{}), bodies)) // the victim reads its own copies first
	}
	check(t, c.Settled(t.Context(), victim, 3, settleTime))
	t.Logf("all partitions have three voters after %s", time.Since(start).Round(time.Millisecond))
	ops, slowest := l.end()
	t.Logf("%d changes, the slowest took %s", ops, slowest.Round(time.Millisecond))
	wantWords(t, victim.Log(64<<20), "the log is damaged and was set aside", "wal.damaged-1", "a replica has lost its log")
	kept, err := filepath.Glob(victim.Storage() + "/quarantine/*")
	check(t, err)
	t.Logf("%d files are in quarantine", len(kept))
	if len(kept) == 0 {
		t.Error("no damaged chunk was found")
	}
	for _, n := range c.Nodes {
		verifyAll(t, n, l.writers)
	}
	repaired(t, c.Nodes)
	check(t, readAll(t.Context(), client(t, victim, api.ClientOptions{}), bodies))
	if strings.Contains(victim.Log(64<<20), "panic:") {
		t.Error("a panic")
	}
}

// TestFullDisk: one of three nodes has a full disk, first of its metadata, then of its
// chunks. What grows is refused with 507 and a reason, or acknowledged and kept; reads and
// deletes go on; with room again all goes on, and every chunk gets its three copies.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	need.Command(t, "mount", "umount")
	c := newCluster(t, harness.ClusterOptions{Nodes: 3})
	first, victim := anywhere(t, c, 0, api.ClientOptions{}), c.Nodes[2]
	_, err := first.CreateBucket(t.Context(), "kept", "")
	check(t, err)
	bodies := map[string][]byte{}
	put := func(n *harness.Node, key string, size int) error {
		body := bytes.Repeat([]byte(fmt.Sprintf("%016x", rand.Uint64())), size/16)
		_, err := client(t, n, api.ClientOptions{Retries: -1}).Put(t.Context(), "kept", key, bytes.NewReader(body), api.PutOptions{Size: int64(size)})
		if err == nil {
			bodies[key] = body
		}
		return err
	}
	for i := range 20 {
		check(t, put(c.Nodes[i%3], fmt.Sprintf("d%d/before", i), 64<<10))
	}

	check(t, victim.Stop())
	args := victim.Args
	victim.Args = append(slices.Clone(args), "-metadata-reserve", "1000T") // more than is free
	check(t, victim.Start(t.Context()))
	for i, n := range c.Nodes {
		check(t, harness.Poll(t.Context(), settleTime, func() error {
			err := put(n, fmt.Sprintf("d%d/full", i), 64<<10)
			if !object.IsKind(err, object.KindNoSpace) {
				return fmt.Errorf("a put at %s, while the metadata's disk of %s is full: %v", n.ID, victim.ID, err)
			}
			wantWords(t, err.Error(), "nearly full", "free some space")
			return nil
		}))
		check(t, readAll(t.Context(), client(t, n, api.ClientOptions{}), bodies))
		key := fmt.Sprintf("d%d/before", i)
		check(t, first.Delete(t.Context(), "kept", key, api.Conditions{}))
		delete(bodies, key)
	}
	check(t, victim.Stop())
	victim.Args = args

	// Its chunks are on a disk that is below the reserve of 64 MiB from the start.
	was := victim.Storage() + ".was"
	check(t, os.Rename(victim.Storage(), was))
	sh(t, victim.Dir, `mkdir "$1"; mount -t tmpfs -o size=3m tmpfs "$1"; cp -a "$2/." "$1"`, victim.Storage(), was)
	t.Cleanup(func() { // t's context has ended by then
		if out, err := exec.Command("umount", "-l", victim.Storage()).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	check(t, victim.Start(t.Context()))
	check(t, c.Settled(t.Context(), victim, 3, settleTime))
	stored, refused := 0, 0
	for i := range 60 {
		switch err := put(c.Nodes[i%3], fmt.Sprintf("d%d/disk", i), 128<<10); {
		case err == nil:
			stored++
		case object.IsKind(err, object.KindNoSpace):
			refused++
		default:
			check(t, err)
		}
	}
	t.Logf("%d puts were acknowledged and %d refused", stored, refused)
	if stored == 0 {
		t.Error("two nodes have room, and nothing was taken")
	}
	for _, n := range c.Nodes {
		check(t, readAll(t.Context(), client(t, n, api.ClientOptions{}), bodies))
	}
	sh(t, victim.Dir, `mount -o remount,size=1g "$1"`, victim.Storage())
	for i, n := range c.Nodes {
		check(t, harness.Poll(t.Context(), settleTime, func() error { return put(n, fmt.Sprintf("d%d/after", i), 128<<10) }))
	}
	repaired(t, c.Nodes)
	for _, n := range c.Nodes {
		check(t, readAll(t.Context(), client(t, n, api.ClientOptions{}), bodies))
	}
}
