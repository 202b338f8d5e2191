package replication

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// powerFS keeps the log and the chunks on a filesystem whose power can be cut.
// Badger's directory is real: a cut leaves a copy of it, without the memtable
// logs. here is where the node sees its directories, there what they are called
// in the filesystem that lost its power.
type powerFS struct {
	*vfs.PowerCut
	aim         *aim
	real        vfs.FS
	here, there string
}

// aim cuts the power in the middle of the nth call with a label.
type aim struct {
	pc   *vfs.PowerCut
	op   vfs.Op
	nth  int
	lost func() // called when a call found the power gone

	alone sync.RWMutex // written around the call that is cut: no other gets in between
	mu    sync.Mutex   // guards seen
	seen  int
}

func (a *aim) call(op vfs.Op, do func() error) error {
	a.mu.Lock()
	if op == a.op {
		a.seen++
	}
	hit := op == a.op && a.seen == a.nth
	a.mu.Unlock()
	if hit {
		a.alone.Lock()
		defer a.alone.Unlock()
		a.pc.CutAt(1)
	} else {
		a.alone.RLock()
		defer a.alone.RUnlock()
	}
	err := do()
	if errors.Is(err, vfs.ErrPowerCut) {
		a.lost()
	}
	return err
}

// aimedFile passes what a call of a file does by the aim.
type aimedFile struct {
	vfs.File
	aim *aim
	op  vfs.Op // it was opened with
}

// ReadAt goes on for a while in a process whose disk has lost its power: raft
// would panic, and take the test with it, where really the process is gone.
func (f aimedFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if !errors.Is(err, vfs.ErrPowerCut) {
		return n, err
	}
	ghost, gerr := f.aim.pc.Crash(nil).OpenFile("test", f.Name(), os.O_RDONLY, 0)
	if gerr != nil {
		return n, err
	}
	defer ghost.Close()
	return ghost.ReadAt(b, off)
}

func (f aimedFile) Write(b []byte) (n int, err error) {
	err = f.aim.call(vfs.WriteOp(f.op), func() error { n, err = f.File.Write(b); return err })
	return n, err
}

func (f aimedFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.aim.call(vfs.WriteOp(f.op), func() error { n, err = f.File.WriteAt(b, off); return err })
	return n, err
}

func (f aimedFile) Truncate(op vfs.Op, size int64) error {
	return f.aim.call(op, func() error { return f.File.Truncate(op, size) })
}

func (f aimedFile) Sync(op vfs.Op) error {
	return f.aim.call(op, func() error { return f.File.Sync(op) })
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

func (f powerFS) OpenFile(op vfs.Op, name string, flag int, perm fs.FileMode) (file vfs.File, err error) {
	to, name := f.pick(name)
	if to == f.real {
		return to.OpenFile(op, name, flag, perm)
	}
	err = f.aim.call(op, func() error { file, err = to.OpenFile(op, name, flag, perm); return err })
	if err != nil {
		return nil, err
	}
	return aimedFile{file, f.aim, op}, nil
}

func (f powerFS) Rename(op vfs.Op, from, name string) error {
	_, from = f.pick(from)
	return f.change(op, name, func(to vfs.FS, name string) error { return to.Rename(op, from, name) })
}

func (f powerFS) Remove(op vfs.Op, name string) error {
	return f.change(op, name, func(to vfs.FS, name string) error { return to.Remove(op, name) })
}

func (f powerFS) MkdirAll(op vfs.Op, name string, perm fs.FileMode) error {
	return f.change(op, name, func(to vfs.FS, name string) error { return to.MkdirAll(op, name, perm) })
}

func (f powerFS) SyncDir(op vfs.Op, name string) error {
	return f.change(op, name, func(to vfs.FS, name string) error { return to.SyncDir(op, name) })
}

func (f powerFS) change(op vfs.Op, name string, do func(to vfs.FS, name string) error) error {
	to, name := f.pick(name)
	if to == f.real {
		return do(to, name)
	}
	return f.aim.call(op, func() error { return do(to, name) })
}

func (f powerFS) ReadDir(op vfs.Op, name string) ([]fs.DirEntry, error) {
	to, name := f.pick(name)
	return to.ReadDir(op, name)
}

func (f powerFS) Stat(op vfs.Op, name string) (fs.FileInfo, error) {
	to, name := f.pick(name)
	return to.Stat(op, name)
}

func (f powerFS) Lock(op vfs.Op, name string) (lock io.Closer, err error) {
	err = f.change(op, name, func(to vfs.FS, name string) error { lock, err = to.Lock(op, name); return err })
	return lock, err
}

func (f powerFS) Usage(op vfs.Op, name string) (vfs.Usage, error) {
	to, name := f.pick(name)
	return to.Usage(op, name)
}

func powerConfig(a *aim, here, there string) Config {
	return Config{
		FS:           powerFS{PowerCut: a.pc, aim: a, real: vfs.OS(), here: here, there: there},
		MetadataPath: here, StoragePaths: []string{filepath.Join(here, "data")},
		Partitions: 2, ChunkSize: 64 << 10, LeasePeriod: time.Millisecond, walSegment: 64 << 10, groups: testGroups,
		Logger: slog.New(slog.DiscardHandler),
	}
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
		t.Fatalf("copying %s: %v", from, err)
	}
}
