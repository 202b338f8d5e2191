package group_test

import (
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// held is a disk on which one call is held just before it is made.
type held struct {
	t    testing.TB
	disk *vfs.Faulty
	gate chan struct{}
}

func (h *held) hold(op vfs.Op) (reached func()) {
	gate, before := make(chan struct{}), h.disk.Count(op)
	h.gate = gate
	h.disk.Set(op, vfs.Rule{Block: gate, Times: 1})
	return func() {
		h.t.Helper()
		poll(h.t, string(op), func() bool { return h.disk.Count(op) > before })
	}
}

// cutPower leaves what the disk has while the call is held, and goes on from that.
func (c *cluster) cutPower(r *replica, h *held) {
	c.t.Helper()
	c.net.setCut(r.addr, true)
	left := c.t.TempDir()
	must(c.t, group.CopyNode(left, r.dir, true))
	h.disk.Clear()
	close(h.gate)
	r.stop(c.t)
	r.dir, r.disk = left, vfs.OS()
	c.revive(r)
}

// TestPowerCutWhileTakingOver cuts the power before each durable step of taking over
// a state. (What the machine does in between is TestCrashWhileRestoring's.)
func TestPowerCutWhileTakingOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	f := c.all[2]
	c.put(c.all[0], "early")
	for _, step := range []struct{ first, then vfs.Op }{
		{first: "group.image.sync"},
		{first: "group.image.rename", then: "group.image.dir"},
		{first: "group.image.rename", then: "wal.append.sync"},
	} {
		h := &held{t: t, disk: c.onFaulty(f)}
		c.same(c.all...)
		c.leaveBehind(f)
		reached := h.hold(step.first)
		c.net.setCut(f.addr, false)
		reached()
		if step.then != "" {
			first := h.gate
			reached = h.hold(step.then)
			close(first)
			reached()
		}
		c.cutPower(f, h)
		c.put(c.leader(), "later")
		c.same(c.all...)
		if f.m.count("early") != 1 {
			t.Errorf("%v: a key is missing", step)
		}
	}
	if n := f.m.count("later"); n != 3 {
		t.Errorf("counts %d", n)
	}
}

// TestPowerCutWhileSettling cuts the power before each step of letting go of the file
// of a state that has become durable in the machine.
func TestPowerCutWhileSettling(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	f := c.all[2]
	c.put(c.all[0], "early")
	for _, op := range []vfs.Op{"wal.append.sync", "group.file.remove", "group.dir.sync"} {
		c.leaveBehind(f)
		was := f.restored.Load()
		c.net.setCut(f.addr, false)
		poll(t, "the state to be taken over", func() bool { return f.restored.Load() > was })
		c.same(c.all...)
		c.net.setCut(f.addr, true)
		h := &held{t: t, disk: c.onFaulty(f)} // its stop wrote the tables out
		if len(images(t, f)) != 1 {
			t.Fatalf("%s: files %v", op, images(t, f))
		}
		reached := h.hold(op)
		compacted := make(chan error, 1)
		go func() { compacted <- f.Compact() }()
		reached()
		taken := f.restored.Load()
		c.cutPower(f, h)
		<-compacted
		c.put(c.leader(), "later")
		c.same(c.all...)
		must(t, f.Compact())
		// A leader that did not get the answer to its state sends another.
		if left := images(t, f); len(left) != 0 && f.restored.Load() == taken {
			t.Errorf("%s: left %v, %+v", op, left, f.Stats())
		}
		if f.m.count("early") != 1 {
			t.Errorf("%s: a key is missing", op)
		}
	}
}
