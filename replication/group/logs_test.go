package group

import (
	"bytes"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

func logEntries(from, to, term uint64) (list []*raft.Log) {
	for i := from; i <= to; i++ {
		list = append(list, &raft.Log{Index: i, Term: term, Data: fmt.Appendf(nil, "%d/%d", i, term)})
	}
	return list
}

// TestFullDiskAfterTruncation: raft remembers the tail that it has dropped until the
// new one is written; it must not go on between the two.
func TestFullDiskAfterTruncation(t *testing.T) {
	disk := vfs.NewFaulty(vfs.OS())
	n := openStoresOn(t, disk, t.TempDir(), small)
	g := &Group{cfg: Config{Log: n.log.Group(3)}, closing: make(chan struct{}), stuck: make(chan struct{})}
	cfg := Config{Node: "n1", Log: n.log.Group(3), Machine: &counter{Partition: n.db.Partition(3)}}
	must(t, cfg.complete())
	g.cfg, g.log, g.ctx = cfg, cfg.Logger, t.Context()
	l := &logs{Group: cfg.Log, g: g}
	must(t, l.StoreLogs(logEntries(1, 9, 1)))
	full := func() {
		for _, op := range []vfs.Op{vfs.WriteOp("wal.segment.open"), vfs.WriteOp("wal.segment.create")} {
			disk.Fail(op, syscall.ENOSPC)
		}
	}
	full()
	if err := l.StoreLogs(logEntries(10, 12, 1)); !object.IsKind(err, object.KindNoSpace) {
		t.Errorf("on a full disk: %v", err)
	}
	disk.Clear()
	must(t, l.DeleteRange(5, 9))
	full()
	stored := make(chan error, 1)
	go func() { stored <- l.StoreLogs(logEntries(5, 6, 2)) }()
	select {
	case err := <-stored:
		t.Fatalf("raft was let on: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	disk.Clear()
	must(t, <-stored)
	var e raft.Log
	if must(t, l.GetLog(6, &e)); e.Term != 2 {
		t.Errorf("entry 6 is of term %d", e.Term)
	}
	full()
	if err := l.StoreLogs(logEntries(7, 7, 2)); !object.IsKind(err, object.KindNoSpace) {
		t.Errorf("with a whole log on a full disk: %v", err)
	}
	disk.Clear()
	n.close(t)
}

// TestHoleInTheLog: an entry that is missing in the middle stops the group.
func TestHoleInTheLog(t *testing.T) {
	n := openNode(t, t.TempDir(), 1, small)
	waitReady(t, n)
	g := n.groups[0]
	for range 5 {
		_, err := g.Propose(t.Context(), []byte("k"))
		must(t, err)
	}
	l := &logs{Group: g.cfg.Log, g: g}
	var e raft.Log
	if err := l.GetLog(99, &e); err != raft.ErrLogNotFound {
		t.Errorf("behind the end: %v", err)
	}
	must(t, g.cfg.Log.DeleteRange(4, 4))
	go func() { _ = l.GetLog(4, &e) }()
	poll(t, "the group to stop", func() bool { return g.failure.Load() != nil })
	if err := g.Read(t.Context()); !object.IsKind(err, object.KindUnavailable) {
		t.Errorf("Read: %v", err)
	}
	n.close(t)
	// A goroutine that cannot go on must not hold on to a node that is closed.
	poll(t, "what was stuck to end", func() bool {
		stacks := make([]byte, 16<<20)
		return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("group.(*Group).hang"))
	})
}
