package group_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// leaveBehind cuts a replica off, and has the others commit and drop from their
// logs what it lacks.
func (c *cluster) leaveBehind(r *replica) (lead *replica) {
	c.t.Helper()
	for _, o := range c.all {
		poll(c.t, "it to be heard", func() bool { return !o.CatchesUp(r.id) || !o.IsLeader() })
	}
	c.net.setCut(r.addr, true)
	var rest []*replica
	for _, o := range c.all {
		o.KeepOnly(8, 8)
		if o != r {
			rest = append(rest, o)
		}
	}
	for round := 0; ; round++ {
		lead = c.leader(rest...)
		c.putMany(lead, fmt.Sprintf("bulk%d", round), 200)
		gone, last := true, r.Stats().LastIndex
		for _, o := range rest {
			must(c.t, o.Compact())
			gone = gone && o.Stats().FirstIndex > last+1
		}
		if gone {
			return lead
		}
		if round == 50 {
			c.t.Fatal("the logs do not get shorter")
		}
	}
}

func images(t testing.TB, r *replica) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(r.dir, "groups", "*.image*"))
	must(t, err)
	return list
}

// TestFarBehind: a follower that lacks what nobody has in the log gets the state,
// under load, and is a full member afterwards.
func TestFarBehind(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.put(c.all[0], "early")
	f := c.all[2]
	c.leaveBehind(f)
	l := c.load(4)
	c.net.setCut(f.addr, false)
	poll(t, "the state to be taken over", func() bool { return f.restored.Load() == 1 })
	l.more(50)
	l.end()
	l.wg.Wait()
	c.same(c.all...)
	l.check(c.all...)
	if f.m.count("early") != 1 {
		t.Error("an early key is missing")
	}
	if n := f.restored.Load(); n != 1 {
		t.Errorf("the state was taken over %d times", n)
	}
	must(t, c.leader().TransferLeadership(t.Context(), ""))
	if lead := c.leader(); lead != f {
		must(t, lead.TransferLeadership(t.Context(), f.id))
	}
	if c.leader(f); c.put(f, "late") != 1 {
		t.Error("it does not lead as another would")
	}
	// The file stays while the state is not durable by itself, and no longer.
	if len(images(t, f)) != 1 {
		t.Errorf("files: %v", images(t, f))
	}
	f.stop(t) // writes the tables out
	c.start(f, group.Config{})
	must(t, f.Compact())
	if left := images(t, f); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	c.same(c.all...)
}

// TestDivergentTail: entries of a deposed leader that nobody else has, before the
// state that it must take over (hashicorp/raft#697).
func TestDivergentTail(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a := c.all[0]
	c.put(a, "k")
	c.net.setCut(a.addr, true)
	for i := range 5 {
		_, err := a.Propose(within(t, 20*time.Millisecond), fmt.Appendf(nil, "lost-%d", i))
		wantKind(t, "a cut off leader", err, object.KindTimeout)
	}
	if s := a.Stats(); s.LastIndex < s.Committed+5 {
		t.Fatalf("there is no tail: %+v", s)
	}
	lead := c.leaveBehind(a)
	c.net.setCut(a.addr, false)
	poll(t, "the state to be taken over", func() bool { return a.restored.Load() > 0 })
	c.put(lead, "k")
	c.same(c.all...)
	if a.restored.Load() != 1 || a.m.count("lost-0") != 0 || a.m.count("k") != 2 {
		t.Errorf("taken over %d times; lost-0 %d, k %d", a.restored.Load(), a.m.count("lost-0"), a.m.count("k"))
	}
}

// TestLateImage: a state that was sent long ago arrives. It must not take back what
// the follower has acknowledged since.
func TestLateImage(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, f := c.all[0], c.all[2]
	c.putMany(a, "first", 300)
	meta, data, err := a.OpenImage()
	must(t, err)
	stream, err := io.ReadAll(data)
	must(t, errors.Join(err, data.Close()))
	if int64(len(stream)) != meta.Size {
		t.Fatalf("%d bytes, said %d", len(stream), meta.Size)
	}
	c.putMany(a, "second", 300)
	c.same(c.all...)
	send := func(size int64) (resp raft.InstallSnapshotResponse, err error) {
		req := &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: 3, ID: []byte(a.id), Addr: []byte(f.id + "\x00" + a.id + "\x00a")},
			SnapshotVersion: 1, Term: a.Stats().Term, Leader: []byte(a.id + "\x00a"), LastLogIndex: meta.Index, LastLogTerm: meta.Term,
			Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: size,
		}
		return resp, a.wire.InstallSnapshot(raft.ServerID(f.id), f.addr, req, &resp, bytes.NewReader(stream))
	}
	check := func(when string) {
		t.Helper()
		before := f.m.Applied()
		resp, err := send(meta.Size)
		if err != nil || !resp.Success || f.restored.Load() != 0 || f.m.Applied() < before || len(images(t, f)) != 0 {
			t.Errorf("%s: %+v, %v; taken over %d times, applied %d, was %d", when, resp, err, f.restored.Load(), f.m.Applied(), before)
		}
	}
	check("while it runs")
	// After a restart it has no commit index until the leader tells it.
	c.crash(f)
	c.revive(f)
	check("after a restart")
	c.same(c.all...)
	// A sender of an old term is refused, whatever it sends.
	must(t, a.TransferLeadership(t.Context(), c.all[1].id))
	c.put(c.leader(c.all[1]), "x")
	poll(t, "the new term", func() bool { return f.Stats().Term == c.all[1].Stats().Term })
	req := &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(a.id), Addr: []byte(f.id + "\x00" + a.id + "\x00a")},
		SnapshotVersion: 1, Term: 1, LastLogIndex: 1 << 30, LastLogTerm: 1}
	var resp raft.InstallSnapshotResponse
	if err := a.wire.InstallSnapshot(raft.ServerID(f.id), f.addr, req, &resp, bytes.NewReader(nil)); err != nil || resp.Success || resp.Term < 2 {
		t.Errorf("an old leader's state: %+v, %v", resp, err)
	}
}

// TestCrashWhileRestoring stops a follower at each step of taking over a state, also
// of a second one while the first is not let go of yet.
func TestCrashWhileRestoring(t *testing.T) {
	t.Parallel()
	stop := errors.New("the power was cut")
	for _, at := range []string{"before", "dropping", "emptied", "half", "filled", "done", "again"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3)
			f := c.all[2]
			c.put(c.all[0], "early")
			if at == "dropping" { // more than one batch of it
				c.putMany(c.leader(), "old", 300)
				c.same(c.all...)
			}
			c.leaveBehind(f)
			files := 1
			if at == "again" {
				c.net.setCut(f.addr, false)
				poll(t, "the first state to be taken over", func() bool { return f.restored.Load() == 1 })
				c.same(c.all...)
				c.leaveBehind(f)
				files = 2
			}
			had := len(f.m.all())
			f.m.stopDrop = at == "dropping"
			f.m.onRestore = func(r io.Reader) io.Reader {
				switch at {
				case "before":
					return failing{stop}
				case "emptied":
					return io.MultiReader(io.LimitReader(r, 9), failing{stop})
				case "half", "again":
					return io.MultiReader(io.LimitReader(r, 900_000), failing{stop})
				}
				return r
			}
			f.m.afterward = func() error {
				if at == "filled" {
					return stop
				}
				return nil
			}
			c.net.setCut(f.addr, false)
			if at == "done" {
				poll(t, "the state to be taken over", func() bool { return f.restored.Load() == 1 })
				c.put(c.leader(), "after")
				c.same(c.all...)
			} else {
				poll(t, "the group to stop", func() bool { return f.Stats().State == raft.Shutdown.String() })
				wantKind(t, "a stopped group", f.Read(t.Context()), object.KindUnavailable)
			}
			if left := len(f.m.all()); at == "dropping" && (left == 0 || left >= had) {
				t.Errorf("%d keys of %d are left: it was not stopped in the middle", left, had)
			}
			c.crash(f)
			f.m.onRestore, f.m.afterward = func(r io.Reader) io.Reader { return r }, func() error { return nil }
			if len(images(t, f)) != files {
				t.Fatalf("files: %v", images(t, f))
			}
			c.revive(f)
			if len(images(t, f)) > 1 {
				t.Errorf("files after the start: %v", images(t, f))
			}
			c.put(c.leader(), "later")
			c.same(c.all...)
			if f.m.count("early") != 1 || f.m.count("later") != 1 {
				t.Error("keys are missing")
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestStateNotReceived: as long as the state is not on its disk, a follower goes on
// as it was; and what it had received in vain goes.
func TestStateNotReceived(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	f := c.all[2]
	disk := vfs.NewFaulty(vfs.OS())
	f.stop(t)
	f.disk = disk
	c.start(f, group.Config{})
	c.put(c.leader(), "early")
	c.same(c.all...)
	c.leaveBehind(f)
	before := f.m.Applied()
	ops := []vfs.Op{vfs.WriteOp("group.image"), "group.image.sync", "group.image.rename"}
	for _, op := range ops {
		disk.Fail(op, syscall.ENOSPC)
	}
	for _, op := range ops {
		tried := disk.Count(op)
		c.net.setCut(f.addr, false)
		poll(t, string(op), func() bool { return disk.Count(op) > tried })
		// It may have got an entry or two that had been on the way.
		if n := f.m.Applied(); n < before || f.m.count("early") != 1 || f.restored.Load() != 0 {
			t.Errorf("%s failed, and the follower went from %d to %d", op, before, n)
		}
		disk.Clear(op)
	}
	c.net.setCut(f.addr, false)
	poll(t, "the state to be taken over", func() bool { return f.restored.Load() > 0 })
	c.put(c.leader(), "late")
	c.same(c.all...)
}

// TestLostReplica: who lost synced log or votes does not run under its id again.
func TestLostReplica(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.putMany(c.all[0], "x", 200)
	f := c.all[2]
	f.stop(t)
	kept := f.dir
	again := func(what string, k object.Kind, text string, cfg group.Config, damage func(dir string)) {
		t.Helper()
		f.dir = t.TempDir()
		must(t, os.CopyFS(f.dir, os.DirFS(kept)))
		damage(f.dir)
		_, err := c.tryStart(f, cfg)
		wantKind(t, what, err, k)
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
		f.stop(t)
	}
	remove := func(names ...string) func(string) {
		return func(dir string) {
			for _, name := range names {
				must(t, os.RemoveAll(filepath.Join(dir, name)))
			}
		}
	}
	add := "remove it from its group and add this node anew"
	again("without its log", object.KindCorrupt, add, group.Config{}, remove("wal"))
	again("without log and state", object.KindCorrupt, add, group.Config{Join: true}, remove("wal", "meta"))
	again("without anything", object.KindCorrupt, add, group.Config{}, remove("wal", "meta", "groups"))
	id := f.id
	f.id = "c/2"
	again("another replica's log", object.KindInvalid, "destroy", group.Config{Join: true}, remove())
	f.id = id

	// Bytes that were synced and are damaged: the whole log is refused.
	f.dir = t.TempDir()
	must(t, os.CopyFS(f.dir, os.DirFS(kept)))
	segments, err := filepath.Glob(filepath.Join(f.dir, "wal", "*.wal"))
	must(t, err)
	b, err := os.ReadFile(segments[0])
	must(t, err)
	b[5000] ^= 1
	must(t, os.WriteFile(segments[0], b, 0o600))
	wantKind(t, "a damaged log", openLog(f.dir), object.KindCorrupt)
	if err := openLog(f.dir); err == nil || !strings.Contains(err.Error(), "must not vote again") {
		t.Errorf("a damaged log: %v", err)
	}
	// Nothing lost: it goes on.
	f.dir = kept
	must(t, os.Remove(filepath.Join(kept, "groups", "0007.replica"))) // is made again from the log
	c.start(f, group.Config{})
	c.same(c.all...)
}

// TestImageLost: a state that was being taken over is damaged on the disk.
func TestImageLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	f := c.all[2]
	c.leaveBehind(f)
	f.m.afterward = func() error { return errors.New("the power was cut") }
	c.net.setCut(f.addr, false)
	poll(t, "the group to stop", func() bool { return f.Stats().State == raft.Shutdown.String() })
	c.crash(f)
	f.m.afterward = func() error { return nil }
	name := images(t, f)[0]
	b, err := os.ReadFile(name)
	must(t, err)
	b[len(b)/2] ^= 1
	for what, damage := range map[string]func() error{
		"a damaged state": func() error { return os.WriteFile(name, b, 0o600) },
		"a lost state":    func() error { return os.Remove(name) },
	} {
		if err := damage(); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		_, err = c.tryStart(f, group.Config{})
		wantKind(t, what, err, object.KindCorrupt)
		if err == nil || !strings.Contains(err.Error(), "must not vote again") {
			t.Errorf("%s: %v", what, err)
		}
		f.Group = nil
		f.stop(t)
	}
}

// TestReceivingEndsWithTheGroup: a sender that says nothing does not hold up Close,
// and after Close nobody writes to the replica's files.
func TestReceivingEndsWithTheGroup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	a, f := c.all[0], c.all[2]
	slow, in := io.Pipe()
	defer in.Close()
	req := &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(a.id), Addr: []byte(f.id + "\x00" + a.id + "\x00a")},
		SnapshotVersion: 1, Term: a.Stats().Term, Leader: []byte(a.id + "\x00a"), LastLogIndex: 1 << 30, LastLogTerm: 1, Size: 1 << 20,
		Configuration: raft.EncodeConfiguration(raft.Configuration{})}
	ended := make(chan error, 1)
	go func() {
		var resp raft.InstallSnapshotResponse
		ended <- a.wire.InmemTransport.InstallSnapshot(raft.ServerID(f.id), f.addr, req, &resp, slow)
	}()
	poll(t, "the stream to be read", func() bool { return len(images(t, f)) == 1 })
	f.stop(t)
	if left := images(t, f); len(left) != 0 {
		t.Errorf("left, or still being written: %v", left)
	}
	if err := <-ended; err == nil {
		t.Error("the leader was told that half a state was taken over")
	}
}
