package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/server/api"
)

func TestStartStop(t *testing.T) {
	n := startNode(t)
	c := client(t, n, api.ClientOptions{})
	_, err := c.CreateBucket(t.Context(), "box", "admin")
	check(t, err)
	_, err = c.Put(t.Context(), "box", "k", strings.NewReader("kept"), api.PutOptions{})
	check(t, err)
	check(t, n.Stop())
	start := time.Now()
	check(t, n.Start(t.Context()))
	t.Logf("ready after %s", time.Since(start).Round(time.Millisecond))
	if got := cli(t, n, "cat", "box/k"); got != "kept" {
		t.Fatalf("the object is %q", got)
	}
	if got := cli(t, n, "health"); !strings.Contains(got, "is ready") {
		t.Fatal(got)
	}
	if got := cli(t, n, "cluster", "status"); !strings.Contains(got, "partitions  ") {
		t.Fatal(got)
	}
}

// refused runs a server that must not start, and returns its complaint.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin(t), append([]string{"server"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() < 1 || ctx.Err() != nil {
		t.Fatalf("%q was not refused: %v\n%s", args, err, out)
	}
	return string(out)
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func TestRefusals(t *testing.T) {
	n := startNode(t)
	free, err := harness.FreeAddress()
	check(t, err)
	here := []string{"-metadata", n.Metadata(), "-storage", n.Storage()}
	fresh := func() []string { d := t.TempDir(); return []string{"-metadata", d + "/m", "-storage", d + "/c"} }

	wantWords(t, refused(t, append(here, "-api", free)...), "Another process has this store open", "-metadata")
	wantWords(t, refused(t, append(fresh(), "-api", n.API)...), "address already in use", "-api")
	wantWords(t, refused(t, append(fresh(), "-api", "0.0.0.0:0")...), "--allow-anonymous", "credentials")
	wantWords(t, refused(t, append(fresh(), "-api", ":0")...), "--allow-anonymous")
	wantWords(t, refused(t, append(fresh(), "-api", free, "-join", "10.0.0.1:8080")...), "--cluster-secret-file")
	wantWords(t, refused(t, append(fresh(), "-api", free, "-compression", "lz4")...), "CompressionType", "snappy")
}

// TestShutdownFinishesRequests ends a server while a body is half sent: the
// upload completes, and then the process ends with code 0.
func TestShutdownFinishesRequests(t *testing.T) {
	n := startNode(t)
	c := client(t, n, api.ClientOptions{})
	_, err := c.CreateBucket(t.Context(), "box", "")
	check(t, err)

	body := make([]byte, 200_000)
	_, _ = rand.Read(body) // never fails
	r, w := io.Pipe()
	answer, reading := make(chan error, 1), make(chan struct{})
	go func() {
		// The server says "continue" when it reads the body: from then on the
		// request is in flight, not just a connection nobody accepted yet.
		trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
		req, err := http.NewRequestWithContext(trace, http.MethodPut, n.URL()+"/objects/box/slow", r)
		if err == nil {
			req.Header.Set("Expect", "100-continue")
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusCreated {
					err = errors.New(resp.Status)
				}
			}
		}
		answer <- err
	}()
	_, err = w.Write(body[:100_000])
	check(t, err)
	select {
	case <-reading:
	case err := <-answer:
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop() }()
	check(t, harness.Poll(t.Context(), 10*time.Second, func() error { // it accepts no more
		conn, err := net.DialTimeout("tcp", n.API, time.Second)
		if err == nil {
			conn.Close()
			return errors.New("it still listens")
		}
		return nil
	}))
	_, err = w.Write(body[100_000:])
	check(t, err)
	check(t, w.Close())
	check(t, <-answer)
	check(t, <-stopped)
	check(t, n.Start(t.Context()))
	if got := cli(t, n, "cat", "box/slow"); got != string(body) {
		t.Fatal("the acknowledged object differs")
	}
}

func TestCLI(t *testing.T) {
	n := startNode(t)
	dir := t.TempDir()
	sh(t, dir, `mkdir -p tree/sub; head -c 300000 /dev/urandom > tree/a; echo two > tree/sub/b; : > tree/empty`)
	cli(t, n, "mb", "store", "other", "--owner", "me")
	cli(t, n, "cp", "-r", "-p", dir+"/tree", "bd://store/up/")
	if got := cli(t, n, "ls", "-r", "store"); !strings.Contains(got, "300000  up/tree/a\n") || !strings.Contains(got, "up/tree/sub/b\n") {
		t.Fatal(got)
	}
	wantWords(t, cli(t, n, "ls", "store/up/tree/"), "DIR  up/tree/sub/", "0  up/tree/empty")
	cli(t, n, "cp", "-r", "-p", "bd://store/up/tree", dir+"/down")
	sh(t, dir, `diff -r tree down && [ tree/a -nt down/a ] && exit 1; [ "$(stat -c %Y tree/a)" = "$(stat -c %Y down/a)" ]`)
	cli(t, n, "cp", "bd://store/up/tree/a", "bd://other/copy")
	cli(t, n, "mv", "store/up/tree/", "store/moved")
	cli(t, n, "cp", "-r", "bd://store/moved/", "bd://other/all/")
	wantWords(t, cli(t, n, "ls", "-r", "other"), "copy", "all/moved/sub/b")
	wantWords(t, cli(t, n, "stat", "other/copy"), "300000", "etag")
	wantWords(t, cli(t, n, "stat", "--json", "other"), `"owner":"me"`)
	if got := cli(t, n, "cat", "store/moved/sub/b"); got != "two\n" {
		t.Fatalf("%q", got)
	}
	cli(t, n, "mb", "twice", "--scheme", "replicated:2")
	wantWords(t, cli(t, n, "stat", "twice"), "storage", "replicated:2")
	wantWords(t, cli(t, n, "storage", "other"), "replicated:3")
	cli(t, n, "storage", "twice", "replicated:1")
	wantWords(t, cli(t, n, "storage", "--json", "twice"), `"storage":{"type":"replicated","copies":1}`)
	for _, args := range [][]string{{"mb", "coded", "--scheme", "rs:4+2"}, {"storage", "twice", "rs:4+2"}} {
		if out, err := tryCLI(t, n, args...); err == nil || !strings.Contains(out, "needs 6 nodes") || !strings.Contains(out, "the cluster has 1") {
			t.Fatalf("%v %s", err, out)
		}
	}
	if out, err := tryCLI(t, n, "storage", "twice", "4+2"); err == nil || !strings.Contains(out, "rs:4+2") {
		t.Fatalf("%v %s", err, out)
	}
	cli(t, n, "rb", "twice")
	if out, err := tryCLI(t, n, "rb", "other"); err == nil || !strings.Contains(out, "--force") {
		t.Fatalf("%v %s", err, out)
	}
	cli(t, n, "rb", "--force", "other")
	cli(t, n, "rm", "-r", "store/moved")
	cli(t, n, "rb", "store")
	if got := cli(t, n, "ls"); got != "" {
		t.Fatal(got)
	}
}

// TestLargeFileByCLI goes up in parts and comes back whole.
func TestLargeFileByCLI(t *testing.T) {
	n := startNode(t)
	dir := t.TempDir()
	sh(t, dir, `head -c 300M /dev/urandom > big`)
	cli(t, n, "mb", "box")
	cli(t, n, "cp", dir+"/big", "bd://box/")
	cli(t, n, "cp", "bd://box/big", dir+"/back")
	sh(t, dir, `cmp big back`)
	peak, err := n.PeakMemory()
	check(t, err)
	t.Logf("the server's peak memory is %d MB", peak>>20)
	if peak > 256<<20 {
		t.Errorf("the server used %d MB", peak>>20)
	}
}
