package meta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// slowLog keeps Badger's Open between the start of its compactors and its value
// log until one of them has read.
type slowLog struct {
	slog.Handler
	read chan struct{}
	once *sync.Once
}

func (h slowLog) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case strings.Contains(r.Message, "LOG Compact. Added"):
		h.once.Do(func() { close(h.read) })
	case strings.Contains(r.Message, "Set nextTxnTs"):
		select {
		case <-h.read:
		case <-time.After(20 * time.Second): // the test says what it lacks
		}
	}
	return nil
}
func (h slowLog) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h slowLog) Enabled(context.Context, slog.Level) bool { return true }

// An Open that fails for a reason that passes leaves a healthy store healthy.
func TestFailedOpenWhileCompacting(t *testing.T) {
	dir := t.TempDir()
	const tables = 5 // as many as make Badger compact: one more Open could do it too early
	for i := range tables {
		db, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		txn := db.Partition(1).Begin()
		for k := range 200 {
			if err := txn.Set(fmt.Appendf(nil, "%d-%d", k, i), make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
		if err := txn.Commit(uint64(i + 1)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	bad := filepath.Join(dir, "badger", "000077.vlog")
	if err := os.Mkdir(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	log := slowLog{slog.DiscardHandler, make(chan struct{}), new(sync.Once)}
	if _, err := Open(Options{Dir: dir, Logger: slog.New(log)}); !object.IsKind(err, object.KindUnavailable) {
		t.Fatalf("Open: %v, want a KindUnavailable", err)
	}
	select {
	case <-log.read:
	default:
		t.Fatal("no compaction ran while it opened")
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, damageName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a healthy store is marked: %s", text)
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	db, err := Open(Options{Dir: left})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	v := db.Partition(1).View()
	defer v.Close()
	n := 0
	if err := v.Ascend(nil, nil, func(_, _ []byte) (bool, error) { n++; return true, nil }); err != nil || n != 200*tables {
		t.Error(n, err)
	}
}
