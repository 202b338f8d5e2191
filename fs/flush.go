package fs

import (
	"bytes"
	"context"
	"time"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sync/errgroup"
)

// maxSending bounds the write requests under way, over all files.
const maxSending = 8

// flushJob is one flush of one file. Jobs run on their own, so that a signal
// ends the wait for one but never tears a write apart.
type flushJob struct {
	done   chan struct{}
	err    error // read it after done
	settle bool  // it only finds out what came of an earlier one; what is dirty is sent by the next
}

// flush sends everything that is dirty when it is called and returns when that
// is durable. It may be called without any lock only. When ctx ends the wait
// ends, the flush does not.
func (f *filesystem) flush(ctx context.Context, fl *file) error {
	fl.wanted.Add(1)
	defer fl.wanted.Add(-1)
	for {
		fl.mu.Lock()
		job, ours := fl.inFlight, false
		if job == nil {
			if !fl.isDirty() {
				fl.mu.Unlock()
				return nil
			}
			job, ours = f.launchAll(fl), true
		}
		fl.mu.Unlock()
		select {
		case <-job.done:
			if ours && (job.err != nil || !job.settle) {
				return job.err
			}
			// What another's job could not send is dirty again: try it ourselves.
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// confirm is flush for those who ask for durability: they hear, once, of
// appended bytes that an earlier flush lost, which nobody may have waited for. told
// is the mark of whoever asks, under the file's lock: as in the kernel's errseq
// every open hears of each loss, whatever another one was told.
func (f *filesystem) confirm(ctx context.Context, fl *file, told *uint64) error {
	err := f.flush(ctx, fl)
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.losses > *told {
		*told, fl.told = fl.losses, fl.losses // the end of the mount tells only what nobody was told
		return fl.lost
	}
	return err
}

// launchAll starts a flush of the whole dirty layer; where it is open what came
// of a truncation, it starts with that, and only that. The lock is held, nothing
// is in flight.
func (f *filesystem) launchAll(fl *file) *flushJob {
	if s := fl.unsure; s != nil {
		job := &flushJob{done: make(chan struct{}), settle: true}
		fl.inFlight = job
		go func() {
			job.err = s.settle()
			f.finish(fl, s, job)
		}()
		return job
	}
	l := fl.dirty
	fl.dirty = newLayer()
	return f.launch(fl, l)
}

// launch starts a flush of l, which is not part of the dirty layer any more.
func (f *filesystem) launch(fl *file, l *layer) *flushJob {
	job := &flushJob{done: make(chan struct{})}
	fl.flushing, fl.inFlight = l, job
	base := fl.base
	go func() {
		s := &sender{f: f, fl: fl, l: l, base: base, sent: make([]bool, len(l.extents))}
		job.err = s.run()
		f.finish(fl, s, job)
	}()
	return job
}

// finish drops the layer that was sent, or puts what was not sent back under
// what was written meanwhile. Where it is open whether a truncation was made, the
// layer stays as it is: the next flush finds out.
func (f *filesystem) finish(fl *file, s *sender, job *flushJob) {
	fl.mu.Lock()
	fl.inFlight = nil
	var freed int64
	switch {
	case s.unsure != nil && fl.opens > 0:
		fl.unsure, fl.dirtyAt = s, time.Now() // tried again after another delay
	case (job.err != nil || job.settle) && fl.opens > 0:
		freed = fl.rejoin(s)
	default:
		freed = fl.flushing.bytes
		fl.flushing, fl.unsure = nil, nil
		if s.unsure != nil {
			s.unsure.kept.Done()
		}
	}
	if s.lost != nil {
		fl.lost = s.lost
		fl.losses++
	}
	fl.mu.Unlock()
	f.wmem.put(freed)
	if s.lost != nil {
		f.nodes.cacheMoved(fl.ino, 0, 0)
		f.notes.pages(fl.ino) // the kernel's hold what may not be in the file
		f.log.Error("whether appended bytes reached the file is unknown, and they are not sent twice; look at its end, and append again what is missing",
			"inode", fl.ino, "error", s.lost)
	}
	if job.err != nil {
		f.log.Warn("a flush failed; what the cluster may lack is sent again until the file is closed", "inode", fl.ino, "error", job.err)
	}
	close(job.done)
}

// rejoin puts what a sender did not send of the flushing layer back under the
// dirty one, and returns by how many bytes both are smaller together. The lock
// is held.
func (fl *file) rejoin(s *sender) (freed int64) {
	l := fl.flushing
	fl.flushing, fl.unsure = nil, nil
	if s.unsure != nil {
		s.unsure.kept.Done()
	}
	if s.all {
		return l.bytes
	}
	for i := range l.extents {
		l.extents[i].sent = s.sent[i]
	}
	if s.cutDone {
		l.cut = -1 // what is behind it now is not ours to cut
	}
	if s.grown {
		l.grow = 0
	}
	before := l.bytes + fl.dirty.bytes
	fl.dirty = l.over(fl.dirty)
	fl.dirtyAt = time.Now()
	return before - fl.dirty.bytes
}

// flushAll sends everything dirty of all files.
func (f *filesystem) flushAll(ctx context.Context) error {
	g := errgroup.Group{}
	g.SetLimit(maxSending)
	for _, fl := range f.nodes.files() {
		g.Go(func() error { return object.WithOp(f.confirm(ctx, fl, &fl.told), "flush", "", fl.ino.String()) })
	}
	return g.Wait()
}

// writeback sends what has been dirty for a while, so that a file that stays
// open is not kept from the others for ever.
func (f *filesystem) writeback() {
	tick := time.NewTicker(max(f.o.WritebackDelay/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case now := <-tick.C:
			for _, fl := range f.nodes.files() {
				fl.mu.Lock()
				if fl.inFlight == nil && fl.isDirty() && now.Sub(fl.dirtyAt) >= f.o.WritebackDelay {
					f.launchAll(fl)
				}
				fl.mu.Unlock()
			}
		}
	}
}

// sender sends one layer: first what cuts the file, then the extents, several
// at a time, then the appended ones in order; the last of all carries the
// attributes. base is the cluster's record as it is known.
type sender struct {
	f       *filesystem
	fl      *file
	l       *layer
	base    *object.Inode
	sent    []bool
	cutDone bool  // the cluster has made the layer's cut
	grown   bool  // and the file as long as a truncate behind that did
	all     bool  // the cluster has everything
	lost    error // of an append that may or may not have happened
	unsure  *unsure
}

// unsure is a request that sets the size and may or may not have happened. Made
// again it would cut what others appended in between.
type unsure struct {
	kept Kept
	done *bool // of the sender: what is true if it happened
}

func (s *sender) run() error {
	attr := s.l.pending()
	if cut := s.l.cut; cut >= 0 && len(s.l.extents) == 0 && s.l.end == cut {
		attr.Size = &cut
		return s.resize(attr, &s.all)
	}
	whole, err := s.cut()
	if err != nil {
		return err
	}
	reach := s.base.Size
	var plain, tails []int
	for i, e := range s.l.extents {
		if e.tail {
			tails = append(tails, i)
		} else {
			plain = append(plain, i)
			reach = max(reach, e.end())
		}
	}
	size := s.l.grow
	grow := !whole && size > reach
	last := -1 // the extent that carries the attributes
	switch {
	case len(tails) > 0:
		last, tails = tails[len(tails)-1], tails[:len(tails)-1]
	case len(plain) > 0 && !grow:
		last, plain = plain[len(plain)-1], plain[:len(plain)-1]
	}
	if err := s.plain(plain); err != nil {
		return err
	}
	if grow && last < 0 {
		attr.Size = &size
	} else if grow { // appended behind it
		if err := s.resize(api.SetAttr{Size: &size}, &s.grown); err != nil {
			return err
		}
	}
	if err := s.tails(tails); err != nil {
		return err
	}
	if last >= 0 {
		alone := len(plain)+len(tails) == 0
		return s.write(last, api.WriteOptions{Attr: attr, Truncate: whole}, alone)
	}
	switch {
	case attr.Size != nil:
		return s.resize(attr, &s.all)
	case attr.IsZero():
		return nil
	}
	ctx, done := s.f.begin(nil)
	defer done()
	return s.setAttr(ctx, attr)
}

// cut ends the file where the layer says, unless one write does it in passing:
// whole is true then. The size that we know does not matter: others may have
// written since.
func (s *sender) cut() (whole bool, err error) {
	if s.l.cut < 0 {
		return false, nil
	}
	if es := s.l.extents; len(es) == 1 && es[0].off <= s.l.cut && es[0].end() == s.l.end {
		return true, nil
	}
	size := s.l.cut
	return false, s.resize(api.SetAttr{Size: &size}, &s.cutDone)
}

func (s *sender) setAttr(ctx context.Context, a api.SetAttr) error {
	n, err := s.f.b.SetAttr(ctx, s.fl.ino, a)
	if err != nil {
		return err
	}
	s.learned(n, 0)
	return nil
}

// resize is setAttr with a size. done is set when it happened, maybe only after
// it was settled.
func (s *sender) resize(a api.SetAttr, done *bool) error {
	return s.once(done, func(ctx context.Context) error { return s.setAttr(ctx, a) })
}

// once sends a request that must not happen twice, under a token that outlives
// the call where what came of it is not known.
func (s *sender) once(done *bool, send func(ctx context.Context) error) error {
	ctx, end := s.f.begin(nil)
	defer end()
	ctx, kept := s.f.b.Keep(ctx)
	err := send(ctx)
	refused := object.IsKind(err, object.KindPrecondition) // judged where it is applied, also for an earlier attempt
	if err != nil && !refused && (outcomeUnknown(err) || kept.Unheard()) {
		s.unsure = &unsure{kept: kept, done: done}
		return err
	}
	kept.Done()
	*done = err == nil
	return err
}

// settle finds out what came of the request that the last flush was unsure of.
func (s *sender) settle() error {
	ctx, end := s.f.begin(nil)
	defer end()
	n, _, happened, err := s.unsure.kept.Settle(ctx, s.fl.ino)
	if err != nil {
		return err
	}
	s.unsure.kept.Done()
	*s.unsure.done, s.unsure = happened, nil
	if happened {
		s.learned(n, 0)
	}
	return nil
}

// plain sends extents that have a place, several at a time.
func (s *sender) plain(extents []int) error {
	g := errgroup.Group{}
	g.SetLimit(maxSending)
	for _, i := range extents {
		g.Go(func() error { return s.write(i, api.WriteOptions{}, false) })
	}
	return g.Wait()
}

// tails sends appended extents, in order.
func (s *sender) tails(extents []int) error {
	for _, i := range extents {
		if err := s.write(i, api.WriteOptions{}, false); err != nil {
			return err
		}
	}
	return nil
}

// write sends one extent. alone says that it is the layer's only request: only
// then can a condition prove that the kernel's pages are still right after it.
func (s *sender) write(i int, o api.WriteOptions, alone bool) error {
	select {
	case s.f.sending <- struct{}{}:
	case <-s.f.ctx.Done():
		return errStopped
	}
	defer func() { <-s.f.sending }()
	e := s.l.extents[i]
	// One that ends the file has a place: where it begins was the end.
	o.Size, o.Append = int64(len(e.data)), e.tail && !o.Truncate
	from := uint64(0)
	if alone && s.base.Version != 0 && s.f.nodes.cachedVersion(s.fl.ino) == s.base.Version {
		from, o.Cond.IfMatch = s.base.Version, []string{s.base.ETag()}
	}
	n, at, unheard, err := s.put(e, o)
	if from != 0 && s.unsure == nil && object.IsKind(err, object.KindPrecondition) {
		from, o.Cond.IfMatch = 0, nil // somebody else wrote too; the last one wins
		again := false
		n, at, again, err = s.put(e, o)
		unheard = unheard || again
	}
	if err != nil {
		if o.Append && (outcomeUnknown(err) || unheard) {
			// A second one could be a second copy: it is not repeated, and the
			// program gets the error.
			s.sent[i], s.lost = true, err
		}
		return err
	}
	s.sent[i] = true
	s.learned(n, from)
	if at != e.off {
		s.f.nodes.cacheMoved(s.fl.ino, 0, 0) // others appended too
		s.f.notes.pages(s.fl.ino)
	}
	return nil
}

// put is the request of a write. One that ends the file there is the layer's only
// one. unheard: one of its attempts had no answer, whatever the last one was told.
func (s *sender) put(e extent, o api.WriteOptions) (n *object.Inode, at int64, unheard bool, err error) {
	send := func(ctx context.Context) (err error) {
		n, at, err = s.f.b.Write(ctx, s.fl.ino, e.off, bytes.NewReader(e.data), o)
		return err
	}
	if o.Truncate {
		err = s.once(&s.all, send)
		return n, at, false, err
	}
	ctx, end := s.f.begin(nil)
	defer end()
	ctx, kept := s.f.b.Keep(ctx)
	defer kept.Done()
	err = send(ctx)
	return n, at, kept.Unheard(), err
}

// outcomeUnknown reports whether a request that failed may have been carried
// out all the same; what the cluster refused with a reason was not.
func outcomeUnknown(err error) bool {
	switch object.KindOf(err) {
	case object.KindNoSpace, object.KindQuota, object.KindOverload, object.KindTooLarge, object.KindInvalid,
		object.KindPermission, object.KindUnauthenticated, object.KindReadOnly, object.KindNotSupported,
		object.KindNotFound, object.KindBucketNotFound, object.KindStale:
		return false
	}
	return true
}

// learned takes in the record after a request of our own. from is the version
// it was before, where that is certain.
func (s *sender) learned(n *object.Inode, from uint64) {
	s.f.notes.own(n)
	s.fl.mu.Lock()
	before := s.fl.base.Version
	s.fl.learn(n)
	if s.base.Change <= n.Change {
		s.base = n
	}
	s.fl.mu.Unlock()
	if n.Version != before {
		s.f.nodes.cacheMoved(s.fl.ino, from, n.Version)
	}
}

// waiting makes the context of a wait for a flush: each request of the flush
// has a deadline of its own, so that only a signal ends the wait early.
func (f *filesystem) waiting(cancel <-chan struct{}) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(f.ctx)
	go f.interruptible(ctx, cancel, stop)
	return ctx, func() { stop(nil) }
}
