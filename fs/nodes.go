package fs

import (
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// node is what the mount remembers of an inode that the kernel knows or that
// is open. A FUSE node id is the inode number itself, so there is no tree of
// nodes to keep in step with renames.
type node struct {
	lookups uint64 // how often the kernel was told of it and has not forgotten it
	cached  uint64 // version that the kernel's page cache holds bytes of; 0: unknown
	file    *file  // set while it is open or has unflushed changes
	// bareUntil: until then it is taken to have no extended attributes, as everything
	// else that a lookup told is believed for CacheTTL. The kernel asks for an ACL
	// wherever somebody else than the owner does something.
	bareUntil time.Time
	heard     uint64 // index of the last change that the stream told of
	unsure    uint64 // nodeTable.moves, when a change was met whose index nobody told
}

// maxMissed bounds nodeTable.missed.
const maxMissed = 1 << 10

// nodeTable is safe for concurrent use. Its lock is taken before any file's.
type nodeTable struct {
	mu sync.Mutex // guards what follows
	m  map[object.InodeID]*node

	// An answer may be older than a change that was heard of while it was on its way,
	// also the first answer that tells of an inode.
	moves  uint64                    // changes that were met
	missed map[object.InodeID]uint64 // node.heard of inodes that are not in m
	lost   uint64                    // node.unsure of those that are in neither
}

func newNodeTable() *nodeTable {
	return &nodeTable{m: map[object.InodeID]*node{}, missed: map[object.InodeID]uint64{}}
}

// at returns the node of ino, made where it is missing. The lock is held.
func (t *nodeTable) at(ino object.InodeID) *node {
	n := t.m[ino]
	if n == nil {
		n = &node{heard: t.missed[ino], unsure: t.lost}
		delete(t.missed, ino)
		t.m[ino] = n
	}
	return n
}

// tidy drops a node that nobody needs. The lock is held.
func (t *nodeTable) tidy(ino object.InodeID, n *node) {
	if n.lookups == 0 && n.file == nil {
		delete(t.m, ino)
		t.lost = max(t.lost, n.unsure)
		t.miss(ino, n.heard)
	}
}

// miss keeps what was heard of an inode that has no node. The lock is held.
func (t *nodeTable) miss(ino object.InodeID, heard uint64) {
	if heard == 0 {
		return
	}
	if len(t.missed) >= maxMissed {
		clear(t.missed)
		t.lost = t.moves
	}
	t.missed[ino] = max(t.missed[ino], heard)
}

// remember counts one more reference of the kernel.
func (t *nodeTable) remember(ino object.InodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at(ino).lookups++
}

// asking is taken before a request whose answer bare is told.
func (t *nodeTable) asking() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.moves
}

// bare notes whether an inode has no extended attributes, as an answer says that was
// asked for at asked; nothing, where the inode has changed since.
func (t *nodeTable) bare(i *object.Inode, asked uint64, ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.m[i.ID]
	if n == nil || asked < n.unsure || i.Change < n.heard {
		return
	}
	n.bareUntil = time.Time{}
	if len(i.Xattrs) == 0 {
		n.bareUntil = time.Now().Add(ttl)
	}
}

// moved tells of a change of an inode, and of its index in the log, or 0: a change of
// our own of which no answer tells it. The inode is not taken to be bare any more, by
// no answer from before either.
func (t *nodeTable) moved(ino object.InodeID, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moves++
	n := t.m[ino]
	switch {
	case n == nil && index == 0:
		t.lost = t.moves
	case n == nil:
		t.miss(ino, index)
	default:
		n.bareUntil = time.Time{}
		n.heard = max(n.heard, index)
		if index == 0 {
			n.unsure = t.moves
		}
	}
}

// isBare reports whether an inode may still be taken to have none.
func (t *nodeTable) isBare(ino object.InodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.m[ino]
	return n != nil && time.Now().Before(n.bareUntil)
}

// forget takes n references back.
func (t *nodeTable) forget(ino object.InodeID, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if nd := t.m[ino]; nd != nil {
		nd.lookups -= min(n, nd.lookups)
		t.tidy(ino, nd)
	}
}

// known reports whether the kernel may have the inode cached.
func (t *nodeTable) known(ino object.InodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[ino] != nil
}

// file returns the state of an open or unflushed file, or nil.
func (t *nodeTable) file(ino object.InodeID) *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.m[ino]; n != nil {
		return n.file
	}
	return nil
}

// files returns all of them.
func (t *nodeTable) files() []*file {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*file
	for _, n := range t.m {
		if n.file != nil {
			all = append(all, n.file)
		}
	}
	return all
}

// keepCache notes that the page cache will hold bytes of version from now on,
// and reports whether what it holds is of that version already.
func (t *nodeTable) keepCache(ino object.InodeID, version uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.at(ino)
	same := n.cached == version && version != 0
	n.cached = version
	return same
}

// cacheMoved tells that a change of our own took the content from one version
// to another with nobody's in between; the page cache went along. With from 0
// that is not known, and the next open starts afresh.
func (t *nodeTable) cacheMoved(ino object.InodeID, from, to uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.m[ino]; n != nil {
		if from == 0 || n.cached != from {
			to = 0
		}
		n.cached = to
	}
}

// cachedVersion is the version that the page cache holds bytes of, or 0.
func (t *nodeTable) cachedVersion(ino object.InodeID) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.m[ino]; n != nil {
		return n.cached
	}
	return 0
}
