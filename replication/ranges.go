package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A node without a replica of an owner does not read the owner's whole list: it asks the
// leader for a hash of each range of what it has to hold, and reads the ranges that differ.

const (
	// ranges is how many there are: by the first byte of a chunk's upload id, as its file's directory.
	ranges      = 256
	rangesBytes = 8 + 16*ranges
	// walkBatch is how many records are read between two looks at the context.
	walkBatch = 4096
)

// rangeSum is a set of chunks in short. The sum of the ids' hashes does not depend on
// their order; that two sets that differ by accident have the same is a matter of 2^-64.
type rangeSum struct{ count, sum uint64 }

// rangeSums are those of one owner's chunks for one node, under the layouts that changed
// last at an epoch.
type rangeSums struct {
	epoch uint64
	of    [ranges]rangeSum
}

func (s *rangeSums) add(id object.ChunkID) {
	r := &s.of[id.Upload[0]]
	r.count++
	r.sum += placement.Hash(id)
}

func (s *rangeSums) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, rangesBytes), s.epoch)
	for _, r := range s.of {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, r.count), r.sum)
	}
	return b
}

// decodeRanges reads what encode wrote; KindInvalid for anything else.
func decodeRanges(b []byte) (*rangeSums, error) {
	if len(b) != rangesBytes {
		return nil, object.Errorf(object.KindInvalid, "an answer of %d bytes about ranges of chunks, not %d", len(b), rangesBytes)
	}
	s := &rangeSums{epoch: binary.BigEndian.Uint64(b)}
	for i := range s.of {
		s.of[i] = rangeSum{binary.BigEndian.Uint64(b[8+16*i:]), binary.BigEndian.Uint64(b[16+16*i:])}
	}
	return s, nil
}

// serveRanges sums up what the node that asks has to hold: partition(2) → epoch(8), then
// count(8) and sum(8) of each range, big-endian.
func (n *Node) serveRanges(ctx context.Context, from transport.Peer, request []byte) ([]byte, error) {
	if len(request) != 2 {
		return nil, object.Errorf(object.KindInvalid, "a question of %d bytes about ranges of chunks", len(request))
	}
	p, err := n.partition(object.PartitionID(binary.BigEndian.Uint16(request)))
	if err != nil {
		return nil, err
	}
	if p.led() == nil {
		return nil, object.Errorf(object.KindUnavailable, "node %s does not lead partition %d", n.cfg.NodeID, p.id)
	}
	out := &rangeSums{epoch: n.places.epoch()}
	err = n.inView(ctx, p.id, func(v *namespace.View) error {
		return eachChunk(ctx, v, func(c namespace.ChunkRef) {
			if n.holdsNow(placement.NodeID(from.Node), c) {
				out.add(c.ID)
			}
		})
	})
	if n.places.epoch() != out.epoch { // in the middle: the asker's is another, whatever it is
		out.epoch = 0
	}
	return out.encode(), err
}

// eachChunk shows all live chunks of an owner, in the order of their ids.
func eachChunk(ctx context.Context, v *namespace.View, fn func(namespace.ChunkRef)) error {
	for behind := (object.ChunkID{}); ; {
		page, err := v.Chunks(behind, walkBatch)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		for _, c := range page {
			fn(c)
		}
		if len(page) < walkBatch {
			return nil
		}
		behind = page[len(page)-1].ID
	}
}

// holdsNow reports whether a node is a holder in force of a chunk; one that is to come is the mover's.
func (n *Node) holdsNow(id placement.NodeID, c namespace.ChunkRef) bool {
	site, err := n.places.locate(c.ID, copies.SchemeOf(c.Scheme))
	if err != nil {
		return false // of a scheme that no map has yet
	}
	i := site.Shard(id)
	return i >= 0 && site.Now(i) == id
}

// differing are the ranges in which this node's files are not what an owner's leader
// says they are to be; all of them where that cannot be told.
func (n *Node) differing(ctx context.Context, owner object.PartitionID) (list []int, err error) {
	here := &rangeSums{epoch: n.places.epoch()}
	err = n.chunks.Each(ctx, owner, object.ChunkID{}, func(id object.ChunkID) error {
		here.add(id)
		return nil
	})
	if err != nil {
		return nil, err
	}
	there, err := n.askRanges(ctx, owner)
	if err != nil {
		n.log.Debug("an owner's whole list is compared", "partition", owner, "err", err)
		there = &rangeSums{}
	}
	for i := range here.of {
		if there.epoch != here.epoch || there.epoch != n.places.epoch() || there.of[i] != here.of[i] {
			list = append(list, i)
		}
	}
	return list, nil
}

func (n *Node) askRanges(ctx context.Context, owner object.PartitionID) (*rangeSums, error) {
	if err := n.access.FindLeader(ctx, owner); err != nil {
		return nil, err
	}
	node, ok := n.access.Leader(owner)
	if !ok || node == n.cfg.NodeID {
		return nil, object.Errorf(object.KindUnavailable, "the leader of partition %d is not known", owner)
	}
	b, err := n.net.Call(ctx, node, methodRanges, binary.BigEndian.AppendUint16(nil, uint16(owner)))
	if err != nil {
		return nil, err
	}
	return decodeRanges(b)
}

// compareOwner fetches what this node lacks of an owner's live chunks. Where the owner
// is here, reading its list costs no more than summing it up.
func (n *Node) compareOwner(ctx context.Context, owner object.PartitionID) error {
	if n.parts[owner].here.Load() != nil {
		return n.compareFrom(ctx, owner, object.ChunkID{Owner: owner}, ranges)
	}
	list, err := n.differing(ctx, owner)
	for k := 0; k < len(list) && err == nil; {
		end := k + 1
		for end < len(list) && list[end] == list[end-1]+1 {
			end++
		}
		first := object.ChunkID{Owner: owner}
		first.Upload[0] = byte(list[k])
		err = n.compareFrom(ctx, owner, first, list[end-1]+1)
		k = end
	}
	return err
}

// compareFrom is compareOwner of the ranges from that of an id, below end. The id itself is
// nobody's: uploads are random.
func (n *Node) compareFrom(ctx context.Context, owner object.PartitionID, behind object.ChunkID, end int) error {
	for {
		var page []namespace.ChunkRef
		err := n.inView(ctx, owner, func(v *namespace.View) (err error) {
			page, err = v.Chunks(behind, ownerBatch)
			return err
		})
		if err != nil {
			return err
		}
		full := len(page) == ownerBatch
		for len(page) > 0 && int(page[len(page)-1].ID.Upload[0]) >= end {
			page, full = page[:len(page)-1], false
		}
		if err := n.fetchMissing(ctx, page); err != nil || !full {
			return err
		}
		behind = page[len(page)-1].ID
	}
}

// compare fetches what this node lacks of all owners' live chunks. left: not all
// of it could be had.
func (n *Node) compare(ctx context.Context) (left bool, err error) {
	if n.alone.Load() || !n.holdsAny() {
		return false, nil
	}
	n.moves.counts.missing.Store(0)
	var errs []error
	for id := range n.ids(firstData) {
		errs = append(errs, n.compareOwner(ctx, id)) // one that has no leader keeps nobody
		if ctx.Err() != nil {
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return true, err
	}
	n.moves.counts.compared.Store(time.Now().Unix())
	return n.moves.counts.missing.Load() > 0, nil
}
