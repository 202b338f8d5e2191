package replication

import (
	"context"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// List returns a page of keys in byte order. It walks directories depth first
// in dentry order, which is key order, and holds a page at a time: memory does
// not grow with the bucket. What a page of up to DefaultListLimit keys shows of one directory is of one moment after
// the call began; directories are read one after the other, so that a name that a
// rename takes from one that is still ahead to one that is behind is on neither side.
func (n *Node) List(ctx context.Context, bucket string, o ListOptions) (ListPage, error) {
	b, err := n.Bucket(ctx, bucket)
	if err != nil {
		return ListPage{}, err
	}
	if o.Limit <= 0 {
		o.Limit = DefaultListLimit
	}
	o.Limit = min(o.Limit, MaxListLimit)
	l := &lister{n: n, ctx: ctx, bucket: bucket, o: o, from: o.Prefix}
	if o.After != "" && o.After >= o.Prefix {
		l.from = o.After + "\x00"
		if o.Delimiter != "" && strings.HasPrefix(o.After, o.Prefix) && strings.HasSuffix(o.After, o.Delimiter) &&
			len(o.After) >= len(o.Prefix)+len(o.Delimiter) &&
			strings.Index(o.After[len(o.Prefix):], o.Delimiter) == len(o.After)-len(o.Prefix)-len(o.Delimiter) {
			l.from = successor(o.After) // a common prefix: what is under it is behind us
		}
	}
	if err := l.walk(b.Root, ""); err != nil {
		return ListPage{}, object.WithOp(err, "list", bucket, o.Prefix)
	}
	return l.page, nil
}

type lister struct {
	n      *Node
	ctx    context.Context
	bucket string
	o      ListOptions
	from   string // keys below it are skipped; it only rises
	page   ListPage
	last   string
	full   bool
	// enter, which may be nil, is called for each directory before what is in it is read.
	enter func(*object.Inode) error
}

// minLook is how many entries of a directory are asked for at least.
const minLook = 16

// walk lists a directory whose keys all begin with base.
func (l *lister) walk(dir object.InodeID, base string) error {
	start, ok := l.startIn(base)
	for ok && !l.full {
		// All that the page can take of it, and one to see whether there is more, in one
		// look: between two a name could move from what is behind to what is ahead.
		// (Pages above DefaultListLimit take several: each level of the walk holds one.)
		look := min(max(l.o.Limit-len(l.page.Objects)-len(l.page.Prefixes)+1, minLook), DefaultListLimit+1)
		entries, stored, err := l.n.readDir(l.ctx, dir, start, look, true, false)
		if object.IsKind(err, object.KindStale) {
			return nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		for i, e := range entries {
			if more, err := l.entry(base+stored[i], e); err != nil || !more || l.full {
				return err
			}
		}
		if len(entries) < look {
			return nil
		}
		next := stored[len(stored)-1] + "\x00"
		if start, ok = l.startIn(base); start < next {
			start = next
		}
	}
	return nil
}

// startIn is the stored name at which the walk of a directory begins; false
// when all of it lies behind.
func (l *lister) startIn(base string) (string, bool) {
	if l.from <= base {
		return "", true
	}
	rel, below := strings.CutPrefix(l.from, base)
	if !below {
		return "", false
	}
	if i := strings.IndexByte(rel, '/'); i >= 0 {
		return rel[:i+1], true
	}
	return rel, true
}

// entry lists one entry; more is false when nothing behind it can match.
func (l *lister) entry(key string, e object.DirEntry) (more bool, err error) {
	p := l.o.Prefix
	if key > p && !strings.HasPrefix(key, p) && !strings.HasPrefix(p, key) {
		return false, nil // behind all keys with the prefix
	}
	if e.Attr == nil {
		return true, nil // it went meanwhile
	}
	if e.Type != object.TypeDirectory {
		l.emit(key, e.Attr)
		return true, nil
	}
	if !strings.HasPrefix(key, p) && !strings.HasPrefix(p, key) {
		return true, nil
	}
	if l.enter != nil {
		if err := l.enter(e.Attr); err != nil {
			return false, err
		}
	}
	if !e.Attr.Implicit {
		l.emit(key, e.Attr)
	}
	if l.full {
		return false, nil
	}
	return true, l.walk(e.Inode, key)
}

// emit adds a key, or the common prefix that it falls under.
func (l *lister) emit(key string, ino *object.Inode) {
	if key < l.from || !strings.HasPrefix(key, l.o.Prefix) {
		return
	}
	if len(l.page.Objects)+len(l.page.Prefixes) == l.o.Limit {
		l.page.Next, l.full = l.last, true
		return
	}
	if d := l.o.Delimiter; d != "" {
		if i := strings.Index(key[len(l.o.Prefix):], d); i >= 0 {
			common := key[:len(l.o.Prefix)+i+len(d)]
			l.page.Prefixes = append(l.page.Prefixes, common)
			l.last, l.from = common, successor(common)
			return
		}
	}
	l.page.Objects = append(l.page.Objects, Object{Bucket: l.bucket, Key: key, Inode: ino})
	l.last, l.from = key, key+"\x00"
}

// successor is the first key behind every key that begins with p.
func successor(p string) string {
	b := []byte(p)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b[:i+1])
		}
	}
	return "\U0010ffff\U0010ffff" // behind every valid key
}
