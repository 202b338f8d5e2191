package chunk

import (
	"container/list"
	"errors"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// chunkFile is an open chunk with its parsed header. Chunks are immutable, so
// one may be shared and kept for as long as the file is.
type chunkFile struct {
	vfs.File
	header
	frames []frame
	disk   *disk
	path   string

	users  int  // guarded by the cache's mu
	cached bool // likewise
}

// fileCache keeps the files read last open, least recently used first out. A
// file that leaves the cache is closed when its last user is done.
type fileCache struct {
	limit int

	mu    sync.Mutex // guards what follows
	order *list.List // of *chunkFile, most recent first
	byID  map[object.ChunkID]*list.Element
	// evictions counts calls of evict: a file that was opened before one may be
	// of a deleted chunk, and is not taken in after it.
	evictions uint64
}

func newFileCache(limit int) *fileCache {
	return &fileCache{limit: limit, order: list.New(), byID: map[object.ChunkID]*list.Element{}}
}

// get returns the cached file of id, in use until release; where there is none,
// it returns the mark to hand to add.
func (c *fileCache) get(id object.ChunkID) (*chunkFile, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[id]
	if e == nil {
		return nil, c.evictions
	}
	c.order.MoveToFront(e)
	f := e.Value.(*chunkFile)
	f.users++
	return f, 0
}

// add takes in a file that was opened after get gave mark. It is in use until release.
func (c *fileCache) add(f *chunkFile, mark uint64) {
	c.mu.Lock()
	f.users++
	var out *chunkFile
	if c.limit > 0 && mark == c.evictions && c.byID[f.id] == nil {
		f.cached = true
		c.byID[f.id] = c.order.PushFront(f)
		if c.order.Len() > c.limit {
			out = c.remove(c.order.Back())
		}
	}
	c.mu.Unlock()
	if out != nil {
		out.Close()
	}
}

// remove takes e out, and returns its file if the caller is to close it.
func (c *fileCache) remove(e *list.Element) *chunkFile {
	f := c.order.Remove(e).(*chunkFile)
	delete(c.byID, f.id)
	f.cached = false
	if f.users > 0 {
		return nil
	}
	return f
}

// release ends one use of f.
func (c *fileCache) release(f *chunkFile) {
	c.mu.Lock()
	f.users--
	done := f.users == 0 && !f.cached
	c.mu.Unlock()
	if done {
		f.Close() // only ever read: nothing is lost by an error
	}
}

// evict forgets id, whose file is gone from its place.
func (c *fileCache) evict(id object.ChunkID) {
	c.mu.Lock()
	c.evictions++
	var out *chunkFile
	if e := c.byID[id]; e != nil {
		out = c.remove(e)
	}
	c.mu.Unlock()
	if out != nil {
		out.Close()
	}
}

func (c *fileCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}

func (c *fileCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for c.order.Len() > 0 {
		if f := c.remove(c.order.Front()); f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
