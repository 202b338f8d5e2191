package copies

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// ReadAt fills dst with the chunk's bytes from off on, as chunk.Store.ReadAt does,
// from the nearest holders that have good copies or shards. The n bytes that it
// returns are right, whatever the error. A chunk that no holder has is KindNotFound,
// when all said so; KindCorrupt: what there is is bad, or too few shards are left;
// KindUnavailable: some holders could not be asked. A chunk that is shorter than
// off and dst say ends with io.EOF. c.Length is needed for shards only.
func (s *Store) ReadAt(ctx context.Context, c Chunk, off int64, dst []byte) (n int, err error) {
	if off < 0 {
		return 0, invalid("a negative offset: %d", off)
	}
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.tasks.Done()
	s.speed.begun()
	for range maxMaps {
		place, err := s.locate(c.ID, c.Scheme)
		if err != nil {
			return n, err
		}
		if !c.Scheme.Coded() && place.alone(s.o.Self) {
			n, err = s.o.Local.ReadAt(ctx, c.ID, c.SHA256, off, dst)
			if gone(err) && s.moved(c, place.since) {
				continue
			}
			return n, err
		}
		var failures []failure
		var end int
		if c.Scheme.Coded() {
			n, end, failures, err = s.readShards(ctx, place, c, off, dst)
		} else {
			n, end, failures = s.readCopy(ctx, place, c, off, dst)
		}
		switch {
		case err != nil:
			return n, err
		case failures == nil && end < len(dst):
			return end, io.EOF
		case failures == nil:
			return end, nil
		case ctx.Err() != nil:
			return n, ctx.Err()
		}
		// The chunk may have moved to where only a newer map leads.
		if epoch := epochIn(failures); epoch <= place.since || s.follow(ctx, c.ID, c.Scheme, epoch) != nil {
			return n, object.WithOp(s.failed(c, failures), "chunk.read", "", c.ID.String())
		}
	}
	return n, object.Errorf(object.KindUnavailable, "the chunk's place changed %d times while it was read: try again", maxMaps)
}

// moved reports that this node has adopted another map of a chunk's group by now.
func (s *Store) moved(c Chunk, since uint64) bool {
	p, err := s.locate(c.ID, c.Scheme)
	return err == nil && p.since > since
}

// readCopy reads a range from whichever holder has a copy: n bytes are there, of
// end that exist.
func (s *Store) readCopy(ctx context.Context, p place, c Chunk, off int64, dst []byte) (n, end int, failures []failure) {
	if len(p.spots) == 0 {
		return 0, 0, []failure{{s.o.Self, object.Errorf(object.KindUnavailable, "the chunk has no holders")}}
	}
	k := newSink(dst)
	failures = s.race(ctx, s.sources(p.spots, c, off, int64(len(dst))), k)
	n, end = k.have()
	return n, end, failures
}

// sources are the ways to read a range of one copy or shard from its spots.
func (s *Store) sources(spots []spot, c Chunk, off, n int64) []source {
	list := make([]source, 0, len(spots)+1)
	for _, sp := range s.order(spots) {
		list = append(list, source{sp.node, func(ctx context.Context, from int, k *sink) error {
			err := s.readSpot(ctx, sp, want{c, sp.shard, off + int64(from), n - int64(from)}, int64(from), k)
			if gone(err) && ctx.Err() == nil {
				s.missed(c, sp.node, err)
			}
			return err
		}})
	}
	return list
}

// errEnough ends a source whose sink wants no more.
var errEnough = errors.New("enough")

// readSpot delivers a range from one holder; from is where it begins in the sink.
func (s *Store) readSpot(ctx context.Context, sp spot, w want, from int64, k *sink) error {
	began, at := time.Now(), int(from)
	take := func(b []byte) error {
		if at == int(from) {
			s.speed.note(sp.node, time.Since(began), false)
		}
		more := k.put(at, b)
		if at += len(b); !more {
			return errEnough
		}
		return nil
	}
	begin := func(length int64) error {
		if whole := w.chunk.keptLength(); whole != 0 && length != whole {
			return object.Errorf(object.KindCorrupt, "what is kept has %d bytes, not %d", length, whole)
		}
		k.size(length - w.off + from)
		return nil
	}
	var err error
	if sp.node == s.o.Self {
		err = s.readHere(ctx, w, begin, take)
	} else {
		err = s.readAt(ctx, sp.node, w, begin, take)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// readHere is readAt for this node's own disk.
func (s *Store) readHere(ctx context.Context, w want, begin func(int64) error, fn func([]byte) error) error {
	if err := s.reads.Acquire(ctx, 1); err != nil {
		return err // a disk that hangs has them all
	}
	defer s.reads.Release(1)
	k, err := s.open(ctx, w.chunk, w.shard)
	if err != nil {
		return err
	}
	if err := begin(k.length); err != nil {
		return err
	}
	return s.eachFrame(ctx, w.chunk.ID, k.sha, w.off, min(w.len, k.length-w.off), fn)
}

// failed is the error of a read that no holder could serve.
func (s *Store) failed(c Chunk, failures []failure) error {
	kind, errs := object.KindNotFound, make([]error, 0, len(failures))
	for _, f := range failures {
		errs = append(errs, f)
		switch k := object.KindOf(f.err); {
		case k == object.KindNotFound:
		case k == object.KindCorrupt && kind == object.KindNotFound:
			kind = object.KindCorrupt
		case k != object.KindCorrupt:
			kind = object.KindUnavailable
		}
	}
	return object.Errorf(kind, "no holder can read the chunk (kept as %v): %w", c.Scheme, errors.Join(errs...))
}
