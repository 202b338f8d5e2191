package replication

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/replication/wal"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// recordSecond puts a second node on record that never comes and holds nothing.
func recordSecond(t testing.TB, n *Node) {
	t.Helper()
	r, err := n.propose0(t.Context(), &control.Command{Join: &control.Join{Node: "n2", Store: control.StoreID(newUploadID()), Incarnation: control.Incarnation(newUploadID()),
		API: "127.0.0.1:1", Peer: freeAddress(t), Weight: defaultWeight, Versions: control.Versions{Min: transport.MinVersion, Max: transport.MaxVersion}}})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the second node's address in the file of this store", func() bool {
		id, err := steward.LoadIdentity(n.cfg.FS, n.cfg.MetadataPath)
		return err == nil && id != nil && len(id.Peers) == 2
	})
}

// wipeLogs removes the logs of partitions of a store that is closed.
func wipeLogs(t testing.TB, n *Node, ids ...object.PartitionID) {
	t.Helper()
	l, err := wal.Open(wal.Options{Dir: n.logPath()})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := l.Group(id).Wipe(); err != nil {
			t.Error(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func copyLog(t testing.TB, to, from string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// TestOnlyReplicaIsNotLost: that another node is on record does not make a loss good
// when it has nothing of the partition: the node says so and changes nothing, and the log
// back from a backup brings everything back.
func TestOnlyReplicaIsNotLost(t *testing.T) {
	t.Parallel()
	cfg := memberConfig(t, "n1")
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range strings.Split("abcdefghijklmnop", "") {
		mustPut(t, n, dir+"/f", []byte(dir))
	}
	recordSecond(t, n)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "log")
	copyLog(t, backup, n.logPath())
	for _, lost := range [][]object.PartitionID{{3}, {object.Control, 3}} {
		wipeLogs(t, n, lost...)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		again, err := Open(ctx, cfg)
		if err == nil {
			_ = again.Close()
			t.Fatalf("opened without the logs of %v", lost)
		}
		if !strings.Contains(err.Error(), "lost its log") {
			t.Errorf("logs of %v lost: the reason is not told: %v", lost, err)
		}
		if lost[0] != object.Control && ctx.Err() != nil {
			t.Errorf("it waited for others that have nothing: %v", err)
		}
		cancel()
		copyLog(t, n.logPath(), backup)
	}
	n = openNode(t, cfg)
	for _, dir := range strings.Split("abcdefghijklmnop", "") {
		if got := mustGet(t, n, dir+"/f"); string(got) != dir {
			t.Errorf("%s has %q", dir, got)
		}
	}
}

// TestRecordsOfOnlyReplicas: nor does a lost file of records give up what nobody else has.
func TestRecordsOfOnlyReplicas(t *testing.T) {
	t.Parallel()
	cfg := memberConfig(t, "n1")
	n := openNode(t, cfg)
	recordSecond(t, n)
	s, err := n.Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	me, other := s.Partitions[3].Replicas[0].ID, control.ReplicaID{Node: "n2", Generation: 7}
	if !s.Irreplaceable(3, me) || s.Irreplaceable(3, other) || s.Irreplaceable(200, me) {
		t.Error("the only replica in force is no loss")
	}
	s.Partitions[3].Replicas = append(s.Partitions[3].Replicas, control.Replica{ID: other, State: control.Joining})
	if !s.Irreplaceable(3, me) {
		t.Error("one that is joining has nothing yet")
	}
	s.Partitions[3].Replicas[1].State = control.InForce
	if s.Irreplaceable(3, me) {
		t.Error("another in force has it, too")
	}
	s.Nodes[1].Gone = true
	if !s.Irreplaceable(3, me) {
		t.Error("the other's node is gone")
	}
}

// TestOneOpeningAtATime: an opening that was given up goes on until the disk answers;
// until then the replica is neither opened again nor dropped.
func TestOneOpeningAtATime(t *testing.T) {
	cfg := testConfig(t)
	faulty := vfs.NewFaulty(vfs.OS())
	cfg.FS = faulty
	n := openNode(t, cfg)
	p, h := n.parts[3], host{n}
	id := p.here.Load().id
	if err := h.Close(p.id, id); err != nil {
		t.Fatal(err)
	}
	back := make(chan struct{})
	faulty.Set("group.id", vfs.Rule{Block: back})
	before := faulty.Count("group.id")
	try := func(what string, fn func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := fn(ctx); !object.IsKind(err, object.KindTimeout) {
			t.Errorf("%s: %v", what, err)
		}
	}
	open := func(ctx context.Context) error {
		_, err := h.open(ctx, p.id, id, steward.Resume)
		return err
	}
	try("the disk hangs", open)
	try("a second opening", open)
	try("dropping what is being opened", func(ctx context.Context) error { return h.Drop(ctx, p.id, id) })
	if got := faulty.Count("group.id") - before; got != 1 {
		t.Errorf("%d openings at once", got)
	}
	close(back)
	faulty.Clear()
	if _, err := h.open(t.Context(), p.id, id, steward.Resume); err != nil {
		t.Fatal(err)
	}
	if err := p.here.Load().group.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// warnings collects what is logged as WARN or worse.
type warnings struct {
	slog.Handler
	mu   sync.Mutex
	list []string
}

func (w *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w *warnings) WithGroup(string) slog.Handler                { return w }
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, text)
	return nil
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

func (w *warnings) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = nil
}

// TestStopWarnsOfNothing: a node that stops while its steward looks around does not
// complain about itself.
func TestStopWarnsOfNothing(t *testing.T) {
	cfg := testConfig(t)
	faulty := vfs.NewFaulty(vfs.OS())
	heard := &warnings{}
	cfg.FS, cfg.Logger = faulty, slog.New(heard)
	cfg.NodeID, cfg.API, cfg.Peer = "n1", "127.0.0.1:1", freeAddress(t)
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	second := testConfig(t) // which has the first look closely at what it leads
	second.NodeID, second.API, second.Peer, second.Logger = "n2", "127.0.0.1:1", freeAddress(t), nil
	second.Join = []string{cfg.Peer}
	openNode(t, second)
	if _, err := n.CreateBucket(t.Context(), "box", "me"); err != nil {
		t.Fatal(err)
	}
	// What is under way holds the stop up.
	back := make(chan struct{})
	release := sync.OnceFunc(func() { close(back) })
	defer release()
	count := faulty.Count("wal.append.sync")
	faulty.Set("wal.append.sync", vfs.Rule{Block: back})
	put, closed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(put)
		_, _ = n.Put(context.Background(), "box", "k", strings.NewReader("x"), PutOptions{Size: 1})
	}()
	waitFor(t, "the change to come to the disk", func() bool { return faulty.Count("wal.append.sync") > count })
	heard.forget()
	go func() { closed <- n.Close() }()
	for until := time.Now().Add(time.Second); time.Now().Before(until) && len(heard.all()) == 0; time.Sleep(10 * time.Millisecond) {
		n.steward.Wake()
	}
	faulty.Clear()
	release()
	<-put
	if err := <-closed; err != nil {
		t.Error(err)
	}
	for _, text := range heard.all() {
		t.Error(text)
	}
}

// files counts the chunk files of nodes.
func files(t testing.TB, nodes ...*Node) (list []object.ChunkID) {
	t.Helper()
	for _, n := range nodes {
		owners, err := n.chunks.Partitions()
		if err != nil {
			t.Fatal(err)
		}
		for _, owner := range owners {
			if err := n.chunks.Each(t.Context(), owner, object.ChunkID{}, func(id object.ChunkID) error { list = append(list, id); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	return list
}

// TestAuditSparesUploadsElsewhere: an upload in flight at one node survives an audit at
// the one that keeps its chunks; what nobody uploads any more goes.
func TestAuditSparesUploadsElsewhere(t *testing.T) {
	nodes := twoNodes(t, nil)
	a, b := nodes[0], nodes[1]
	audit := func() {
		t.Helper()
		for _, n := range nodes {
			if err := n.audit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	body := randomBytes(3, 300_000)
	r, w := io.Pipe()
	put := make(chan error, 1)
	go func() {
		_, err := b.Put(context.Background(), "box", "slow", r, PutOptions{Size: int64(len(body))})
		put <- err
	}()
	if _, err := w.Write(body[:200_000]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "chunks of the upload", func() bool { return len(files(t, nodes...)) > 0 })
	audit()
	if len(files(t, nodes...)) == 0 {
		t.Error("chunks of an upload in flight were dropped")
	}
	if _, err := w.Write(body[200_000:]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), <-put); err != nil {
		t.Fatal("the upload was refused: ", err)
	}
	if got := mustGet(t, a, "slow"); !bytes.Equal(got, body) {
		t.Errorf("%d bytes", len(got))
	}
	kept := len(files(t, nodes...))

	orphan := func(upload object.UploadID) object.ChunkID {
		t.Helper()
		id := object.ChunkID{Owner: 3, Upload: upload}
		if _, err := b.copies.PutPieces(t.Context(), id, copies.SchemeOf(object.DefaultScheme), [][]byte{body[:1000]}, func() {}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	orphan(b.newUpload()) // a process that runs, and does not upload it
	orphan(newUploadID()) // one that has ended
	own := a.newUpload()  // this one
	a.active.set(own, true)
	orphan(own)
	audit()
	a.active.set(own, false)
	if got := len(files(t, nodes...)); got <= kept {
		t.Error("the audit dropped what its own node uploads")
	}
	// On a busy machine a node may not answer in time, and is spared for once.
	waitFor(t, "what nobody uploads to go", func() bool { audit(); return len(files(t, nodes...)) <= kept })
	if got := len(files(t, nodes...)); got != kept {
		t.Errorf("%d files, want %d", got, kept)
	}
	// Who does not answer may be uploading.
	silent := orphan(b.newUpload())
	if err := b.net.Close(); err != nil {
		t.Fatal(err)
	}
	spared := map[object.UploadID]bool{}
	a.askUploads(t.Context(), &control.Node{ID: "n2", Incarnation: control.Incarnation(b.incarnation)}, []object.UploadID{silent.Upload}, spared)
	if !spared[silent.Upload] {
		t.Error("uploads of a node that does not answer are not spared")
	}
}

func FuzzUploads(f *testing.F) {
	f.Add(make([]byte, 17), uint8(1))
	f.Add([]byte{}, uint8(0))
	n := &Node{}
	n.active.uploads = map[object.UploadID]bool{}
	f.Fuzz(func(t *testing.T, b []byte, count uint8) {
		if list, err := decodeUploads(b, control.Incarnation{}, int(count)); err == nil && len(list) != int(count) {
			t.Errorf("%d answers about %d uploads", len(list), count)
		}
		answer, err := n.serveUploads(t.Context(), transport.Peer{}, b)
		if err != nil {
			return
		}
		if _, err := decodeUploads(answer, control.Incarnation{}, len(b)/16); err != nil {
			t.Error(err)
		}
	})
}
