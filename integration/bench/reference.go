package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
	gofs "github.com/hanwen/go-fuse/v2/fs"

	"github.com/skshohagmiah/bucketdb/integration/harness"
)

const smallSize = 4 << 10

// reference is what this program does when it is started as one of the things
// that we compare with: "gin ADDRESS" answers constant bytes, "files DIR" is
// http.FileServer on an address that it prints into DIR/address, and
// "loopback DIR" is go-fuse's loopback of DIR/data on DIR/mnt.
func reference(kind, arg string) error {
	switch kind {
	case "gin":
		gin.SetMode(gin.ReleaseMode)
		e := gin.New()
		body := make([]byte, smallSize)
		answer := func(c *gin.Context) { c.Data(http.StatusOK, "application/octet-stream", body) }
		e.GET("/objects/:bucket/*key", answer)
		e.HEAD("/objects/:bucket/*key", answer)
		return http.ListenAndServe(arg, e)
	case "files":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(arg, "address"), []byte(l.Addr().String()), 0o600); err != nil {
			return err
		}
		return http.Serve(l, http.FileServer(http.Dir(arg)))
	case "loopback":
		root, err := gofs.NewLoopbackRoot(filepath.Join(arg, "data"))
		if err != nil {
			return err
		}
		second := time.Second
		o := &gofs.Options{AttrTimeout: &second, EntryTimeout: &second}
		o.MaxWrite, o.DirectMount, o.Options = 1<<20, true, []string{"default_permissions"}
		s, err := gofs.Mount(filepath.Join(arg, "mnt"), root, o)
		if err != nil {
			return err
		}
		s.Wait()
		return nil
	}
	return fmt.Errorf("there is no reference %q", kind)
}

// startReference runs one and returns how to end it.
func startReference(kind, arg string) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "reference", kind, arg)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed is not an error here
	}, nil
}

// startGin runs the bare gin handler and returns its address.
func startGin(ctx context.Context) (addr string, stop func(), err error) {
	if addr, err = harness.FreeAddress(); err != nil {
		return "", nil, err
	}
	if stop, err = startReference("gin", addr); err != nil {
		return "", nil, err
	}
	return addr, stop, harness.Poll(ctx, 10*time.Second, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// startFiles runs http.FileServer on dir and returns its address.
func startFiles(ctx context.Context, dir string) (addr string, stop func(), err error) {
	if stop, err = startReference("files", dir); err != nil {
		return "", nil, err
	}
	err = harness.Poll(ctx, 10*time.Second, func() error {
		raw, err := os.ReadFile(filepath.Join(dir, "address"))
		if err == nil && len(raw) == 0 {
			err = os.ErrNotExist
		}
		addr = string(raw)
		return err
	})
	return addr, stop, err
}

// startLoopback mounts dir/data on dir/mnt by go-fuse's loopback.
func startLoopback(ctx context.Context, dir string) (stop func(), err error) {
	for _, d := range []string{"data", "mnt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	end, err := startReference("loopback", dir)
	if err != nil {
		return nil, err
	}
	mnt := filepath.Join(dir, "mnt")
	stop = func() {
		_ = syscall.Unmount(mnt, syscall.MNT_DETACH) // it may not be mounted
		end()
	}
	return stop, harness.Poll(ctx, 10*time.Second, func() error {
		if !harness.Mounted(mnt) {
			return fmt.Errorf("%s is not mounted", mnt)
		}
		return nil
	})
}
