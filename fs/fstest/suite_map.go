package fstest

import (
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
	path := os.Getenv("FSTEST_MAP")
	if path == "" {
		return
	}
	if err := mapFile(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
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
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FSTEST_MAP="+p)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	copy(body, "HELLO")
	copy(body[8000:], "after close")
	has(t, p, string(body))
}
