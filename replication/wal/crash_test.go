package wal

import (
	"fmt"
	"math/rand"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// script meets rotation, truncation of both ends, votes, an idle group whose
// records must be carried forward, a wipe, and reclamation.
func script() []step {
	steps := []step{
		{what: "term", group: 9, term: 3}, {what: "vote", group: 9, term: 3, lo: 2},
		{what: "store", group: 9, lo: 1, hi: 3, term: 3, size: 40},
		{what: "snapshot", group: 9, lo: 1, term: 1, size: 30},
	}
	for i := uint64(0); i < 6; i++ {
		g := object.PartitionID(i % 2)
		steps = append(steps,
			step{what: "store", group: g, lo: i*4 + 1, hi: i*4 + 4, term: i + 1, size: 100},
			step{what: "vote", group: g, term: i + 1, lo: i % 3},
			step{what: "delete", group: g, lo: i*4 + 4, hi: i*4 + 4},
			step{what: "store", group: g, lo: i*4 + 4, hi: i*4 + 5, term: i + 2, size: 60},
			step{what: "delete", group: g, lo: 1, hi: i * 3})
	}
	return append(steps,
		step{what: "reclaim"}, step{what: "term", group: 1, term: 20}, step{what: "restart", group: 9, lo: 8, term: 21, size: 40}, step{what: "wipe", group: 0},
		step{what: "reclaim"}, step{what: "store", group: 0, lo: 900, hi: 901, term: 30, size: 200},
		step{what: "reclaim"}, step{what: "clean"}, step{what: "store", group: 1, lo: 30, hi: 30, term: 8, size: 20})
}

// play runs the steps until one fails. before is the state acknowledged, after
// the state if the failed step happened all the same.
func play(l *Log, m model, steps []step) (before, after model, failed bool) {
	for _, s := range steps {
		next := m.apply(s)
		if s.run(l) != nil {
			return m, next, true
		}
		m = next
	}
	return m, m, false
}

// survive opens what a crash left, checks it, and checks that the log goes on.
func survive(fsys vfs.FS, before, after model) (*Log, model, error) {
	l, err := Open(small(fsys, "/wal"))
	if err != nil {
		return nil, nil, err
	}
	got, err := dump(l)
	if err != nil {
		return nil, nil, err
	}
	m := before
	if got != before.String() {
		if m = after; got != after.String() {
			return nil, nil, fmt.Errorf("recovered\n%s\nwant\n%s\nor\n%s", got, before, after)
		}
	}
	return l, m, checkAccounts(l)
}

func TestPowerCutAtEveryCall(t *testing.T) {
	t.Parallel()
	disk := vfs.NewPowerCut()
	l := mustOpen(t, small(disk, "/wal"))
	_, _, failed := play(l, model{}, script())
	must(t, l.Close())
	if failed {
		t.Fatal("the script fails without a power cut")
	}
	seen := map[vfs.Op]bool{}
	for n, op := range disk.Calls() {
		seen[op] = true
		disk := vfs.NewPowerCut()
		disk.CutAt(n + 1)
		before, after := model{}, model{}
		if l, err := Open(small(disk, "/wal")); err == nil {
			before, after, _ = play(l, model{}, script())
			_ = l.Close() // fails when the power is gone
		}
		for seed := int64(0); seed < 5; seed++ {
			if err := crashAndCheck(disk, before, after, seed); err != nil {
				t.Fatalf("cut at call %d (%s), seed %d: %v", n+1, op, seed, err)
			}
		}
	}
	for _, op := range []vfs.Op{opAppendSync, opCreateSync, opCreateRename, opSealSync, opSealTruncate, opRemove, opRemoveDir, opMarkSync} {
		if !seen[op] {
			t.Errorf("the script never does %s", op)
		}
	}
}

// crashAndCheck boots one outcome of the power cut, cuts again at one of the
// calls of the recovery, and checks what is there after each.
func crashAndCheck(disk *vfs.PowerCut, before, after model, seed int64) (err error) {
	rnd := rand.New(rand.NewSource(seed))
	if seed == 0 {
		rnd = nil
	}
	disk = disk.Crash(rnd)
	if seed > 1 { // once more, while it recovers
		disk.CutAt(1 + int(seed*7)%12)
		if l, err := Open(small(disk, "/wal")); err == nil {
			if before, after, err = settle(l, before, after); err != nil {
				return err
			}
			_ = l.Close()
		}
		disk = disk.Crash(rnd)
	}
	l, m, err := survive(disk, before, after)
	if err != nil {
		return err
	}
	more := step{what: "store", group: 5, lo: 1, hi: 2, term: 1, size: 500}
	if err := more.run(l); err != nil {
		return err
	}
	m = m.apply(more)
	_, _, err = survive(disk.Crash(rnd), m, m)
	return err
}

// settle reads which of the two states an opened log is in.
func settle(l *Log, before, after model) (model, model, error) {
	got, err := dump(l)
	switch {
	case err == nil && got == after.String():
		return after, after, nil
	case err == nil && got == before.String():
		return before, before, nil
	case err == nil:
		err = fmt.Errorf("recovered\n%s", got)
	}
	return nil, nil, err
}

// TestModel runs random operations, crashes and restarts against a model.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		disk := vfs.NewPowerCut()
		l, m, err := survive(disk, model{}, model{})
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := randomStep(t)
			cut := 0
			if rapid.IntRange(0, 9).Draw(t, "power cut") == 0 {
				cut = rapid.IntRange(1, 8).Draw(t, "after calls")
				disk.CutAt(cut)
			}
			before, after, failed := play(l, m, []step{s})
			switch {
			case failed && cut == 0:
				t.Fatalf("%v fails: %v", s, s.run(l))
			case cut > 0:
				rnd := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
				disk = disk.Crash(rnd)
				l, m, err = survive(disk, before, after)
			case rapid.IntRange(0, 19).Draw(t, "restart") == 0:
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l, m, err = survive(disk, before, before)
			default:
				m = before
				err = checkAccounts(l)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got, err := dump(l); err != nil || got != m.String() {
			t.Fatalf("%v: got\n%swant\n%s", err, got, m)
		}
	})
}

func randomStep(t *rapid.T) step {
	what := rapid.SampledFrom([]string{"store", "store", "store", "store", "delete", "delete", "term", "vote", "snapshot", "restart", "wipe", "clean", "reclaim", "reclaim"})
	lo := rapid.Uint64Range(1, 30).Draw(t, "lo")
	return step{
		what: what.Draw(t, "what"), group: object.PartitionID(rapid.IntRange(0, 3).Draw(t, "group")),
		lo: lo, hi: lo + rapid.Uint64Range(0, 6).Draw(t, "more"),
		term: rapid.Uint64Range(1, 9).Draw(t, "term"), size: rapid.SampledFrom([]int{0, 20, 100, 700}).Draw(t, "size"),
	}
}
