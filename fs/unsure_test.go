package fs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// losing fails the request op of the mount from the nth on, of which it says
// that nobody knows what came of it, until the test ends it.
func losing(op string, nth int64) func(context.Context, string) error {
	var n atomic.Int64
	return func(ctx context.Context, o string) error {
		if o == op && ctx.Value(elsewhere{}) == nil && n.Add(1) >= nth {
			return &object.Error{Kind: object.KindUnavailable, Err: errors.New("the answer is lost")}
		}
		return nil
	}
}

// truncations are all the ways in which a flush sets the size: which request of
// its does, and what the file "0123456789" holds after it, and after another mount's
// "other" that came behind the truncation.
var truncations = map[string]struct {
	change      func(t *testing.T, f *os.File)
	flags       int
	op          string
	nth         int64
	want, after string
}{
	"truncate": {change: func(t *testing.T, f *os.File) { ok(t, f.Truncate(4)) },
		op: "setattr", want: "0123", after: "0123other"},
	"extend": {change: func(t *testing.T, f *os.File) { ok(t, f.Truncate(12)) },
		op: "setattr", want: "0123456789\x00\x00", after: "0123456789\x00\x00other"},
	"chmod too": {change: func(t *testing.T, f *os.File) { ok(t, f.Truncate(4)); ok(t, f.Chmod(0o640)) },
		op: "setattr", want: "0123", after: "0123other"},
	"O_TRUNC": {change: func(t *testing.T, f *os.File) {}, flags: os.O_TRUNC,
		op: "setattr", want: "", after: "other"},
	"rewrite": {change: func(t *testing.T, f *os.File) { line(t, f, "mine\n") }, flags: os.O_TRUNC,
		op: "write", want: "mine\n", after: "mine\nother"},
	"rewrite by append": {change: func(t *testing.T, f *os.File) { line(t, f, "mine\n") }, flags: os.O_TRUNC | os.O_APPEND,
		op: "write", want: "mine\n", after: "mine\nother"},
	"truncate, write before": {change: func(t *testing.T, f *os.File) {
		ok(t, f.Truncate(4))
		_, err := f.WriteAt([]byte("M"), 1)
		ok(t, err)
	}, op: "setattr", want: "0M23", after: "0M23other"},
	"cut and extend": {change: func(t *testing.T, f *os.File) { ok(t, f.Truncate(2)); ok(t, f.Truncate(4)) },
		op: "setattr", want: "01\x00\x00", after: "01ot"}, // the second truncation was not sent yet, and cuts
	"cut and extend, answered late": {change: func(t *testing.T, f *os.File) { ok(t, f.Truncate(2)); ok(t, f.Truncate(4)) },
		op: "setattr", nth: 2, want: "01\x00\x00", after: "01\x00\x00other"},
	"extend and append": {change: func(t *testing.T, f *os.File) { ok(t, f.Truncate(2)); ok(t, f.Truncate(4)); line(t, f, "mine\n") }, flags: os.O_APPEND,
		op: "setattr", nth: 2, want: "01\x00\x00mine\n", after: "01\x00\x00othermine\n"},
}

// A truncation whose answer is lost happens once: what others append behind it
// stays, whatever the flush after it sends.
func TestTruncationOfUnknownOutcomeIsMadeOnce(t *testing.T) {
	for name, c := range truncations {
		for _, made := range []bool{true, false} {
			t.Run(map[bool]string{true: "made: ", false: "not made: "}[made]+name, func(t *testing.T) {
				dir, fake, s := mount(t, slowWriteback)
				f, ino := openLog(t, dir, fake, []byte("0123456789"), c.flags)
				c.change(t, f)
				if made {
					fake.SetAfter(losing(c.op, max(c.nth, 1)))
				} else {
					fake.SetBefore(losing(c.op, max(c.nth, 1)))
				}
				if err := s.Sync(t.Context()); !object.IsKind(err, object.KindUnavailable) {
					t.Fatalf("Sync: %v", err)
				}
				fake.SetAfter(nil)
				fake.SetBefore(nil)
				want := c.want
				if made {
					appendElsewhere(t, fake, ino, "other")
					want = c.after
				}
				ok(t, f.Sync())
				ok(t, f.Close())
				if got := content(t, fake, "log"); got != want {
					t.Fatalf("%q, want %q", got, want)
				}
				if n := fake.Tokens(); n != 0 {
					t.Errorf("%d tokens are kept for good", n)
				}
			})
		}
	}
}

// What is written and cut while it is open what came of a truncation comes after it.
func TestChangesBehindAnUnsureTruncation(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f *os.File) error
		want   string
	}{
		"nothing": {func(*os.File) error { return nil }, "mine\nother"},
		"write":   {func(f *os.File) error { _, err := f.WriteAt([]byte("M"), 0); return err }, "Mine\nother"},
		"empty":   {func(f *os.File) error { return f.Truncate(0) }, ""},
		"longer":  {func(f *os.File) error { return f.Truncate(7) }, "mine\not"},
		"again":   {func(f *os.File) error { _, err := f.Write([]byte("more\n")); return err }, "mine\nmore\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, fake, s := mount(t, slowWriteback)
			f, ino := openLog(t, dir, fake, []byte("0123456789"), os.O_TRUNC)
			line(t, f, "mine\n")
			fake.SetAfter(losing("write", 1))
			if err := s.Sync(t.Context()); err == nil {
				t.Fatal("no error")
			}
			appendElsewhere(t, fake, ino, "other")
			fake.SetAfter(nil)
			fake.SetBefore(losing("settle", 1)) // a first look fails too
			if err := s.Sync(t.Context()); !object.IsKind(err, object.KindUnavailable) {
				t.Fatalf("Sync: %v", err)
			}
			ok(t, c.change(f))
			fake.SetBefore(nil)
			ok(t, f.Sync())
			if got := content(t, fake, "log"); got != c.want {
				t.Fatalf("%q, want %q", got, c.want)
			}
		})
	}
}

// A full disk can be emptied, though it is open what came of a write.
func TestTruncateOnAFullDiskWhileUnsure(t *testing.T) {
	dir, fake, s := mount(t, slowWriteback)
	f, _ := openLog(t, dir, fake, []byte("0123456789"), os.O_TRUNC)
	line(t, f, "mine\n")
	fake.SetBefore(losing("write", 1))
	if err := s.Sync(t.Context()); err == nil {
		t.Fatal("no error")
	}
	fake.SetBefore(failing("write", object.KindNoSpace))
	if err := f.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fsync: %v", err)
	}
	ok(t, f.Truncate(0))
	ok(t, f.Sync())
	if got := content(t, fake, "log"); got != "" {
		t.Fatalf("%q", got)
	}
}

// The last close gives up what it cannot find out, and keeps nothing.
func TestUnsureTruncationEndsWithTheFile(t *testing.T) {
	dir, fake, s := mount(t, slowWriteback)
	before, _ := fs.WriteMemory(s)
	f, _ := openLog(t, dir, fake, []byte("0123456789"), os.O_TRUNC)
	line(t, f, "mine\n")
	fake.SetAfter(losing("write", 1))
	fake.SetBefore(losing("settle", 1))
	if err := f.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("close: %v", err)
	}
	eventually(t, "nothing is kept", func() bool { used, _ := fs.WriteMemory(s); return used == before && fake.Tokens() == 0 })
	fake.SetAfter(nil)
	fake.SetBefore(nil)
	if got, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || string(got) != "mine\n" {
		t.Fatalf("%q, %v", got, err)
	}
}

// An append that the cluster refused when it was asked again, after an attempt
// without an answer, may have happened: it is not sent a second time.
func TestAppendRefusedAfterALostAnswer(t *testing.T) {
	dir, fake, s := mount(t, slowWriteback)
	f, _ := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
	line(t, f, "mine\n")
	fake.SetAfter(failing("write", object.KindNoSpace))
	if err := s.Sync(t.Context()); !object.IsKind(err, object.KindNoSpace) {
		t.Fatalf("Sync: %v", err)
	}
	fake.SetAfter(nil)
	if err := f.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("fsync of what may be lost: %v", err)
	}
	ok(t, s.Sync(t.Context()))
	if got := content(t, fake, "log"); got != "0123456789mine\n" {
		t.Fatalf("%q", got)
	}
}

// A rewrite whose condition fails, since another wrote just before it, goes on
// without: that is no unknown outcome.
func TestRewriteOfWhatChangedJustBefore(t *testing.T) {
	dir, fake, _ := mount(t, slowWriteback)
	name := filepath.Join(dir, "log")
	ok(t, os.WriteFile(name, []byte("0123456789"), 0o600)) // by this mount: it knows the version
	n, err := fake.Lookup(t.Context(), root(t, fake), "log")
	ok(t, err)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	ok(t, err)
	ok(t, f.Truncate(0))
	line(t, f, "mine\n")
	var first atomic.Bool
	fake.SetBefore(func(ctx context.Context, op string) error {
		if op == "write" && ctx.Value(elsewhere{}) == nil && first.CompareAndSwap(false, true) {
			appendElsewhere(t, fake, n.ID, "other")
		}
		return nil
	})
	ok(t, f.Close())
	if got := content(t, fake, "log"); got != "mine\n" || !first.Load() {
		t.Fatalf("%q", got)
	}
}
