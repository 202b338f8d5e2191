package posix

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

func openChecks() []check {
	return []check{
		{"open create", false, openCreate},
		{"open exclusive", false, openExclusive},
		{"open truncate", false, openTruncate},
		{"open append", false, openAppend},
		{"open directory", false, openDirectory},
		{"open nofollow", false, openNofollow},
		{"open path", false, openPath},
		{"open noatime", true, openNoatime},
		{"open umask", false, openUmask},
		{"open access mode", false, openAccessMode},
		{"open create unreadable", false, openCreateUnreadable},
		{"open busy text", true, openBusyText},
		{"openat", false, openAt},
		{"creat", false, creat},
	}
}

func openCreate(x *env) {
	f := x.p("f")
	x.is(tryOpen(f, unix.O_RDWR, 0), unix.ENOENT, "no O_CREAT")
	x.changes(x.dir, "cm", "open(O_CREAT) of a new name", func() { x.ok(tryOpen(f, unix.O_CREAT|unix.O_RDWR, 0o640)) })
	st := x.stat(f)
	eq(x, oct(st.Mode), oct(unix.S_IFREG|0o640))
	eq(x, st.Nlink, 1)
	eq(x, st.Size, 0)
	eq(x, st.Uid, uint32(os.Geteuid()))
	x.changes(x.dir, "", "open(O_CREAT) of a name that is there", func() {
		x.changes(f, "", "open(O_CREAT) of a file that is there", func() { x.ok(tryOpen(f, unix.O_CREAT|unix.O_RDWR, 0o777)) })
	})
	x.mode(f, 0o640, "O_CREAT of a file that is there")
	x.is(tryOpen(x.p("no", "f"), unix.O_CREAT|unix.O_RDWR, 0o600), unix.ENOENT)
	x.is(tryOpen(x.p("f", "g"), unix.O_CREAT|unix.O_RDWR, 0o600), unix.ENOTDIR)
	x.is(tryOpen(x.dir, unix.O_CREAT|unix.O_RDWR, 0o600), unix.EISDIR)
	x.is(tryOpen(x.dir, unix.O_CREAT, 0o600), unix.EISDIR)
	x.is(tryOpen(f+"/", unix.O_RDONLY, 0), unix.ENOTDIR, "a trailing slash")
	x.is(tryOpen(x.p("g")+"/", unix.O_CREAT|unix.O_RDWR, 0o600), unix.EISDIR, "O_CREAT with a trailing slash")
	x.ok(unix.Symlink("target", x.p("l")))
	x.ok(tryOpen(x.p("l"), unix.O_CREAT|unix.O_RDWR, 0o600)) // through a dangling link
	x.exists(x.p("target"), true)
}

func openExclusive(x *env) {
	f := x.file("f", "", 0o600)
	const excl = unix.O_CREAT | unix.O_EXCL | unix.O_RDWR
	x.is(tryOpen(f, excl, 0o600), unix.EEXIST)
	x.is(tryOpen(x.dir, excl, 0o600), unix.EEXIST)
	x.ok(unix.Symlink("nowhere", x.p("l")))
	x.is(tryOpen(x.p("l"), excl, 0o600), unix.EEXIST, "a dangling link")
	x.exists(x.p("nowhere"), false)
	x.ok(tryOpen(x.p("g"), excl, 0o600))
}

func openTruncate(x *env) {
	f := x.file("f", "content", 0o600)
	x.changes(f, "cm", "O_TRUNC", func() { x.ok(tryOpen(f, unix.O_WRONLY|unix.O_TRUNC, 0)) })
	eq(x, x.stat(f).Size, 0)
	x.changes(f, "cm", "O_TRUNC of an empty file", func() { x.ok(tryOpen(f, unix.O_WRONLY|unix.O_TRUNC, 0)) })
	x.ok(os.WriteFile(f, []byte("again"), 0))
	x.ok(tryOpen(f, unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR, 0o600))
	eq(x, x.stat(f).Size, 0)
	x.is(tryOpen(x.dir, unix.O_WRONLY|unix.O_TRUNC, 0), unix.EISDIR)
}

func openAppend(x *env) {
	f := x.file("f", "one", 0o600)
	fd := x.open(f, unix.O_WRONLY|unix.O_APPEND, 0)
	_, err := unix.Seek(fd, 0, unix.SEEK_SET)
	x.ok(err)
	_, err = unix.Write(fd, []byte("two"))
	x.ok(err)
	at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	x.ok(err)
	eq(x, at, 6, "the offset after an append")
	_, err = unix.Pwrite(fd, []byte("three"), 0)
	x.ok(err) // Linux appends whatever the offset: pwrite(2), BUGS
	x.ok(unix.Close(fd))
	x.content(f, "onetwothree")
}

func openDirectory(x *env) {
	f := x.file("f", "", 0o600)
	x.is(tryOpen(f, unix.O_DIRECTORY, 0), unix.ENOTDIR)
	x.is(tryOpen(x.dir, unix.O_WRONLY, 0), unix.EISDIR)
	x.is(tryOpen(x.dir, unix.O_RDWR, 0), unix.EISDIR)
	x.ok(tryOpen(x.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0))
	fd := x.open(x.dir, unix.O_RDONLY, 0)
	defer unix.Close(fd)
	_, err := unix.Read(fd, make([]byte, 8))
	x.is(err, unix.EISDIR, "read of a directory")
	_, err = unix.Write(fd, []byte("x"))
	x.is(err, unix.EBADF, "write to a directory")
	x.ok(unix.Fsync(fd))
}

func openNofollow(x *env) {
	x.file("f", "", 0o600)
	l := x.p("l")
	x.ok(unix.Symlink("f", l))
	x.ok(tryOpen(l, unix.O_RDONLY, 0))
	x.is(tryOpen(l, unix.O_RDONLY|unix.O_NOFOLLOW, 0), unix.ELOOP)
	x.is(tryOpen(l, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CREAT, 0o600), unix.ELOOP)
	x.ok(unix.Symlink(".", x.p("d")))
	x.is(tryOpen(x.p("d"), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0), unix.ENOTDIR)
	x.ok(tryOpen(x.p("d", "f"), unix.O_RDONLY|unix.O_NOFOLLOW, 0)) // only the last one counts
}

func openPath(x *env) {
	f := x.file("f", "content", 0)
	fd := x.open(f, unix.O_PATH, 0)
	defer unix.Close(fd)
	_, err := unix.Read(fd, make([]byte, 8))
	x.is(err, unix.EBADF, "read by O_PATH")
	eq(x, x.fstat(fd).Size, 7)
	x.ok(unix.Symlink("f", x.p("l")))
	l := x.open(x.p("l"), unix.O_PATH|unix.O_NOFOLLOW, 0)
	defer unix.Close(l)
	eq(x, oct(x.fstat(l).Mode&unix.S_IFMT), oct(unix.S_IFLNK))
	buf := make([]byte, 16)
	n, err := unix.Readlinkat(l, "", buf)
	x.ok(err)
	eq(x, string(buf[:n]), "f")
}

func openNoatime(x *env) {
	f := x.file("f", "x", 0o666)
	x.ok(tryOpen(f, unix.O_RDONLY|unix.O_NOATIME, 0))
	x.as(alice, staff, func() {
		x.is(tryOpen(f, unix.O_RDONLY|unix.O_NOATIME, 0), unix.EPERM, "O_NOATIME of another's file")
		x.ok(tryOpen(f, unix.O_RDONLY, 0))
	})
}

func openUmask(x *env) {
	unix.Umask(0o027)
	defer unix.Umask(0)
	x.ok(tryOpen(x.p("f"), unix.O_CREAT|unix.O_WRONLY, 0o777))
	x.mode(x.p("f"), 0o750)
	x.ok(unix.Mkdir(x.p("d"), 0o777))
	x.mode(x.p("d"), 0o750)
	x.ok(unix.Mknod(x.p("p"), unix.S_IFIFO|0o666, 0))
	x.mode(x.p("p"), 0o640)
	x.ok(unix.Symlink("f", x.p("l")))
	x.mode(x.p("l"), 0o777, "a symlink under a umask")
	x.ok(unix.Chmod(x.p("f"), 0o777))
	x.mode(x.p("f"), 0o777, "chmod under a umask")
}

func openAccessMode(x *env) {
	f := x.file("f", "content", 0o600)
	r, w := x.open(f, unix.O_RDONLY, 0), x.open(f, unix.O_WRONLY, 0)
	defer unix.Close(r)
	defer unix.Close(w)
	_, err := unix.Write(r, []byte("x"))
	x.is(err, unix.EBADF, "write by a reader")
	_, err = unix.Read(w, make([]byte, 1))
	x.is(err, unix.EBADF, "read by a writer")
	x.is(unix.Ftruncate(r, 0), unix.EINVAL, "ftruncate by a reader")
	eq(x, x.stat(f).Size, 7)
}

// The mode of a new file counts for the opens to come, not for the one that makes it.
func openCreateUnreadable(x *env) {
	fd := x.open(x.p("f"), unix.O_CREAT|unix.O_RDWR, 0)
	_, err := unix.Write(fd, []byte("hello"))
	x.ok(err)
	buf := make([]byte, 5)
	_, err = unix.Pread(fd, buf, 0)
	x.ok(err)
	eq(x, string(buf), "hello")
	x.ok(unix.Close(fd))
	x.mode(x.p("f"), 0)
}

func openBusyText(x *env) {
	program, err := exec.LookPath("sleep")
	x.ok(err)
	raw, err := os.ReadFile(program)
	x.ok(err)
	p := x.file("sleep", string(raw), 0o755)
	// A shell executes it, never this process: the filesystem may be served by this
	// process, whose threads can stand still while it forks.
	w := x.open(p, unix.O_WRONLY, 0)
	out, err := exec.Command("/bin/sh", "-c", `"$0" 0`, p).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "busy") {
		x.Errorf("exec of a file that is open for writing: %v, %s", err, out)
	}
	x.ok(unix.Close(w))
	cmd := exec.Command("/bin/sh", "-c", `exec "$0" 1000`, p)
	x.ok(cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	x.eventually(func() error {
		running, err := os.Readlink("/proc/" + itoa(cmd.Process.Pid) + "/exe")
		if err == nil && running != p {
			err = fmt.Errorf("the program that runs is %s", running)
		}
		return err
	})
	x.is(tryOpen(p, unix.O_WRONLY, 0), unix.ETXTBSY, "open of a running program for writing")
	x.is(tryOpen(p, unix.O_RDWR|unix.O_TRUNC, 0), unix.ETXTBSY)
	x.is(unix.Truncate(p, 0), unix.ETXTBSY, "truncate of a running program")
	x.ok(tryOpen(p, unix.O_RDONLY, 0))
	x.ok(unix.Unlink(p))
}

func openAt(x *env) {
	x.mkdir("d", 0o755)
	d := x.open(x.p("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer unix.Close(d)
	x.ok(unix.Rename(x.p("d"), x.p("e"))) // the descriptor follows
	fd, err := unix.Openat(d, "f", unix.O_CREAT|unix.O_RDWR, 0o600)
	x.ok(err)
	x.ok(unix.Close(fd))
	x.exists(x.p("e", "f"), true)
	file := x.open(x.p("e", "f"), unix.O_RDONLY, 0)
	defer unix.Close(file)
	_, err = unix.Openat(file, "g", unix.O_CREAT|unix.O_RDWR, 0o600)
	x.is(err, unix.ENOTDIR)
	_, err = unix.Openat(-5, "g", unix.O_RDONLY, 0)
	x.is(err, unix.EBADF)
}

func creat(x *env) {
	f := x.file("f", "content", 0o600)
	fd, err := unix.Creat(f, 0o644)
	x.ok(err)
	x.ok(unix.Close(fd))
	eq(x, x.stat(f).Size, 0)
	x.mode(f, 0o600)
	name := strings.Repeat("n", 256)
	_, err = unix.Creat(x.p(name), 0o644)
	x.is(err, unix.ENAMETOOLONG)
}
