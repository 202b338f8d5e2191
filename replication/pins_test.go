package replication

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// longLeases is a node whose leases last for far longer than a step of a test
// takes; it reclaims nothing by itself for as long.
func longLeases(t *testing.T) (*Node, context.Context) {
	t.Helper()
	cfg := testConfig(t)
	cfg.Partitions, cfg.LeasePeriod = 2, 4*time.Second
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	return n, t.Context()
}

// A reader whose pin does not hold any more, whatever its clock says, ends: what
// was reclaimed under it looks like holes, and must not be answered as zeros.
func TestReaderWithoutItsPinEnds(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	d := mkdirs(t, n, "a")
	f := newFile(t, n, d, "f", "")
	big := randomBytes(5, 200_000)
	write := func() {
		t.Helper()
		if _, _, err := n.Write(ctx, f.ID, 0, bytes.NewReader(big), WriteOptions{Size: int64(len(big))}); err != nil {
			t.Fatal(err)
		}
	}
	write()
	r, err := n.OpenInode(ctx, f.ID)
	if err != nil {
		t.Fatal(err)
	}
	r.pin.Release() // as if its node had been waited for in vain
	r.leased = false
	chunks := countChunks(t, n)
	write()
	waitFor(t, "the old version to go", func() bool { return countChunks(t, n) == chunks })
	var b bytes.Buffer
	wantKind(t, r.WriteRange(ctx, &b, 0, int64(len(big))), object.KindUnavailable)
	if b.Len() > 0 {
		t.Fatalf("%d bytes of a version that is gone", b.Len())
	}
	_, _, err = r.page(ctx, 0, int64(len(big)))
	wantKind(t, err, object.KindUnavailable)
	fresh, err := n.OpenInode(ctx, f.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	b.Reset()
	if err := fresh.WriteRange(ctx, &b, 0, int64(len(big))); err != nil || !bytes.Equal(b.Bytes(), big) {
		t.Fatalf("the version in force: %d bytes, %v", b.Len(), err)
	}
}

// An open file that is written over again and again keeps what is in force, not
// every version that it ever had.
func TestOpenFileKeepsNoOldVersions(t *testing.T) {
	n, ctx := longLeases(t)
	d := mkdirs(t, n, "a")
	f := newFile(t, n, d, "f", "")
	s := newUploadID()
	if err := n.Hold(ctx, s, []object.InodeID{f.ID}); err != nil {
		t.Fatal(err)
	}
	big := randomBytes(6, 200_000)
	for range 8 {
		if _, _, err := n.Write(ctx, f.ID, 0, bytes.NewReader(big), WriteOptions{Size: int64(len(big))}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "old versions to go while the file is open", func() bool {
		if err := n.Hold(ctx, s, []object.InodeID{f.ID}); err != nil {
			t.Fatal(err)
		}
		return countChunks(t, n) <= 4
	})
}

// A hold on a file without a name is answered by the log: what was found to be
// garbage before it is spared, however late the entry comes.
func TestHoldAgainstALateReclaim(t *testing.T) {
	n, ctx := longLeases(t)
	d := mkdirs(t, n, "a")
	f, g := newFile(t, n, d, "f", "kept"), newFile(t, n, d, "g", "gone")
	other, mine := newUploadID(), newUploadID()
	both := []object.InodeID{f.ID, g.ID}
	if err := n.Hold(ctx, other, both); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "g"} {
		if err := n.Unlink(ctx, d, name); err != nil {
			t.Fatal(err)
		}
	}
	// A leader has listed them, and asked all nodes.
	p := n.parts[f.ID.Partition()]
	seen := p.here.Load().machine.Applied()
	v := p.here.Load().machine.View()
	list, err := v.Garbage(0, 0, 100)
	v.Close()
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	// The session asks for one of them at a node that did not know of it.
	if err := n.Hold(ctx, mine, []object.InodeID{f.ID}); err != nil {
		t.Fatal(err)
	}
	spared, err := n.reclaimItems(p, &namespace.Reclaim{Items: list, Seen: seen})
	if err != nil || !spared {
		t.Fatal(spared, err)
	}
	if content(t, n, f.ID) != "kept" {
		t.Fatal("a held file changed")
	}
	wantKind(t, n.Hold(ctx, mine, both), object.KindStale)
	if err := n.Release(ctx, other, both); err != nil {
		t.Fatal(err)
	}
	// The garbage is still known as such.
	waitFor(t, "the file to go when nobody renews", func() bool { _, err := n.GetAttr(ctx, f.ID); return err != nil })
}
