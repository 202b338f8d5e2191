package wal

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// copyBytes bounds what the cleaner copies in one batch, so that nobody's
	// commit waits long for it.
	copyBytes = 256 << 10
	// cleanFactor: reclaim when the log is longer than this many times what is
	// alive in it, plus cleanSlack segments. So one byte is copied at most for
	// one that is given back.
	cleanFactor = 2
	cleanSlack  = 2
	// maxSmall is how many segments more than their bytes justify are kept
	// (every start makes a new one).
	maxSmall = 8
)

// worthCleaning decides whether the oldest segment should go. mu is held.
func (l *Log) worthCleaning() bool {
	first := l.segs[l.order[0]]
	if first == l.active {
		return false
	}
	if first.live == 0 {
		return true
	}
	var total, live int64
	for _, s := range l.segs {
		total += s.end
		live += s.live
	}
	return total > cleanFactor*live+cleanSlack*l.opts.SegmentBytes ||
		int64(len(l.order)) > maxSmall+2*(total/l.opts.SegmentBytes)
}

func (l *Log) cleanLoop() {
	defer close(l.cleanDone)
	for {
		err := l.Clean()
		if l.isClosed() {
			return
		}
		if err != nil {
			l.log.Error("the log cannot give back space", "error", err)
		}
		l.count(func(s *Stats) { s.CleanErr = err })
		if object.IsKind(err, object.KindCorrupt) {
			return // it will not get better; reading the entry reports it too
		}
		select {
		case <-l.cleanStop:
			return
		case <-l.cleanWake:
		}
	}
}

// Clean reclaims segments from the oldest on while that is worth its cost. It
// runs in the background by itself.
func (l *Log) Clean() error {
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	for {
		l.mu.RLock()
		worth := l.worthCleaning()
		l.mu.RUnlock()
		if !worth {
			return nil
		}
		if err := l.reclaimOldest(); err != nil {
			return err
		}
	}
}

// reclaimOldest copies what is alive in the oldest segment to the head of the
// log, says durably that the segment is not needed, and only then removes it.
func (l *Log) reclaimOldest() error {
	l.mu.RLock()
	s := l.segs[l.order[0]]
	groups := make([]*Group, 0, len(l.groups))
	for _, g := range l.groups {
		groups = append(groups, g)
	}
	l.mu.RUnlock()
	slices.SortFunc(groups, func(a, b *Group) int { return int(a.id) - int(b.id) })
	for _, g := range groups {
		if err := g.copyForward(s); err != nil {
			return err
		}
	}
	l.mu.RLock()
	left := s.live
	l.mu.RUnlock()
	if left != 0 {
		return object.Errorf(object.KindInternal, "log segment %s still has %d live bytes after copying; it is kept", s.path, left)
	}
	// The segment may be gone from the words of the log already, when removing
	// the file failed before.
	if err := l.enqueue(&request{retire: s.id + 1, wake: make(chan bool, 1)}); err != nil {
		return err
	}
	if err := l.removeOldest(); err != nil {
		return err
	}
	l.count(func(st *Stats) { st.Reclaimed++ })
	return nil
}

// copyForward copies the group's live records of segment s to the head.
func (g *Group) copyForward(s *segment) error {
	for from := uint64(0); from != math.MaxUint64; {
		g.l.mu.RLock()
		var places []loc
		if from == 0 {
			places = g.valuesIn(s)
		}
		size := 0
		next := uint64(math.MaxUint64)
		g.entries.inSegment(uint32(s.id), from, func(i uint64, at loc) bool {
			if size >= copyBytes {
				next = i
				return false
			}
			places = append(places, at)
			size += int(at.len)
			return true
		})
		g.l.mu.RUnlock()
		if err := g.copyRecords(s, places); err != nil {
			return err
		}
		from = next
	}
	return nil
}

// valuesIn are the places of live records in s that are no entries.
func (g *Group) valuesIn(s *segment) []loc {
	var places []loc
	add := func(at loc) {
		if at != (loc{}) && uint64(at.seg) == s.id {
			places = append(places, at)
		}
	}
	for _, v := range g.stable {
		add(v.at)
	}
	add(g.vote.at)
	add(g.snap.at)
	return places
}

func (g *Group) copyRecords(s *segment, places []loc) error {
	if len(places) == 0 {
		return nil
	}
	recs := make([]record, len(places))
	for i, at := range places {
		r, _, err := s.readRecord(at)
		if errors.Is(err, errSegmentClosed) {
			return errClosed()
		}
		if err != nil {
			return fmt.Errorf("copying live log entries forward: %w", err)
		}
		recs[i] = r
	}
	req, err := newRequest(recs)
	if err != nil {
		return err
	}
	req.copied = places
	return g.l.enqueue(req)
}
