package chunk

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never happened")
		}
	}
}

// Every bit counts: a flip anywhere is found, reported once, and moved away.
func TestFlippedBits(t *testing.T) {
	for _, kind := range []Compression{None, S2, Zstd} {
		var reports atomic.Int64
		s := openStore(t, Options{Compression: kind, OnCorrupt: func(object.ChunkID, error) { reports.Add(1) }})
		data := mixed(2*FrameSize+200, 7)
		ref, err := s.Put(ctx, id(0), data)
		must(t, err)
		front := headerSize + 3*entrySize
		var places []int
		for at := range front {
			places = append(places, at)
		}
		for _, f := range []int{0, 1, 2, 3, 50, 99} { // all over the frames, from first byte to last
			places = append(places, front+f*(int(ref.Stored)-1)/99)
		}
		for i, at := range places {
			flipBit(t, s, id(0), int64(at), uint(i%8))
			if i%2 == 0 {
				_, err = s.ReadAll(ctx, id(0), ref.SHA256)
			} else {
				err = s.Verify(ctx, id(0))
			}
			wantKind(t, err, object.KindCorrupt)
			_, err = s.Stat(ctx, id(0))
			wantKind(t, err, object.KindNotFound)
			if n := len(entries(t, s, "quarantine")); n != i+1 || reports.Load() != int64(n) {
				t.Fatalf("byte %d: %d files in quarantine, %d reports", at, n, reports.Load())
			}
			_, err = s.Put(ctx, id(0), data)
			must(t, err)
		}
		wantChunk(t, s, id(0), data)
	}
}

func TestOnlyTouchedFramesAreRead(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(4*FrameSize, 1)
	ref, err := s.Put(ctx, id(0), data)
	must(t, err)
	flipBit(t, s, id(0), headerSize+4*entrySize+2*FrameSize+5, 0) // in frame 2
	dst := make([]byte, 4*FrameSize)
	_, err = s.ReadAt(ctx, id(0), ref.SHA256, 0, dst[:2*FrameSize])
	must(t, err)
	_, err = s.ReadAt(ctx, id(0), ref.SHA256, 3*FrameSize+10, dst[:100])
	must(t, err)
	n, err := s.ReadAt(ctx, id(0), ref.SHA256, 2*FrameSize-10, dst[:100])
	wantKind(t, err, object.KindCorrupt)
	if n != 10 || string(dst[:n]) != string(data[2*FrameSize-10:2*FrameSize]) {
		t.Fatalf("%d right bytes", n)
	}
}

func TestTruncatedAndGrown(t *testing.T) {
	s := openStore(t, Options{Compression: S2})
	data := text(3000, 1)
	ref, err := s.Put(ctx, id(0), data)
	must(t, err)
	size := headerSize + entrySize + ref.Stored
	for cut := int64(0); cut < size+2; cut++ {
		if cut == size || cut > headerSize+entrySize && cut < size-1 && cut%50 != 0 {
			continue
		}
		editFile(t, s, id(0), func(f vfs.File, _ int64) { must(t, f.Truncate("cut", cut)) })
		_, err = s.ReadAt(ctx, id(0), ref.SHA256, 0, make([]byte, 10))
		wantKind(t, err, object.KindCorrupt)
		_, err = s.Put(ctx, id(0), data)
		must(t, err)
	}
}

func TestTruncatedWhileOpen(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(3*FrameSize, 1)
	_, err := s.Put(ctx, id(0), data)
	must(t, err)
	wantChunk(t, s, id(0), data)
	f, _ := s.files.get(id(0))
	editFile(t, s, id(0), func(w vfs.File, size int64) { must(t, w.Truncate("cut", size-1)) })
	s.files.release(f)
	_, err = s.ReadAll(ctx, id(0), [32]byte{})
	wantKind(t, err, object.KindCorrupt)
}

func TestFileOfAnotherChunk(t *testing.T) {
	s := openStore(t, Options{})
	_, err := s.Put(ctx, id(0), []byte("zero"))
	must(t, err)
	d := s.disks[0]
	must(t, s.opts.FS.MkdirAll("mk", d.leaf(id(9)), 0o755))
	must(t, s.opts.FS.Rename("mv", d.path(id(0)), d.path(id(9))))
	_, err = s.ReadAll(ctx, id(9), [32]byte{})
	wantKind(t, err, object.KindCorrupt)
	if len(entries(t, s, "quarantine")) != 1 {
		t.Fatal("it was not quarantined")
	}
}

// A mistaken caller gets an error, and does not take a sound chunk from the others.
func TestAnotherHashIsWanted(t *testing.T) {
	s := openStore(t, Options{})
	_, err := s.Put(ctx, id(0), []byte("sound"))
	must(t, err)
	_, err = s.ReadAll(ctx, id(0), [32]byte{1})
	wantKind(t, err, object.KindCorrupt)
	_, err = s.ReadAt(ctx, id(0), [32]byte{1}, 0, make([]byte, 2))
	wantKind(t, err, object.KindCorrupt)
	wantChunk(t, s, id(0), []byte("sound"))
	if s.Stats().Mismatched != 2 {
		t.Fatalf("stats %+v", s.Stats())
	}
	must(t, s.Quarantine(ctx, id(0), errors.New("the owner says so")))
	_, err = s.Stat(ctx, id(0))
	wantKind(t, err, object.KindNotFound)
	if len(entries(t, s, "quarantine")) != 1 {
		t.Fatal("it was not quarantined")
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	s := openStore(t, Options{})
	_, err := s.Put(ctx, id(0), []byte("from the future"))
	must(t, err)
	editFile(t, s, id(0), func(f vfs.File, _ int64) {
		b := make([]byte, headerSize)
		_, err := f.ReadAt(b, 0)
		must(t, err)
		_, err = f.WriteAt(withVersion(b, formatVersion+1), 0)
		must(t, err)
	})
	_, err = s.ReadAll(ctx, id(0), [32]byte{})
	wantKind(t, err, object.KindVersion)
	wantKind(t, s.Verify(ctx, id(0)), object.KindVersion)
	_, err = s.Put(ctx, id(0), []byte("from the future"))
	wantKind(t, err, object.KindVersion)
	if len(entries(t, s, "quarantine")) != 0 {
		t.Fatal("a newer chunk is not a damaged one")
	}
}

// A callback may use the store: no lock is held.
func TestRepairFromTheCallback(t *testing.T) {
	data := noise(1000, 1)
	var s *Store
	s = openStore(t, Options{OnCorrupt: func(id object.ChunkID, _ error) {
		_, err := s.Put(ctx, id, data)
		must(t, err)
	}})
	_, err := s.Put(ctx, id(0), data)
	must(t, err)
	flipBit(t, s, id(0), 500, 0)
	wantKind(t, s.Verify(ctx, id(0)), object.KindCorrupt)
	wantChunk(t, s, id(0), data)
}

// Every call of a Put may fail, with a full disk or a broken one.
func TestPutFaults(t *testing.T) {
	ops := []vfs.Op{OpMkdir, OpCreate, vfs.WriteOp(OpCreate), OpSync, OpRename, OpDirSync, OpStat, OpUsage, OpList}
	for _, op := range ops {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
			t.Run(fmt.Sprint(op, cause), func(t *testing.T) {
				disk := vfs.NewPowerCut()
				faulty := vfs.NewFaulty(disk)
				s := openStore(t, Options{FS: faulty})
				if op == OpUsage {
					s.disks[0].usageAt = time.Time{}
				}
				faulty.Set(op, vfs.Rule{Err: cause, Short: 10})
				data := noise(1000, 1)
				_, err := s.Put(ctx, id(0), data)
				if cause == syscall.ENOSPC {
					wantKind(t, err, object.KindNoSpace)
				} else if !errors.Is(err, syscall.EIO) {
					t.Fatalf("error %v", err)
				}
				if left := entries(t, s, "tmp"); len(left) > 0 {
					t.Fatalf("left behind: %v", left)
				}
				faulty.Clear()
				_, err = s.Put(ctx, id(0), data)
				if op == OpDirSync { // what a failed sync of a directory did is unknown until a restart
					wantKind(t, err, object.KindInternal)
					if usage, _ := s.Usage(); usage[0].Failed == nil {
						t.Fatal("the disk is not reported as failed")
					}
					s = openStore(t, Options{FS: disk})
					_, err = s.Put(ctx, id(0), data)
				}
				must(t, err)
				wantChunk(t, s, id(0), data)
			})
		}
	}
}

func TestReadFaults(t *testing.T) {
	faulty := vfs.NewFaulty(vfs.NewPowerCut())
	s := openStore(t, Options{FS: faulty, OpenFiles: -1})
	_, err := s.Put(ctx, id(0), []byte("x"))
	must(t, err)
	for _, op := range []vfs.Op{OpRead, vfs.ReadOp(OpRead)} {
		faulty.Fail(op, syscall.EIO)
		_, err = s.ReadAll(ctx, id(0), [32]byte{})
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("error %v", err)
		}
		faulty.Clear()
		wantChunk(t, s, id(0), []byte("x")) // an unreadable file is not a damaged one
	}
	faulty.Fail(OpRemove, syscall.EIO)
	if err := s.Delete(ctx, id(0)); !errors.Is(err, syscall.EIO) {
		t.Fatalf("error %v", err)
	}
}

func TestSeveralDisks(t *testing.T) {
	faulty := vfs.NewFaulty(vfs.NewPowerCut())
	s := openStore(t, Options{FS: faulty, Dirs: []string{"/a", "/b", "/c"}})
	perDisk := map[string]int{}
	for n := range 300 {
		_, err := s.Put(ctx, id(n), []byte{byte(n)})
		must(t, err)
		info, err := s.Stat(ctx, id(n))
		must(t, err)
		perDisk[info.Dir]++
	}
	for dir, n := range perDisk {
		if n < 60 || n > 140 {
			t.Errorf("%s has %d of 300 chunks", dir, n)
		}
	}
	// One full disk: the next takes the chunk, and it is found there.
	faulty.Set(OpCreate, vfs.Rule{Times: 1, Err: syscall.ENOSPC})
	_, err := s.Put(ctx, id(1000), []byte("moved on"))
	must(t, err)
	info, err := s.Stat(ctx, id(1000))
	must(t, err)
	if info.Dir == s.rank(id(1000))[0].dir {
		t.Fatal("it is on the full disk")
	}
	wantChunk(t, s, id(1000), []byte("moved on"))
	_, err = s.Put(ctx, id(1000), []byte("moved on")) // not a second copy
	must(t, err)
	// All disks below the reserve.
	for _, d := range s.disks {
		d.usage.FreeBytes, d.usageAt = 1<<20, time.Now().Add(time.Hour)
	}
	_, err = s.Put(ctx, id(1001), []byte("x"))
	wantKind(t, err, object.KindNoSpace)
	// A store with fewer disks, or in another order, finds what it has.
	s = openStore(t, Options{FS: faulty, Dirs: []string{"/c", "/b", "/a"}})
	for n := range 300 {
		wantChunk(t, s, id(n), []byte{byte(n)})
	}
}

func TestLeftoversAreCleaned(t *testing.T) {
	disk := vfs.NewPowerCut()
	faulty := vfs.NewFaulty(disk)
	s := openStore(t, Options{FS: faulty})
	faulty.Fail(OpSync, syscall.EIO)
	faulty.Fail(OpAbandon, syscall.EIO)
	_, err := s.Put(ctx, id(0), []byte("x"))
	if !errors.Is(err, syscall.EIO) || len(entries(t, s, "tmp")) != 1 {
		t.Fatalf("error %v", err)
	}
	s = openStore(t, Options{FS: disk})
	if left := entries(t, s, "tmp"); len(left) > 0 {
		t.Fatalf("left %v in %s", left, filepath.Join(s.disks[0].dir, "tmp"))
	}
}
