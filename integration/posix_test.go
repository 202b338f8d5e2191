package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/integration/posix"
)

// What the mount cannot do is argued in fs/DESIGN.md.
func missingInMount() map[string]string {
	const later = "not done yet"
	return map[string]string{
		"directory removed":                  "a directory that is open without its name answers ESTALE",
		"rename times of what was moved":     "the ctime of what was renamed stays where its inode lives in another partition than the directory",
		"rename exchange across directories": "not done yet where the directories are of two partitions",
		"rename exchange of directories":     later,
		"tmpfile":                            later, "tmpfile linked": later, "tmpfile exclusive": later, "tmpfile by a user": later,
	}
}

// Our POSIX suite on a mount of a server, all of it in processes of their own.
func TestPOSIXSuite(t *testing.T) {
	need.FUSE(t)
	need.Root(t) // other users enter, and a read-only mount
	n := startNode(t)
	cli(t, n, "mb", "box")
	m := mount(t, n, "box", "--allow-other")
	check(t, os.Chmod(m.Dir, 0o755))
	for dir := filepath.Dir(m.Dir); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		check(t, os.Chmod(dir, 0o755)) // testing makes them for root alone
	}
	sh(t, m.Dir, `mkdir ro suite; mkdir ro/d; echo x > ro/f; ln -s f ro/l; chmod 777 suite`)
	ro := mount(t, n, "box/ro", "--read-only")
	posix.Run(t, posix.Options{Dir: m.Dir + "/suite", Elsewhere: t.TempDir(), ReadOnly: ro.Dir, MountPoint: m.Dir, Missing: missingInMount()})
}

// go-fuse's own suite, whole.
func TestGoFuseSuite(t *testing.T) {
	_, m := mounted(t)
	missing := map[string]string{
		// It wants a process to be refused its own lock; go-fuse leaves it out, too.
		"FcntlFlockLocksFile": "it fails on every filesystem: fcntl(2) locks belong to the process"}
	for name, run := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := missing[name]; why != "" {
				t.Skip(why)
			}
			dir := filepath.Join(m.Dir, name)
			check(t, os.Mkdir(dir, 0o755))
			run(t, dir)
			check(t, os.RemoveAll(dir))
		})
	}
}
