package vfs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestFaultyRules(t *testing.T) {
	f, dir := NewFaulty(OS()), t.TempDir()
	name := filepath.Join(dir, "a")
	f.Set("w.write", Rule{Skip: 1, Times: 1, Err: syscall.ENOSPC, Short: 3})
	file, err := f.OpenFile("w", name, os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	_, err = file.Write([]byte("first."))
	must(t, err)
	n, err := file.Write([]byte("second"))
	want(t, err, syscall.ENOSPC)
	if n != 3 {
		t.Fatalf("short write of %d", n)
	}
	_, err = file.Write([]byte("!"))
	must(t, err)
	if got := get(t, f, name); got != "first.sec!" {
		t.Fatalf("file %q", got)
	}
	f.Fail("s", syscall.EIO)
	want(t, file.Sync("s"), syscall.EIO)
	want(t, file.Sync("s"), syscall.EIO)
	f.Clear("s")
	must(t, file.Sync("s"))
	if f.Count("s") != 3 || f.Ops()["w.write"] != 3 {
		t.Fatalf("counts %v", f.Ops())
	}
	f.Set("mv", Rule{Err: syscall.EIO, After: true})
	want(t, f.Rename("mv", name, name+"2"), syscall.EIO)
	if !exists(f, name+"2") {
		t.Fatal("After did not do the work")
	}
	f.Set(AnyOp, Rule{Err: syscall.EROFS})
	want(t, f.Remove("rm", name), syscall.EROFS)
	want(t, f.MkdirAll("mk", name, 0o755), syscall.EROFS)
	_, err = f.OpenFile("w", name, os.O_RDONLY, 0)
	want(t, err, syscall.EROFS)
	_, err = f.Lock("l", name)
	want(t, err, syscall.EROFS)
	_, err = f.ReadDir("ls", dir)
	want(t, err, syscall.EROFS)
	_, err = f.Usage("df", dir)
	want(t, err, syscall.EROFS)
	f.Clear()
	must(t, f.SyncDir("sd", dir))
}

func TestFaultyBlocks(t *testing.T) {
	f, dir := NewFaulty(OS()), t.TempDir()
	release := make(chan struct{})
	f.Set("sd", Rule{Block: release})
	done := make(chan error, 1)
	go func() { done <- f.SyncDir("sd", dir) }()
	for deadline := time.Now().Add(5 * time.Second); f.Count("sd") == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the call never started")
		}
	}
	select {
	case err := <-done:
		t.Fatalf("a blocked call returned: %v", err)
	default:
	}
	must(t, f.MkdirAll("mk", filepath.Join(dir, "x"), 0o755)) // others go on
	close(release)
	must(t, <-done)
}
