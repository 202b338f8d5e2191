package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// A downloaded file is as private as the umask wants it.
func TestDownloadKeepsToTheUmask(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "secret") }))
	defer srv.Close()
	defer syscall.Umask(syscall.Umask(0o027))
	path := filepath.Join(t.TempDir(), "file")
	var errs bytes.Buffer
	code := run(t.Context(), []string{"cp", "bd://box/file", path, "--endpoint", srv.URL}, streams{in: strings.NewReader(""), out: io.Discard, err: &errs}, noEnv)
	if code != exitOK {
		t.Fatal(errs.String())
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 || info.Size() != 6 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// An interrupted rm -r removes no more directories.
func TestRemoveOfDirectoriesCanBeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var deleted atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			deleted.Add(1)
			cancel()
			return
		}
		page := api.ObjectList{}
		for _, key := range []api.Name{"d/a/", "d/b/", "d/c/"} {
			page.Objects = append(page.Objects, api.Object{Bucket: "box", Key: key})
		}
		if err := json.NewEncoder(w).Encode(page); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	code := run(ctx, []string{"rm", "-r", "box/d", "--endpoint", srv.URL}, streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, noEnv)
	if code == exitOK || deleted.Load() != 1 {
		t.Errorf("exit code %d after %d removals", code, deleted.Load())
	}
}
