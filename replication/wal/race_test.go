package wal

import (
	"errors"
	"math/rand"
	"sync"
	"syscall"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// queued is the number of requests that wait.
func (l *Log) queued() int {
	l.qmu.Lock()
	defer l.qmu.Unlock()
	return len(l.queue)
}

// TestCopyAgainstDelete lets the cleaner's copy of an entry meet the deletion of
// that entry: in one batch, whichever was queued first, and right behind the
// batch that deletes it. The entry must stay dead, also after a restart.
func TestCopyAgainstDelete(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"delete, copy", "copy, delete", "delete is being synced"} {
		disk := vfs.NewPowerCut()
		fsys := vfs.NewFaulty(disk)
		l := mustOpen(t, small(fsys, "/wal"))
		must(t, (step{what: "store", group: 1, lo: 1, hi: 3, term: 1, size: 200}).run(l))
		for l.active.id == 1 {
			must(t, (step{what: "vote", group: 3, term: 1}).run(l))
		}
		hold := make(chan struct{})
		fsys.Set(opAppendSync, vfs.Rule{Block: hold, Times: 1})
		before := fsys.Count(opAppendSync)
		var wg sync.WaitGroup
		start := func(s step, queued int) {
			wg.Go(func() {
				if err := s.run(l); err != nil {
					t.Error(err)
				}
			})
			waitFor(t, func() bool { return fsys.Count(opAppendSync) > before && l.queued() == queued })
		}
		del, reclaim := step{what: "delete", group: 1, lo: 2, hi: 3}, step{what: "reclaim"}
		if order != "delete is being synced" {
			start(step{what: "term", group: 5, term: 1}, 0)
		}
		switch order {
		case "delete, copy":
			start(del, 1)
			start(reclaim, 2)
		case "copy, delete":
			start(reclaim, 1)
			start(del, 2)
		default:
			start(del, 0)
			start(reclaim, 1)
		}
		close(hold)
		wg.Wait()
		must(t, checkAccounts(l))
		want := mustDump(t, l)
		if last, _ := l.Group(1).LastIndex(); last != 1 {
			t.Errorf("%s: the log ends at %d", order, last)
		}
		if got := mustDump(t, mustOpen(t, small(disk.Crash(nil), "/wal"))); got != want {
			t.Errorf("%s: after the restart\n%s, want\n%s", order, got, want)
		}
	}
}

// TestKilledThenPowerCut: the process dies between write and sync, the next one
// finds the batch in the page cache, and the power goes while it recovers. What
// it showed once it was open must stay, and nothing may look damaged.
func TestKilledThenPowerCut(t *testing.T) {
	t.Parallel()
	for cut := 1; cut < 14; cut++ {
		for seed := int64(0); seed < 15; seed++ {
			disk := vfs.NewPowerCut()
			fsys := vfs.NewFaulty(disk)
			l := mustOpen(t, small(fsys, "/wal"))
			first := step{what: "store", group: 1, lo: 1, hi: 1, term: 1, size: 60}
			second := step{what: "store", group: 1, lo: 2, hi: 2, term: 1, size: 700}
			before := model{}.apply(first)
			must(t, first.run(l))
			fsys.Fail(opAppendSync, syscall.EIO)
			if second.run(l) == nil {
				t.Fatal("a failed sync is hidden")
			}
			after := before.apply(second)
			disk.CutAt(cut)
			if l, err := Open(small(disk, "/wal")); err == nil {
				if before, after, err = settle(l, before, after); err != nil {
					t.Fatal(err)
				}
			} else if !errors.Is(err, vfs.ErrPowerCut) {
				t.Fatal(err)
			}
			if _, _, err := survive(disk.Crash(rand.New(rand.NewSource(seed))), before, after); err != nil {
				t.Fatalf("cut %d, seed %d: %v", cut, seed, err)
			}
		}
	}
}
