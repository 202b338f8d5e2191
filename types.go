package bucketdb

import (
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Bucket is one bucket.
type Bucket struct {
	Name      string
	Owner     string
	CreatedAt time.Time
	Storage   string // how its data is kept: see BucketOptions
}

// BucketOptions are the settings of a bucket.
type BucketOptions struct {
	Owner string
	// Storage is how its data is kept: "replicated:3" (the default) as three copies,
	// "rs:4+2" as four data and two parity shards of Reed-Solomon, any four of which
	// give it back. Each copy or shard is on a node of its own; up to three copies work
	// with fewer nodes, too.
	Storage string
}

func (o *BucketOptions) node() (out replication.BucketOptions, err error) {
	if o != nil {
		if out.Owner = o.Owner; o.Storage != "" {
			out.Scheme, err = object.ParseScheme(o.Storage)
		}
	}
	return out, err
}

// Object describes one object. A directory is listed as an empty object whose
// key ends in "/".
type Object struct {
	Bucket      string
	Key         string
	Size        int64
	ContentType string
	ETag        string // opaque, without quotes; different for different contents
	SHA256      []byte // of the whole content; nil where it is not known
	Metadata    map[string]string
	CreatedAt   time.Time
	UpdatedAt   time.Time // of the content
	Mode        uint32    // permission bits, as the mount shows them
	UID, GID    uint32
}

// IsDir reports whether it is a directory.
func (o *Object) IsDir() bool { return strings.HasSuffix(o.Key, "/") }

func newObject(o replication.Object) *Object {
	i := o.Inode
	return &Object{
		Bucket: o.Bucket, Key: o.Key, Size: i.Size, ContentType: i.ContentType, ETag: i.ETag(),
		SHA256: i.SHA256, Metadata: i.Meta, Mode: i.Mode, UID: i.UID, GID: i.GID,
		CreatedAt: time.Unix(0, i.Btime).UTC(), UpdatedAt: time.Unix(0, i.Mtime).UTC(),
	}
}

// PutObjectOptions go with a write; nil is the zero value.
type PutObjectOptions struct {
	ContentType string
	Metadata    map[string]string // names are kept in lower case
	// IfMatch stores only over an object with this ETag ("*": any).
	IfMatch string
	// IfNoneMatch stores only where there is no object with this ETag ("*":
	// none at all). A condition that does not hold is KindPrecondition.
	IfNoneMatch string
}

func (o *PutObjectOptions) put(size int64) replication.PutOptions {
	if o == nil {
		return replication.PutOptions{Size: size}
	}
	return replication.PutOptions{
		Size: size, ContentType: o.ContentType, Meta: lowerNames(o.Metadata),
		Cond: replication.Conditions{IfMatch: one(o.IfMatch), IfNoneMatch: one(o.IfNoneMatch)},
	}
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func lowerNames(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[strings.ToLower(k)] = v
	}
	return out
}

// GetObjectOptions select what of an object is read; nil is the zero value: all.
type GetObjectOptions struct {
	RangeStart int64 // offset of the first byte; negative: that many bytes before the end
	RangeEnd   int64 // offset behind the last byte; 0: the end
	// IfMatch reads only the object with this ETag; another is KindPrecondition.
	IfMatch string
}

// slice cuts a content of size bytes: offset and length. A range none of whose
// bytes exist is KindRange; the whole of an empty object is no error.
func (o *GetObjectOptions) slice(size int64) (off, n int64, err error) {
	if o == nil || o.RangeStart == 0 && o.RangeEnd == 0 {
		return 0, size, nil
	}
	if o.RangeEnd < 0 || o.RangeEnd > 0 && (o.RangeStart < 0 || o.RangeEnd <= o.RangeStart) {
		return 0, 0, object.Errorf(object.KindInvalid,
			"the range [%d, %d) is not one: RangeEnd lies behind RangeStart, or is 0 for the end", o.RangeStart, o.RangeEnd)
	}
	off, end := o.RangeStart, o.RangeEnd
	if off < 0 {
		off = max(0, size+off)
	}
	if end == 0 || end > size {
		end = size
	}
	if off >= end {
		return 0, 0, object.Errorf(object.KindRange, "the range starts at %d; the object has %d bytes", off, size)
	}
	return off, end - off, nil
}

// ListObjectsOptions select a page of a bucket's keys; nil is the zero value.
type ListObjectsOptions struct {
	Prefix    string
	Delimiter string // "/" shows one level: what lies below is grouped into Prefixes
	After     string // only keys that sort behind it: NextMarker of the page before
	Limit     int    // of the page, up to 10,000; 0: 1,000
}

// ListObjectsResult is a page of keys in byte order.
type ListObjectsResult struct {
	Objects     []*Object
	Prefixes    []string // what Delimiter grouped, in order
	IsTruncated bool     // there are more
	NextMarker  string   // After for the next page; "" on the last
}
