package fstest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func directories(t *testing.T, dir string) {
	p := filepath.Join(dir, "d")
	ok(t, os.Mkdir(p, 0o2750))
	is(t, os.Mkdir(p, 0o700), fs.ErrExist)
	ok(t, os.WriteFile(filepath.Join(p, "f"), nil, 0o600))
	is(t, syscall.Rmdir(p), syscall.ENOTEMPTY)
	is(t, syscall.Unlink(p), syscall.EISDIR)
	is(t, syscall.Rmdir(filepath.Join(p, "f")), syscall.ENOTDIR)
	ok(t, os.Mkdir(filepath.Join(p, "sub"), 0o700))
	if n := stat(t, p).Nlink; n != 3 {
		t.Fatalf("nlink %d of a directory with one subdirectory", n)
	}
	ok(t, os.RemoveAll(p))
	_, err := os.Stat(p)
	is(t, err, fs.ErrNotExist)
}

func largeDir(t *testing.T, dir string) {
	const files = 5000
	want := makeFiles(t, dir, files)
	d, err := os.Open(dir)
	ok(t, err)
	defer d.Close()
	got, err := d.Readdirnames(-1)
	ok(t, err)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("%d names listed, in order: %v; want %d in order", len(got), sort.StringsAreSorted(got), files)
	}
	infos, err := os.ReadDir(dir)
	ok(t, err)
	for _, e := range infos {
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Fatalf("%s: %v, %v", e.Name(), info, err)
		}
	}
}

// makeFiles makes n empty files, several at a time, and returns their names in
// order.
func makeFiles(t *testing.T, dir string, n int) []string {
	t.Helper()
	names := make([]string, n)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range names {
		names[i] = fmt.Sprintf("file-%05d", i)
		g.Go(func() error { return syscall.Mknod(filepath.Join(dir, names[i]), syscall.S_IFREG|0o600, 0) })
	}
	ok(t, g.Wait())
	return names
}

// seekDir goes back to positions told before, as seekdir(3) does.
func seekDir(t *testing.T, dir string) {
	makeFiles(t, dir, 1500)
	d, err := os.Open(dir)
	ok(t, err)
	defer d.Close()
	fd := int(d.Fd())
	type place struct {
		pos  int64
		name string // of the entry behind it
	}
	var places []place
	buf, pos := make([]byte, 4096), int64(0)
	for {
		n, err := unix.Getdents(fd, buf)
		ok(t, err)
		if n == 0 {
			break
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		if len(names) > 0 && len(places)%7 == 0 {
			places = append(places, place{pos, names[0]})
		} else {
			places = append(places, place{pos, ""})
		}
		pos, err = unix.Seek(fd, 0, 1)
		ok(t, err)
	}
	for i := len(places) - 1; i >= 0; i-- {
		if places[i].name == "" {
			continue
		}
		_, err := unix.Seek(fd, places[i].pos, 0)
		ok(t, err)
		n, err := unix.Getdents(fd, buf)
		ok(t, err)
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		if len(names) == 0 || names[0] != places[i].name {
			t.Fatalf("position %d leads to %.40q, was %s", places[i].pos, names, places[i].name)
		}
	}
}

func names(t *testing.T, dir string) {
	long := strings.Repeat("n", 255)
	for _, name := range []string{long, " ", "ünï", "\xff\xfe not UTF-8", "new\nline", "a+b%20c?d#e&f=g", "-", "..."} {
		p := filepath.Join(dir, name)
		ok(t, os.WriteFile(p, []byte(name), 0o600))
		has(t, p, name)
	}
	list, err := os.ReadDir(dir)
	ok(t, err)
	if len(list) != 8 {
		t.Fatalf("%d names listed", len(list))
	}
	is(t, os.WriteFile(filepath.Join(dir, long+"n"), nil, 0o600), syscall.ENAMETOOLONG)
	_, err = os.Stat(filepath.Join(dir, long+"n"))
	is(t, err, syscall.ENAMETOOLONG)
}

func statfs(t *testing.T, dir string) {
	var st syscall.Statfs_t
	ok(t, syscall.Statfs(dir, &st))
	if st.Blocks == 0 || st.Bfree == 0 || st.Namelen != 255 {
		t.Fatalf("%+v", st)
	}
}

func xattr(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, nil, 0o600))
	buf := make([]byte, 256)
	_, err := unix.Getxattr(p, "user.a", buf)
	is(t, err, syscall.ENODATA)
	ok(t, unix.Setxattr(p, "user.a", []byte("1"), unix.XATTR_CREATE))
	is(t, unix.Setxattr(p, "user.a", []byte("1"), unix.XATTR_CREATE), syscall.EEXIST)
	is(t, unix.Setxattr(p, "user.b", []byte("1"), unix.XATTR_REPLACE), syscall.ENODATA)
	ok(t, unix.Setxattr(p, "user.b", nil, 0))
	n, err := unix.Getxattr(p, "user.a", buf)
	ok(t, err)
	if string(buf[:n]) != "1" {
		t.Fatalf("%q", buf[:n])
	}
	_, err = unix.Getxattr(p, "user.a", nil)
	ok(t, err)
	n, err = unix.Listxattr(p, buf)
	ok(t, err)
	if string(buf[:n]) != "user.a\x00user.b\x00" {
		t.Fatalf("list %q", buf[:n])
	}
	_, err = unix.Listxattr(p, buf[:3])
	is(t, err, syscall.ERANGE)
	ok(t, unix.Removexattr(p, "user.a"))
	is(t, unix.Removexattr(p, "user.a"), syscall.ENODATA)
	for _, name := range []string{"system.posix_acl_access", "security.capability", "nonsense.x", "user."} {
		if err := unix.Setxattr(p, name, []byte("x"), 0); err != syscall.ENOTSUP && err != syscall.EPERM && err != syscall.EINVAL {
			t.Fatalf("setting %s: %v, want a refusal", name, err)
		}
	}
}

func copyRange(t *testing.T, dir string) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 70_000)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	src, err := os.OpenFile(a, os.O_CREATE|os.O_RDWR, 0o600)
	ok(t, err)
	defer src.Close()
	_, err = src.Write(body) // not flushed yet
	ok(t, err)
	dst, err := os.Create(b)
	ok(t, err)
	_, err = dst.WriteString("head")
	ok(t, err)
	from, to, left := int64(16), int64(4), len(body)-16
	for left > 0 {
		n, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, left, 0)
		ok(t, err)
		if n == 0 {
			t.Fatal("copy_file_range made no progress")
		}
		left -= n
	}
	ok(t, dst.Close())
	has(t, b, "head"+string(body[16:]))
}

func fallocate(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, bytes.Repeat([]byte("x"), 10_000), 0o600))
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	ok(t, err)
	defer f.Close()
	is(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), syscall.ENOTSUP)
	ok(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1000, 5000))
	want := bytes.Repeat([]byte("x"), 10_000)
	clear(want[1000:6000])
	has(t, p, string(want))
	ok(t, unix.Fallocate(int(f.Fd()), 0, 10_500, 500))
	has(t, p, string(append(want, make([]byte, 1000)...)))
}
