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
}

// nodeTable is safe for concurrent use. Its lock is taken before any file's.
type nodeTable struct {
	mu sync.Mutex // guards what follows
	m  map[object.InodeID]*node
}

func newNodeTable() *nodeTable { return &nodeTable{m: map[object.InodeID]*node{}} }

// at returns the node of ino, made where it is missing. The lock is held.
func (t *nodeTable) at(ino object.InodeID) *node {
	n := t.m[ino]
	if n == nil {
		n = &node{}
		t.m[ino] = n
	}
	return n
}

// tidy drops a node that nobody needs. The lock is held.
func (t *nodeTable) tidy(ino object.InodeID, n *node) {
	if n.lookups == 0 && n.file == nil {
		delete(t.m, ino)
	}
}

// remember counts one more reference of the kernel.
func (t *nodeTable) remember(ino object.InodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at(ino).lookups++
}

// bare notes whether an inode has no extended attributes, as is known now.
func (t *nodeTable) bare(ino object.InodeID, is bool, ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.m[ino]; n != nil {
		n.bareUntil = time.Time{}
		if is {
			n.bareUntil = time.Now().Add(ttl)
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
