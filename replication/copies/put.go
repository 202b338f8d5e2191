package copies

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// result is how one holder's put ended.
type result struct {
	node string
	ref  chunk.Ref
	err  error
}

// PutPieces stores a chunk (pieces as chunk.Store.PutPieces takes them) at its
// holders, and returns when a quorum of them has it durably. The others go on
// afterwards: release is called once nobody reads the pieces any more, which may be
// before or after the return, and exactly once.
//
// After an error the chunk may be at some of the holders; the same call may be
// made again. KindUnavailable: too few holders answered; KindStale: the map changed;
// KindNoSpace: too few had room.
func (s *Store) PutPieces(ctx context.Context, id object.ChunkID, pieces [][]byte, release func()) (chunk.Ref, error) {
	place := s.o.Place(id)
	if len(place.Nodes) == 1 && place.Nodes[0] == s.o.Self {
		defer release()
		return s.o.Local.PutPieces(ctx, id, pieces)
	}
	if len(place.Nodes) < place.Quorum {
		release()
		return chunk.Ref{}, object.Errorf(object.KindUnavailable, "the chunk has %d holders and needs %d", len(place.Nodes), place.Quorum)
	}
	p := &put{s: s, id: id, place: place, pieces: pieces, sum: checksum(pieces), results: make(chan result, len(place.Nodes))}
	// The copies outlive the caller once there is a quorum, not before.
	pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	for _, node := range place.Nodes {
		go func() { p.results <- p.one(pctx, node) }()
	}
	ref, pending, err := p.quorum(ctx)
	if err != nil {
		cancel()
	}
	p.finish(cancel, ref, pending, err == nil, release)
	return ref, err
}

func checksum(pieces [][]byte) (sum uint32) {
	for _, p := range pieces {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}

// put is one chunk on its way to its holders.
type put struct {
	s       *Store
	id      object.ChunkID
	place   Place
	pieces  [][]byte
	sum     uint32 // CRC32C of the pieces
	results chan result
}

func (p *put) one(ctx context.Context, node string) result {
	r := result{node: node}
	if node == p.s.o.Self {
		r.ref, r.err = p.s.o.Local.PutPieces(ctx, p.id, p.pieces)
	} else {
		r.ref, r.err = p.s.putAt(ctx, node, p)
	}
	return r
}

// quorum waits until enough holders have the chunk, or cannot have it any more;
// pending is how many have not answered then.
func (p *put) quorum(ctx context.Context) (ref chunk.Ref, pending int, err error) {
	var failures []error
	good := 0
	for pending = len(p.place.Nodes); pending > 0; {
		select {
		case <-ctx.Done():
			return ref, pending, ctx.Err()
		case r := <-p.results:
			pending--
			if r.err == nil && good > 0 && r.ref.SHA256 != ref.SHA256 {
				r.err = object.Errorf(object.KindCorrupt, "it has another content under this id")
			}
			if r.err != nil {
				p.s.o.Missed(p.id, r.node)
				failures = append(failures, fmt.Errorf("%s: %w", r.node, r.err))
				if len(p.place.Nodes)-len(failures) < p.place.Quorum {
					return ref, pending, tooFew(failures, p.place)
				}
				continue
			}
			ref = r.ref
			if good++; good == p.place.Quorum {
				return ref, pending, nil
			}
		}
	}
	return ref, 0, tooFew(failures, p.place)
}

// tooFew sums up failures: their common kind where they have one that tells the
// caller what to do.
func tooFew(failures []error, place Place) error {
	kind := object.KindUnavailable
	for _, k := range []object.Kind{object.KindStale, object.KindNoSpace, object.KindConflict} {
		for _, err := range failures {
			if object.IsKind(err, k) {
				kind = k
			}
		}
	}
	return object.Errorf(kind, "%d of %d holders could not store the chunk, %d have to: %w", len(failures), len(place.Nodes), place.Quorum, errors.Join(failures...))
}

// finish sees to the holders that have not answered: after a success they have a
// while, as long as there is memory for that; after a failure they are cancelled.
func (p *put) finish(cancel context.CancelFunc, ref chunk.Ref, pending int, ok bool, release func()) {
	drain := func() {
		for ; pending > 0; pending-- {
			r := <-p.results
			if ok && (r.err != nil || r.ref.SHA256 != ref.SHA256) {
				p.s.o.Missed(p.id, r.node)
			}
		}
		cancel()
		release()
	}
	if pending == 0 {
		drain()
		return
	}
	size := int64(0)
	for _, b := range p.pieces {
		size += int64(len(b))
	}
	held := ok && p.s.late.TryAcquire(size)
	if !held {
		cancel() // connections end at once; a disk that hangs keeps its pieces
	}
	go func() {
		if held {
			defer p.s.late.Release(size)
			timer := time.AfterFunc(lateTimeout, cancel)
			defer timer.Stop()
		}
		drain()
	}()
}
