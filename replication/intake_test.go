package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// roomyNode has memory for eight chunks of 1 MiB.
func roomyNode(t *testing.T) *Node {
	t.Helper()
	cfg := testConfig(t)
	cfg.ChunkSize, cfg.BufferMemory = 1<<20, 8<<20
	n := openNode(t, cfg)
	if _, err := n.CreateBucket(context.Background(), "box", ""); err != nil {
		t.Fatal(err)
	}
	return n
}

// stalled is a reader behind which memory readers hide their type: the bytes,
// and then nothing until the end is let through.
type stalled struct {
	io.Reader
	sent chan<- struct{}
	end  <-chan struct{}
}

func (s *stalled) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		s.sent <- struct{}{}
		<-s.end
	}
	return n, err
}

// TestBodiesThatTrickle: many bodies that stand still after some bytes, more than
// there are chunks of memory, keep nobody else from storing objects. In the end
// they are stored as they are.
func TestBodiesThatTrickle(t *testing.T) {
	n := roomyNode(t)
	const slow = 24
	for _, size := range []int{100 << 10, 1<<20 - 1, 1<<20 + 100} {
		sent, end := make(chan struct{}, slow), make(chan struct{})
		body := randomBytes(int64(size), size)
		var all sync.WaitGroup
		for i := range slow {
			all.Go(func() {
				declared := []int64{-1, int64(size)}[i%2]
				r := &stalled{bytes.NewReader(body), sent, end}
				if _, err := n.Put(context.Background(), "box", fmt.Sprintf("slow%d", i), r, PutOptions{Size: declared}); err != nil {
					t.Errorf("%d bytes, body %d: %v", size, i, err)
				}
			})
		}
		deadline := time.After(15 * time.Second)
		for range slow {
			select {
			case <-sent:
			case <-deadline:
				t.Fatalf("bodies of %d bytes do not get on beside each other", size)
			}
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		quick := randomBytes(5, 5<<20)
		for i := range 4 {
			if _, err := n.Put(ctx, "box", fmt.Sprintf("quick%d", i), io.MultiReader(bytes.NewReader(quick)), PutOptions{Size: int64(len(quick))}); err != nil {
				t.Errorf("beside %d bodies that stand still after %d bytes: %v", slow, size, err)
			}
		}
		cancel()
		t.Logf("%d bytes: %v", size, time.Since(start))
		close(end)
		all.Wait()
		for i := range slow {
			if got := mustGet(t, n, fmt.Sprintf("slow%d", i)); !bytes.Equal(got, body) {
				t.Fatalf("%d bytes, body %d: the content differs", size, i)
			}
		}
	}
	wantNoMemoryLost(t, n)
}

// wantNoMemoryLost checks that all room was given back.
func wantNoMemoryLost(t *testing.T, n *Node) {
	t.Helper()
	if !n.bufs.sem.TryAcquire(n.bufs.total) {
		t.Error("memory of bodies was not given back")
		return
	}
	n.bufs.sem.Release(n.bufs.total)
}

// TestMemoryIsGivenBack: whatever ends a body, its memory is free again.
func TestMemoryIsGivenBack(t *testing.T) {
	n := roomyNode(t)
	broken := errors.New("the cable was pulled")
	for size := 0; size <= 3<<20; size += 300_001 {
		for _, declared := range []int64{-1, int64(size), int64(size) + 1, int64(size) - 1} {
			body := randomBytes(9, size)
			_, err := n.Put(context.Background(), "box", "k", io.MultiReader(bytes.NewReader(body)), PutOptions{Size: declared})
			if fits := declared < 0 || declared == int64(size); fits != (err == nil) {
				t.Fatalf("%d bytes declared as %d: %v", size, declared, err)
			}
			_, err = n.Put(context.Background(), "box", "k", io.MultiReader(bytes.NewReader(body), failing{broken}), PutOptions{Size: declared})
			if err == nil || declared < 0 && !errors.Is(err, broken) {
				t.Fatalf("%d bytes declared as %d, then an error: %v", size, declared, err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err = n.Put(ctx, "box", "k", bytes.NewReader(body), PutOptions{Size: declared}); err == nil {
				t.Fatal("a put that was canceled went through")
			}
			wantNoMemoryLost(t, n)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestUnsummed: the SHA-256 of the whole is the caller's, or that of the only
// chunk; without either it is not known.
func TestUnsummed(t *testing.T) {
	n := roomyNode(t)
	known := bytes.Repeat([]byte{7}, 32)
	for _, c := range []struct {
		size     int
		sum      []byte
		computed bool
	}{{100, known, true}, {100_000, known, true}, {1 << 20, nil, true}, {2 << 20, known, false}, {2 << 20, nil, false}} {
		body := randomBytes(1, c.size)
		want := c.sum
		if c.computed {
			want = sum256(body)
		}
		for _, declared := range []int64{-1, int64(c.size)} {
			obj, err := n.Put(context.Background(), "box", "k", Unsummed(bytes.NewReader(body), func() []byte { return c.sum }), PutOptions{Size: declared})
			if err != nil || !bytes.Equal(obj.Inode.SHA256, want) {
				t.Errorf("%d of %d bytes: %x, not %x (%v)", declared, c.size, obj.Inode.SHA256, want, err)
			}
			obj, err = n.Put(context.Background(), "box", "k", bytes.NewReader(body), PutOptions{Size: declared})
			if err != nil || !bytes.Equal(obj.Inode.SHA256, sum256(body)) {
				t.Errorf("%d of %d bytes, summed: %x (%v)", declared, c.size, obj.Inode.SHA256, err)
			}
		}
	}
}

func sum256(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// TestCutsFitOneEntry: a write in place is one entry, however scarce memory is.
func TestCutsFitOneEntry(t *testing.T) {
	n := roomyNode(t)
	limit := namespace.MaxExtents * n.cfg.ChunkSize
	for _, c := range []struct {
		size, max int64
		cut       int
		want      bool
	}{{10 << 20, limit, 200, true}, {10 << 20, limit, 246, false}, {-1, limit, 0, true}, {-1, limit, 128, false}, {limit, limit, 0, false}, {10 << 30, 20 << 30, 255, true}} {
		in := newIntake(n, &received{}, failing{}, nil, c.size, c.max)
		in.batch = make([]*object.Extent, c.cut)
		if got := in.mayCut(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
