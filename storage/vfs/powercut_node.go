package vfs

import (
	"io/fs"
	"maps"
	"math/rand"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// node is a file or a directory of a PowerCut: what is visible, what is
// durable, and in pending or changes how the one became the other, in order.
type node struct {
	mode  fs.FileMode
	mtime time.Time

	data, durable []byte // of a file
	pending       []fileOp

	entries, durableEntries map[string]*node // of a directory
	changes                 []*dirOp
}

// fileOp is an unsynced write of data at off or, when data is nil, a truncation to off.
type fileOp struct {
	off  int64
	data []byte
}

// dirOp is an unsynced change of one directory: one name goes, one comes, atomically.
type dirOp struct {
	del, add string
	node     *node
	durable  bool
	// A rename across directories is an op in each; the one that drops the old
	// name cannot survive without the one (pair, in pairDir) that adds the new.
	pair    *dirOp
	pairDir *node
}

func (op *dirOp) apply(m map[string]*node) {
	if op.del != "" {
		delete(m, op.del)
	}
	if op.add != "" {
		m[op.add] = op.node
	}
}

func (p *PowerCut) newNode(mode fs.FileMode) *node {
	n := &node{mode: mode, mtime: time.Now()}
	if mode.IsDir() {
		n.entries, n.durableEntries = map[string]*node{}, map[string]*node{}
		p.dirs = append(p.dirs, n)
	}
	return n
}

// drop forgets a file's content.
func (n *node) drop() {
	if n != nil {
		n.data, n.durable, n.pending = nil, nil, nil
	}
}

func (n *node) isDir() bool { return n.mode.IsDir() }

func (n *node) info(base string) fs.FileInfo {
	return nodeInfo{name: base, size: int64(len(n.data)), mode: n.mode, mtime: n.mtime}
}

func (n *node) usage() (bytes uint64) {
	for _, child := range n.entries {
		bytes += uint64(len(child.data)) + child.usage()
	}
	return bytes
}

func (n *node) write(b []byte, off int64) {
	if len(b) == 0 {
		return
	}
	op := fileOp{off: off, data: slices.Clone(b)}
	n.pending = append(n.pending, op)
	n.data = op.apply(n.data)
	n.mtime = time.Now()
}

func (n *node) truncate(size int64) {
	op := fileOp{off: size}
	n.pending = append(n.pending, op)
	n.data = op.apply(n.data)
	n.mtime = time.Now()
}

func (n *node) syncData() {
	for _, op := range n.pending {
		n.durable = op.apply(n.durable)
	}
	n.pending = nil
}

func (op fileOp) apply(b []byte) []byte {
	if op.data == nil {
		return resize(b, op.off)
	}
	if end := op.off + int64(len(op.data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[op.off:], op.data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		clear(b[size:]) // so that growing again shows zeros
		return b[:size]
	}
	if size <= int64(cap(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// change makes a directory change visible, not durable.
func (n *node) change(op *dirOp) {
	n.changes = append(n.changes, op)
	op.apply(n.entries)
	n.mtime = time.Now()
}

// syncEntries makes the changes up to and including last (all, when nil)
// durable and, as a journal would, what they depend on in other directories.
func (n *node) syncEntries(last *dirOp) {
	for len(n.changes) > 0 {
		op := n.changes[0]
		if op.pair != nil && !op.pair.durable {
			op.pairDir.syncEntries(op.pair)
		}
		n.changes = n.changes[1:]
		op.apply(n.durableEntries)
		op.durable = true
		if op == last {
			return
		}
	}
}

func split(name string) []string {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

func (p *PowerCut) lookup(name string) (*node, error) {
	n := p.root
	for _, base := range split(name) {
		if !n.isDir() {
			return nil, syscall.ENOTDIR
		}
		if n = n.entries[base]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

func (p *PowerCut) lookupDir(name string) (*node, error) {
	n, err := p.lookup(name)
	if err == nil && !n.isDir() {
		err = syscall.ENOTDIR
	}
	return n, err
}

// parent is the directory that name stands in, and its last component.
func (p *PowerCut) parent(name string) (dir *node, base string, err error) {
	if name = path.Clean("/" + name); name == "/" {
		return nil, "", syscall.EBUSY
	}
	dir, err = p.lookupDir(path.Dir(name))
	return dir, path.Base(name), err
}

func (p *PowerCut) mkdirAll(name string, perm fs.FileMode) error {
	n := p.root
	for _, base := range split(name) {
		child := n.entries[base]
		if child == nil {
			child = p.newNode(fs.ModeDir | perm.Perm())
			n.change(&dirOp{add: base, node: child})
		}
		if !child.isDir() {
			return syscall.ENOTDIR
		}
		n = child
	}
	return nil
}

func (p *PowerCut) rename(oldName, newName string) error {
	oldDir, oldBase, err := p.parent(oldName)
	if err != nil {
		return err
	}
	newDir, newBase, err := p.parent(newName)
	if err != nil {
		return err
	}
	n, over := oldDir.entries[oldBase], newDir.entries[newBase]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n == over:
		return nil
	case n.isDir() && n.contains(newDir):
		return syscall.EINVAL
	case over == nil:
	case over.isDir() && !n.isDir():
		return syscall.EISDIR
	case !over.isDir() && n.isDir():
		return syscall.ENOTDIR
	case len(over.entries) > 0:
		return syscall.ENOTEMPTY
	}
	if oldDir == newDir {
		oldDir.change(&dirOp{del: oldBase, add: newBase, node: n})
		return nil
	}
	put := &dirOp{add: newBase, node: n}
	newDir.change(put)
	oldDir.change(&dirOp{del: oldBase, pair: put, pairDir: newDir})
	return nil
}

func (n *node) contains(other *node) bool {
	if n == other {
		return true
	}
	for _, child := range n.entries {
		if child.contains(other) {
			return true
		}
	}
	return false
}

func sortedNames(m map[string]*node) []string { return slices.Sorted(maps.Keys(m)) }

// boot builds the filesystem that the next start finds.
func (p *PowerCut) boot(rnd *rand.Rand) *PowerCut {
	next := &PowerCut{locks: map[*node]bool{}}
	kept := p.keptChanges(rnd)
	copies := map[*node]*node{} // a file may survive under two names
	var grow func(n *node) *node
	grow = func(n *node) *node {
		if c := copies[n]; c != nil {
			return c
		}
		c := next.newNode(n.mode)
		copies[n], c.mtime = c, n.mtime
		if !n.isDir() {
			c.data = n.afterCrash(rnd)
			c.durable = slices.Clone(c.data)
			return c
		}
		entries := maps.Clone(n.durableEntries)
		for _, op := range n.changes[:kept[n]] {
			op.apply(entries)
		}
		for _, base := range sortedNames(entries) {
			c.entries[base] = grow(entries[base])
		}
		c.durableEntries = maps.Clone(c.entries)
		return c
	}
	next.root = grow(p.root)
	return next
}

// keptChanges chooses how many of each directory's unsynced changes survive.
func (p *PowerCut) keptChanges(rnd *rand.Rand) map[*node]int {
	kept := map[*node]int{}
	if rnd == nil {
		return kept
	}
	for _, dir := range p.dirs {
		kept[dir] = rnd.Intn(len(dir.changes) + 1)
	}
	// A name that moved to another directory is dropped only where it arrived.
	for again := true; again; {
		again = false
		for _, dir := range p.dirs {
			for i, op := range dir.changes[:kept[dir]] {
				if op.pair != nil && !op.pair.durable && slices.Index(op.pairDir.changes, op.pair) >= kept[op.pairDir] {
					kept[dir], again = i, true
					break
				}
			}
		}
	}
	return kept
}

// afterCrash is the content of a file after a crash.
func (n *node) afterCrash(rnd *rand.Rand) []byte {
	b := slices.Clone(n.durable)
	if rnd == nil {
		return b
	}
	for _, op := range n.pending {
		b = op.tear(b, rnd)
	}
	return b
}

// sector is the unit in which a disk writes out of order.
const sector = 512

// tear applies none, all, a prefix or some sectors of the write, or only the
// size that it gave to the file; a truncation happens or does not.
func (op fileOp) tear(b []byte, rnd *rand.Rand) []byte {
	if op.data == nil {
		if rnd.Intn(2) == 0 {
			return b
		}
		return op.apply(b)
	}
	switch rnd.Intn(5) {
	case 0:
		return b
	case 1:
		return op.apply(b)
	case 2:
		if k := rnd.Intn(len(op.data)); k > 0 {
			return fileOp{op.off, op.data[:k]}.apply(b)
		}
		return b
	case 3:
		return resize(b, max(int64(len(b)), op.off+int64(len(op.data))))
	}
	for rest := op; len(rest.data) > 0; {
		k := min(int64(len(rest.data)), sector-rest.off%sector)
		if rnd.Intn(2) == 0 {
			b = fileOp{rest.off, rest.data[:k]}.apply(b)
		}
		rest = fileOp{rest.off + k, rest.data[k:]}
	}
	return b
}
