package replication

import (
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// A disk that hangs while it is asked how full it is keeps nobody who looks at the node.
func TestUsageOfAHungDisk(t *testing.T) {
	faulty, gate := vfs.NewFaulty(vfs.OS()), make(chan struct{})
	cfg := testConfig(t)
	cfg.FS = faulty
	n := openNode(t, cfg)
	faulty.Set(chunk.OpUsage, vfs.Rule{Block: gate})
	waitFor(t, "the answer before to be too old", func() bool {
		_, err := n.Usage(t.Context())
		return object.IsKind(err, object.KindTimeout)
	})
	if f := n.facts(t.Context()); f.Ready {
		t.Error("a node whose disk hangs is ready")
	}
	close(gate)
	waitFor(t, "the disk's answer", func() bool { u, err := n.Usage(t.Context()); return err == nil && u.TotalBytes > 0 })
}
