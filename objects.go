package bucketdb

import (
	"bytes"
	"context"
	"io"
	"iter"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// CreateBucketContext makes a bucket. KindBucketExists when the name is taken,
// KindInvalid when it is no name for a bucket.
func (db *BucketDB) CreateBucketContext(ctx context.Context, name, owner string) error {
	return db.MakeBucket(ctx, name, &BucketOptions{Owner: owner})
}

// MakeBucket makes a bucket with settings; nil are the defaults. Errors as of
// CreateBucketContext, and KindInvalid when the cluster has too few nodes for
// BucketOptions.Storage.
func (db *BucketDB) MakeBucket(ctx context.Context, name string, opts *BucketOptions) error {
	o, err := opts.node()
	if err == nil {
		_, err = db.node.MakeBucket(ctx, name, o)
	}
	return object.WithOp(err, "create bucket", name, "")
}

// SetBucketStorage changes how a bucket's data is kept (see BucketOptions.Storage):
// what is written from now on at once, what is there in the background.
// KindBucketNotFound; KindInvalid when it cannot be, or the cluster has too few nodes.
func (db *BucketDB) SetBucketStorage(ctx context.Context, name, storage string) error {
	scheme, err := object.ParseScheme(storage)
	if err == nil {
		_, err = db.node.SetScheme(ctx, name, scheme)
	}
	return object.WithOp(err, "set storage", name, "")
}

// DeleteBucketContext removes an empty bucket. KindBucketNotFound, KindNotEmpty.
func (db *BucketDB) DeleteBucketContext(ctx context.Context, name string) error {
	return object.WithOp(db.node.DeleteBucket(ctx, name), "delete bucket", name, "")
}

// ListBucketsContext lists the buckets in name order.
func (db *BucketDB) ListBucketsContext(ctx context.Context) ([]*Bucket, error) {
	found, err := db.node.Buckets(ctx)
	if err != nil {
		return nil, object.WithOp(err, "list buckets", "", "")
	}
	buckets := make([]*Bucket, len(found))
	for i, b := range found {
		buckets[i] = &Bucket{Name: b.Name, Owner: b.Owner, CreatedAt: b.Created, Storage: b.Scheme.String()}
	}
	return buckets, nil
}

// PutObjectContext stores data under key, replacing what was there in one step.
func (db *BucketDB) PutObjectContext(ctx context.Context, bucket, key string, data []byte, opts *PutObjectOptions) (*Object, error) {
	return db.PutObjectStreamContext(ctx, bucket, key, bytes.NewReader(data), int64(len(data)), opts)
}

// PutObjectStreamContext stores what body yields, up to its end. size is its
// length, -1 when it is not known; a body of another length stores nothing
// (KindIncomplete, KindTooLarge), and so does an error of body, which is
// returned. Readers see the old object until the new one is durable.
func (db *BucketDB) PutObjectStreamContext(ctx context.Context, bucket, key string, body io.Reader, size int64, opts *PutObjectOptions) (*Object, error) {
	o, err := db.node.Put(ctx, bucket, key, body, opts.put(size))
	if err != nil {
		return nil, object.WithOp(err, "put", bucket, key)
	}
	return newObject(o), nil
}

// GetObjectContext returns the object's bytes, or those of a range of it. It
// needs memory for all of them: use OpenObject for large ones.
func (db *BucketDB) GetObjectContext(ctx context.Context, bucket, key string, opts *GetObjectOptions) ([]byte, error) {
	r, err := db.OpenObject(ctx, bucket, key, opts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var buf bytes.Buffer
	buf.Grow(int(r.Size()))
	if _, err := r.WriteTo(&buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// HeadObjectContext describes an object. KindNotFound when there is none.
func (db *BucketDB) HeadObjectContext(ctx context.Context, bucket, key string) (*Object, error) {
	o, err := db.node.Stat(ctx, bucket, key)
	if err != nil {
		return nil, object.WithOp(err, "head", bucket, key)
	}
	return newObject(o), nil
}

// DeleteObjectContext removes an object. KindNotFound when there is none.
func (db *BucketDB) DeleteObjectContext(ctx context.Context, bucket, key string) error {
	return object.WithOp(db.node.Delete(ctx, bucket, key, replication.Conditions{}), "delete", bucket, key)
}

// CopyObjectContext makes newKey a copy of key that shares its chunks: no data moves.
func (db *BucketDB) CopyObjectContext(ctx context.Context, bucket, key, newBucket, newKey string) (*Object, error) {
	o, err := db.node.Copy(ctx, bucket, key, newBucket, newKey, replication.CopyOptions{})
	if err != nil {
		return nil, object.WithOp(err, "copy", bucket, key)
	}
	return newObject(o), nil
}

// RenameObjectContext moves an object, or a directory (keys ending in "/"), in
// one step whose cost does not grow with what is under it. What newKey named is
// replaced.
func (db *BucketDB) RenameObjectContext(ctx context.Context, bucket, key, newBucket, newKey string) error {
	err := db.node.RenameObject(ctx, bucket, key, newBucket, newKey, replication.RenameFlags{})
	return object.WithOp(err, "rename", bucket, key)
}

// ListObjectsContext returns a page of a bucket's keys. A page that starts after
// a write has returned sees it.
func (db *BucketDB) ListObjectsContext(ctx context.Context, bucket string, opts *ListObjectsOptions) (*ListObjectsResult, error) {
	var o ListObjectsOptions
	if opts != nil {
		o = *opts
	}
	page, err := db.node.List(ctx, bucket, replication.ListOptions{
		Prefix: o.Prefix, Delimiter: o.Delimiter, After: o.After, Limit: o.Limit,
	})
	if err != nil {
		return nil, object.WithOp(err, "list", bucket, o.Prefix)
	}
	result := &ListObjectsResult{Prefixes: page.Prefixes, NextMarker: page.Next, IsTruncated: page.Next != ""}
	for _, obj := range page.Objects {
		result.Objects = append(result.Objects, newObject(obj))
	}
	return result, nil
}

// AllObjects walks every key with the prefix, in order, a page at a time: its
// memory does not grow with the bucket. It ends after the first error.
func (db *BucketDB) AllObjects(ctx context.Context, bucket, prefix string) iter.Seq2[*Object, error] {
	return func(yield func(*Object, error) bool) {
		o := ListObjectsOptions{Prefix: prefix}
		for {
			page, err := db.ListObjectsContext(ctx, bucket, &o)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, obj := range page.Objects {
				if !yield(obj, nil) {
					return
				}
			}
			if o.After = page.NextMarker; o.After == "" {
				return
			}
		}
	}
}
