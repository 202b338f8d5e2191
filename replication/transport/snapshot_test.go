package transport

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// installed is what became of one snapshot at the follower.
type installed struct {
	sum [32]byte
	n   int64
	err error
}

// installer is a follower that takes snapshots beside its appends, as
// replication/group does.
type installer struct {
	g    *Group
	got  chan installed
	term atomic.Uint64                 // that it is in, if later than the sender's
	see  func(io.Reader) io.Reader     // what is read passes through it; nil: as it is
	hold atomic.Pointer[chan struct{}] // if set, the answer waits until it is closed
}

func (i *installer) run() {
	for {
		select {
		case rpc := <-i.g.Consumer():
			switch c := rpc.Command.(type) {
			case *raft.InstallSnapshotRequest:
				go i.install(rpc, c.Term)
			case *raft.AppendEntriesRequest:
				term := max(c.Term, i.term.Load())
				rpc.Respond(&raft.AppendEntriesResponse{Term: term, Success: term == c.Term}, nil)
			}
		case <-i.g.ctx.Done():
			return
		}
	}
}

func (i *installer) install(rpc raft.RPC, term uint64) {
	h, data := sha256.New(), rpc.Reader
	if i.see != nil {
		data = i.see(data)
	}
	hold := i.hold.Load()
	n, err := io.Copy(h, data)
	i.got <- installed{[32]byte(h.Sum(nil)), n, err}
	if hold != nil {
		<-*hold
	}
	rpc.Respond(&raft.InstallSnapshotResponse{Term: term, Success: err == nil}, err)
}

func installPair(t *testing.T, opt Options, see func(io.Reader) io.Reader) (from *Group, to *installer, bk *book) {
	t.Helper()
	s := NewSecret()
	bk = &book{}
	opt.Node, opt.Secrets = "a", []Secret{s}
	from, err := open(t, bk, opt).Group(1)
	must(t, err)
	g, err := open(t, bk, Options{Node: "b", Secrets: []Secret{s}}).Group(1)
	must(t, err)
	to = &installer{g: g, got: make(chan installed, 16), see: see}
	go to.run()
	return from, to, bk
}

func install(g *Group, size int64, data io.Reader) (raft.InstallSnapshotResponse, error) {
	var resp raft.InstallSnapshotResponse
	err := g.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{RPCHeader: headerFrom("a", "a"), Term: 3, LastLogIndex: 9, LastLogTerm: 2, Size: size}, &resp, data)
	return resp, err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// TestSnapshotCut breaks the connection in the middle of a snapshot, and before its
// answer: the follower never takes a part for the whole, the leader is told, and
// the next one arrives whole.
func TestSnapshotCut(t *testing.T) {
	t.Parallel()
	data := randomBytes(6 << 20)
	from, to, bk := installPair(t, Options{}, nil)
	addr, _ := bk.resolve("b")
	for _, at := range []int64{20_000, 1 << 20, 3<<20 + 17, 6<<20 - 1} {
		beatOnce(t, from, "b", 3) // over a connection that is not cut
		beatOnce(t, from, "b", 3)
		p := proxy.New(t, addr)
		p.CutAt.Store(at)
		bk.set("b", p.Addr())
		resp, err := install(from, int64(len(data)), bytes.NewReader(data))
		if resp.Success {
			t.Fatalf("cut after %d bytes, and installed", at)
		}
		wantKind(t, err, object.KindUnavailable)
		if r := <-to.got; r.err == nil || errors.Is(r.err, io.EOF) || r.n >= int64(len(data)) {
			t.Fatalf("cut after %d bytes: the follower read %d bytes, and then %v", at, r.n, r.err)
		}
		bk.set("b", addr)
	}
	beatOnce(t, from, "b", 3)
	p := proxy.New(t, addr)
	bk.set("b", p.Addr())
	hold := make(chan struct{})
	to.hold.Store(&hold)
	lost := make(chan error, 1)
	go func() { _, err := install(from, int64(len(data)), bytes.NewReader(data)); lost <- err }()
	if r := <-to.got; r.err != nil || r.sum != sha256.Sum256(data) {
		t.Fatalf("%d bytes, %v", r.n, r.err)
	}
	p.Die()
	wantKind(t, <-lost, object.KindUnavailable)
	close(hold)
	to.hold.Store(nil)
	bk.set("b", addr)
	resp, err := install(from, int64(len(data)), bytes.NewReader(data))
	must(t, err)
	if r := <-to.got; !resp.Success || resp.Term != 3 || r.err != nil || r.sum != sha256.Sum256(data) {
		t.Fatalf("%+v, %d bytes, %v", resp, r.n, r.err)
	}
}

// TestSnapshotHoldsNothingUp: while a follower takes a snapshot, which may last
// minutes, its appends and heartbeats are answered.
func TestSnapshotHoldsNothingUp(t *testing.T) {
	t.Parallel()
	from, to, _ := installPair(t, Options{}, nil)
	hold := make(chan struct{})
	to.hold.Store(&hold)
	done := make(chan error, 1)
	go func() { _, err := install(from, 3, bytes.NewReader([]byte("abc"))); done <- err }()
	<-to.got
	began := time.Now()
	beatOnce(t, from, "b", 3)
	must(t, from.AppendEntries("b", "b", &raft.AppendEntriesRequest{RPCHeader: headerFrom("a", "a"), Term: 3, PrevLogEntry: 1, PrevLogTerm: 1}, &raft.AppendEntriesResponse{}))
	if took := time.Since(began); took > answerWait/2 {
		t.Errorf("they took %v", took)
	}
	close(hold)
	must(t, <-done)
	// Closing ends one that is being taken, at both ends.
	hold = make(chan struct{})
	to.hold.Store(&hold)
	go func() { _, err := install(from, 3, bytes.NewReader([]byte("abc"))); done <- err }()
	<-to.got
	must(t, to.g.Close())
	if err := <-done; err == nil {
		t.Error("a closed group has installed it")
	}
	close(hold)
}

// TestSnapshotOfAnotherSize: a source that ends early, or fails, ends the transfer;
// one that is longer is cut to what was announced.
func TestSnapshotOfAnotherSize(t *testing.T) {
	t.Parallel()
	from, to, _ := installPair(t, Options{}, nil)
	_, err := install(from, 1000, bytes.NewReader(make([]byte, 900)))
	wantKind(t, err, object.KindCorrupt)
	if r := <-to.got; r.err == nil {
		t.Error("the follower took it for the whole")
	}
	broken := errors.New("the disk is gone")
	if _, err := install(from, 1000, io.MultiReader(bytes.NewReader(make([]byte, 500)), failing{broken})); !errors.Is(err, broken) {
		t.Error(err)
	}
	if r := <-to.got; r.err == nil {
		t.Error("the follower took it for the whole")
	}
	_, err = install(from, 1000, bytes.NewReader(make([]byte, 1001)))
	must(t, err)
	if r := <-to.got; r.n != 1000 || r.err != nil {
		t.Errorf("%d bytes, %v", r.n, r.err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// counted counts what is read.
type counted struct {
	io.Reader
	n    *atomic.Int64
	each func()
}

func (c counted) Read(b []byte) (int, error) {
	k, err := c.Reader.Read(b)
	c.n.Add(int64(k))
	if c.each != nil {
		c.each()
	}
	return k, err
}

// TestSnapshotMemory sends to a follower that reads slowly: what was taken from the
// source and not given to the follower yet is little, however large the state.
func TestSnapshotMemory(t *testing.T) {
	t.Parallel()
	const size = 96 << 20
	var taken, given, ahead atomic.Int64
	from, to, _ := installPair(t, Options{SnapshotRate: 1 << 40}, func(r io.Reader) io.Reader {
		return counted{r, &given, func() {
			if d := taken.Load() - given.Load(); d > ahead.Load() {
				ahead.Store(d)
			}
			if n := given.Load(); n > 4<<20 && n < 5<<20 {
				time.Sleep(time.Millisecond) // slow for a moment: the kernel's buffers fill
			}
		}}
	})
	_, err := install(from, size, counted{zeros{}, &taken, nil})
	must(t, err)
	if r := <-to.got; r.n != size || r.err != nil {
		t.Fatalf("%d bytes, %v", r.n, r.err)
	}
	t.Logf("at most %d KiB under way", ahead.Load()>>10)
	if ahead.Load() > 32<<20 {
		t.Errorf("%d bytes were under way", ahead.Load())
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestSnapshotRate sends several at once: together they keep the rate, few at a time.
func TestSnapshotRate(t *testing.T) {
	t.Parallel()
	const rate, size, number = 16 << 20, 1 << 20, 8
	s, bk := NewSecret(), &book{}
	a := open(t, bk, Options{Node: "a", Secrets: []Secret{s}, SnapshotRate: rate})
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}})
	var wg sync.WaitGroup
	var running, most atomic.Int64
	began := time.Now()
	for id := range object.PartitionID(number) {
		from, err := a.Group(id)
		must(t, err)
		g, err := b.Group(id)
		must(t, err)
		to := &installer{g: g, got: make(chan installed, 1), see: func(r io.Reader) io.Reader {
			n := running.Add(1)
			for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
			}
			return r
		}}
		go to.run()
		wg.Go(func() {
			if _, err := install(from, size, zeros{}); err != nil {
				t.Error(err)
			}
		})
		go func() { <-to.got; running.Add(-1) }()
	}
	wg.Wait()
	// All but the burst and the last piece of each wait for their time.
	least := time.Duration(float64(number*size-snapshotStreams*snapshotPiece)/rate*float64(time.Second)) - paceBurst
	if took := time.Since(began); took < least {
		t.Errorf("%d MiB at %d MiB/s took %v, at least %v were due", number*size>>20, rate>>20, took, least)
	}
	if most.Load() > snapshotStreams+1 { // one may be read while its slot is given on
		t.Errorf("%d at a time", most.Load())
	}
	a.SetSnapshotRate(1 << 40)
	began = time.Now()
	must(t, a.pace.wait(t.Context(), 1<<30))
	must(t, a.pace.wait(t.Context(), 1<<30))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the new rate is not used: %v", took)
	}
}

// TestSnapshotWaits for a node that is away, and then for its group to open: raft
// would be back only after up to 10 s.
func TestSnapshotWaits(t *testing.T) {
	t.Parallel()
	s, bk := NewSecret(), &book{}
	from, err := open(t, bk, Options{Node: "a", Secrets: []Secret{s}}).Group(1)
	must(t, err)
	bk.set("b", "127.0.0.1:1")
	done := make(chan error, 1)
	go func() { _, err := install(from, 3, bytes.NewReader([]byte("abc"))); done <- err }()
	p, err := from.n.peer("b")
	must(t, err)
	eventually(t, "it waits for the node", func() bool { return p.beats.waiting() })
	b := open(t, bk, Options{Node: "b", Secrets: []Secret{s}})
	eventually(t, "the node was asked", func() bool { return from.Sent() > 0 })
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	g, err := b.Group(1)
	must(t, err)
	to := &installer{g: g, got: make(chan installed, 1)}
	go to.run()
	must(t, <-done)
	if r := <-to.got; r.n != 3 || r.err != nil {
		t.Errorf("%d bytes, %v", r.n, r.err)
	}
	to.term.Store(8) // somebody else leads by now: nothing is streamed
	resp, err := install(from, 3, nil)
	if err != nil || resp.Success || resp.Term != 8 {
		t.Errorf("%+v, %v", resp, err)
	}
}
