package posix

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func linkChecks() []check {
	return []check{
		{"link", false, link},
		{"link of other types", false, linkTypes},
		{"linkat", false, linkat},
		{"unlink", false, unlink},
		{"unlink open", false, unlinkOpen},
		{"symlink", false, symlink},
		{"readlink", false, readlink},
	}
}

func link(x *env) {
	f := x.file("f", "content", 0o600)
	g := x.p("g")
	x.changes(f, "c", "link", func() {
		x.changes(x.dir, "cm", "link", func() { x.ok(unix.Link(f, g)) })
	})
	a, b := x.stat(f), x.stat(g)
	eq(x, a.Ino, b.Ino)
	eq(x, a.Nlink, 2)
	eq(x, b.Nlink, 2)
	x.content(g, "content")
	x.is(unix.Link(f, g), unix.EEXIST)
	x.is(unix.Link(f, x.dir), unix.EEXIST)
	x.is(unix.Link(x.p("no"), x.p("h")), unix.ENOENT)
	x.is(unix.Link(f, x.p("no", "h")), unix.ENOENT)
	x.is(unix.Link(f, x.p("f", "h")), unix.ENOTDIR)
	x.is(unix.Link(x.p("f", "f"), x.p("h")), unix.ENOTDIR)
	x.mkdir("d", 0o755)
	x.is(unix.Link(x.p("d"), x.p("e")), unix.EPERM, "a directory")
	x.is(unix.Link(f, x.p(strings.Repeat("n", 256))), unix.ENAMETOOLONG)
	if x.Elsewhere != "" {
		x.is(unix.Link(f, filepath.Join(x.Elsewhere, "posix-link")), unix.EXDEV)
	}
	x.ok(unix.Chmod(g, 0o640))
	x.mode(f, 0o640, "chmod by the other name")
	x.changes(g, "c", "unlink of the other name", func() { x.ok(unix.Unlink(f)) })
	eq(x, x.stat(g).Nlink, 1)
	x.ok(unix.Link(g, x.p("d", "far")))
	eq(x, x.stat(g).Nlink, 2, "nlink after a link in another directory")
	x.ok(unix.Unlink(g))
	x.content(x.p("d", "far"), "content")
}

func linkTypes(x *env) {
	x.ok(unix.Mkfifo(x.p("p"), 0o600))
	x.ok(unix.Link(x.p("p"), x.p("q")))
	eq(x, x.stat(x.p("q")).Nlink, 2)
	x.ok(unix.Symlink("nowhere", x.p("l")))
	x.ok(unix.Link(x.p("l"), x.p("m"))) // the link itself, as link(2) says of Linux
	st := x.stat(x.p("m"))
	eq(x, oct(st.Mode&unix.S_IFMT), oct(unix.S_IFLNK))
	eq(x, st.Nlink, 2)
}

func linkat(x *env) {
	x.file("f", "content", 0o600)
	x.ok(unix.Symlink("f", x.p("l")))
	at := unix.AT_FDCWD
	x.ok(unix.Linkat(at, x.p("l"), at, x.p("followed"), unix.AT_SYMLINK_FOLLOW))
	eq(x, x.stat(x.p("followed")).Ino, x.stat(x.p("f")).Ino)
	x.ok(unix.Linkat(at, x.p("l"), at, x.p("itself"), 0))
	eq(x, x.stat(x.p("itself")).Ino, x.stat(x.p("l")).Ino)
	x.is(unix.Linkat(at, x.p("f"), at, x.p("g"), 0x8000), unix.EINVAL)
	fd := x.open(x.p("f"), unix.O_RDONLY, 0)
	defer unix.Close(fd)
	x.is(unix.Linkat(fd, "x", at, x.p("g"), 0), unix.ENOTDIR)
	x.is(unix.Linkat(-5, "x", at, x.p("g"), 0), unix.EBADF)
}

func unlink(x *env) {
	f := x.file("f", "", 0o600)
	x.changes(x.dir, "cm", "unlink", func() { x.ok(unix.Unlink(f)) })
	x.exists(f, false)
	x.is(unix.Unlink(f), unix.ENOENT)
	x.is(unix.Unlink(""), unix.ENOENT)
	d := x.mkdir("d", 0o755)
	x.is(unix.Unlink(d), unix.EISDIR)
	x.file("g", "", 0)
	x.is(unix.Unlink(x.p("g", "h")), unix.ENOTDIR)
	x.is(unix.Unlink(x.p("g")+"/"), unix.ENOTDIR)
	x.ok(unix.Unlink(x.p("g"))) // its own mode does not matter
	x.ok(unix.Symlink("d", x.p("l")))
	x.ok(unix.Unlink(x.p("l")))
	x.exists(d, true)
	x.is(unix.Unlink(x.p(strings.Repeat("n", 256))), unix.ENAMETOOLONG)
}

func unlinkOpen(x *env) {
	f := x.file("f", "before ", 0o600)
	fd := x.open(f, unix.O_RDWR|unix.O_APPEND, 0)
	x.ok(unix.Unlink(f))
	st := x.fstat(fd)
	eq(x, st.Nlink, 0)
	_, err := unix.Write(fd, []byte("after"))
	x.ok(err)
	x.ok(unix.Fsync(fd))
	buf := make([]byte, 12)
	_, err = unix.Pread(fd, buf, 0)
	x.ok(err)
	eq(x, string(buf), "before after")
	x.ok(unix.Fchmod(fd, 0o644))
	eq(x, oct(x.fstat(fd).Mode), oct(unix.S_IFREG|0o644))
	x.ok(unix.Ftruncate(fd, 3))
	eq(x, x.fstat(fd).Size, 3)
	x.is(unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+itoa(fd), unix.AT_FDCWD, x.p("g"), unix.AT_SYMLINK_FOLLOW), unix.ENOENT,
		"a name for a file that lost its last one")
	x.file("f", "another", 0o600) // the name is free
	x.ok(unix.Close(fd))
	x.content(f, "another")
}

func symlink(x *env) {
	l := x.p("l")
	x.changes(x.dir, "cm", "symlink", func() { x.ok(unix.Symlink("target", l)) })
	st := x.stat(l)
	eq(x, oct(st.Mode), oct(unix.S_IFLNK|0o777))
	eq(x, st.Size, 6)
	eq(x, st.Nlink, 1)
	x.is(unix.Symlink("x", l), unix.EEXIST)
	x.is(unix.Symlink("x", x.dir), unix.EEXIST)
	x.is(unix.Symlink("x", x.p("no", "l")), unix.ENOENT)
	x.is(unix.Symlink("", x.p("empty")), unix.ENOENT)
	x.file("f", "", 0o600)
	x.is(unix.Symlink("x", x.p("f", "l")), unix.ENOTDIR)
	x.is(unix.Symlink("x", x.p(strings.Repeat("n", 256))), unix.ENAMETOOLONG)
	x.is(unix.Symlink(strings.Repeat("t", 4096), x.p("long")), unix.ENAMETOOLONG)
	long := strings.Repeat("t/", 2047) + "t"
	x.ok(unix.Symlink(long, x.p("long")))
	got, err := os.Readlink(x.p("long"))
	x.ok(err)
	eq(x, got, long)
	eq(x, x.stat(x.p("long")).Size, 4095)
}

func readlink(x *env) {
	x.ok(unix.Symlink("target", x.p("l")))
	buf := make([]byte, 3)
	n, err := unix.Readlink(x.p("l"), buf)
	x.ok(err)
	eq(x, string(buf[:n]), "tar", "a short buffer")
	x.file("f", "", 0o600)
	_, err = unix.Readlink(x.p("f"), buf)
	x.is(err, unix.EINVAL)
	_, err = unix.Readlink(x.dir, buf)
	x.is(err, unix.EINVAL)
	_, err = unix.Readlink(x.p("no"), buf)
	x.is(err, unix.ENOENT)
	_, err = unix.Readlink(x.p("f", "l"), buf)
	x.is(err, unix.ENOTDIR)
}
