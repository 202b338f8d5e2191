package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
)

// TestReadme runs the blocks of README.md that are marked "sh example", in
// order, against a node, in a copy of what they use.
func TestReadme(t *testing.T) {
	need.FUSE(t)
	need.Command(t, "curl")
	root, err := harness.Root()
	check(t, err)
	raw, err := os.ReadFile(filepath.Join(root, "README.md"))
	check(t, err)
	n := startNode(t)
	dir := t.TempDir()
	sh(t, dir, `cp -r "$1/README.md" "$1/storage" . && mkdir bin && cp "$2" bin/bucketdb`, root, bin(t))
	t.Cleanup(func() { _ = syscall.Unmount(dir+"/mnt", syscall.MNT_DETACH) }) // where the test failed
	t.Setenv("BUCKETDB_ENDPOINT", n.URL())
	t.Setenv("XDG_CACHE_HOME", dir)

	blocks := fenced(string(raw), "sh example")
	if len(blocks) < 3 {
		t.Fatalf("README.md has %d example blocks", len(blocks))
	}
	for _, block := range blocks {
		block = strings.ReplaceAll(block, "http://127.0.0.1:9080", n.URL())
		block = strings.ReplaceAll(block, "curl -sS", "curl -sS --fail-with-body")
		block = strings.ReplaceAll(block, "/tmp/", dir+"/")
		sh(t, dir, block)
	}
	wantWords(t, string(raw), "make run", "make test")
}

// fenced lists the fenced blocks of a Markdown text that carry the given info string.
func fenced(text, info string) (blocks []string) {
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, "\n```"+info+"\n")
		if !ok {
			return blocks
		}
		block, next, _ := strings.Cut(after, "```")
		blocks, rest = append(blocks, block), next
	}
}
