package bucketdb

import (
	"context"
	"io"
)

// CreateBucket is CreateBucketContext without a context.
func (db *BucketDB) CreateBucket(name, owner string) error {
	return db.CreateBucketContext(context.Background(), name, owner)
}

// DeleteBucket is DeleteBucketContext without a context.
func (db *BucketDB) DeleteBucket(name string) error {
	return db.DeleteBucketContext(context.Background(), name)
}

// ListBuckets is ListBucketsContext without a context.
func (db *BucketDB) ListBuckets() ([]*Bucket, error) {
	return db.ListBucketsContext(context.Background())
}

// PutObject is PutObjectContext without a context.
func (db *BucketDB) PutObject(bucket, key string, data []byte, opts *PutObjectOptions) error {
	_, err := db.PutObjectContext(context.Background(), bucket, key, data, opts)
	return err
}

// PutObjectFromStream is PutObjectStreamContext without a context.
func (db *BucketDB) PutObjectFromStream(bucket, key string, body io.Reader, size int64, opts *PutObjectOptions) error {
	_, err := db.PutObjectStreamContext(context.Background(), bucket, key, body, size, opts)
	return err
}

// GetObject is GetObjectContext without a context.
func (db *BucketDB) GetObject(bucket, key string, opts *GetObjectOptions) ([]byte, error) {
	return db.GetObjectContext(context.Background(), bucket, key, opts)
}

// GetObjectAsStream reads an object as a stream, whatever its size, in bounded
// memory. Close the stream.
func (db *BucketDB) GetObjectAsStream(bucket, key string, opts *GetObjectOptions) (io.ReadCloser, *Object, error) {
	r, err := db.OpenObject(context.Background(), bucket, key, opts)
	if err != nil {
		return nil, nil, err
	}
	return r, r.Object(), nil
}

// GetObjectMetadata describes an object; it is HeadObjectContext without a context.
func (db *BucketDB) GetObjectMetadata(bucket, key string) (*Object, error) {
	return db.HeadObjectContext(context.Background(), bucket, key)
}

// DeleteObject is DeleteObjectContext without a context.
func (db *BucketDB) DeleteObject(bucket, key string) error {
	return db.DeleteObjectContext(context.Background(), bucket, key)
}

// CopyObject is CopyObjectContext without a context.
func (db *BucketDB) CopyObject(bucket, key, newBucket, newKey string) (*Object, error) {
	return db.CopyObjectContext(context.Background(), bucket, key, newBucket, newKey)
}

// RenameObject is RenameObjectContext without a context.
func (db *BucketDB) RenameObject(bucket, key, newBucket, newKey string) error {
	return db.RenameObjectContext(context.Background(), bucket, key, newBucket, newKey)
}

// ListObjects returns the first limit objects with the prefix (0: 1,000);
// ListObjectsContext has the further pages.
func (db *BucketDB) ListObjects(bucket, prefix string, limit int) (*ListObjectsResult, error) {
	return db.ListObjectsContext(context.Background(), bucket, &ListObjectsOptions{Prefix: prefix, Limit: limit})
}
