package replication

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A holder compares its files with the owners' lists of live chunks: what it lacks it
// fetches, what belongs elsewhere by now, and is there, it drops.

const (
	compareEvery = time.Hour
	// againAfter is how soon what came to nothing is tried again.
	againAfter = time.Minute
)

// chunkCounts are kept while the node runs.
type chunkCounts struct {
	missing, corrupt, lost, dropped, toGo, compared atomic.Int64
}

// ChunkStatus is what a node knows of the chunks that it has to hold. Counts are of
// this process.
type ChunkStatus struct {
	UnderReplicated int64 `json:"under_replicated"` // live chunks that this node lacked when it last compared, less what it has fetched
	Corrupt         int64 `json:"corrupt"`          // copies and shards here that were found damaged
	Repaired        int64 `json:"repaired"`         // fetched from other holders, also of groups that moved here
	RepairedBytes   int64 `json:"repaired_bytes"`   // bytes that came over the network for them
	Lost            int64 `json:"lost"`             // live chunks of which no holder has a good copy
	Dropped         int64 `json:"dropped"`          // files of chunks that moved away
	Waiting         int   `json:"waiting"`          // reports of missing or bad copies not dealt with yet
	BytesToGo       int64 `json:"bytes_to_go"`      // of what is being fetched, or waits for its turn under the rate
	MovingGroups    int   `json:"moving_groups"`    // chunk groups of the cluster that are on their way
	MovesLeft       int   `json:"moves_left"`       // slots of groups that are not where the plan has them
	Compared        int64 `json:"compared"`         // when this node last compared all owners' lists with its files, Unix seconds; 0: not yet
}

// ChunkStatus is the state of now. It costs a look at the map that is in memory.
func (n *Node) ChunkStatus() ChunkStatus {
	c, s := &n.moves.counts, n.copies.Stats()
	out := ChunkStatus{UnderReplicated: c.missing.Load(), Corrupt: c.corrupt.Load(), Lost: c.lost.Load(), Dropped: c.dropped.Load(),
		BytesToGo: c.toGo.Load(), Compared: c.compared.Load(), Repaired: s.Repaired, RepairedBytes: s.Fetched, Waiting: s.Waiting}
	state := n.state.Load()
	if state == nil {
		return out
	}
	for _, l := range state.Layouts {
		for i, g := range l.Groups {
			if g.Next != nil {
				out.MovingGroups++
			}
			for k, id := range g.Holders {
				if i < len(l.Target) && l.Target[i][k] != id {
					out.MovesLeft++
				}
			}
		}
	}
	return out
}

// comparer compares after the start, when this node was away, and hourly.
func (n *Node) comparer() { n.repeat(n.moves.compare, "comparison of chunks", n.compare) }

// dropper drops after the start, when a group has left, and hourly.
func (n *Node) dropper() { n.repeat(n.moves.drop, "chunks that moved away", n.dropMoved) }

// repeat does something at once, hourly, and when there is a token for it; soon
// again, when something is left to do.
func (n *Node) repeat(now <-chan struct{}, what string, do func(context.Context) (left bool, err error)) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-now:
		case <-wait.C:
		}
		left, err := do(n.ctx)
		n.logged(what, err)
		if next := compareEvery/2 + rand.N(compareEvery); left || err != nil {
			wait.Reset(againAfter)
		} else {
			wait.Reset(next)
		}
	}
}

// fetchMissing fetches what this node lacks of some live chunks.
func (n *Node) fetchMissing(ctx context.Context, page []namespace.ChunkRef) error {
	self := placement.NodeID(n.cfg.NodeID)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchers)
	var bad error
	for _, c := range page {
		if !n.holdsNow(self, c) {
			continue
		}
		here, err := n.chunks.Has(c.ID)
		if err != nil {
			bad = err
			break
		}
		if here {
			continue
		}
		n.moves.counts.missing.Add(1)
		g.Go(func() error {
			ok, err := n.fetch(gctx, c, n.moves.mend)
			if ok {
				n.moves.counts.missing.Add(-1)
			}
			return err
		})
	}
	return errors.Join(bad, g.Wait())
}

// holdsAny reports whether this node holds a chunk group, or is to.
func (n *Node) holdsAny() bool {
	state, self := n.state.Load(), placement.NodeID(n.cfg.NodeID)
	if state == nil {
		return false
	}
	for _, l := range state.Layouts {
		for _, g := range l.Groups {
			if holds(g, self) {
				return true
			}
		}
	}
	return false
}

// dropMoved drops the files of chunks that belong elsewhere, each when a quorum of its
// holders has read its own and found it good. left: some had to stay.
func (n *Node) dropMoved(ctx context.Context) (left bool, err error) {
	if n.alone.Load() {
		return false, nil
	}
	owners, err := n.chunks.Partitions()
	if err != nil {
		return true, err
	}
	for _, owner := range owners {
		var batch []object.ChunkID
		flush := func() error {
			some, err := n.dropBatch(ctx, owner, batch)
			left, batch = left || some, batch[:0]
			return err
		}
		err := n.chunks.Each(ctx, owner, object.ChunkID{}, func(id object.ChunkID) error {
			if n.places.all(id, placement.NodeID(n.cfg.NodeID)) {
				return nil
			}
			if batch = append(batch, id); len(batch) < ownerBatch {
				return nil
			}
			return flush()
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return true, err
		}
	}
	return left, nil
}

// all reports whether a node holds the chunk's group in every layout there is: then
// the scheme need not be known.
func (p *places) all(id object.ChunkID, node placement.NodeID) bool {
	for i := range p.byWidth {
		if l := p.byWidth[i].Load(); l != nil && !holds(l.Groups[l.Group(id)], node) {
			return false
		}
	}
	return true
}

// dropBatch is dropMoved of chunks of one owner. What the owner does not know is the orphan audit's.
func (n *Node) dropBatch(ctx context.Context, owner object.PartitionID, ids []object.ChunkID) (left bool, err error) {
	if len(ids) == 0 {
		return false, nil
	}
	refs, _, err := n.lookUp(ctx, owner, ids)
	if err != nil {
		return true, err
	}
	for _, c := range refs {
		site, err := n.places.locate(c.ID, copies.SchemeOf(c.Scheme))
		if err != nil || site.Shard(placement.NodeID(n.cfg.NodeID)) >= 0 {
			continue
		}
		if err := n.moves.read.Wait(ctx, max(c.Length, 1)); err != nil {
			return true, err
		}
		_, enough, err := n.copies.Survey(ctx, asKept(c))
		if err != nil {
			return true, err
		}
		if enough {
			enough, err = n.dropOne(ctx, c, site.Since)
		} else {
			n.push(ctx, c)
		}
		if err != nil {
			return true, err
		}
		left = left || !enough
	}
	return left, nil
}

// push brings a chunk that moved away, and lacks its quorum where it belongs, there once more:
// what is here may be the last good copy. Whether that did it, the next round finds out.
func (n *Node) push(ctx context.Context, c namespace.ChunkRef) {
	if asKept(c).Scheme.Coded() {
		return // a shard is not brought to others: it takes no part of their rate
	}
	if err := n.moves.fetch.Wait(ctx, max(c.Length, 1)); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, fetchBound)
	defer cancel()
	if err := n.copies.Push(ctx, asKept(c)); err != nil {
		n.log.Debug("a chunk that moved away lacks its quorum, and could not be brought there; it stays here", "chunk", c.ID.String(), "err", err)
	}
}

// dropOne drops a file, unless the map has changed since the holders were asked.
func (n *Node) dropOne(ctx context.Context, c namespace.ChunkRef, since uint64) (dropped bool, err error) {
	n.moves.placing.Lock()
	defer n.moves.placing.Unlock()
	site, err := n.places.locate(c.ID, copies.SchemeOf(c.Scheme))
	if err != nil || site.Since != since || site.Shard(placement.NodeID(n.cfg.NodeID)) >= 0 {
		return false, err
	}
	if err := n.copies.DeleteHere(ctx, []object.ChunkID{c.ID}); err != nil {
		return false, err
	}
	n.moves.counts.dropped.Add(1)
	return true, nil
}
