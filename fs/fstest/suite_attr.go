package fstest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func times(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, []byte("x"), 0o600))
	at, mt := time.Unix(1_234_567_890, 123_456_789), time.Unix(987_654_321, 987_654_321)
	ok(t, os.Chtimes(p, at, mt))
	st := stat(t, p)
	if st.Atim.Nano() != at.UnixNano() || st.Mtim.Nano() != mt.UnixNano() {
		t.Fatalf("atime %d, mtime %d", st.Atim.Nano(), st.Mtim.Nano())
	}
	ok(t, os.Chtimes(p, time.Unix(-5, 7), time.Unix(-5, 7)))
	if st = stat(t, p); st.Mtim.Nano() != -5e9+7 {
		t.Fatalf("mtime before 1970: %d", st.Mtim.Nano())
	}
	// Times set on a file with unflushed writes travel with the flush.
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
	ok(t, err)
	_, err = f.WriteString("later")
	ok(t, err)
	ts := []unix.Timeval{unix.NsecToTimeval(at.UnixNano()), unix.NsecToTimeval(mt.UnixNano())}
	ok(t, unix.Futimes(int(f.Fd()), ts))
	ok(t, f.Close())
	if st = stat(t, p); st.Mtim.Nano() != ts[1].Nano() {
		t.Fatalf("mtime %d after the flush, want %d", st.Mtim.Nano(), mt.UnixNano())
	}
	before := time.Now()
	ok(t, os.WriteFile(p, []byte("now"), 0))
	if st = stat(t, p); st.Mtim.Nano() < before.Add(-time.Second).UnixNano() {
		t.Fatal("a write leaves the old mtime")
	}
	// What fstat tells before a close stays true after it: git relies on it.
	f, err = os.Create(p)
	ok(t, err)
	_, err = f.WriteString("index")
	ok(t, err)
	i1, err := f.Stat()
	ok(t, err)
	ok(t, f.Close())
	s1, s2 := i1.Sys().(*syscall.Stat_t), stat(t, p)
	if s1.Mtim != s2.Mtim || s1.Ctim != s2.Ctim || s1.Size != s2.Size {
		t.Fatalf("fstat before close: %+v; stat after: %+v", s1, s2)
	}
}

func modes(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, nil, 0o600))
	ok(t, syscall.Chmod(p, 0o4751))
	if st := stat(t, p); st.Mode != syscall.S_IFREG|0o4751 {
		t.Fatalf("mode %o", st.Mode)
	}
	if os.Geteuid() == 0 {
		ok(t, os.Lchown(p, 12345, 54321))
		if st := stat(t, p); st.Uid != 12345 || st.Gid != 54321 || st.Mode&0o6000 != 0 {
			t.Fatalf("owner %d:%d, mode %o: chown must clear setuid", st.Uid, st.Gid, st.Mode)
		}
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteString("dirty")
	ok(t, err)
	ok(t, f.Chmod(0o444))
	if st := stat(t, p); st.Mode&0o777 != 0o444 || st.Size != 5 {
		t.Fatalf("mode %o, size %d", st.Mode, st.Size)
	}
	ok(t, f.Close())
	if st := stat(t, p); st.Mode&0o777 != 0o444 || st.Size != 5 {
		t.Fatalf("mode %o, size %d after the flush", st.Mode, st.Size)
	}
}

func special(t *testing.T, dir string) {
	p := filepath.Join(dir, "fifo")
	ok(t, syscall.Mkfifo(p, 0o600))
	if m := stat(t, p).Mode; m != syscall.S_IFIFO|0o600 {
		t.Fatalf("mode %o", m)
	}
	ok(t, syscall.Mknod(filepath.Join(dir, "sock"), syscall.S_IFSOCK|0o600, 0))
	ok(t, syscall.Mknod(filepath.Join(dir, "file"), syscall.S_IFREG|0o600, 0))
	if os.Geteuid() == 0 {
		dev := filepath.Join(dir, "null")
		ok(t, syscall.Mknod(dev, syscall.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		if st := stat(t, dev); st.Mode != syscall.S_IFCHR|0o600 || st.Rdev != unix.Mkdev(1, 3) {
			t.Fatalf("mode %o, rdev %x", st.Mode, st.Rdev)
		}
	}
}
