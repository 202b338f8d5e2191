package fstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// RequireFUSE skips a test, with the reason, where nothing can be mounted; with
// BUCKETDB_REQUIRE_ALL=1 it fails it.
func RequireFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return
	}
	if os.Getenv("BUCKETDB_REQUIRE_ALL") == "1" {
		t.Fatalf("cannot mount here, and BUCKETDB_REQUIRE_ALL=1 forbids to skip: %v", err)
	}
	t.Skipf("cannot mount here: %v", err)
}

// POSIX checks that dir, an empty directory of a mount, behaves as a
// filesystem's does. The test binary's TestMain must call Child.
func POSIX(t *testing.T, dir string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, dir string)
	}{
		{"create", create}, {"truncate", truncate}, {"append", appending}, {"holes", holes}, {"rename", rename},
		{"rename directory", renameDir}, {"open unlinked", openUnlinked}, {"open replaced", openReplaced}, {"hard link", hardLink},
		{"symlink", symlink}, {"times", times}, {"modes", modes}, {"special files", special}, {"directories", directories},
		{"large directory", largeDir}, {"seek in directory", seekDir}, {"xattr", xattr}, {"mmap", mapped},
		{"copy file range", copyRange}, {"concurrent", concurrent}, {"names", names}, {"statfs", statfs}, {"fallocate", fallocate},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := filepath.Join(dir, filepath.Base(t.Name()))
			ok(t, os.Mkdir(sub, 0o755))
			c.run(t, sub)
			ok(t, os.RemoveAll(sub))
		})
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func has(t testing.TB, path string, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	ok(t, err)
	if string(got) != want {
		t.Fatalf("%s holds %.80q (%d bytes), want %.80q (%d bytes)", path, got, len(got), want, len(want))
	}
}

func stat(t testing.TB, path string) *syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	ok(t, syscall.Lstat(path, &st))
	return &st
}

func create(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	_, err := os.Stat(p)
	is(t, err, fs.ErrNotExist)
	ok(t, os.WriteFile(p, []byte("one"), 0o640))
	has(t, p, "one")
	_, err = os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	is(t, err, fs.ErrExist)
	f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o600)
	ok(t, err)
	_, err = f.WriteAt([]byte("X"), 1)
	ok(t, err)
	b := make([]byte, 3)
	_, err = f.ReadAt(b, 0)
	ok(t, err)
	if string(b) != "oXe" {
		t.Fatalf("a handle reads %q of what it wrote", b)
	}
	ok(t, f.Close())
	has(t, p, "oXe")
	if st := stat(t, p); st.Mode&0o7777 != 0o640 || st.Nlink != 1 || st.Size != 3 {
		t.Fatalf("mode %o, nlink %d, size %d", st.Mode, st.Nlink, st.Size)
	}
	_, err = os.OpenFile(filepath.Join(dir, "no", "f"), os.O_CREATE|os.O_WRONLY, 0o600)
	is(t, err, fs.ErrNotExist)
	_, err = os.OpenFile(filepath.Join(p, "f"), os.O_CREATE|os.O_WRONLY, 0o600)
	is(t, err, syscall.ENOTDIR)
}

func truncate(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, []byte("0123456789"), 0o600))
	ok(t, os.Truncate(p, 4))
	has(t, p, "0123")
	ok(t, os.Truncate(p, 6))
	has(t, p, "0123\x00\x00")
	f, err := os.OpenFile(p, os.O_RDWR|os.O_TRUNC, 0)
	ok(t, err)
	if n := stat(t, p).Size; n != 0 {
		t.Fatalf("size %d after O_TRUNC", n)
	}
	_, err = f.WriteString("abcdef")
	ok(t, err)
	ok(t, f.Truncate(3))
	_, err = f.WriteAt([]byte("Z"), 5)
	ok(t, err)
	if n := stat(t, p).Size; n != 6 {
		t.Fatalf("size %d, want 6", n)
	}
	ok(t, f.Close())
	has(t, p, "abc\x00\x00Z")
	is(t, os.Truncate(dir, 0), syscall.EISDIR)
}

func appending(t *testing.T, dir string) {
	p := filepath.Join(dir, "log")
	var want string
	for i := range 5 {
		f, err := os.OpenFile(p, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ok(t, err)
		for j := range 3 {
			line := fmt.Sprintf("line %d.%d\n", i, j)
			_, err = f.WriteString(line)
			ok(t, err)
			want += line
		}
		ok(t, f.Close())
	}
	has(t, p, want)
	a, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	ok(t, err)
	b, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	ok(t, err)
	for i := range 10 {
		for _, f := range []*os.File{a, b} {
			line := fmt.Sprintln("both", i, f == a)
			_, err := f.WriteString(line)
			ok(t, err)
			want += line
		}
	}
	ok(t, a.Close())
	ok(t, b.Close())
	has(t, p, want)
}

func holes(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	f, err := os.Create(p)
	ok(t, err)
	const far = 9<<20 + 123
	_, err = f.WriteAt([]byte("end"), far)
	ok(t, err)
	_, err = f.WriteAt([]byte("mid"), 4<<20-1)
	ok(t, err)
	ok(t, f.Close())
	want := make([]byte, far+3)
	copy(want[far:], "end")
	copy(want[4<<20-1:], "mid")
	got, err := os.ReadFile(p)
	ok(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("holes do not read as zeros")
	}
	f, err = os.Open(p)
	ok(t, err)
	defer f.Close()
	if off, err := f.Seek(0, unix.SEEK_DATA); err != nil || off > 4<<20-1 {
		t.Fatalf("SEEK_DATA: %d, %v: data would be skipped", off, err)
	}
	if _, err = f.Seek(far+3, unix.SEEK_DATA); !errors.Is(err, syscall.ENXIO) {
		t.Fatalf("SEEK_DATA behind the end: %v", err)
	}
}

func rename(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ok(t, os.WriteFile(a, []byte("A"), 0o600))
	ok(t, os.WriteFile(b, []byte("B"), 0o600))
	is(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE), syscall.EEXIST)
	ok(t, os.Rename(a, b))
	has(t, b, "A")
	_, err := os.Stat(a)
	is(t, err, fs.ErrNotExist)
	is(t, os.Rename(a, b), fs.ErrNotExist)
	ok(t, unix.Renameat2(unix.AT_FDCWD, b, unix.AT_FDCWD, a, unix.RENAME_NOREPLACE))
	f, err := os.OpenFile(a, os.O_WRONLY, 0)
	ok(t, err)
	_, err = f.WriteString("written before, closed after a rename")
	ok(t, err)
	ok(t, os.Rename(a, b))
	ok(t, f.Close())
	has(t, b, "written before, closed after a rename")
	ok(t, os.Mkdir(a, 0o700))
	is(t, os.Rename(b, a), fs.ErrExist) // os says so of a directory in the way
	is(t, syscall.Rename(a, b), syscall.ENOTDIR)
}

func renameDir(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ok(t, os.MkdirAll(filepath.Join(a, "x", "y"), 0o700))
	ok(t, os.WriteFile(filepath.Join(a, "x", "y", "f"), []byte("deep"), 0o600))
	is(t, os.Rename(a, filepath.Join(a, "x", "z")), syscall.EINVAL)
	ok(t, os.Rename(a, b))
	has(t, filepath.Join(b, "x", "y", "f"), "deep")
	ok(t, os.Mkdir(a, 0o700))
	ok(t, syscall.Rename(b, a)) // over an empty one, which os.Rename refuses
	is(t, syscall.Rename(filepath.Join(a, "x", "y"), a), syscall.ENOTEMPTY)
	ok(t, os.Rename(filepath.Join(a, "x", "y"), filepath.Join(dir, "y")))
	has(t, filepath.Join(dir, "y", "f"), "deep")
	if up, here := stat(t, filepath.Join(dir, "y", "..")), stat(t, dir); up.Ino != here.Ino {
		t.Fatal(".. of a moved directory is not its new parent")
	}
}

func openUnlinked(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	f, err := os.Create(p)
	ok(t, err)
	_, err = f.WriteString("before ")
	ok(t, err)
	ok(t, os.Remove(p))
	_, err = f.WriteString("after")
	ok(t, err)
	ok(t, f.Sync())
	b := make([]byte, 32)
	n, err := f.ReadAt(b, 0)
	if err != io.EOF || string(b[:n]) != "before after" {
		t.Fatalf("an unlinked file reads %q, %v", b[:n], err)
	}
	info, err := f.Stat()
	ok(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Nlink != 0 || st.Size != 12 {
		t.Fatalf("nlink %d, size %d", st.Nlink, st.Size)
	}
	ok(t, f.Close())
	_, err = os.Stat(p)
	is(t, err, fs.ErrNotExist)
}

func openReplaced(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, []byte("old"), 0o600))
	f, err := os.Open(p)
	ok(t, err)
	defer f.Close()
	ok(t, os.WriteFile(p+".new", []byte("new!"), 0o600))
	ok(t, os.Rename(p+".new", p))
	has(t, p, "new!")
	got, err := io.ReadAll(f)
	ok(t, err)
	if string(got) != "old" {
		t.Fatalf("an open reader of a replaced file reads %q", got)
	}
}

func hardLink(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ok(t, os.WriteFile(a, []byte("1"), 0o600))
	ok(t, os.Link(a, b))
	is(t, os.Link(a, b), fs.ErrExist)
	if x, y := stat(t, a), stat(t, b); x.Ino != y.Ino || x.Nlink != 2 || y.Nlink != 2 {
		t.Fatalf("inodes %d and %d, nlink %d and %d", x.Ino, y.Ino, x.Nlink, y.Nlink)
	}
	ok(t, os.WriteFile(b, []byte("22"), 0))
	has(t, a, "22")
	ok(t, os.Remove(a))
	has(t, b, "22")
	eventually(t, func() error {
		if n := stat(t, b).Nlink; n != 1 {
			return fmt.Errorf("nlink %d, want 1", n)
		}
		return nil
	})
}

func symlink(t *testing.T, dir string) {
	ok(t, os.WriteFile(filepath.Join(dir, "target"), []byte("here"), 0o600))
	p := filepath.Join(dir, "link")
	ok(t, os.Symlink("target", p))
	has(t, p, "here")
	got, err := os.Readlink(p)
	ok(t, err)
	if st := stat(t, p); got != "target" || st.Size != 6 || st.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		t.Fatalf("target %q, size %d, mode %o", got, st.Size, st.Mode)
	}
	ok(t, os.Symlink("nowhere", p+"2"))
	_, err = os.Stat(p + "2")
	is(t, err, fs.ErrNotExist)
	is(t, os.Symlink("x", p), fs.ErrExist)
}

// concurrent has writers of parts of a file of their own, and readers that must
// see each part whole or not at all.
func concurrent(t *testing.T, dir string) {
	const workers, rounds, size = 4, 8, 200_000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			p := filepath.Join(dir, fmt.Sprint("f", w))
			for r := range rounds {
				body := bytes.Repeat([]byte{byte('a' + r)}, size+rng.IntN(size))
				if err := os.WriteFile(p, body, 0o600); err != nil {
					t.Error(err)
					return
				}
				got, err := os.ReadFile(p)
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("read back %d bytes of %d, %v", len(got), len(body), err)
					return
				}
				if _, err := os.ReadDir(dir); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
}

// eventually polls until check is content.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
