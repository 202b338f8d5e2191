package replication

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// spread fills two directories of different partitions with files that are
// linked and copied from one to the other.
func spread(t *testing.T, n *Node, files int) (a, b object.InodeID) {
	t.Helper()
	ctx := t.Context()
	a = mkdirs(t, n, "a")
	other := ""
	for i := 0; b == 0 || b.Partition() == a.Partition(); i++ {
		other = fmt.Sprintf("b%d", i)
		b = mkdirs(t, n, other)
	}
	for i := range files {
		name := fmt.Sprintf("f%d", i)
		mustPut(t, n, "a/"+name, randomBytes(int64(i), 100_000))
		f, err := n.Lookup(ctx, a, name)
		if err == nil && i%2 == 0 {
			_, err = n.Link(ctx, f.ID, b, "linked"+name)
		}
		if err == nil && i%3 == 0 {
			_, err = n.Copy(ctx, "box", "a/"+name, "box", other+"/copied"+name, CopyOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// forget drops the record of a partition that comes first behind a key, past all
// rules; prefix is its kind.
func forget(t *testing.T, n *Node, p object.PartitionID, prefix string) {
	t.Helper()
	txn := n.meta.Partition(p).Begin()
	defer txn.Discard()
	var found []byte
	err := txn.Ascend([]byte(prefix), nil, func(k, _ []byte) (bool, error) { found = slices.Clone(k); return false, nil })
	if err != nil || !strings.HasPrefix(string(found), prefix) {
		t.Fatalf("no record %q in partition %d: %q, %v", prefix, p, found, err)
	}
	if err := txn.Delete(found); err != nil {
		t.Fatal(err)
	}
	if err := txn.Commit(n.meta.Partition(p).Applied()); err != nil {
		t.Fatal(err)
	}
}

// TestDamageOfARealStore loses records and files of a node's store, whose other
// sides are in other partitions.
func TestDamageOfARealStore(t *testing.T) {
	cfg := testConfig(t)
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	a, b := spread(t, n, 12)
	if r := checkAtRest(t, n); r.Chunks != 24 || r.Extents != 32 {
		t.Fatalf("%+v", r)
	}
	for _, kind := range []string{"d", "i", "c", "e"} {
		forget(t, n, a.Partition(), kind)
	}
	for _, kind := range []string{"d", "f"} {
		forget(t, n, b.Partition(), kind)
	}
	files := chunkFilesOf(t, cfg.StoragePaths[0])
	lost, stray := files[len(files)-1], files[0][:len(files[0])-1]+"9"
	if err := os.Rename(lost, stray); err != nil {
		t.Fatal(err)
	}
	want, err := n.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range problemKinds {
		if k != ProblemUnchecked && !slices.ContainsFunc(want.Problems, func(p Problem) bool { return p.Kind == k }) {
			t.Errorf("no problem of kind %s: %v", k, want.Problems)
		}
	}
	for _, path := range []string{lost, stray} {
		if !slices.ContainsFunc(want.Problems, func(p Problem) bool { return strings.Contains(p.Text, filepath.Base(path)) }) {
			t.Errorf("%s is not in %v", path, want.Problems)
		}
	}
	for _, limits := range []checkLimits{small, {sums: 2, rows: 5}, {sums: 1 << 10, rows: 3}} {
		got, err := n.checkWithin(t.Context(), limits)
		if err != nil || !slices.Equal(got.Problems, want.Problems) {
			t.Errorf("within %+v: %v\nfound  %v\nwanted %v", limits, err, got.Problems, want.Problems)
		}
	}
}

func chunkFilesOf(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "chunks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			list = append(list, path)
		}
		return err
	})
	if err != nil || len(list) == 0 {
		t.Fatalf("%d chunk files, %v", len(list), err)
	}
	return list
}

// TestFilesAreExactOnARunningStore checks while objects come and go: what the
// listing of files and the records see at different times is no problem.
func TestFilesAreExactOnARunningStore(t *testing.T) {
	n, ctx := newNode(t)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	for w := range 2 {
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("d%d/%d", w, i%4)
				_, err := n.Put(context.Background(), "box", key, strings.NewReader(strings.Repeat("x", 70_000)), PutOptions{Size: 70_000})
				if err == nil && i%2 == 1 {
					err = n.Delete(context.Background(), "box", key, Conditions{})
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 30 {
		r, err := n.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Problems {
			if p.Kind == ProblemMissing || p.Kind == ProblemStray {
				t.Error(p)
			}
		}
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	checkAtRest(t, n)
}
