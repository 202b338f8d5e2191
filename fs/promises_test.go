package fs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/fs/fstest"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// content is what the cluster holds under a name of the bucket.
func content(t testing.TB, fake *fstest.Fake, name string) string {
	t.Helper()
	n, err := fake.Lookup(context.Background(), root(t, fake), name)
	ok(t, err)
	return string(fake.Content(n.ID))
}

// appendTo opens a new file for appending and writes a line.
func appendTo(t testing.TB, dir, line string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ok(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteString(line)
	ok(t, err)
	return f
}

// An append that the cluster refused, in a flush that nobody waits for, is
// sent again.
func TestRefusedAppendIsSentAgain(t *testing.T) {
	for _, k := range []object.Kind{object.KindNoSpace, object.KindQuota, object.KindOverload} {
		t.Run(k.String(), func(t *testing.T) {
			dir, fake, _ := mount(t, func(o *fs.Options) { o.WritebackDelay = time.Hour })
			f := appendTo(t, dir, "line\n")
			fake.SetBefore(failing("write", k))
			_, err := f.Stat() // flushes, and keeps the error to itself
			ok(t, err)
			fake.SetBefore(nil)
			ok(t, f.Sync())
			if got := content(t, fake, "log"); got != "line\n" {
				t.Fatalf("fsync succeeded, the cluster holds %q", got)
			}
		})
	}
}

// An append that may have happened is not repeated; who asks for durability
// next is told, once, and a stat does not take the answer away.
func TestLostAppendIsReported(t *testing.T) {
	for name, report := range map[string]func(*os.File, *fs.Server) error{
		"fsync": func(f *os.File, _ *fs.Server) error { return f.Sync() },
		"close": func(f *os.File, _ *fs.Server) error { return f.Close() },
		"Sync":  func(_ *os.File, s *fs.Server) error { return s.Sync(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, fake, s := mount(t, func(o *fs.Options) { o.WritebackDelay = 20 * time.Millisecond })
			fake.SetBefore(failing("write", object.KindUnavailable))
			fake.Calls()
			f := appendTo(t, dir, "line\n")
			eventually(t, "the flush was tried", func() bool { return fake.Calls()["write"] > 0 })
			fake.SetBefore(nil)
			_, err := f.Stat()
			ok(t, err)
			if err := report(f, s); err == nil {
				t.Fatalf("no error, and the cluster holds %q", content(t, fake, "log"))
			}
			ok(t, s.Sync(t.Context()))
		})
	}
}

// A file that is open here lives on after its last name is gone, for many
// leases.
func TestUnlinkedFileOutlivesItsLease(t *testing.T) {
	fake := fstest.NewFake("b")
	fake.SetLease(time.Second)
	dir, _ := mountOn(t, fake, func(o *fs.Options) { o.HoldRenew = 200 * time.Millisecond })
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_RDWR, 0o600)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteString("kept")
	ok(t, err)
	ok(t, f.Sync())
	ok(t, os.Remove(f.Name()))
	for range 10 {
		time.Sleep(250 * time.Millisecond) // not a wait for something: leases must have had the time to run out
		_, err := f.WriteAt([]byte("K"), 0)
		ok(t, err)
		ok(t, f.Sync())
	}
	buf := make([]byte, 4)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "Kept" {
		t.Fatalf("%q, %v", buf, err)
	}
}

// ftruncate cuts what the file is, not what it was when it was opened.
func TestTruncateOfWhatOthersWrote(t *testing.T) {
	for name, write := range map[string][]string{"": nil, "42\n": {"42\n"}, "ab\x00d": {"ab", "d"}} {
		fake := fstest.NewFake("b")
		d1, _ := mountOn(t, fake, nil)
		d2, _ := mountOn(t, fake, nil)
		ok(t, os.WriteFile(filepath.Join(d1, "pid"), nil, 0o600))
		f, err := os.OpenFile(filepath.Join(d1, "pid"), os.O_RDWR, 0)
		ok(t, err)
		ok(t, os.WriteFile(filepath.Join(d2, "pid"), []byte("1234567890\n"), 0o600))
		ok(t, f.Truncate(0))
		off := int64(0)
		for _, w := range write {
			_, err := f.WriteAt([]byte(w), off)
			ok(t, err)
			off += int64(len(w)) + 1
		}
		ok(t, f.Close())
		if got := content(t, fake, "pid"); got != name {
			t.Fatalf("the file holds %q, want %q", got, name)
		}
	}
}

// elsewhere marks the context of a change that is not the mount's.
type elsewhere struct{}

// rewriting makes each read find a file of other content: size bytes of one
// letter. The mount's own writes are refused, so that they stay unflushed.
func rewriting(t *testing.T, fake *fstest.Fake, ino object.InodeID, size int) {
	var round atomic.Int64
	fake.SetBefore(func(ctx context.Context, op string) error {
		switch {
		case op == "write" && ctx.Value(elsewhere{}) == nil:
			return &object.Error{Kind: object.KindNoSpace}
		case op != "read":
			return nil
		}
		n := int(round.Add(1))
		body := bytes.Repeat([]byte{byte('a' + n%26)}, size)
		_, _, err := fake.Write(context.WithValue(ctx, elsewhere{}, true), ino, 0, bytes.NewReader(body), api.WriteOptions{Truncate: true})
		return err
	})
	t.Cleanup(func() { fake.SetBefore(nil) })
}

// A read under a writer that never rests is of one version all the same.
func TestReadIsNotTorn(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.WritebackDelay = time.Hour })
	ino := fake.PutRaw(root(t, fake), "f", bytes.Repeat([]byte("."), 4000))
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("MINE"), 2000) // two spans must come from the cluster
	ok(t, err)
	rewriting(t, fake, ino, 4000)
	buf := make([]byte, 4000)
	_, err = f.ReadAt(buf, 0)
	ok(t, err)
	fake.SetBefore(nil)
	if string(buf[2000:2004]) != "MINE" {
		t.Fatalf("our own write is not seen: %q", buf[2000:2004])
	}
	if others := append(buf[:2000:2000], buf[2004:]...); strings.Trim(string(others), string(others[0])) != "" {
		t.Fatalf("bytes of two versions: %q and %q", others[0], others[len(others)-1])
	}
}

// O_CREAT on a name that somebody else made meanwhile goes through the
// permissions of the file that is there.
func TestCreateRaceKeepsPermissions(t *testing.T) {
	need.Root(t) // to act as somebody else
	dir, fake, _ := mount(t, func(o *fs.Options) { o.AllowOther = true })
	b := root(t, fake)
	ok(t, os.Chmod(dir, 0o777))
	ok(t, os.Chmod(filepath.Dir(dir), 0o755))
	fake.SetBefore(func(_ context.Context, op string) error {
		if op == "create" {
			fake.SetBefore(nil)
			fake.PutRaw(b, "f", []byte("root's"))
		}
		return nil
	})
	cmd := exec.Command("/bin/sh", "-c", "echo evil > f")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(strings.ToLower(string(out)), "permission denied") {
		t.Errorf("writing root's file as nobody: %v %s", err, out)
	}
	if got := content(t, fake, "f"); got != "root's" {
		t.Fatalf("root's file holds %q", got)
	}
}

// The owner of such a file opens what is there; O_EXCL is refused.
func TestCreateRaceOpensOrRefuses(t *testing.T) {
	for flag, want := range map[int]error{0: nil, os.O_EXCL: os.ErrExist} {
		dir, fake, _ := mount(t, nil)
		b := root(t, fake)
		fake.SetBefore(func(_ context.Context, op string) error {
			if op == "create" {
				fake.SetBefore(nil)
				fake.PutRaw(b, "f", []byte("there"))
			}
			return nil
		})
		f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_RDWR|flag, 0o600)
		if !errors.Is(err, want) {
			t.Fatalf("flag %#x: %v, want %v", flag, err, want)
		}
		if err != nil {
			continue
		}
		got, err := io.ReadAll(f)
		ok(t, errors.Join(err, f.Close()))
		if string(got) != "there" {
			t.Fatalf("%q", got)
		}
	}
}

// The last close of a file sends what an earlier close could not, whatever the
// handle was opened for.
func TestLastCloseFlushes(t *testing.T) {
	dir, fake, s := mount(t, func(o *fs.Options) { o.WritebackDelay = time.Hour })
	p := filepath.Join(dir, "f")
	w, err := os.Create(p)
	ok(t, err)
	r, err := os.Open(p)
	ok(t, err)
	_, err = w.WriteString("late")
	ok(t, err)
	ok(t, w.Chmod(0o640))
	fake.SetBefore(failing("write", object.KindUnavailable))
	if err := w.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("close: %v", err)
	}
	eventually(t, "the writer's handle is released", func() bool { return fs.Writers(s) == 0 })
	fake.SetBefore(nil)
	ok(t, r.Close())
	eventually(t, "the cluster has it", func() bool {
		n, err := fake.Lookup(t.Context(), root(t, fake), "f")
		return err == nil && n.Mode&0o777 == 0o640 && string(fake.Content(n.ID)) == "late"
	})
}

// O_TRUNC empties the file in the cluster too, also for who only reads.
func TestTruncatingReader(t *testing.T) {
	dir, fake, _ := mount(t, nil)
	fake.PutRaw(root(t, fake), "f", []byte("old"))
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDONLY|os.O_TRUNC, 0)
	ok(t, err)
	ok(t, f.Close())
	if got := content(t, fake, "f"); got != "" {
		t.Fatalf("the cluster holds %q", got)
	}
}

// When another node answers than before, it is told at once of what is open here: holds
// are memory of the node that was asked.
func TestOpenFilesAreReportedToTheNextNode(t *testing.T) {
	fake := fstest.NewFake("b")
	dir, _ := mountOn(t, fake, func(o *fs.Options) { o.HoldRenew = time.Hour })
	f, err := os.Create(filepath.Join(dir, "f"))
	ok(t, err)
	defer f.Close()
	eventually(t, "the file is held", func() bool { return fake.Held() == 1 })
	fake.SetEndpoint("another node")
	eventually(t, "the file is held there", func() bool { return fake.Held() == 1 })
}
