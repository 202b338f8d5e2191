package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// request is what one caller wants to be durable.
type request struct {
	recs []record
	buf  []byte // the records encoded, CRCs not yet mixed with a place

	// copied makes it a copy request of the cleaner: where each record lies now.
	// A record that has moved or died by then is left out.
	copied []loc
	// retire, unless 0, tells readers of the log that older segments are not needed.
	retire uint64

	// alone is run by the leader on its own, in place of a batch.
	alone func() error

	wake chan bool // true: you are the leader now; false: done, see err
	err  error
}

func newRequest(recs []record) (*request, error) {
	n := 0
	for i := range recs {
		n += recs[i].size()
		if recs[i].size() > maxRecord || n > maxRecord {
			return nil, object.Errorf(object.KindTooLarge, "%d bytes at once are too many for the log (at most %d)", n, maxRecord)
		}
	}
	r := &request{recs: recs, buf: make([]byte, 0, n), wake: make(chan bool, 1)}
	for i := range recs {
		r.buf = recs[i].appendTo(r.buf)
	}
	return r, nil
}

// commit makes the records durable and applies them, as one step. It returns
// after the sync that covers them.
func (l *Log) commit(recs ...record) error {
	r, err := newRequest(recs)
	if err != nil {
		return err
	}
	return l.enqueue(r)
}

func errClosed() error {
	return &object.Error{Op: "write log", Kind: object.KindUnavailable, Err: errors.New("the log is closed: the node is shutting down")}
}

// enqueue waits until r is done. Whoever finds no leader becomes the leader,
// commits what has gathered (its own request is always the first), and hands on
// to the first that came meanwhile. So a lone caller pays one write and one
// sync and no switch of goroutines, and many share them.
func (l *Log) enqueue(r *request) error {
	l.qmu.Lock()
	if l.closed && r.alone == nil {
		l.qmu.Unlock()
		return errClosed()
	}
	l.queue = append(l.queue, r)
	lead := !l.leading
	l.leading = true
	l.qmu.Unlock()
	if !lead {
		lead = <-r.wake
	}
	if lead {
		l.lead()
	}
	return r.err
}

func (l *Log) lead() {
	batch := l.take()
	err := l.commitBatch(batch)
	for i, r := range batch {
		r.err = err
		if i > 0 { // the first is the leader's own
			r.wake <- false
		}
	}
	if l.handOn(err != nil || batch[0].alone != nil) {
		return
	}
	// Nobody waits: say that all is synced, so that damage to the last batch can
	// be told from a torn one. Not synced itself; the kernel writes it out.
	if err := l.writeMark(); err != nil && !object.IsKind(err, object.KindNoSpace) {
		_ = l.stop(err) // the callers' records are safe; the next ones learn of it
	}
	l.handOn(true)
}

// handOn makes the first waiting request the leader. When none waits it ends the
// leadership if end is set, and reports whether this goroutine is done leading.
func (l *Log) handOn(end bool) bool {
	l.qmu.Lock()
	defer l.qmu.Unlock()
	if len(l.queue) > 0 {
		l.queue[0].wake <- true
		return true
	}
	if end {
		l.leading = false
	}
	return end
}

// take removes from the queue what goes into the next batch.
func (l *Log) take() []*request {
	l.qmu.Lock()
	defer l.qmu.Unlock()
	n, size := 0, int64(0)
	for n < len(l.queue) {
		r := l.queue[n]
		size += int64(len(r.buf))
		if n > 0 && (r.alone != nil || size > l.opts.MaxBatchBytes) {
			break
		}
		n++
		if r.alone != nil {
			break
		}
	}
	batch := l.queue[:n:n]
	l.queue = append([]*request(nil), l.queue[n:]...)
	return batch
}

func (l *Log) commitBatch(batch []*request) error {
	if err := l.Err(); err != nil {
		return err
	}
	if batch[0].alone != nil {
		return batch[0].alone()
	}
	reqs := l.copiesFirst(batch)
	h := header{kind: kindBatch, oldest: l.oldest}
	for _, r := range reqs {
		h.count += uint32(len(r.recs))
		h.length += uint32(len(r.buf))
		h.oldest = max(h.oldest, r.retire)
	}
	h.padding = pad(int64(h.length))
	if err := l.makeRoom(h.span()); err != nil {
		return err
	}
	b := l.assemble(h, reqs)
	if n, err := l.active.file.WriteAt(b, l.active.end); err != nil {
		return l.writeFailed(n, fmt.Errorf("writing log segment %s: %w", l.active.path, err))
	}
	if err := l.active.file.Sync(opAppendSync); err != nil {
		return l.stop(fmt.Errorf("syncing log segment %s: %w", l.active.path, err))
	}
	l.publish(h, reqs)
	return nil
}

// writeFailed decides what the failed write of a batch means, of which n bytes
// were written. A full disk leaves the log going: the next batch overwrites
// those bytes, whose header is blotted out meanwhile. Anything else stops it.
func (l *Log) writeFailed(n int, err error) error {
	if !object.IsKind(err, object.KindNoSpace) {
		return l.stop(err)
	}
	if n > 0 {
		if _, zerr := l.active.file.WriteAt(make([]byte, batchHead), l.active.end); zerr != nil {
			return l.stop(errors.Join(err, zerr))
		}
	}
	return &object.Error{Op: "write log", Kind: object.KindNoSpace, Err: err}
}

// copiesFirst puts copy requests in front, with what died meanwhile left out:
// all that was committed before is applied, and whatever else is in this batch
// then comes behind the copies and wins over them.
func (l *Log) copiesFirst(batch []*request) []*request {
	var copies, others []*request
	for _, r := range batch {
		if r.copied != nil {
			copies = append(copies, l.stillLive(r))
		} else {
			others = append(others, r)
		}
	}
	return append(copies, others...)
}

func (l *Log) stillLive(r *request) *request {
	l.mu.RLock()
	defer l.mu.RUnlock()
	live := &request{copied: r.copied}
	pos := 0
	for i := range r.recs {
		rec, n := &r.recs[i], r.recs[i].size()
		if g := l.groups[rec.group]; g != nil && g.holds(rec, r.copied[i]) {
			live.recs = append(live.recs, *rec)
			live.buf = append(live.buf, r.buf[pos:pos+n]...)
		}
		pos += n
	}
	return live
}

// makeRoom sees to it that n bytes and a seal fit into the active segment. The
// next segment exists durably before this one is sealed, and this one is sealed
// before the next is used.
func (l *Log) makeRoom(n int64) error {
	if l.active.end+n+batchHead <= l.active.size {
		return nil
	}
	full := l.active
	if retry, err := l.addSegment(max(l.opts.SegmentBytes, segmentHead+n+batchHead)); err != nil && retry {
		// Nothing was written: once there is space again, the log goes on.
		return &object.Error{Op: "write log", Kind: object.KindOf(err), Err: err}
	} else if err != nil {
		return l.stop(err)
	}
	if err := full.seal(l.oldest); err != nil {
		return l.stop(fmt.Errorf("sealing log segment %s: %w", full.path, err))
	}
	l.count(func(s *Stats) { s.Syncs++ })
	return nil
}

// minBuffer is the least size of the leader's buffer, in bytes.
const minBuffer = 64 << 10

// assemble builds the batch for the end of the active segment.
func (l *Log) assemble(h header, reqs []*request) []byte {
	if int64(cap(l.batch)) < h.span() || int64(cap(l.batch)) > 2*l.opts.MaxBatchBytes+minBuffer {
		l.batch = make([]byte, 0, max(h.span(), minBuffer))
	}
	b := l.batch[:batchHead]
	for _, r := range reqs {
		b = append(b, r.buf...)
	}
	records := len(b)
	b = append(b, make([]byte, h.padding)...)
	h.put(b, l.active.salt, l.active.end)
	le := binary.LittleEndian
	for pos := batchHead; pos < records; pos += int(le.Uint32(b[pos+4:])) {
		le.PutUint32(b[pos:], le.Uint32(b[pos:])^placeMix(l.active.salt, l.active.end+int64(pos)))
	}
	l.batch = b
	return b
}

// publish makes a synced batch visible to readers.
func (l *Log) publish(h header, reqs []*request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := loc{seg: uint32(l.active.id), off: uint32(l.active.end) + batchHead}
	for _, r := range reqs {
		for i := range r.recs {
			rec := &r.recs[i]
			at.len = uint32(rec.size())
			l.groupLocked(rec.group).apply(rec, at)
			switch {
			case r.copied != nil:
				l.stats.Copied += uint64(at.len)
			case rec.typ == recEntry:
				l.stats.Entries++
				rec.entry.AppendedAt = timeOf(nanos(rec.entry.AppendedAt))
				l.cache.put(rec.group, at, rec.entry)
			}
			at.off += at.len
		}
	}
	l.active.end += h.span()
	l.oldest = h.oldest
	l.stats.Batches++
	l.stats.Syncs++
	l.stats.Written += uint64(h.span())
	if l.worthCleaning() {
		select {
		case l.cleanWake <- struct{}{}:
		default:
		}
	}
}

func (l *Log) count(add func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add(&l.stats)
}

// writeMark notes behind the last batch that everything before it is synced. The
// next batch overwrites it.
func (l *Log) writeMark() error {
	b := make([]byte, batchHead)
	header{kind: kindMark, oldest: l.oldest}.put(b, l.active.salt, l.active.end)
	_, err := l.active.file.WriteAt(b, l.active.end)
	return err
}

// markClean leaves a synced mark.
func (l *Log) markClean() error {
	if err := l.writeMark(); err != nil {
		return l.stop(err)
	}
	if err := l.active.file.Sync(opMarkSync); err != nil {
		return l.stop(err)
	}
	l.count(func(s *Stats) { s.Syncs++ })
	return nil
}
