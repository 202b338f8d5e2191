// Package fstest helps to test a mount: an in-memory cluster that can fail on
// request, and the behaviour that a mounted directory must show whatever
// cluster is behind it.
package fstest

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// defaultLease is how long a hold lasts that is not renewed, as in a cluster.
const defaultLease = 30 * time.Second

// Fake is an in-memory cluster: an fs.Backend whose every call is one step
// under one lock. It is safe for concurrent use.
type Fake struct {
	mu      sync.Mutex // guards what follows
	index   uint64
	inodes  map[object.InodeID]*object.Inode
	dirs    map[object.InodeID]map[string]object.InodeID // "name", or "name/" of a directory
	content map[object.InodeID][]byte
	holds   map[object.InodeID]time.Time // until when each file lives without a name
	lease   time.Duration
	calls   map[string]int
	events  []api.Event
	grown   chan struct{} // closed and replaced with each event
	broken  chan struct{} // closed and replaced by BreakEvents
	tokens  int           // of Keep, without Done
	node    string        // that answers

	// Before, when set, runs before each call, without the lock; its error is
	// the call's. Set it by SetBefore.
	before func(ctx context.Context, op string) error
	// after runs after each SetAttr and Write that was carried out, without the
	// lock; its error is the call's: the answer was lost. Set it by SetAfter.
	after func(ctx context.Context, op string) error
}

var _ fs.Backend = (*Fake)(nil)

// NewFake returns a cluster with one empty bucket.
func NewFake(bucket string) *Fake {
	f := &Fake{
		inodes: map[object.InodeID]*object.Inode{}, dirs: map[object.InodeID]map[string]object.InodeID{},
		content: map[object.InodeID][]byte{}, holds: map[object.InodeID]time.Time{}, lease: defaultLease, calls: map[string]int{},
		grown: make(chan struct{}), broken: make(chan struct{}),
	}
	now := time.Now().UnixNano()
	f.inodes[object.RootInode] = &object.Inode{ID: object.RootInode, Type: object.TypeDirectory, Mode: 0o755, Nlink: 2,
		Atime: now, Mtime: now, Ctime: now, Btime: now}
	f.dirs[object.RootInode] = map[string]object.InodeID{}
	f.mknod(object.RootInode, bucket, api.NewNode{Type: api.Type(object.TypeDirectory), Mode: 0o755})
	return f
}

// SetBefore sets what runs before each call, or nil.
func (f *Fake) SetBefore(before func(ctx context.Context, op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// SetAfter sets what runs after each SetAttr and Write that was carried out, or nil.
func (f *Fake) SetAfter(after func(ctx context.Context, op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = after
}

// Calls returns how often each operation was called, and starts counting anew.
func (f *Fake) Calls() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls
	f.calls = map[string]int{}
	return c
}

// SetLease sets how long the holds last that are asked for from now on.
func (f *Fake) SetLease(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lease = d
}

// Held reports how many files are held.
func (f *Fake) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	return len(f.holds)
}

// expire ends the holds that were not renewed in time, and with them the files
// that have no name. Each call begins with it, so that nothing outlives its lease.
func (f *Fake) expire() {
	now := time.Now()
	for ino, until := range f.holds {
		if now.After(until) {
			f.drop(ino)
		}
	}
}

// drop ends a hold.
func (f *Fake) drop(ino object.InodeID) {
	delete(f.holds, ino)
	if n := f.inodes[ino]; n != nil && n.Nlink == 0 {
		f.reap(ino)
	}
}

// Content returns a copy of a file's bytes.
func (f *Fake) Content(ino object.InodeID) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]byte(nil), f.content[ino]...)
}

// Inodes returns how many inodes there are.
func (f *Fake) Inodes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.inodes)
}

// PutRaw puts a file under any name, legal or not, replacing the dentry as an
// S3 PUT does: a new inode, the old one lives on only while it is held.
func (f *Fake) PutRaw(dir object.InodeID, name string, body []byte) object.InodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.dirs[dir][name]; ok {
		f.dropLink(f.inodes[old])
	}
	n := f.mknod(dir, name, api.NewNode{Type: api.Type(object.TypeRegular), Mode: 0o644})
	f.content[n.ID] = append([]byte(nil), body...)
	n.Size = int64(len(body))
	return n.ID
}

// begin counts the call and lets a test interfere; then it takes the lock.
func (f *Fake) begin(ctx context.Context, op string) (unlock func(), err error) {
	f.mu.Lock()
	f.calls[op]++
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, op); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, object.WithOp(err, op, "", "")
	}
	f.mu.Lock()
	f.expire()
	return f.mu.Unlock, nil
}

func fail(k object.Kind) error { return &object.Error{Kind: k} }

func copyOf(n *object.Inode) *object.Inode {
	c := *n
	c.Xattrs = maps.Clone(n.Xattrs)
	return &c
}

// dirKey is the dentry's name as it is kept.
func dirKey(n *object.Inode, name string) string {
	if n.IsDir() {
		return name + "/"
	}
	return name
}

// find returns the inode behind a name: the directory, where there are both.
func (f *Fake) find(dir object.InodeID, name string) (*object.Inode, error) {
	d := f.inodes[dir]
	switch {
	case d == nil:
		return nil, fail(object.KindStale)
	case !d.IsDir():
		return nil, fail(object.KindNotDirectory)
	}
	for _, key := range []string{name + "/", name} {
		if ino, ok := f.dirs[dir][key]; ok {
			return f.inodes[ino], nil
		}
	}
	return nil, fail(object.KindNotFound)
}

// mknod makes a node behind a name.
func (f *Fake) mknod(dir object.InodeID, name string, node api.NewNode) *object.Inode {
	f.index++
	now := time.Now().UnixNano()
	n := &object.Inode{ID: object.NewInodeID(1, f.index, 0), Type: object.FileType(node.Type), Mode: node.Mode, UID: node.UID, GID: node.GID,
		Nlink: 1, Atime: now, Mtime: now, Ctime: now, Btime: now, Version: f.index, Change: f.index, Rdev: node.Rdev, Target: string(node.Target)}
	f.inodes[n.ID] = n
	if n.IsDir() {
		n.Nlink, n.Parent = 2, dir
		f.dirs[n.ID] = map[string]object.InodeID{}
		f.inodes[dir].Nlink++
	}
	f.dirs[dir][dirKey(n, name)] = n.ID
	f.touchDir(dir, name, n.ID)
	return n
}

// touchDir notes a change of a directory's entries at the current index.
func (f *Fake) touchDir(dir object.InodeID, name string, ino object.InodeID) {
	d := f.inodes[dir]
	d.Mtime = time.Now().UnixNano()
	d.Ctime, d.Change = d.Mtime, f.index
	f.emit(api.Event{Kind: api.EventEntry, Dir: api.ID(dir), Name: api.Name(name), Inode: api.ID(ino)})
}

// changed notes a change of an inode.
func (f *Fake) changed(n *object.Inode, content bool) {
	f.index++
	n.Change, n.Ctime = f.index, time.Now().UnixNano()
	e := api.Event{Kind: api.EventInode, Inode: api.ID(n.ID)}
	if content {
		n.Version, n.Mtime, e.Version = f.index, n.Ctime, f.index
		n.Size = int64(len(f.content[n.ID]))
		n.Blocks = n.Size
	}
	f.emit(e)
}

// dropLink takes a name from an inode, and the inode with the last one unless
// somebody has it open.
func (f *Fake) dropLink(n *object.Inode) {
	f.changed(n, false)
	if n.Nlink--; n.Nlink > 0 {
		return
	}
	if _, held := f.holds[n.ID]; !held {
		f.reap(n.ID)
	}
}

func (f *Fake) reap(ino object.InodeID) {
	delete(f.inodes, ino)
	delete(f.content, ino)
	delete(f.dirs, ino)
}

func (f *Fake) emit(e api.Event) {
	e.Partition, e.Index, e.Time = 1, f.index, time.Now()
	f.events = append(f.events, e)
	close(f.grown)
	f.grown = make(chan struct{})
}

// BreakEvents ends every open stream of events.
func (f *Fake) BreakEvents() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.broken)
	f.broken = make(chan struct{})
}

// Events streams what happens from now on.
func (f *Fake) Events(ctx context.Context) (fs.EventStream, error) {
	unlock, err := f.begin(ctx, "events")
	if err != nil {
		return nil, err
	}
	defer unlock()
	ctx, stop := context.WithCancel(ctx)
	return &fakeStream{f: f, ctx: ctx, stop: stop, at: len(f.events), broken: f.broken}, nil
}

type fakeStream struct {
	f      *Fake
	ctx    context.Context
	stop   context.CancelFunc
	at     int
	broken chan struct{}
}

func (s *fakeStream) Close() error { s.stop(); return nil }

func (s *fakeStream) Next() (api.Event, error) {
	for {
		s.f.mu.Lock()
		grown := s.f.grown
		if s.at < len(s.f.events) {
			e := s.f.events[s.at]
			s.at++
			s.f.mu.Unlock()
			return e, nil
		}
		s.f.mu.Unlock()
		select {
		case <-grown:
		case <-s.broken:
			return api.Event{}, fail(object.KindUnavailable)
		case <-s.ctx.Done():
			return api.Event{}, s.ctx.Err()
		}
	}
}
