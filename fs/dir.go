package fs

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// pageSize is how many entries one request lists.
const pageSize = 1000

// keepPages is how many pages an open directory holds. The kernel may come
// back for entries that did not fit; who seeks further back pays a request.
const keepPages = 3

// The positions of "." and ".."; the entry i of page p is at
// firstEntry + p*pageSize + i, so that a position needs no table.
const (
	posDot     = 1
	posDotDot  = 2
	firstEntry = 3
)

// dirHandle is one open directory: a listing that goes on page by page, in
// bounded memory. Positions stay valid while it is open (seekdir).
type dirHandle struct {
	ino object.InodeID

	mu      sync.Mutex // guards what follows; held during requests of this handle
	cursors []string   // cursors[p] asks for page p
	last    int        // the last page, once it is known; else -1
	pages   map[int]*dirPage
}

// dirPage is a page of a listing, without the entries that no path can name.
type dirPage struct {
	entries []object.DirEntry
	at      time.Time
	epoch   uint64 // of the mount when it was asked for
	asked   uint64 // of the node table then
}

func (d *dirHandle) reset() { d.cursors, d.last, d.pages = []string{""}, -1, map[int]*dirPage{} }

// OpenDir opens a listing; nothing is asked yet.
func (f *filesystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	d := &dirHandle{ino: f.inode(in.NodeId)}
	d.reset()
	out.Fh = f.handles.add(d)
	return fuse.OK
}

// ReleaseDir closes it.
func (f *filesystem) ReleaseDir(in *fuse.ReleaseIn) { f.handles.remove(in.Fh) }

// ReadDir lists names.
func (f *filesystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, false, func(e fuse.DirEntry, _ *object.DirEntry, _ *dirPage) bool {
		return out.AddDirEntry(e)
	})
}

// ReadDirPlus lists names with attributes, which the kernel caches: find and
// ls -l need no lookup per file.
func (f *filesystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, true, func(e fuse.DirEntry, d *object.DirEntry, p *dirPage) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		// What has extended attributes is looked up: the listing does not tell them, and
		// an ACL is one.
		if d != nil && d.Attr != nil && d.Plain && f.fresh(p) {
			f.entry(entry, d.Attr, p.asked)
		}
		return true
	})
}

// fresh reports whether a page's attributes may still be told: no longer than
// the kernel might have believed them itself, and not across a change made
// through this mount, which the kernel would forget over them.
func (f *filesystem) fresh(p *dirPage) bool {
	return time.Since(p.at) <= f.o.CacheTTL && p.epoch == f.epoch.Load()
}

func (f *filesystem) list(cancel <-chan struct{}, in *fuse.ReadIn, plus bool, add func(fuse.DirEntry, *object.DirEntry, *dirPage) bool) fuse.Status {
	d, ok := f.handles.get(in.Fh).(*dirHandle)
	if !ok {
		return fuse.Status(syscall.EBADF)
	}
	ctx, done := f.begin(cancel)
	defer done()
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.Offset == 0 {
		d.reset() // rewinddir sees what is there now
	}
	pos := in.Offset
	for _, dot := range []struct {
		pos  uint64
		name string
	}{{posDot, "."}, {posDotDot, ".."}} {
		if pos < dot.pos {
			if !add(fuse.DirEntry{Name: dot.name, Ino: uint64(d.ino), Mode: syscall.S_IFDIR, Off: dot.pos}, nil, nil) {
				return fuse.OK
			}
			pos = dot.pos
		}
	}
	number, i := 0, 0
	if pos >= firstEntry {
		number, i = int((pos-firstEntry)/pageSize), int((pos-firstEntry)%pageSize)+1
	}
	for added := false; ; number, i = number+1, 0 {
		page, err := f.page(ctx, d, number, plus)
		switch {
		case err != nil && added:
			return fuse.OK // the next call meets the error
		case err != nil:
			return statusOfInode(err)
		case page == nil:
			return fuse.OK
		}
		for ; i < len(page.entries); i++ {
			e := &page.entries[i]
			pos := firstEntry + uint64(number)*pageSize + uint64(i)
			if !add(fuse.DirEntry{Name: e.Name, Ino: uint64(e.Inode), Mode: typeBits(e.Type), Off: pos}, e, page) {
				return fuse.OK
			}
			added = true
		}
	}
}

// page returns a page of the listing, nil behind the last. d.mu is held.
func (f *filesystem) page(ctx context.Context, d *dirHandle, number int, plus bool) (*dirPage, error) {
	if p := d.pages[number]; p != nil {
		return p, nil
	}
	if d.last >= 0 && number > d.last || number >= len(d.cursors) {
		return nil, nil
	}
	p := &dirPage{at: time.Now(), epoch: f.epoch.Load(), asked: f.nodes.asking()}
	entries, next, err := f.b.ReadDir(ctx, d.ino, d.cursors[number], pageSize, plus)
	if err != nil {
		return nil, err
	}
	if p.entries, err = f.visible(ctx, d.ino, entries[:min(len(entries), pageSize)], next != ""); err != nil {
		return nil, err
	}
	if next == "" {
		d.last = number
	} else if number+1 == len(d.cursors) {
		d.cursors = append(d.cursors, next)
	}
	d.pages[number] = p
	for old := range d.pages {
		if old <= number-keepPages || old > number {
			delete(d.pages, old)
		}
	}
	return p, nil
}

// visible drops what no path can name, and objects that stand beside a
// directory of the same name. Such a directory ("a/") sorts behind the object
// ("a") with nothing between but names that begin with it, so only the names
// at the end of the page need a question.
func (f *filesystem) visible(ctx context.Context, dir object.InodeID, all []object.DirEntry, more bool) ([]object.DirEntry, error) {
	dirs := map[string]bool{}
	for _, e := range all {
		if e.Type == object.TypeDirectory {
			dirs[e.Name] = true
		}
	}
	lastKey := ""
	if len(all) > 0 {
		lastKey = all[len(all)-1].Name
	}
	shown := all[:0:0]
	for _, e := range all {
		hide := !legalName(e.Name)
		if e.Type != object.TypeDirectory && !hide {
			hide = dirs[e.Name]
			if !hide && more && strings.HasPrefix(lastKey, e.Name) && lastKey < e.Name+"/" {
				n, err := f.b.Lookup(ctx, dir, e.Name)
				if err != nil && !object.IsKind(err, object.KindNotFound) {
					return nil, err
				}
				hide = err != nil || n.IsDir()
			}
		}
		if hide {
			f.hidden.Add(1)
			continue
		}
		shown = append(shown, e)
	}
	return shown, nil
}
