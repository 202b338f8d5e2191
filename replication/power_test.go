package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// powerFS keeps the log and the chunks on a filesystem whose power can be cut.
// Badger's directory is real: a cut leaves a copy of it, without the memtable
// logs. here is where the node sees its directories, there what they are called
// in the filesystem that lost its power.
type powerFS struct {
	*vfs.PowerCut
	real        vfs.FS
	here, there string
}

func (f powerFS) pick(name string) (vfs.FS, string) {
	if strings.HasPrefix(name, filepath.Join(f.here, "badger")) {
		return f.real, name
	}
	if below, ok := strings.CutPrefix(name, f.here); ok {
		name = f.there + below
	}
	return f.PowerCut, name
}

func (f powerFS) OpenFile(op vfs.Op, name string, flag int, perm fs.FileMode) (vfs.File, error) {
	to, name := f.pick(name)
	return to.OpenFile(op, name, flag, perm)
}

func (f powerFS) Rename(op vfs.Op, from, name string) error {
	_, from = f.pick(from)
	to, name := f.pick(name)
	return to.Rename(op, from, name)
}

func (f powerFS) Remove(op vfs.Op, name string) error {
	to, name := f.pick(name)
	return to.Remove(op, name)
}

func (f powerFS) MkdirAll(op vfs.Op, name string, perm fs.FileMode) error {
	to, name := f.pick(name)
	return to.MkdirAll(op, name, perm)
}

func (f powerFS) SyncDir(op vfs.Op, name string) error {
	to, name := f.pick(name)
	return to.SyncDir(op, name)
}

func (f powerFS) ReadDir(op vfs.Op, name string) ([]fs.DirEntry, error) {
	to, name := f.pick(name)
	return to.ReadDir(op, name)
}

func (f powerFS) Stat(op vfs.Op, name string) (fs.FileInfo, error) {
	to, name := f.pick(name)
	return to.Stat(op, name)
}

func (f powerFS) Lock(op vfs.Op, name string) (io.Closer, error) {
	to, name := f.pick(name)
	return to.Lock(op, name)
}

func (f powerFS) Usage(op vfs.Op, name string) (vfs.Usage, error) {
	to, name := f.pick(name)
	return to.Usage(op, name)
}

func powerConfig(pc *vfs.PowerCut, here, there string) Config {
	return Config{
		FS:           powerFS{PowerCut: pc, real: vfs.OS(), here: here, there: there},
		MetadataPath: here, StoragePaths: []string{filepath.Join(here, "data")},
		Partitions: 2, ChunkSize: 64 << 10, LeasePeriod: time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// TestPowerCut runs a small workload and cuts the power at every so many calls
// that change the disk. Afterwards what was acknowledged is there byte for byte,
// what was not is there whole or not at all, and the tree is sound.
func TestPowerCut(t *testing.T) {
	step := 17
	if os.Getenv("BUCKETDB_FULL") == "1" {
		step = 1
	}
	for cut := 1; ; cut += step {
		if !powerCutOnce(t, cut) {
			t.Logf("the workload makes fewer than %d calls", cut)
			return
		}
	}
}

// powerCutOnce cuts at the cut-th call after the start; false: there are fewer.
func powerCutOnce(t *testing.T, cut int) bool {
	t.Helper()
	real := t.TempDir()
	pc := vfs.NewPowerCut()
	if err := pc.MkdirAll("test", real, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := Open(ctx, powerConfig(pc, real, real))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateBucket(ctx, "box", "me"); err != nil {
		t.Fatal(err)
	}
	work, lost := context.WithCancel(ctx) // nobody waits for a node without power
	defer lost()
	before := len(pc.Calls())
	pc.OnOp(func(call int, _ vfs.Op, _ string) {
		if call >= before+cut {
			lost()
		}
	})
	pc.CutAt(cut)
	acked, tried := powerWorkload(work, n)
	completed := len(acked) == len(tried)

	// What the disk holds now; the process that lost its power is left to itself.
	rnd := rand.New(rand.NewSource(int64(cut)))
	after := pc.Crash(rnd)
	next := t.TempDir()
	copyDir(t, filepath.Join(real, "badger"), filepath.Join(next, "badger"))
	go n.Close()

	m, err := Open(ctx, powerConfig(after, next, real))
	if err != nil {
		t.Fatalf("cut at %d: reopening: %v", cut, err)
	}
	defer m.Close()
	for key, body := range acked {
		if body == nil {
			if _, err := m.Stat(ctx, "box", key); !object.IsKind(err, object.KindNotFound) {
				t.Fatalf("cut at %d: %s was deleted, now: %v", cut, key, err)
			}
			continue
		}
		r, err := m.OpenObject(ctx, "box", key)
		if err != nil {
			t.Fatalf("cut at %d: %s was acknowledged, now: %v", cut, key, err)
		}
		if got := readAll(t, r); !bytes.Equal(got, body) && !bytes.Equal(got, tried[key]) {
			t.Fatalf("cut at %d: %s differs", cut, key)
		}
		r.Close()
	}
	settleAll(t, m)
	waitFor(t, "the audit", func() bool {
		if err := m.audit(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := m.Check(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return r.Open == 0 && r.Garbage == 0
	})
	if r, err := m.Check(ctx); err != nil || len(r.Problems) > 0 {
		t.Fatalf("cut at %d: %v, %v", cut, err, r.Problems)
	}
	return !completed
}

// powerWorkload makes every kind of change; acked is what was acknowledged last
// for each key (nil: deleted), tried what was sent last.
func powerWorkload(ctx context.Context, n *Node) (acked, tried map[string][]byte) {
	acked, tried = map[string][]byte{}, map[string][]byte{}
	put := func(key string, size int) {
		body := randomBytes(int64(len(tried)+size), size)
		tried[key] = body
		if _, err := n.Put(ctx, "box", key, bytes.NewReader(body), PutOptions{Size: int64(size)}); err == nil {
			acked[key] = body
		}
	}
	put("small", 100)
	put("dir/large", 150000)
	put("small", 200)
	put("dir/gone", 70000)
	tried["dir/gone"] = nil
	if _, ok := acked["dir/gone"]; ok {
		delete(acked, "dir/gone")
		if n.Delete(ctx, "box", "dir/gone", Conditions{}) == nil {
			acked["dir/gone"] = nil
		}
	}
	if o, err := n.Stat(ctx, "box", "dir/large"); err == nil {
		old := acked["dir/large"]
		changed := append([]byte(nil), old...)
		copy(changed[1000:], strings.Repeat("!", 70000))
		tried["dir/large"] = changed
		if _, _, err := n.Write(ctx, o.Inode.ID, 1000, strings.NewReader(strings.Repeat("!", 70000)), WriteOptions{Size: 70000}); err == nil {
			acked["dir/large"] = changed
		}
	}
	tried["copy/of/large"] = acked["dir/large"]
	if _, err := n.Copy(ctx, "box", "dir/large", "box", "copy/of/large", CopyOptions{}); err == nil {
		acked["copy/of/large"] = acked["dir/large"]
	}
	tried["else/where/small"] = acked["small"]
	if n.RenameObject(ctx, "box", "small", "box", "else/where/small", RenameFlags{}) == nil {
		acked["else/where/small"], acked["small"] = acked["small"], nil
	} else if acked["small"] != nil {
		delete(acked, "small") // it may be under either name
	}
	return acked, tried
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if strings.HasSuffix(path, ".mem") || d.Name() == "LOCK" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
	if err != nil {
		t.Fatal(fmt.Errorf("copying %s: %w", from, err))
	}
}
