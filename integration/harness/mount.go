package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Mount is a mount process and its directory.
type Mount struct {
	Dir string

	log  string
	proc *process
}

// StartMount mounts target ("" is all buckets, else BUCKET[/PREFIX]) of the
// endpoint on dir, which is made, and returns when it can be used.
func StartMount(ctx context.Context, binary, endpoint, target, dir string, args ...string) (*Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	line := []string{"mount"}
	if target != "" {
		line = append(line, target)
	}
	cmd := exec.Command(binary, append(append(line, dir, "--endpoint", endpoint), args...)...)
	m := &Mount{Dir: dir, log: dir + ".log"}
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if m.proc, err = spawn(cmd); err != nil {
		return nil, err
	}
	err = Poll(ctx, startTime, func() error {
		if gone, err := m.proc.ended(); gone {
			return fmt.Errorf("the mount has ended: %w", err)
		}
		if !Mounted(dir) {
			return fmt.Errorf("%s is not mounted", dir)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, m.Log(4<<10)), m.Detach())
	}
	return m, nil
}

// Mounted reports whether a FUSE filesystem is mounted on dir.
func Mounted(dir string) bool {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == dir && strings.HasPrefix(f[2], "fuse") {
			return true
		}
	}
	return false
}

// Unmount asks the mount process to end (SIGTERM): it flushes and unmounts. An
// exit code other than 0 is an error.
func (m *Mount) Unmount() error { return m.proc.end(syscall.SIGTERM, stopTime) }

// Detach takes the mount away by force: what a test does in the end.
func (m *Mount) Detach() error {
	err := m.proc.end(syscall.SIGTERM, 10*time.Second)
	if Mounted(m.Dir) {
		return errors.Join(err, syscall.Unmount(m.Dir, syscall.MNT_DETACH))
	}
	return err
}

// Kill ends the mount process at once (SIGKILL) and leaves what is then on Dir.
func (m *Mount) Kill() error {
	if err := m.proc.cmd.Process.Kill(); err != nil {
		return err
	}
	<-m.proc.done
	return nil
}

// PeakMemory is the most memory that the mount process ever had resident, in bytes.
func (m *Mount) PeakMemory() (int64, error) { return procStatus(m.proc.cmd.Process.Pid, "VmHWM:") }

// Log is the end of what the mount logged.
func (m *Mount) Log(last int) string {
	raw, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-last):])
}

// diskUsage is the space that the files below dir take, in bytes.
func diskUsage(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				total += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // it went while we looked
			return nil
		}
		return err
	})
	return total, err
}
