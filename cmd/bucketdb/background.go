package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A mount in the background is this program started again, in a session of its
// own. It inherits a pipe, named by readyEnv, on which it says that it is
// mounted; readyLog names the file where it logs from then on. Until then it
// writes its errors to a pipe that the first process passes on.
const (
	readyEnv  = "BUCKETDB_INTERNAL_READY_FD"
	readyLog  = "BUCKETDB_INTERNAL_LOG"
	readyWord = "mounted\n"
)

// startBackground starts this program again and returns when it has mounted.
func (a *app) startBackground(ctx context.Context, dir, logFile string) error {
	if logFile == "" {
		var err error
		if logFile, err = logFileFor(dir); err != nil {
			return err
		}
	}
	logFile, err := filepath.Abs(logFile) // the other process leaves this directory
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), readyEnv+"=3", readyLog+"="+logFile)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		theirs.Close()
		return err
	}
	theirs.Close() // so that the pipe ends when the other process does
	word := make(chan string, 1)
	go func() {
		said, _ := io.ReadAll(ready) // an error is as good as nothing said
		word <- string(said)
	}()
	select {
	case said := <-word:
		if said == readyWord {
			return cmd.Process.Release()
		}
		return failedInBackground(cmd.Wait(), complaints.String())
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
		return ctx.Err()
	}
}

// failedInBackground is the error of the other process, in its own words.
func failedInBackground(err error, complaints string) error {
	if complaints == "" {
		return fmt.Errorf("the mount ended without a word: %w", err)
	}
	return errors.New(string(bytes.TrimPrefix(bytes.TrimSpace([]byte(complaints)), []byte("bucketdb: "))))
}

// detach is the other side: it turns the log to its file and says that the
// mount can be used.
func (a *app) detach(dir string) error {
	number, _ := a.env(readyEnv)
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return fmt.Errorf("%s is %q; it is set by bucketdb itself", readyEnv, number)
	}
	path, _ := a.env(readyLog)
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return advise(err, "Name another file for the log of %s with --log-file.", dir)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd, f := range map[int]*os.File{0: null, 1: log, 2: log} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	if err := os.Chdir("/"); err != nil { // keep no other filesystem busy
		return err
	}
	ready := os.NewFile(uintptr(fd), "ready")
	if _, err := io.WriteString(ready, readyWord); err != nil {
		ready.Close()
		return err
	}
	return ready.Close()
}
