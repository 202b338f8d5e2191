package fs

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// file is the state of one inode that is open here or has changes that were
// not sent. It follows the inode, whatever its names do.
type file struct {
	ino    object.InodeID
	wanted atomic.Int32 // flushes waited for: no other is started in their way

	mu       sync.Mutex // guards what follows; never held during a request
	base     *object.Inode
	opens    int
	writers  int
	dirty    *layer
	dirtyAt  time.Time     // since when there is something dirty
	flushing *layer        // on its way to the cluster; not changed meanwhile
	inFlight *flushJob     // the job that sends it
	unsure   *sender       // of the flushing layer, where what came of a truncation of it is to be found out first
	settling chan struct{} // set while a change waits for appends to be sent, closed then: no more come
	lost     error         // the last loss of appended bytes, which are not sent again
	losses   uint64        // how many there were; each open has its own mark of those it was told
	told     uint64        // Sync's mark
}

// handle is one open of a file. It is what the kernel calls fh.
type handle struct {
	f     *file
	write bool
	told  uint64 // losses that an fsync of this open answered; under the file's lock
	ahead *prefetch
}

// handleTable gives open files and directories their numbers.
type handleTable struct {
	mu   sync.Mutex // guards what follows
	next uint64
	m    map[uint64]any
}

func newHandleTable() *handleTable { return &handleTable{m: map[uint64]any{}} }

func (t *handleTable) add(h any) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	t.m[t.next] = h
	return t.next
}

func (t *handleTable) remove(fh uint64) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.m[fh]
	delete(t.m, fh)
	return h
}

func (t *handleTable) get(fh uint64) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[fh]
}

// file returns an open file's handle; nil when fh is none.
func (t *handleTable) file(fh uint64) *handle {
	h, _ := t.get(fh).(*handle)
	return h
}

// openFile notes one more open of the inode n and returns its state.
func (f *filesystem) openFile(n *object.Inode, write bool) *file {
	f.nodes.mu.Lock()
	nd := f.nodes.at(n.ID)
	if nd.file == nil {
		nd.file = &file{ino: n.ID, dirty: newLayer()}
	}
	fl := nd.file
	fl.mu.Lock()
	f.nodes.mu.Unlock()
	defer fl.mu.Unlock()
	fl.learn(n)
	fl.opens++
	if write {
		fl.writers++
	}
	if fl.opens == 1 {
		f.holds.open(n.ID)
	}
	return fl
}

// closeFile takes one open back. The last one drops the state; while there is
// something to send, which may have come after a flush, it refuses (closed is
// false), unless it is to give up: then it returns what is lost.
func (f *filesystem) closeFile(fl *file, write, giveUp bool) (lost *layer, closed bool) {
	f.nodes.mu.Lock()
	defer f.nodes.mu.Unlock()
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.opens == 1 && fl.isDirty() && !giveUp {
		return nil, false
	}
	fl.opens--
	if write {
		fl.writers--
	}
	if fl.opens > 0 {
		return nil, true
	}
	f.holds.close(fl.ino)
	if fl.unsure != nil && fl.inFlight == nil {
		f.wmem.put(fl.rejoin(fl.unsure))
		fl.flushing = nil
	}
	if !fl.dirty.empty() {
		lost = fl.dirty
		f.wmem.put(lost.bytes)
		fl.dirty = newLayer()
	}
	if nd := f.nodes.m[fl.ino]; nd != nil && nd.file == fl {
		nd.file = nil
		if lost != nil {
			nd.cached = 0 // the kernel's pages hold what was lost
		}
		f.nodes.tidy(fl.ino, nd)
	}
	return lost, true
}

// learn takes in a record of the inode, unless a newer one is known. The lock
// is held.
func (fl *file) learn(n *object.Inode) {
	if fl.base != nil && n.Change <= fl.base.Change {
		return // the same one may be a listing's, without extended attributes
	}
	fl.base = n
}

// look is what the file looks like from here: the cluster's record under the
// changes it does not have yet. The lock is held.
func (fl *file) look() *object.Inode {
	n := *fl.base
	if fl.flushing != nil {
		fl.flushing.view(&n)
	}
	fl.dirty.view(&n)
	return &n
}

// isDirty reports whether there is anything to send. The lock is held.
func (fl *file) isDirty() bool { return fl.flushing != nil || !fl.dirty.empty() }

// seen is the record to show for n, which the cluster just gave: n itself,
// under the changes of our own.
func (f *filesystem) seen(n *object.Inode) *object.Inode {
	fl := f.nodes.file(n.ID)
	if fl == nil {
		return n
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.learn(n)
	return fl.look()
}

// Open revalidates the file, which is what makes a close elsewhere visible
// here, and lets the kernel keep its pages if they are of the same version.
func (f *filesystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	ino := f.inode(in.NodeId)
	n, err := f.b.GetAttr(ctx, ino)
	if err != nil {
		return statusOfInode(err)
	}
	h := f.newHandle(n, in.Flags)
	if in.Flags&syscall.O_TRUNC != 0 {
		f.truncate(h.f, in.Mode&fuse.OPEN_KILL_SUIDGID != 0)
	}
	out.Fh = f.handles.add(h)
	out.OpenFlags |= f.bypass(in.Flags)
	if f.nodes.keepCache(ino, n.Version) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	if !h.write {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH
	}
	return fuse.OK
}

// bypass has the kernel hand over what is appended as it was written. By way of
// its pages it would cut each write(2) at the first page that it does not have
// whole, nearly always the file's last one: two requests, two appends. The
// handle's own reads bypass the pages too; who may also read may map the file,
// which not every kernel allows then.
func (f *filesystem) bypass(flags uint32) uint32 {
	if flags&syscall.O_APPEND == 0 || flags&syscall.O_ACCMODE != syscall.O_WRONLY && !f.mapsDirect {
		return 0
	}
	return fuse.FOPEN_DIRECT_IO
}

func (f *filesystem) newHandle(n *object.Inode, flags uint32) *handle {
	// Who truncates changes the file, though he may only read then.
	write := flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
	fl := f.openFile(n, write)
	h := &handle{f: fl, write: write, ahead: newPrefetch(f, fl)}
	fl.mu.Lock()
	h.told = fl.told // as errseq has it: a loss that nobody was told of yet is this open's, too
	fl.mu.Unlock()
	return h
}

// change applies a change that takes no memory to the dirty layer; the flush
// will tell the cluster. It returns what the file looks like then, or nil when
// it was closed meanwhile: nothing would be flushed any more.
func (f *filesystem) change(fl *file, do func(l *layer, now int64)) *object.Inode {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return f.changeLocked(fl, do)
}

func (f *filesystem) changeLocked(fl *file, do func(l *layer, now int64)) *object.Inode {
	if fl.opens == 0 {
		return nil
	}
	now := time.Now()
	if fl.dirty.empty() {
		fl.dirtyAt = now
	}
	before := fl.dirty.bytes
	do(fl.dirty, now.UnixNano())
	f.wmem.put(before - fl.dirty.bytes)
	return fl.look()
}

// mayChange reports whether a plain change of bytes before to, or an append (tail),
// can go into the dirty layer now. A change that comes behind appended bytes, or
// touches them, cannot: where they are is known when they are sent. The lock is held.
func (fl *file) mayChange(to int64, tail bool) bool {
	if tail {
		return fl.settling == nil
	}
	return to <= fl.dirty.tailFrom() && (fl.flushing == nil || to <= fl.flushing.tailFrom())
}

// admit returns with the file's lock held as soon as the change may be made,
// for which it sends the appended bytes in the way; other appends wait
// meanwhile, so that it ends. When they cannot be sent or are lost, whoever
// sends them, or ctx ends, it returns the error, the lock not held.
func (f *filesystem) admit(ctx context.Context, fl *file, to int64, tail bool) error {
	fl.mu.Lock()
	losses := fl.losses
	for !fl.mayChange(to, tail) {
		if others := fl.settling; others != nil {
			fl.mu.Unlock()
			select {
			case <-others:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			fl.mu.Lock()
			continue
		}
		fl.settling = make(chan struct{})
		fl.mu.Unlock()
		err := f.flush(ctx, fl)
		fl.mu.Lock()
		close(fl.settling)
		fl.settling = nil
		if err == nil && fl.losses != losses && !tail {
			err = fl.lost // by a flush that was under way
		}
		if err != nil {
			fl.mu.Unlock()
			return err
		}
	}
	return nil
}

// truncate empties the file, as O_TRUNC does. Appended bytes go with the rest,
// sent or not.
func (f *filesystem) truncate(fl *file, kill bool) {
	f.change(fl, func(l *layer, now int64) {
		l.truncate(0, now)
		if kill {
			fl.killPriv(now)
		}
	})
}

// killPriv takes setuid and setgid away. The lock is held.
func (fl *file) killPriv(now int64) {
	mode := fl.look().Mode
	if clean := withoutPriv(mode); clean != mode {
		fl.dirty.setAttr(api.SetAttr{Mode: &clean}, now)
	}
}

// Create makes a regular file and opens it. The name is there, for everybody,
// when it returns: O_EXCL must mean something.
func (f *filesystem) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	node, st := f.newNode(in.Caller, object.TypeRegular, in.Mode, in.Umask)
	if st != fuse.OK {
		return st
	}
	asked := f.nodes.asking()
	n, st := f.create(ctx, f.inode(in.NodeId), name, node)
	if st == fuse.Status(syscall.EEXIST) && in.Flags&syscall.O_EXCL == 0 {
		// Made elsewhere, after the kernel looked. It takes what Create opens for
		// new and checks no permission: ESTALE has it look again, and open.
		return fuse.Status(syscall.ESTALE)
	}
	if st != fuse.OK {
		return st
	}
	h := f.newHandle(n, in.Flags)
	f.nodes.keepCache(n.ID, n.Version)
	out.OpenFlags |= f.bypass(in.Flags)
	f.entry(&out.EntryOut, n, asked)
	out.Fh = f.handles.add(h)
	return fuse.OK
}

// Flush is close(2) of one descriptor: what was written is durable when it
// returns, or the program gets the error.
func (f *filesystem) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h := f.handles.file(in.Fh)
	if h == nil || !h.write {
		return fuse.OK
	}
	// Whoever inherited the descriptor flushes, too, when he ends, and does not
	// look at the answer: the mark stays where it is.
	h.f.mu.Lock()
	told := h.told
	h.f.mu.Unlock()
	return f.flushFor(cancel, h.f, &told)
}

// Fsync makes the file's content and attributes durable.
func (f *filesystem) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := f.handles.file(in.Fh)
	if h == nil {
		return fuse.Status(syscall.EBADF)
	}
	return f.flushFor(cancel, h.f, &h.told)
}

// FsyncDir has nothing to do: names are durable when their operation returns.
func (f *filesystem) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

func (f *filesystem) flushFor(cancel <-chan struct{}, fl *file, told *uint64) fuse.Status {
	ctx, stop := f.waiting(cancel)
	defer stop()
	return statusOfInode(f.confirm(ctx, fl, told))
}

// Release drops a handle. Pages of a shared mapping may have come after the
// last Flush, so it flushes too, and the file's last one whatever there is
// still; no one is left to hear of an error but the log.
func (f *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	h, _ := f.handles.remove(in.Fh).(*handle)
	if h == nil {
		return
	}
	h.ahead.drop()
	var err error
	if h.write {
		err = f.flush(context.Background(), h.f)
	}
	lost, closed := f.closeFile(h.f, h.write, err != nil)
	for !closed {
		err = f.flush(context.Background(), h.f)
		lost, closed = f.closeFile(h.f, h.write, err != nil)
	}
	if lost != nil {
		f.log.Error("unflushed changes of a closed file are lost; close(2) reported those before it: make them again", "inode", h.f.ino,
			"bytes", lost.bytes, "attributes", !lost.attr.IsZero(), "error", err)
	}
}

// newNode describes an inode that a program makes. The umask is left to us
// (DONT_MASK): in a directory with a default ACL that one counts instead.
func (f *filesystem) newNode(c fuse.Caller, t object.FileType, mode, umask uint32) (api.NewNode, fuse.Status) {
	uid, ok1 := f.o.UIDs.stored(c.Uid)
	gid, ok2 := f.o.GIDs.stored(c.Gid)
	if !ok1 || !ok2 {
		return api.NewNode{}, fuse.Status(syscall.EOVERFLOW)
	}
	umask &= 0o777
	return api.NewNode{Type: api.Type(t), Mode: mode &^ umask & 0o7777, Umasked: mode & umask, UID: uid, GID: gid, Exclusive: true}, fuse.OK
}
