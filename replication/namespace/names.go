package namespace

import (
	"encoding/binary"
	"maps"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Bounds of what a partition remembers: names of directories, names of files, and
// bytes of files.
const (
	maxNames     = 512
	maxFileBytes = 256 << 10
)

// spot is a name in a directory.
type spot struct {
	dir  object.InodeID
	name string
}

// File is a file as a name showed it.
type File struct {
	Inode *object.Inode
	// Whole: Inline is all of its content. (Of what is no regular file that is nothing.)
	Inline []byte
	Whole  bool
}

// fileCost is about what a remembered file takes besides its bytes.
const fileCost = 768

// cost is about what a file takes to remember.
func (f *File) cost() int {
	sum := fileCost + len(f.Inline) + len(f.Inode.Target) + len(f.Inode.ContentType) + len(f.Inode.ETagValue)
	for k, v := range f.Inode.Meta {
		sum += len(k) + len(v)
	}
	for k, v := range f.Inode.Xattrs {
		sum += len(k) + len(v)
	}
	return sum
}

// names remembers what every path is walked through and what is read often: the
// rename epoch, the directories that names lead to, and small files. It answers
// exactly what a View opened at this moment would: an entry that changes one of
// them drops it before its batch is committed, and what was read while a batch was
// being committed is not kept. Safe for concurrent use.
type names struct {
	mu    sync.RWMutex // guards what follows
	round uint64       // odd while a batch is being committed
	epoch uint64       // 0: not known
	dirs  map[spot]object.InodeID
	named map[spot]object.InodeID // of files
	files map[object.InodeID]File
	bytes int // of files
}

// touched is what a batch changes of all that.
type touched struct {
	dirs, named []spot
	files       []object.InodeID
	epoch       bool
}

// now is the round to give to keep with what is read from now on.
func (n *names) now() uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.round
}

// keep remembers a directory that was read in a view opened in a round.
func (n *names) keep(round uint64, at spot, id object.InodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if round == n.round && round%2 == 0 {
		put(&n.dirs, at, id)
	}
}

func (n *names) keepEpoch(round, epoch uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if round == n.round && round%2 == 0 {
		n.epoch = epoch
	}
}

// keepFile remembers a file that was read in a view opened in a round. It copies
// the record; the bytes are shared.
func (n *names) keepFile(round uint64, at spot, f File) {
	f.Inode = cloneInode(f.Inode)
	cost := f.cost()
	n.mu.Lock()
	defer n.mu.Unlock()
	if round != n.round || round%2 != 0 {
		return
	}
	n.drop(f.Inode.ID)
	for id := range n.files { // any of them makes room
		if n.bytes+cost <= maxFileBytes {
			break
		}
		n.drop(id)
	}
	if n.files == nil {
		n.files = map[object.InodeID]File{}
	}
	n.files[f.Inode.ID] = f
	n.bytes += cost
	put(&n.named, at, f.Inode.ID)
}

// put bounds a map of names: any of them makes room.
func put(m *map[spot]object.InodeID, at spot, id object.InodeID) {
	if len(at.name) > object.MaxName {
		return
	}
	if *m == nil {
		*m = map[spot]object.InodeID{}
	}
	for old := range *m {
		if len(*m) < maxNames {
			break
		}
		delete(*m, old)
	}
	(*m)[at] = id
}

func (n *names) drop(id object.InodeID) {
	if f, ok := n.files[id]; ok {
		n.bytes -= f.cost()
		delete(n.files, id)
	}
}

// cloneInode is a copy that its owner may change.
func cloneInode(i *object.Inode) *object.Inode {
	c := *i
	c.Meta, c.Xattrs = maps.Clone(i.Meta), maps.Clone(i.Xattrs)
	return &c
}

// begin drops what a batch changes, before it is committed.
func (n *names) begin(c *touched) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.round++
	for _, at := range c.dirs {
		delete(n.dirs, at)
	}
	for _, at := range c.named {
		delete(n.named, at)
	}
	for _, id := range c.files {
		n.drop(id)
	}
	if c.epoch {
		n.epoch = 0
	}
}

// forget drops everything: the state is about to be another one. Until end, what
// is read is not kept, not even in a view that was opened before. It may be called
// again before end, when the first attempt failed half way.
func (n *names) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.round += 1 + n.round%2
	n.epoch, n.bytes = 0, 0
	n.dirs, n.named, n.files = nil, nil, nil
}

// end is called when the batch of begin is committed, or has failed.
func (n *names) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.round++
}

// Dir is the directory that a name leads to, where that is remembered and it is
// not being moved: what LookupOne would find in a view opened now. It opens none.
func (m *Machine) Dir(dir object.InodeID, name string) (object.InodeID, bool) {
	m.names.mu.RLock()
	defer m.names.mu.RUnlock()
	id, ok := m.names.dirs[spot{dir, name}]
	return id, ok
}

// File is the file that a name leads to, where that is remembered: see Dir. The
// record is the caller's, the bytes are not to be changed.
func (m *Machine) File(dir object.InodeID, name string) (f File, ok bool) {
	m.names.mu.RLock()
	id, ok := m.names.named[spot{dir, name}]
	if ok {
		f, ok = m.names.files[id]
	}
	m.names.mu.RUnlock()
	if ok {
		f.Inode = cloneInode(f.Inode)
	}
	return f, ok
}

// Epoch is the rename epoch, where it is remembered: see Dir.
func (m *Machine) Epoch() (epoch uint64, ok bool) {
	m.names.mu.RLock()
	defer m.names.mu.RUnlock()
	return m.names.epoch, m.names.epoch != 0
}

// File reads the file that an entry of a directory names; content asks for its
// bytes too, where they stand in the partition. KindCorrupt when it is not there.
func (v *View) File(dir object.InodeID, e *Entry, content bool) (f File, err error) {
	if f.Inode, err = v.Inode(e.Inode); err != nil {
		if object.IsKind(err, object.KindStale) {
			err = object.Errorf(object.KindCorrupt, "the entry names inode %s, which is gone: run the checker", e.Inode)
		}
		return f, err
	}
	if content {
		if f.Inode.Inline {
			if f.Inline, err = v.Inline(e.Inode); err != nil {
				return f, err
			}
		}
		f.Whole = f.Inode.Type != object.TypeRegular || f.Inode.Size == int64(len(f.Inline))
	}
	if e.Type != object.TypeDirectory {
		v.names.keepFile(v.round, spot{dir, e.Name}, f)
	}
	return f, nil
}

// note takes down that a key is written or dropped.
func (c *touched) note(key []byte) {
	const head = 1 + 8 + 2 // as in dirPrefix
	switch {
	case key[0] == keyEpoch:
		c.epoch = true
	case key[0] == keyInode, key[0] == keyInline:
		c.files = append(c.files, object.InodeID(binary.BigEndian.Uint64(key[1:9])))
	case key[0] == keyDentry:
		at := spot{object.InodeID(binary.BigEndian.Uint64(key[1:9])), string(key[head:])}
		if plain, isDir := plainName(at.name); isDir {
			at.name = plain
			c.dirs = append(c.dirs, at)
		} else {
			c.named = append(c.named, at)
		}
	}
}
