package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/skshohagmiah/bucketdb"
)

// settled runs the settling of a server command line and returns its flags.
func settled(t *testing.T, env lookupEnv, args ...string) (*cobra.Command, error) {
	t.Helper()
	root := newRoot(streams{}, env)
	server := child(root, "server")
	server.RunE = func(*cobra.Command, []string) error { return nil }
	root.SetArgs(normalise(root, args))
	return server, root.ExecuteContext(t.Context())
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	file := write(t, "c.yaml", "id: file\nmetadata: /file\nchunk-size: 8M\nmetadata-reserve: 1 GiB\nstorage: [/f1, /f2]\nallow-anonymous: true\nendpoint: [http://x]\n")
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"BUCKETDB_ID": "env", "BUCKETDB_METADATA": "/env", "BUCKETDB_CONFIG": file}[name]
		return v, ok
	}
	c, err := settled(t, env, "-id", "flag")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"id": "flag", "metadata": "/env", "chunk-size": "8M", "metadata-reserve": "1G", "storage": "[/f1,/f2]", "allow-anonymous": "true", "api": "127.0.0.1:9080",
	} {
		if got := c.Flags().Lookup(name).Value.String(); got != want {
			t.Errorf("%s is %s, not %s", name, got, want)
		}
	}
}

func TestMetadataReserve(t *testing.T) {
	for text, want := range map[string]int64{"": bucketdb.DefaultMetadataReserve, "1G": 1 << 30, "0": -1} {
		env := func(name string) (string, bool) { return text, name == "BUCKETDB_METADATA_RESERVE" }
		c, err := settled(t, env)
		if err != nil {
			t.Fatal(err)
		}
		s := serverFlags{storage: []string{"c"}, metadata: "m", partitions: 1, chunkSize: 4 << 20, maxObject: 1, compression: "none"}
		if err := s.reserve.Set(c.Flags().Lookup("metadata-reserve").Value.String()); err != nil {
			t.Fatal(err)
		}
		cfg, err := s.config(nil)
		if err != nil || cfg.MetadataReserve != want {
			t.Errorf("%q is %+v, %v; want %d", text, cfg, err, want)
		}
	}
}

func TestFileFormats(t *testing.T) {
	for name, text := range map[string]string{
		"c.yaml": "id: x\nstorage: [/a, /b]\n",
		"c.toml": "id = \"x\"\nstorage = [\"/a\", \"/b\"]\n",
		"c.json": `{"id": "x", "storage": ["/a", "/b"]}`,
	} {
		c, err := settled(t, noEnv, "--config", write(t, name, text))
		if err != nil {
			t.Fatal(err)
		}
		if id, dirs := c.Flags().Lookup("id").Value.String(), c.Flags().Lookup("storage").Value.String(); id != "x" || dirs != "[/a,/b]" {
			t.Errorf("%s: id %s, storage %s", name, id, dirs)
		}
	}
}

func TestBadSettings(t *testing.T) {
	env := func(name string) (string, bool) { return "many", name == "BUCKETDB_PARTITIONS" }
	for _, c := range []struct {
		env        lookupEnv
		file, text string
		says       string
	}{
		{noEnv, "c.yaml", "idd: x\n", `unknown setting "idd"`},
		{noEnv, "c.yaml", "id: {x: y}\n", `unknown setting "id.x"`},
		{noEnv, "c.ini", "id=x\n", "ends in .yaml, .toml or .json"},
		{noEnv, "c.toml", "id = \n", "config file"},
		{noEnv, "c.json", `{"partitions": "many"}`, "partitions"},
		{env, "c.json", `{}`, "BUCKETDB_PARTITIONS"},
	} {
		_, err := settled(t, c.env, "--config", write(t, c.file, c.text))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %q: %v; want in it: %s", c.file, c.text, err, c.says)
		}
	}
	if _, err := settled(t, noEnv, "--config", "/nowhere.yaml"); err == nil {
		t.Error("a missing file passes")
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "512": "512", "4194304": "4M", "4M": "4M", "4MiB": "4M", "4 mb": "4M", "5GB": "5G", "1T": "1T", "1536K": "1536K",
	} {
		var s size
		if err := s.Set(text); err != nil || s.String() != want {
			t.Errorf("%q is %s, %v; want %s", text, s.String(), err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1.5G", "4X", "4MM", "9223372036854775807K", "99999999999999999999"} {
		if err := new(size).Set(text); err == nil {
			t.Errorf("%q passes", text)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"4M", "0", "5 GB", "x", "12KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again size
		if s.Set(text) != nil {
			return
		}
		if s < 0 {
			t.Fatalf("%q is %d", text, s)
		}
		if err := again.Set(s.String()); err != nil || again != s {
			t.Fatalf("%q is %d, and %q is %d, %v", text, s, s.String(), again, err)
		}
	})
}

func TestLocations(t *testing.T) {
	for _, c := range []struct{ target, name, want string }{
		{"bd://b", "f", "bd://b/f"},
		{"bd://b/", "f", "bd://b/f"},
		{"bd://b/d/", "f", "bd://b/d/f"},
		{"bd://b/k", "f", "bd://b/k"},
		{"b/d/", "sub/", "bd://b/d/sub/"},
	} {
		l, err := parseRemote("", c.target)
		if err != nil || l.into(c.name).String() != c.want {
			t.Errorf("%s into %s: %s, %v", c.name, c.target, l.into(c.name), err)
		}
	}
	if l, err := parseRemote("", "bd:///k"); err == nil {
		t.Errorf("no bucket passes as %v", l)
	}
	if got := (location{"b", "x/y/"}).base(); got != "y/" {
		t.Error(got)
	}
	if got := (location{"b", "x"}).under("r").String(); got != "bd://b/x/r" {
		t.Error(got)
	}
}

func TestPartSizes(t *testing.T) {
	for _, n := range []int64{1, multipartFrom, 10 << 30, 640 << 30, 700 << 30, 1 << 50} {
		each := partSizeFor(n)
		if parts := (n + each - 1) / each; parts > maxParts || each < partSize {
			t.Errorf("%d bytes: %d parts of %d", n, parts, each)
		}
	}
}
