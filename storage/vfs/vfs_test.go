package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Every implementation passes the same suite.
func TestConformance(t *testing.T) {
	kinds := map[string]func(t *testing.T) (FS, string){
		"OS": func(t *testing.T) (FS, string) { return OS(), t.TempDir() },
		"PowerCut": func(t *testing.T) (FS, string) {
			p := NewPowerCut()
			must(t, p.MkdirAll("mk", "/data", 0o755))
			return p, "/data"
		},
		"Faulty": func(t *testing.T) (FS, string) { return NewFaulty(OS()), t.TempDir() },
	}
	suite := map[string]func(t *testing.T, f FS, dir string){
		"files": conformFiles, "flags": conformFlags, "directories": conformDirectories,
		"rename": conformRename, "lock": conformLock, "concurrent": conformConcurrent,
	}
	for kind, open := range kinds {
		for name, test := range suite {
			t.Run(kind+"/"+name, func(t *testing.T) {
				f, dir := open(t)
				test(t, f, dir)
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

// put writes a file without syncing it.
func put(t *testing.T, f FS, name, text string) File {
	t.Helper()
	file, err := f.OpenFile("put", name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	must(t, err)
	_, err = file.Write([]byte(text))
	must(t, err)
	return file
}

func get(t *testing.T, f FS, name string) string {
	t.Helper()
	file, err := f.OpenFile("get", name, os.O_RDONLY, 0)
	must(t, err)
	defer file.Close()
	b, err := io.ReadAll(file)
	must(t, err)
	return string(b)
}

func exists(f FS, name string) bool {
	_, err := f.Stat("stat", name)
	return err == nil
}

func conformFiles(t *testing.T, f FS, dir string) {
	name := filepath.Join(dir, "a")
	_, err := f.OpenFile("open", name, os.O_RDONLY, 0)
	want(t, err, fs.ErrNotExist)
	file := put(t, f, name, "hello")
	if file.Name() != name {
		t.Fatalf("name %q", file.Name())
	}
	_, err = file.WriteAt([]byte("!!"), 8)
	must(t, err)
	must(t, file.Sync("sync"))
	if got := get(t, f, name); got != "hello\x00\x00\x00!!" {
		t.Fatalf("read %q", got)
	}
	b := make([]byte, 4)
	n, err := file.ReadAt(b, 8)
	if n != 2 || err != io.EOF {
		t.Fatalf("ReadAt over the end: %d, %v", n, err)
	}
	must(t, file.Truncate("trunc", 3))
	must(t, file.Truncate("trunc", 6))
	if got := get(t, f, name); got != "hel\x00\x00\x00" {
		t.Fatalf("after truncate %q", got)
	}
	info, err := file.Stat()
	must(t, err)
	if info.Size() != 6 || info.IsDir() || info.Name() != "a" {
		t.Fatalf("stat %v", info)
	}
	must(t, f.Remove("rm", name))
	if n, err = file.ReadAt(b[:3], 0); n != 3 || err != nil { // handles follow the file
		t.Fatalf("read of a removed file: %d, %v", n, err)
	}
	must(t, file.Close())
	want(t, file.Close(), fs.ErrClosed)
	want(t, f.Remove("rm", name), fs.ErrNotExist)
}

func conformFlags(t *testing.T, f FS, dir string) {
	name := filepath.Join(dir, "a")
	must(t, put(t, f, name, "one").Close())
	_, err := f.OpenFile("open", name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	want(t, err, fs.ErrExist)
	file, err := f.OpenFile("open", name, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = file.Write([]byte("two"))
	must(t, err)
	if _, err = file.Read(make([]byte, 1)); err == nil {
		t.Fatal("a write-only file was read")
	}
	must(t, file.Close())
	if got := get(t, f, name); got != "onetwo" {
		t.Fatalf("append made %q", got)
	}
	file, err = f.OpenFile("open", name, os.O_RDONLY, 0)
	must(t, err)
	if _, err = file.Write([]byte("x")); err == nil {
		t.Fatal("a read-only file was written")
	}
	must(t, file.Close())
	_, err = f.OpenFile("open", dir, os.O_RDWR, 0)
	want(t, err, syscall.EISDIR)
}

func conformDirectories(t *testing.T, f FS, dir string) {
	deep := filepath.Join(dir, "x", "y", "z")
	must(t, f.MkdirAll("mk", deep, 0o755))
	must(t, f.MkdirAll("mk", deep, 0o755))
	for _, base := range []string{"c", "a", "b"} {
		must(t, put(t, f, filepath.Join(deep, base), base).Close())
	}
	must(t, f.SyncDir("sync", deep))
	list, err := f.ReadDir("ls", deep)
	must(t, err)
	if len(list) != 3 || list[0].Name() != "a" || list[2].Name() != "c" || list[0].IsDir() {
		t.Fatalf("listing %v", list)
	}
	if info, err := list[1].Info(); err != nil || info.Size() != 1 {
		t.Fatalf("info %v, %v", info, err)
	}
	want(t, f.Remove("rm", deep), syscall.ENOTEMPTY)
	_, err = f.ReadDir("ls", filepath.Join(dir, "none"))
	want(t, err, fs.ErrNotExist)
	want(t, f.SyncDir("sync", filepath.Join(dir, "none")), fs.ErrNotExist)
	want(t, f.MkdirAll("mk", filepath.Join(deep, "a", "b"), 0o755), syscall.ENOTDIR)
	u, err := f.Usage("df", dir)
	must(t, err)
	if u.TotalBytes == 0 || u.FreeBytes > u.TotalBytes {
		t.Fatalf("usage %+v", u)
	}
}

func conformRename(t *testing.T, f FS, dir string) {
	a, b, sub := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "sub")
	must(t, f.MkdirAll("mk", sub, 0o755))
	must(t, put(t, f, a, "A").Close())
	must(t, put(t, f, b, "B").Close())
	must(t, f.Rename("mv", a, b))
	if exists(f, a) || get(t, f, b) != "A" {
		t.Fatal("rename did not replace")
	}
	must(t, f.Rename("mv", b, filepath.Join(sub, "c")))
	if exists(f, b) || get(t, f, filepath.Join(sub, "c")) != "A" {
		t.Fatal("rename across directories")
	}
	must(t, f.Rename("mv", sub, filepath.Join(dir, "sub2")))
	if get(t, f, filepath.Join(dir, "sub2", "c")) != "A" {
		t.Fatal("rename of a directory")
	}
	want(t, f.Rename("mv", a, b), fs.ErrNotExist)
	if err := f.Rename("mv", filepath.Join(dir, "sub2"), filepath.Join(dir, "sub2", "d")); err == nil {
		t.Fatal("a directory moved into itself")
	}
}

func conformLock(t *testing.T, f FS, dir string) {
	name := filepath.Join(dir, "LOCK")
	l, err := f.Lock("lock", name)
	must(t, err)
	_, err = f.Lock("lock", name)
	want(t, err, ErrLocked)
	must(t, l.Close())
	l, err = f.Lock("lock", name)
	must(t, err)
	must(t, l.Close())
}

func conformConcurrent(t *testing.T, f FS, dir string) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := filepath.Join(dir, string(rune('a'+i)))
			for round := range 20 {
				body := bytes.Repeat([]byte{byte(round)}, 100)
				file, err := f.OpenFile("w", name+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = file.Write(body)
				err = errors.Join(err, file.Sync("s"), file.Close(), f.Rename("mv", name+".tmp", name), f.SyncDir("sd", dir))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	list, err := f.ReadDir("ls", dir)
	must(t, err)
	if len(list) != 8 {
		t.Fatalf("%d files", len(list))
	}
}
