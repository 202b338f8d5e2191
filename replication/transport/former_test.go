package transport

import (
	"errors"
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestFormerClusterIsToldWhy: a node of what a cluster was before its recovery is refused
// on every kind of connection, with and without a secret; other clusters' nodes as before.
func TestFormerClusterIsToldWhy(t *testing.T) {
	s := NewSecret()
	for name, secrets := range map[string][]Secret{"secret": {s}, "plain": nil} {
		t.Run(name, func(t *testing.T) {
			bk := &book{}
			now := open(t, bk, Options{Node: "a", Cluster: "new", Secrets: secrets})
			now.SetFormer([]string{"older", "old"})
			old := open(t, bk, Options{Node: "b", Cluster: "old", Secrets: secrets})
			other := open(t, bk, Options{Node: "c", Cluster: "other", Secrets: secrets})
			addr, err := bk.resolve("a")
			must(t, err)

			_, _, err = old.CallAddress(t.Context(), addr, testMethod, nil)
			if !errors.Is(err, ErrLeftOut) || !object.IsKind(err, object.KindPermission) || !strings.Contains(err.Error(), "recovered without node b") || !strings.Contains(err.Error(), "empty directories") {
				t.Errorf("a call to its address: %v", err)
			}
			if err := echo(t, old, "a", "x"); err == nil {
				t.Error("a call passed")
			}
			if err := echo(t, now, "b", "x"); err == nil {
				t.Error("a call to the old one passed")
			}
			_, _, err = other.CallAddress(t.Context(), addr, testMethod, nil)
			if errors.Is(err, ErrLeftOut) || !object.IsKind(err, object.KindUnauthenticated) {
				t.Errorf("of another cluster: %v", err)
			}
		})
	}
}
