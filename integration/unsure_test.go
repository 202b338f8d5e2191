package integration

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// deaf is a connection that carries changes of files' attributes and contents
// to the server, and loses the answers while it is on.
type deaf struct{ on atomic.Bool }

func (d *deaf) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && d.on.Load() && r.Method != http.MethodGet && strings.HasPrefix(r.URL.Path, "/fs/inodes/") {
		resp.Body.Close()
		return nil, errors.New("the answer is lost")
	}
	return resp, err
}

// TestTruncateIsMadeOnce: a mount's truncation, whose answers are all lost until
// its close was told so, does not cut what another appends before it is retried.
func TestTruncateIsMadeOnce(t *testing.T) {
	need.FUSE(t)
	n := startNode(t)
	cli(t, n, "mb", "box")
	line := &deaf{}
	c := client(t, n, api.ClientOptions{HTTPClient: &http.Client{Transport: line}, Retries: 1})
	dir := t.TempDir()
	m, err := fs.Mount(t.Context(), fs.Options{Backend: fs.NewBackend(c), Bucket: "box", Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	check(t, err)
	defer func() { check(t, m.Unmount()) }()
	other := client(t, n, api.ClientOptions{})
	name := filepath.Join(dir, "log")
	for what, change := range map[string]struct {
		flags int
		do    func(f *os.File) error
		want  string
	}{
		"ftruncate":  {0, func(f *os.File) error { return f.Truncate(4) }, "0123other"},
		"O_TRUNC":    {os.O_TRUNC, func(f *os.File) error { return nil }, "other"},
		"echo > log": {os.O_TRUNC, func(f *os.File) error { _, err := f.WriteString("mine\n"); return err }, "mine\nother"},
		"cut and write": {0, func(f *os.File) error {
			_, err := f.WriteAt([]byte("M"), 1)
			return errors.Join(f.Truncate(4), err)
		}, "0M23other"},
	} {
		check(t, os.WriteFile(name, []byte("0123456789"), 0o600))
		f, err := os.OpenFile(name, os.O_WRONLY|change.flags, 0)
		check(t, err)
		line.on.Store(true)
		check(t, change.do(f))
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("%s: fsync: %v", what, err)
		}
		ino, err := other.Resolve(t.Context(), "box", "log")
		check(t, err)
		_, _, err = other.Append(t.Context(), ino.ID, strings.NewReader("other"), api.WriteOptions{})
		check(t, err)
		line.on.Store(false)
		check(t, errors.Join(f.Sync(), f.Close()))
		if got := cli(t, n, "cat", "box/log"); got != change.want {
			t.Errorf("%s: the file holds %q, want %q", what, got, change.want)
		}
	}
}
