package replication

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// intercept has every entry that this node proposes go through fn, until the test ends or lift is called.
func intercept(t *testing.T, n *Node, fn func(cmd *namespace.Command, send func() (*namespace.Result, error)) (*namespace.Result, error)) (lift func()) {
	t.Helper()
	sender := func(ctx context.Context, id object.PartitionID, entry []byte) (*namespace.Result, error) {
		cmd, err := namespace.DecodeCommand(entry)
		if err != nil {
			return nil, err
		}
		return fn(cmd, func() (*namespace.Result, error) { return n.access.Propose(ctx, id, entry) })
	}
	n.sender.Store(&sender)
	lift = func() { n.sender.Store(nil) }
	t.Cleanup(lift)
	return lift
}

// TestDamagedParentsEndARename: parents that lead round in a circle are reported, whatever the
// length of the way to it; renames elsewhere go on.
func TestDamagedParentsEndARename(t *testing.T) {
	n, _ := newNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	deep := []string{"p0", "p1", "p2", "p3", "p4", "p5", "p6"}
	var ids []object.InodeID
	for i := range deep {
		ids = append(ids, mkdirs(t, n, deep[:i+1]...))
	}
	box := mkdirs(t, n)
	mkdirs(t, n, "d")
	for _, back := range []int{2, 4, 6} { // the parent of p2 is a directory below it, or itself
		if _, err := n.do(ctx, ids[2].Partition(), &namespace.Command{SetAttr: &namespace.SetAttr{Inode: ids[2], Parent: ids[back]}}); err != nil {
			t.Fatal(err)
		}
		for _, to := range ids[2:] {
			wantKind(t, n.Rename(ctx, box, "d", to, "d", RenameFlags{}), object.KindCorrupt)
		}
	}
	if err := n.Rename(ctx, box, "d", ids[1], "d", RenameFlags{}); err != nil {
		t.Error("above the damage: ", err)
	}
	wantKind(t, n.Rename(ctx, box, "p0", ids[1], "x", RenameFlags{}), object.KindLoop)
}

// TestRecalledMkdir: the retry of a mkdir answers with the directory that the first attempt
// made, wherever that is by now.
func TestRecalledMkdir(t *testing.T) {
	n, ctx := newNode(t)
	box := mkdirs(t, n)
	elsewhere := mkdirs(t, n, "elsewhere")
	for name, then := range map[string]func() error{
		"stays":   func() error { return nil },
		"renamed": func() error { return n.Rename(ctx, box, "renamed", elsewhere, "other", RenameFlags{}) },
		"removed": func() error { return n.Rmdir(ctx, box, "removed") },
		"replaced": func() error {
			if err := n.Rmdir(ctx, box, "replaced"); err != nil {
				return err
			}
			_, _, err := n.Create(ctx, box, "replaced", NewNode{Type: object.TypeDirectory, Mode: 0o700}, true)
			return err
		},
	} {
		first, second := attempts(ctx)
		node := NewNode{Type: object.TypeDirectory, Mode: 0o751}
		was, made, err := n.Create(first, box, name, node, true)
		if err != nil || !made {
			t.Fatal(name, err)
		}
		if err := then(); err != nil {
			t.Fatal(name, err)
		}
		is, made, err := n.Create(second, box, name, node, true)
		if err != nil || !made || is.ID != was.ID || is.Mode&0o777 != 0o751 || !is.IsDir() {
			t.Errorf("%s: the retry got %+v, %v, %v; the first attempt made %v", name, is, made, err, was.ID)
		}
	}
	first, second := attempts(ctx)
	was, err := n.MakeBucket(first, "bin", BucketOptions{Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteBucket(ctx, "bin"); err != nil {
		t.Fatal(err)
	}
	if is, err := n.MakeBucket(second, "bin", BucketOptions{Owner: "me"}); err != nil || is.Root != was.Root || is.Owner != "me" {
		t.Errorf("a bucket that is gone: %+v, %v; want %+v", is, err, was)
	}
}

// TestUnknownPrepareIsACertainFailure: whether an entry that prepares came or not, the operation
// did not and does not happen, and its answer says so.
func TestUnknownPrepareIsACertainFailure(t *testing.T) {
	n, ctx := newNode(t)
	a, b := apart(t, n)
	f := newFile(t, n, a, "f", "text")
	for _, comes := range []bool{false, true} {
		for name, change := range map[string]func() error{
			"mkdir": func() error {
				_, _, err := n.Create(ctx, a, "sub", NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
				return err
			},
			"rename": func() error { return n.Rename(ctx, a, "f", b, "g", RenameFlags{}) },
			"link":   func() error { _, err := n.Link(ctx, f.ID, b, "h"); return err },
		} {
			var lost atomic.Bool
			lift := intercept(t, n, func(cmd *namespace.Command, send func() (*namespace.Result, error)) (*namespace.Result, error) {
				if cmd.Prepare == nil || lost.Swap(true) {
					return send()
				}
				if comes {
					if r, err := send(); err != nil || r.Err() != nil {
						t.Error(name, r, err)
					}
				}
				return nil, object.Errorf(object.KindTimeout, "no answer")
			})
			err := change()
			lift()
			if !lost.Load() || !object.IsKind(err, object.KindUnavailable) {
				t.Errorf("%s, the entry comes: %v: %v, want a KindUnavailable", name, comes, err)
			}
			if err := n.sweep(0); err != nil {
				t.Error(err)
			}
			if got := content(t, n, f.ID); got != "text" {
				t.Errorf("%s: %q", name, got)
			}
			for _, gone := range []struct {
				dir  object.InodeID
				name string
			}{{a, "sub"}, {b, "g"}, {b, "h"}} {
				if _, err := n.Lookup(ctx, gone.dir, gone.name); !object.IsKind(err, object.KindNotFound) {
					t.Errorf("%s: %s is there: %v", name, gone.name, err)
				}
			}
			if ino, err := n.Lookup(ctx, a, "f"); err != nil || ino.ID != f.ID || ino.Nlink != 1 {
				t.Errorf("%s: %+v, %v", name, ino, err)
			}
		}
	}
}

// TestSettledRenameFollowsItsBucket: the coordinator of a directory's rename vanishes once that
// has happened; whoever settles it has the data follow the new bucket.
func TestSettledRenameFollowsItsBucket(t *testing.T) {
	n, ctx := newNode(t)
	coded := mustScheme(t, "replicated:2")
	a, b := apart(t, n)
	if _, err := n.do(ctx, b.Partition(), &namespace.Command{SetScheme: &namespace.SetScheme{Inodes: []object.InodeID{b}, Scheme: coded}}); err != nil {
		t.Fatal(err)
	}
	d, _, err := n.Create(ctx, a, "d", NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
	if err != nil || d.Scheme == coded {
		t.Fatal(d, err)
	}
	var gone atomic.Bool
	lift := intercept(t, n, func(cmd *namespace.Command, send func() (*namespace.Result, error)) (*namespace.Result, error) {
		if cmd.Rewrite != nil || cmd.EndRename != nil {
			gone.Store(true)
		}
		if gone.Load() {
			return nil, object.Errorf(object.KindUnavailable, "the coordinator is gone")
		}
		return send()
	})
	if err := n.Rename(ctx, a, "d", b, "d", RenameFlags{}); err != nil {
		t.Fatal(err)
	}
	lift()
	if !gone.Load() {
		t.Fatal("nothing was left to do")
	}
	mkdirs(t, n, "x")
	if err := n.Rename(ctx, mkdirs(t, n), "x", a, "x", RenameFlags{}); err != nil { // settles the one before
		t.Fatal(err)
	}
	if ino, err := n.Lookup(ctx, b, "d"); err != nil || ino.ID != d.ID || ino.Scheme != coded {
		t.Errorf("%+v, %v: want the scheme %v", ino, err, coded)
	}
}

// TestSteeringHappensOnce: a second copy of a command of the control group, or the first attempt
// of one that was retried, comes when somebody has taken the command back: it does nothing.
func TestSteeringHappensOnce(t *testing.T) {
	n, ctx := newNode(t)
	zone := func() string {
		t.Helper()
		s, err := n.Control(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s.Nodes[0].Zone
	}
	for _, answered := range []bool{true, false} {
		var late atomic.Pointer[namespace.Command]
		lift := intercept(t, n, func(cmd *namespace.Command, send func() (*namespace.Result, error)) (*namespace.Result, error) {
			if cmd.Token != nil && cmd.Fence == nil && cmd.Control != nil && late.CompareAndSwap(nil, cmd) && !answered {
				return nil, object.Errorf(object.KindTimeout, "no answer")
			}
			return send()
		})
		first, second := attempts(ctx)
		err := n.SetZone(first, n.cfg.NodeID, "wrong")
		if !answered {
			wantKind(t, err, object.KindTimeout)
			err = n.SetZone(second, n.cfg.NodeID, "wrong")
		}
		if err != nil || zone() != "wrong" {
			t.Fatal(err, zone())
		}
		lift()
		if err := n.SetZone(ctx, n.cfg.NodeID, ""); err != nil {
			t.Fatal(err)
		}
		cmd := late.Load()
		if cmd == nil {
			t.Fatal("the command has no token")
		}
		if _, err := n.propose(ctx, object.Control, cmd); err != nil {
			t.Fatal(err)
		}
		if z := zone(); z != "" {
			t.Errorf("answered %v: the late entry made the zone %q", answered, z)
		}
	}
	// Without a client's token, each call has its own.
	for _, z := range []string{"a", "b", "a"} {
		if err := n.SetZone(ctx, n.cfg.NodeID, z); err != nil || zone() != z {
			t.Fatal(z, zone(), err)
		}
	}
	// A change of settings takes several attempts: each its own entry.
	session, _ := attempts(ctx)
	other := 0
	now, err := n.Configure(session, func(s *Settings) {
		if other++; other == 1 { // somebody changes something between the look and the entry
			if _, err := n.Configure(ctx, func(s *Settings) { s.Moves = 7 }); err != nil {
				t.Error(err)
			}
		}
		s.GroupMoves = 9
	})
	if err != nil || now.Moves != 7 || now.GroupMoves != 9 {
		t.Errorf("%+v, %v", now, err)
	}
}

// TestStraysGoWhenTheirNodeIsBack: what a process that crashed left at another node goes when
// the next process of its node has started.
func TestStraysGoWhenTheirNodeIsBack(t *testing.T) {
	var cfgs [2]Config
	nodes := twoNodes(t, func(i int, cfg *Config) { cfgs[i] = *cfg })
	a, b := nodes[0], nodes[1]
	id := object.ChunkID{Owner: 3, Upload: b.newUpload()}
	if _, err := b.copies.PutPieces(t.Context(), id, copies.SchemeOf(object.DefaultScheme), [][]byte{randomBytes(1, 1000)}, func() {}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the chunk at the other node", func() bool { return len(files(t, a)) > 0 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again, err := Open(ctx, cfgs[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	waitFor(t, "the strays to go", func() bool { return len(files(t, a)) == 0 })
}
