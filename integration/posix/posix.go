// Package posix is the behaviour that Linux programs may expect of a filesystem,
// as POSIX.1-2024 and the man pages of Linux have it: one function per call, each
// with its errors, as root and as other users. It knows nothing of BucketDB; the
// directory it is given may be on any filesystem. A check that fails on ext4 is a
// wrong check: the tests run the suite there too.
package posix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Options say where the suite runs.
type Options struct {
	// Dir is an empty directory that the suite fills. Every user can reach it.
	Dir string
	// Elsewhere is a directory on another filesystem, for EXDEV; "" leaves that out.
	Elsewhere string
	// ReadOnly is a directory of a read-only mount with a file "f", a directory "d"
	// and a link "l" to "f" in it, for EROFS; "" leaves that out.
	ReadOnly string
	// MountPoint is the root of the mount that holds Dir, for EBUSY; "" leaves that out.
	MountPoint string
	// Missing names the checks that this filesystem is known to fail, and why.
	Missing map[string]string
}

// Ids that own nothing anywhere.
const (
	alice, bob, carol = 70001, 70002, 70003
	staff, guests     = 80001, 80002
)

// check is one function of the suite.
type check struct {
	name string
	root bool // it takes other users' identities, or makes devices
	run  func(x *env)
}

// env is the surroundings of one check: a directory of its own with mode 0777,
// a thread of its own, and the umask 0 on it.
type env struct {
	*testing.T
	Options
	dir string
}

// Run runs every check whose name has one of the given parts, or all of them.
func Run(t *testing.T, o Options, only ...string) {
	for _, c := range checks() {
		if len(only) > 0 && !containsAny(c.name, only) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("this check needs root")
			}
			if why := o.Missing[c.name]; why != "" {
				t.Skip("missing here: " + why)
			}
			dir := filepath.Join(o.Dir, strings.ReplaceAll(c.name, " ", "_"))
			x := &env{T: t, Options: o, dir: dir}
			defer os.RemoveAll(dir)
			x.thread(func() {
				x.ok(unix.Mkdir(dir, 0o777))
				c.run(x)
			})
		})
	}
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// thread runs do on a thread of its own with the umask 0. The thread ends with
// it, so whatever identity it took is gone.
func (x *env) thread(do func()) {
	x.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if err := unix.Unshare(unix.CLONE_FS); err == nil {
			unix.Umask(0)
		} else {
			x.Errorf("unshare: %v", err)
			return
		}
		do()
	}()
	<-done
	if x.Failed() {
		x.FailNow()
	}
}

// as runs do as another user with no privileges.
func (x *env) as(uid, gid int, do func(), groups ...int) {
	x.Helper()
	x.thread(func() {
		list := make([]uint32, len(groups)+1)
		for i, g := range groups {
			list[i] = uint32(g)
		}
		list[len(groups)] = uint32(gid)
		if err := setGroups(list); err != nil {
			x.Errorf("setgroups: %v", err)
			return
		}
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
			x.Errorf("setresgid: %v", e)
			return
		}
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			x.Errorf("setresuid: %v", e)
			return
		}
		do()
	})
}

// p is a path below the check's directory.
func (x *env) p(elem ...string) string { return filepath.Join(append([]string{x.dir}, elem...)...) }

// ok ends the check if there is an error.
func (x *env) ok(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// is wants an error.
func (x *env) is(err error, want error, what ...any) {
	x.Helper()
	if !errors.Is(err, want) {
		x.Errorf("%sgot %v, want %v", prefix(what), err, want)
	}
}

// eq wants a value.
func eq[V comparable](x *env, got, want V, what ...any) {
	x.Helper()
	if got != want {
		x.Errorf("%sgot %v, want %v", prefix(what), got, want)
	}
}

func prefix(what []any) string {
	if len(what) == 0 {
		return ""
	}
	return fmt.Sprint(what...) + ": "
}

// file makes a file with content.
func (x *env) file(name, content string, mode uint32) string {
	x.Helper()
	p := x.p(name)
	fd := x.open(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode)
	if content != "" {
		_, err := unix.Write(fd, []byte(content))
		x.ok(err)
	}
	x.ok(unix.Close(fd))
	return p
}

// mkdir makes a directory.
func (x *env) mkdir(name string, mode uint32) string {
	x.Helper()
	p := x.p(name)
	x.ok(unix.Mkdir(p, mode))
	return p
}

// open opens, or ends the check.
func (x *env) open(path string, flags int, mode uint32) int {
	x.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	x.ok(err)
	return fd
}

// tryOpen is open's error; what it opened is closed.
func tryOpen(path string, flags int, mode uint32) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// stat is lstat of a path.
func (x *env) stat(path string) unix.Stat_t {
	x.Helper()
	var st unix.Stat_t
	x.ok(unix.Lstat(path, &st))
	return st
}

func (x *env) fstat(fd int) unix.Stat_t {
	x.Helper()
	var st unix.Stat_t
	x.ok(unix.Fstat(fd, &st))
	return st
}

// perm is a file's mode without its type.
func (x *env) perm(path string) uint32 {
	x.Helper()
	return x.stat(path).Mode & 0o7777
}

// oct shows modes as people read them.
type oct uint32

func (o oct) String() string { return fmt.Sprintf("%#o", uint32(o)) }

// mode wants a file's mode.
func (x *env) mode(path string, want uint32, what ...any) {
	x.Helper()
	eq(x, oct(x.perm(path)), oct(want), what...)
}

// content wants a file's bytes.
func (x *env) content(path, want string) {
	x.Helper()
	got, err := os.ReadFile(path)
	x.ok(err)
	if string(got) != want {
		x.Errorf("%s holds %.60q (%d bytes), want %.60q (%d bytes)", filepath.Base(path), got, len(got), want, len(want))
	}
}

// exists wants a name to be there, or not.
func (x *env) exists(path string, want bool) {
	x.Helper()
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	eq(x, err == nil, want, path, " exists")
}

// The times of a file that a call may change.
type stamps struct{ atime, mtime, ctime int64 }

func (x *env) stamps(path string) stamps {
	x.Helper()
	st := x.stat(path)
	return stamps{st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano()}
}

// changes runs do and wants the times of a path to be changed or not: "c" stands
// for ctime, "m" for mtime, "" for neither. It waits until the clock of the
// filesystem has gone on, which may be a coarse one.
func (x *env) changes(path, want string, what string, do func()) {
	x.Helper()
	before := x.stamps(path)
	x.nextTick(max(before.ctime, before.mtime))
	do()
	after := x.stamps(path)
	eq(x, after.ctime != before.ctime, strings.Contains(want, "c"), what, ": ctime of ", filepath.Base(path), " changed")
	eq(x, after.mtime != before.mtime, strings.Contains(want, "m"), what, ": mtime of ", filepath.Base(path), " changed")
	if after.ctime < before.ctime {
		x.Errorf("%s: ctime went back", what)
	}
}

// nextTick returns when a file made now is stamped later than t. The clock that
// filesystems stamp with is coarse: some milliseconds.
func (x *env) nextTick(t int64) {
	x.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var ts unix.Timespec
		x.ok(unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts))
		if ts.Nano() > t {
			return
		}
		if time.Now().After(deadline) {
			x.Fatal("the clock stands still")
		}
		time.Sleep(time.Millisecond)
	}
}

func checks() []check {
	var all []check
	for _, family := range [][]check{
		openChecks(), dirChecks(), linkChecks(), renameChecks(), nodeChecks(), pathChecks(), modeChecks(), ownerChecks(), privChecks(),
		timeChecks(), permissionChecks(), xattrChecks(), aclChecks(), tmpfileChecks(), mapChecks(), allocChecks(), copyChecks(), dataChecks(),
		readOnlyChecks(),
	} {
		all = append(all, family...)
	}
	return all
}
