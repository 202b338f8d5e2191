package posix

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func nodeChecks() []check {
	return []check{
		{"mknod", false, mknod},
		{"mknod device", true, mknodDevice},
		{"fifo", false, fifo},
		{"socket", false, socket},
	}
}

func pathChecks() []check {
	return []check{
		{"path too long", false, pathTooLong},
		{"path loop", false, pathLoop},
		{"path not a directory", false, pathNotDir},
		{"path search permission", true, pathSearch},
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func mknod(x *env) {
	for name, kind := range map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK, "file": unix.S_IFREG} {
		p := x.p(name)
		x.changes(x.dir, "cm", "mknod", func() { x.ok(unix.Mknod(p, kind|0o640, 0)) })
		st := x.stat(p)
		eq(x, oct(st.Mode), oct(kind|0o640))
		eq(x, st.Nlink, 1)
		x.is(unix.Mknod(p, kind|0o600, 0), unix.EEXIST)
		x.ok(unix.Chmod(p, 0o600))
		x.mode(p, 0o600)
	}
	x.ok(unix.Mknod(x.p("plain"), 0o600, 0)) // no type is a regular file
	eq(x, oct(x.stat(x.p("plain")).Mode), oct(unix.S_IFREG|0o600))
	x.is(unix.Mknod(x.p("d"), unix.S_IFDIR|0o755, 0), unix.EPERM, "a directory")
	x.is(unix.Mknod(x.p("l"), unix.S_IFLNK|0o777, 0), unix.EINVAL, "a symlink")
	x.is(unix.Mknod(x.p("no", "f"), unix.S_IFIFO|0o600, 0), unix.ENOENT)
	x.is(unix.Mknod(x.p("file", "f"), unix.S_IFIFO|0o600, 0), unix.ENOTDIR)
	x.is(unix.Mknod(x.p(strings.Repeat("n", 256)), unix.S_IFIFO|0o600, 0), unix.ENAMETOOLONG)
}

func mknodDevice(x *env) {
	c, b := x.p("c"), x.p("b")
	x.ok(unix.Mknod(c, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	x.ok(unix.Mknod(b, unix.S_IFBLK|0o600, int(unix.Mkdev(4095, 1048575))))
	eq(x, x.stat(c).Rdev, unix.Mkdev(1, 3))
	eq(x, x.stat(b).Rdev, unix.Mkdev(4095, 1048575), "the largest device number")
	eq(x, oct(x.stat(c).Mode), oct(unix.S_IFCHR|0o600))
	eq(x, oct(x.stat(b).Mode), oct(unix.S_IFBLK|0o600))
	x.as(alice, staff, func() {
		x.is(unix.Mknod(x.p("mine"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.EPERM, "a device by a user")
		x.ok(unix.Mknod(x.p("pipe"), unix.S_IFIFO|0o600, 0))
		eq(x, x.stat(x.p("pipe")).Uid, alice)
		eq(x, x.stat(x.p("pipe")).Gid, staff)
	})
}

func fifo(x *env) {
	p := x.p("p")
	x.ok(unix.Mkfifo(p, 0o600))
	x.is(unix.Mkfifo(p, 0o600), unix.EEXIST)
	x.is(tryOpen(p, unix.O_WRONLY|unix.O_NONBLOCK, 0), unix.ENXIO, "no reader")
	r := x.open(p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	defer unix.Close(r)
	w := x.open(p, unix.O_WRONLY, 0)
	_, err := unix.Write(w, []byte("through the pipe"))
	x.ok(err)
	buf := make([]byte, 32)
	n, err := unix.Read(r, buf)
	x.ok(err)
	eq(x, string(buf[:n]), "through the pipe")
	x.ok(unix.Close(w))
	eq(x, x.stat(p).Size, 0)
	_, err = unix.Seek(r, 0, unix.SEEK_SET)
	x.is(err, unix.ESPIPE)
	x.is(unix.Truncate(p, 0), unix.EINVAL)
}

func socket(x *env) {
	// The address of a socket has room for 108 bytes: by way of the descriptor.
	d := x.open(x.dir, unix.O_PATH, 0)
	defer unix.Close(d)
	addr := &unix.SockaddrUnix{Name: "/proc/self/fd/" + itoa(d) + "/s"}
	server, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	x.ok(err)
	x.ok(unix.Bind(server, addr))
	eq(x, oct(x.stat(x.p("s")).Mode&unix.S_IFMT), oct(unix.S_IFSOCK))
	x.is(tryOpen(x.p("s"), unix.O_RDWR, 0), unix.ENXIO)
	x.ok(unix.Listen(server, 1))
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	x.ok(err)
	x.ok(unix.Connect(client, addr))
	x.ok(unix.Close(client))
	x.ok(unix.Close(server))
	again, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	x.ok(err)
	defer unix.Close(again)
	x.is(unix.Bind(again, addr), unix.EADDRINUSE)
	x.is(unix.Connect(again, addr), unix.ECONNREFUSED)
}

func pathTooLong(x *env) {
	longest, over := strings.Repeat("n", 255), strings.Repeat("n", 256)
	x.file(longest, "x", 0o600)
	x.content(x.p(longest), "x")
	x.mkdir(strings.Repeat("d", 255), 0o755)
	var st unix.Stat_t
	for name, do := range map[string]func(p string) error{
		"open": func(p string) error { return tryOpen(p, unix.O_RDONLY, 0) }, "stat": func(p string) error { return unix.Stat(p, &st) },
		"creat":  func(p string) error { return tryOpen(p, unix.O_CREAT|unix.O_WRONLY, 0o600) },
		"chmod":  func(p string) error { return unix.Chmod(p, 0) },
		"unlink": unix.Unlink, "rmdir": unix.Rmdir, "access": func(p string) error { return unix.Access(p, unix.F_OK) },
	} {
		x.is(do(x.p(over)), unix.ENAMETOOLONG, name, " of 256 bytes")
		x.is(do(x.p(over, "f")), unix.ENAMETOOLONG, name, " below 256 bytes")
		x.is(do("/"+strings.Repeat("x/", 2048)+"f"), unix.ENAMETOOLONG, name, " of a path of 4097 bytes")
	}
	// Multi-byte characters count as bytes.
	x.is(tryOpen(x.p(strings.Repeat("ü", 128)), unix.O_CREAT|unix.O_WRONLY, 0o600), unix.ENAMETOOLONG)
	x.ok(tryOpen(x.p(strings.Repeat("ü", 127)+"u"), unix.O_CREAT|unix.O_WRONLY, 0o600))
}

func pathLoop(x *env) {
	x.ok(unix.Symlink("b", x.p("a")))
	x.ok(unix.Symlink("a", x.p("b")))
	x.ok(unix.Symlink("self", x.p("self")))
	x.file("f", "", 0o600)
	var st unix.Stat_t
	for name, do := range map[string]func(p string) error{
		"open": func(p string) error { return tryOpen(p, unix.O_RDONLY, 0) }, "stat": func(p string) error { return unix.Stat(p, &st) },
		"creat": func(p string) error { return tryOpen(p, unix.O_CREAT|unix.O_WRONLY, 0o600) }, "chmod": func(p string) error { return unix.Chmod(p, 0) },
		"chown": func(p string) error { return unix.Chown(p, -1, -1) }, "truncate": func(p string) error { return unix.Truncate(p, 0) },
		"access": func(p string) error { return unix.Access(p, unix.F_OK) },
	} {
		x.is(do(x.p("a")), unix.ELOOP, name)
		x.is(do(x.p("self")), unix.ELOOP, name)
	}
	for name, do := range map[string]func(p string) error{
		"unlink": unix.Unlink, "rmdir": unix.Rmdir, "mkdir": func(p string) error { return unix.Mkdir(p, 0o755) },
		"symlink": func(p string) error { return unix.Symlink("t", p) }, "link": func(p string) error { return unix.Link(x.p("f"), p) },
		"rename": func(p string) error { return unix.Rename(x.p("f"), p) }, "mkfifo": func(p string) error { return unix.Mkfifo(p, 0o600) },
	} {
		x.is(do(x.p("a", "x")), unix.ELOOP, name, " below a loop")
	}
	// 40 links in a row are followed, 41 are not.
	last := "f"
	for i := range 41 {
		name := "chain" + itoa(i)
		x.ok(unix.Symlink(last, x.p(name)))
		last = name
	}
	x.ok(unix.Stat(x.p("chain39"), &st))
	x.is(unix.Stat(x.p("chain40"), &st), unix.ELOOP, "41 links")
}

func pathNotDir(x *env) {
	f := x.file("f", "", 0o600)
	var st unix.Stat_t
	for name, do := range map[string]func(p string) error{
		"open": func(p string) error { return tryOpen(p, unix.O_RDONLY, 0) }, "stat": func(p string) error { return unix.Stat(p, &st) },
		"chmod": func(p string) error { return unix.Chmod(p, 0) }, "chown": func(p string) error { return unix.Chown(p, -1, -1) },
		"truncate": func(p string) error { return unix.Truncate(p, 0) }, "unlink": unix.Unlink, "rmdir": unix.Rmdir,
		"mkdir": func(p string) error { return unix.Mkdir(p, 0o755) },
	} {
		x.is(do(f+"/x"), unix.ENOTDIR, name)
		x.is(do(f+"/x/y"), unix.ENOTDIR, name)
		if name != "mkdir" {
			x.is(do(x.p("no")), unix.ENOENT, name)
		}
		x.is(do(""), unix.ENOENT, name, " of the empty path")
	}
	x.is(unix.Stat(f+"/", &st), unix.ENOTDIR)
	x.is(unix.Stat(f+"/.", &st), unix.ENOTDIR)
}

func pathSearch(x *env) {
	x.mkdir("open", 0o777)
	d := x.mkdir("d", 0o777)
	x.ok(os.WriteFile(d+"/f", []byte("x"), 0o666))
	x.ok(unix.Mkdir(d+"/e", 0o777))
	x.ok(unix.Chmod(d+"/f", 0o666))
	x.ok(unix.Chmod(d, 0o666)) // readable, not to be searched
	x.as(alice, staff, func() {
		var st unix.Stat_t
		f := d + "/f"
		x.is(tryOpen(f, unix.O_RDONLY, 0), unix.EACCES)
		x.is(unix.Stat(f, &st), unix.EACCES)
		x.is(tryOpen(d+"/new", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.EACCES)
		x.is(unix.Mkdir(d+"/new", 0o755), unix.EACCES)
		x.is(unix.Unlink(f), unix.EACCES)
		x.is(unix.Rmdir(d+"/e"), unix.EACCES)
		x.is(unix.Rename(f, x.p("open", "f")), unix.EACCES)
		x.is(unix.Link(f, x.p("open", "f")), unix.EACCES)
		x.is(unix.Symlink("x", d+"/new"), unix.EACCES)
		x.is(unix.Mkfifo(d+"/new", 0o600), unix.EACCES)
		x.is(unix.Chmod(f, 0o600), unix.EACCES)
		x.is(unix.Truncate(f, 0), unix.EACCES)
		x.is(unix.Chdir(d), unix.EACCES)
		_, err := os.Readlink(f)
		x.is(err, unix.EACCES)
		names, err := os.Open(d)
		x.ok(err)
		defer names.Close()
		list, err := names.Readdirnames(-1)
		x.ok(err)
		eq(x, len(list), 2, "a readable directory is listed")
	})
	x.ok(unix.Chmod(d, 0o311)) // to be searched and written, not to be listed
	x.as(alice, staff, func() {
		x.ok(tryOpen(d+"/f", unix.O_RDONLY, 0))
		x.is(tryOpen(d, unix.O_RDONLY, 0), unix.EACCES)
		x.is(unix.Unlink(d+"/f"), unix.EACCES, "no write permission")
		x.is(tryOpen(d+"/new", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.EACCES)
	})
}
