package posix

import (
	"os"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func dirChecks() []check {
	return []check{
		{"mkdir", false, mkdir},
		{"rmdir", false, rmdir},
		{"directory nlink", false, dirNlink},
		{"directory listing", false, dirListing},
		{"directory removed", false, dirRemoved},
		{"directory setgid", true, dirSetgid},
		{"mount point busy", true, mountPointBusy},
	}
}

// eventually polls until do has no error.
func (x *env) eventually(do func() error) {
	x.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			x.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func mkdir(x *env) {
	d := x.p("d")
	x.changes(x.dir, "cm", "mkdir", func() { x.ok(unix.Mkdir(d, 0o751)) })
	st := x.stat(d)
	eq(x, oct(st.Mode), oct(unix.S_IFDIR|0o751))
	eq(x, st.Uid, uint32(os.Geteuid()))
	x.is(unix.Mkdir(d, 0o755), unix.EEXIST)
	x.file("f", "", 0o600)
	x.is(unix.Mkdir(x.p("f"), 0o755), unix.EEXIST, "a file's name")
	x.is(unix.Mkdir(x.p("f", "d"), 0o755), unix.ENOTDIR)
	x.is(unix.Mkdir(x.p("no", "d"), 0o755), unix.ENOENT)
	x.is(unix.Mkdir(x.dir+"/.", 0o755), unix.EEXIST)
	x.is(unix.Mkdir("", 0o755), unix.ENOENT)
	x.ok(unix.Symlink("nowhere", x.p("l")))
	x.is(unix.Mkdir(x.p("l"), 0o755), unix.EEXIST, "a dangling link's name")
	x.is(unix.Mkdir(x.p(strings.Repeat("n", 256)), 0o755), unix.ENAMETOOLONG)
	x.ok(unix.Mkdir(x.p("sticky"), 0o1777))
	x.mode(x.p("sticky"), 0o1777)
	x.ok(unix.Mkdir(x.p("slash")+"/", 0o755))
}

func rmdir(x *env) {
	d := x.mkdir("d", 0o755)
	x.is(unix.Rmdir(x.p("no")), unix.ENOENT)
	x.file("f", "", 0o600)
	x.is(unix.Rmdir(x.p("f")), unix.ENOTDIR)
	x.is(unix.Rmdir(x.p("f", "d")), unix.ENOTDIR)
	x.ok(os.WriteFile(d+"/f", nil, 0o600))
	x.is(unix.Rmdir(d), unix.ENOTEMPTY)
	x.is(unix.Rmdir(d+"/."), unix.EINVAL)
	x.is(unix.Rmdir(d+"/.."), unix.ENOTEMPTY)
	x.ok(unix.Symlink("d", x.p("l")))
	x.is(unix.Rmdir(x.p("l")), unix.ENOTDIR, "a link to a directory")
	x.is(unix.Rmdir(x.p("l")+"/"), unix.ENOTDIR)
	x.ok(unix.Unlink(d + "/f"))
	x.changes(x.dir, "cm", "rmdir", func() { x.ok(unix.Rmdir(d)) })
	x.is(unix.Rmdir(d), unix.ENOENT)
	x.is(unix.Unlinkat(unix.AT_FDCWD, x.p("f"), unix.AT_REMOVEDIR), unix.ENOTDIR)
}

func dirNlink(x *env) {
	d := x.mkdir("d", 0o755)
	nlink := func(want int, what string) {
		x.Helper()
		eq(x, int(x.stat(d).Nlink), want, "nlink ", what)
	}
	nlink(2, "of an empty directory")
	x.ok(unix.Mkdir(d+"/a", 0o755))
	x.ok(unix.Mkdir(d+"/b", 0o755))
	nlink(4, "with two subdirectories")
	x.ok(os.WriteFile(d+"/f", nil, 0o600))
	nlink(4, "files do not count")
	x.ok(unix.Rename(d+"/a", x.p("a")))
	nlink(3, "one moved away")
	x.ok(unix.Rename(x.p("a"), d+"/c"))
	nlink(4, "and back")
	x.ok(unix.Rename(d+"/b", d+"/c"))
	nlink(3, "one renamed over another")
	x.ok(unix.Rmdir(d + "/c"))
	nlink(2, "all removed")
}

func dirListing(x *env) {
	var want []string
	for i := range 40 {
		name := strings.Repeat("x", 1+i*6) + string(rune('a'+i%26))
		if i%2 == 0 {
			x.mkdir(name, 0o755)
		} else {
			x.file(name, "", 0o600)
		}
		want = append(want, name)
	}
	odd := []string{"with blank", "ünïcödé", "new\nline", "\xff\xfe", "-dash", "...", "*", `back\slash`}
	for _, name := range odd {
		x.file(name, "", 0o600)
	}
	want = append(want, odd...)
	entries, err := os.ReadDir(x.dir)
	x.ok(err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	sort.Strings(want)
	sort.Strings(got)
	eq(x, strings.Join(got, "/"), strings.Join(want, "/"))
	fd := x.open(x.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer unix.Close(fd)
	_, err = unix.ReadDirent(fd, make([]byte, 8))
	x.is(err, unix.EINVAL, "a buffer too small for one entry")
	f := x.open(x.p("-dash"), unix.O_RDONLY, 0)
	defer unix.Close(f)
	_, err = unix.ReadDirent(f, make([]byte, 4096))
	x.is(err, unix.ENOTDIR)
}

// A directory that is open or the working one lives on without its name, empty.
func dirRemoved(x *env) {
	d := x.mkdir("d", 0o755)
	fd := x.open(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer unix.Close(fd)
	x.ok(unix.Rmdir(d))
	eq(x, x.fstat(fd).Nlink, 0, "nlink of a removed directory")
	x.is(unix.Mkdirat(fd, "sub", 0o755), unix.ENOENT)
	_, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_RDWR, 0o600)
	x.is(err, unix.ENOENT)
	x.is(unix.Symlinkat("t", fd, "l"), unix.ENOENT)
	x.ok(unix.Mkdir(d, 0o755)) // the name is free
}

// What is made in a setgid directory has its group, and a directory the bit too.
func dirSetgid(x *env) {
	d := x.mkdir("d", 0o777)
	x.ok(unix.Chown(d, 0, staff))
	x.ok(unix.Chmod(d, 0o2777))
	x.as(alice, guests, func() {
		x.ok(tryOpen(d+"/f", unix.O_CREAT|unix.O_WRONLY, 0o644))
		x.ok(unix.Mkdir(d+"/sub", 0o755))
		x.ok(unix.Mknod(d+"/p", unix.S_IFIFO|0o600, 0))
		x.ok(unix.Symlink("f", d+"/l"))
		x.ok(tryOpen(d+"/exec", unix.O_CREAT|unix.O_WRONLY, 0o2755))
	})
	for _, name := range []string{"f", "sub", "p", "l"} {
		st := x.stat(d + "/" + name)
		eq(x, st.Gid, staff, "the group of ", name)
		eq(x, st.Uid, alice, "the owner of ", name)
	}
	x.mode(d+"/f", 0o644)
	x.mode(d+"/sub", 0o2755, "a directory in a setgid directory")
	x.mode(d+"/exec", 0o755, "setgid for a group that its maker is not in")
}

func mountPointBusy(x *env) {
	if x.MountPoint == "" {
		x.Skip("no mount point was given")
	}
	x.is(unix.Rmdir(x.MountPoint), unix.EBUSY)
	x.is(unix.Rename(x.MountPoint, x.MountPoint+".moved"), unix.EBUSY)
	x.is(unix.Rename(x.MountPoint+"/.", x.p("x")), unix.EBUSY)
}
