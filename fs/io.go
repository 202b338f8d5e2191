package fs

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sys/unix"
)

const (
	// streamAt is how many dirty bytes of one file start a flush of its whole
	// pieces while the program goes on writing.
	streamAt = 2 * pieceSize
	// readTries is how often a read starts over because the content changed
	// under it, before it takes whatever version one request gets.
	readTries = 4
	// copyLimit is the most that one copy_file_range does; programs go on.
	copyLimit = 1 << 30
)

// Read answers from the unflushed changes, then from what was prefetched, then
// from the cluster. One answer is of one version below the changes.
func (f *filesystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := f.handles.file(in.Fh)
	if h == nil {
		return nil, fuse.Status(syscall.EBADF)
	}
	ctx, done := f.begin(cancel)
	defer done()
	n, err := f.read(ctx, h, int64(in.Offset), buf[:min(len(buf), int(in.Size))])
	if err != nil {
		return nil, statusOfInode(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *filesystem) read(ctx context.Context, h *handle, off int64, buf []byte) (int, error) {
	for try := 1; ; try++ {
		got, base, missing := h.f.fill(off, buf)
		if len(missing) == 0 {
			return got, nil
		}
		if try > readTries || base.Version == 0 {
			return f.readAny(ctx, h.f, off, buf[:got], missing)
		}
		var err error
		for _, s := range missing {
			if err = h.ahead.read(ctx, s.from, buf[s.from-off:s.to-off], base.Version, base.Size); err != nil {
				break
			}
		}
		if !object.IsKind(err, object.KindPrecondition) {
			return got, err
		}
		if err := f.catchUp(ctx, h.f, base.Version); err != nil {
			return 0, err
		}
	}
}

// readAny fills the missing spans of buf, whose first byte is offset off, from
// one answer of the cluster, which is of one version, whatever that is. It
// returns how much of buf there is in the file then.
func (f *filesystem) readAny(ctx context.Context, fl *file, off int64, buf []byte, missing []span) (int, error) {
	from, last := missing[0].from, missing[len(missing)-1]
	whole := make([]byte, last.to-from)
	n, err := f.b.ReadRange(ctx, fl.ino, from, whole, 0)
	if err != nil {
		return 0, err
	}
	for _, s := range missing { // whole is zero behind what came
		copy(buf[s.from-off:s.to-off], whole[s.from-from:])
	}
	if last.to == off+int64(len(buf)) { // no change of our own is behind it
		return int(max(from+int64(n), last.from) - off), nil
	}
	return len(buf), nil
}

// fill puts what the layers know of [off, off+len(buf)) into buf. It returns
// how many bytes there are before the end of the file, the cluster's record,
// and the spans that must come from the cluster.
func (fl *file) fill(off int64, buf []byte) (n int, base *object.Inode, missing []span) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	n = int(min(int64(len(buf)), max(0, fl.look().Size-off)))
	if n == 0 {
		return 0, fl.base, nil
	}
	missing = fl.dirty.fill(off, buf[:n], []span{{off, off + int64(n)}})
	if fl.flushing != nil {
		missing = fl.flushing.fill(off, buf[:n], missing)
	}
	return n, fl.base, clip(missing, fl.base.Size, off, buf)
}

// clip zeroes what lies behind size, and leaves it out.
func clip(spans []span, size, off int64, buf []byte) []span {
	var in []span
	for _, s := range spans {
		to := max(s.from, min(s.to, size))
		clear(buf[to-off : s.to-off])
		if s.from < to {
			in = append(in, span{s.from, to})
		}
	}
	return in
}

// catchUp learns the file's record after its content was found not to be of
// version any more, and has the kernel drop pages when that was not our doing.
func (f *filesystem) catchUp(ctx context.Context, fl *file, version uint64) error {
	fl.mu.Lock()
	moved := fl.base.Version != version
	fl.mu.Unlock()
	if moved {
		return nil // our own flush
	}
	n, err := f.b.GetAttr(ctx, fl.ino)
	if err != nil {
		return err
	}
	fl.mu.Lock()
	fl.learn(n)
	fl.mu.Unlock()
	f.nodes.cacheMoved(fl.ino, 0, 0)
	f.notes.pages(fl.ino)
	return nil
}

// Write takes bytes into the dirty layer. When memory is short it waits until
// flushes have freed some.
func (f *filesystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := f.handles.file(in.Fh)
	if h == nil || !h.write {
		return 0, fuse.Status(syscall.EBADF)
	}
	if in.Offset+uint64(len(data)) > object.MaxFileSize {
		return 0, fuse.Status(syscall.EFBIG)
	}
	if !f.wmem.try(int64(len(data))) {
		if err := f.makeRoom(cancel, int64(len(data))); err != nil {
			return 0, status(err)
		}
	}
	// Pages of a mapping know where they belong, whatever flags their file has.
	// The flags of now: fcntl(F_SETFL) changes O_APPEND after the open. A write of
	// the page cache is at the place that the kernel chose.
	tail := in.Flags&syscall.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0
	off := int64(in.Offset)
	if err := f.admitWrite(cancel, h.f, off+int64(len(data)), tail); err != nil {
		f.wmem.put(int64(len(data)))
		return 0, statusOfInode(err)
	}
	if tail {
		off = h.f.look().Size
		if off+int64(len(data)) > object.MaxFileSize {
			h.f.mu.Unlock()
			f.wmem.put(int64(len(data)))
			return 0, fuse.Status(syscall.EFBIG)
		}
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		h.f.killPriv(time.Now().UnixNano())
	}
	unused := int64(len(data)) - f.put(h.f, off, data, tail)
	h.f.mu.Unlock()
	f.wmem.put(unused)
	if off != int64(in.Offset) {
		// The kernel took the end of the file to be elsewhere. The next open starts
		// afresh even if the queue of notes is full.
		f.nodes.cacheMoved(h.f.ino, 0, 0)
		f.notes.pages(h.f.ino)
	}
	return uint32(len(data)), fuse.OK
}

// admitWrite is admit, without the price of a context where there is nothing to
// wait for, as nearly always.
func (f *filesystem) admitWrite(cancel <-chan struct{}, fl *file, to int64, tail bool) error {
	fl.mu.Lock()
	if fl.mayChange(to, tail) {
		return nil
	}
	fl.mu.Unlock()
	ctx, stop := f.waiting(cancel)
	defer stop()
	return f.admit(ctx, fl, to, tail)
}

// put writes into the dirty layer, starts a flush when enough has come
// together, and returns by how much the layer grew. The lock is held.
func (f *filesystem) put(fl *file, off int64, data []byte, tail bool) int64 {
	now := time.Now()
	if fl.dirty.empty() {
		fl.dirtyAt = now
	}
	before := fl.dirty.bytes
	fl.dirty.write(off, data, tail, now.UnixNano())
	grown := fl.dirty.bytes - before
	if fl.dirty.bytes >= streamAt && fl.inFlight == nil && fl.wanted.Load() == 0 {
		var full *layer
		if fl.unsure == nil {
			full = fl.dirty.takeFull()
		}
		if full != nil {
			f.launch(fl, full)
		} else {
			f.launchAll(fl)
		}
	}
	return grown
}

// makeRoom flushes everything dirty and waits for n bytes of memory.
func (f *filesystem) makeRoom(cancel <-chan struct{}, n int64) error {
	ctx, done := f.begin(cancel)
	defer done()
	for _, fl := range f.nodes.files() {
		fl.mu.Lock()
		if fl.inFlight == nil && fl.isDirty() {
			f.launchAll(fl)
		}
		fl.mu.Unlock()
	}
	return f.wmem.wait(ctx, n)
}

// Fallocate punches holes, zeroes ranges (which are holes then) and makes files
// longer. It reserves no space: chunks are never written in place, so that every
// write needs room of its own anyhow.
func (f *filesystem) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h := f.handles.file(in.Fh)
	if h == nil || !h.write {
		return fuse.Status(syscall.EBADF)
	}
	const keep = unix.FALLOC_FL_KEEP_SIZE
	off, length := int64(in.Offset), int64(in.Length)
	if off+length > object.MaxFileSize || off+length < 0 {
		return fuse.Status(syscall.EFBIG)
	}
	switch in.Mode {
	case unix.FALLOC_FL_PUNCH_HOLE | keep, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | keep:
	case 0, keep:
		off, length = off+length, 0 // nothing changes but the size
	default:
		return fuse.ENOTSUP
	}
	ctx, done := f.begin(cancel)
	defer done()
	f.dropPriv(h.f, in.Caller)
	if err := f.flush(ctx, h.f); err != nil {
		return statusOfInode(err)
	}
	if in.Mode == keep {
		return fuse.OK
	}
	n, err := f.b.Punch(ctx, h.f.ino, off, length, in.Mode&keep == 0)
	if err != nil {
		return statusOfInode(err)
	}
	f.settled(h.f, n)
	return fuse.OK
}

// dropPriv takes setuid and setgid away from a file that somebody else than root
// is about to change by another call than write: the kernel leaves that to us
// (HANDLE_KILLPRIV_V2) and does not say so. It travels with the flush to come.
func (f *filesystem) dropPriv(fl *file, c fuse.Caller) {
	fl.mu.Lock()
	mode := fl.look().Mode
	fl.mu.Unlock()
	if c.Uid != 0 && withoutPriv(mode) != mode {
		f.change(fl, func(_ *layer, now int64) { fl.killPriv(now) })
	}
}

// CopyFileRange shares the chunks of one file with another; no data moves.
func (f *filesystem) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, dst := f.handles.file(in.FhIn), f.handles.file(in.FhOut)
	if src == nil || dst == nil || !dst.write {
		return 0, fuse.Status(syscall.EBADF)
	}
	ctx, done := f.begin(cancel)
	defer done()
	f.dropPriv(dst.f, in.Caller)
	for _, fl := range []*file{src.f, dst.f} {
		if err := f.flush(ctx, fl); err != nil {
			return 0, statusOfInode(err)
		}
	}
	src.f.mu.Lock()
	length := min(int64(min(in.Len, copyLimit)), src.f.look().Size-int64(in.OffIn))
	src.f.mu.Unlock()
	if length <= 0 {
		return 0, fuse.OK
	}
	n, copied, err := f.b.CopyRange(ctx, src.f.ino, int64(in.OffIn), dst.f.ino, int64(in.OffOut), length)
	if err != nil {
		return 0, statusOfInode(err)
	}
	f.settled(dst.f, n)
	return uint32(copied), fuse.OK
}

// settled takes in the record after a change that the cluster made for us. The
// kernel's pages may be older than it, so the next open starts afresh.
func (f *filesystem) settled(fl *file, n *object.Inode) {
	f.notes.own(n)
	f.nodes.cacheMoved(n.ID, 0, 0)
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.learn(n)
}

// Lseek is SEEK_DATA and SEEK_HOLE, which are the cluster's to answer: what is not
// flushed is flushed first.
func (f *filesystem) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := f.handles.file(in.Fh)
	switch {
	case h == nil:
		return fuse.Status(syscall.EBADF)
	case in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE:
		return fuse.EINVAL
	case in.Offset > object.MaxFileSize:
		return fuse.Status(syscall.ENXIO)
	}
	ctx, done := f.begin(cancel)
	defer done()
	if err := f.flush(ctx, h.f); err != nil {
		return statusOfInode(err)
	}
	at, err := f.b.Seek(ctx, h.f.ino, int64(in.Offset), in.Whence == unix.SEEK_HOLE)
	if object.IsKind(err, object.KindRange) {
		return fuse.Status(syscall.ENXIO)
	}
	out.Offset = uint64(at)
	return statusOfInode(err)
}
