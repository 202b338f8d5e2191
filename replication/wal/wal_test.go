package wal

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// Group is what raft wants, and not a MonotonicLogStore.
func TestInterfaces(t *testing.T) {
	var g any = (*Group)(nil)
	if _, ok := g.(raft.LogStore); !ok {
		t.Error("no LogStore")
	}
	if _, ok := g.(raft.StableStore); !ok {
		t.Error("no StableStore")
	}
	if _, ok := g.(raft.MonotonicLogStore); ok {
		t.Error("a MonotonicLogStore: see hashicorp/raft#697")
	}
}

// TestLogStore checks what raft expects of its stores, on disk and after a
// restart alike.
func TestLogStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := mustOpen(t, Options{Dir: dir})
	g := l.Group(3)
	if first, _ := g.FirstIndex(); first != 0 {
		t.Fatal("an empty log has a first index")
	}
	if err := g.GetLog(1, new(raft.Log)); err != raft.ErrLogNotFound { // raft compares with ==
		t.Fatal(err)
	}
	if v, err := g.GetUint64([]byte("none")); v != 0 || err != nil {
		t.Fatal(v, err)
	}
	if v, err := g.Get([]byte(keyLastVoteCand)); v != nil || err != nil { // raft asks for nil
		t.Fatal(v, err)
	}
	var logs []*raft.Log
	for i := uint64(1); i <= 40; i++ {
		logs = append(logs, entryOf(step{term: 2, size: 300}, i))
	}
	must(t, g.StoreLogs(logs))
	must(t, g.StoreLogs(nil))
	must(t, g.StoreLog(entryOf(step{term: 4}, 60))) // a gap, as after a restored snapshot
	must(t, g.DeleteRange(1, 5))
	must(t, g.DeleteRange(61, 99))
	must(t, g.Set([]byte("empty"), nil))
	wantKind(t, g.StoreLog(&raft.Log{}), object.KindInvalid)
	for range 2 {
		first, _ := g.FirstIndex()
		last, _ := g.LastIndex()
		if first != 6 || last != 60 {
			t.Fatalf("the log has %d..%d", first, last)
		}
		for i := uint64(6); i <= 40; i++ {
			var e raft.Log
			must(t, g.GetLog(i, &e))
			if got, want := showEntry(&e), showEntry(logs[i-1]); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		if err := g.GetLog(50, new(raft.Log)); err != raft.ErrLogNotFound {
			t.Fatal(err)
		}
		if v, err := g.Get([]byte("empty")); len(v) != 0 || err != nil {
			t.Fatal(v, err)
		}
		must(t, l.Close())
		must(t, l.Close())
		wantKind(t, g.StoreLog(logs[0]), object.KindUnavailable)
		l = mustOpen(t, Options{Dir: dir})
		g = l.Group(3)
	}
	must(t, l.Close())
}

// TestVoteIsOneRecord: a term set without its candidate is no vote.
func TestVoteIsOneRecord(t *testing.T) {
	t.Parallel()
	disk := vfs.NewPowerCut()
	l := mustOpen(t, small(disk, "/wal"))
	g := l.Group(1)
	must(t, (step{what: "vote", group: 1, term: 4, lo: 7}).run(l))
	must(t, g.SetUint64([]byte(keyLastVoteTerm), 5))
	check := func(g *Group) {
		t.Helper()
		term, _ := g.GetUint64([]byte(keyLastVoteTerm))
		cand, _ := g.Get([]byte(keyLastVoteCand))
		if term != 4 || string(cand) != "node-7" {
			t.Fatalf("the vote is for %q in term %d", cand, term)
		}
	}
	check(g)
	check(mustOpen(t, small(disk.Crash(nil), "/wal")).Group(1))
}

func TestPoisonedAfterFailedSync(t *testing.T) {
	t.Parallel()
	for _, op := range []vfs.Op{opAppendSync, vfs.WriteOp(opOpen), opSealSync, opCreateDir} {
		fsys := vfs.NewFaulty(vfs.NewPowerCut())
		l := mustOpen(t, small(fsys, "/wal"))
		g := l.Group(1)
		must(t, g.StoreLog(entryOf(step{size: 100}, 1)))
		fsys.Set(op, vfs.Rule{Err: syscall.EIO, Times: 1})
		var failure error
		for i := uint64(2); i < 40 && failure == nil; i++ {
			failure = g.StoreLog(entryOf(step{size: 100}, i))
		}
		if !errors.Is(failure, syscall.EIO) {
			// A failed mark poisons too; the next call is told.
			t.Fatalf("%s: %v", op, failure)
		}
		wantKind(t, failure, object.KindUnavailable)
		syncs := fsys.Count(opAppendSync)
		wantKind(t, g.StoreLog(entryOf(step{}, 99)), object.KindUnavailable)
		wantKind(t, l.Err(), object.KindUnavailable)
		<-l.Failed()
		must(t, g.GetLog(1, new(raft.Log)))
		if n := fsys.Count(opAppendSync); n != syncs {
			t.Errorf("%s: it synced again after the failure", op)
		}
		if l.Close() == nil {
			t.Errorf("%s: Close hides that the log failed", op)
		}
	}
}

// TestNoSpace: a segment that cannot be made fails the call, not the log.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	for _, op := range []vfs.Op{opCreate, opCreateSize, opCreateSync, vfs.WriteOp(opCreate)} {
		fsys := vfs.NewFaulty(vfs.NewPowerCut())
		l := mustOpen(t, small(fsys, "/wal"))
		g := l.Group(1)
		must(t, g.StoreLog(entryOf(step{size: 400}, 1)))
		fsys.Fail(op, syscall.ENOSPC)
		big := entryOf(step{size: 900}, 2)
		wantKind(t, g.StoreLog(big), object.KindNoSpace)
		wantKind(t, g.StoreLog(big), object.KindNoSpace)
		fsys.Clear()
		must(t, g.StoreLog(big))
		must(t, g.StoreLog(entryOf(step{size: 9000}, 3))) // larger than a segment
		want := mustDump(t, l)
		must(t, l.Close())
		if got := mustDump(t, mustOpen(t, small(fsys, "/wal"))); got != want {
			t.Fatalf("%s: got %s, want %s", op, got, want)
		}
	}
}

// TestNoSpaceInSegment: a batch that does not fit on the disk, or only in part,
// fails its call, and the log goes on where it was.
func TestNoSpaceInSegment(t *testing.T) {
	t.Parallel()
	for short := range 400 {
		fsys := vfs.NewFaulty(vfs.NewPowerCut())
		l := mustOpen(t, small(fsys, "/wal"))
		g := l.Group(1)
		must(t, g.StoreLog(entryOf(step{size: 100}, 1)))
		fsys.Set(vfs.WriteOp(opOpen), vfs.Rule{Err: syscall.ENOSPC, Times: 1, Short: short})
		wantKind(t, g.StoreLog(entryOf(step{size: 300}, 2)), object.KindNoSpace)
		if short%2 == 0 {
			must(t, g.StoreLog(entryOf(step{size: 10}, 2)))
		}
		want := mustDump(t, l)
		if short%3 == 0 {
			must(t, l.Close())
		}
		if got := mustDump(t, mustOpen(t, small(fsys, "/wal"))); got != want {
			t.Fatalf("after %d bytes: got %s, want %s", short, got, want)
		}
	}
}

// TestGroupCommit holds one sync and lets 64 groups gather behind it: they must
// share the next one.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewFaulty(vfs.OS())
	l := mustOpen(t, Options{FS: fsys, Dir: t.TempDir(), ManualClean: true})
	hold := make(chan struct{})
	fsys.Set(opAppendSync, vfs.Rule{Block: hold, Times: 1})
	var wg sync.WaitGroup
	store := func(id object.PartitionID) {
		wg.Go(func() {
			if err := l.Group(id).StoreLog(entryOf(step{size: 64}, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	store(0)
	waitFor(t, func() bool { return fsys.Count(opAppendSync) == 1 })
	for id := object.PartitionID(1); id < 64; id++ {
		store(id)
	}
	waitFor(t, func() bool {
		l.qmu.Lock()
		defer l.qmu.Unlock()
		return len(l.queue) == 63
	})
	close(hold)
	wg.Wait()
	if s := l.Stats(); s.Batches != 2 || s.Entries != 64 {
		t.Errorf("%d entries in %d batches", s.Entries, s.Batches)
	}
	must(t, l.Close())
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// TestConcurrent has 64 groups write, read, compact and vote while the cleaner
// runs, and compares what is there after a restart.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir(), SegmentBytes: 32 << 10, CacheBytes: 64 << 10}
	l := mustOpen(t, o)
	var wg sync.WaitGroup
	for id := range object.PartitionID(64) {
		wg.Go(func() {
			if err := concurrentGroup(l, l.Group(id)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	waitFor(t, func() bool {
		l.mu.RLock()
		defer l.mu.RUnlock()
		return !l.worthCleaning()
	})
	must(t, checkAccounts(l))
	s := l.Stats()
	if s.Reclaimed == 0 || s.Batches >= s.Entries || s.CleanErr != nil {
		t.Errorf("unexpected figures: %+v", s)
	}
	want := mustDump(t, l)
	must(t, l.Close())
	l = mustOpen(t, o)
	if mustDump(t, l) != want {
		t.Error("the restart changed the state")
	}
	must(t, l.Close())
}

func concurrentGroup(l *Log, g *Group) error {
	for i := uint64(1); i <= 30; i++ {
		s := step{group: g.id, term: i, size: 200}
		if err := g.StoreLogs([]*raft.Log{entryOf(s, 2*i), entryOf(s, 2*i+1)}); err != nil {
			return err
		}
		var e raft.Log
		if err := g.GetLog(2*i, &e); err != nil || showEntry(&e) != showEntry(entryOf(s, 2*i)) {
			return fmt.Errorf("group %d reads %v %w", g.id, e, err)
		}
		if err := errors.Join((step{what: "vote", group: g.id, term: i}).run(l), g.SetSnapshot(i, i, nil)); err != nil {
			return err
		}
		if i > 3 && g.id%8 != 0 { // every eighth keeps all: its entries are carried forward
			if err := g.DeleteRange(1, 2*i-6); err != nil {
				return err
			}
		}
		if first, err := g.FirstIndex(); err != nil || g.GetLog(first, &e) != nil {
			return fmt.Errorf("group %d cannot read its first entry %d: %w", g.id, first, err)
		}
	}
	return nil
}

// TestReclaim: space comes back, idle groups keep what they have, and restarts
// do not pile up files.
func TestReclaim(t *testing.T) {
	t.Parallel()
	disk := vfs.NewPowerCut()
	o := small(disk, "/wal")
	o.SegmentBytes = 8 << 10
	l := mustOpen(t, o)
	must(t, (step{what: "store", group: 7, lo: 1, hi: 5, term: 1, size: 300}).run(l))
	must(t, (step{what: "vote", group: 8, term: 2, lo: 1}).run(l))
	for i := uint64(1); i < 400; i++ {
		must(t, l.Group(1).StoreLog(entryOf(step{size: 300}, i)))
		if i%10 == 0 {
			must(t, l.Group(1).DeleteRange(1, i-5))
			must(t, l.Clean())
		}
	}
	want := mustDump(t, l)
	if s := l.Stats(); s.Bytes > cleanFactor*s.LiveBytes+(cleanSlack+1)*o.SegmentBytes || s.Reclaimed < 5 {
		t.Errorf("it keeps %d bytes in %d segments for %d live ones", s.Bytes, s.Segments, s.LiveBytes)
	}
	for range 40 {
		must(t, l.Close())
		l = mustOpen(t, o)
		must(t, l.Clean())
	}
	if s := l.Stats(); s.Segments > maxSmall+4 {
		t.Errorf("%d segments after 40 restarts", s.Segments)
	}
	if got := mustDump(t, l); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestHole tells a missing entry from one that is not there yet, or not any more.
func TestHole(t *testing.T) {
	t.Parallel()
	l := mustOpen(t, small(vfs.NewPowerCut(), "/wal"))
	g := l.Group(1)
	for _, i := range []uint64{3, 4, 6, 7} {
		must(t, g.StoreLog(&raft.Log{Index: i, Term: 1}))
	}
	for i, want := range map[uint64]bool{0: false, 2: false, 3: false, 5: true, 7: false, 8: false} {
		if g.Hole(i) != want {
			t.Errorf("entry %d: %v", i, !want)
		}
	}
	must(t, g.DeleteRange(3, 5))
	if g.Hole(5) || l.Group(2).Hole(1) {
		t.Error("there is nothing before it")
	}
	must(t, l.Close())
}
