package chunk

import (
	"errors"
	"math/rand"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// ledger is what a store answered: what must be there after a crash, what must
// not, and in between what may be.
type ledger struct {
	put     map[int][]byte // every content that was offered
	acked   map[int]bool
	deleted map[int]bool // a Delete returned nil
	doubt   map[int]bool // a Delete began
}

// script puts, puts again, damages and deletes chunks until the power goes.
func script(t *testing.T, disk *vfs.PowerCut) *ledger {
	l := &ledger{map[int][]byte{}, map[int]bool{}, map[int]bool{}, map[int]bool{}}
	s, err := Open(Options{FS: disk, Dirs: []string{"/deep/er/disk"}, Compression: S2, Logger: quiet()})
	if err != nil {
		wantCut(t, err)
		return l
	}
	put := func(n int, data []byte) bool {
		l.put[n] = data
		_, err := s.Put(ctx, id(n), data)
		if err != nil {
			wantCut(t, err)
		}
		l.acked[n] = l.acked[n] || err == nil
		return err == nil
	}
	for n := range 6 { // two uploads, of four chunks and of two
		if !put(n, mixed(300+n*30000, int64(n))) {
			return l
		}
	}
	if !put(2, l.put[2]) {
		return l
	}
	for _, n := range []int{1, 4} {
		l.doubt[n] = true
		if err := s.Delete(ctx, id(n)); err != nil {
			wantCut(t, err)
			return l
		}
		l.deleted[n] = true
	}
	return l
}

func wantCut(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, vfs.ErrPowerCut) {
		t.Fatalf("error %v", err)
	}
}

// audit opens the store after a crash and holds it to the ledger.
func (l *ledger) audit(t *testing.T, disk *vfs.PowerCut) {
	t.Helper()
	s := openStore(t, Options{FS: disk, Dirs: []string{"/deep/er/disk"}})
	if left := entries(t, s, "tmp"); len(left) > 0 {
		t.Fatalf("temporary files: %v", left)
	}
	for n, data := range l.put {
		got, err := s.ReadAll(ctx, id(n), [32]byte{})
		switch {
		case err == nil && string(got) != string(data):
			t.Fatalf("chunk %d: other bytes", n)
		case err == nil && l.deleted[n]:
			t.Fatalf("chunk %d came back after its delete", n)
		case err == nil:
		case !object.IsKind(err, object.KindNotFound):
			t.Fatalf("chunk %d: %v", n, err)
		case l.acked[n] && !l.doubt[n]:
			t.Fatalf("chunk %d was acknowledged and is lost", n)
		}
		if !l.deleted[n] { // and it can be put now
			_, err = s.Put(ctx, id(n), data)
			must(t, err)
		}
	}
	if s.Stats().Corrupt != 0 {
		t.Fatal("a crash left a damaged chunk under its name")
	}
}

func TestPowerCutAtEveryCall(t *testing.T) {
	dry := vfs.NewPowerCut()
	script(t, dry)
	total := len(dry.Calls())
	for n := 1; n <= total+1; n++ {
		disk := vfs.NewPowerCut()
		disk.CutAt(n)
		l := script(t, disk)
		l.audit(t, disk.Crash(nil))
		for seed := range int64(4) {
			l.audit(t, disk.Crash(rand.New(rand.NewSource(seed*1000+int64(n)))))
		}
	}
	t.Logf("%d calls cut", total)
}

// A put that finds its chunk already there, from a process that died before it
// could sync the name, must sync it before it answers.
func TestPutAgainMakesDurable(t *testing.T) {
	disk := vfs.NewPowerCut()
	faulty := vfs.NewFaulty(disk)
	dying := openStore(t, Options{FS: faulty})
	faulty.Fail(OpDirSync, errors.New("killed here"))
	if _, err := dying.Put(ctx, id(0), []byte("x")); err == nil {
		t.Fatal("a put without its sync was acknowledged")
	}
	s := openStore(t, Options{FS: disk}) // the machine lives on
	_, err := s.Put(ctx, id(0), []byte("x"))
	must(t, err)
	wantChunk(t, openStore(t, Options{FS: disk.Crash(nil)}), id(0), []byte("x"))
}

// A crash amid a quarantine leaves the file under one name or under both.
func TestPowerCutInQuarantine(t *testing.T) {
	for n := 1; n <= 4; n++ {
		for seed := range int64(10) {
			disk := vfs.NewPowerCut()
			s, err := Open(Options{FS: disk, Dirs: []string{"/disk"}, Logger: quiet()})
			must(t, err)
			_, err = s.Put(ctx, id(0), noise(1000, 1))
			must(t, err)
			flipBit(t, s, id(0), 500, 1)
			f, err := disk.OpenFile("edit", s.disks[0].path(id(0)), 2, 0)
			must(t, err)
			must(t, f.Sync("edit"))
			disk.CutAt(n)
			if _, err = s.ReadAll(ctx, id(0), [32]byte{}); err == nil {
				t.Fatal("damaged bytes were served")
			}
			s = openStore(t, Options{FS: disk.Crash(rand.New(rand.NewSource(seed)))})
			if _, err = s.ReadAll(ctx, id(0), [32]byte{}); err == nil {
				t.Fatal("damaged bytes were served")
			}
			if len(entries(t, s, "quarantine")) == 0 {
				t.Fatal("the damaged file is gone")
			}
		}
	}
}
