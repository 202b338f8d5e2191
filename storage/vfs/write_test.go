package vfs

import (
	"errors"
	"fmt"
	"math/rand"
	"testing"
)

// TestWriteFileIsWhole: whatever call fails, and at whatever call the power goes, the file is
// the old one or the new one; once WriteFile has succeeded, the new one.
func TestWriteFileIsWhole(t *testing.T) {
	const op = Op("test.file")
	boom := errors.New("boom")
	for _, label := range []Op{op, WriteOp(op), SyncOp(op), RenameOp(op), DirOp(op)} {
		disk := newDisk(t)
		must(t, WriteBytes(disk, op, "/d/f", 0o600, []byte("old")))
		f := NewFaulty(disk)
		f.Fail(label, boom)
		want(t, WriteBytes(f, op, "/d/f", 0o600, []byte("new")), boom)
		if got := get(t, disk, "/d/f"); got != "old" && (label != DirOp(op) || got != "new") {
			t.Errorf("%s failed, and the file is %q", label, got)
		}
		if exists(disk, "/d/f"+TempSuffix) {
			t.Errorf("%s failed, and its temp file is left", label)
		}
		must(t, WriteBytes(disk, op, "/d/f", 0o600, []byte("newer")))
		if got := get(t, disk.Crash(nil), "/d/f"); got != "newer" {
			t.Errorf("after success and a power cut the file is %q", got)
		}
	}
	for n := 1; ; n++ {
		disk := newDisk(t)
		must(t, WriteBytes(disk, op, "/d/f", 0o600, []byte("old")))
		disk.CutAt(n)
		err := WriteBytes(disk, op, "/d/f", 0o600, []byte("new"))
		for seed := range int64(8) {
			got := get(t, disk.Crash(rand.New(rand.NewSource(seed))), "/d/f")
			if got != "new" && (err == nil || got != "old") {
				t.Fatalf("power cut at call %d (%v): the file is %q", n, err, got)
			}
		}
		if err == nil {
			if n < 6 {
				t.Errorf("only %d calls", n-1)
			}
			return
		}
		if n > 50 {
			t.Fatal(fmt.Errorf("it never succeeds: %w", err))
		}
	}
}
