package layers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/skshohagmiah/bucketdb"

// floors gives each package its floor; it may import what stands lower. A new
// package declares its floor here.
var floors = map[string]int{
	"storage/object":    0,
	"storage/vfs":       1,
	"storage/erasure":   1,
	"integration/need":  1,
	"integration/proxy": 1,
	"integration/posix": 1,

	"storage/chunk":         2,
	"storage/meta":          2,
	"replication/wal":       2,
	"replication/placement": 2,
	"storage":               3,
	"replication/group":     3,
	"replication/control":   3, // namespace is to carry its commands
	"replication/namespace": 4,
	"replication/copies":    5,
	"replication/pins":      5,
	"replication/recovery":  4,
	"replication/remote":    4,
	"replication/transport": 4,
	"replication/access":    5,
	"replication/steward":   5, // access is given to it as functions
	"server/api":            5,
	"fs":                    6,
	"fs/fstest":             7,
	"replication":           6,
	"":                      7, // bucketdb, the library
	"server":                8,
	"server/auth":           7,
	"server/s3":             8,
	"server/dashboard":      8,
	"integration/layers":    9,
	"integration":           10,
	"integration/harness":   8,
	"integration/linear":    1,
	"integration/bench":     11,
	"cmd/bucketdb":          11,
}

// onlyStd lists the packages that import the standard library alone.
var onlyStd = []string{"storage/object", "integration/need", "integration/proxy"}

// unreachable names what a package must not import, not even through others.
var unreachable = map[string][]string{
	"fs":         {"github.com/dgraph-io/badger", "github.com/hashicorp/raft", "github.com/gin-gonic/gin"},
	"server/api": {"github.com/dgraph-io/badger", "github.com/hashicorp/raft", "github.com/gin-gonic/gin", "github.com/hanwen/go-fuse"},
	"":           {"github.com/gin-gonic/gin", "github.com/hanwen/go-fuse", "github.com/spf13/cobra"},
	"server":     {"github.com/hanwen/go-fuse", "github.com/spf13/cobra"},
}

// pkg is what `go list -json` tells of one package.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
	Error      *struct{ Err string }
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range list(t) {
		for _, v := range violations(p) {
			t.Error(v)
		}
	}
}

// violations says what a package imports that it must not.
func violations(p pkg) (found []string) {
	name := relative(p.ImportPath)
	floor, declared := floors[name]
	if !declared {
		return []string{p.ImportPath + " has no floor: declare it in integration/layers"}
	}
	for _, imported := range p.Imports {
		first, _, _ := strings.Cut(imported, "/")
		below := floors[relative(imported)]
		switch {
		case ours(imported) && below >= floor:
			found = append(found, fmt.Sprintf("%s (floor %d) imports %s (floor %d): imports point down", p.ImportPath, floor, imported, below))
		case !ours(imported) && strings.Contains(first, ".") && slices.Contains(onlyStd, name):
			found = append(found, fmt.Sprintf("%s imports %s: it may import the standard library only", p.ImportPath, imported))
		}
	}
	return found
}

func TestUnreachable(t *testing.T) {
	for _, p := range list(t) {
		for _, banned := range unreachable[relative(p.ImportPath)] {
			for _, dep := range p.Deps {
				if dep == banned || strings.HasPrefix(dep, banned+"/") {
					t.Errorf("%s reaches %s", p.ImportPath, dep)
				}
			}
		}
	}
}

// TestThisTestCatches plants imports that point up, sideways and outside.
func TestThisTestCatches(t *testing.T) {
	for _, planted := range []pkg{
		{ImportPath: module + "/replication", Imports: []string{module + "/server"}},
		{ImportPath: module + "/fs", Imports: []string{module + "/replication"}},
		{ImportPath: module + "/storage/object", Imports: []string{"golang.org/x/sys/unix"}},
		{ImportPath: module + "/nowhere"},
	} {
		if len(violations(planted)) != 1 {
			t.Errorf("%v was not caught", planted)
		}
	}
	if v := violations(pkg{ImportPath: module + "/server", Imports: []string{module, "io/fs", "github.com/gin-gonic/gin"}}); v != nil {
		t.Error(v)
	}
}

// list asks the go command for the module's packages, tests aside.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps,Standard,Error", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Logf("%s", exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Error == nil || !strings.Contains(p.Error.Err, "no non-test Go files") {
			pkgs = append(pkgs, p)
		}
	}
	if len(pkgs) < 5 {
		t.Fatalf("go list shows %d packages only", len(pkgs))
	}
	return pkgs
}

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func relative(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}
