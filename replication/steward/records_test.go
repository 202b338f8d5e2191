package steward

import (
	"context"
	"fmt"

	"log/slog"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, what string, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("%s: %v, want kind %v", what, err, k)
	}
}

// fakeHost keeps of each replica a log that is a file with its id, on the same disk.
type fakeHost struct {
	disk vfs.FS
	live map[object.PartitionID]string // that are open
	// ended are ids that were destroyed, as somebody was told.
	ended map[string]bool
	bad   string // what must never have happened
}

func (h *fakeHost) log(p object.PartitionID) string { return filepath.Join("/logs", fmt.Sprint(p)) }

func (h *fakeHost) read(p object.PartitionID) (string, error) {
	b, err := readFile(h.disk, "log", h.log(p), 100)
	return string(b), err
}

func (h *fakeHost) Open(_ context.Context, p object.PartitionID, id control.ReplicaID, how Start) (Group, error) {
	if h.ended[id.String()] {
		h.bad = id.String() + " was opened after it was destroyed"
	}
	if err := makeDir(h.disk, "/logs"); err != nil {
		return nil, err
	}
	switch was, err := h.read(p); {
	case err != nil:
		return nil, err
	case was != "" && was != id.String():
		h.bad = id.String() + " was opened over the log of " + was
	case was == "" && how == Resume:
		return nil, object.Errorf(object.KindCorrupt, "the log is lost")
	case was == "":
		if err := vfs.WriteBytes(h.disk, "log", h.log(p), 0o600, []byte(id.String())); err != nil {
			return nil, err
		}
	}
	h.live[p] = id.String()
	return fakeGroup{}, nil
}

func (h *fakeHost) Close(p object.PartitionID, _ control.ReplicaID) error {
	delete(h.live, p)
	return nil
}

func (h *fakeHost) Drop(_ context.Context, p object.PartitionID, _ control.ReplicaID) error {
	if h.live[p] != "" {
		h.bad = h.live[p] + " was dropped while it was open"
	}
	if was, err := h.read(p); err != nil || was == "" {
		return err
	}
	if err := h.disk.Remove("log.remove", h.log(p)); err != nil {
		return err
	}
	return h.disk.SyncDir("log.dir", "/logs")
}

type fakeGroup struct{ Group }

// stateOf is a control state with one data partition, whose replicas are on node n.
func stateOf(list ...control.Replica) *control.State {
	return &control.State{Partitions: []control.Partition{{}, {ID: 1, Replicas: list}}}
}

func replicaN(generation uint64, state control.ReplicaState) control.Replica {
	return control.Replica{ID: control.ReplicaID{Node: "n", Generation: generation}, State: state}
}

func openReplicas(t testing.TB, disk vfs.FS, h *fakeHost, st func() *control.State) (*replicas, error) {
	t.Helper()
	if err := makeDir(disk, "/node"); err != nil {
		return nil, err
	}
	rec, err := openRecords(disk, "/node")
	if err != nil {
		return nil, err
	}
	cfg := &Config{Self: control.Join{Node: "n"}, Host: h, Logger: slog.New(slog.DiscardHandler),
		State: func(context.Context, bool) (*control.State, error) { return st(), nil }}
	return newReplicas(cfg, rec), nil
}

// TestPowerCut cuts the power at every call to the disk in the lives of two replicas,
// one after the other, and takes them on from what is left.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var told map[string]bool // what somebody was told before the cut
	st := stateOf(replicaN(5, control.Joining))
	script := func(r *replicas, h *fakeHost) error {
		steps := []struct {
			name string
			do   func() error
		}{
			{"created 5", func() error { return r.create(ctx, 1, 5) }},
			{"destroyed 5", func() error { return r.destroy(ctx, 1, 5) }},
			{"created 7", func() error { return r.create(ctx, 1, 7) }},
		}
		for _, s := range steps {
			if told[s.name] {
				continue
			}
			st = stateOf(replicaN(5, control.Joining))
			if told["destroyed 5"] {
				st = stateOf(replicaN(7, control.Joining))
			}
			if s.name == "created 5" && r.rec.get(1).Life == lifeDropping {
				continue
			}
			if err := s.do(); err != nil {
				return err
			}
			if told[s.name] = true; s.name == "destroyed 5" {
				h.ended["n#5"] = true
			}
		}
		return nil
	}
	calls := 0
	for n := 1; ; n++ {
		disk := vfs.NewPowerCut()
		told = map[string]bool{}
		h := &fakeHost{disk: disk, live: map[object.PartitionID]string{}, ended: map[string]bool{}}
		disk.CutAt(n)
		r, err := openReplicas(t, disk, h, func() *control.State { return st })
		if err == nil {
			err = script(r, h)
		}
		if err == nil {
			calls = n
			break
		}
		after := disk.Crash(rand.New(rand.NewSource(int64(n))))
		h = &fakeHost{disk: after, live: map[object.PartitionID]string{}, ended: h.ended}
		r, err = openReplicas(t, after, h, func() *control.State { return st })
		must(t, err)
		rec := r.rec.get(1)
		switch {
		case told["created 7"] && (rec != record{7, lifeLive}),
			told["destroyed 5"] && !told["created 7"] && (rec.Generation == 5 && rec.Life != lifeDestroyed || rec.Generation < 5),
			told["created 5"] && !told["destroyed 5"] && (rec.Generation != 5 || rec.Life < lifeLive || rec.Life == lifeLost):
			t.Fatalf("cut at call %d after %v: the record is %+v", n, told, rec)
		}
		r.resume(ctx)
		if rec := r.rec.get(1); rec.Life == lifeLost || rec.Life == lifeLive && h.live[1] == "" {
			t.Fatalf("cut at call %d after %v: the record is %+v, open %q", n, told, rec, h.live[1])
		}
		if r.rec.get(1).Life == lifeDestroyed && r.rec.get(1).Generation == 5 {
			told["created 5"], told["destroyed 5"] = true, true // as a report says now
		}
		if err := script(r, h); err != nil {
			t.Fatalf("cut at call %d after %v: going on: %v", n, told, err)
		}
		if h.bad != "" || r.rec.get(1) != (record{7, lifeLive}) || h.live[1] != "n#7" {
			t.Fatalf("cut at call %d: %s; %+v, open %q", n, h.bad, r.rec.get(1), h.live[1])
		}
	}
	if calls < 25 {
		t.Errorf("only %d calls to the disk: what was tested?", calls)
	}
	t.Logf("%d calls", calls)
}

func TestCreateAndDestroy(t *testing.T) {
	t.Parallel()
	ctx, disk := t.Context(), vfs.NewPowerCut()
	st := stateOf(replicaN(5, control.Joining))
	h := &fakeHost{disk: disk, live: map[object.PartitionID]string{}, ended: map[string]bool{}}
	r, err := openReplicas(t, disk, h, func() *control.State { return st })
	must(t, err)
	wantKind(t, "a replica that the map does not name", r.create(ctx, 1, 6), object.KindStale)
	if len(r.held(nil)) != 0 {
		t.Error("it left a record")
	}
	must(t, r.create(ctx, 1, 5))
	must(t, r.create(ctx, 1, 5))
	st = stateOf(replicaN(6, control.Joining))
	wantKind(t, "another beside a live one", r.create(ctx, 1, 6), object.KindBusy)
	wantKind(t, "a lower one", r.create(ctx, 1, 4), object.KindStale)
	must(t, r.destroy(ctx, 1, 4)) // long gone
	if h.live[1] != "n#5" {
		t.Fatal("the live one was closed")
	}
	must(t, r.destroy(ctx, 1, 5))
	must(t, r.destroy(ctx, 1, 5))
	wantKind(t, "a destroyed one", r.create(ctx, 1, 5), object.KindStale)
	must(t, r.create(ctx, 1, 6))
	key := func(g uint64) control.ReplicaKey { return control.ReplicaKey{Partition: 1, Generation: g} }
	// What the map still names below the record is gone.
	st = stateOf(replicaN(5, control.Removed), replicaN(6, control.Created))
	if held := r.held(st); held[key(5)] != control.HeldDestroyed || held[key(6)] != control.HeldLive {
		t.Errorf("held: %v", held)
	}
	must(t, r.destroy(ctx, 1, 8)) // one that was never here: then none below is, either
	if rec := r.rec.get(1); rec != (record{8, lifeDestroyed}) || h.live[1] != "" || h.bad != "" {
		t.Errorf("%+v %q %s", rec, h.live[1], h.bad)
	}
}

// TestLosses: a log that is gone, and a record that is gone, are losses; neither id ever runs again.
func TestLosses(t *testing.T) {
	t.Parallel()
	ctx, disk := t.Context(), vfs.NewPowerCut()
	st := stateOf(replicaN(5, control.Joining))
	h := &fakeHost{disk: disk, live: map[object.PartitionID]string{}, ended: map[string]bool{}}
	r, err := openReplicas(t, disk, h, func() *control.State { return st })
	must(t, err)
	must(t, r.create(ctx, 1, 5))
	must(t, r.losses(ctx, stateOf(replicaN(5, control.InForce))))
	must(t, r.losses(ctx, stateOf(replicaN(4, control.Created)))) // an old map
	if rec := r.rec.get(1); rec.Life != lifeLive {
		t.Fatalf("a live replica counts as %+v", rec)
	}

	// The log goes: resume says so.
	must(t, disk.Remove("x", h.log(1)))
	h.live = map[object.PartitionID]string{}
	r, err = openReplicas(t, disk, h, func() *control.State { return st })
	must(t, err)
	r.resume(ctx)
	key := control.ReplicaKey{Partition: 1, Generation: 5}
	if r.held(st)[key] != control.HeldLost || h.live[1] != "" {
		t.Fatalf("after its log was lost: %v, open %q", r.held(st), h.live[1])
	}
	r.resume(ctx)
	wantKind(t, "making it anew", r.create(ctx, 1, 5), object.KindStale)

	// The records go, too: the map tells, and a Create that comes late changes nothing.
	must(t, disk.Remove("x", "/node/"+RecordsName))
	r, err = openReplicas(t, disk, h, func() *control.State { return st })
	must(t, err)
	st = stateOf(replicaN(5, control.Created))
	wantKind(t, "a late Create", r.create(ctx, 1, 5), object.KindStale)
	must(t, r.losses(ctx, st))
	if r.held(st)[key] != control.HeldLost || h.live[1] != "" {
		t.Fatalf("after its record was lost: %v, open %q", r.held(st), h.live[1])
	}
	must(t, r.destroy(ctx, 1, 5))
	must(t, r.losses(ctx, st)) // the map lags
	if r.held(st)[key] != control.HeldDestroyed {
		t.Errorf("%v", r.held(st))
	}
}

// TestDamagedFiles: neither file is believed when it is damaged, cut off or from the future.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	good := encodeRecords(map[object.PartitionID]record{0: {0, lifeLive}, 7: {1 << 40, lifeDestroyed}})
	if m, err := decodeRecords(good); err != nil || len(m) != 2 || m[7] != (record{1 << 40, lifeDestroyed}) {
		t.Fatalf("%v %v", m, err)
	}
	for i := range good {
		bad := []byte(string(good))
		bad[i] ^= 1
		if _, err := decodeRecords(bad); err == nil {
			t.Errorf("byte %d may be wrong", i)
		}
		if _, err := decodeRecords(good[:i]); err == nil {
			t.Errorf("%d bytes are enough", i)
		}
	}
	next := []byte(string(good))
	next[len(recordsMagic)-1] = 2
	_, err := decodeRecords(next)
	wantKind(t, "a later format", err, object.KindVersion)

	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, IdentityName), []byte(`{"version": 9}`), 0o600))
	_, err = LoadIdentity(vfs.OS(), dir)
	wantKind(t, "a later identity", err, object.KindVersion)
	must(t, os.WriteFile(filepath.Join(dir, IdentityName), []byte(`{"version": 1}`), 0o600))
	_, err = LoadIdentity(vfs.OS(), dir)
	wantKind(t, "half an identity", err, object.KindCorrupt)
	if err == nil || !strings.Contains(err.Error(), "restore") {
		t.Errorf("it does not say what to do: %v", err)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(encodeRecords(map[object.PartitionID]record{0: {0, lifeLive}, 7: {300, lifeDropping}}))
	f.Add([]byte(recordsMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeRecords(b)
		if err != nil {
			return
		}
		if again, err := decodeRecords(encodeRecords(m)); err != nil || !maps.Equal(m, again) {
			t.Fatalf("%v: %v, %v", m, again, err)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add([]byte(`{"version":1,"cluster":"01000000000000000000000000000000","node":"a","store":"02000000000000000000000000000000","peers":{"b":"x:1"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err != nil {
			return
		}
		dir := t.TempDir()
		must(t, id.save(vfs.OS(), dir))
		back, err := LoadIdentity(vfs.OS(), dir)
		if err != nil || back.Cluster != id.Cluster || back.Node != id.Node || len(back.Secrets) != len(id.Secrets) {
			t.Fatalf("%+v: %+v, %v", id, back, err)
		}
	})
}

func FuzzMessages(f *testing.F) {
	for _, v := range []any{
		&report{Incarnation: control.Incarnation{1}, Epoch: 9, Verified: []control.GroupKey{{Width: 3, Group: 5, Since: 7}}, Replicas: []heldReport{{Partition: 1, Generation: 2, Held: control.HeldLost}},
			Groups: []groupReport{reportOf(3, control.GroupSeen{Epoch: 1, Current: 2, Config: 3, Leader: control.ReplicaID{Node: "a"},
				Members: map[control.ReplicaID]bool{{Node: "a"}: true, {Node: "b", Generation: 4}: false}, CaughtUp: map[control.ReplicaID]bool{{Node: "b", Generation: 4}: true}})}},
		&createRequest{Partition: 1, Generation: 2, Node: "n"},
		&joinAnswer{Cluster: control.ClusterID{1}, Peers: []peerAddress{{Node: "a", Peer: "h:1"}}},
	} {
		b, err := encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeReport(b); err == nil {
			for i := range r.Groups {
				if g := r.Groups[i].seen(); !validReplica(g.Leader) {
					t.Fatalf("leader %q", g.Leader)
				}
			}
			if len(r.held()) > len(r.Replicas) {
				t.Fatal("more replicas than were told")
			}
		}
		if c, err := decodeCreate(b); err == nil && c.Generation == 0 {
			t.Fatal("generation 0 is never asked for")
		}
		_, _ = decodeJoinAnswer(b)
	})
}

// TestVerifiedOfOneProcess: what a node said is verified counts for the process that said
// it, and not for the next one of the node, which may have other disks.
func TestVerifiedOfOneProcess(t *testing.T) {
	w := newWatch("a", time.Now, time.Minute, time.Minute)
	key := control.GroupKey{Width: 3, Group: 5, Since: 7}
	w.begin("b", 0)
	if !w.end("b", &report{Incarnation: control.Incarnation{1}}) {
		t.Fatal("a first answer is no news")
	}
	w.begin("b", 0)
	if !w.end("b", &report{Incarnation: control.Incarnation{1}, Verified: []control.GroupKey{key}}) {
		t.Fatal("a group that is verified is no news")
	}
	for life, want := range map[byte]int{1: 1, 2: 0} {
		got := map[control.GroupKey][]control.NodeID{}
		w.verified(&control.State{Nodes: []control.Node{{ID: "b", Incarnation: control.Incarnation{life}}}}, got)
		if len(got[key]) != want {
			t.Fatalf("of process %d: %v", life, got)
		}
	}
}
