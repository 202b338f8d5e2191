package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// mounted is a node with one bucket, "box", mounted whole.
func mounted(t *testing.T) (*harness.Node, *harness.Mount) {
	t.Helper()
	need.FUSE(t)
	n := startNode(t)
	cli(t, n, "mb", "box")
	return n, mount(t, n, "box")
}

// sourceTree is a real source tree in a directory "tree": Go's own (part of it
// in CI), with a symbolic and a hard link, odd modes and odd times added.
func sourceTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	goroot := strings.TrimSpace(sh(t, dir, "go env GOROOT"))
	parts := need.Size("net os", "*")
	sh(t, dir, fmt.Sprintf(`mkdir tree; (cd %s/src && cp -a %s "$1/tree/")
		cd tree; first=$(find . -name '*.go' -print -quit)
		ln -s "$first" symlink; ln -s nowhere dangling; ln "$first" hardlink; mkdir -m 2750 odd; echo x > odd/setuid; chmod 4711 odd/setuid
		touch -d '2001-02-03 04:05:06.123456789' odd/setuid; echo 'ünïcode and blank' > 'ä file'; : > empty; head -c 5000000 /dev/urandom > large
		truncate -s 3000000 sparse; printf x >> sparse; mkfifo odd/fifo`, goroot, parts), dir)
	return dir
}

// facts lists what a tree must keep: names, types, modes, owners, link counts,
// sizes, times to the nanosecond, link targets.
const facts = `cd "$1" && find . \( -type d -printf '%P %y %m %U %G %T@\n' \) -o -printf '%P %y %m %U %G %n %s %T@ %l\n' | sort`

func TestRealTree(t *testing.T) {
	need.Command(t, "rsync")
	need.Root(t)
	src := sourceTree(t)
	n, m := mounted(t)
	baseline, err := n.ChunkBytes()
	check(t, err)

	sh(t, src, `cp -a tree "$1/"`, m.Dir)
	sh(t, src, `diff -r --no-dereference -x fifo tree "$1/tree"`, m.Dir)
	if want, got := sh(t, src, facts, "tree"), sh(t, src, facts, m.Dir+"/tree"); got != want {
		t.Errorf("facts differ:\n%s", lineDiff(t, want, got))
	}
	sh(t, src, `[ "$1/tree/hardlink" -ef "$1/tree/$(readlink tree/symlink)" ]`, m.Dir)
	if out := sh(t, src, `rsync -aH -i tree/ "$1/tree/"`, m.Dir); out != "" {
		t.Errorf("rsync -a -i has something to do after cp -a:\n%s", tail(out, 2000))
	}
	sh(t, src, `rsync -aH tree/ "$1/again/"`, m.Dir)
	if out := sh(t, src, `rsync -aH -i tree/ "$1/again/"`, m.Dir); out != "" {
		t.Errorf("a second rsync -a -i transfers:\n%s", tail(out, 2000))
	}
	sh(t, src, `tar -C "$1/tree" -cf - . | tar -xpf - -C "$(mkdir -p "$1/untar" && echo "$1/untar")" && diff -r --no-dereference -x fifo tree "$1/untar"`, m.Dir)

	rest := sh(t, src, `find "$1/tree" -type f | wc -l`, m.Dir)
	files := strings.Count(cli(t, n, "ls", "-r", "box/tree/"), "\n")
	t.Logf("%s files in the mount, %d keys in the bucket", strings.TrimSpace(rest), files)

	moveTree(t, m.Dir)
	sh(t, src, `rm -rf "$1"/moved "$1"/again "$1"/untar && [ -z "$(ls -A "$1")" ]`, m.Dir)
	if out := cli(t, n, "ls", "-r", "box"); out != "" {
		t.Errorf("after rm -rf the bucket holds:\n%s", tail(out, 2000))
	}
	check(t, harness.Poll(t.Context(), 90*time.Second, func() error {
		now, err := n.ChunkBytes()
		if err == nil && now > baseline+1<<20 {
			err = fmt.Errorf("%d MB of chunks are still on disk", now>>20)
		}
		return err
	}))
}

// moveTree renames the whole tree and one file; the tree may not take longer,
// but for what the clock's noise makes of a few milliseconds.
func moveTree(t *testing.T, dir string) {
	t.Helper()
	check(t, os.WriteFile(dir+"/one", []byte("x"), 0o600))
	shortest := func(from, to string) time.Duration {
		best := time.Hour
		for range 3 {
			start := time.Now()
			check(t, os.Rename(dir+"/"+from, dir+"/"+to))
			best = min(best, time.Since(start))
			check(t, os.Rename(dir+"/"+to, dir+"/"+from))
		}
		return best
	}
	file, tree := shortest("one", "two"), shortest("tree", "moved")
	t.Logf("mv of one file %s, of the tree %s", file, tree)
	if tree > 20*file+200*time.Millisecond {
		t.Errorf("mv of the tree takes %s, of one file %s", tree, file)
	}
	check(t, os.Remove(dir+"/one"))
	check(t, os.Rename(dir+"/tree", dir+"/moved"))
}

// lineDiff shows where two texts differ.
func lineDiff(t *testing.T, want, got string) string {
	t.Helper()
	dir := t.TempDir()
	check(t, os.WriteFile(dir+"/want", []byte(want), 0o600))
	check(t, os.WriteFile(dir+"/got", []byte(got), 0o600))
	return sh(t, dir, `diff want got | head -40 || true`)
}

func TestGit(t *testing.T) {
	need.Command(t, "git")
	_, m := mounted(t)
	src := t.TempDir()
	sh(t, src, `git init -q -b main origin && cp -a "$(go env GOROOT)/src/`+need.Size("os", "net")+`" origin/x && cd origin && git add . && git commit -qm one && git gc -q`)
	sh(t, m.Dir, `git clone -q --no-hardlinks "$1/origin" clone && cd clone && git fsck --strict && [ -z "$(git status --porcelain)" ]`, src)
	sh(t, m.Dir, `cd clone && echo more > new && git add new && git commit -qm two && git mv x y && git commit -qm three && git gc -q && git fsck --strict`)
	sh(t, m.Dir, `git clone -q clone twin && diff -r -x .git clone twin && cd twin && [ -z "$(git status --porcelain)" ]`)
}

func TestSQLite(t *testing.T) {
	need.Command(t, "sqlite3")
	_, m := mounted(t)
	out := sh(t, m.Dir, `
		sqlite3 t.db "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);"
		for i in 1 2 3 4 5; do
		  sqlite3 t.db "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO t(v) SELECT randomblob(500) FROM n; COMMIT;"
		  sqlite3 t.db "UPDATE t SET v = randomblob(700) WHERE id % 7 = $i;"
		done
		sqlite3 t.db "DELETE FROM t WHERE id % 3 = 0; VACUUM; PRAGMA integrity_check; SELECT count(*) FROM t;"`)
	if out != "ok\n667\n" {
		t.Errorf("SQLite says %q", out)
	}
}

func TestGoBuild(t *testing.T) {
	_, m := mounted(t)
	sh(t, m.Dir, `mkdir prog && cd prog && cat > go.mod <<-X
		module prog

		go 1.26
	X
	cat > main.go <<-X
		package main

		import "fmt"

		func main() { fmt.Println("built in the mount") }
	X
	go build -o prog . && [ "$(./prog)" = "built in the mount" ] && go vet .`)
}

// TestOneNamespace looks at the same objects through every door.
func TestOneNamespace(t *testing.T) {
	n, m := mounted(t)
	c := client(t, n, api.ClientOptions{})
	_, err := c.Put(t.Context(), "box", "from/rest.txt", strings.NewReader("by REST"), api.PutOptions{})
	check(t, err)
	if got := sh(t, m.Dir, `cat from/rest.txt`); got != "by REST" {
		t.Errorf("the mount shows %q", got)
	}
	sh(t, m.Dir, `mkdir to && echo -n 'by mount' > to/file && sync to/file`)
	if got := cli(t, n, "cat", "box/to/file"); got != "by mount" {
		t.Errorf("REST shows %q", got)
	}
	// A replaced object: who has the old one open goes on reading it.
	f, err := os.Open(m.Dir + "/from/rest.txt")
	check(t, err)
	defer f.Close()
	_, err = c.Put(t.Context(), "box", "from/rest.txt", strings.NewReader("replaced"), api.PutOptions{})
	check(t, err)
	buf := make([]byte, 20)
	if k, _ := f.ReadAt(buf, 0); string(buf[:k]) != "by REST" { // io.EOF
		t.Errorf("the open file shows %q", buf[:k])
	}
	check(t, harness.Poll(t.Context(), 10*time.Second, func() error {
		got, err := os.ReadFile(m.Dir + "/from/rest.txt")
		if err == nil && string(got) != "replaced" {
			err = fmt.Errorf("the mount shows %q", got)
		}
		return err
	}))
	// Object a beside directory a/: the mount shows the directory.
	for key, text := range map[string]string{"a": "file", "a/b": "below"} {
		_, err = c.Put(t.Context(), "box", key, strings.NewReader(text), api.PutOptions{})
		check(t, err)
	}
	check(t, harness.Poll(t.Context(), 10*time.Second, func() error {
		info, err := os.Stat(m.Dir + "/a")
		if err == nil && !info.IsDir() {
			err = errors.New("a is no directory")
		}
		return err
	}))
	if _, err := os.OpenFile(m.Dir+"/a", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("creating a beside a/: %v", err)
	}
}

// TestUnmountFlushes writes and leaves at once: all of it is in the store.
func TestUnmountFlushes(t *testing.T) {
	n, m := mounted(t)
	sh(t, m.Dir, `for i in $(seq 50); do head -c 100000 /dev/zero | tr '\0' x > f$i; done`)
	check(t, m.Unmount())
	if harness.Mounted(m.Dir) {
		t.Fatal("it is still mounted")
	}
	if out := cli(t, n, "ls", "box"); strings.Count(out, "100000  f") != 50 {
		t.Fatalf("the bucket holds:\n%s", out)
	}
}

func TestBackgroundMount(t *testing.T) {
	need.FUSE(t)
	n := startNode(t)
	cli(t, n, "mb", "box")
	dir := filepath.Join(t.TempDir(), "mnt")
	check(t, os.Mkdir(dir, 0o755))
	log := filepath.Join(t.TempDir(), "log")
	cli(t, n, "mount", dir, "--background", "--log-file", log)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // where the test failed
	sh(t, dir, `[ "$(ls)" = box ] && echo hello > box/f && mkdir new && [ "$(cat box/f)" = hello ]`)
	cli(t, n, "umount", dir)
	if harness.Mounted(dir) {
		t.Fatal("it is still mounted")
	}
	if got := cli(t, n, "ls"); strings.Count(got, "\n") != 2 {
		t.Fatalf("mkdir in the root makes a bucket; there are:\n%s", got)
	}
	if out, err := tryCLI(t, n, "mount", "nobucket", dir, "--background", "--log-file", log); err == nil || !strings.Contains(out, "no bucket") {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tryCLI(t, n, "mount", dir+"/none", "--background", "--log-file", log); err == nil || !strings.Contains(out, "no such file") {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestReadOnlyMount refuses changes and shows a directory of a bucket.
func TestReadOnlyMount(t *testing.T) {
	need.FUSE(t)
	n := startNode(t)
	cli(t, n, "mb", "box")
	c := client(t, n, api.ClientOptions{})
	_, err := c.Put(t.Context(), "box", "d/e/f", strings.NewReader("x"), api.PutOptions{})
	check(t, err)
	m := mount(t, n, "box/d", "--read-only")
	if got, err := os.ReadFile(m.Dir + "/e/f"); err != nil || string(got) != "x" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := os.WriteFile(m.Dir+"/e/g", nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("a write: %v", err)
	}
}
