package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/integration/proxy"
	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// served is a node in this process behind its server, and that behind a proxy.
type served struct {
	node  *replication.Node
	srv   *server.Server
	proxy *proxy.Proxy
	once  sync.Once
}

// stop ends the server and its node at once, as a kill does: requests are cut off.
func (s *served) stop() {
	s.once.Do(func() {
		s.proxy.Die()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.srv.Shutdown(ctx) // the requests that it cuts off are its error
		_ = s.node.Close()
	})
}

// lease is short, so that what is not renewed is lost while a test looks.
const lease = 3 * time.Second

// threeServed are three nodes of one cluster; every partition has three replicas.
func threeServed(t *testing.T) []*served {
	t.Helper()
	var list []*served
	founder := ""
	for i := range 3 {
		api, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		peer, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		cfg := replication.Config{NodeID: fmt.Sprintf("n%d", i+1), API: api.Addr().String(), Peer: peer.Addr().String(), LeasePeriod: lease,
			MetadataPath: t.TempDir(), StoragePaths: []string{t.TempDir()}, Partitions: 4, ChunkSize: 256 << 10, BufferMemory: 32 << 20}
		peer.Close()
		if i == 0 {
			founder = cfg.Peer
		} else {
			cfg.Join = []string{founder}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		node, err := replication.Open(ctx, cfg)
		cancel()
		check(t, err)
		srv, err := server.New(node, server.Options{})
		check(t, err)
		go func() { _ = srv.Serve(api) }()
		s := &served{node: node, srv: srv, proxy: proxy.New(t, api.Addr().String())}
		t.Cleanup(s.stop)
		list = append(list, s)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		v, err := list[0].node.View(t.Context())
		// The chunk groups are another matter: they may go on moving.
		if err == nil && v.Progress.Planned && v.Progress.PartitionsLeft == 0 && v.Progress.UnderReplicated == 0 && v.Progress.Leaderless == 0 && len(v.Partitions[1].Replicas) == 3 {
			return list
		}
		if time.Now().After(deadline) {
			t.Fatalf("the partitions are not in place: %+v, %v", v, err)
		}
	}
}

// clientOf speaks to all three, to the last one first: that is the one that fails.
func clientOf(t *testing.T, list []*served) *api.Client {
	t.Helper()
	var endpoints []string
	for i := range list {
		endpoints = append(endpoints, list[len(list)-1-i].proxy.Addr())
	}
	c, err := api.NewClient(endpoints, api.ClientOptions{})
	check(t, err)
	t.Cleanup(c.Close)
	return c
}

// TestFailover stops, or hangs, the node that clients and a mount talk to, in the
// middle of their work. No call fails, nothing happens twice, no byte is wrong, and a
// file that is open without a name lives on.
func TestFailover(t *testing.T) {
	nodes := threeServed(t)
	for _, round := range []struct {
		name       string
		fail, mend func(*served)
	}{
		{"hung", func(s *served) { s.proxy.Hang() }, func(s *served) { s.proxy.Resume() }},
		{"stopped", func(s *served) { s.stop() }, func(*served) {}},
	} {
		t.Run(round.name, func(t *testing.T) {
			w := &failoverWork{t: t, c: clientOf(t, nodes), bucket: round.name}
			_, err := w.c.CreateBucket(t.Context(), w.bucket, "")
			check(t, err)
			_, err = w.c.Put(t.Context(), w.bucket, "log", strings.NewReader(""), api.PutOptions{})
			check(t, err)
			open := w.openOnMount(nodes)
			rest := w.halfRead()
			w.start()
			w.until("some work before", 20)
			round.fail(nodes[2])
			t.Cleanup(func() { round.mend(nodes[2]) })
			began := time.Now()
			w.until("work after the failure", 40)
			t.Logf("20 more operations of each kind took %v", time.Since(began))
			rest()
			t.Logf("the rest of a large object came after %v", time.Since(began))
			w.end()
			t.Logf("everything was read again after %v", time.Since(began))
			open(began)
		})
	}
}

// failoverWork is what goes on while a node fails.
type failoverWork struct {
	t       *testing.T
	c       *api.Client
	bucket  string
	puts    atomic.Int64
	appends atomic.Int64
	over    chan struct{}
	wg      sync.WaitGroup
}

// start puts objects, small and large ones, and appends to one, until end.
func (w *failoverWork) start() {
	w.over = make(chan struct{})
	work := func(count *atomic.Int64, do func(i int64) error) {
		w.wg.Go(func() {
			for {
				select {
				case <-w.over:
					return
				default:
				}
				if err := do(count.Load()); err != nil {
					w.t.Errorf("an operation failed: %v", err)
					return
				}
				count.Add(1)
			}
		})
	}
	ctx := w.t.Context()
	log, err := w.c.Attributes(ctx, w.bucket, "log")
	check(w.t, err)
	work(&w.puts, func(i int64) error {
		_, err := w.c.Put(ctx, w.bucket, fmt.Sprintf("put/%d", i), bytes.NewReader(bodyOf(i)), api.PutOptions{})
		return err
	})
	work(&w.appends, func(i int64) error {
		_, _, err := w.c.Append(ctx, log.ID, strings.NewReader(fmt.Sprintf("%d\n", i)), api.WriteOptions{})
		return err
	})
}

// bodyOf is the i-th object: every tenth is in chunks.
func bodyOf(i int64) []byte {
	n := 100
	if i%10 == 0 {
		n = 1 << 20
	}
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(b) // never fails
	return b
}

// until waits until both kinds of work have been done so often.
func (w *failoverWork) until(what string, n int64) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); w.puts.Load() < n || w.appends.Load() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) || w.t.Failed() {
			w.t.Fatalf("no %s: %d puts, %d appends", what, w.puts.Load(), w.appends.Load())
		}
	}
}

// end stops the work and looks at what it left: everything acknowledged, once.
func (w *failoverWork) end() {
	close(w.over)
	w.wg.Wait()
	for i := range w.puts.Load() {
		got := w.read(fmt.Sprintf("put/%d", i))
		if !bytes.Equal(got, bodyOf(i)) {
			w.t.Errorf("object %d has %d bytes, or others", i, len(got))
		}
	}
	var want strings.Builder
	for i := range w.appends.Load() {
		fmt.Fprintf(&want, "%d\n", i)
	}
	if got := string(w.read("log")); got != want.String() {
		w.t.Errorf("%d appends left\n%s", w.appends.Load(), got)
	}
}

func (w *failoverWork) read(key string) []byte {
	r, err := w.c.Get(w.t.Context(), w.bucket, key, api.GetOptions{})
	if err != nil {
		w.t.Errorf("%s: %v", key, err)
		return nil
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		w.t.Errorf("%s: %v", key, err)
	}
	return b
}

// halfRead reads a part of a large object; the returned function reads the rest.
func (w *failoverWork) halfRead() (rest func()) {
	body := make([]byte, 24<<20) // more than the system keeps for a reader
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body)
	_, err := w.c.Put(w.t.Context(), w.bucket, "large", bytes.NewReader(body), api.PutOptions{})
	check(w.t, err)
	r, err := w.c.Get(w.t.Context(), w.bucket, "large", api.GetOptions{})
	check(w.t, err)
	sum := sha256.New()
	_, err = io.CopyN(sum, r, 1<<20)
	check(w.t, err)
	return func() {
		defer r.Close()
		n, err := io.Copy(sum, r)
		if want := sha256.Sum256(body); err != nil || n != int64(len(body))-1<<20 || !bytes.Equal(sum.Sum(nil), want[:]) {
			w.t.Errorf("the rest of a large object: %d bytes, %v", n, err)
		}
	}
}

// openOnMount opens files on a mount, one of which then loses its name elsewhere. The
// returned function writes and reads through the handles, until many leases have passed.
func (w *failoverWork) openOnMount(nodes []*served) (after func(failed time.Time)) {
	t := w.t
	need.FUSE(t)
	dir := t.TempDir()
	c := clientOf(t, nodes)
	m, err := fs.Mount(t.Context(), fs.Options{Backend: fs.NewBackend(c), Bucket: w.bucket, Dir: dir, HoldRenew: lease / 4})
	check(t, err)
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	named, err := os.Create(filepath.Join(dir, "named"))
	check(t, err)
	t.Cleanup(func() { named.Close() })
	nameless, err := os.Create(filepath.Join(dir, "nameless"))
	check(t, err)
	t.Cleanup(func() { nameless.Close() })
	for _, f := range []*os.File{named, nameless} {
		_, err := f.WriteString("before ")
		check(t, err)
		check(t, f.Sync())
	}
	time.Sleep(time.Second) // not a wait for something: files open for less may be gone, as the mount's DESIGN says
	other, err := api.NewClient([]string{nodes[0].proxy.Addr()}, api.ClientOptions{})
	check(t, err)
	defer other.Close()
	check(t, other.Delete(t.Context(), w.bucket, "nameless", api.Conditions{}))
	return func(failed time.Time) {
		for i := 0; time.Since(failed) < 3*lease; i++ {
			for _, f := range []*os.File{named, nameless} {
				if _, err := f.WriteAt(fmt.Appendf(nil, "after %03d", i), 7); err != nil {
					t.Fatalf("%s: %v", f.Name(), err)
				}
				if err := f.Sync(); err != nil {
					t.Fatalf("%s: %v", f.Name(), err)
				}
				b := make([]byte, 16)
				if _, err := f.ReadAt(b, 0); err != nil || string(b) != fmt.Sprintf("before after %03d", i) {
					t.Fatalf("%s: %q, %v", f.Name(), b, err)
				}
			}
			time.Sleep(lease / 10) // not a wait for something: leases must have had the time to run out
		}
		// The stream of changes goes on at another node: what others write is seen.
		seen := clientOf(t, nodes[:2])
		_, err = seen.Put(t.Context(), w.bucket, "new", strings.NewReader("made elsewhere"), api.PutOptions{})
		check(t, err)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if b, err := os.ReadFile(filepath.Join(dir, "new")); err == nil && string(b) == "made elsewhere" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the mount does not see what was made elsewhere")
			}
		}
	}
}
