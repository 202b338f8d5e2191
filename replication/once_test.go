package replication

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// attempts are the contexts of a mutation's first and second attempt.
func attempts(ctx context.Context) (first, second context.Context) {
	t := Token{Session: newUploadID(), Seq: 1}
	first = WithToken(ctx, t)
	t.Retry = true
	return first, WithToken(ctx, t)
}

// patch is a PATCH by path as a server makes it: it looks the inode up first.
func patch(ctx context.Context, n *Node, key, data string) (*object.Inode, error) {
	o, err := n.Stat(ctx, "box", key)
	if err != nil {
		return nil, err
	}
	ino, _, err := n.Write(ctx, o.Inode.ID, 0, strings.NewReader(data), WriteOptions{Size: int64(len(data)), Append: true})
	return ino, err
}

func TestRetriedChangeByPathFindsItsResultFirst(t *testing.T) {
	n, ctx := newNode(t)
	changes := map[string]func(ctx context.Context) (*object.Inode, error){
		"append": func(ctx context.Context) (*object.Inode, error) { return patch(ctx, n, "d/k", "+") },
		"setattr": func(ctx context.Context) (*object.Inode, error) {
			o, err := n.Stat(ctx, "box", "d/k")
			if err != nil {
				return nil, err
			}
			size := o.Inode.Size + 1
			return n.SetAttr(ctx, o.Inode.ID, SetAttr{Size: &size})
		},
		"xattr": func(ctx context.Context) (*object.Inode, error) {
			o, err := n.Stat(ctx, "box", "d/k")
			if err != nil {
				return nil, err
			}
			return o.Inode, n.SetXattr(ctx, o.Inode.ID, "user.x", []byte("x"), true, false)
		},
	}
	for name, change := range changes {
		for _, replaced := range []bool{false, true} {
			mustPut(t, n, "d/k", []byte("old"))
			first, second := attempts(ctx)
			was, err := change(first)
			if err != nil {
				t.Fatal(name, err)
			}
			if err := n.Delete(ctx, "box", "d/k", Conditions{}); err != nil {
				t.Fatal(err)
			}
			if replaced {
				mustPut(t, n, "d/k", []byte("new"))
			}
			now, err := change(second)
			if err != nil || now.ID != was.ID {
				t.Fatalf("%s, replaced %v: the retry came to %v, %v", name, replaced, now, err)
			}
			if replaced {
				o, err := n.Stat(ctx, "box", "d/k")
				if got := string(mustGet(t, n, "d/k")); err != nil || got != "new" || len(o.Inode.Xattrs) > 0 {
					t.Fatalf("%s: the retry changed another object: %q, %v", name, got, err)
				}
			}
		}
	}
}

// A failure is a result too: it is kept whatever the path leads to by now.
func TestRetriedChangeByPathKeepsItsRefusal(t *testing.T) {
	n, ctx := newNode(t)
	o := mustPut(t, n, "k", []byte("old"))
	first, second := attempts(ctx)
	wantKind(t, n.RemoveXattr(first, o.Inode.ID, "user.x"), object.KindNoAttr)
	mustPut(t, n, "k", []byte("new"))
	_, err := n.Stat(second, "box", "k")
	wantKind(t, err, object.KindNoAttr)
}

// The first attempt's entry is on its way to one partition while its retry
// resolves to another one: only one of them is applied.
func TestLateAttemptIsFenced(t *testing.T) {
	n, ctx := newNode(t)
	a, b := apart(t, n)
	f, g := newFile(t, n, a, "f", "f"), newFile(t, n, b, "g", "g")
	_, second := attempts(ctx)
	tok := token(second)
	late := &namespace.Command{Token: tok, Splice: &namespace.Splice{Inode: f.ID, Append: true, Length: 1, Data: []byte("!"), Grow: true}}
	if _, _, err := n.Write(second, g.ID, 0, strings.NewReader("!"), WriteOptions{Size: 1, Append: true}); err != nil {
		t.Fatal(err)
	}
	if r, err := n.propose(ctx, a.Partition(), late); err != nil || !r.Fenced {
		t.Fatalf("the late entry came to %+v, %v", r, err)
	}
	if content(t, n, f.ID) != "f" || content(t, n, g.ID) != "g!" {
		t.Fatal(content(t, n, f.ID), content(t, n, g.ID))
	}
	// And the other way round: it was in time, and the retry finds its result.
	_, second = attempts(ctx)
	late.Token = token(second)
	if _, err := n.propose(ctx, a.Partition(), late); err != nil {
		t.Fatal(err)
	}
	ino, _, err := n.Write(second, g.ID, 0, strings.NewReader("!"), WriteOptions{Size: 1, Append: true})
	if err != nil || ino.ID != f.ID || content(t, n, f.ID) != "f!" || content(t, n, g.ID) != "g!" {
		t.Fatal(ino, err, content(t, n, f.ID), content(t, n, g.ID))
	}
	// Two retries at once, and a third when both are over.
	first, second := attempts(ctx)
	done := make(chan error, 2)
	for _, id := range []object.InodeID{f.ID, g.ID} {
		go func() {
			_, _, err := n.Write(second, id, 0, strings.NewReader("?"), WriteOptions{Size: 1, Append: true})
			done <- err
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, _, err := n.Write(first, f.ID, 0, strings.NewReader("?"), WriteOptions{Size: 1, Append: true}); err != nil && !object.IsKind(err, object.KindConflict) {
		t.Error(err)
	}
	if got := content(t, n, f.ID) + content(t, n, g.ID); strings.Count(got, "?") != 1 {
		t.Fatal(got)
	}
}

func TestRetriesWhoseSubjectIsGone(t *testing.T) {
	n, ctx := newNode(t)
	body := randomBytes(1, 200000)
	src := mustPut(t, n, "src", body)
	dst := newFile(t, n, mkdirs(t, n), "dst", "")
	firstCopy, secondCopy := attempts(ctx)
	copied, err := n.Copy(firstCopy, "box", "src", "box", "copy", CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	firstRange, secondRange := attempts(ctx)
	_, length, err := n.CopyRange(firstRange, src.Inode.ID, 0, dst.ID, 0, 200000)
	if err != nil || length != 200000 {
		t.Fatal(length, err)
	}
	if err := n.Delete(ctx, "box", "src", Conditions{}); err != nil {
		t.Fatal(err)
	}
	if o, err := n.Copy(secondCopy, "box", "src", "box", "copy", CopyOptions{}); err != nil || o.Inode.ID != copied.Inode.ID {
		t.Fatal(o, err)
	}
	if _, again, err := n.CopyRange(secondRange, src.Inode.ID, 0, dst.ID, 0, 200000); err != nil || again != length {
		t.Fatal(again, err)
	}

	firstNew, secondNew := attempts(ctx)
	up, err := n.CreateUpload(firstNew, "box", "d/m", PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := n.CreateUpload(secondNew, "box", "d/m", PutOptions{}); err != nil || again != up {
		t.Fatal(again, up, err)
	}
	firstPart, secondPart := attempts(ctx)
	p, err := n.PutPart(firstPart, "box", "d/m", up.ID, 1, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CompleteUpload(ctx, "box", "d/m", up.ID, []Part{p}, Conditions{}); err != nil {
		t.Fatal(err)
	}
	again, err := n.PutPart(secondPart, "box", "d/m", up.ID, 1, bytes.NewReader(body), int64(len(body)))
	if err != nil || again.ETag != p.ETag || again.Number != 1 {
		t.Fatal(again, err)
	}
	if up, err = n.CreateUpload(ctx, "box", "d/m", PutOptions{}); err != nil {
		t.Fatal(err)
	}
	firstEnd, secondEnd := attempts(ctx)
	for _, c := range []context.Context{firstEnd, secondEnd} {
		if err := n.AbortUpload(c, "box", "d/m", up.ID); err != nil {
			t.Fatal(err)
		}
	}
	checkAtRest(t, n)
}

// A retry whose body cannot be stored (a disk that filled up meanwhile) still
// finds that the first attempt happened.
func TestRetryWithoutRoomFindsItsResult(t *testing.T) {
	n, ctx := newNode(t)
	mustPut(t, n, "log", []byte("old"))
	log, err := n.Resolve(ctx, "box", "log")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(ctx context.Context, body io.Reader) (*object.Inode, error){
		"append": func(ctx context.Context, body io.Reader) (*object.Inode, error) {
			ino, at, err := n.Write(ctx, log.ID, 0, body, WriteOptions{Size: 3, Append: true})
			if err == nil && at != 3 {
				t.Errorf("it went to %d", at)
			}
			return ino, err
		},
		"put": func(ctx context.Context, body io.Reader) (*object.Inode, error) {
			o, err := n.Put(ctx, "box", "new", body, PutOptions{Size: 3})
			return o.Inode, err
		},
		"create": func(ctx context.Context, body io.Reader) (*object.Inode, error) {
			root, err := n.Resolve(ctx, "box", "")
			if err != nil {
				return nil, err
			}
			return n.CreateWith(ctx, root.ID, "created", NewNode{Mode: 0o644}, body, WriteOptions{Size: 3})
		},
	} {
		full := object.Errorf(object.KindNoSpace, "the disk is full")
		first, second := attempts(ctx)
		was, err := change(first, strings.NewReader("new"))
		if err != nil {
			t.Fatal(name, err)
		}
		is, err := change(second, iotest.ErrReader(full))
		if err != nil || is.ID != was.ID || is.Version != was.Version {
			t.Errorf("%s: the retry got %v, %v; the first attempt made %v", name, is, err, was)
		}
		_, unmade := attempts(ctx) // nothing to be found: the error stays
		if _, err := change(unmade, iotest.ErrReader(full)); !object.IsKind(err, object.KindNoSpace) {
			t.Errorf("%s, which did not happen: %v", name, err)
		}
	}
}

// TestDoubtOutlivesLaterRefusals: an entry of unknown outcome may come late, whatever its
// change came to afterwards: that is not told as certain, and what the entry names stays.
func TestDoubtOutlivesLaterRefusals(t *testing.T) {
	n, _ := newNode(t)
	body := randomBytes(7, 200_000)
	var late []byte
	at := object.PartitionID(0)
	puts := 0
	sender := func(ctx context.Context, id object.PartitionID, entry []byte) (*namespace.Result, error) {
		cmd, err := namespace.DecodeCommand(entry)
		if err != nil {
			return nil, err
		}
		if cmd.Put == nil {
			return n.access.Propose(ctx, id, entry)
		}
		if puts++; puts == 1 { // no answer to the first attempt; to the second: the directory has to be found anew
			late, at = slices.Clone(entry), id
			return &namespace.Result{Failed: true, Kind: object.KindStale, Message: "resolve anew", Again: true, Doubtful: true}, nil
		}
		return nil, object.Errorf(object.KindUnavailable, "nobody leads")
	}
	n.sender.Store(&sender)
	ctx := WithToken(context.Background(), Token{Session: newUploadID(), Seq: 1})
	_, err := n.Put(ctx, "box", "late", bytes.NewReader(body), PutOptions{Size: int64(len(body))})
	wantKind(t, err, object.KindTimeout)
	n.sender.Store(nil)
	if puts != 2 {
		t.Fatalf("%d entries", puts)
	}
	if r, err := n.access.Propose(t.Context(), at, late); err != nil || r.Err() != nil {
		t.Fatal(r, err)
	}
	if got := mustGet(t, n, "late"); !bytes.Equal(got, body) {
		t.Errorf("%d bytes", len(got))
	}

	// Where a kept answer followed, the late entry does nothing: the doubt is over.
	d := &doubts{}
	in := context.WithValue(t.Context(), doubtsKey{}, d)
	cmd := &namespace.Command{Token: &namespace.Token{Session: newUploadID(), Seq: 1}}
	certain := object.Errorf(object.KindConflict, "no")
	noteDoubt(in, 3, cmd, &namespace.Result{Again: true, Doubtful: true})
	wantKind(t, d.unless(certain), object.KindTimeout)
	noteDoubt(in, 4, cmd, &namespace.Result{})
	wantKind(t, d.unless(certain), object.KindTimeout)
	noteDoubt(in, 3, cmd, &namespace.Result{Failed: true, Kind: object.KindConflict})
	wantKind(t, d.unless(certain), object.KindConflict)
}

// TestEndedSessionIsFencedEverywhere: a session is being ended, and one partition does not
// know it yet, in which the first attempt is still on its way. Its retry is not told that
// the session has ended (that would mean: never) before that partition has said so, too.
func TestEndedSessionIsFencedEverywhere(t *testing.T) {
	n := lockNode(t)
	x, _ := apart(t, n)
	f := newFile(t, n, x, "f", "x").ID
	first, second := attempts(t.Context())
	end := &namespace.Command{EndSessions: &namespace.EndSessions{Sessions: []object.UploadID{token(first).Session}}}
	for id := range n.ids(object.Control) {
		if id != f.Partition() {
			if _, err := n.propose(t.Context(), id, end); err != nil {
				t.Fatal(err)
			}
		}
	}
	var late []byte
	var asked atomic.Int32
	all := make(chan struct{}) // the other partitions have answered
	send := n.access.ProposeRepeatable
	slow := func(ctx context.Context, id object.PartitionID, entry []byte) (*namespace.Result, error) {
		c, err := namespace.DecodeCommand(entry)
		switch {
		case err != nil:
			return nil, err
		case id != f.Partition():
			r, err := send(ctx, id, entry)
			if c.Fence != nil && int(asked.Add(1)) == len(n.parts)-1 {
				close(all)
			}
			return r, err
		case c.Splice != nil:
			late = entry
		case c.Fence != nil:
			select {
			case <-all:
			case <-ctx.Done():
			}
		}
		return nil, object.Errorf(object.KindTimeout, "unknown")
	}
	write := func(ctx context.Context) error {
		_, _, err := n.Write(ctx, f, 0, strings.NewReader("+"), WriteOptions{Size: 1, Append: true})
		return err
	}
	n.sender.Store(&slow)
	wantKind(t, write(first), object.KindTimeout)
	wantKind(t, write(second), object.KindTimeout) // open
	n.sender.Store(nil)
	if late == nil {
		t.Fatal("the first attempt sent nothing")
	}
	// It is asked, and takes the fence: it is known now that nothing came, or will come, of it.
	wantKind(t, write(second), object.KindSessionEnded)
	if r, err := send(t.Context(), f.Partition(), late); err != nil || !r.Fenced {
		t.Fatalf("the late entry came to %+v, %v", r, err)
	}
	if got := content(t, n, f); got != "x" {
		t.Fatal(got)
	}
}
