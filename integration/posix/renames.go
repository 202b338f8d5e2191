package posix

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func renameChecks() []check {
	return []check{
		{"rename file", false, renameFile},
		{"rename directory", false, renameDir},
		{"rename same file", false, renameSame},
		{"rename times", false, renameTimes},
		{"rename times of what was moved", false, renameTimesMoved},
		{"rename noreplace", false, renameNoReplace},
		{"rename exchange", false, renameExchange},
		{"rename exchange across directories", false, renameExchangeAcross},
		{"rename exchange of directories", false, renameExchangeDirs},
		{"rename open", false, renameOpen},
	}
}

func renameat2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

func renameFile(x *env) {
	a, b := x.file("a", "A", 0o600), x.file("b", "B", 0o644)
	ino := x.stat(a).Ino
	x.ok(unix.Rename(a, b))
	x.content(b, "A")
	x.mode(b, 0o600)
	eq(x, x.stat(b).Ino, ino)
	x.exists(a, false)
	x.is(unix.Rename(a, b), unix.ENOENT)
	x.is(unix.Rename(b, x.p("no", "c")), unix.ENOENT)
	x.is(unix.Rename(b, x.p("b", "c")), unix.ENOTDIR)
	x.is(unix.Rename(x.p("b", "c"), a), unix.ENOTDIR)
	x.is(unix.Rename("", a), unix.ENOENT)
	d := x.mkdir("d", 0o755)
	x.is(unix.Rename(b, d), unix.EISDIR, "a file over a directory")
	x.is(unix.Rename(b, x.p("c")+"/"), unix.ENOTDIR, "a file to a name with a slash")
	x.ok(unix.Rename(b, d+"/b"))
	x.content(d+"/b", "A")
	x.is(unix.Rename(d+"/b", x.p(strings.Repeat("n", 256))), unix.ENAMETOOLONG)
	x.is(unix.Rename(x.p(strings.Repeat("n", 256)), x.p("n")), unix.ENAMETOOLONG)
	if x.Elsewhere != "" {
		x.is(unix.Rename(d+"/b", filepath.Join(x.Elsewhere, "posix-rename")), unix.EXDEV)
	}
	x.ok(unix.Symlink("nowhere", x.p("l")))
	x.ok(unix.Rename(x.p("l"), x.p("m"))) // the link itself
	x.ok(unix.Rename(d+"/b", x.p("m")))   // and over it
	x.content(x.p("m"), "A")
	x.ok(unix.Mkfifo(x.p("p"), 0o600))
	x.ok(unix.Rename(x.p("p"), x.p("m")))
	eq(x, oct(x.stat(x.p("m")).Mode&unix.S_IFMT), oct(unix.S_IFIFO))
}

func renameDir(x *env) {
	a, b := x.mkdir("a", 0o755), x.mkdir("b", 0o711)
	x.ok(unix.Mkdir(a+"/x", 0o755))
	x.ok(os.WriteFile(a+"/x/f", []byte("deep"), 0o600))
	ino := x.stat(a).Ino
	x.ok(unix.Rename(a, b)) // over an empty one
	eq(x, x.stat(b).Ino, ino)
	x.content(b+"/x/f", "deep")
	x.ok(unix.Mkdir(a, 0o755))
	x.ok(unix.Mkdir(a+"/y", 0o755))
	if err := unix.Rename(a, b); err != unix.ENOTEMPTY && err != unix.EEXIST {
		x.Errorf("over a directory that is not empty: %v", err)
	}
	x.is(unix.Rename(b, b+"/x/below"), unix.EINVAL, "below itself")
	x.is(unix.Rename(b, b+"/below"), unix.EINVAL, "into itself")
	if err := unix.Rename(b+"/x", b); err != unix.ENOTEMPTY && err != unix.EEXIST {
		x.Errorf("over its own parent: %v", err)
	}
	f := x.file("f", "", 0o600)
	x.is(unix.Rename(b, f), unix.ENOTDIR, "a directory over a file")
	x.is(unix.Rename(b+"/.", x.p("c")), unix.EBUSY)
	x.is(unix.Rename(b+"/..", x.p("c")), unix.EBUSY)
	x.ok(unix.Rename(b+"/x", a+"/x")) // to another parent
	x.content(a+"/x/f", "deep")
	eq(x, x.stat(a+"/x/..").Ino, x.stat(a).Ino, "..")
	x.ok(unix.Rename(a, x.p("c")+"/")) // a slash is right for a directory
	x.content(x.p("c", "x", "f"), "deep")
	x.ok(unix.Rename(x.p("c"), x.p("c"))) // onto itself
	x.exists(x.p("c", "x"), true)
}

func renameSame(x *env) {
	f := x.file("f", "content", 0o600)
	x.ok(unix.Rename(f, f))
	x.ok(unix.Link(f, x.p("g")))
	x.ok(unix.Rename(f, x.p("g"))) // two names of one file: nothing happens
	x.exists(f, true)
	x.exists(x.p("g"), true)
	eq(x, x.stat(f).Nlink, 2)
	x.mkdir("d", 0o755)
	x.ok(unix.Link(f, x.p("d", "h")))
	x.ok(unix.Rename(f, x.p("d", "h")))
	x.exists(f, true)
	eq(x, x.stat(f).Nlink, 3)
}

func renameTimes(x *env) {
	from, to := x.mkdir("from", 0o755), x.mkdir("to", 0o755)
	x.ok(os.WriteFile(from+"/f", nil, 0o600))
	x.changes(from, "cm", "rename out of it", func() {
		x.changes(to, "cm", "rename into it", func() { x.ok(unix.Rename(from+"/f", to+"/f")) })
	})
	x.ok(os.WriteFile(to+"/e", nil, 0o600))
	before := x.stamps(to + "/e")
	x.nextTick(before.ctime)
	x.ok(unix.Rename(to+"/e", to+"/g"))
	after := x.stamps(to + "/g")
	eq(x, after.mtime, before.mtime, "mtime of what was renamed")
	eq(x, after.ctime > before.ctime, true, "ctime of what was renamed rose")
	x.ok(os.WriteFile(to+"/h", nil, 0o600))
	x.ok(unix.Link(to+"/h", to+"/second"))
	x.changes(to+"/second", "c", "one of its names is replaced", func() { x.ok(unix.Rename(to+"/g", to+"/h")) })
	eq(x, x.stat(to+"/second").Nlink, 1)
}

func renameTimesMoved(x *env) {
	from, to := x.mkdir("from", 0o755), x.mkdir("to", 0o755)
	x.ok(os.WriteFile(from+"/f", nil, 0o600))
	x.ok(unix.Rename(from+"/f", to+"/f"))
	before := x.stamps(to + "/f")
	x.nextTick(before.ctime)
	x.ok(unix.Rename(to+"/f", to+"/g"))
	eq(x, x.stamps(to+"/g").ctime > before.ctime, true, "ctime of what was made in another directory rose")
	x.ok(unix.Mkdir(from+"/d", 0o755))
	was := x.stamps(from + "/d")
	x.nextTick(was.ctime)
	x.ok(unix.Rename(from+"/d", to+"/d"))
	eq(x, x.stamps(to+"/d").ctime > was.ctime, true, "ctime of a directory that was renamed rose")
}

func renameNoReplace(x *env) {
	a, b := x.file("a", "A", 0o600), x.file("b", "B", 0o600)
	x.is(renameat2(a, b, unix.RENAME_NOREPLACE), unix.EEXIST)
	x.content(b, "B")
	x.ok(renameat2(a, x.p("c"), unix.RENAME_NOREPLACE))
	x.content(x.p("c"), "A")
	d := x.mkdir("d", 0o755)
	x.mkdir("e", 0o755)
	x.is(renameat2(d, x.p("e"), unix.RENAME_NOREPLACE), unix.EEXIST)
	x.is(renameat2(d, b, unix.RENAME_NOREPLACE), unix.EEXIST)
	x.is(renameat2(b, d, unix.RENAME_NOREPLACE), unix.EEXIST)
	x.ok(renameat2(d, x.p("g"), unix.RENAME_NOREPLACE))
	x.is(renameat2(x.p("no"), x.p("h"), unix.RENAME_NOREPLACE), unix.ENOENT)
	x.is(renameat2(b, x.p("h"), unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE), unix.EINVAL)
	x.is(renameat2(b, x.p("h"), 1<<20), unix.EINVAL)
}

func renameExchange(x *env) {
	a, b := x.file("a", "A", 0o600), x.file("b", "B", 0o644)
	x.changes(x.dir, "cm", "exchange", func() { x.ok(renameat2(a, b, unix.RENAME_EXCHANGE)) })
	x.content(a, "B")
	x.content(b, "A")
	x.mode(b, 0o600)
	x.is(renameat2(a, x.p("no"), unix.RENAME_EXCHANGE), unix.ENOENT)
	x.is(renameat2(x.p("no"), a, unix.RENAME_EXCHANGE), unix.ENOENT)
	x.ok(unix.Symlink("t", x.p("l")))
	x.ok(renameat2(x.p("l"), b, unix.RENAME_EXCHANGE))
	x.content(x.p("l"), "A")
	x.ok(unix.Link(x.p("l"), x.p("twin")))
	x.ok(renameat2(x.p("l"), x.p("twin"), unix.RENAME_EXCHANGE))
	eq(x, x.stat(x.p("l")).Nlink, 2, "two names of one file exchanged")
}

func renameExchangeAcross(x *env) {
	a, d := x.file("a", "B", 0o600), x.mkdir("d", 0o755)
	x.ok(os.WriteFile(d+"/f", []byte("F"), 0o600))
	x.changes(d, "cm", "exchange between directories", func() {
		x.changes(x.dir, "cm", "exchange between directories", func() { x.ok(renameat2(a, d+"/f", unix.RENAME_EXCHANGE)) })
	})
	x.content(a, "F")
	x.content(d+"/f", "B")
}

func renameExchangeDirs(x *env) {
	a, b := x.mkdir("a", 0o755), x.mkdir("b", 0o700)
	x.ok(os.WriteFile(a+"/f", []byte("of a"), 0o600))
	x.ok(unix.Mkdir(b+"/sub", 0o755))
	x.ok(renameat2(a, b, unix.RENAME_EXCHANGE))
	x.content(b+"/f", "of a")
	x.exists(a+"/sub", true)
	x.mode(a, 0o700)
	// A directory and a file, at different depths.
	f := x.file("f", "file", 0o600)
	nlink := x.stat(x.dir).Nlink
	x.ok(renameat2(f, a+"/sub", unix.RENAME_EXCHANGE))
	x.content(a+"/sub", "file")
	eq(x, oct(x.stat(f).Mode&unix.S_IFMT), oct(unix.S_IFDIR))
	eq(x, x.stat(f+"/..").Ino, x.stat(x.dir).Ino, "..")
	eq(x, x.stat(x.dir).Nlink, nlink+1, "nlink of the parent that got a directory")
	eq(x, x.stat(a).Nlink, 2, "nlink of the parent that lost it")
	x.ok(renameat2(b, f, unix.RENAME_EXCHANGE))
	x.content(f+"/f", "of a")
	x.ok(unix.Mkdir(b+"/below", 0o755))
	x.is(renameat2(b, b+"/below", unix.RENAME_EXCHANGE), unix.EINVAL, "with what is below it")
	x.is(renameat2(b+"/below", b, unix.RENAME_EXCHANGE), unix.EINVAL, "with what is above it")
	x.ok(renameat2(b+"/below", f, unix.RENAME_EXCHANGE)) // of two parents
	x.content(b+"/below/f", "of a")
	eq(x, x.stat(b+"/below/..").Ino, x.stat(b).Ino, "..")
}

func renameOpen(x *env) {
	a, b := x.file("a", "old", 0o600), x.file("b", "new", 0o600)
	fd := x.open(b, unix.O_RDONLY, 0)
	defer unix.Close(fd)
	w := x.open(a, unix.O_WRONLY|unix.O_APPEND, 0)
	x.ok(unix.Rename(a, b))
	_, err := unix.Write(w, []byte("er"))
	x.ok(err)
	x.ok(unix.Close(w))
	x.content(b, "older")
	buf := make([]byte, 8)
	n, err := unix.Read(fd, buf)
	x.ok(err)
	eq(x, string(buf[:n]), "new", "a reader of the file that was replaced")
	eq(x, x.fstat(fd).Nlink, 0)
}
