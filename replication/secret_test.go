package replication

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestTheSecretIsMadeOnceAndKept(t *testing.T) {
	cfg := Config{MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 2}
	path := filepath.Join(cfg.MetadataPath, secretName)
	open := func() (string, error) {
		n, err := Open(context.Background(), cfg)
		if err != nil {
			return "", err
		}
		text := n.secret.Reveal()
		return text, n.Close()
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the secret's file has mode %v: others can read it", info.Mode())
	}
	if again, err := open(); err != nil || again != first {
		t.Fatalf("after a restart the secret is another one (%v)", err)
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
		if _, err := open(); !object.IsKind(err, object.KindCorrupt) {
			t.Errorf("%s: %v, want a KindCorrupt", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(damaged) {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
	if err := os.Remove(path); err != nil { // a store that was made before there were secrets
		t.Fatal(err)
	}
	if made, err := open(); err != nil || made == first {
		t.Errorf("a store without a secret: %v", err)
	}
}
