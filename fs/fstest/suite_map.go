package fstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Child does the work of a child process, when this is one: a mapping of a
// file must not be touched by the process that serves the mount, which would
// wait for itself.
func Child() {
	work, path := mapFile, os.Getenv("FSTEST_MAP")
	if path == "" {
		work, path = mapAppended, os.Getenv("FSTEST_MAP_APPENDED")
	}
	if path == "" {
		return
	}
	if err := work(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// MapAppended has a child process append to a file, change a byte of it through
// a mapping of the same open, and sync both.
func MapAppended(t *testing.T, path string) { inChild(t, "FSTEST_MAP_APPENDED", path) }

func inChild(t *testing.T, work, path string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), work+"="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// mapAppended makes "0123456789" into "012M456789mine\n".
func mapAppended(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, 10, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("mine\n"); err != nil {
		return err
	}
	m[3] = 'M'
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return err
	}
	return errors.Join(syscall.Munmap(m), f.Sync(), f.Close())
}

func mapFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, 10_000, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	if string(m[:5]) != "hello" {
		return fmt.Errorf("the mapping holds %q", m[:5])
	}
	copy(m[:5], "HELLO")
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	copy(m[8000:], "after close") // reaches the file when the mapping goes
	return syscall.Munmap(m)
}

func mapped(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	body := make([]byte, 10_000)
	copy(body, "hello")
	ok(t, os.WriteFile(p, body, 0o600))
	inChild(t, "FSTEST_MAP", p)
	copy(body, "HELLO")
	copy(body[8000:], "after close")
	has(t, p, string(body))
}
