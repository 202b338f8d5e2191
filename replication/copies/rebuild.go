package copies

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// rebuildStep is how many bytes of each shard a rebuild takes at a time.
const rebuildStep = 4 * chunk.FrameSize

// readShards reads a range from the data shards that have it, side by side; each
// has its holders as sources, and then the others, from which it can be computed.
// n bytes are there without a gap, of end that exist.
func (s *Store) readShards(ctx context.Context, p place, c Chunk, off int64, dst []byte) (n, end int, failures []failure, err error) {
	if c.Length < 1 || c.Length > chunk.MaxLength {
		return 0, 0, nil, invalid("a chunk kept as %v cannot be read without its length", c.Scheme)
	}
	end = int(max(0, min(int64(len(dst)), c.Length-off)))
	if end == 0 {
		return 0, 0, nil, nil
	}
	size := c.keptLength()
	var sinks []*sink
	var all errgroup.Group
	results := make([][]failure, c.Scheme.Data)
	for at := 0; at < end; {
		shard, from := int((off+int64(at))/size), (off+int64(at))%size
		k := newSink(dst[at:min(end, at+int(size-from))])
		sinks = append(sinks, k)
		all.Go(func() error {
			results[shard] = s.readShard(ctx, p, c, shard, from, k)
			return nil
		})
		at += len(k.dst)
	}
	_ = all.Wait() // its functions return nil
	for _, k := range sinks {
		got, want := k.have()
		if n += got; got < want {
			break
		}
	}
	return n, end, slices.Concat(results...), nil
}

// readShard fills k with a range of one shard.
func (s *Store) readShard(ctx context.Context, p place, c Chunk, shard int, from int64, k *sink) []failure {
	n := int64(len(k.dst))
	sources := s.sources(p.of(shard), c, from, n)
	sources = append(sources, source{read: func(ctx context.Context, begun int, k *sink) error {
		s.stats.rebuilt.Add(1)
		return s.rebuild(ctx, p, c, shard, from, begun, k)
	}})
	return s.race(ctx, sources, k)
}

// of is the spots of one shard.
func (p place) of(shard int) (list []spot) {
	for _, sp := range p.spots {
		if sp.shard == shard {
			list = append(list, sp)
		}
	}
	return list
}

// rebuild computes a range of a shard from the same range of others, step by step.
func (s *Store) rebuild(ctx context.Context, p place, c Chunk, shard int, off int64, begun int, k *sink) error {
	codec, err := s.codecs.get(c.Scheme)
	if err != nil {
		return err
	}
	room := int64(c.Scheme.Width()) * rebuildStep
	if err := s.code.Acquire(ctx, room); err != nil {
		return err
	}
	defer s.code.Release(room)
	for at, more := begun, true; more && at < len(k.dst); {
		n := min(rebuildStep, len(k.dst)-at)
		shards, err := s.gather(ctx, p, c, shard, off+int64(at), n)
		if err == nil {
			err = codec.Reconstruct(shards, []int{shard})
		}
		if err != nil {
			return err
		}
		more = k.put(at, shards[shard])
		at += n
	}
	return nil
}

// gather reads the range [off, off+n) of as many shards as make up any other, but
// not of the one named except (-1: of any). It asks for that many at first, and for
// another one when one fails or is slow.
func (s *Store) gather(ctx context.Context, p place, c Chunk, except int, off int64, n int) ([][]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := &gathering{s: s, p: p, c: c, off: off, n: n, answers: make(chan gathered, c.Scheme.Width())}
	for _, sp := range s.order(p.spots) {
		if sp.shard != except && !slices.Contains(g.left, sp.shard) {
			g.left = append(g.left, sp.shard)
		}
	}
	return g.run(ctx)
}

type gathering struct {
	s       *Store
	p       place
	c       Chunk
	off     int64
	n       int
	left    []int // shards not asked for yet
	under   int   // shards asked for, without an answer
	asked   time.Time
	answers chan gathered
}

type gathered struct {
	shard    int
	data     []byte
	failures []failure
}

func (g *gathering) run(ctx context.Context) ([][]byte, error) {
	shards, have := make([][]byte, g.c.Scheme.Width()), 0
	var failures []failure
	hedge := time.NewTicker(hedgeUnknown)
	defer hedge.Stop()
	for have < g.c.Scheme.Data {
		for len(g.left) > 0 && have+g.under < g.c.Scheme.Data {
			g.ask(ctx)
		}
		if g.under == 0 {
			return nil, g.tooFew(have, failures)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-hedge.C:
			if len(g.left) > 0 && g.s.speed.mayHedge(time.Since(g.asked)) {
				g.s.stats.hedged.Add(1)
				g.ask(ctx)
			}
		case a := <-g.answers:
			if g.under--; a.failures != nil {
				failures = append(failures, a.failures...)
				continue
			}
			shards[a.shard] = a.data
			have++
		}
	}
	return shards, nil
}

func (g *gathering) ask(ctx context.Context) {
	shard := g.left[0]
	g.left = g.left[1:]
	g.under++
	g.asked = time.Now()
	g.s.background(func() {
		k := newSink(make([]byte, g.n))
		failures := g.s.race(ctx, g.s.sources(g.p.of(shard), g.c, g.off, int64(g.n)), k)
		if n, _ := k.have(); failures == nil && n < g.n {
			failures = []failure{{"", object.Errorf(object.KindCorrupt, "shard %d is too short", shard)}}
		}
		g.answers <- gathered{shard, k.dst, failures}
	})
}

// tooFew is why a shard cannot be computed: when some are left but not enough,
// and nobody else can be asked, the chunk is lost.
func (g *gathering) tooFew(have int, failures []failure) error {
	err := g.s.failed(g.c, failures)
	kind := object.KindOf(err)
	if kind == object.KindNotFound && have > 0 {
		kind = object.KindCorrupt
	}
	return object.Errorf(kind, "%d shards can be read, %d are needed: %w", have, g.c.Scheme.Data, err)
}

// whole reads a whole chunk from holders other than this node and checks its SHA-256.
func (s *Store) whole(ctx context.Context, p place, c Chunk) (data []byte, shards [][]byte, err error) {
	p.spots = slices.DeleteFunc(slices.Clone(p.spots), func(sp spot) bool { return sp.node == s.o.Self })
	if c.Scheme.Coded() {
		data, shards, err = s.wholeOfShards(ctx, p, c)
	} else {
		data = make([]byte, c.Length)
		n, _, failures := s.readCopy(ctx, p, c, 0, data)
		if failures != nil {
			err = s.failed(c, failures)
		} else if n < len(data) {
			err = object.Errorf(object.KindCorrupt, "the other copies have %d bytes, not %d", n, len(data))
		}
	}
	if err == nil && sha256.Sum256(data) != c.SHA256 {
		err = object.Errorf(object.KindCorrupt, "what the other holders keep does not have the SHA-256 of the chunk")
	}
	return data, shards, err
}

func (s *Store) wholeOfShards(ctx context.Context, p place, c Chunk) ([]byte, [][]byte, error) {
	codec, err := s.codecs.get(c.Scheme)
	if err != nil {
		return nil, nil, err
	}
	shards, err := s.gather(ctx, p, c, -1, 0, int(c.keptLength()))
	if err != nil {
		return nil, nil, err
	}
	data, err := codec.Join(shards, int(c.Length))
	if err == nil {
		err = codec.Reconstruct(shards, nil)
	}
	return data, shards, err
}
