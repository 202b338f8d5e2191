package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4/table"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// TestCompactionsAreBooked: every key that compactions read is accounted for, so
// the lines of Badger's log that this stands on are still there.
func TestCompactionsAreBooked(t *testing.T) {
	db := open(t, small(t.TempDir()))
	defer db.Close()
	deadline := time.Now().Add(2 * time.Minute)
	for n := 0; balanced(db) < 2; n++ {
		if time.Now().After(deadline) {
			t.Fatalf("no compaction was booked after %d rounds", n)
		}
		must(t, overwrite(db, n))
	}
	must(t, db.lines.damage())
}

func balanced(db *DB) int {
	db.lines.books.mu.Lock()
	defer db.lines.books.mu.Unlock()
	return db.lines.books.balanced
}

// overwrite commits some 3 MB to keys that come again every seventh round.
func overwrite(db *DB, round int) error {
	return overwriteBy(db, round, same)
}

func overwriteBy(db *DB, round int, value func() []byte) error {
	p := db.Partition(1)
	for i := range 4096 {
		tx := p.Begin()
		if err := tx.Set(fmt.Appendf(nil, "k%d-%08d", round%7, i), value()); err != nil {
			return err
		}
		if err := tx.Commit(p.Applied() + 1); err != nil {
			return err
		}
	}
	return nil
}

// bendOneBlock breaks the middle of one block of each table.
func bendOneBlock(t *testing.T, dir string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, dataName, "*.sst"))
	must(t, err)
	if len(tables) == 0 {
		t.Fatal("no tables")
	}
	for _, name := range tables {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		var b [1]byte
		_, err = f.ReadAt(b[:], 60)
		must(t, err)
		_, err = f.WriteAt([]byte{b[0] ^ 1}, 60)
		must(t, errors.Join(err, f.Close()))
	}
}

// marking lets a test do something when the damage is about to be written down:
// after the loss was found, and before its compaction goes on.
type marking struct {
	vfs.FS
	at func() error
}

func (m *marking) OpenFile(op vfs.Op, name string, flag int, perm fs.FileMode) (vfs.File, error) {
	if op == OpDamage && flag&os.O_CREATE != 0 {
		if err := m.at(); err != nil {
			return nil, err
		}
	}
	return m.FS.OpenFile(op, name, flag, perm)
}

// rot opens a database of two sets of keys with a bad block in each table.
func rot(t *testing.T, dir string, fsys vfs.FS) *DB {
	t.Helper()
	opts := small(dir)
	opts.FS = fsys
	db, err := Open(opts)
	must(t, err)
	must(t, overwrite(db, 0))
	must(t, overwrite(db, 1))
	waitFlushed(t, db)
	bendOneBlock(t, dir)
	return db
}

func same() []byte { return bytes.Repeat([]byte("y"), 700) }

// write commits other keys until a compaction meets the damage.
func write(t *testing.T, db *DB, value func() []byte) error {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for n := 2; ; n++ {
		if time.Now().After(deadline) {
			t.Fatal("no compaction noticed")
		}
		if n%7 < 2 {
			continue
		}
		if err := overwriteBy(db, n, value); err != nil {
			return err
		}
	}
}

// TestNoSilenceInCompactions reads while a compaction meets bad blocks: nothing that
// was committed is ever "not there". The database is refused from then on, at
// once and whenever it is opened again.
func TestNoSilenceInCompactions(t *testing.T) {
	dir := t.TempDir()
	db := rot(t, dir, vfs.OS())
	stop, done := make(chan struct{}), make(chan int)
	go func() { done <- silences(db, stop) }()
	err := write(t, db, same)
	if !object.IsKind(err, object.KindCorrupt) || !strings.Contains(err.Error(), "unreadable block") {
		t.Errorf("a commit after the loss: %v", err)
	}
	close(stop)
	if n := <-done; n > 0 {
		t.Errorf("%d reads of committed keys said 'not there'", n)
	}
	v := db.Partition(1).View()
	if _, _, err := v.Get([]byte("k0-00000001")); !object.IsKind(err, object.KindCorrupt) {
		t.Errorf("a read after the loss: %v", err)
	}
	must(t, v.Close())
	must(t, db.Close())
	refused(t, dir)
}

// silences reads the keys of the first two sets, and counts those that are not
// there without an error.
func silences(db *DB, stop <-chan struct{}) (n int) {
	for {
		for i := range 128 {
			select {
			case <-stop:
				return n
			default:
			}
			v := db.Partition(1).View()
			_, found, err := v.Get(fmt.Appendf(nil, "k%d-%08d", i%2, i/2))
			if err == nil && !found {
				n++
			}
			_ = v.Close()
		}
	}
}

func refused(t *testing.T, dir string) {
	t.Helper()
	db, err := Open(small(dir))
	if !object.IsKind(err, object.KindCorrupt) {
		t.Errorf("opening it again: %v", err)
	}
	if err == nil {
		must(t, db.Close())
	}
}

// copyAtOnce copies a database's files as they were at one moment, while memtables
// are flushed: it begins again when the manifest changed meanwhile.
func copyAtOnce(to, from string) error {
	for {
		before, err := os.ReadFile(filepath.Join(from, "MANIFEST"))
		if err := errors.Join(err, os.RemoveAll(to), os.MkdirAll(to, 0o700)); err != nil {
			return err
		}
		files, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, f := range files {
			data, err := os.ReadFile(filepath.Join(from, f.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // flushed: its successor is there
			}
			if err = errors.Join(err, os.WriteFile(filepath.Join(to, f.Name()), data, 0o600)); err != nil {
				return err
			}
		}
		after, err := os.ReadFile(filepath.Join(from, "MANIFEST"))
		if err != nil || bytes.Equal(before, after) {
			return err
		}
	}
}

// TestKillBeforeTheDamageIsNoted: what is on the disk while the loss is found and not
// yet written down still has the bad blocks, and so does not open.
func TestKillBeforeTheDamageIsNoted(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	marks := &marking{FS: vfs.OS(), at: func() error {
		return copyAtOnce(filepath.Join(copied, dataName), filepath.Join(dir, dataName))
	}}
	db := rot(t, dir, marks)
	if err := write(t, db, same); err == nil {
		t.Fatal("no damage")
	}
	must(t, db.Close()) // returns once it is noted
	must(t, os.WriteFile(filepath.Join(copied, FormatName), []byte("1\n"), 0o600))
	if _, err := os.Stat(filepath.Join(copied, dataName, "MANIFEST")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(copied, damageName)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	refused(t, copied)
}

// TestDamageThatCannotBeNoted: the compaction is held as long as the mark cannot be
// written, and Close does not wait for it.
func TestDamageThatCannotBeNoted(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	dir := t.TempDir()
	db := rot(t, dir, &marking{FS: vfs.OS(), at: func() error {
		if broken.Load() {
			return errors.New("no room")
		}
		return nil
	}})
	err := write(t, db, same)
	if !object.IsKind(err, object.KindCorrupt) {
		t.Fatalf("a commit after the loss: %v", err)
	}
	<-db.lines.stuck
	if err := db.Close(); err == nil {
		t.Error("Close said nothing of the damage that is not noted")
	}
	if err := db.Verify(context.Background()); !object.IsKind(err, object.KindCorrupt) {
		t.Errorf("the bad blocks are gone: %v", err)
	}
	broken.Store(false) // Badger ends by itself, for the next test's sake
	must(t, db.badger.Close())
}

// accounts is a ledger for tests.
type accounts struct {
	under  atomic.Pointer[[]uint64]
	counts map[uint64]uint64
	files  atomic.Pointer[map[uint64]uint64] // nil: has none
	broken error                             // of written
}

func (a *accounts) compacting() []uint64         { return *a.under.Load() }
func (a *accounts) keyCounts() map[uint64]uint64 { return a.counts }
func (a *accounts) written() (map[uint64]uint64, error) {
	if a.broken != nil {
		return nil, a.broken
	}
	if files := a.files.Load(); files != nil {
		return *files, nil
	}
	return nil, nil
}
func (a *accounts) set(tables ...uint64) { a.under.Store(&tables) }

func held(c *compactions) <-chan string {
	end := make(chan string, 1)
	go func() {
		what := ""
		if err := c.hold(func(damage string) { what = damage }, func() {}, func(error) {}); err != nil {
			what = err.Error()
		}
		end <- what
	}()
	return end
}

// TestUncheckableCompaction: who waits for one that cannot be checked hears of it.
func TestUncheckableCompaction(t *testing.T) {
	a := &accounts{counts: map[uint64]uint64{1: 10}, broken: errors.New("too many open files")}
	a.set(1)
	c := compactions{patience: time.Millisecond}
	c.attach(a)
	read(&c, 0, 10, 0)
	told, done := make(chan struct{}), make(chan error, 1)
	once := sync.OnceFunc(func() { close(told) })
	go func() { done <- c.hold(func(what string) { t.Error("told", what) }, once, func(error) {}) }()
	select {
	case <-told:
	case err := <-done:
		t.Fatalf("it was let go: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told")
	}
	c.release()
	must(t, <-done)
	if err := newBadgerLog(slog.New(slog.DiscardHandler)).held(); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("who waited gets %v", err)
	}
}

// TestUnreadableDirectoryIsToldAtOnce: a compaction that waits until the directory
// can be read says so when it begins to wait, once for all its parts, and goes on.
func TestUnreadableDirectoryIsToldAtOnce(t *testing.T) {
	dir := t.TempDir()
	hidden := dir + ".hidden"
	ledger := &unreadable{accounts: &accounts{counts: map[uint64]uint64{1: 10, 2: 10}}, dir: hidden}
	logged := make(chan slog.Record, 100)
	l := newBadgerLog(slog.New(recording{slog.DiscardHandler, logged}))
	l.books.attach(ledger)
	for round := range uint64(2) { // the next compaction tells anew
		ledger.set(1 + round)
		read(&l.books, 0, 0, 10)
		var parts sync.WaitGroup
		start := time.Now()
		for range 3 {
			parts.Go(func() { l.Infof(lineStats, "of a part") })
		}
		select {
		case r := <-logged:
			if !strings.Contains(r.Message, "limit of open files") || r.Level != slog.LevelError {
				t.Errorf("logged %v %q", r.Level, r.Message)
			}
		case <-time.After(stuckAfter / 10):
			t.Fatalf("nothing was logged in %v", time.Since(start))
		}
		// The parts look again, and again, before there is something to see.
		for seen, deadline := ledger.looks.Load(), time.Now().Add(stuckAfter); ledger.looks.Load() < seen+20; time.Sleep(lookAgain) {
			if time.Now().After(deadline) {
				t.Fatal("the parts do not look again")
			}
		}
		must(t, os.Symlink(dir, hidden))
		parts.Wait()
		must(t, os.Remove(hidden))
		if len(logged) > 0 {
			t.Errorf("and again: %q", (<-logged).Message)
		}
	}
	must(t, l.damage())
}

// unreadable are accounts whose directory is looked at.
type unreadable struct {
	*accounts
	dir   string
	looks atomic.Int64
}

func (u *unreadable) written() (map[uint64]uint64, error) {
	u.looks.Add(1)
	if _, err := os.ReadDir(u.dir); err != nil {
		return nil, err
	}
	return nil, nil
}

// recording is a log that a test reads.
type recording struct {
	slog.Handler
	records chan slog.Record
}

func (r recording) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (r recording) Handle(_ context.Context, rec slog.Record) error {
	r.records <- rec
	return nil
}
func (r recording) WithAttrs([]slog.Attr) slog.Handler { return r }

func read(c *compactions, id int, added, skipped uint64) {
	c.line(lineKeys, []any{id, added, skipped, time.Second})
}

// TestBooks holds the parts of two compactions, one of which fails and comes again.
func TestBooks(t *testing.T) {
	a := &accounts{counts: map[uint64]uint64{1: 10, 2: 5, 3: 7}}
	a.set(1, 2)
	var c compactions
	early := held(&c) // before Open has returned
	read(&c, 0, 9, 1)
	c.attach(a)
	late := held(&c)
	passing(t, &c, false)
	read(&c, 0, 4, 1)
	if what := <-early + <-late; what != "" {
		t.Error(what)
	}
	nothing := held(&c) // a part without keys
	if what := <-nothing; what != "" {
		t.Error(what)
	}
	a.set(1, 2, 3)
	read(&c, 1, 7, 0)
	if what := <-held(&c); what != "" {
		t.Error(what)
	}
	c.line(lineDone, []any{1, 3})
	c.line(lineFailed, []any{0, "no", "matter"})
	a.set()
	a.set(1, 2)
	again := held(&c)
	read(&c, 0, 14, 0)
	passing(t, &c, false)
	read(&c, 0, 1, 0)
	if what := <-again; what != "" || c.balanced != 3 {
		t.Errorf("%q, %d balances", what, c.balanced)
	}
}

// TestTableThatCannotBeMade: Badger drops the error of a new table whose file cannot be
// made, and would install the others. Every third name is taken here.
func TestTableThatCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	db := open(t, small(dir))
	must(t, overwrite(db, 0))
	must(t, overwrite(db, 1))
	waitFlushed(t, db)
	last := uint64(0)
	for _, table := range db.badger.Tables() {
		last = max(last, table.ID)
	}
	for id := last + 4; id < last+100; id += 3 {
		must(t, os.WriteFile(table.NewFilename(id, db.dir.data()), nil, 0o600))
	}
	stop, done := make(chan struct{}), make(chan int)
	go func() { done <- silences(db, stop) }()
	// Values that do not compress, so that a compaction makes several tables.
	random := rand.NewChaCha8([32]byte{})
	err := write(t, db, func() []byte {
		value := make([]byte, 700)
		_, _ = random.Read(value)
		return value
	})
	if !object.IsKind(err, object.KindCorrupt) || !strings.Contains(err.Error(), "could not make") {
		t.Errorf("a commit after the loss: %v", err)
	}
	close(stop)
	if n := <-done; n > 0 {
		t.Errorf("%d reads of committed keys said 'not there'", n)
	}
	must(t, db.Close())
	refused(t, dir)
}

// TestBooksOfNewTables: each new table needs a file of its own.
func TestBooksOfNewTables(t *testing.T) {
	a := &accounts{counts: map[uint64]uint64{1: 10, 2: 4}}
	a.set(1)
	a.files.Store(&map[uint64]uint64{7: 3, 8: 9})
	var c compactions
	c.attach(a)
	read(&c, 0, 3, 0)
	read(&c, 0, 3, 4)
	passing(t, &c, false)
	a.files.Store(&map[uint64]uint64{7: 3, 8: 9, 9: 3})
	passing(t, &c, true)
	a.set(1, 2)
	read(&c, 1, 3, 1)
	passing(t, &c, false) // 7 and 9 are the other compaction's
	a.files.Store(&map[uint64]uint64{7: 3, 8: 9, 9: 3, 10: 3})
	passing(t, &c, true)
	a.set(1)
	c.line(lineDone, []any{1, 3})
	passing(t, &c, true)
}

// TestUncheckedCompaction: one that ran when Open failed is not let go.
func TestUncheckedCompaction(t *testing.T) {
	var c compactions
	end := held(&c)
	c.line(lineOpen, []any{errors.New("no")})
	if what := <-end; what != "no" {
		t.Errorf("told %q", what)
	}
}

func passing(t *testing.T, c *compactions, want bool) {
	t.Helper()
	if _, v := c.pass(); (v == passes) != want {
		t.Errorf("passes: %v", v)
	}
}
