package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// However many sessions are idle, one round ends them all, and no others.
func TestAllIdleSessionsEndInOneRound(t *testing.T) {
	n, ctx := nodeOf(t, 1)
	d := mkdirs(t, n, "d")
	long := newUploadID() // one with more results than one entry drops
	for i := range 2*tidyBatch + 1100 {
		s := long
		if i >= 1100 {
			s = newUploadID()
		}
		c := &namespace.Command{Token: &namespace.Token{Session: s, Seq: uint64(i + 1)}, SetXattr: &namespace.SetXattr{Inode: d, Name: "x", Value: []byte("x")}}
		if _, err := n.do(ctx, d.Partition(), c); err != nil {
			t.Fatal(err)
		}
	}
	since := time.Now()
	alive := WithToken(ctx, Token{Session: newUploadID(), Seq: 1})
	if err := n.SetXattr(alive, d, "y", []byte("y"), false, false); err != nil {
		t.Fatal(err)
	}
	if err := n.endIdleSessions(since); err != nil {
		t.Fatal(err)
	}
	v := n.parts[d.Partition()].here.Load().machine.View()
	defer v.Close()
	left, _, err := v.IdleSessions(time.Now().UnixNano(), object.UploadID{}, 1000)
	if err != nil || len(left) != 1 {
		t.Fatalf("%d sessions are left, %v", len(left), err)
	}
	if r, err := v.Result(namespace.Token{Session: long, Seq: 1}); r != nil || err != nil {
		t.Fatal("a result is left", err)
	}
}

// A session that comes back while it is being ended keeps what it has now, and
// what went is not applied a second time.
func TestSessionThatComesBack(t *testing.T) {
	n, ctx := nodeOf(t, 1)
	d := mkdirs(t, n, "d")
	s := newUploadID()
	do := func(seq uint64) (*namespace.Result, error) {
		return n.do(ctx, d.Partition(), &namespace.Command{Token: &namespace.Token{Session: s, Seq: seq}, SetXattr: &namespace.SetXattr{Inode: d, Name: "x", Value: []byte("x")}})
	}
	for seq := uint64(1); seq <= 1100; seq++ {
		if _, err := do(seq); err != nil {
			t.Fatal(err)
		}
	}
	end := &namespace.Command{EndSession: &namespace.EndSession{Session: s, Since: time.Now().UnixNano()}}
	if r, err := n.propose(ctx, d.Partition(), end); err != nil || r.Done {
		t.Fatal(r, err)
	}
	_, err := do(1)
	wantKind(t, err, object.KindConflict)
	if _, err := do(1101); err != nil {
		t.Fatal(err)
	}
	if r, err := n.propose(ctx, d.Partition(), end); err != nil || !r.Done {
		t.Fatal(r, err)
	}
	if r, err := do(1101); err != nil || !r.Recalled {
		t.Fatal("the session lost a result of its own", r, err)
	}
}

// Uploads of a bucket that is gone are ended, however many others there are.
func TestAllUploadsOfAGoneBucketEndInOneRound(t *testing.T) {
	n, ctx := nodeOf(t, 1)
	if _, err := n.CreateBucket(ctx, "gone", "me"); err != nil {
		t.Fatal(err)
	}
	for i := range tidyBatch + 50 {
		for _, bucket := range []string{"box", "gone"} {
			if _, err := n.CreateUpload(ctx, bucket, fmt.Sprint(i), PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := n.DeleteBucket(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	if err := n.endUploads(); err != nil {
		t.Fatal(err)
	}
	left := map[string]int{}
	v := n.parts[1].here.Load().machine.View()
	defer v.Close()
	if err := v.Uploads(object.UploadID{}, func(_ object.UploadID, r namespace.UploadRec) bool { left[r.Name]++; return true }); err != nil {
		t.Fatal(err)
	}
	if left["gone"] != 0 || left["box"] != tidyBatch+50 {
		t.Fatal(left)
	}
}

// On a disk that hangs a change ends after a while, with an error that says
// that its outcome is not known; so does a caller without a deadline.
func TestHangingDiskHoldsNobody(t *testing.T) {
	cfg := testConfig(t)
	faulty := vfs.NewFaulty(vfs.OS())
	cfg.FS = faulty
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	f := newFile(t, n, mkdirs(t, n), "f", "x")
	n.patience.Store(int64(100 * time.Millisecond))
	back := make(chan struct{})
	faulty.Set("wal.append.sync", vfs.Rule{Block: back})
	ended := make(chan error)
	go func() {
		_, err := n.Put(context.Background(), "box", "k", strings.NewReader("x"), PutOptions{Size: 1})
		ended <- err
		_, err = n.SetAttr(context.Background(), f.ID, SetAttr{Meta: map[string]string{"a": "b"}})
		ended <- err
		ended <- n.Rename(context.Background(), mkdirs(t, n), "f", mkdirs(t, n), "g", RenameFlags{})
	}()
	for range 3 {
		select {
		case err := <-ended:
			wantKind(t, err, object.KindTimeout)
		case <-time.After(20 * time.Second):
			close(back)
			t.Fatal("a change waits for the disk without end")
		}
	}
	close(back)
	faulty.Clear()
	waitFor(t, "the node to work again", func() bool {
		_, err := n.Put(t.Context(), "box", "k2", strings.NewReader("x"), PutOptions{Size: 1})
		return err == nil
	})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// What an entry in doubt staged goes while the process lives.
func TestStagedContentInDoubtGoes(t *testing.T) {
	n, ctx := nodeOf(t, 2)
	a, _ := apart(t, n)
	body := randomBytes(1, 200000)
	if _, err := n.CreateWith(ctx, a, "f", NewNode{}, strings.NewReader(string(body)), WriteOptions{Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	for crashAt := int32(1); crashAt < 8; crashAt++ {
		var count atomic.Int32
		step := func(object.PartitionID) error {
			if count.Add(1) == crashAt {
				return object.Errorf(object.KindTimeout, "%w", errCrash)
			}
			return nil
		}
		n.step.Store(&step)
		_, err := n.Copy(ctx, "box", "a/f", "box", fmt.Sprintf("copy%d", crashAt), CopyOptions{})
		n.step.Store(nil)
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
	}
	n.leftovers.mu.Lock()
	doubts := len(n.leftovers.list)
	n.leftovers.mu.Unlock()
	if doubts == 0 {
		t.Fatal("no entry was in doubt")
	}
	if err := n.dropLeftovers(time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, p := range n.parts {
		v := p.here.Load().machine.View()
		staged, err := v.Staged(object.ContentID{}, 100)
		v.Close()
		if err != nil || len(staged) > 0 {
			t.Fatalf("partition %d still stages %v, %v", p.id, staged, err)
		}
	}
	settleAll(t, n)
	checkAtRest(t, n)
}

// A log that fails at any write of a start ends the start, with an error.
func TestStartOnALogThatFails(t *testing.T) {
	for skip := 0; ; skip++ {
		cfg := testConfig(t)
		cfg.Partitions, cfg.Logger = 2, nil
		faulty := vfs.NewFaulty(vfs.OS())
		faulty.Set("wal.append.sync", vfs.Rule{Skip: skip, Err: errors.New("the disk is gone (test)")})
		cfg.FS = faulty
		ended := make(chan error, 1)
		go func() {
			n, err := Open(context.Background(), cfg)
			if err == nil {
				_ = n.Close()
			}
			ended <- err
		}()
		select {
		case err := <-ended:
			if err == nil {
				return // it needs no more writes
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("with the log failing at write %d the start does not end", skip+1)
		}
	}
}
