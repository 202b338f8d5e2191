package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// TestKillUnderLoad kills the server at random moments of a mixed load. After
// each restart every acknowledged write is there byte for byte, and what was in
// flight either happened whole or not at all.
func TestKillUnderLoad(t *testing.T) {
	rounds := need.Size(20, 200)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	n := startNode(t)
	c := client(t, n, api.ClientOptions{Retries: -1})
	_, err := c.CreateBucket(t.Context(), "box", "")
	check(t, err)
	writers := make([]*writer, 8)
	for i := range writers {
		writers[i] = newWriter(fmt.Sprintf("w%d/", i), seed+uint64(i))
	}
	for range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, w := range writers {
			c := client(t, n, api.ClientOptions{Retries: -1})
			wg.Go(func() { w.work(ctx, t, c) })
		}
		time.Sleep(time.Duration(50+rng.IntN(700)) * time.Millisecond) // not a wait: the moment of the crash is the point
		check(t, n.Kill())
		cancel()
		wg.Wait()
		check(t, n.Start(t.Context()))
		verifyAll(t, n, writers)
		if t.Failed() {
			t.FailNow()
		}
	}
	ops := 0
	for _, w := range writers {
		ops += w.acknowledged
	}
	t.Logf("%d rounds, %d acknowledged changes", rounds, ops)
	if ops < rounds {
		t.Errorf("only %d changes in %d rounds: this is no load", ops, rounds)
	}
}

// verifyAll compares the whole bucket with what the writers know.
func verifyAll(t *testing.T, n *harness.Node, writers []*writer) {
	t.Helper()
	c := client(t, n, api.ClientOptions{})
	var wg sync.WaitGroup
	for _, w := range writers {
		wg.Go(func() { w.settle(t, c) })
	}
	wg.Wait()
	var want, got []string
	for _, w := range writers {
		want = append(want, slices.Sorted(maps.Keys(w.state))...)
	}
	o := api.ListOptions{}
	for {
		page, err := c.List(t.Context(), "box", o)
		check(t, err)
		for _, obj := range page.Objects {
			got = append(got, string(obj.Key))
		}
		if o.Cursor = page.Cursor; o.Cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the bucket lists %q; it should be %q", got, want)
	}
}

// writer changes keys of its own, one change at a time, and knows what must be
// there. It is not safe for concurrent use.
type writer struct {
	prefix       string
	sizes        []int // of bodies; nil: from nothing to several chunks
	rng          *rand.Rand
	state        map[string][]byte // what is there
	pending      map[string][]byte // what the change in flight would make of it; nil: none in flight
	acknowledged int
}

func newWriter(prefix string, seed uint64) *writer {
	return &writer{prefix: prefix, rng: rand.New(rand.NewPCG(seed, 1)), state: map[string][]byte{}}
}

// work makes changes until one fails, which the crash makes sure of.
func (w *writer) work(ctx context.Context, t *testing.T, c *api.Client) {
	for ctx.Err() == nil {
		w.pending = maps.Clone(w.state)
		err := w.change(ctx, c)
		if err != nil {
			switch object.KindOf(err) {
			case object.KindUnavailable, object.KindCanceled, object.KindTimeout:
			default:
				t.Errorf("%s: %v", w.prefix, err)
			}
			return // the change may have happened or not
		}
		w.state, w.pending = w.pending, nil
		w.acknowledged++
	}
}

func (w *writer) key() string {
	return fmt.Sprintf("%sd%d/k%d", w.prefix, w.rng.IntN(2), w.rng.IntN(4))
}

// body is empty, inline, of one chunk, or sometimes of several.
func (w *writer) body() []byte {
	sizes := []int{0, 100, 4096, 16<<10 + 1, 300_000, 300_000, 5 << 20}
	if w.sizes != nil {
		sizes = w.sizes
	}
	n := sizes[w.rng.IntN(len(sizes))]
	b := make([]byte, n)
	var key [32]byte
	for i := range key {
		key[i] = byte(w.rng.Uint32())
	}
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// change makes one random change, in pending and in the store.
func (w *writer) change(ctx context.Context, c *api.Client) error {
	key := w.key()
	old, there := w.state[key]
	switch op := w.rng.IntN(10); {
	case op < 5 || !there:
		data := w.body()
		w.pending[key] = data
		_, err := c.Put(ctx, "box", key, bytes.NewReader(data), api.PutOptions{Size: int64(len(data))})
		return err
	case op < 6:
		delete(w.pending, key)
		return c.Delete(ctx, "box", key, api.Conditions{})
	case op < 7:
		to := w.key()
		if to == key {
			return nil
		}
		delete(w.pending, key)
		w.pending[to] = old
		return c.RenameObject(ctx, "box", key, api.Target{Key: api.Name(to)})
	case op < 8:
		to := w.key()
		w.pending[to] = old
		if to == key {
			return nil
		}
		_, err := c.Copy(ctx, "box", key, api.Target{Key: api.Name(to)}, api.Conditions{})
		return err
	}
	return w.splice(ctx, c, key, old)
}

// splice appends to a file, or writes into it.
func (w *writer) splice(ctx context.Context, c *api.Client, key string, old []byte) error {
	ino, err := c.Attributes(ctx, "box", key)
	if err != nil {
		return err
	}
	data := w.body()
	if len(old)+len(data) > 8<<20 {
		data = data[:100]
	}
	if w.rng.IntN(2) == 0 || len(data) == 0 {
		w.pending[key] = slices.Concat(old, data)
		_, _, err := c.Append(ctx, ino.ID, bytes.NewReader(data), api.WriteOptions{})
		return err
	}
	off := w.rng.IntN(len(old) + 1)
	merged := slices.Clone(old)
	merged = append(merged[:off], append(data, merged[min(len(merged), off+len(data)):]...)...)
	w.pending[key] = merged
	_, _, err = c.Write(ctx, ino.ID, int64(off), bytes.NewReader(data), api.WriteOptions{})
	return err
}

// settle finds out whether the change in flight happened, and checks that all
// else is as it must be.
func (w *writer) settle(t *testing.T, c *api.Client) {
	if w.pending != nil {
		for _, key := range slices.Sorted(maps.Keys(merge(w.state, w.pending))) {
			before, had := w.state[key]
			after, has := w.pending[key]
			if had == has && bytes.Equal(before, after) {
				continue
			}
			got, there := w.get(t, c, key)
			if there == has && bytes.Equal(got, after) {
				w.state = w.pending // it happened; what follows checks that it did so whole
			}
			break
		}
		w.pending = nil
	}
	for _, d := range []string{"d0", "d1"} {
		for k := range 4 {
			key := fmt.Sprintf("%s%s/k%d", w.prefix, d, k)
			want, has := w.state[key]
			got, there := w.get(t, c, key)
			if has != there || !bytes.Equal(got, want) {
				t.Errorf("%s: there: %t (want %t), %d bytes (want %d), equal: %t", key, there, has, len(got), len(want), bytes.Equal(got, want))
			}
		}
	}
}

func merge(a, b map[string][]byte) map[string][]byte {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

func (w *writer) get(t *testing.T, c *api.Client, key string) ([]byte, bool) {
	r, err := c.Get(t.Context(), "box", key, api.GetOptions{})
	if object.IsKind(err, object.KindNotFound) {
		return nil, false
	}
	if err != nil {
		t.Errorf("%s: %v", key, err)
		return nil, true
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("%s: %v", key, err)
	}
	return got, true
}

// TestAppendExactlyOnce appends numbered lines through a client that retries,
// while the server is killed again and again: each line is there once, in order.
func TestAppendExactlyOnce(t *testing.T) {
	kills := need.Size(5, 50)
	n := startNode(t)
	c := client(t, n, api.ClientOptions{Retries: 1000, RetryFor: time.Minute})
	_, err := c.CreateBucket(t.Context(), "box", "")
	check(t, err)
	_, err = c.Put(t.Context(), "box", "log", strings.NewReader(""), api.PutOptions{})
	check(t, err)
	ino, err := c.Attributes(t.Context(), "box", "log")
	check(t, err)

	stop, lines := make(chan struct{}), 0
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, _, err := c.Append(t.Context(), ino.ID, strings.NewReader(fmt.Sprintf("%d\n", lines)), api.WriteOptions{}); err != nil {
				done <- err
				return
			}
			lines++
		}
	}()
	for range kills {
		time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond) // the moment of the crash
		check(t, n.Kill())
		check(t, n.Start(t.Context()))
	}
	close(stop)
	check(t, <-done)
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "%d\n", i)
	}
	if got := cli(t, n, "cat", "box/log"); got != want.String() {
		t.Fatalf("%d lines were acknowledged; the log holds:\n%s", lines, tail(got, 2000))
	}
	t.Logf("%d lines over %d kills", lines, kills)
}
