package fs

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Every kind has an errno that is an error, and those that programs act upon
// have the one they look for.
func TestErrno(t *testing.T) {
	for k := object.Kind(0); !strings.HasPrefix(k.String(), "Kind("); k++ {
		if status(&object.Error{Kind: k}) == fuse.OK {
			t.Errorf("%v is no error", k)
		}
	}
	for err, want := range map[error]syscall.Errno{
		&object.Error{Kind: object.KindNotFound}: syscall.ENOENT,
		&object.Error{Kind: object.KindExists}:   syscall.EEXIST,
		&object.Error{Kind: object.KindNotEmpty}: syscall.ENOTEMPTY,
		&object.Error{Kind: object.KindNoAttr}:   syscall.ENODATA,
		errInterrupted:                           syscall.EINTR,
		errStopped:                               syscall.EIO,
		context.DeadlineExceeded:                 syscall.EIO,
		context.Canceled:                         syscall.EINTR,
		errors.New("anything"):                   syscall.EIO,
	} {
		if got := status(err); got != fuse.Status(want) {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
	if statusOfInode(&object.Error{Kind: object.KindNotFound}) != fuse.Status(syscall.ESTALE) {
		t.Error("an open inode that is gone is not stale")
	}
}

func TestIDMap(t *testing.T) {
	m := IDMap{{Local: 1000, Stored: 0, Count: 10}, {Local: 0, Stored: 5000, Count: 1}}
	if err := m.validate("uid"); err != nil {
		t.Fatal(err)
	}
	for local, stored := range map[uint32]uint32{1000: 0, 1009: 9, 0: 5000} {
		if got, ok := m.stored(local); !ok || got != stored || m.local(stored) != local {
			t.Errorf("%d is stored as %d and shown as %d", local, got, m.local(stored))
		}
	}
	if _, ok := m.stored(77); ok || m.local(77) != nobody {
		t.Error("an id without a range is mapped")
	}
	if err := append(m, IDRange{Local: 1009, Stored: 9000, Count: 1}).validate("uid"); err == nil {
		t.Error("overlapping ranges are accepted")
	}
}

// FuzzFSName checks that any key gives a name that mount tables can hold.
func FuzzFSName(f *testing.F) {
	for _, s := range []string{"a/b", "with space,comma\\back", "\n\x7f\xff", "//", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, prefix string) {
		if name := fsName(Options{Bucket: "b", Prefix: prefix}); strings.ContainsAny(name, " ,\\\n\t") || name == "" {
			t.Fatalf("%q", name)
		}
		for _, part := range splitPath(prefix) {
			if part == "" || strings.Contains(part, "/") {
				t.Fatalf("part %q of %q", part, prefix)
			}
		}
	})
}

// FuzzLegalName checks that what is shown can be a path's component.
func FuzzLegalName(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a", "a/b", "\x00", strings.Repeat("x", 256)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		bad := name == "" || name == "." || name == ".." || len(name) > 255 || strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0
		if legalName(name) == bad {
			t.Fatalf("%q", name)
		}
	})
}

// Times before 1970 and with nanoseconds survive the kernel's form.
func FuzzTimes(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(-1))
	f.Add(int64(1_700_000_000_123_456_789))
	f.Fuzz(func(t *testing.T, ns int64) {
		sec, nsec := splitTime(ns)
		if nsec >= 1e9 || *joinTime(sec, nsec) != ns {
			t.Fatalf("%d becomes %d.%09d", ns, int64(sec), nsec)
		}
	})
}
