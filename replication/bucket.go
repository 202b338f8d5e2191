package replication

import (
	"context"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Buckets are the directories of the root directory, which lives in the
// control group: making one is mkdir, deleting one is rmdir.

// metaOwner is where a bucket's root directory keeps the bucket's owner.
const metaOwner = "bucketdb-owner"

// CreateBucket makes an empty bucket with default settings. KindBucketExists when
// the name is taken.
func (n *Node) CreateBucket(ctx context.Context, name, owner string) (Bucket, error) {
	return n.MakeBucket(ctx, name, BucketOptions{Owner: owner})
}

// MakeBucket makes an empty bucket. KindBucketExists when the name is taken,
// KindInvalid for a name that is none, or when the cluster has too few nodes to
// keep data as the options say.
func (n *Node) MakeBucket(ctx context.Context, name string, o BucketOptions) (Bucket, error) {
	ino, err := n.mkBucket(ctx, name, o, NewNode{Mode: 0o755})
	if err != nil {
		return Bucket{}, object.WithOp(err, "create bucket", name, "")
	}
	return asBucket(name, ino), nil
}

func (n *Node) mkBucket(ctx context.Context, name string, o BucketOptions, node NewNode) (*object.Inode, error) {
	if err := checkBucketName(name); err != nil {
		return nil, err
	}
	if err := n.provide(ctx, o.Scheme); err != nil {
		return nil, err
	}
	var ino *object.Inode
	rec := newInode(object.TypeDirectory, node)
	rec.Parent, rec.Scheme = object.RootInode, o.Scheme
	rec.Meta = map[string]string{metaOwner: o.Owner}
	r, err := n.once(ctx, func(ctx context.Context) (r *namespace.Result, err error) {
		ino, err = n.makeDirNode(ctx, object.RootInode, name, rec, n.spread(), 0, true)
		return nil, err
	})
	if object.IsKind(err, object.KindExists) {
		return nil, object.Errorf(object.KindBucketExists, "the bucket %s exists", name)
	}
	if err == nil && ino == nil { // an earlier attempt's result
		return n.keptDir(ctx, r, rec)
	}
	return ino, err
}

func asBucket(name string, ino *object.Inode) Bucket {
	return Bucket{Name: name, Root: ino.ID, Owner: ino.Meta[metaOwner], Scheme: ino.Scheme, Created: time.Unix(0, ino.Btime)}
}

// DeleteBucket deletes an empty bucket. KindNotEmpty when it has entries.
func (n *Node) DeleteBucket(ctx context.Context, name string) error {
	err := n.Rmdir(ctx, object.RootInode, name)
	if object.IsKind(err, object.KindNotEmpty) && n.clearImplicit(ctx, name) {
		err = n.Rmdir(ctx, object.RootInode, name)
	}
	if object.IsKind(err, object.KindNotFound) {
		err = object.Errorf(object.KindBucketNotFound, "there is no bucket %s", name)
	}
	return object.WithOp(err, "delete bucket", name, "")
}

// clearImplicit removes what a crash between making implicit directories and
// the object they were for left behind: directories that no listing shows. True
// when the bucket lists nothing, and so may be empty now.
func (n *Node) clearImplicit(ctx context.Context, name string) bool {
	page, err := n.List(ctx, name, ListOptions{Limit: 1})
	if err != nil || len(page.Objects) > 0 {
		return false
	}
	b, err := n.Bucket(ctx, name)
	return err == nil && n.clearBelow(ctx, b.Root, nil) == nil
}

func (n *Node) clearBelow(ctx context.Context, dir object.InodeID, chain *namespace.Cascade) error {
	entries, _, err := n.readDir(ctx, dir, "", MaxListLimit, true, false)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Attr == nil || !e.Attr.IsDir() || !e.Attr.Implicit {
			continue
		}
		below := &namespace.Cascade{Parent: dir, Name: e.Name, Up: chain}
		if err := n.clearBelow(ctx, e.Inode, below); err != nil {
			return err
		}
		n.tidy(&place{dir: e.Inode, chain: below})
	}
	return nil
}

// Bucket describes one bucket.
func (n *Node) Bucket(ctx context.Context, name string) (Bucket, error) {
	ino, err := alive(n.Lookup(ctx, object.RootInode, name))
	if object.IsKind(err, object.KindNotFound) {
		err = object.Errorf(object.KindBucketNotFound, "there is no bucket %s: create it first", name)
	}
	if err != nil {
		return Bucket{}, object.WithOp(err, "bucket", name, "")
	}
	return asBucket(name, ino), nil
}

// Buckets lists all buckets in name order.
func (n *Node) Buckets(ctx context.Context) ([]Bucket, error) {
	var list []Bucket
	for cursor := ""; ; {
		entries, next, err := n.ReadDir(ctx, object.RootInode, cursor, MaxListLimit, true)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			list = append(list, asBucket(e.Name, e.Attr))
		}
		if next == "" {
			return list, nil
		}
		cursor = next
	}
}
