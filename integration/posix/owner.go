package posix

import (
	"golang.org/x/sys/unix"
)

func modeChecks() []check {
	return []check{
		{"chmod", false, chmod},
		{"chmod by others", true, chmodOthers},
		{"fchmodat", false, fchmodat},
	}
}

func ownerChecks() []check {
	return []check{
		{"chown", true, chown},
		{"chown by others", true, chownOthers},
	}
}

func privChecks() []check {
	return []check{
		{"privileges lost by write", true, privWrite},
		{"privileges lost by truncate", true, privTruncate},
		{"privileges lost by chown", true, privChown},
		{"privileges kept by the superuser", true, privRoot},
		{"privileges lost by fallocate", true, privFallocate},
		{"privileges lost by copy", true, privCopy},
	}
}

func chmod(x *env) {
	f := x.file("f", "content", 0o600)
	for _, mode := range []uint32{0, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777} {
		x.changes(f, "c", "chmod", func() { x.ok(unix.Chmod(f, mode)) })
		x.mode(f, mode)
	}
	x.changes(f, "c", "chmod to what it is", func() { x.ok(unix.Chmod(f, 0o7777)) })
	d := x.mkdir("d", 0o755)
	for _, mode := range []uint32{0o1777, 0o2775, 0o7755, 0o700} {
		x.ok(unix.Chmod(d, mode))
		x.mode(d, mode)
	}
	x.is(unix.Chmod(x.p("no"), 0o600), unix.ENOENT)
	x.ok(unix.Symlink("f", x.p("l")))
	x.ok(unix.Chmod(x.p("l"), 0o640)) // follows
	x.mode(f, 0o640)
	x.mode(x.p("l"), 0o777)
	fd := x.open(f, unix.O_RDONLY, 0)
	x.ok(unix.Fchmod(fd, 0o4711))
	x.mode(f, 0o4711)
	x.ok(unix.Close(fd))
	x.is(unix.Fchmod(fd, 0o600), unix.EBADF)
}

func chmodOthers(x *env) {
	f := x.file("f", "", 0o644)
	x.ok(unix.Chown(f, alice, staff))
	d := x.mkdir("d", 0o755)
	x.ok(unix.Chown(d, alice, staff))
	x.as(bob, staff, func() {
		x.is(unix.Chmod(f, 0o666), unix.EPERM, "another's file")
		x.is(unix.Chmod(d, 0o777), unix.EPERM, "another's directory")
	})
	x.mode(f, 0o644)
	x.as(alice, staff, func() {
		x.ok(unix.Chmod(f, 0o6755))
		x.mode(f, 0o6755)
		x.ok(unix.Chmod(f, 0o1644))
		x.mode(f, 0o1644, "the sticky bit of a file") // Linux keeps it and does nothing with it
	})
	x.as(alice, guests, func() {
		x.ok(unix.Chmod(f, 0o6755))
		x.mode(f, 0o4755, "setgid by an owner who is not in the group")
		x.ok(unix.Chmod(d, 0o2755))
		x.mode(d, 0o755, "setgid of a directory by an owner who is not in the group")
	})
	x.as(alice, guests, func() {
		x.ok(unix.Chmod(f, 0o2755))
		x.mode(f, 0o2755, "setgid by an owner with the group among the others")
	}, staff)
}

func fchmodat(x *env) {
	x.file("f", "", 0o600)
	d := x.open(x.dir, unix.O_PATH, 0)
	defer unix.Close(d)
	x.ok(unix.Fchmodat(d, "f", 0o640, 0))
	x.mode(x.p("f"), 0o640)
	x.is(unix.Fchmodat(d, "no", 0o640, 0), unix.ENOENT)
	x.ok(unix.Symlink("f", x.p("l")))
	if err := unix.Fchmodat(d, "l", 0o600, unix.AT_SYMLINK_NOFOLLOW); err == nil || err == unix.EOPNOTSUPP {
		x.mode(x.p("f"), 0o640, "chmod of the link itself")
	} else {
		x.Errorf("fchmodat of a link: %v", err)
	}
}

func chown(x *env) {
	f := x.file("f", "", 0o644)
	owner := func(p string, uid, gid uint32, what string) {
		x.Helper()
		st := x.stat(p)
		eq(x, st.Uid, uid, what, ": uid")
		eq(x, st.Gid, gid, what, ": gid")
	}
	x.changes(f, "c", "chown", func() { x.ok(unix.Chown(f, alice, staff)) })
	owner(f, alice, staff, "chown")
	x.ok(unix.Chown(f, bob, -1))
	owner(f, bob, staff, "chown of the owner alone")
	x.ok(unix.Chown(f, -1, guests))
	owner(f, bob, guests, "chown of the group alone")
	x.ok(unix.Chown(f, 4294967294, 4294967294))
	owner(f, 4294967294, 4294967294, "the largest id")
	x.ok(unix.Symlink("f", x.p("l")))
	x.ok(unix.Lchown(x.p("l"), alice, staff))
	owner(x.p("l"), alice, staff, "lchown")
	owner(f, 4294967294, 4294967294, "the link's target after lchown")
	x.ok(unix.Chown(x.p("l"), carol, staff))
	owner(f, carol, staff, "chown through a link")
	owner(x.p("l"), alice, staff, "the link after chown")
	x.is(unix.Chown(x.p("no"), 1, 1), unix.ENOENT)
	fd := x.open(f, unix.O_RDONLY, 0)
	x.ok(unix.Fchown(fd, alice, guests))
	owner(f, alice, guests, "fchown")
	x.ok(unix.Close(fd))
	x.is(unix.Fchown(fd, 0, 0), unix.EBADF)
}

func chownOthers(x *env) {
	f := x.file("f", "", 0o666)
	x.ok(unix.Chown(f, alice, staff))
	x.as(alice, staff, func() {
		x.is(unix.Chown(f, bob, -1), unix.EPERM, "to give a file away")
		x.ok(unix.Chown(f, alice, -1)) // to oneself
		x.ok(unix.Chown(f, -1, guests))
		eq(x, x.stat(f).Gid, guests, "a group that the owner is in")
		x.is(unix.Chown(f, -1, 90000), unix.EPERM, "a group that the owner is not in")
	}, guests)
	x.as(bob, staff, func() {
		x.is(unix.Chown(f, bob, -1), unix.EPERM, "another's file")
		x.is(unix.Chown(f, -1, staff), unix.EPERM)
	}, guests)
}

// privileged makes a file of alice's with a mode that others may write.
func privileged(x *env, name string, mode uint32) string {
	x.Helper()
	p := x.file(name, "content", 0o777)
	x.ok(unix.Chown(p, alice, staff))
	x.ok(unix.Chmod(p, mode))
	x.mode(p, mode)
	return p
}

func privWrite(x *env) {
	// setgid without the group's x is no privilege, and stays for one of the group.
	for _, c := range []struct{ mode, want uint32 }{{0o6777, 0o777}, {0o4777, 0o777}, {0o2777, 0o777}, {0o2767, 0o2767}, {0o4766, 0o766}} {
		p := privileged(x, "f", c.mode)
		x.as(bob, staff, func() {
			fd := x.open(p, unix.O_WRONLY, 0)
			_, err := unix.Write(fd, []byte("X"))
			x.ok(err)
			eq(x, oct(x.fstat(fd).Mode&0o7777), oct(c.want), "fstat after a write to mode ", oct(c.mode))
			x.ok(unix.Close(fd))
		})
		x.mode(p, c.want, "after a write to mode ", oct(c.mode))
		x.ok(unix.Unlink(p))
	}
	p := privileged(x, "own", 0o6777)
	x.as(alice, staff, func() {
		fd := x.open(p, unix.O_WRONLY|unix.O_APPEND, 0)
		_, err := unix.Write(fd, []byte("X"))
		x.ok(err)
		x.ok(unix.Close(fd))
	})
	x.mode(p, 0o777, "after a write by the owner")
}

func privTruncate(x *env) {
	for name, do := range map[string]func(p string) error{
		"truncate":    func(p string) error { return unix.Truncate(p, 3) },
		"truncate up": func(p string) error { return unix.Truncate(p, 3000) },
		"O_TRUNC":     func(p string) error { return tryOpen(p, unix.O_WRONLY|unix.O_TRUNC, 0) },
		"ftruncate": func(p string) error {
			return withFile(p, unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 2) })
		},
		"ftruncate up": func(p string) error {
			return withFile(p, unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 9) })
		},
	} {
		p := privileged(x, "f", 0o6777)
		x.as(bob, guests, func() { x.is(do(p), nil, name) })
		x.mode(p, 0o777, "after ", name)
		x.ok(unix.Unlink(p))
	}
}

func withFile(p string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}

func privChown(x *env) {
	p := privileged(x, "f", 0o6777)
	x.as(alice, staff, func() { x.ok(unix.Chown(p, -1, staff)) })
	x.mode(p, 0o777, "after a chown by its owner")
	x.ok(unix.Chmod(p, 0o6777))
	x.ok(unix.Chown(p, bob, guests))
	x.mode(p, 0o777, "after a chown by root")
	x.ok(unix.Chmod(p, 0o2767))
	x.ok(unix.Chown(p, alice, -1))
	x.mode(p, 0o2767, "setgid without the group's x")
	d := x.mkdir("d", 0o755)
	x.ok(unix.Chmod(d, 0o6775))
	x.ok(unix.Chown(d, alice, staff))
	x.mode(d, 0o6775, "a directory keeps them")
}

func privRoot(x *env) {
	p := privileged(x, "f", 0o6777)
	fd := x.open(p, unix.O_WRONLY, 0)
	_, err := unix.Write(fd, []byte("X"))
	x.ok(err)
	x.ok(unix.Ftruncate(fd, 3))
	x.ok(unix.Close(fd))
	x.ok(unix.Truncate(p, 2))
	x.mode(p, 0o6777)
}

func privFallocate(x *env) {
	for name, mode := range map[string]uint32{"fallocate": 0, "punch hole": unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, "zero range": unix.FALLOC_FL_ZERO_RANGE} {
		p := privileged(x, "f", 0o6777)
		x.as(bob, guests, func() {
			x.is(withFile(p, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, mode, 0, 4096) }), nil, name)
		})
		x.mode(p, 0o777, "after ", name)
		x.ok(unix.Unlink(p))
	}
}

func privCopy(x *env) {
	p := privileged(x, "f", 0o6777)
	src := x.file("src", "other content", 0o644)
	x.as(bob, guests, func() {
		x.ok(withFile(src, unix.O_RDONLY, func(from int) error {
			return withFile(p, unix.O_WRONLY, func(to int) error {
				_, err := unix.CopyFileRange(from, nil, to, nil, 5, 0)
				return err
			})
		}))
	})
	x.content(p, "othernt")
	x.mode(p, 0o777)
}
