package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// ownMemory is how many changes of our own are remembered, to skip them in
	// the stream.
	ownMemory = 4096
	// maxNotes bounds the queue to the kernel; what does not fit is right again
	// when its TTL has passed.
	maxNotes = 1 << 16
	// reconnectDelay is between two attempts to open the stream.
	reconnectDelay = 500 * time.Millisecond
)

// note is one thing that the kernel is to drop: a name of a directory, or (name
// "") an inode's attributes and, where pages is set, its content.
type note struct {
	ino   object.InodeID
	name  string
	pages bool
}

// change names one entry of a partition's log.
type change struct {
	partition object.PartitionID
	index     uint64
}

// named is a name of a directory that a request of ours puts, or takes away.
type named struct {
	dir  object.InodeID
	name string
	gone bool
}

// notifier keeps the kernel's caches in step with what others change. The
// kernel is told from a goroutine of its own: to tell it takes locks there that
// a process may hold which waits for a request of ours.
type notifier struct {
	f      *filesystem
	kernel *fuse.Server
	live   atomic.Bool   // the stream is open
	wake   chan struct{} // has room for one

	mu    sync.Mutex // guards what follows
	queue map[note]struct{}
	own_  map[change]struct{}
	ring  []change // the same, in order of arrival
	at    int      // the oldest in the ring, when that is full

	// expected holds the names that we change ourselves until the stream tells of
	// them. The kernel did the same already, and to drop a directory that some
	// process is in would take its getcwd away.
	expected map[named]int
}

func newNotifier(f *filesystem) *notifier {
	return &notifier{f: f, wake: make(chan struct{}, 1), queue: map[note]struct{}{}, own_: map[change]struct{}{},
		expected: map[named]int{}}
}

// own notes a change of our own by the record that it left.
func (t *notifier) own(n *object.Inode) {
	t.f.epoch.Add(1)
	c := change{n.ID.Partition(), n.Change}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.own_[c]; ok {
		return
	}
	if len(t.ring) < ownMemory {
		t.ring = append(t.ring, c)
	} else {
		delete(t.own_, t.ring[t.at])
		t.ring[t.at] = c
		t.at = (t.at + 1) % ownMemory
	}
	t.own_[c] = struct{}{}
}

func (t *notifier) isOwn(c change) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.own_[c]
	return ok
}

// expect announces a change of a name, before the request; undo takes that back
// when nothing was changed. An announcement that the stream never answers can
// hide one change of that name by others, for as long as its TTL.
func (t *notifier) expect(dir object.InodeID, name string, gone bool) (undo func()) {
	if !t.live.Load() {
		return func() {}
	}
	k := named{dir, name, gone}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.expected) >= maxNotes {
		clear(t.expected)
	}
	t.expected[k]++
	return func() { t.met(k) }
}

// met reports whether a change was announced, and counts it off.
func (t *notifier) met(k named) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.expected[k]
	if n <= 1 {
		delete(t.expected, k)
	} else {
		t.expected[k] = n - 1
	}
	return n > 0
}

// pages has the kernel drop an inode's content and attributes.
func (t *notifier) pages(ino object.InodeID) { t.tell(note{ino: ino, pages: true}) }

func (t *notifier) tell(n note) {
	t.mu.Lock()
	if len(t.queue) < maxNotes {
		t.queue[n] = struct{}{}
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run tells the kernel.
func (t *notifier) run() {
	for {
		select {
		case <-t.f.ctx.Done():
			return
		case <-t.wake:
		}
		t.mu.Lock()
		notes := t.queue
		t.queue = map[note]struct{}{}
		t.mu.Unlock()
		for n := range notes {
			if t.f.ctx.Err() != nil {
				return
			}
			t.send(n)
		}
	}
}

// send tells the kernel one thing; what it does not know (ENOENT) is fine.
func (t *notifier) send(n note) {
	switch {
	case n.name != "":
		t.kernel.EntryNotify(t.f.node(n.ino), n.name)
	case n.pages:
		t.kernel.InodeNotify(t.f.node(n.ino), 0, 0)
	default:
		t.kernel.InodeNotify(t.f.node(n.ino), -1, 0)
	}
}

// listen follows the stream of changes, and opens it anew when it breaks.
func (t *notifier) listen() {
	for t.f.ctx.Err() == nil {
		if err := t.follow(); err != nil && t.f.ctx.Err() == nil {
			t.f.log.Debug("the stream of changes broke; names and attributes are revalidated by time meanwhile", "error", err)
		}
		select {
		case <-t.f.ctx.Done():
		case <-time.After(reconnectDelay):
		}
	}
}

func (t *notifier) follow() error {
	stream, err := t.f.b.Events(t.f.ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	t.live.Store(true)
	defer t.live.Store(false)
	t.gap() // what happened before the stream began is unknown
	for {
		e, err := stream.Next()
		if err != nil {
			return err
		}
		t.handle(e)
	}
}

// gap drops what was cached across a loss of events: the content and the
// attributes of open files. Other content is revalidated at open; other names
// and attributes outlive their TTL by nothing.
func (t *notifier) gap() {
	t.f.epoch.Add(1)
	t.mu.Lock()
	clear(t.expected)
	t.mu.Unlock()
	for _, fl := range t.f.nodes.files() {
		t.f.nodes.cacheMoved(fl.ino, 0, 0)
		t.pages(fl.ino)
	}
}

// handle takes in one event.
func (t *notifier) handle(e api.Event) {
	ino, dir := object.InodeID(e.Inode), object.InodeID(e.Dir)
	own := t.isOwn(change{e.Partition, e.Index})
	if e.Kind == api.EventEntry {
		own = t.met(named{dir, string(e.Name), ino == 0}) || own
	}
	switch {
	case e.Kind == api.EventGap:
		t.gap()
	case e.Kind == api.EventHeartbeat || own:
	case e.Kind == api.EventEntry && t.f.knows(dir):
		t.f.epoch.Add(1)
		if legalName(string(e.Name)) {
			t.tell(note{ino: dir, name: string(e.Name)})
		}
		t.tell(note{ino: dir})
	case e.Kind == api.EventInode:
		t.f.nodes.moved(ino, e.Index) // the first answer that tells of it may be on its way
		if !t.f.knows(ino) {
			return
		}
		t.f.epoch.Add(1)
		if e.Version == 0 || e.Version == t.f.nodes.cachedVersion(ino) {
			t.tell(note{ino: ino}) // attributes only
			return
		}
		t.f.nodes.cacheMoved(ino, 0, 0)
		t.pages(ino)
	}
}

// knows reports whether the kernel may have something of the inode cached.
func (f *filesystem) knows(ino object.InodeID) bool { return ino == f.root || f.nodes.known(ino) }
