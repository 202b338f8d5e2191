package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/linear"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	nemesisBucket = "box"    // copies
	shardsBucket  = "shards" // rs:2+2: a write needs three nodes of four
	registers     = 4
	recordSize    = 16 // bytes of one append
	// generation is how long a set of groups is worked on: short histories are
	// judged fast, and what is left of them is read again in the end.
	generation = 10 * time.Second
)

// nemesisRun is what all clients of one run share.
type nemesisRun struct {
	t *testing.T
	h *linear.History

	next atomic.Int64 // numbers the values
	gen  atomic.Int64

	mu     sync.Mutex // guards what follows
	values map[[32]byte]string
	etags  map[string]string // value → the ETag it was last seen under
	kept   map[string]string // keys that are written once → their values, where acknowledged
	tried  map[string]bool   // all such keys
	odd    map[string]int    // answers by kind
}

func newNemesisRun(t *testing.T) *nemesisRun {
	return &nemesisRun{t: t, h: linear.NewHistory(), values: map[[32]byte]string{}, etags: map[string]string{}, kept: map[string]string{}, tried: map[string]bool{}, odd: map[string]int{}}
}

// nemesisClient makes one operation after the other.
type nemesisClient struct {
	*nemesisRun
	id   int
	c    *api.Client
	dir  string // of a mount of all buckets; "": it speaks REST
	rng  *rand.Rand
	logs map[string]object.InodeID // by key
}

// coded marks the keys that are kept in shards.
const coded = "rs-"

// bucketOf is the bucket that a key, or a prefix, belongs to.
func bucketOf(key string) string {
	if strings.HasPrefix(key, coded) {
		return shardsBucket
	}
	return nemesisBucket
}

// every second one of what is numbered is coded.
func marked(i int) string { return []string{"", coded}[i%2] }

// body is the content that stands for a value; size makes some of them go to chunks.
func body(value string, size int) []byte {
	return []byte(value + strings.Repeat(".", max(size-len(value), 0)))
}

// value makes a new value and its body, whose digest names it in a listing.
func (c *nemesisClient) value() (string, []byte) {
	v := fmt.Sprintf("v%d", c.next.Add(1))
	size := c.rng.IntN(2000)
	if c.rng.IntN(4) == 0 { // in a chunk
		size = 20_000 + c.rng.IntN(40_000)
	}
	b := body(v, size)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values[sha256.Sum256(b)] = v
	return v, b
}

func (r *nemesisRun) seen(value, etag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.etags[value] = etag
}

// result reads an answer. What may have happened or not is unknown; kinds that no
// operation here should be answered with fail the test.
func (r *nemesisRun) result(what string, err error) linear.Output {
	kind := object.KindOf(err)
	if err != nil {
		r.mu.Lock()
		r.odd[kind.String()]++
		r.mu.Unlock()
	}
	switch {
	case err == nil:
		return linear.Output{Result: linear.OK}
	case kind == object.KindNotFound:
		return linear.Output{Result: linear.Missing}
	case kind == object.KindPrecondition:
		return linear.Output{Result: linear.Refused}
	}
	switch kind {
	case object.KindUnavailable, object.KindTimeout, object.KindCanceled, object.KindOverload, object.KindConflict:
	default:
		r.t.Errorf("%s: %v (%s)", what, err, kind)
	}
	return linear.Output{Result: linear.Unknown}
}

// work makes operations until working ends, at most one every pace.
// The last one is let finish, so that its outcome is known.
func (c *nemesisClient) work(working context.Context, pace time.Duration, readOnly bool) {
	ctx := c.t.Context()
	for working.Err() == nil {
		gen := int(c.gen.Load())
		switch p := c.rng.IntN(100); {
		case p < 40:
			c.register(ctx, gen, readOnly)
		case p < 70:
			c.names(ctx, gen, readOnly)
		case p < 90:
			c.log(ctx, gen, readOnly)
		case !readOnly:
			c.keep(ctx)
		}
		select { // not a wait: the load is to leave the machine to the nodes
		case <-working.Done():
		case <-time.After(pace/2 + time.Duration(c.rng.Int64N(int64(pace)))):
		}
	}
}

// registerKey is the key of a register of a generation.
func registerKey(gen, k int) string { return fmt.Sprintf("%sreg/%d/%d", marked(k), gen, k) }

// register is an operation on one key that has a group of its own.
func (c *nemesisClient) register(ctx context.Context, gen int, readOnly bool) {
	key := registerKey(gen, c.rng.IntN(registers))
	in := linear.Input{Group: key}
	if p := c.rng.IntN(100); readOnly || p < 45 {
		c.get(ctx, key, in)
		return
	} else if p < 55 {
		in.Verb = linear.Delete
		c.h.Do(c.id, in, func() linear.Output {
			return c.result("delete "+key, c.c.Delete(ctx, bucketOf(key), key, api.Conditions{}))
		})
		return
	} else if p < 85 { // on the condition of what was there a moment ago
		if out := c.get(ctx, key, in); out.Result == linear.Missing {
			in.Absent = true
		} else if out.Result == linear.OK {
			in.Match = out.Value
		}
	}
	c.put(ctx, key, in)
}

func (c *nemesisClient) put(ctx context.Context, key string, in linear.Input) {
	value, b := c.value()
	in.Verb, in.Value = linear.Put, value
	cond := api.Conditions{}
	if in.Absent {
		cond.IfNoneMatch = []string{"*"}
	}
	if in.Match != "" {
		c.mu.Lock()
		cond.IfMatch = []string{c.etags[in.Match]}
		c.mu.Unlock()
	}
	c.h.Do(c.id, in, func() linear.Output {
		_, err := c.c.Put(ctx, bucketOf(key), key, bytes.NewReader(b), api.PutOptions{Cond: cond})
		return c.result("put "+key, err)
	})
}

// fetch reads a whole object.
func (c *nemesisClient) fetch(ctx context.Context, key string) (b []byte, etag string, err error) {
	r, err := c.c.Get(ctx, bucketOf(key), key, api.GetOptions{})
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	b, err = io.ReadAll(r)
	return b, r.ETag, err
}

func (c *nemesisClient) get(ctx context.Context, key string, in linear.Input) linear.Output {
	in.Verb = linear.Get
	return c.h.Do(c.id, in, func() linear.Output {
		b, etag, err := c.fetch(ctx, key)
		out := c.result("get "+key, err)
		if err == nil {
			out.Value = c.named(sha256.Sum256(b))
			c.seen(out.Value, etag)
		}
		return out
	})
}

// named is the value whose body has this digest.
func (c *nemesisClient) named(digest [32]byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.values[digest]; ok {
		return v
	}
	return fmt.Sprintf("what nobody wrote (%x)", digest[:6])
}

// nameKey is the key of a name of a group: two in each of two directories, which
// are made with their first name and vanish with their last.
func nameKey(gen, name int) string {
	return fmt.Sprintf("%sdir%d%c/%c", marked(gen), gen, "ab"[name/2], "xy"[name%2])
}

// names is an operation on a few names that renames bind together.
func (c *nemesisClient) names(ctx context.Context, gen int, readOnly bool) {
	name := c.rng.IntN(linear.Names)
	in := linear.Input{Group: fmt.Sprintf("names/%d", gen), Name: name}
	key := nameKey(gen, name)
	p := c.rng.IntN(100)
	switch {
	case readOnly && p < 50, p < 20:
		c.get(ctx, key, in)
	case readOnly, p < 40:
		c.list(ctx, gen, c.rng.IntN(2))
	case p < 65:
		c.put(ctx, key, in)
	case p < 75:
		in.Verb = linear.Delete
		c.h.Do(c.id, in, func() linear.Output {
			return c.result("delete "+key, c.c.Delete(ctx, bucketOf(key), key, api.Conditions{}))
		})
	default:
		in.Verb, in.To = linear.Rename, (name+1+c.rng.IntN(linear.Names-1))%linear.Names
		to := nameKey(gen, in.To)
		c.h.Do(c.id, in, func() linear.Output {
			return c.result("rename "+key+" to "+to, c.c.RenameObject(ctx, bucketOf(key), key, api.Target{Key: api.Name(to)}))
		})
	}
}

// list reads the two names of one directory at once.
func (c *nemesisClient) list(ctx context.Context, gen, dir int) {
	first := 2 * dir
	in := linear.Input{Group: fmt.Sprintf("names/%d", gen), Verb: linear.List, From: first, End: first + 2}
	prefix := strings.TrimSuffix(nameKey(gen, first), "x")
	c.h.Do(c.id, in, func() linear.Output {
		page, err := c.c.List(ctx, bucketOf(prefix), api.ListOptions{Prefix: prefix})
		out := c.result("list "+prefix, err)
		for _, o := range page.Objects {
			for i := first; i < first+2; i++ {
				if string(o.Key) == nameKey(gen, i) && len(o.SHA256) == sha256.Size {
					out.Values[i] = c.named([32]byte(o.SHA256))
				}
			}
		}
		return out
	})
}

func logKey(gen int) string { return fmt.Sprintf("%slog/%d", marked(gen), gen) }

// log appends to the object of this generation, or reads it.
func (c *nemesisClient) log(ctx context.Context, gen int, readOnly bool) {
	key := logKey(gen)
	in := linear.Input{Group: key}
	if readOnly || c.rng.IntN(100) < 30 {
		c.readLog(ctx, key, in)
		return
	}
	ino, ok := c.logs[key]
	if !ok {
		made, err := c.c.Put(ctx, bucketOf(key), key, strings.NewReader(""), api.PutOptions{Cond: api.Conditions{IfNoneMatch: []string{"*"}}})
		if err != nil {
			c.result("make "+key, err)
			if made, err = c.c.Head(ctx, bucketOf(key), key, api.Conditions{}); err != nil {
				c.result("head "+key, err)
				return
			}
		}
		ino = object.InodeID(made.Inode)
		c.logs[key] = ino
	}
	in.Verb, in.Value = linear.Append, fmt.Sprintf("%0*d", recordSize, c.next.Add(1))
	c.h.Do(c.id, in, func() linear.Output {
		_, at, err := c.c.Append(ctx, ino, strings.NewReader(in.Value), api.WriteOptions{})
		out := c.result("append to "+key, err)
		out.Offset = at
		return out
	})
}

func (c *nemesisClient) readLog(ctx context.Context, key string, in linear.Input) {
	in.Verb = linear.Read
	c.h.Do(c.id, in, func() linear.Output {
		b, _, err := c.fetch(ctx, key)
		if object.IsKind(err, object.KindNotFound) { // nobody has made it yet: it is as good as empty
			return linear.Output{Result: linear.OK}
		}
		out := c.result("read "+key, err)
		out.Offset = int64(len(b))
		for rec := range slices.Chunk(b, recordSize) {
			out.Value = linear.Chain(out.Value, string(rec))
		}
		return out
	})
}

// keep writes a key that nobody touches again: once acknowledged it is there for ever.
func (c *nemesisClient) keep(ctx context.Context) {
	value, b := c.value()
	key := fmt.Sprintf("%skeep/%d/%s", marked(c.rng.IntN(2)), c.id, value)
	c.mu.Lock()
	c.tried[key] = true
	c.mu.Unlock()
	if _, err := c.c.Put(ctx, bucketOf(key), key, bytes.NewReader(b), api.PutOptions{}); err != nil {
		c.result("put "+key, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[key] = value
}

// last reads everything of all generations once more.
func (c *nemesisClient) last(ctx context.Context) {
	for gen := range int(c.gen.Load()) + 1 {
		for k := range registers {
			key := registerKey(gen, k)
			c.get(ctx, key, linear.Input{Group: key})
		}
		for name := range linear.Names {
			c.get(ctx, nameKey(gen, name), linear.Input{Group: fmt.Sprintf("names/%d", gen), Name: name})
		}
		c.list(ctx, gen, 0)
		c.list(ctx, gen, 1)
		key := logKey(gen)
		c.readLog(ctx, key, linear.Input{Group: key})
	}
}

// everythingKept compares what was written once, and acknowledged, with what is there.
func (c *nemesisClient) everythingKept(ctx context.Context) {
	listed := map[string]bool{}
	for i := range 2 {
		o := api.ListOptions{Prefix: marked(i) + "keep/"}
		for {
			page, err := c.c.List(ctx, bucketOf(o.Prefix), o)
			if err != nil {
				c.t.Error(err)
				return
			}
			for _, obj := range page.Objects {
				key := string(obj.Key)
				listed[key] = true
				if !c.tried[key] && !strings.HasSuffix(key, "/") { // mounts make directories
					c.t.Errorf("%s is listed; nobody wrote it", key)
				}
			}
			if o.Cursor = page.Cursor; o.Cursor == "" {
				break
			}
		}
	}
	for key, value := range c.kept {
		if !listed[key] {
			c.t.Errorf("%s was acknowledged and is not listed", key)
		}
		b, _, err := c.fetch(ctx, key)
		if got := c.named(sha256.Sum256(b)); err != nil || got != value {
			c.t.Errorf("%s was acknowledged as %s and holds %s: %v", key, value, got, err)
		}
	}
}
