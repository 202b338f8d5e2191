package fs_test

import (
	"flag"
	"log/slog"
	"os"
	"testing"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/fs/fstest"
)

func TestMain(m *testing.M) {
	fstest.Child()
	// A step of the models is a handful of system calls: fewer runs than rapid's
	// 100 keep the package quick. -rapid.checks asks for more.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// mount mounts a fake cluster's bucket "b".
func mount(t *testing.T, set func(*fs.Options)) (string, *fstest.Fake, *fs.Server) {
	t.Helper()
	fake := fstest.NewFake("b")
	dir, s := mountOn(t, fake, set)
	return dir, fake, s
}

func mountOn(t *testing.T, b fs.Backend, set func(*fs.Options)) (string, *fs.Server) {
	t.Helper()
	fstest.RequireFUSE(t)
	dir := t.TempDir()
	o := fs.Options{Backend: b, Bucket: "b", Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if set != nil {
		set(&o)
	}
	s, err := fs.Mount(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir, s
}

func TestPOSIX(t *testing.T) {
	dir, _, _ := mount(t, nil)
	fstest.POSIX(t, dir)
}
