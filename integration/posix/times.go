package posix

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func timeChecks() []check {
	return []check{
		{"utimensat", false, utimensat},
		{"utimensat omit and now", false, utimensatSpecial},
		{"utimensat permissions", true, utimensatPermissions},
		{"times of content", false, timesContent},
		{"times of attributes", false, timesAttributes},
		{"times written through a mapping or descriptor", false, timesDescriptor},
	}
}

func utimens(p string, atime, mtime unix.Timespec, flags int) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{atime, mtime}, flags)
}

func utimensat(x *env) {
	f := x.file("f", "x", 0o600)
	for _, ts := range []unix.Timespec{{Sec: 1_234_567_890, Nsec: 123_456_789}, {Sec: 0, Nsec: 1}, {Sec: -5, Nsec: 999_999_999}, {Sec: 4_294_967_296, Nsec: 7}} {
		other := unix.Timespec{Sec: ts.Sec + 10, Nsec: 987_654_321}
		before := x.stamps(f).ctime
		x.nextTick(before)
		x.ok(utimens(f, ts, other, 0))
		st := x.stat(f)
		eq(x, st.Atim, ts, "atime")
		eq(x, st.Mtim, other, "mtime")
		eq(x, st.Ctim.Nano() > before, true, "ctime rose")
	}
	x.is(utimens(f, unix.Timespec{Nsec: 1_000_000_000}, unix.Timespec{}, 0), unix.EINVAL)
	x.is(utimens(f, unix.Timespec{Nsec: -1}, unix.Timespec{}, 0), unix.EINVAL)
	x.is(utimens(x.p("no"), unix.Timespec{}, unix.Timespec{}, 0), unix.ENOENT)
	x.ok(unix.Symlink("f", x.p("l")))
	was := x.stat(f)
	x.ok(utimens(x.p("l"), unix.Timespec{Sec: 7}, unix.Timespec{Sec: 8, Nsec: 9}, unix.AT_SYMLINK_NOFOLLOW))
	eq(x, x.stat(x.p("l")).Mtim, unix.Timespec{Sec: 8, Nsec: 9}, "mtime of a link")
	eq(x, x.stat(f).Mtim, was.Mtim, "mtime of its target")
	d := x.mkdir("d", 0o755)
	x.ok(utimens(d, unix.Timespec{Sec: 1}, unix.Timespec{Sec: 2}, 0))
	eq(x, x.stat(d).Mtim.Sec, 2, "mtime of a directory")
	x.ok(unix.Mkfifo(x.p("p"), 0o600))
	x.ok(utimens(x.p("p"), unix.Timespec{Sec: 1}, unix.Timespec{Sec: 2}, 0))
	eq(x, x.stat(x.p("p")).Mtim.Sec, 2, "mtime of a fifo")
}

func utimensatSpecial(x *env) {
	f := x.file("f", "x", 0o600)
	old := unix.Timespec{Sec: 1000, Nsec: 5}
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	recent := func(ts unix.Timespec) bool { return time.Since(time.Unix(ts.Unix())).Abs() < time.Hour }
	x.ok(utimens(f, old, old, 0))
	x.ok(utimens(f, omit, now, 0))
	st := x.stat(f)
	eq(x, st.Atim, old, "atime left out")
	eq(x, recent(st.Mtim), true, "mtime of now")
	x.ok(utimens(f, old, old, 0))
	x.ok(utimens(f, now, omit, 0))
	st = x.stat(f)
	eq(x, recent(st.Atim), true, "atime of now")
	eq(x, st.Mtim, old, "mtime left out")
	x.ok(utimens(f, old, old, 0))
	x.changes(f, "", "both left out", func() { x.ok(utimens(f, omit, omit, 0)) })
	x.ok(unix.UtimesNanoAt(unix.AT_FDCWD, f, nil, 0))
	st = x.stat(f)
	eq(x, recent(st.Atim) && recent(st.Mtim), true, "no times are those of now")
	x.ok(withFile(f, unix.O_RDONLY, func(fd int) error { return unix.Futimes(fd, []unix.Timeval{{Sec: 3, Usec: 4}, {Sec: 5, Usec: 6}}) }))
	eq(x, x.stat(f).Mtim, unix.Timespec{Sec: 5, Nsec: 6000}, "futimes")
}

func utimensatPermissions(x *env) {
	mine, writable, readable := x.file("mine", "x", 0), x.file("writable", "x", 0o666), x.file("readable", "x", 0o644)
	x.ok(unix.Chown(mine, alice, staff))
	ts, now, omit := unix.Timespec{Sec: 7}, unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	x.as(alice, staff, func() {
		x.ok(utimens(mine, ts, ts, 0)) // the owner, whatever the mode
		x.ok(utimens(mine, now, now, 0))
		x.ok(utimens(writable, now, now, 0))
		x.ok(unix.UtimesNanoAt(unix.AT_FDCWD, writable, nil, 0))
		x.is(utimens(writable, ts, ts, 0), unix.EPERM, "times of one's choice for another's file")
		x.is(utimens(writable, now, omit, 0), unix.EPERM, "one of them left out")
		x.is(utimens(readable, now, now, 0), unix.EACCES, "now, without write permission")
		x.is(utimens(readable, ts, ts, 0), unix.EPERM)
		x.ok(utimens(readable, omit, omit, 0)) // asks nobody
	})
}

func timesContent(x *env) {
	f := x.file("f", "content", 0o600)
	x.changes(f, "cm", "write", func() {
		x.ok(withFile(f, unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err }))
	})
	x.changes(f, "", "write of nothing", func() {
		x.ok(withFile(f, unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, nil); return err }))
	})
	x.changes(f, "cm", "truncate", func() { x.ok(unix.Truncate(f, 3)) })
	x.changes(f, "cm", "truncate up", func() { x.ok(unix.Truncate(f, 30)) })
	x.changes(f, "", "read", func() { _, err := os.ReadFile(f); x.ok(err) })
	x.changes(f, "", "open and close", func() { x.ok(tryOpen(f, unix.O_RDWR, 0)) })
	x.changes(f, "cm", "fallocate", func() {
		x.ok(withFile(f, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) }))
	})
	x.changes(f, "cm", "punch hole", func() {
		x.ok(withFile(f, unix.O_WRONLY, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 10)
		}))
	})
	src := x.file("src", "source", 0o600)
	x.changes(src, "", "copy_file_range from it", func() {
		x.changes(f, "cm", "copy_file_range to it", func() {
			x.ok(withFile(src, unix.O_RDONLY, func(from int) error {
				return withFile(f, unix.O_WRONLY, func(to int) error {
					_, err := unix.CopyFileRange(from, nil, to, nil, 6, 0)
					return err
				})
			}))
		})
	})
}

func timesAttributes(x *env) {
	f := x.file("f", "content", 0o600)
	x.changes(f, "c", "setxattr", func() { x.ok(unix.Setxattr(f, "user.a", []byte("1"), 0)) })
	x.changes(f, "c", "removexattr", func() { x.ok(unix.Removexattr(f, "user.a")) })
	x.changes(f, "", "a removexattr that fails", func() { x.is(unix.Removexattr(f, "user.a"), unix.ENODATA) })
	x.changes(f, "", "a chmod of another name that fails", func() { x.is(unix.Chmod(x.p("no"), 0o600), unix.ENOENT) })
	x.changes(x.dir, "", "a mkdir that fails", func() { x.is(unix.Mkdir(f, 0o700), unix.EEXIST) })
	d := x.mkdir("d", 0o755)
	x.changes(d, "c", "chmod of a directory", func() { x.ok(unix.Chmod(d, 0o700)) })
	x.changes(x.dir, "", "chmod in a directory", func() { x.ok(unix.Chmod(f, 0o640)) })
	x.changes(x.dir, "", "mkdir in a subdirectory", func() { x.ok(unix.Mkdir(d+"/e", 0o755)) })
	x.changes(x.dir, "", "write in a directory", func() { x.ok(os.WriteFile(f, []byte("new"), 0)) })
}

func timesDescriptor(x *env) {
	f := x.file("f", "content", 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	before := x.fstat(fd)
	x.nextTick(before.Mtim.Nano())
	_, err := unix.Pwrite(fd, []byte("x"), 0)
	x.ok(err)
	during := x.fstat(fd)
	eq(x, during.Mtim.Nano() > before.Mtim.Nano(), true, "fstat sees the new mtime before close")
	x.nextTick(during.Mtim.Nano())
	x.ok(unix.Close(fd))
	after := x.stat(f)
	eq(x, after.Mtim, during.Mtim, "close leaves the mtime")
	eq(x, after.Ctim, during.Ctim, "close leaves the ctime")
	// Times that were set stay what they are when the descriptor is closed.
	fd = x.open(f, unix.O_RDWR, 0)
	_, err = unix.Pwrite(fd, []byte("y"), 0)
	x.ok(err)
	x.ok(utimens(f, unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6}, 0))
	x.ok(unix.Close(fd))
	eq(x, x.stat(f).Mtim, unix.Timespec{Sec: 6}, "utimensat between write and close")
}
