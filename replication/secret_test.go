package replication

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// opened starts a node, and says what its current secret is, and the token.
func opened(t *testing.T, cfg Config) (secret, token string, err error) {
	t.Helper()
	n, err := Open(t.Context(), cfg)
	if err != nil {
		return "", "", err
	}
	if len(n.secrets) > 0 {
		secret = n.secrets[0].Reveal()
	}
	return secret, n.JoinToken(), n.Close()
}

func TestTheSecretIsMadeOnceAndKept(t *testing.T) {
	// All addresses of this machine: others could come.
	cfg := Config{MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 2, Peer: "0.0.0.0:0", Advertise: "127.0.0.1"}
	path := filepath.Join(cfg.MetadataPath, secretName)
	first, token, err := opened(t, cfg)
	if err != nil || first == "" || token != first {
		t.Fatalf("the first start has the token %q of %q: %v", token, first, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the secret's file has mode %v: others can read it", info.Mode())
	}
	if again, token, err := opened(t, cfg); err != nil || again != first || token != "" {
		t.Fatalf("after a restart the secret is another one, or shown again (%v)", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{"cut off": b[:len(b)/2], "empty": {}, "a typo": append([]byte("bdb1-a"), b[6:]...)} {
		if string(damaged) == string(b) {
			continue
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := opened(t, cfg); !object.IsKind(err, object.KindCorrupt) {
			t.Errorf("%s: %v, want a KindCorrupt", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(damaged) {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if again, _, err := opened(t, cfg); err != nil || again != first {
		t.Errorf("without its file the secret is not found with the cluster's name: %v", err)
	}
}

// On loopback a cluster has no secret until it is given one; then it keeps that.
func TestSecretsThatAreGiven(t *testing.T) {
	cfg := Config{MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 2, Peer: "127.0.0.1:0"}
	if s, token, err := opened(t, cfg); err != nil || s != "" || token != "" {
		t.Fatalf("on loopback: secret %q, token %q, %v", s, token, err)
	}
	given := transport.NewSecret().Reveal()
	cfg.Secret = given
	if s, token, err := opened(t, cfg); err != nil || s != given || token != "" {
		t.Fatalf("given one: %v", err)
	}
	cfg.Secret, cfg.SecretFile = "", filepath.Join(t.TempDir(), "secrets")
	for text, want := range map[string]string{
		"":                               "is empty",
		"bdb1-nonsense":                  "the cluster's secret",
		"# nothing but a comment\n\n":    "no secret in it",
		given + "\nhello\n":              "the cluster's secret",
		strings.Repeat("x", secretLimit): "",
	} {
		if err := os.WriteFile(cfg.SecretFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := opened(t, cfg); !object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want a KindInvalid with %q", text, err, want)
		}
	}
	both := cfg
	both.Secret = given
	if _, _, err := opened(t, both); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("given twice: %v", err)
	}
	cfg.SecretFile += ".missing"
	if _, _, err := opened(t, cfg); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("without its file: %v", err)
	}
	cfg.SecretFile = ""
	if s, _, err := opened(t, cfg); err != nil || s != given {
		t.Errorf("it was not kept: %v", err)
	}
}

// What was changed last counts: a text that a node is given at every start does not bring back
// what was taken out of the file; another text does count. No copy keeps what is out of use.
func TestTheSecretThatWasChangedLast(t *testing.T) {
	first, second, third := transport.NewSecret().Reveal(), transport.NewSecret().Reveal(), transport.NewSecret().Reveal()
	cfg := Config{MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 2, Peer: "127.0.0.1:0", Secret: first}
	file := filepath.Join(cfg.MetadataPath, secretName)
	starts := func(when, text, want string) {
		t.Helper()
		cfg.Secret = text
		if s, _, err := opened(t, cfg); err != nil || s != want {
			t.Errorf("%s: the wrong secret is current (%v)", when, err)
		}
		id, err := steward.LoadIdentity(vfs.OS(), cfg.MetadataPath)
		if err != nil || len(id.Secrets) != 1 || id.Secrets[0].Reveal() != want {
			t.Errorf("%s: CLUSTER.json has another (%v)", when, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != want+"\n" {
			t.Errorf("%s: %s has another (%v)", when, secretName, err)
		}
	}
	starts("the first start", first, first)
	if err := os.WriteFile(file, []byte(second+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	starts("the file was changed", first, second)
	starts("and once more", first, second)
	starts("without the text", "", second)
	starts("another text", third, third)
	starts("the same again", third, third)
	starts("without it", "", third)
	starts("the text of before a start without one", third, third)
	if err := os.WriteFile(file, []byte(second+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	starts("the file was changed again", third, second)
	starts("without it again", "", second)
	starts("the same text, which is another than none", third, third)
}

// A text that was given before is news after a start that was given a file.
func TestASecretAsTextAfterAFile(t *testing.T) {
	first, second := transport.NewSecret().Reveal(), transport.NewSecret().Reveal()
	file := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(file, []byte(second+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 2, Peer: "127.0.0.1:0"}
	for i, c := range []struct{ text, file, want string }{{first, "", first}, {"", file, second}, {"", file, second}, {first, "", first}, {first, "", first}} {
		cfg.Secret, cfg.SecretFile = c.text, c.file
		if s, _, err := opened(t, cfg); err != nil || s != c.want {
			t.Errorf("start %d: the wrong secret is current (%v)", i, err)
		}
	}
}

// A file that is not there yet is made by the node that founds the cluster, and by no other.
func TestTheFounderMakesTheSecretsFile(t *testing.T) {
	cfg := Config{MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 2, Peer: "127.0.0.1:0", SecretFile: filepath.Join(t.TempDir(), "secret")}
	joins := cfg
	joins.MetadataPath, joins.StoragePaths, joins.Join = t.TempDir(), []string{t.TempDir()}, []string{"127.0.0.1:1"}
	if _, _, err := opened(t, joins); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("a joiner without the file: %v", err)
	}
	secret, token, err := opened(t, cfg)
	if err != nil || secret == "" || token != secret {
		t.Fatalf("secret %q, token %q, %v", secret, token, err)
	}
	if b, err := os.ReadFile(cfg.SecretFile); err != nil || string(b) != secret+"\n" {
		t.Errorf("the file has %q: %v", b, err)
	}
	if err := os.Remove(cfg.SecretFile); err != nil {
		t.Fatal(err)
	}
	if _, _, err := opened(t, cfg); !object.IsKind(err, object.KindInvalid) {
		t.Errorf("a file that is gone later: %v", err)
	}
}

func TestJoiningOffLoopbackNeedsTheSecret(t *testing.T) {
	cfg := Config{MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 2, Peer: "127.0.0.1:0", Join: []string{"192.0.2.1:8080"}}
	if _, _, err := opened(t, cfg); !object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), "--cluster-secret-file") {
		t.Errorf("%v", err)
	}
	cfg.Peer, cfg.Join = "", []string{"127.0.0.1:1"}
	if _, _, err := opened(t, cfg); !object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), "-http") {
		t.Errorf("without an address: %v", err)
	}
}

func TestAddressesThatOthersReach(t *testing.T) {
	for _, c := range []struct{ host, want string }{{"node1", "node1:80"}, {"node1:90", "node1:90"}, {"::1", "[::1]:80"}, {"[::1]", "[::1]:80"}, {"[::1]:90", "[::1]:90"}} {
		if got := reachedAt(c.host, 80); got != c.want {
			t.Errorf("%s: %s, want %s", c.host, got, c.want)
		}
	}
	n := &Node{peerAddress: "10.0.0.1:8080"}
	for api, want := range map[string]string{"0.0.0.0:9080": "10.0.0.1:9080", ":9080": "10.0.0.1:9080", "[::]:9080": "10.0.0.1:9080", "127.0.0.1:9080": "127.0.0.1:9080", "name:9080": "name:9080", "": ""} {
		if n.cfg.API = api; n.apiAddress() != want {
			t.Errorf("%q: %q, want %q", api, n.apiAddress(), want)
		}
	}
	for a, want := range map[string]bool{"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, ":1": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "name:1": false, "nonsense": false} {
		if onLoopback(a) != want {
			t.Errorf("%q: %v", a, !want)
		}
	}
}

// The secret is changed while two nodes run: the new one is added, made the first, and
// the old one taken out; meanwhile every write succeeds.
func TestSecretsChangeUnderLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	first, second := transport.NewSecret(), transport.NewSecret()
	write := func(secrets ...transport.Secret) {
		t.Helper()
		var text string
		for _, s := range secrets {
			text += s.Reveal() + "\n"
		}
		if err := vfs.WriteBytes(vfs.OS(), opSecret, file, 0o600, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	nodes := twoNodes(t, func(_ int, cfg *Config) { cfg.SecretFile = file })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := nodes[i%2].Put(ctx, "box", "k", strings.NewReader("v"), PutOptions{Size: 1}); err != nil && ctx.Err() == nil {
				failed <- err
				return
			}
		}
	}()
	trusts := func(n *Node, want ...transport.Secret) func() bool {
		return func() bool {
			kept, err := n.keptSecrets(&steward.Identity{})
			return err == nil && len(kept) == len(want) && kept[0] == want[0]
		}
	}
	for _, step := range [][]transport.Secret{{first, second}, {second, first}, {second}} {
		write(step...)
		for _, n := range nodes {
			waitFor(t, "the secrets to change", trusts(n, step...))
		}
	}
	stop()
	if err := <-failed; err != nil {
		t.Error(err)
	}
	for _, n := range nodes { // the old one does not stay with the cluster's name
		waitFor(t, "CLUSTER.json to follow", func() bool {
			id, err := steward.LoadIdentity(n.cfg.FS, n.cfg.MetadataPath)
			return err == nil && slices.Equal(id.Secrets, []transport.Secret{second})
		})
	}
	// Who has the old one only gets nothing.
	w, err := transport.Open(transport.Options{Node: "stranger", Secrets: []transport.Secret{first}, Resolve: func(string) (string, error) { return nodes[0].peerAddress, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := w.CallAddress(short, nodes[0].peerAddress, steward.MethodJoin, nil); err == nil {
		t.Error("the old secret still opens the door")
	}
}
