package replication

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// scrubEvery is how often the tables of the metadata are read in full. What a
// request reads is checked on its way; this finds what nobody reads.
const scrubEvery = 24 * time.Hour

// scrubber starts at a random hour, so that the nodes of a cluster that was
// started as one do not scrub as one.
func (n *Node) scrubber() {
	wait := time.NewTimer(rand.N(scrubEvery))
	defer wait.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-wait.C:
		}
		began := time.Now()
		switch err := n.meta.Verify(n.ctx); {
		case n.ctx.Err() != nil: // the node closes, and waits for this
			return
		case err != nil:
			n.log.Error("the metadata's scrub found damage", "err", err)
		default:
			n.log.Debug("the metadata's scrub found nothing", "took", time.Since(began))
		}
		wait.Reset(scrubEvery)
	}
}

// chunkScrubEvery is how often every chunk file is read in full, at a quarter of
// RepairRate: 16 MiB/s are 10 TB in a week.
const (
	chunkScrubEvery = 7 * 24 * time.Hour
	scrubShare      = 4
)

// chunkScrubber starts at a random time of its week, as scrubber does; and at once when
// a chunk or the log was found damaged: such a disk has more of it.
func (n *Node) chunkScrubber() {
	wait := time.NewTimer(rand.N(chunkScrubEvery))
	defer wait.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-wait.C:
		case <-n.suspect:
		}
		began := time.Now()
		files, bad, err := n.scrubChunks(n.ctx)
		n.logged("scrub of chunks", err)
		n.log.Debug("the chunks' scrub has ended", "files", files, "damaged", bad, "took", time.Since(began))
		select {
		case <-n.suspect: // what this scrub has found itself
		default:
		}
		wait.Reset(chunkScrubEvery)
	}
}

// scrubChunks reads every chunk file of this node. What is damaged goes to quarantine,
// and is fetched from the other holders: by the mender, or, where that had too many at
// once, by the comparison that follows.
func (n *Node) scrubChunks(ctx context.Context) (files, bad int, err error) {
	owners, err := n.chunks.Partitions()
	if err != nil {
		return 0, 0, err
	}
	for _, owner := range owners {
		err := n.chunks.Each(ctx, owner, object.ChunkID{}, func(id object.ChunkID) error {
			info, err := n.chunks.Stat(ctx, id)
			if err == nil {
				if err := n.moves.scrub.Wait(ctx, info.Length); err != nil {
					return err
				}
				err = n.chunks.Verify(ctx, id)
			}
			switch {
			case err == nil:
				files++
			case object.IsKind(err, object.KindCorrupt):
				bad++
			case object.IsKind(err, object.KindNotFound): // deleted meanwhile
			default:
				return err
			}
			return nil
		})
		if err != nil {
			return files, bad, err
		}
	}
	if bad > 0 {
		poke(n.moves.compare)
	}
	return files, bad, nil
}
