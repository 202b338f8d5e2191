// Package need says what a test needs of the machine: without it the test is
// skipped, or fails where BUCKETDB_REQUIRE_ALL=1 (in CI) forbids skipping.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// All reports whether nothing may be skipped.
func All() bool { return os.Getenv("BUCKETDB_REQUIRE_ALL") == "1" }

// Full reports whether the full sizes and rounds are wanted (make full).
func Full() bool { return os.Getenv("BUCKETDB_FULL") == "1" }

// Size is full where the full sizes are wanted, else quick.
func Size[T any](quick, full T) T {
	if Full() {
		return full
	}
	return quick
}

// Skip skips the test, or fails it where nothing may be skipped.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if All() {
		t.Fatalf("BUCKETDB_REQUIRE_ALL=1 and "+format, args...)
	}
	t.Skipf(format, args...)
}

// FUSE needs a machine that can mount.
func FUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		Skip(t, "/dev/fuse cannot be opened: %v", err)
	}
	f.Close()
	Command(t, "fusermount3")
}

// Root needs to be root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "this test needs root")
	}
}

// Command needs programs.
func Command(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Skip(t, "%s is not installed (scripts/setup.sh does it)", name)
		}
	}
}
