package fs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// O_APPEND is cleared after open: pwrite writes where it says.
func TestAppendFlagCleared(t *testing.T) {
	dir, fake, _ := mount(t, nil)
	f := appendTo(t, dir, "0123456789")
	ok(t, f.Sync())
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	ok(t, err)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags&^unix.O_APPEND)
	ok(t, err)
	if _, err := unix.Pwrite(int(f.Fd()), []byte("AB"), 2); err != nil {
		t.Fatal(err)
	}
	ok(t, f.Sync())
	if got := content(t, fake, "log"); got != "01AB456789" {
		t.Errorf("%q", got)
	}
}

// O_APPEND is set after open, as a shell's or a daemon's log does: others' bytes stay.
func TestAppendFlagSet(t *testing.T) {
	dir, fake, _ := mount(t, nil)
	ino := fake.PutRaw(root(t, fake), "log", []byte("0123456789"))
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY, 0)
	ok(t, err)
	defer f.Close()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	ok(t, err)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_APPEND)
	ok(t, err)
	_, err = f.WriteString("mine\n")
	ok(t, err)
	// Another mount appends before this one flushes
	if _, _, err := fake.Write(t.Context(), ino, 0, strings.NewReader("other\n"), api.WriteOptions{Append: true}); err != nil {
		t.Fatal(err)
	}
	ok(t, f.Sync())
	if got := content(t, fake, "log"); got != "0123456789other\nmine\n" {
		t.Errorf("%q", got)
	}
}

// A child that inherits the descriptor and exits does not take the error of the
// parent's lost append.
func TestLostAppendTakenByChild(t *testing.T) {
	for name, ends := range map[string]func(*os.File) error{"fsync": (*os.File).Sync, "close": (*os.File).Close} {
		t.Run(name, func(t *testing.T) {
			dir, fake, _ := mount(t, func(o *fs.Options) { o.WritebackDelay = 20 * time.Millisecond })
			fake.SetBefore(failing("write", object.KindUnavailable))
			fake.Calls()
			f := appendTo(t, dir, "line\n")
			eventually(t, "the flush was tried", func() bool { return fake.Calls()["write"] > 0 })
			fake.SetBefore(nil)
			c := exec.Command("true")
			c.Stdout = f
			ok(t, c.Run())
			if err := ends(f); err == nil {
				t.Errorf("%s succeeded, the cluster holds %q", name, content(t, fake, "log"))
			}
		})
	}
}

// Another program that appends to the same file, and closes, takes the error.
func TestLostAppendTakenByOther(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.WritebackDelay = 20 * time.Millisecond })
	fake.SetBefore(failing("write", object.KindUnavailable))
	fake.Calls()
	f := appendTo(t, dir, "line\n")
	eventually(t, "the flush was tried", func() bool { return fake.Calls()["write"] > 0 })
	fake.SetBefore(nil)
	g, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY, 0)
	ok(t, err)
	t.Log("close of the other:", g.Close())
	if err := f.Sync(); err == nil {
		t.Errorf("fsync succeeded, the cluster holds %q", content(t, fake, "log"))
	}
}
