package posix

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The control: every check must hold on the filesystem of the temporary
// directory, which is ext4 or another of the kernel's own where CI runs.
func TestControl(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	elsewhere := ""
	if here, shm := device(t, dir), "/dev/shm"; device(t, shm) != here {
		elsewhere = shm
	}
	Run(t, Options{Dir: dir, Elsewhere: elsewhere})
}

func device(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Dev
}
