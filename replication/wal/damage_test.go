package wal

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// acknowledged plays the script and returns the disk as it is after a clean
// close (clean) or as a killed process leaves it, its state, and for each file
// where its acknowledged bytes end.
func acknowledged(t *testing.T, clean bool) (disk *vfs.PowerCut, state string, ends map[string]int64) {
	disk = vfs.NewPowerCut()
	l := mustOpen(t, small(disk, "/wal"))
	_, m, failed := play(l, model{}, script())
	if failed {
		t.Fatal("the script fails")
	}
	ends = map[string]int64{}
	for _, s := range l.segs {
		ends[s.path] = s.end
		must(t, s.file.Sync("test")) // what a killed process wrote is not lost
	}
	if clean {
		must(t, l.Close())
	}
	return disk, m.String(), ends
}

func flip(t *testing.T, disk *vfs.PowerCut, name string, off int64, bit byte) {
	t.Helper()
	f, err := disk.OpenFile("test", name, os.O_RDWR, 0)
	must(t, err)
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	b[0] ^= bit
	_, err = f.WriteAt(b, off)
	must(t, err)
	must(t, f.Sync("test"))
	must(t, f.Close())
}

// TestFlippedBit flips a bit of every byte of every file. In acknowledged
// batches and headers it must be found when the log is opened; elsewhere (marks,
// seals, free space) it may do no harm.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		disk, state, ends := acknowledged(t, clean)
		for name, end := range ends {
			for off := int64(0); off < end+2*batchHead; off++ {
				d := disk.Crash(nil)
				flip(t, d, name, off, 1<<(off%8))
				l, err := Open(small(d, "/wal"))
				if err == nil {
					var got string
					if got, err = dump(l); err == nil && got != state {
						t.Fatalf("clean %v: a bit flipped in %s at %d is not noticed and changes the state", clean, name, off)
					}
				}
				if err == nil && off < end {
					t.Fatalf("clean %v: a bit flipped in %s at %d of %d acknowledged bytes is not noticed", clean, name, off, end)
				}
				if err != nil && (!object.IsKind(err, object.KindCorrupt) || !strings.Contains(err.Error(), "/wal/")) {
					t.Fatalf("the error for a bit flipped in %s at %d does not say where: %v", name, off, err)
				}
			}
		}
	}
}

// TestFlippedBitWhileOpen damages records under an open log: reads notice.
func TestFlippedBitWhileOpen(t *testing.T) {
	t.Parallel()
	disk := vfs.NewPowerCut()
	o := small(disk, "/wal")
	l := mustOpen(t, o)
	g := l.Group(1)
	must(t, g.StoreLog(&raft.Log{Index: 1, Term: 1, Data: []byte("of value")}))
	at, _ := g.entries.get(1)
	for off := at.off; off < at.off+at.len; off++ {
		flip(t, disk, l.active.path, int64(off), 4)
		var e raft.Log
		err := g.GetLog(1, &e)
		wantKind(t, err, object.KindCorrupt)
		if !strings.Contains(err.Error(), fmt.Sprintf("offset %d", at.off)) {
			t.Fatal(err)
		}
		flip(t, disk, l.active.path, int64(off), 4)
	}
	must(t, g.GetLog(1, new(raft.Log)))
}

// TestMissingAndCutFiles removes and shortens each file.
func TestMissingAndCutFiles(t *testing.T) {
	t.Parallel()
	disk, _, ends := acknowledged(t, true)
	for name, end := range ends {
		d := disk.Crash(nil)
		must(t, d.Remove("test", name))
		_, err := Open(small(d, "/wal"))
		wantKind(t, err, object.KindCorrupt)

		for _, size := range []int64{0, 10, segmentHead, end - 1, end} {
			d := disk.Crash(nil)
			f, err := d.OpenFile("test", name, os.O_RDWR, 0)
			must(t, err)
			must(t, f.Truncate("test", size))
			must(t, f.Sync("test"))
			_, err = Open(small(d, "/wal"))
			wantKind(t, err, object.KindCorrupt)
		}
	}
}

// TestLostWrites zeroes the end of each segment but the last, as a disk does that
// loses writes it has acknowledged.
func TestLostWrites(t *testing.T) {
	t.Parallel()
	disk, _, ends := acknowledged(t, true)
	names := slices.Sorted(maps.Keys(ends))
	for _, name := range names[:len(names)-1] {
		for _, from := range []int64{segmentHead, ends[name] - 8, ends[name]} {
			d := disk.Crash(nil)
			f, err := d.OpenFile("test", name, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt(make([]byte, ends[name]+batchHead-from), from)
			must(t, err)
			must(t, f.Truncate("test", minSegmentBytes))
			must(t, f.Sync("test"))
			_, err = Open(small(d, "/wal"))
			wantKind(t, err, object.KindCorrupt)
		}
	}
}

// TestLimit is what cannot be told: the very last batch, damaged after a power
// cut that also took the mark behind it, looks like one that was never whole.
func TestLimit(t *testing.T) {
	t.Parallel()
	disk := vfs.NewPowerCut()
	l := mustOpen(t, small(disk, "/wal"))
	must(t, (step{what: "store", group: 1, lo: 1, hi: 1, size: 20}).run(l))
	want := mustDump(t, l)
	end := l.active.end
	must(t, (step{what: "store", group: 1, lo: 2, hi: 2, size: 20}).run(l))
	disk = disk.Crash(nil)
	flip(t, disk, l.active.path, end+batchHead+20, 1)
	if got := mustDump(t, mustOpen(t, small(disk, "/wal"))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestForeignSegment puts an older segment's bytes in place of a newer one's.
func TestForeignSegment(t *testing.T) {
	t.Parallel()
	disk, _, ends := acknowledged(t, true)
	for name := range ends {
		for other := range ends {
			if name == other {
				continue
			}
			d := disk.Crash(nil)
			must(t, d.Rename("test", other, name))
			_, err := Open(small(d, "/wal"))
			wantKind(t, err, object.KindCorrupt)
		}
	}
}

func TestNewerFormat(t *testing.T) {
	t.Parallel()
	disk := vfs.NewPowerCut()
	l := mustOpen(t, small(disk, "/wal"))
	b := l.active.header()
	b[8] = formatVersion + 1
	b = append(b[:segmentHead-4], le32(checksum(b[:segmentHead-4]))...)
	f, err := disk.OpenFile("test", path.Join("/wal", segmentName(1)), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(b, 0)
	must(t, err)
	must(t, l.Close())
	_, err = Open(small(disk, "/wal"))
	wantKind(t, err, object.KindVersion)
}

func le32(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
