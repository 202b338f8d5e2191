package replication

import (
	"context"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// want is what find looks for besides the inode's number, where that is to be had
// in one look: where the inode lives in the partition of its name.
type want int

const (
	wantName    want = iota
	wantRecord       // the inode's record
	wantContent      // and the bytes that stand beside it
)

// sight is what a name was found to lead to.
type sight struct {
	ino  object.InodeID
	file namespace.File // its Inode is nil where there was no look
}

// find is what a key names: a file, or under "dir/" an explicit directory.
func (n *Node) find(ctx context.Context, bucket, key string, w want) (s sight, err error) {
	if err := checkKey(key); err != nil {
		return s, err
	}
	err = n.retry(ctx, func() error {
		p, err := n.locate(ctx, bucket, key)
		if err != nil {
			return err
		}
		s, err = n.named(ctx, &p, w)
		if p.dir == p.bucket && p.found() {
			return err // no directory on the way that could have moved
		}
		if moved := n.unmoved(ctx, &p); moved != nil {
			return moved
		}
		return err
	})
	return s, err
}

// named is what a place's own name leads to.
func (n *Node) named(ctx context.Context, p *place, w want) (s sight, err error) {
	if !p.found() {
		return s, errNoObject()
	}
	if w != wantName && !p.isDir {
		here, err := n.current(ctx, p.dir.Partition())
		if err != nil {
			return s, err
		}
		if here != nil {
			if f, ok := here.File(p.dir, p.name); ok && (f.Whole || w == wantRecord) {
				return sight{ino: f.Inode.ID, file: f}, nil
			}
		}
	}
	e, err := n.oneEntry(ctx, p.dir, p.name, p.isDir, func(v *namespace.View, e *namespace.Entry) (err error) {
		s = sight{ino: e.Inode}
		if w != wantName && e.Inode.Partition() == p.dir.Partition() {
			s.file, err = v.File(p.dir, e, w == wantContent)
		}
		return err
	})
	if object.IsKind(err, object.KindStale) || err == nil && e == nil {
		return s, errNoObject()
	}
	return s, err
}

func errNoObject() error { return object.Errorf(object.KindNotFound, "no such object") }

// OpenObject pins the object's current version for reading.
func (n *Node) OpenObject(ctx context.Context, bucket, key string) (r *Reader, err error) {
	var before gone
	err = n.retry(ctx, func() error {
		s, err := n.find(ctx, bucket, key, wantContent)
		switch {
		case err != nil:
			return err
		case s.file.Whole:
			r = &Reader{n: n, part: n.parts[s.ino.Partition()], inode: s.file.Inode, inline: s.file.Inline}
		default:
			if r, err = n.openNamed(ctx, s.ino, &before); err == nil {
				if err = n.stillNamed(ctx, bucket, key, &s, r.inode); err != nil {
					r.Close()
				}
			}
		}
		if err == nil && r.inode.Implicit {
			r.Close()
			return errNoObject()
		}
		return err
	})
	if err != nil {
		return nil, object.WithOp(err, "get", bucket, key)
	}
	return r, nil
}

// stillNamed is nil where a record, of a second look at what was found under a key, is one
// that the key led to: the first look saw it so, or the key leads there after the second, too.
// Else it is an errAgain: the file may have been given another name meanwhile, and then been
// changed under that one, which the key never showed. (A file that came back under its first
// name is taken for one that never left.)
func (n *Node) stillNamed(ctx context.Context, bucket, key string, s *sight, rec *object.Inode) error {
	if s.file.Inode != nil && s.file.Inode.Change == rec.Change {
		return nil
	}
	now, err := n.find(ctx, bucket, key, wantName)
	switch {
	case object.IsKind(err, object.KindNotFound):
		return again{err}
	case err != nil:
		return err
	case now.ino != s.ino:
		return again{object.Errorf(object.KindConflict, "the object was replaced meanwhile")}
	}
	return nil
}

// betweenLooks is where a test does something between two looks at an object.
func (n *Node) betweenLooks() {
	if f := n.between.Load(); f != nil {
		(*f)()
	}
}

// openNamed opens an inode that was found under a name a moment ago.
func (n *Node) openNamed(ctx context.Context, ino object.InodeID, before *gone) (*Reader, error) {
	n.betweenLooks()
	r, err := n.OpenInode(ctx, ino)
	switch {
	case object.IsKind(err, object.KindStale):
		return nil, before.again(ino, err) // replaced between the two looks
	case err == nil && r.inode.Nlink == 0:
		r.Close()
		return nil, before.again(ino, errNoObject()) // replaced: what it was may be going already
	}
	return r, err
}

// Stat describes an object. Explicit directories answer under "dir/".
//
// With the token of a change that is about to follow (a PATCH by path looks its
// inode up first) and may have been sent before, it is the object that the
// earlier attempt changed, whatever the key leads to by now.
func (n *Node) Stat(ctx context.Context, bucket, key string) (Object, error) {
	r, err := n.recalled(ctx)
	if err == nil && (r == nil || r.Inode == nil && !r.Failed) {
		var rec *object.Inode
		if rec, err = n.stat(ctx, bucket, key); err == nil {
			return Object{Bucket: bucket, Key: key, Inode: rec}, nil
		}
		r, err = n.orKept(ctx, err) // it may have come through meanwhile
	} else if err == nil {
		err = r.Err()
	}
	if err != nil || r.Inode == nil {
		return Object{}, object.WithOp(err, "stat", bucket, key)
	}
	return Object{Bucket: bucket, Key: key, Inode: r.Inode}, nil
}

func (n *Node) stat(ctx context.Context, bucket, key string) (rec *object.Inode, err error) {
	var before gone
	err = n.retry(ctx, func() error {
		s, err := n.find(ctx, bucket, key, wantRecord)
		if err != nil {
			return err
		}
		if rec = s.file.Inode; rec == nil {
			n.betweenLooks()
			if rec, err = n.GetAttr(ctx, s.ino); err == nil {
				err = n.stillNamed(ctx, bucket, key, &s, rec)
			}
		}
		if object.IsKind(err, object.KindStale) {
			return before.again(s.ino, err)
		}
		if err == nil && rec.Implicit {
			return errNoObject()
		}
		return err
	})
	return rec, err
}
