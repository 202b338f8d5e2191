package replication

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// smallDisk has no room left, where it is told so.
type smallDisk struct {
	vfs.FS
	full atomic.Pointer[vfs.Op]
}

func (d *smallDisk) Usage(op vfs.Op, dir string) (vfs.Usage, error) {
	u, err := d.FS.Usage(op, dir)
	if p := d.full.Load(); p != nil && *p == op {
		u.FreeBytes = 1
	}
	return u, err
}

// TestFullVoterStopsGrowth: a partition takes nothing that grows while the disk of any of
// its voters is at its reserve, whoever leads and wherever it is proposed; what is there is
// read and deleted, and when there is room again all goes on.
func TestFullVoterStopsGrowth(t *testing.T) {
	disk := &smallDisk{FS: vfs.OS()}
	nodes := twoNodes(t, func(i int, cfg *Config) {
		cfg.Partitions, cfg.Logger = 4, nil
		if i == 1 {
			cfg.FS = disk
		}
	})
	inForce(t, nodes[0], 2, 2)
	put := func(n *Node, i int) error {
		_, err := n.Put(t.Context(), "box", fmt.Sprintf("d%d/f", i), strings.NewReader("x"), PutOptions{Size: 1})
		return err
	}
	for i := range 8 {
		if err := put(nodes[0], i); err != nil {
			t.Fatal(err)
		}
	}
	op := opSpace
	disk.full.Store(&op)
	waitFor(t, "the first node to hear of it", func() bool { return nodes[0].peers.fullAt("n2") && nodes[1].full.Load() })
	for i := range 8 {
		for _, n := range nodes {
			wantKind(t, put(n, i), object.KindNoSpace)
		}
		if got := mustGet(t, nodes[0], fmt.Sprintf("d%d/f", i)); string(got) != "x" {
			t.Errorf("%q", got)
		}
	}
	if err := nodes[0].Delete(t.Context(), "box", "d0/f", Conditions{}); err != nil {
		t.Error(err)
	}
	disk.full.Store(nil)
	waitFor(t, "growth where there is room again", func() bool {
		for i := range 8 {
			if put(nodes[0], i) != nil {
				return false
			}
		}
		return true
	})
}

// TestFullNewsEnds: a node that says nothing any more holds nobody up.
func TestFullNewsEnds(t *testing.T) {
	var p peers
	p.isFull("n2", true)
	if !p.fullAt("n2") || p.fullAt("n3") || !p.some.Load() {
		t.Error("what a node says is not noted")
	}
	p.full["n2"] = time.Now().Add(-time.Millisecond)
	if p.fullAt("n2") {
		t.Error("old news counts")
	}
	p.isFull("n2", false)
	if p.some.Load() {
		t.Error("news are kept")
	}
}

// TestFullDataDisk: a node whose data disks are at their reserve takes no new chunks from
// others: who puts hears that there is no space, and what is there stays readable.
func TestFullDataDisk(t *testing.T) {
	disk := &smallDisk{FS: vfs.OS()}
	nodes := twoNodes(t, func(_ int, cfg *Config) { cfg.FS, cfg.Partitions, cfg.Logger = disk, 4, nil })
	body := randomBytes(1, 200_000)
	mustPut(t, nodes[1], "a/old", body)
	op := chunk.OpUsage
	disk.full.Store(&op)
	waitFor(t, "no space at the other node", func() bool {
		_, err := nodes[1].Put(t.Context(), "box", "a/new", bytes.NewReader(body), PutOptions{Size: int64(len(body))})
		return object.IsKind(err, object.KindNoSpace)
	})
	if _, err := nodes[1].Put(t.Context(), "box", "a/old", bytes.NewReader(body[1:]), PutOptions{Size: int64(len(body) - 1)}); !object.IsKind(err, object.KindNoSpace) {
		t.Error(err)
	}
	if got := mustGet(t, nodes[1], "a/old"); !bytes.Equal(got, body) {
		t.Errorf("%d bytes", len(got))
	}
	disk.full.Store(nil)
	waitFor(t, "room again", func() bool {
		_, err := nodes[1].Put(t.Context(), "box", "a/new", bytes.NewReader(body), PutOptions{Size: int64(len(body))})
		return err == nil
	})
}

// TestClocksApart: somebody is told that clocks differ; work goes on.
func TestClocksApart(t *testing.T) {
	heard := &warnings{}
	nodes := twoNodes(t, func(i int, cfg *Config) {
		cfg.ReplicationFactor, cfg.Partitions, cfg.Logger = 1, 4, slog.New(heard)
		if i == 1 {
			cfg.Logger = nil
			cfg.clock = func() time.Time { return time.Now().Add(time.Hour) }
		}
	})
	waitFor(t, "a warning", func() bool {
		text := strings.Join(heard.all(), "\n")
		return strings.Contains(text, "clock") && strings.Contains(text, "n2")
	})
	if worst := nodes[0].peers.worst(); worst < 59*time.Minute || worst > 61*time.Minute {
		t.Errorf("an hour is measured as %v", worst)
	}
	for i, n := range nodes {
		mustPut(t, n, fmt.Sprintf("c%d", i), []byte("x"))
	}

	var p peers
	for _, c := range []struct {
		ahead, give time.Duration
		off, news   bool
	}{{time.Second, 0, false, false}, {-6 * time.Second, 2 * time.Second, false, false}, {-8 * time.Second, 2 * time.Second, true, true}, {-time.Hour, 0, true, false}, {0, 0, false, true}} {
		if off, news := p.clock("n", c.ahead, c.give); off != c.off || news != c.news {
			t.Errorf("%+v: %v %v", c, off, news)
		}
	}
}

// TestSweepWithClockAhead: what a coordinator left whose clock is an hour ahead does not
// stay for an hour, nor is what one began whose clock is behind settled at first sight.
func TestSweepWithClockAhead(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			var ahead atomic.Int64
			ahead.Store(int64(off))
			cfg := testConfig(t)
			cfg.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			n := openNode(t, cfg)
			if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
				t.Fatal(err)
			}
			a, b := apart(t, n)
			open := func() int {
				r, err := n.Check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return r.Open
			}
			attempt := 0
			waitFor(t, "a transaction to be left open", func() bool { // the sweep at the start may end the first
				attempt++
				name := fmt.Sprintf("f%d", attempt)
				newFile(t, n, a, name, "x")
				crashAt, count := int32(2+attempt%3), atomic.Int32{}
				step := func(object.PartitionID) error {
					if count.Add(1) >= crashAt {
						return object.Errorf(object.KindTimeout, "the coordinator vanished (test)")
					}
					return nil
				}
				n.step.Store(&step)
				_ = n.Rename(context.Background(), a, name, b, name, RenameFlags{})
				n.step.Store(nil)
				return open() > 0
			})
			ahead.Store(0)
			if err := n.sweep(time.Hour); err != nil || open() == 0 {
				t.Fatalf("settled at first sight (%v)", err)
			}
			waitFor(t, "the transaction to be settled", func() bool { return n.sweep(10*time.Millisecond) == nil && open() == 0 })
		})
	}
}

// TestSessionsStayWhileClocksDisagree: a leader whose clock is days ahead ends none.
func TestSessionsStayWhileClocksDisagree(t *testing.T) {
	var ahead atomic.Int64
	cfg := testConfig(t)
	cfg.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	d := mkdirs(t, n, "d")
	s := newUploadID()
	if err := n.SetXattr(WithToken(t.Context(), Token{Session: s, Seq: 1}), d, "y", []byte("y"), false, false); err != nil {
		t.Fatal(err)
	}
	kept := func() bool {
		v := n.parts[d.Partition()].here.Load().machine.View()
		defer v.Close()
		list, _, err := v.IdleSessions(time.Now().Add(time.Hour).UnixNano(), object.UploadID{}, 10)
		return err == nil && len(list) == 1
	}
	ahead.Store(int64(48 * time.Hour))
	n.peers.clock("n2", -48*time.Hour, 0)
	if n.tidySessions(); !kept() {
		t.Error("a session ended by a clock that nobody shares")
	}
	n.peers.clock("n2", 0, 0)
	if n.tidySessions(); kept() {
		t.Error("an idle session stays")
	}
}

func FuzzPeerNews(f *testing.F) {
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeNews(b); err != nil {
			wantKind(t, err, object.KindInvalid)
		}
	})
}
