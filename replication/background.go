package replication

import (
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/pins"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What a leader does on its own: it settles transactions that nobody drives,
// reclaims garbage that no lease needs, has released chunks dropped, ends idle
// sessions, compacts its log, and audits chunks that no entry names.

const (
	spaceEvery   = time.Second
	sweepEvery   = 10 * time.Second
	tidyEvery    = time.Minute
	compactEvery = time.Minute
	reclaimBatch = 128
	sessionIdle  = 24 * time.Hour
)

func (n *Node) background() {
	for _, p := range n.parts {
		n.goWork(func() { n.reclaimer(p) })
	}
	n.goWork(n.sweeper)
	n.goWork(n.janitor)
	n.goWork(n.compactor)
	n.goWork(n.spaceWatcher)
	n.goWork(n.watchPeers)
	n.goWork(n.auditor)
	n.goWork(n.scrubber)
	n.goWork(n.mender)
	n.goWork(n.chunkScrubber)
	n.goWork(n.comparer)
	n.goWork(n.dropper)
	n.goWork(n.walker)
	n.goWork(n.rewriter)
	n.goWork(n.feedEvents)
	n.goWork(n.secretWatcher)
	n.goWork(n.keepLeases)
	n.goWork(n.breakDeadlocks)
	n.goWork(func() { n.copies.Run(n.ctx) })
	n.goWork(func() { n.pins.Run(n.ctx) })
}

// logged reports a background failure; the next round tries again.
func (n *Node) logged(what string, err error) {
	if err != nil && n.ctx.Err() == nil {
		n.log.Warn("background work failed and will be tried again", "work", what, "err", err)
	}
}

// watchLog fails every partition when the log cannot be written any more.
func (n *Node) watchLog() {
	select {
	case <-n.ctx.Done():
	case <-n.wal.Failed():
		n.log.Error("the write-ahead log failed: this node serves no longer; check the disk and restart it", "err", n.wal.Err())
		_ = n.hopeless(object.Errorf(object.KindUnavailable, "the write-ahead log failed: check the disk, then restart: %w", n.wal.Err()))
		for _, p := range n.parts {
			if r := p.here.Load(); r != nil {
				r.group.Fail(n.wal.Err())
			}
		}
	}
}

// sweeper settles what a crash left, at once after a start and now and then.
func (n *Node) sweeper() {
	n.logged("transactions", n.sweep(0))
	n.logged("staged contents", n.dropStaged(n.incarnations))
	n.every(sweepEvery, func() {
		n.logged("transactions", n.sweep(sweepEvery))
		n.logged("staged contents", n.dropStaged(n.incarnations)) // of those who ended, wherever: so not at the start alone
		n.logged("staged contents in doubt", n.dropLeftovers(time.Now().Add(-sweepEvery)))
	})
}

// janitor ends what nobody will end any more, however much of it there is, and
// keeps the logs short; apart from the sweeper, which others may wait for.
func (n *Node) janitor() {
	n.logged("multipart uploads", n.endUploads())
	n.every(tidyEvery, func() {
		n.tidySessions()
		n.logged("multipart uploads", n.endUploads())
	})
}

// tidySessions ends idle sessions. When one was seen is told by the clocks of those who
// served it: where clocks are far apart, none is ended.
func (n *Node) tidySessions() {
	n.tellPeers() // a clock may have jumped since they were compared
	if worst := n.peers.worst(); worst > sessionIdle/4 {
		n.logged("sessions", object.Errorf(object.KindPrecondition, "the nodes' clocks are %v apart: none is ended before they agree", worst.Round(time.Second)))
		return
	}
	n.logged("sessions", n.endIdleSessions(n.now().Add(-sessionIdle)))
}

// compactor lets go of what is over in memory and in the logs.
func (n *Node) compactor() {
	n.every(compactEvery, func() {
		for _, p := range n.parts {
			p.pins.Expire()
			if r := p.here.Load(); r != nil {
				n.logged("log compaction", r.group.Compact())
			}
		}
	})
}

// every runs fn now and then until the node closes.
func (n *Node) every(d time.Duration, fn func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
			fn()
		}
	}
}

// spaceWatcher has a goroutine of its own: nothing slow may come before it.
func (n *Node) spaceWatcher() { n.every(spaceEvery, n.checkSpace) }

// checkSpace notes whether the metadata's disk is down to its reserve.
func (n *Node) checkSpace() {
	u, err := n.cfg.FS.Usage(opSpace, n.cfg.MetadataPath)
	if err != nil {
		n.logged("free space", err)
		return
	}
	full := n.cfg.MetadataReserve > 0 && u.FreeBytes < uint64(n.cfg.MetadataReserve)
	if was := n.full.Swap(full); was != full {
		n.log.Warn("the metadata's disk reached its reserve, or left it", "full", full, "free", u.FreeBytes, "path", n.cfg.MetadataPath)
	}
}

// reclaimer works on a partition's garbage whenever there may be some.
func (n *Node) reclaimer(p *partition) {
	p.touch() // what was there before the start
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-p.dirty:
		case <-retry.C:
		}
		r := p.led()
		if r == nil {
			continue // who leads does it
		}
		if wait := p.pins.Wait(); wait > 0 {
			retry.Reset(wait)
			continue
		}
		left, err := n.reclaim(p, r)
		if err == nil {
			err = n.release(p, r)
		}
		n.logged("reclaiming", err)
		left = left || n.keepsAll()
		if left {
			_ = pause(n.ctx, 6) // what is held now is looked at again with each change: not too often
		}
		if left || err != nil {
			retry.Reset(n.cfg.LeasePeriod) // a hold that ran out says nothing
		}
	}
}

// reclaim proposes what nobody needs; left: something had to stay.
func (n *Node) reclaim(p *partition, here *replica) (left bool, err error) {
	at, ord, low := p.garbage, uint8(0), uint64(0)
	for {
		seen := here.machine.Applied() // the view shows at least this
		v, err := here.machine.Local()
		if err != nil {
			return left, err
		}
		list, err := v.Garbage(at, ord, reclaimBatch)
		v.Close()
		if err == nil && len(list) == 0 {
			p.garbage = at
			if left {
				p.garbage = low
			}
		}
		if err != nil || len(list) == 0 {
			return left, err
		}
		last := list[len(list)-1]
		at, ord = last.At, last.Ord
		if ord++; ord == 0 {
			at++
		}
		first, some, err := n.reclaimList(p, list, seen)
		if some && !left {
			left, low = true, first
		}
		if err != nil {
			return left, err
		}
	}
}

// reclaimList proposes what nobody needs of a list that was found in the state
// at seen. some: a piece had to stay, the oldest maybe since first.
func (n *Node) reclaimList(p *partition, list []namespace.Garbage, seen uint64) (first uint64, some bool, err error) {
	items := make([]pins.Item, len(list))
	for i, g := range list {
		items[i] = pins.Item{Inode: g.Inode, At: g.At, Whole: g.Whole}
	}
	free, err := p.pins.Free(n.ctx, items)
	if err != nil {
		return list[0].At, true, err
	}
	cmd := &namespace.Reclaim{Seen: seen}
	for i, g := range list {
		if free[i] {
			cmd.Items = append(cmd.Items, g)
		} else if !some {
			first, some = g.At, true
		}
	}
	spared, err := n.reclaimItems(p, cmd)
	if spared {
		first, some = list[0].At, true
	}
	return first, some, err
}

// reclaimItems proposes until nothing is left of the items; spared: but inodes
// that were kept meanwhile.
func (n *Node) reclaimItems(p *partition, cmd *namespace.Reclaim) (spared bool, err error) {
	for done := len(cmd.Items) == 0; !done; {
		r, err := n.do(n.ctx, p.id, &namespace.Command{Reclaim: cmd})
		if err != nil {
			return spared, err
		}
		done, spared = r.Done, spared || r.Partial
	}
	return spared, nil
}

// release has the files of released chunks dropped, then forgets them.
func (n *Node) release(p *partition, here *replica) error {
	for !n.keepsAll() {
		v, err := here.machine.Local()
		if err != nil {
			return err
		}
		refs, err := v.Released(reclaimBatch)
		v.Close()
		if err != nil || len(refs) == 0 {
			return err
		}
		if err := n.deleteReleased(n.ctx, refs); err != nil {
			return err
		}
		ids := make([]object.ChunkID, len(refs))
		for i, r := range refs {
			ids[i] = r.ID
		}
		if _, err := n.do(n.ctx, p.id, &namespace.Command{Released: &namespace.Released{Chunks: ids}}); err != nil {
			return err
		}
	}
	return nil
}
