package replication

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// tree is what lies under a directory: kinds, permissions, times, digests.
func tree(t *testing.T, seed maphash.Seed, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var sum uint64
		if info.Mode().IsRegular() {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			var h maphash.Hash
			h.SetSeed(seed)
			if _, err := io.Copy(&h, f); err != nil {
				return err
			}
			sum = h.Sum64()
		}
		m[path] = fmt.Sprint(info.Mode(), info.ModTime(), info.Size(), sum)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// killedStore is a store whose node was not closed: it has a log to replay,
// memtable logs to drop, half-written files.
func killedStore(t *testing.T) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.walSegment = 1 << 20
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, n, "large", randomBytes(1, 300000))
	copied := testConfig(t)
	copied.MetadataPath, copied.StoragePaths = filepath.Join(t.TempDir(), "meta"), []string{filepath.Join(t.TempDir(), "data")}
	for from, to := range map[string]string{cfg.MetadataPath: copied.MetadataPath, cfg.StoragePaths[0]: copied.StoragePaths[0]} {
		copyTree(t, from, to)
	}
	if err := os.WriteFile(filepath.Join(copied.MetadataPath, "wal", "0000000000000009.wal.tmp"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}

// copyTree copies a directory; Badger's files are large and almost empty.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
}

// rewrite changes the files that match, until the test ends.
func rewrite(t *testing.T, pattern string, change func(b []byte) []byte) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatal(pattern, err)
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, change(bytes.Clone(raw)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Error(err)
			}
		})
	}
}

func replace(old, new string) func(b []byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
}

// newerLog raises the version in a segment's header.
func newerLog(b []byte) []byte {
	le := binary.LittleEndian
	le.PutUint32(b[8:], le.Uint32(b[8:])+1)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// TestRefusedStoreIsLeftAsItIs starts a node on directories that it must not
// write to: after the error nothing in them has changed, not even a time.
func TestRefusedStoreIsLeftAsItIs(t *testing.T) {
	store := killedStore(t)
	other := t.TempDir()
	if err := writeLayout(vfs.OS(), other, &layout{Version: layoutVersion, Store: "another"}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(t *testing.T, cfg *Config)
		kind   object.Kind
		says   string
	}{
		"newer log":      {func(t *testing.T, cfg *Config) { rewrite(t, cfg.MetadataPath+"/wal/*.wal", newerLog) }, object.KindVersion, "/wal/"},
		"newer metadata": {func(t *testing.T, cfg *Config) { rewrite(t, cfg.MetadataPath+"/badger/FORMAT", replace("1", "2")) }, object.KindVersion, "/badger was"},
		"newer layout":   {func(t *testing.T, cfg *Config) { rewrite(t, cfg.MetadataPath+"/STORE.json", replace(": 1", ": 2")) }, object.KindVersion, "upgrade"},
		"newer chunks":   {func(t *testing.T, cfg *Config) { rewrite(t, cfg.StoragePaths[0]+"/STORE.json", replace(": 1", ": 2")) }, object.KindVersion, "upgrade"},
		"partitions":     {func(t *testing.T, cfg *Config) { cfg.Partitions = 4 }, object.KindInvalid, "-partitions 8"},
		"another node":   {func(t *testing.T, cfg *Config) { cfg.NodeID = "other" }, object.KindInvalid, "-id node1"},
		"another disk":   {func(t *testing.T, cfg *Config) { cfg.StoragePaths = []string{other} }, object.KindInvalid, "another store"},
		"lost layout": {func(t *testing.T, cfg *Config) {
			rewrite(t, cfg.MetadataPath+"/STORE.json", bytes.Clone) // brings it back
			if err := os.Remove(cfg.MetadataPath + "/STORE.json"); err != nil {
				t.Fatal(err)
			}
		}, object.KindCorrupt, "restore that file"},
		"new metadata": {func(t *testing.T, cfg *Config) { cfg.MetadataPath = t.TempDir() }, object.KindInvalid, "whose metadata is elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := store
			tc.change(t, &cfg)
			seed := maphash.MakeSeed()
			look := func() map[string]string {
				all := map[string]string{}
				dirs := append([]string{store.MetadataPath, cfg.MetadataPath, store.StoragePaths[0]}, cfg.StoragePaths...)
				slices.Sort(dirs)
				for _, d := range slices.Compact(dirs) {
					maps.Copy(all, tree(t, seed, d))
				}
				return all
			}
			before := look()
			n, err := Open(t.Context(), cfg)
			if err == nil {
				n.Close()
			}
			if !object.IsKind(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v; want %v and %q", err, tc.kind, tc.says)
			}
			after := look()
			for path, was := range before {
				if after[path] != was {
					t.Errorf("%s was changed or removed", path)
				}
				delete(after, path)
			}
			if len(after) > 0 {
				t.Errorf("made were %v", after)
			}
		})
	}
}

// The formats that survey reads are those that the packages write, and they
// themselves refuse what it refuses.
func TestFormatsAreThoseOfTheirPackages(t *testing.T) {
	store := killedStore(t)
	n := &Node{cfg: store}
	if err := n.cfg.complete(); err != nil {
		t.Fatal(err)
	}
	if err := n.checkFormats(); err != nil {
		t.Fatal(err)
	}
	rewrite(t, n.logPath()+"/*.wal", func(b []byte) []byte {
		return newerLog(b)
	})
	_, err := wal.Open(wal.Options{Dir: n.logPath()})
	wantKind(t, err, object.KindVersion)
	wantKind(t, n.checkFormats(), object.KindVersion)

	rewrite(t, n.metaPath()+"/"+meta.FormatName, func(b []byte) []byte {
		if string(b) != "1\n" || meta.FormatVersion != 1 {
			t.Errorf("the metadata's format is %q", b)
		}
		return []byte("2\n")
	})
	_, err = meta.Open(meta.Options{Dir: n.metaPath()})
	wantKind(t, err, object.KindVersion)
}

// disks keeps what lies under /disks in a filesystem that can lose its power.
type disks struct {
	vfs.FS
	pc *vfs.PowerCut
}

func (d disks) of(name string) vfs.FS {
	if strings.HasPrefix(name+"/", "/disks/") || name == "/" { // wherever TMPDIR is
		return d.pc
	}
	return d.FS
}

func (d disks) OpenFile(op vfs.Op, name string, flag int, perm fs.FileMode) (vfs.File, error) {
	return d.of(name).OpenFile(op, name, flag, perm)
}
func (d disks) Rename(op vfs.Op, from, to string) error     { return d.of(from).Rename(op, from, to) }
func (d disks) Remove(op vfs.Op, name string) error         { return d.of(name).Remove(op, name) }
func (d disks) SyncDir(op vfs.Op, name string) error        { return d.of(name).SyncDir(op, name) }
func (d disks) Lock(op vfs.Op, s string) (io.Closer, error) { return d.of(s).Lock(op, s) }
func (d disks) MkdirAll(op vfs.Op, name string, perm fs.FileMode) error {
	return d.of(name).MkdirAll(op, name, perm)
}
func (d disks) ReadDir(op vfs.Op, name string) ([]fs.DirEntry, error) {
	return d.of(name).ReadDir(op, name)
}
func (d disks) Stat(op vfs.Op, name string) (fs.FileInfo, error) { return d.of(name).Stat(op, name) }
func (d disks) Usage(op vfs.Op, name string) (vfs.Usage, error)  { return d.of(name).Usage(op, name) }

// A storage path some levels down is still there after a power cut, with what
// was acknowledged in it.
func TestStoragePathThatWasMadeSurvivesAPowerCut(t *testing.T) {
	d := disks{vfs.OS(), vfs.NewPowerCut()}
	cfg := testConfig(t)
	cfg.FS, cfg.StoragePaths = d, []string{"/disks/a/b/c"}
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, n, "large", randomBytes(1, 300000))
	left := d.pc.Crash(nil)
	if l, err := readLayout(left, cfg.StoragePaths[0]); err != nil || l == nil {
		t.Errorf("the storage path is gone: %v, %v", l, err)
	}
	s, err := chunk.Open(chunk.Options{FS: left, Dirs: cfg.StoragePaths, Logger: cfg.Logger})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if parts, err := s.Partitions(); err != nil || len(parts) == 0 {
		t.Errorf("the chunks are gone: %v, %v", parts, err)
	}
}

// One directory for both, by two names.
func TestOneDirectoryByTwoNames(t *testing.T) {
	for _, link := range []bool{false, true} {
		dir := t.TempDir()
		cfg := testConfig(t)
		cfg.MetadataPath = filepath.Join(dir, "d")
		cfg.StoragePaths = []string{filepath.Join(dir, "d")}
		if link {
			if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(dir, "d"), filepath.Join(dir, "s")); err != nil {
				t.Fatal(err)
			}
			cfg.StoragePaths = []string{filepath.Join(dir, "s")}
		}
		n, err := Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		n, err = Open(context.Background(), cfg)
		if err != nil {
			t.Errorf("link=%v: second start: %v", link, err)
			continue
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The power goes right after a new store was described, metadata and data on different trees.
func TestPowerCutWhileAStoreIsMade(t *testing.T) {
	pc := vfs.NewPowerCut()
	cfg := testConfig(t)
	cfg.FS, cfg.MetadataPath, cfg.StoragePaths = pc, "/ssd/meta", []string{"/hdd/chunks"}
	n := &Node{cfg: cfg}
	if err := n.cfg.complete(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/ssd", "/hdd"} { // mount points
		if err := pc.MkdirAll("x", d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := pc.SyncDir("x", "/"); err != nil {
		t.Fatal(err)
	}
	if err := pc.MkdirAll("x", n.metaPath(), 0o755); err != nil { // as meta.Open does
		t.Fatal(err)
	}
	if err := n.openLayout(); err != nil {
		t.Fatal(err)
	}
	n.cfg.FS = pc.Crash(nil)
	if _, err := n.survey(); err != nil {
		t.Error("after the cut:", err)
	}
}

// A second process hears that there is a first, whatever else is wrong with its settings.
func TestSecondProcessHearsOfTheFirst(t *testing.T) {
	cfg := testConfig(t)
	n, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Partitions++
	if _, err := Open(context.Background(), cfg); !object.IsKind(err, object.KindBusy) {
		t.Errorf("beside the first: %v, want a KindBusy", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), cfg); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("after it: %v, want a KindInvalid", err)
	}
}
