package posix

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

func tmpfileChecks() []check {
	return []check{
		{"tmpfile", false, tmpfile},
		{"tmpfile linked", false, tmpfileLinked},
		{"tmpfile exclusive", false, tmpfileExclusive},
		{"tmpfile by a user", true, tmpfileUser},
	}
}

func mapChecks() []check {
	return []check{
		{"mmap shared", false, mmapShared},
		{"mmap private", false, mmapPrivate},
		{"mmap errors", false, mmapErrors},
		{"mmap beyond the end", false, mmapBeyond},
	}
}

func allocChecks() []check {
	return []check{
		{"fallocate", false, fallocate},
		{"fallocate punch hole", false, punchHole},
		{"fallocate zero range", false, zeroRange},
		{"fallocate others", false, fallocateOthers},
		{"seek hole and data", false, seekHole},
	}
}

func copyChecks() []check {
	return []check{
		{"copy_file_range", false, copyFileRange},
		{"ficlone", false, ficlone},
	}
}

func dataChecks() []check {
	return []check{
		{"truncate", false, truncate},
		{"ftruncate", false, ftruncate},
		{"read and write", false, readWrite},
		{"direct", false, direct},
		{"statfs", false, statfs},
		{"sync", false, syncs},
	}
}

func tmpfile(x *env) {
	d := x.mkdir("d", 0o755)
	fd := x.open(d, unix.O_TMPFILE|unix.O_RDWR, 0o640)
	_, err := unix.Write(fd, []byte("nameless"))
	x.ok(err)
	st := x.fstat(fd)
	eq(x, st.Nlink, 0)
	eq(x, st.Size, 8)
	eq(x, oct(st.Mode), oct(unix.S_IFREG|0o640))
	x.ok(unix.Fsync(fd))
	buf := make([]byte, 8)
	_, err = unix.Pread(fd, buf, 0)
	x.ok(err)
	eq(x, string(buf), "nameless")
	x.ok(unix.Fchmod(fd, 0o600))
	x.ok(unix.Ftruncate(fd, 4))
	eq(x, x.fstat(fd).Size, 4)
	names, err := os.ReadDir(d)
	x.ok(err)
	eq(x, len(names), 0, "entries of the directory")
	x.ok(unix.Rmdir(d)) // it is in no directory
	x.ok(unix.Close(fd))
	x.is(tryOpen(x.dir, unix.O_TMPFILE|unix.O_RDONLY, 0o600), unix.EINVAL, "to read only")
	x.is(tryOpen(x.p("no"), unix.O_TMPFILE|unix.O_RDWR, 0o600), unix.ENOENT)
	x.file("f", "", 0o600)
	x.is(tryOpen(x.p("f"), unix.O_TMPFILE|unix.O_RDWR, 0o600), unix.ENOTDIR)
}

func tmpfileLinked(x *env) {
	fd := x.open(x.dir, unix.O_TMPFILE|unix.O_WRONLY, 0o644)
	_, err := unix.Write(fd, []byte("whole "))
	x.ok(err)
	self := "/proc/self/fd/" + itoa(fd)
	x.changes(x.dir, "cm", "linkat of a nameless file", func() {
		x.ok(unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, x.p("f"), unix.AT_SYMLINK_FOLLOW))
	})
	eq(x, x.stat(x.p("f")).Nlink, 1)
	x.content(x.p("f"), "whole ")
	eq(x, x.stat(x.p("f")).Ino, x.fstat(fd).Ino)
	_, err = unix.Write(fd, []byte("and more"))
	x.ok(err)
	x.is(unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, x.p("f"), unix.AT_SYMLINK_FOLLOW), unix.EEXIST)
	x.mkdir("d", 0o755)
	x.ok(unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, x.p("d", "g"), unix.AT_SYMLINK_FOLLOW))
	x.ok(unix.Close(fd))
	x.content(x.p("f"), "whole and more")
	x.content(x.p("d", "g"), "whole and more")
	eq(x, x.stat(x.p("f")).Nlink, 2)
	// Straight into another directory than its own.
	fd = x.open(x.p("d"), unix.O_TMPFILE|unix.O_WRONLY, 0o644)
	_, err = unix.Write(fd, []byte("moved"))
	x.ok(err)
	x.ok(unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+itoa(fd), unix.AT_FDCWD, x.p("h"), unix.AT_SYMLINK_FOLLOW))
	x.ok(unix.Close(fd))
	x.content(x.p("h"), "moved")
}

func tmpfileExclusive(x *env) {
	fd := x.open(x.dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_EXCL, 0o644)
	defer unix.Close(fd)
	x.is(unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+itoa(fd), unix.AT_FDCWD, x.p("f"), unix.AT_SYMLINK_FOLLOW), unix.ENOENT)
}

func tmpfileUser(x *env) {
	d := x.mkdir("d", 0o755)
	x.as(alice, staff, func() {
		x.is(tryOpen(d, unix.O_TMPFILE|unix.O_RDWR, 0o600), unix.EACCES)
		unix.Umask(0o027)
		fd := x.open(x.dir, unix.O_TMPFILE|unix.O_RDWR, 0o666)
		st := x.fstat(fd)
		eq(x, st.Uid, alice)
		eq(x, st.Gid, staff)
		eq(x, oct(st.Mode), oct(unix.S_IFREG|0o640))
		x.ok(unix.Close(fd))
	})
}

func mmap(x *env, fd, length, prot, flags int) []byte {
	x.Helper()
	b, err := unix.Mmap(fd, 0, length, prot, flags)
	x.ok(err)
	return b
}

func mmapShared(x *env) {
	const size = 3*4096 + 100
	f := x.file("f", string(bytes.Repeat([]byte("a"), size)), 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	b := mmap(x, fd, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	copy(b[4090:], "mapped")
	buf := make([]byte, 6)
	_, err := unix.Pread(fd, buf, 4090)
	x.ok(err)
	eq(x, string(buf), "mapped", "read of what was stored")
	_, err = unix.Pwrite(fd, []byte("written"), 8200)
	x.ok(err)
	eq(x, string(b[8200:8207]), "written", "the mapping after a write")
	again := mmap(x, fd, size, unix.PROT_READ, unix.MAP_SHARED)
	eq(x, string(again[4090:4096]), "mapped", "another mapping")
	x.ok(unix.Msync(b, unix.MS_SYNC)) // so that the next store is a new one
	before := x.stamps(f).mtime
	x.nextTick(before)
	b[0] = 'Z'
	x.ok(unix.Msync(b, unix.MS_SYNC))
	eq(x, x.stamps(f).mtime > before, true, "mtime rose by msync")
	x.ok(unix.Close(fd)) // the mapping goes on
	b[size-1] = 'E'
	x.ok(unix.Msync(b, unix.MS_SYNC))
	x.ok(unix.Munmap(b))
	x.ok(unix.Munmap(again))
	got, err := os.ReadFile(f)
	x.ok(err)
	eq(x, len(got), size, "the size after a mapping of part of a page")
	eq(x, string([]byte{got[0], got[size-1]})+string(got[4090:4096])+string(got[8200:8207]), "ZEmappedwritten")
}

func mmapPrivate(x *env) {
	f := x.file("f", "private content", 0o400)
	fd := x.open(f, unix.O_RDONLY, 0)
	b := mmap(x, fd, 15, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	copy(b, "PRIVATE")
	eq(x, string(b), "PRIVATE content")
	x.ok(unix.Close(fd))
	x.ok(unix.Munmap(b))
	x.content(f, "private content")
}

func mmapErrors(x *env) {
	f := x.file("f", "content", 0o600)
	r, w := x.open(f, unix.O_RDONLY, 0), x.open(f, unix.O_WRONLY, 0)
	defer unix.Close(r)
	defer unix.Close(w)
	_, err := unix.Mmap(r, 0, 7, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	x.is(err, unix.EACCES, "a writable shared mapping of a reader")
	_, err = unix.Mmap(w, 0, 7, unix.PROT_READ, unix.MAP_SHARED)
	x.is(err, unix.EACCES, "a mapping of a writer")
	_, err = unix.Mmap(r, 1, 7, unix.PROT_READ, unix.MAP_SHARED)
	x.is(err, unix.EINVAL, "an offset inside a page")
	d := x.open(x.dir, unix.O_RDONLY, 0)
	defer unix.Close(d)
	_, err = unix.Mmap(d, 0, 7, unix.PROT_READ, unix.MAP_SHARED)
	x.is(err, unix.ENODEV, "a directory")
}

// What is stored behind the end of the file in its last page is not the file's.
func mmapBeyond(x *env) {
	f := x.file("f", "short", 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	defer unix.Close(fd)
	b := mmap(x, fd, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	eq(x, b[4095], 0, "behind the end of the file")
	copy(b[100:], "lost")
	x.ok(unix.Msync(b, unix.MS_SYNC))
	eq(x, x.stat(f).Size, 5)
	x.ok(unix.Munmap(b))
	x.content(f, "short")
	// A truncated mapping reads zeros where the file grew again.
	x.ok(os.WriteFile(f, bytes.Repeat([]byte("x"), 4096), 0))
	b = mmap(x, fd, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	x.ok(unix.Ftruncate(fd, 10))
	x.ok(unix.Ftruncate(fd, 4096))
	eq(x, string(b[8:12]), "xx\x00\x00")
	x.ok(unix.Munmap(b))
}

func fallocate(x *env) {
	f := x.file("f", "content", 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	x.ok(unix.Fallocate(fd, 0, 0, 3))
	eq(x, x.stat(f).Size, 7, "the size after an allocation inside")
	x.ok(unix.Fallocate(fd, 0, 5, 100))
	eq(x, x.stat(f).Size, 105)
	x.content(f, "content"+string(make([]byte, 98)))
	x.ok(unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 10000))
	eq(x, x.stat(f).Size, 105, "KEEP_SIZE")
	_, err := unix.Pwrite(fd, []byte("more"), 105)
	x.ok(err)
	x.ok(unix.Fallocate(fd, 0, 1<<20, 1)) // beyond what is written and not flushed
	eq(x, x.fstat(fd).Size, 1<<20+1)
	x.ok(unix.Close(fd))
	got, err := os.ReadFile(f)
	x.ok(err)
	eq(x, string(got[:7])+string(got[105:109]), "contentmore")
	eq(x, len(got), 1<<20+1)
	x.is(withFile(f, unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, 0, -1, 10) }), unix.EINVAL)
	x.is(withFile(f, unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, 0, 0, 0) }), unix.EINVAL)
	x.is(withFile(f, unix.O_RDONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 10) }), unix.EBADF)
	x.is(withFile(f, unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, 0, 1<<62, 1<<62) }), unix.EFBIG)
	x.ok(unix.Mkfifo(x.p("p"), 0o600))
	x.is(withFile(x.p("p"), unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, 0, 0, 10) }), unix.ESPIPE)
}

const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE

func punchHole(x *env) {
	const size = 64 << 10
	f := x.file("f", string(bytes.Repeat([]byte("x"), size)), 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	x.ok(unix.Fsync(fd))
	x.ok(unix.Fallocate(fd, punch, 100, 20000))
	want := bytes.Repeat([]byte("x"), size)
	clear(want[100:20100])
	x.content(f, string(want))
	x.ok(unix.Fallocate(fd, punch, size-10, 1<<20)) // over the end
	clear(want[size-10:])
	x.content(f, string(want))
	x.ok(unix.Fallocate(fd, punch, size+100, 1<<20)) // behind the end
	eq(x, x.stat(f).Size, size)
	_, err := unix.Pwrite(fd, []byte("unflushed"), 30000)
	x.ok(err)
	x.ok(unix.Fallocate(fd, punch, 30002, 4))
	copy(want[30000:], "un\x00\x00\x00\x00hed")
	x.content(f, string(want))
	x.ok(unix.Close(fd))
	x.content(f, string(want))
	x.is(withFile(f, unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE, 0, 10) }), unix.EOPNOTSUPP,
		"without KEEP_SIZE")
}

func zeroRange(x *env) {
	f := x.file("f", "0123456789", 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	defer unix.Close(fd)
	x.ok(unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 2, 3))
	x.content(f, "01\x00\x00\x0056789")
	x.ok(unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 8, 100))
	x.content(f, "01\x00\x00\x00567\x00\x00")
	x.ok(unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 7, 5))
	x.content(f, "01\x00\x00\x0056\x00\x00\x00\x00\x00")
	eq(x, x.stat(f).Size, 12)
}

func fallocateOthers(x *env) {
	f := x.file("f", "content", 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	defer unix.Close(fd)
	x.is(unix.Fallocate(fd, 1<<20, 0, 10), unix.EOPNOTSUPP, "a mode that does not exist")
	// Where these are done they need whole blocks, so no byte of ours may move.
	for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE} {
		if err := unix.Fallocate(fd, mode, 0, 10); err != unix.EOPNOTSUPP && err != unix.EINVAL {
			x.Errorf("mode %#x: %v", mode, err)
		}
	}
	x.content(f, "content")
}

func seekHole(x *env) {
	const block = 1 << 20
	f := x.p("f")
	fd := x.open(f, unix.O_CREAT|unix.O_RDWR, 0o600)
	defer unix.Close(fd)
	data := bytes.Repeat([]byte("d"), block)
	for _, at := range []int64{2 * block, 3 * block, 6 * block} {
		_, err := unix.Pwrite(fd, data, at)
		x.ok(err)
	}
	x.ok(unix.Ftruncate(fd, 9*block))
	for _, flushed := range []bool{false, true} {
		for _, c := range []struct {
			whence   int
			at, want int64
		}{
			{unix.SEEK_DATA, 0, 2 * block}, {unix.SEEK_HOLE, 0, 0}, {unix.SEEK_DATA, 2*block + 5, 2*block + 5}, {unix.SEEK_HOLE, 2 * block, 4 * block},
			{unix.SEEK_DATA, 4 * block, 6 * block}, {unix.SEEK_HOLE, 6*block + 1, 7 * block}, {unix.SEEK_HOLE, 8 * block, 8 * block},
			{unix.SEEK_DATA, 7 * block, -1}, {unix.SEEK_DATA, 9 * block, -1}, {unix.SEEK_HOLE, 9 * block, -1}, {unix.SEEK_DATA, 90 * block, -1},
		} {
			got, err := unix.Seek(fd, c.at, c.whence)
			if c.want < 0 {
				x.is(err, unix.ENXIO, "whence ", c.whence, " at ", c.at)
			} else {
				x.is(err, nil, "whence ", c.whence, " at ", c.at)
				eq(x, got, c.want, "whence ", c.whence, " at ", c.at, " flushed ", flushed)
			}
		}
		x.ok(unix.Fsync(fd))
	}
	eq(x, x.fstat(fd).Blocks*512, 3*block, "blocks")
	x.ok(unix.Fallocate(fd, punch, 2*block, block))
	got, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	x.ok(err)
	eq(x, got, 3*block, "after a hole was punched")
	full := x.open(x.file("full", "abc", 0o600), unix.O_RDONLY, 0)
	defer unix.Close(full)
	got, err = unix.Seek(full, 1, unix.SEEK_HOLE)
	x.ok(err)
	eq(x, got, 3, "the hole at the end")
	_, err = unix.Seek(full, -1, unix.SEEK_SET)
	x.is(err, unix.EINVAL)
	_, err = unix.Seek(full, 0, 77)
	x.is(err, unix.EINVAL)
}

func copyFileRange(x *env) {
	src := x.file("src", "0123456789", 0o600)
	dst := x.file("dst", "abcdefghij", 0o600)
	from, to := x.open(src, unix.O_RDONLY, 0), x.open(dst, unix.O_RDWR, 0)
	defer unix.Close(from)
	defer unix.Close(to)
	in, out := int64(2), int64(5)
	n, err := unix.CopyFileRange(from, &in, to, &out, 3, 0)
	x.ok(err)
	eq(x, n, 3)
	eq(x, in, 5)
	eq(x, out, 8)
	x.content(dst, "abcde234ij")
	in, out = 8, 20
	n, err = unix.CopyFileRange(from, &in, to, &out, 100, 0) // shorter: the source ends
	x.ok(err)
	eq(x, n, 2)
	x.content(dst, "abcde234ij"+string(make([]byte, 10))+"89")
	in, out = 10, 0
	n, err = unix.CopyFileRange(from, &in, to, &out, 100, 0)
	x.ok(err)
	eq(x, n, 0, "at the end of the source")
	_, err = unix.Pwrite(to, []byte("UNFLUSHED"), 0)
	x.ok(err)
	in, out = 0, 50
	n, err = unix.CopyFileRange(to, &in, to, &out, 9, 0) // in one file
	x.ok(err)
	eq(x, n, 9)
	buf := make([]byte, 9)
	_, err = unix.Pread(to, buf, 50)
	x.ok(err)
	eq(x, string(buf), "UNFLUSHED")
	in, out = 0, 4
	_, err = unix.CopyFileRange(to, &in, to, &out, 9, 0)
	x.is(err, unix.EINVAL, "ranges that overlap")
	_, err = unix.CopyFileRange(to, nil, from, nil, 1, 0)
	x.is(err, unix.EBADF, "to a reader")
	_, err = unix.CopyFileRange(from, nil, to, nil, 1, 1)
	x.is(err, unix.EINVAL, "flags")
	a := x.open(dst, unix.O_WRONLY|unix.O_APPEND, 0)
	defer unix.Close(a)
	_, err = unix.CopyFileRange(from, nil, a, nil, 1, 0)
	x.is(err, unix.EBADF, "to an appender")
	d := x.open(x.dir, unix.O_RDONLY, 0)
	defer unix.Close(d)
	_, err = unix.CopyFileRange(d, nil, to, nil, 1, 0)
	x.is(err, unix.EISDIR)
}

func ficlone(x *env) {
	src := x.file("src", "0123456789", 0o600)
	from, to := x.open(src, unix.O_RDONLY, 0), x.open(x.p("dst"), unix.O_CREAT|unix.O_RDWR, 0o600)
	defer unix.Close(from)
	defer unix.Close(to)
	switch err := unix.IoctlFileClone(to, from); err {
	case nil:
		x.content(x.p("dst"), "0123456789")
	case unix.EOPNOTSUPP, unix.ENOTTY:
		eq(x, x.fstat(to).Size, 0)
	default:
		x.Errorf("FICLONE: %v", err)
	}
}

func truncate(x *env) {
	f := x.file("f", "0123456789", 0o600)
	x.ok(unix.Truncate(f, 4))
	x.content(f, "0123")
	x.ok(unix.Truncate(f, 8))
	x.content(f, "0123\x00\x00\x00\x00")
	x.ok(unix.Truncate(f, 0))
	eq(x, x.stat(f).Size, 0)
	x.is(unix.Truncate(f, -1), unix.EINVAL)
	x.is(unix.Truncate(x.dir, 0), unix.EISDIR)
	x.is(unix.Truncate(x.p("no"), 0), unix.ENOENT)
	x.is(unix.Truncate(x.p("f", "g"), 0), unix.ENOTDIR)
	x.is(unix.Truncate(f, 1<<62), unix.EFBIG)
	x.ok(unix.Truncate(f, 1<<40))
	eq(x, x.stat(f).Size, 1<<40, "a sparse file of a TiB")
	x.ok(unix.Truncate(f, 1))
	x.content(f, "\x00")
}

func ftruncate(x *env) {
	f := x.p("f")
	fd := x.open(f, unix.O_CREAT|unix.O_RDWR, 0)
	_, err := unix.Write(fd, []byte("0123456789"))
	x.ok(err)
	x.ok(unix.Ftruncate(fd, 4)) // whatever the mode: the descriptor counts
	eq(x, x.fstat(fd).Size, 4)
	_, err = unix.Write(fd, []byte("X")) // the offset stayed
	x.ok(err)
	buf := make([]byte, 16)
	n, err := unix.Pread(fd, buf, 0)
	x.ok(err)
	eq(x, string(buf[:n]), "0123\x00\x00\x00\x00\x00\x00X")
	x.is(unix.Ftruncate(fd, -1), unix.EINVAL)
	x.ok(unix.Close(fd))
	x.is(unix.Ftruncate(fd, 0), unix.EBADF)
	d := x.open(x.dir, unix.O_RDONLY, 0)
	defer unix.Close(d)
	x.is(unix.Ftruncate(d, 0), unix.EINVAL)
}

func readWrite(x *env) {
	f := x.p("f")
	fd := x.open(f, unix.O_CREAT|unix.O_RDWR, 0o600)
	defer unix.Close(fd)
	n, err := unix.Writev(fd, [][]byte{[]byte("one"), nil, []byte("two")})
	x.ok(err)
	eq(x, n, 6)
	_, err = unix.Pwrite(fd, []byte("end"), 10000)
	x.ok(err)
	at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	x.ok(err)
	eq(x, at, 6, "pwrite leaves the offset")
	buf := make([]byte, 20)
	n, err = unix.Pread(fd, buf, 9998)
	x.ok(err)
	eq(x, string(buf[:n]), "\x00\x00end", "a short read at the end")
	n, err = unix.Pread(fd, buf, 10003)
	x.ok(err)
	eq(x, n, 0, "a read at the end")
	n, err = unix.Pread(fd, buf, 1<<40)
	x.ok(err)
	eq(x, n, 0, "a read far behind the end")
	_, err = unix.Pread(fd, buf, -1)
	x.is(err, unix.EINVAL)
	_, err = unix.Pwrite(fd, buf, -1)
	x.is(err, unix.EINVAL)
	_, err = unix.Pwrite(fd, buf, 1<<62)
	x.is(err, unix.EFBIG)
	one, two := make([]byte, 2), make([]byte, 4)
	_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	x.ok(err)
	n, err = unix.Readv(fd, [][]byte{one, two})
	x.ok(err)
	eq(x, string(one)+string(two), "onetwo")
	eq(x, n, 6)
	_, err = unix.Pwritev2(fd, [][]byte{[]byte("appended")}, 0, unix.RWF_APPEND)
	x.ok(err)
	eq(x, x.fstat(fd).Size, 10011, "RWF_APPEND")
}

func direct(x *env) {
	f := x.p("f")
	fd := x.open(f, unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o600)
	defer unix.Close(fd)
	page, err := unix.Mmap(-1, 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	x.ok(err)
	defer func() { x.ok(unix.Munmap(page)) }()
	copy(page, bytes.Repeat([]byte("direct!!"), 2048))
	n, err := unix.Pwrite(fd, page, 0)
	x.ok(err)
	eq(x, n, 16384)
	buffered := x.open(f, unix.O_RDWR, 0)
	defer unix.Close(buffered)
	got := make([]byte, 16384)
	_, err = unix.Pread(buffered, got, 0)
	x.ok(err)
	eq(x, bytes.Equal(got, page), true, "a buffered read of what was written directly")
	_, err = unix.Pwrite(buffered, []byte("buffered"), 4096)
	x.ok(err)
	_, err = unix.Pread(fd, page, 0)
	x.ok(err)
	eq(x, string(page[4096:4104]), "buffered", "a direct read of what was written buffered")
	n, err = unix.Pread(fd, page, 16384)
	x.ok(err)
	eq(x, n, 0, "a direct read at the end")
}

func statfs(x *env) {
	var st unix.Statfs_t
	x.ok(unix.Statfs(x.dir, &st))
	eq(x, st.Namelen, 255)
	if st.Bsize <= 0 || st.Blocks == 0 || st.Bfree > st.Blocks || st.Bavail > st.Bfree || st.Files == 0 || st.Ffree > st.Files {
		x.Errorf("%+v", st)
	}
	x.is(unix.Statfs(x.p("no"), &st), unix.ENOENT)
	f := x.open(x.file("f", "", 0o600), unix.O_RDONLY, 0)
	defer unix.Close(f)
	x.ok(unix.Fstatfs(f, &st))
	eq(x, st.Namelen, 255)
}

func syncs(x *env) {
	f := x.file("f", "content", 0o600)
	fd := x.open(f, unix.O_RDWR, 0)
	x.ok(unix.Fsync(fd))
	x.ok(unix.Fdatasync(fd))
	_, err := unix.Write(fd, []byte("new"))
	x.ok(err)
	x.ok(unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE))
	x.ok(unix.Syncfs(fd))
	x.ok(unix.Close(fd))
	x.is(unix.Fsync(fd), unix.EBADF)
	fd = x.open(f, unix.O_WRONLY|unix.O_SYNC, 0)
	_, err = unix.Write(fd, []byte("sync"))
	x.ok(err)
	x.ok(unix.Close(fd))
	x.content(f, "syncent")
	var p [2]int
	x.ok(unix.Pipe2(p[:], unix.O_CLOEXEC))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	x.is(unix.Fsync(p[0]), unix.EINVAL)
}

func readOnlyChecks() []check {
	return []check{{"read-only", false, readOnly}}
}

func readOnly(x *env) {
	if x.ReadOnly == "" {
		x.Skip("no read-only mount was given")
	}
	f, d, fresh := x.ReadOnly+"/f", x.ReadOnly+"/d", x.ReadOnly+"/new"
	x.ok(tryOpen(f, unix.O_RDONLY, 0))
	for what, err := range map[string]error{
		"open to write": tryOpen(f, unix.O_WRONLY, 0), "O_TRUNC": tryOpen(f, unix.O_RDONLY|unix.O_TRUNC, 0),
		"create": tryOpen(fresh, unix.O_CREAT|unix.O_RDONLY, 0o600), "mkdir": unix.Mkdir(fresh, 0o755), "rmdir": unix.Rmdir(d),
		"unlink": unix.Unlink(f), "rename": unix.Rename(f, fresh), "link": unix.Link(f, fresh), "symlink": unix.Symlink("t", fresh),
		"mkfifo": unix.Mkfifo(fresh, 0o600), "chmod": unix.Chmod(f, 0o600), "chown": unix.Chown(f, -1, -1), "truncate": unix.Truncate(f, 0),
		"utimensat": unix.UtimesNanoAt(unix.AT_FDCWD, f, nil, 0), "setxattr": unix.Setxattr(f, "user.a", nil, 0),
		"removexattr": unix.Removexattr(f, "user.a"), "access": unix.Access(f, unix.W_OK), "tmpfile": tryOpen(d, unix.O_TMPFILE|unix.O_RDWR, 0o600),
	} {
		x.is(err, unix.EROFS, what)
	}
	x.is(unix.Mkdir(d, 0o755), unix.EEXIST, "a name that is there")
	x.ok(tryOpen(f, unix.O_CREAT|unix.O_RDONLY, 0o600)) // it is there
	_, err := os.Readlink(x.ReadOnly + "/l")
	x.ok(err)
}
