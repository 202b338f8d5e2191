package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"golang.org/x/sys/unix"
)

// interruptGrace is how long a request goes on after a signal: Go programs
// interrupt their own system calls all the time (SIGURG), and giving up at once
// would leave them with EEXIST for a mkdir that they repeat.
const interruptGrace = time.Second

var (
	errInterrupted = &object.Error{Kind: object.KindCanceled, Err: errors.New("interrupted by a signal")}
	errStopped     = &object.Error{Kind: object.KindUnavailable, Err: errors.New("the mount is ending")}
)

// filesystem is the RawFileSystem: one method per FUSE operation, in the file
// of its family. Locks are taken in the order nodes.mu, file.mu; none is held
// during a request to the cluster or a notification of the kernel.
type filesystem struct {
	fuse.RawFileSystem // answers ENOSYS to what is not done here

	b    Backend
	o    Options
	log  *slog.Logger
	root object.InodeID

	nodes   *nodeTable
	handles *handleTable
	wmem    *gate         // unflushed writes
	rmem    *gate         // prefetched reads
	sending chan struct{} // bounds the write requests under way
	holds   *holder
	notes   *notifier
	// mapsDirect: the kernel maps files that are open past its pages (Linux 6.6). Set before the first request.
	mapsDirect bool
	hidden     atomic.Int64 // entries that no path can name, met in listings

	// epoch counts changes, ours and others'. A page of a listing that was asked
	// for in an older one tells no attributes any more.
	epoch atomic.Uint64

	ctx  context.Context // ends with the mount
	quit context.CancelFunc
	wg   sync.WaitGroup
}

func newFilesystem(o Options, root object.InodeID) *filesystem {
	ctx, quit := context.WithCancel(context.Background())
	f := &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		b:             o.Backend, o: o, log: o.Logger.With("component", "fs"), root: root,
		nodes: newNodeTable(), handles: newHandleTable(),
		wmem: newGate(o.MemoryBytes / 2), rmem: newGate(o.MemoryBytes / 2),
		sending: make(chan struct{}, maxSending),
		ctx:     ctx, quit: quit,
	}
	f.holds = newHolder(f)
	f.notes = newNotifier(f)
	return f
}

// start begins the work that no request asks for.
func (f *filesystem) start() {
	for _, run := range []func(){f.holds.run, f.notes.run, f.notes.listen, f.writeback} {
		f.wg.Add(1)
		go func() { defer f.wg.Done(); run() }()
	}
}

// stop ends it. What is still dirty is lost.
func (f *filesystem) stop() {
	f.holds.releaseAll()
	f.quit()
	f.wg.Wait()
}

func (f *filesystem) String() string { return "bucketdb" }

func (f *filesystem) SetDebug(bool) {}

// Init notes the server, for notifications.
func (f *filesystem) Init(s *fuse.Server) { f.notes.kernel = s }

// node is the FUSE node id of an inode: the number itself, but for the root.
func (f *filesystem) node(ino object.InodeID) uint64 {
	if ino == f.root {
		return fuse.FUSE_ROOT_ID
	}
	return uint64(ino)
}

// inode is node's inverse.
func (f *filesystem) inode(id uint64) object.InodeID {
	if id == fuse.FUSE_ROOT_ID {
		return f.root
	}
	return object.InodeID(id)
}

// begin makes the context of one request: it ends at the deadline (EIO), and
// soon after the kernel's interrupt (EINTR). The caller calls the function.
func (f *filesystem) begin(cancel <-chan struct{}) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(f.ctx)
	ctx, done := context.WithTimeout(ctx, f.o.OpTimeout)
	if cancel != nil {
		go f.interruptible(ctx, cancel, stop)
	}
	return ctx, func() { done(); stop(nil) }
}

// interruptible ends ctx some time after cancel, unless it ends before.
func (f *filesystem) interruptible(ctx context.Context, cancel <-chan struct{}, stop context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
		return
	case <-cancel:
	}
	grace := time.NewTimer(interruptGrace)
	defer grace.Stop()
	select {
	case <-ctx.Done():
	case <-grace.C:
		stop(errInterrupted)
	}
}

// StatFs reports the cluster's capacity.
func (f *filesystem) StatFs(cancel <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	ctx, done := f.begin(cancel)
	defer done()
	u, err := f.b.StatFS(ctx)
	if err != nil {
		return status(err)
	}
	const block = 4096
	*out = fuse.StatfsOut{
		Blocks: u.TotalBytes / block, Bfree: u.FreeBytes / block, Bavail: u.FreeBytes / block,
		Files: u.TotalInodes, Ffree: u.FreeInodes,
		Bsize: block, Frsize: block, NameLen: object.MaxName,
	}
	return fuse.OK
}

// Access is the kernel's affair: the mount has default_permissions.
func (f *filesystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// Ioctl knows none; ENOTTY is what cp --reflink=auto expects of FICLONE.
func (f *filesystem) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}

// Forget is told by the kernel that it dropped an inode from its caches.
func (f *filesystem) Forget(nodeid, nlookup uint64) { f.nodes.forget(f.inode(nodeid), nlookup) }

// raiseReadAhead lets the kernel read ahead a whole request instead of 128 KiB.
// Only root may; for others sequential reads are smaller requests, answered
// from our own prefetch.
func (f *filesystem) raiseReadAhead(dir string) {
	var st syscall.Stat_t
	if os.Geteuid() != 0 || syscall.Stat(dir, &st) != nil {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	if err := os.WriteFile(path, []byte(fmt.Sprint(maxRequest>>10)), 0o644); err != nil {
		f.log.Debug("the kernel's read-ahead stays at its default", "error", err)
	}
}
