package posix

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func xattrChecks() []check {
	return []check{
		{"xattr", false, xattr},
		{"xattr create and replace", false, xattrFlags},
		{"xattr sizes", false, xattrSizes},
		{"xattr list", false, xattrList},
		{"xattr of descriptors and links", true, xattrOthers},
		{"xattr permissions", true, xattrPermissions},
		{"xattr trusted", true, xattrTrusted},
		{"xattr security", true, xattrSecurity},
		{"xattr capability", true, xattrCapability},
	}
}

// value reads an attribute.
func (x *env) value(p, name string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(p, name, buf)
	return string(buf[:max(n, 0)]), err
}

func xattr(x *env) {
	f := x.file("f", "", 0o600)
	_, err := x.value(f, "user.a")
	x.is(err, unix.ENODATA)
	x.ok(unix.Setxattr(f, "user.a", []byte("one\x00two"), 0))
	got, err := x.value(f, "user.a")
	x.ok(err)
	eq(x, got, "one\x00two")
	x.ok(unix.Setxattr(f, "user.a", []byte("shorter"), 0))
	got, _ = x.value(f, "user.a")
	eq(x, got, "shorter")
	x.ok(unix.Setxattr(f, "user.empty", nil, 0))
	got, err = x.value(f, "user.empty")
	x.is(err, nil, "an empty value")
	eq(x, got, "")
	x.ok(unix.Removexattr(f, "user.a"))
	_, err = x.value(f, "user.a")
	x.is(err, unix.ENODATA)
	x.is(unix.Removexattr(f, "user.a"), unix.ENODATA)
	x.is(unix.Setxattr(x.p("no"), "user.a", nil, 0), unix.ENOENT)
	x.is(unix.Setxattr(f, "nonsense.a", nil, 0), unix.EOPNOTSUPP)
	x.is(unix.Setxattr(f, "user", nil, 0), unix.EOPNOTSUPP)
	x.is(unix.Setxattr(f, "user.", nil, 0), unix.EINVAL)
	x.is(unix.Setxattr(f, "", nil, 0), unix.ERANGE)
	x.is(unix.Setxattr(f, "system.nonsense", []byte("x"), 0), unix.EOPNOTSUPP)
	d := x.mkdir("d", 0o755)
	x.ok(unix.Setxattr(d, "user.a", []byte("of a directory"), 0))
	got, _ = x.value(d, "user.a")
	eq(x, got, "of a directory")
	x.ok(unix.Rename(f, x.p("g")))
	x.ok(unix.Link(x.p("g"), f))
	_, err = x.value(f, "user.empty")
	x.ok(err) // they belong to the inode
}

func xattrFlags(x *env) {
	f := x.file("f", "", 0o600)
	x.is(unix.Setxattr(f, "user.a", []byte("1"), unix.XATTR_REPLACE), unix.ENODATA)
	x.ok(unix.Setxattr(f, "user.a", []byte("1"), unix.XATTR_CREATE))
	x.is(unix.Setxattr(f, "user.a", []byte("2"), unix.XATTR_CREATE), unix.EEXIST)
	x.ok(unix.Setxattr(f, "user.a", []byte("3"), unix.XATTR_REPLACE))
	got, _ := x.value(f, "user.a")
	eq(x, got, "3")
	x.is(unix.Setxattr(f, "user.a", []byte("4"), 4), unix.EINVAL)
}

func xattrSizes(x *env) {
	f := x.file("f", "", 0o600)
	value := bytes.Repeat([]byte("v"), 3000) // what ext4 has room for in one block
	name := "user." + strings.Repeat("n", 250)
	x.ok(unix.Setxattr(f, name, value, 0))
	n, err := unix.Getxattr(f, name, nil)
	x.ok(err)
	eq(x, n, 3000, "the size asked for")
	_, err = unix.Getxattr(f, name, make([]byte, 2999))
	x.is(err, unix.ERANGE, "a buffer too small")
	got, err := x.value(f, name)
	x.ok(err)
	eq(x, got, string(value))
	x.is(unix.Setxattr(f, name+"n", nil, 0), unix.ERANGE, "a name of 256 bytes")
	x.is(unix.Setxattr(f, "user.large", make([]byte, 64<<10+1), 0), unix.E2BIG)
	// The whole 64 KiB of Linux, or a word that there is no room.
	err = unix.Setxattr(f, "user.large", make([]byte, 64<<10), 0)
	if err != nil && err != unix.ENOSPC && err != unix.E2BIG {
		x.Errorf("a value of 64 KiB: %v", err)
	}
	for i := 0; err == nil && i < 100; i++ {
		err = unix.Setxattr(f, "user.fill"+itoa(i), make([]byte, 64<<10), 0)
	}
	if err != unix.ENOSPC && err != unix.E2BIG {
		x.Errorf("attributes without end: %v, want ENOSPC", err)
	}
	got, err = x.value(f, name)
	x.ok(err)
	eq(x, got, string(value), "an attribute after another found no room")
}

func xattrList(x *env) {
	f := x.file("f", "", 0o600)
	names := func() []string {
		buf := make([]byte, 4096)
		n, err := unix.Listxattr(f, buf)
		x.ok(err)
		list := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
		slices.Sort(list)
		return list
	}
	eq(x, len(names()), 0)
	for _, n := range []string{"user.b", "user.a", "user.c"} {
		x.ok(unix.Setxattr(f, n, []byte(n), 0))
	}
	eq(x, strings.Join(names(), " "), "user.a user.b user.c")
	n, err := unix.Listxattr(f, nil)
	x.ok(err)
	eq(x, n, 21)
	_, err = unix.Listxattr(f, make([]byte, 20))
	x.is(err, unix.ERANGE)
	x.ok(unix.Removexattr(f, "user.b"))
	eq(x, strings.Join(names(), " "), "user.a user.c")
	_, err = unix.Listxattr(x.p("no"), nil)
	x.is(err, unix.ENOENT)
}

func xattrOthers(x *env) {
	f := x.file("f", "", 0o600)
	fd := x.open(f, unix.O_RDONLY, 0)
	defer unix.Close(fd)
	x.ok(unix.Fsetxattr(fd, "user.a", []byte("by descriptor"), 0))
	got, _ := x.value(f, "user.a")
	eq(x, got, "by descriptor")
	x.ok(unix.Symlink("f", x.p("l")))
	x.is(unix.Lsetxattr(x.p("l"), "user.a", []byte("x"), 0), unix.EPERM, "user.* of a link")
	x.ok(unix.Setxattr(x.p("l"), "user.b", []byte("followed"), 0))
	got, _ = x.value(f, "user.b")
	eq(x, got, "followed")
	x.ok(unix.Mkfifo(x.p("p"), 0o600))
	x.is(unix.Setxattr(x.p("p"), "user.a", []byte("x"), 0), unix.EPERM, "user.* of a fifo")
	x.ok(unix.Setxattr(x.p("p"), "trusted.a", []byte("x"), 0))
	x.ok(unix.Lsetxattr(x.p("l"), "trusted.a", []byte("of the link"), 0))
	got, err := x.value(x.p("l"), "trusted.a")
	x.ok(err)
	eq(x, got, "of the link")
}

func xattrPermissions(x *env) {
	f := x.file("f", "", 0o644)
	x.ok(unix.Setxattr(f, "user.a", []byte("1"), 0))
	x.as(alice, staff, func() {
		got, err := x.value(f, "user.a")
		x.ok(err)
		eq(x, got, "1")
		x.is(unix.Setxattr(f, "user.a", []byte("2"), 0), unix.EACCES)
		x.is(unix.Removexattr(f, "user.a"), unix.EACCES)
	})
	x.ok(unix.Chmod(f, 0o622))
	x.as(alice, staff, func() {
		_, err := x.value(f, "user.a")
		x.is(err, unix.EACCES)
		x.ok(unix.Setxattr(f, "user.a", []byte("2"), 0)) // write permission is enough
	})
	d := x.mkdir("d", 0o777)
	x.ok(unix.Chmod(d, 0o1777))
	x.as(alice, staff, func() {
		x.is(unix.Setxattr(d, "user.a", []byte("1"), 0), unix.EPERM, "user.* of another's sticky directory")
	})
}

func xattrTrusted(x *env) {
	f := x.file("f", "", 0o666)
	x.ok(unix.Setxattr(f, "trusted.a", []byte("secret"), 0))
	got, err := x.value(f, "trusted.a")
	x.ok(err)
	eq(x, got, "secret")
	n, err := unix.Listxattr(f, make([]byte, 100))
	x.ok(err)
	eq(x, n, len("trusted.a")+1, "root's list")
	x.as(alice, staff, func() {
		_, err := x.value(f, "trusted.a")
		x.is(err, unix.ENODATA)
		x.is(unix.Setxattr(f, "trusted.a", []byte("x"), 0), unix.EPERM)
		x.is(unix.Removexattr(f, "trusted.a"), unix.EPERM)
		n, err := unix.Listxattr(f, make([]byte, 100))
		x.ok(err)
		eq(x, n, 0, "a user's list")
	})
	x.ok(unix.Removexattr(f, "trusted.a"))
}

func xattrSecurity(x *env) {
	f := x.file("f", "", 0o666)
	x.ok(unix.Setxattr(f, "security.test", []byte("label"), 0))
	got, err := x.value(f, "security.test")
	x.ok(err)
	eq(x, got, "label")
	x.as(alice, staff, func() {
		got, err := x.value(f, "security.test")
		x.ok(err) // everybody may read them
		eq(x, got, "label")
		x.is(unix.Setxattr(f, "security.test", []byte("x"), 0), unix.EPERM)
		x.is(unix.Removexattr(f, "security.test"), unix.EPERM)
	})
	x.ok(unix.Removexattr(f, "security.test"))
	_, err = x.value(f, "security.test")
	x.is(err, unix.ENODATA)
}

// File capabilities go when the file's content or owner changes, whoever does it.
func xattrCapability(x *env) {
	// struct vfs_cap_data, revision 2, little-endian: cap_net_raw, permitted and effective.
	ping := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	const name = "security.capability"
	for what, do := range map[string]func(p string) error{
		"write": func(p string) error {
			return withFile(p, unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err })
		},
		"truncate": func(p string) error { return unix.Truncate(p, 3) },
		"chown":    func(p string) error { return unix.Chown(p, alice, -1) },
	} {
		f := x.file("f", "content", 0o755)
		x.ok(unix.Setxattr(f, name, ping, 0))
		got, err := x.value(f, name)
		x.ok(err)
		eq(x, got, string(ping))
		x.ok(unix.Chmod(f, 0o711))
		_, err = x.value(f, name)
		x.is(err, nil, "chmod leaves capabilities")
		x.ok(do(f))
		_, err = x.value(f, name)
		x.is(err, unix.ENODATA, "capabilities after ", what)
		x.ok(unix.Unlink(f))
	}
	x.is(unix.Setxattr(x.file("g", "", 0o755), name, []byte("nonsense"), 0), unix.EINVAL)
}
