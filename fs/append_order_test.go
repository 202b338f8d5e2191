package fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/fs/fstest"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sys/unix"
)

const piece = 4 << 20

func slowWriteback(o *fs.Options) { o.WritebackDelay = time.Hour }

// appendElsewhere appends as another mount does.
func appendElsewhere(t testing.TB, fake *fstest.Fake, ino object.InodeID, s string) {
	ctx := context.WithValue(context.Background(), elsewhere{}, true)
	if _, _, err := fake.Write(ctx, ino, 0, strings.NewReader(s), api.WriteOptions{Append: true}); err != nil {
		t.Error(err)
	}
}

// between runs do before each request op of the mount but the first.
func between(fake *fstest.Fake, op string, do func()) {
	var n atomic.Int64
	fake.SetBefore(func(ctx context.Context, o string) error {
		if o == op && ctx.Value(elsewhere{}) == nil && n.Add(1) > 1 {
			do()
		}
		return nil
	})
}

// openLog opens the bucket's file "log" of content, for writing unless flags say otherwise.
func openLog(t testing.TB, dir string, fake *fstest.Fake, content []byte, flags int) (*os.File, object.InodeID) {
	t.Helper()
	if flags&os.O_RDWR == 0 {
		flags |= os.O_WRONLY
	}
	ino := fake.PutRaw(root(t, fake), "log", content)
	f, err := os.OpenFile(filepath.Join(dir, "log"), flags, 0)
	ok(t, err)
	t.Cleanup(func() { f.Close() })
	return f, ino
}

func line(t testing.TB, f *os.File, s string) {
	t.Helper()
	_, err := f.WriteString(s)
	ok(t, err)
}

// What one write(2) appends arrives in one piece, wherever the file's end is.
func TestAppendIsNotTorn(t *testing.T) {
	dir, fake, _ := mount(t, slowWriteback)
	f, ino := openLog(t, dir, fake, bytes.Repeat([]byte("."), piece-2), os.O_APPEND)
	line(t, f, "line\n")
	between(fake, "write", func() { appendElsewhere(t, fake, ino, "other\n") })
	ok(t, f.Sync())
	if got := content(t, fake, "log")[piece-2:]; !strings.Contains(got, "line\n") {
		t.Fatalf("%q", got)
	}
}

// So do many of them, whose sum is more than one request takes, and which the
// kernel would cut at the ends of its pages.
func TestAppendsAreCutBetweenWrites(t *testing.T) {
	for name, mode := range map[string]int{"write only": os.O_WRONLY, "read and write": os.O_RDWR} {
		t.Run(name, func(t *testing.T) {
			dir, fake, s := mount(t, slowWriteback)
			if mode == os.O_RDWR && !fs.MapsDirect(s) {
				need.Skip(t, "this kernel cuts at the ends of pages what is open for reading too: it is older than 6.6")
			}
			f, ino := openLog(t, dir, fake, nil, os.O_APPEND|mode)
			between(fake, "write", func() { appendElsewhere(t, fake, ino, "|") })
			const size, count = 1_000_003, 9
			for i := range count {
				ok(t, writev(f, bytes.Repeat([]byte{byte('a' + i)}, size)))
			}
			ok(t, f.Sync())
			got := content(t, fake, "log")
			for i := range count {
				c := string(rune('a' + i))
				if n := strings.LastIndex(got, c) + 1 - strings.Index(got, c); n != size {
					t.Errorf("write %d of %d bytes lies in %d", i, size, n)
				}
			}
			if !strings.Contains(got, "|") {
				t.Error("the test had no other's append come between")
			}
		})
	}
}

// writev writes p from two buffers in one call.
func writev(f *os.File, p []byte) error {
	n, err := unix.Writev(int(f.Fd()), [][]byte{p[:7], p[7:]})
	if err == nil && n != len(p) {
		return io.ErrShortWrite
	}
	return err
}

// Who reads through the kernel's pages sees what was appended past them.
func TestReaderSeesAppends(t *testing.T) {
	dir, fake, _ := mount(t, func(o *fs.Options) { o.CacheTTL = time.Hour })
	f, _ := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
	r, err := os.Open(filepath.Join(dir, "log"))
	ok(t, err)
	defer r.Close()
	want := "0123456789"
	for i := range 50 {
		got := make([]byte, 4096)
		if n, err := r.ReadAt(got, 0); err != io.EOF || string(got[:n]) != want {
			t.Fatalf("round %d: %q, %v, want %q", i, got[:n], err, want)
		}
		s := fmt.Sprintf("line %d\n", i)
		line(t, f, s)
		want += s
	}
}

// A file that is open for appending can be mapped, and the mapping's pages and
// what is appended get on.
func TestMapBesideAppends(t *testing.T) {
	dir, fake, _ := mount(t, nil)
	fake.PutRaw(root(t, fake), "log", []byte("0123456789"))
	fstest.MapAppended(t, filepath.Join(dir, "log"))
	if got := content(t, fake, "log"); got != "012M456789mine\n" {
		t.Fatalf("%q", got)
	}
}

// positional are changes that need to know where the bytes are that were
// appended before them, and what the file holds after "0123456789", another
// mount's "other\n", our "mine\n", and then each of them.
var positional = map[string]struct {
	change func(dir string, f *os.File) error
	want   string
}{
	"pwrite": {func(dir string, _ *os.File) error {
		g, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = g.WriteAt([]byte("M"), 14)
		return errors.Join(err, g.Close())
	}, "0123456789otheM\nmine\n"},
	"extend": {func(_ string, f *os.File) error { return f.Truncate(23) }, "0123456789other\nmine\n\x00\x00"},
	"cut":    {func(_ string, f *os.File) error { return f.Truncate(18) }, "0123456789other\nmi"},
	"empty":  {func(_ string, f *os.File) error { return f.Truncate(0) }, ""},
}

// Bytes appended and not sent yet neither overwrite what another mount appended
// meanwhile nor are overwritten, whatever else is done to the file.
func TestPositionalChangeAfterAppend(t *testing.T) {
	for name, c := range positional {
		t.Run(name, func(t *testing.T) {
			dir, fake, _ := mount(t, slowWriteback)
			f, ino := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
			line(t, f, "mine\n")
			appendElsewhere(t, fake, ino, "other\n")
			ok(t, c.change(dir, f))
			ok(t, f.Sync())
			if got := content(t, fake, "log"); got != c.want {
				t.Fatalf("%q, want %q", got, c.want)
			}
		})
	}
}

// The same while the appended bytes are on their way, and that fails: they come
// back under nothing that has a place, and where they may be lost the change fails.
func TestPositionalChangeWhileAppendFails(t *testing.T) {
	for kind, want := range map[object.Kind]string{object.KindNoSpace: positional["pwrite"].want, object.KindUnavailable: "0123456789other\n"} {
		t.Run(kind.String(), func(t *testing.T) {
			dir, fake, s := mount(t, slowWriteback)
			f, ino := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
			g, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY, 0)
			ok(t, err)
			defer g.Close()
			line(t, f, "mine\n")
			asked, answer := make(chan struct{}), make(chan struct{})
			fake.SetBefore(func(ctx context.Context, op string) error {
				if op != "write" || ctx.Value(elsewhere{}) != nil {
					return nil
				}
				fake.SetBefore(nil)
				close(asked)
				<-answer
				return &object.Error{Kind: kind}
			})
			synced, changed := make(chan error, 1), make(chan error, 1)
			go func() { synced <- s.Sync(context.Background()) }()
			<-asked
			appendElsewhere(t, fake, ino, "other\n")
			go func() { _, err := g.WriteAt([]byte("M"), 14); changed <- err }()
			eventually(t, "the write waits for what is appended before it", func() bool { return fs.Settling(s) == 1 })
			close(answer)
			if err := <-synced; !object.IsKind(err, kind) {
				t.Fatalf("Sync: %v", err)
			}
			if err := <-changed; kind == object.KindNoSpace {
				ok(t, err)
				ok(t, g.Sync())
			} else if !errors.Is(err, syscall.EIO) {
				t.Fatalf("the write after a lost append: %v", err)
			}
			if got := content(t, fake, "log"); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		})
	}
}

// A change that needs the appends sent fails when they cannot be. They are kept
// and sent later, without it; where they may be lost, fsync tells that too.
func TestPositionalChangeFailsWithTheAppend(t *testing.T) {
	for kind, errno := range map[object.Kind]syscall.Errno{object.KindNoSpace: syscall.ENOSPC, object.KindUnavailable: syscall.EIO} {
		for name, change := range map[string]func(g *os.File) error{
			"pwrite": func(g *os.File) error { _, err := g.WriteAt([]byte("M"), 14); return err },
			"extend": func(g *os.File) error { return g.Truncate(23) },
		} {
			t.Run(name+" "+kind.String(), func(t *testing.T) {
				dir, fake, s := mount(t, slowWriteback)
				f, _ := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
				// An open may stat the file, and that sends what it has.
				g, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY, 0)
				ok(t, err)
				defer g.Close()
				line(t, f, "mine\n")
				fake.SetBefore(failing("write", kind))
				if err := change(g); !errors.Is(err, errno) {
					t.Fatalf("%v, want %v", err, errno)
				}
				fake.SetBefore(nil)
				want, err := "0123456789", f.Sync()
				if kind == object.KindNoSpace {
					ok(t, err)
					want += "mine\n"
				} else if !errors.Is(err, syscall.EIO) {
					t.Fatalf("fsync: %v, and the appended bytes are lost", err)
				}
				if got := content(t, fake, "log"); got != want {
					t.Fatalf("%q, want %q", got, want)
				}
				_ = s.Sync(t.Context())
			})
		}
	}
}

// Emptying a file needs nothing sent: it helps when there is no space.
func TestEmptyingDropsAppends(t *testing.T) {
	dir, fake, _ := mount(t, slowWriteback)
	f, _ := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
	line(t, f, "mine\n")
	fake.SetBefore(failing("write", object.KindNoSpace))
	ok(t, f.Truncate(0))
	ok(t, f.Sync())
	fake.SetBefore(nil)
	line(t, f, "after\n")
	ok(t, f.Sync())
	if got := content(t, fake, "log"); got != "after\n" {
		t.Fatalf("%q", got)
	}
}

// Appends behind a truncation are appends: what others append after it stays.
func TestAppendAfterTruncate(t *testing.T) {
	dir, fake, _ := mount(t, slowWriteback)
	f, ino := openLog(t, dir, fake, []byte("old"), os.O_APPEND|os.O_TRUNC)
	var once sync.Once
	fake.SetBefore(func(ctx context.Context, op string) error {
		if op == "write" && ctx.Value(elsewhere{}) == nil {
			once.Do(func() { appendElsewhere(t, fake, ino, "other\n") })
		}
		return nil
	})
	big := strings.Repeat("m", 1<<20-1)
	for range 5 {
		line(t, f, big)
	}
	ok(t, f.Sync())
	if got, want := content(t, fake, "log"), "other\n"+strings.Repeat(big, 5); got != want {
		t.Fatalf("%.20q… (%d bytes), want %.20q… (%d)", got, len(got), want, len(want))
	}
}

// A file that was cut and made longer is that long before anything is appended.
func TestAppendAfterGrowing(t *testing.T) {
	dir, fake, _ := mount(t, slowWriteback)
	f, _ := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
	ok(t, f.Truncate(2))
	ok(t, f.Truncate(5))
	line(t, f, "mine\n")
	ok(t, f.Sync())
	if got := content(t, fake, "log"); got != "01\x00\x00\x00mine\n" {
		t.Fatalf("%q", got)
	}
}

// A truncation that the cluster has made is not made again when something
// behind it failed: what others wrote since stays.
func TestCutIsMadeOnce(t *testing.T) {
	dir, fake, _ := mount(t, slowWriteback)
	f, ino := openLog(t, dir, fake, []byte("0123456789"), 0)
	ok(t, f.Truncate(2))
	ok(t, f.Truncate(30))
	_, err := f.WriteAt([]byte("AB"), 4)
	ok(t, err)
	_, err = f.WriteAt([]byte("CD"), 8)
	ok(t, err)
	fake.SetBefore(failing("write", object.KindNoSpace))
	if err := f.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	fake.SetBefore(nil)
	ctx := context.WithValue(t.Context(), elsewhere{}, true)
	if _, _, err := fake.Write(ctx, ino, 2, strings.NewReader("other"), api.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	ok(t, f.Sync())
	if got, want := content(t, fake, "log"), "01otABerCD"+strings.Repeat("\x00", 20); !strings.HasPrefix(got, "01ot") || len(got) != len(want) {
		t.Fatalf("%q", got)
	}
}

// Programs of two mounts append while one writes far behind the end, again and
// again: each line is there once, whole, and nobody starves.
func TestAppendersBesidePositionalWriter(t *testing.T) {
	fake := fstest.NewFake("b")
	d1, _ := mountOn(t, fake, nil)
	d2, _ := mountOn(t, fake, nil)
	g, _ := openLog(t, d1, fake, nil, 0)
	const rounds = 60
	var wg sync.WaitGroup
	for i, d := range []string{d1, d1, d2} {
		f, err := os.OpenFile(filepath.Join(d, "log"), os.O_WRONLY|os.O_APPEND, 0)
		ok(t, err)
		wg.Go(func() {
			defer f.Close()
			for r := range rounds {
				if _, err := fmt.Fprintf(f, "<%d %d>\n", i, r); err != nil {
					t.Error(err)
				}
				if r%20 == 19 {
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for k := range 6 {
		_, err := g.WriteAt([]byte("#"), int64(k+1)<<16)
		ok(t, err)
	}
	wg.Wait()
	ok(t, g.Sync())
	seen := map[string]int{}
	for _, l := range regexp.MustCompile(`<\d \d+>\n`).FindAllString(content(t, fake, "log"), -1) {
		seen[l]++
	}
	for i := range 3 {
		for r := range rounds {
			if l := fmt.Sprintf("<%d %d>\n", i, r); seen[l] != 1 {
				t.Errorf("%q is there %d times", l, seen[l])
			}
		}
	}
}

// A loss that nobody was told of yet is told to who opens the file after it, too.
func TestLaterOpenHearsOfAnUntoldLoss(t *testing.T) {
	dir, fake, s := mount(t, slowWriteback)
	f, ino := openLog(t, dir, fake, []byte("0123456789"), os.O_APPEND)
	line(t, f, "mine\n")
	fake.SetBefore(failing("write", object.KindUnavailable))
	fs.Flush(s, ino) // as a stat does, which tells nobody
	fake.SetBefore(nil)
	for i, want := range []error{syscall.EIO, nil} { // the second open comes after somebody was told
		g, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY, 0)
		ok(t, err)
		if err := g.Sync(); !errors.Is(err, want) {
			t.Errorf("open %d: fsync: %v, want %v", i, err, want)
		}
		ok(t, g.Close())
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("who appended: fsync: %v", err)
	}
}
