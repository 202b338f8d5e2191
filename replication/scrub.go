package replication

import (
	"math/rand/v2"
	"time"
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
