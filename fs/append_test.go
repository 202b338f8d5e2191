package fs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skshohagmiah/bucketdb/server/api"
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
