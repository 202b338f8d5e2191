package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
)

func noEnv(string) (string, bool) { return "", false }

// try runs a command line and returns the exit code and what it wrote.
func try(t testing.TB, env lookupEnv, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what would wait for the network or a signal ends at once
	code = run(ctx, args, streams{in: strings.NewReader(""), out: &o, err: &e}, env)
	return code, o.String(), e.String()
}

func TestNormalise(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "server"},
		{"-bootstrap=true -id n1", "server --bootstrap=true --id n1"},
		{"-id n1 -api 127.0.0.1:1 -storage a,b", "server --id n1 --api 127.0.0.1:1 --storage a,b"},
		{"--id n1 -bootstrap", "server --id n1 --bootstrap"},
		{"server -id n1", "server --id n1"},
		{"-log-level debug ls -r b", "--log-level debug ls -r b"},
		{"-id ls", "server --id ls"},
		{"-log-level=debug", "server --log-level=debug"},
		{"rm -rf b/k", "rm -rf b/k"},
		{"cp -r - bd://b/k", "cp -r - bd://b/k"},
		{"cp -recursive -- -quiet bd://b/", "cp --recursive -- -quiet bd://b/"},
		{"mount -endpoint http://x /mnt", "mount --endpoint http://x /mnt"},
		{"cluster status -endpoint x", "cluster status --endpoint x"},
		{"cluster check -json -timeout 1m", "cluster check --json --timeout 1m"},
		{"-metadata-reserve 1G", "server --metadata-reserve 1G"},
		{"--help", "--help"},
		{"-version", "--version"},
		{"nonsense -id", "nonsense -id"},
	} {
		root := newRoot(streams{}, noEnv)
		if got := normalise(root, strings.Fields(c.in)); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q became %q, not %q", c.in, strings.Join(got, " "), c.want)
		}
	}
}

func FuzzNormalise(f *testing.F) {
	f.Add("-bootstrap=true\n-id\nn1")
	f.Add("rm\n-rf\nb/k")
	f.Add("--\n-x\n=\n-\n--=")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\n")
		got := normalise(newRoot(streams{}, noEnv), args)
		if len(got) < len(args) || len(got) > len(args)+1 {
			t.Fatalf("%q became %q", args, got)
		}
		for i, arg := range args {
			if as := got[len(got)-len(args)+i]; as != arg && as != "-"+arg {
				t.Fatalf("%q became %q", arg, as)
			}
		}
	})
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"version", exitOK, "bucketdb "},
		{"--version", exitOK, "bucketdb "},
		{"-version", exitOK, "bucketdb "},
		{"--help", exitOK, "mount"},
		{"lss", exitUsage, `there is no command "lss"; did you mean ls`},
		{"ls --nonsense", exitUsage, "Try 'bucketdb ls --help'."},
		{"ls a b", exitUsage, "accepts at most 1 arg"},
		{"cp a b", exitUsage, "neither"},
		{"cp -j 0 a bd://b/", exitUsage, "--jobs is 0"},
		{"cat bd://b", exitUsage, "add the object's key"},
		{"rm b", exitUsage, "add the object's key"},
		{"stat /k", exitUsage, "names no bucket"},
		{"cluster status x", exitUsage, "unknown command"},
		{"cluster check x", exitUsage, "unknown command"},
		{"cluster check --timeout 0", exitUsage, "--timeout is 0s"},
		{"-metadata-reserve 1.5G", exitUsage, "not a size"},
		{"--log-level loud ls", exitUsage, "--log-level"},
		{"-join 10.0.0.1:8080", exitFailure, "--cluster-secret-file"},
		{"-join 10.0.0.1", exitUsage, "host:port"},
		{"-join 10.0.0.1:8080 -bootstrap", exitUsage, "give one of them"},
		{"-partitions 0", exitUsage, "Partitions is 0"},
		{"-compression lz4", exitUsage, "CompressionType"},
		{"-chunk-size 4Q", exitUsage, "not a size"},
		{"-storage d -metadata d/e", exitUsage, "lie in each other"},
		{"ls --endpoint 127.0.0.1:1", exitFailure, ""},
		{"umount /nowhere/at/all", exitFailure, "unmount /nowhere/at/all"},
	} {
		code, out, errs := try(t, noEnv, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%q: exit %d (want %d)\nout: %s\nerr: %s\nwant in it: %s", c.args, code, c.code, out, errs, c.says)
		}
		if code != exitOK && !strings.HasPrefix(errs, "bucketdb: ") {
			t.Errorf("%q: the error starts unlike one: %s", c.args, errs)
		}
	}
}
