package replication

import (
	"context"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// find is the inode that a key names: a file, or under "dir/" an explicit
// directory.
func (n *Node) find(ctx context.Context, bucket, key string) (p place, ino object.InodeID, err error) {
	if err := checkKey(key); err != nil {
		return p, 0, err
	}
	err = n.retry(ctx, func() error {
		if p, err = n.locate(ctx, bucket, key); err != nil {
			return err
		}
		ino, err = n.named(ctx, &p)
		if p.dir == p.bucket && p.found() {
			return err // no directory on the way that could have moved
		}
		now, eerr := n.epoch(ctx)
		switch {
		case eerr != nil:
			return eerr
		case now != p.epoch:
			return again{object.Errorf(object.KindConflict, "a directory was renamed meanwhile")}
		}
		return err
	})
	return p, ino, err
}

// named is the inode of a place's own name.
func (n *Node) named(ctx context.Context, p *place) (object.InodeID, error) {
	if !p.found() {
		return 0, errNoObject()
	}
	e, err := n.oneEntry(ctx, p.dir, p.name, p.isDir)
	if object.IsKind(err, object.KindStale) || err == nil && e == nil {
		return 0, errNoObject()
	}
	if err != nil {
		return 0, err
	}
	return e.Inode, nil
}

func errNoObject() error { return object.Errorf(object.KindNotFound, "no such object") }

// OpenObject pins the object's current version for reading.
func (n *Node) OpenObject(ctx context.Context, bucket, key string) (*Reader, error) {
	var r *Reader
	err := n.retry(ctx, func() error {
		_, ino, err := n.find(ctx, bucket, key)
		if err != nil {
			return err
		}
		if r, err = n.OpenInode(ctx, ino); object.IsKind(err, object.KindStale) {
			return again{err} // replaced between the two looks
		}
		if err == nil && r.inode.Nlink == 0 {
			r.Close()
			return again{errNoObject()} // replaced: what it was may be going already
		}
		if err == nil && r.inode.Implicit {
			r.Close()
			return errNoObject()
		}
		return err
	})
	return r, object.WithOp(err, "get", bucket, key)
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
	err = n.retry(ctx, func() error {
		_, ino, err := n.find(ctx, bucket, key)
		if err != nil {
			return err
		}
		if rec, err = n.GetAttr(ctx, ino); object.IsKind(err, object.KindStale) {
			return again{err}
		}
		if err == nil && rec.Implicit {
			return errNoObject()
		}
		return err
	})
	return rec, err
}
