package fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
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
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sys/unix"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until check is content.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// failing makes the named operation of the cluster fail with a kind.
func failing(op string, k object.Kind) func(context.Context, string) error {
	return func(_ context.Context, o string) error {
		if o == op {
			return &object.Error{Kind: k}
		}
		return nil
	}
}

func root(t testing.TB, fake *fstest.Fake) object.InodeID {
	t.Helper()
	n, err := fake.Lookup(context.Background(), object.RootInode, "b")
	ok(t, err)
	return n.ID
}

// A file that is copied with its attributes costs a create and a write.
func TestCopiedFileCostsTwoRequests(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.CacheTTL = time.Hour }) // however slow the machine is
	_, err := os.Stat(dir)
	ok(t, err)
	fake.Calls()
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	ok(t, err)
	_, err = f.WriteString("content")
	ok(t, err)
	ok(t, f.Chown(1, 2))
	ok(t, f.Chmod(0o600))
	// cp -a sets an ACL that says no more than a mode.
	acl := object.ACL{{Tag: object.ACLUserObj, Perm: 6}, {Tag: object.ACLGroupObj, Perm: 4}, {Tag: object.ACLOther, Perm: 4}}
	ok(t, unix.Fsetxattr(int(f.Fd()), object.XattrACL, acl.Encode(), 0))
	ok(t, f.Close())
	calls := fake.Calls()
	delete(calls, "events")
	if fmt.Sprint(calls) != "map[create:1 lookup:1 write:1]" {
		t.Fatalf("requests: %v", calls)
	}
	n, err := fake.Lookup(t.Context(), root(t, fake), "f")
	ok(t, err)
	if n.Mode != 0o644 || n.UID != 1 || n.GID != 2 || n.Size != 7 {
		t.Fatalf("%+v", n)
	}
}

// What cannot be written is reported by close and by fsync, and written when
// the cluster is well again.
func TestErrorOnClose(t *testing.T) {
	dir, fake, s := mount(t, nil)
	p := filepath.Join(dir, "f")
	f, err := os.Create(p)
	ok(t, err)
	_, err = f.WriteString("keep me")
	ok(t, err)
	fake.SetBefore(failing("write", object.KindNoSpace))
	if err := f.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fsync: %v", err)
	}
	if err := s.Sync(t.Context()); !object.IsKind(err, object.KindNoSpace) {
		t.Fatalf("Sync: %v", err)
	}
	fake.SetBefore(nil)
	ok(t, f.Sync())
	_, err = f.WriteString(" and lose me")
	ok(t, err)
	fake.SetBefore(failing("write", object.KindUnavailable))
	if err := f.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("close: %v", err)
	}
	fake.SetBefore(nil)
	eventually(t, "the file holds what fsync confirmed", func() bool {
		b, err := os.ReadFile(p)
		return err == nil && strings.HasPrefix(string(b), "keep me")
	})
}

// Writers wait for memory; they never take more than there is.
func TestWriteMemoryIsBounded(t *testing.T) {
	const memory = 16 << 20
	dir, fake, s := mount(t, func(o *fs.Options) { o.MemoryBytes = memory })
	var inFlight, most atomic.Int64
	fake.SetBefore(func(_ context.Context, op string) error {
		if op == "write" {
			most.Store(max(most.Load(), inFlight.Add(1)))
			time.Sleep(time.Millisecond)
			inFlight.Add(-1)
		}
		return nil
	})
	body := bytes.Repeat([]byte("0123456789abcdef"), 3<<20)
	errs := make(chan error, 3)
	for i := range 3 {
		go func() { errs <- os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), body, 0o600) }()
	}
	for range 3 {
		ok(t, <-errs)
	}
	if _, peak := fs.WriteMemory(s); peak > memory/2+1<<20 {
		t.Fatalf("%d bytes were buffered, %d allowed", peak, memory/2)
	}
	if used, _ := fs.WriteMemory(s); used != 0 {
		t.Fatalf("%d bytes are still accounted for", used)
	}
	if most.Load() < 2 {
		t.Error("extents were never sent in parallel")
	}
	got, err := os.ReadFile(filepath.Join(dir, "f1"))
	ok(t, err)
	if !bytes.Equal(got, body) {
		t.Fatal("content differs")
	}
}

// A cluster that does not answer ends in EIO at the deadline, and a signal ends
// the wait before.
func TestNoAnswer(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.OpTimeout = 200 * time.Millisecond })
	fake.SetBefore(func(ctx context.Context, op string) error {
		if op == "lookup" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	_, err := os.Stat(filepath.Join(dir, "f"))
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("stat: %v", err)
	}
	fake.SetBefore(nil)
}

// A process that waits for the cluster can be killed, whatever the deadline.
func TestSignalEndsTheWait(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.OpTimeout = time.Hour })
	asked := make(chan struct{}, 8)
	fake.SetBefore(func(ctx context.Context, op string) error {
		if op == "lookup" {
			asked <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	cmd := exec.Command("/bin/ls", filepath.Join(dir, "f"))
	ok(t, cmd.Start())
	<-asked
	ok(t, cmd.Process.Kill())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("a killed process still hangs in the mount")
	}
	fake.SetBefore(nil)
}

// Names that no path can hold, and objects beside a directory, are hidden.
func TestHiddenNames(t *testing.T) {
	dir, fake, s := mount(t, nil)
	b := root(t, fake)
	ok(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
	ok(t, os.Mkdir(filepath.Join(dir, "z"), 0o755))
	for _, name := range []string{"q/r", ".", "..", "x\x00y", strings.Repeat("l", 300), "a", "z", "plain"} {
		fake.PutRaw(b, name, []byte("object"))
	}
	for i := range 1200 {
		fake.PutRaw(b, fmt.Sprintf("a!%04d", i), nil) // between "a" and "a/": on another page
	}
	entries, err := os.ReadDir(dir)
	ok(t, err)
	count := map[string]int{}
	for _, e := range entries {
		count[e.Name()]++
		if (e.Name() == "a" || e.Name() == "z") && !e.IsDir() {
			t.Errorf("object %q is shown beside its directory", e.Name())
		}
	}
	if len(entries) != 1203 || count["a"] != 1 || count["z"] != 1 || count["plain"] != 1 {
		t.Fatalf("%d entries", len(entries))
	}
	if n := fs.Hidden(s); n != 7 {
		t.Fatalf("%d hidden names counted, want 7", n)
	}
	if _, err := os.OpenFile(filepath.Join(dir, "a"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); !errors.Is(err, iofs.ErrExist) {
		t.Fatalf("creating a beside a/: %v", err)
	}
}

// What others change is seen without waiting for a TTL.
func TestChangesElsewhere(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.CacheTTL = time.Hour })
	b, p := root(t, fake), filepath.Join(dir, "f")
	eventually(t, "the stream is open", func() bool { return fake.Calls()["events"] > 0 })
	if _, err := os.Stat(p); !errors.Is(err, iofs.ErrNotExist) {
		t.Fatal(err)
	}
	ino := fake.PutRaw(b, "f", []byte("one"))
	reads := func(want string) func() bool {
		return func() bool { got, err := os.ReadFile(p); return err == nil && string(got) == want }
	}
	eventually(t, "a new file appears", reads("one"))
	f, err := os.Open(p)
	ok(t, err)
	defer f.Close()
	_, err = io.ReadAll(f)
	ok(t, err)
	_, _, err = fake.Write(t.Context(), ino, 1, strings.NewReader("NE, and more"), api.WriteOptions{})
	ok(t, err)
	eventually(t, "an open file shows another's write", func() bool {
		buf := make([]byte, 64)
		n, _ := f.ReadAt(buf, 0)
		return string(buf[:n]) == "oNE, and more"
	})
	eventually(t, "the open file is held", func() bool { return fake.Held() > 0 })
	fake.PutRaw(b, "f", []byte("replaced"))
	eventually(t, "a replaced file appears", reads("replaced"))
	buf := make([]byte, 64)
	if n, _ := f.ReadAt(buf, 0); string(buf[:n]) != "oNE, and more" {
		t.Fatalf("the handle follows the name: %q", buf[:n])
	}
	ok(t, fake.Unlink(t.Context(), b, "f"))
	eventually(t, "a removed file goes", func() bool { _, err := os.Stat(p); return errors.Is(err, iofs.ErrNotExist) })
}

// A directory made or moved here keeps its place in the kernel when the stream
// tells of it: who is in it can still ask where that is.
func TestOwnChangesStay(t *testing.T) {
	dir, fake, _ := mount(t, nil)
	eventually(t, "the stream is open", func() bool { return fake.Calls()["events"] > 0 })
	cmd := exec.Command("/bin/sh", "-ec", `mkdir d0; cd d0; mv ../d0 ../d1; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do /bin/pwd -P; done`)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A close here is seen by an open on another mount, also without any push.
func TestCloseToOpen(t *testing.T) {
	fake := fstest.NewFake("b")
	quiet := func(o *fs.Options) { o.CacheTTL = time.Millisecond }
	d1, _ := mountOn(t, fake, quiet)
	d2, _ := mountOn(t, fake, quiet)
	fake.SetBefore(failing("events", object.KindUnavailable))
	fake.BreakEvents()
	for i := range 50 {
		want := fmt.Sprintf("round %d %s", i, strings.Repeat("x", i*i))
		from, to := d1, d2
		if i%2 == 1 {
			from, to = d2, d1
		}
		ok(t, os.WriteFile(filepath.Join(from, "f"), []byte(want), 0o600))
		time.Sleep(2 * time.Millisecond) // the names' TTL: content has none
		got, err := os.ReadFile(filepath.Join(to, "f"))
		ok(t, err)
		if string(got) != want {
			t.Fatalf("round %d: %.30q is seen, %.30q was closed", i, got, want)
		}
	}
}

// Appends from two mounts at once lose nothing of each other.
func TestAppendFromTwoMounts(t *testing.T) {
	fake := fstest.NewFake("b")
	d1, _ := mountOn(t, fake, nil)
	d2, _ := mountOn(t, fake, nil)
	const rounds = 40
	errs := make(chan error, 2)
	for i, d := range []string{d1, d2} {
		go func() {
			for r := range rounds {
				f, err := os.OpenFile(filepath.Join(d, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
				if err == nil {
					_, err = fmt.Fprintf(f, "%d %d\n", i, r)
					err = errors.Join(err, f.Close())
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	ok(t, <-errs)
	ok(t, <-errs)
	n, err := fake.Lookup(t.Context(), root(t, fake), "log")
	ok(t, err)
	if lines := strings.Count(string(fake.Content(n.ID)), "\n"); lines != 2*rounds {
		t.Fatalf("%d lines, want %d", lines, 2*rounds)
	}
}

// Page cache is kept over an open when nobody else wrote.
func TestKeepsPages(t *testing.T) {
	dir, fake, _ := mount(t, nil)
	fake.PutRaw(root(t, fake), "f", bytes.Repeat([]byte("x"), 50_000))
	reads := func() int {
		_, err := os.ReadFile(filepath.Join(dir, "f"))
		ok(t, err)
		return fake.Calls()["read"]
	}
	// The beginning of the stream, and what it tells of the new file, drop pages.
	eventually(t, "the stream is open", func() bool { return fake.Calls()["events"] > 0 })
	eventually(t, "the pages are kept", func() bool { return reads() == 0 })
	n := 0
	for range 5 {
		n += reads()
	}
	if n != 0 {
		t.Fatalf("%d reads of a file that did not change", n)
	}
}

// The root of all buckets makes and removes buckets.
func TestAllBuckets(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.Bucket = "" })
	ok(t, os.WriteFile(filepath.Join(dir, "b", "f"), []byte("x"), 0o600))
	ok(t, os.Mkdir(filepath.Join(dir, "new"), 0o755))
	_, err := fake.Lookup(t.Context(), object.RootInode, "new")
	ok(t, err)
	ok(t, os.Remove(filepath.Join(dir, "new")))
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); !errors.Is(err, syscall.EACCES) {
		t.Fatalf("a file beside the buckets: %v", err)
	}
}

func TestMountOptions(t *testing.T) {
	fake := fstest.NewFake("b")
	b := root(t, fake)
	fake.PutRaw(b, "f", []byte("x"))
	for _, c := range []struct {
		o    fs.Options
		want object.Kind
	}{
		{fs.Options{Dir: t.TempDir()}, object.KindInvalid},
		{fs.Options{Backend: fake}, object.KindInvalid},
		{fs.Options{Backend: fake, Dir: t.TempDir(), Bucket: "none"}, object.KindBucketNotFound},
		{fs.Options{Backend: fake, Dir: t.TempDir(), Bucket: "b", Prefix: "x/y"}, object.KindNotFound},
		{fs.Options{Backend: fake, Dir: t.TempDir(), Bucket: "b", Prefix: "f"}, object.KindNotDirectory},
		{fs.Options{Backend: fake, Dir: t.TempDir() + "/no", Bucket: "b"}, object.KindNotFound},
		{fs.Options{Backend: fake, Dir: t.TempDir(), Bucket: "b", UIDs: fs.IDMap{{0, 0, 0}}}, object.KindInvalid},
	} {
		if _, err := fs.Mount(t.Context(), c.o); !object.IsKind(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.o, err, c.want)
		}
	}
	dir, _ := mountOn(t, fake, func(o *fs.Options) { o.ReadOnly = true; o.UIDs = fs.IDMap{{1000, 0, 10}} })
	if err := os.WriteFile(filepath.Join(dir, "g"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("writing to a read-only mount: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "f"))
	ok(t, err)
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 1000 {
		t.Fatalf("uid %d, want the mapped 1000", uid)
	}
}

// Unmounting a mount in use is refused, and flushes.
func TestUnmountBusy(t *testing.T) {
	dir, fake, s := mount(t, nil)
	f, err := os.Create(filepath.Join(dir, "f"))
	ok(t, err)
	_, err = f.WriteString("flushed")
	ok(t, err)
	if err := s.Unmount(); !object.IsKind(err, object.KindBusy) {
		t.Fatalf("unmount with an open file: %v", err)
	}
	n, err := fake.Lookup(t.Context(), root(t, fake), "f")
	ok(t, err)
	if string(fake.Content(n.ID)) != "flushed" {
		t.Fatal("unmount did not flush")
	}
	ok(t, f.Close())
	ok(t, s.Unmount())
	if fake.Held() != 0 {
		t.Fatal("files are still held after the mount")
	}
}
