package integration

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
)

// memoryLimit is what the server may use for an object of any size.
const memoryLimit = 256 << 20

// TestLargeObject sends one body up and down; the server's memory stays bounded.
func TestLargeObject(t *testing.T) {
	size := need.Size[int64](2<<30, 10<<30)
	n := startNode(t, "-max-object-size", "16G")
	c := client(t, n, api.ClientOptions{Retries: -1})
	_, err := c.CreateBucket(t.Context(), "box", "")
	check(t, err)
	up, down := sha256.New(), sha256.New()
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), up)
	obj, err := c.Put(t.Context(), "box", "large", body, api.PutOptions{Size: size})
	check(t, err)
	if obj.Size != size {
		t.Fatalf("%d bytes were stored", obj.Size)
	}
	if len(obj.SHA256) > 0 && !bytes.Equal(obj.SHA256, up.Sum(nil)) {
		t.Error("the SHA-256 that the server tells is wrong")
	}
	r, err := c.Get(t.Context(), "box", "large", api.GetOptions{})
	check(t, err)
	defer r.Close()
	_, err = io.Copy(down, r)
	check(t, err)
	if !bytes.Equal(up.Sum(nil), down.Sum(nil)) {
		t.Error("the object came back different")
	}
	peak, err := n.PeakMemory()
	check(t, err)
	t.Logf("the server's peak memory is %d MB", peak>>20)
	if peak > memoryLimit {
		t.Errorf("the server used %d MB", peak>>20)
	}
}

// TestManyObjects lists a bucket of many small objects in order, page by page.
func TestManyObjects(t *testing.T) {
	count := need.Size(50_000, 1_000_000)
	n := startNode(t)
	c := client(t, n, api.ClientOptions{})
	_, err := c.CreateBucket(t.Context(), "box", "")
	check(t, err)
	name := func(i int) string { return fmt.Sprintf("k%07d", i) }
	peak := watchMemory(t, n)
	const clients = 64
	var wg sync.WaitGroup
	for w := range clients {
		wg.Go(func() {
			for i := w; i < count && !t.Failed(); i += clients {
				key := name(i)
				if _, err := c.Put(t.Context(), "box", key, bytes.NewReader([]byte(key)), api.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := 0
	for o := (api.ListOptions{}); ; {
		page, err := c.List(t.Context(), "box", o)
		check(t, err)
		for _, obj := range page.Objects {
			if string(obj.Key) != name(seen) || obj.Size != 8 {
				t.Fatalf("object %d of the listing is %q of %d bytes", seen, obj.Key, obj.Size)
			}
			seen++
		}
		if o.Cursor = page.Cursor; o.Cursor == "" {
			break
		}
	}
	used := peak()
	t.Logf("%d of %d objects listed; the server's peak memory is %d MB", seen, count, used>>20)
	if seen != count || used > 2*memoryLimit {
		t.Errorf("%d of %d objects are listed, with %d MB", seen, count, used>>20)
	}
}

// watchMemory looks at the server's memory again and again; the function that it
// returns ends that and tells the most it saw.
func watchMemory(t *testing.T, n *harness.Node) (peak func() int64) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		most := int64(0)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			now, err := n.HeapMemory()
			if err != nil {
				t.Error(err)
			}
			most = max(most, now)
			select {
			case <-stop:
				done <- most
				return
			case <-tick.C:
			}
		}
	}()
	end := sync.OnceValue(func() int64 {
		close(stop)
		return <-done
	})
	t.Cleanup(func() { end() })
	return end
}
