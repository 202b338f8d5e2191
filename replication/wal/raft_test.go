package wal

import (
	"fmt"
	"io"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// lines is a state machine that remembers what was applied.
type lines struct {
	mu  sync.Mutex
	got []string
}

func (m *lines) Apply(e *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = append(m.got, string(e.Data))
	return nil
}
func (m *lines) Snapshot() (raft.FSMSnapshot, error) { return nil, fmt.Errorf("no snapshots here") }
func (m *lines) Restore(io.ReadCloser) error         { return fmt.Errorf("no snapshots here") }

func (m *lines) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

// startRaft runs a group of one voter on the log.
func startRaft(t *testing.T, g *Group, bootstrap bool) (*raft.Raft, *lines) {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "a", hclog.NewNullLogger()
	conf.HeartbeatTimeout, conf.ElectionTimeout = 50*time.Millisecond, 50*time.Millisecond
	conf.LeaderLeaseTimeout, conf.CommitTimeout = 50*time.Millisecond, 5*time.Millisecond
	addr, trans := raft.NewInmemTransport("")
	if bootstrap {
		servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: addr}}}
		must(t, raft.BootstrapCluster(conf, g, g, raft.NewInmemSnapshotStore(), trans, servers))
	}
	m := &lines{}
	r, err := raft.NewRaft(conf, m, g, g, raft.NewInmemSnapshotStore(), trans)
	must(t, err)
	waitFor(t, func() bool { return r.State() == raft.Leader })
	return r, m
}

// TestUnderRaft runs real groups on the log, cuts the power, and starts them again.
func TestUnderRaft(t *testing.T) {
	t.Parallel()
	disk := vfs.NewPowerCut()
	o := small(disk, "/wal")
	o.ManualClean = false
	l := mustOpen(t, o)
	const groups, commands = 4, 40
	var rafts []*raft.Raft
	for id := range object.PartitionID(groups) {
		r, _ := startRaft(t, l.Group(id), true)
		rafts = append(rafts, r)
	}
	var wg sync.WaitGroup
	for id, r := range rafts {
		wg.Go(func() {
			for i := range commands {
				if err := r.Apply(fmt.Appendf(nil, "%d-%d", id, i), time.Second).Error(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, r := range rafts {
		must(t, r.Shutdown().Error())
	}
	l = mustOpen(t, small(disk.Crash(rand.New(rand.NewSource(1))), "/wal"))
	for id := range object.PartitionID(groups) {
		r, m := startRaft(t, l.Group(id), false)
		waitFor(t, func() bool { return m.count() >= commands })
		for i, line := range m.got {
			if line != fmt.Sprintf("%d-%d", id, i) {
				t.Errorf("group %d applies %q as number %d", id, line, i)
			}
		}
		must(t, r.Shutdown().Error())
	}
}
