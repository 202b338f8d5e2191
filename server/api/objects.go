package api

import (
	"context"
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Conditions are those of HTTP. ETags stand without quotes; "*" means any
// existing object. The server judges them where the change is applied.
type Conditions struct {
	IfMatch           []string
	IfNoneMatch       []string
	IfModifiedSince   time.Time // reads only
	IfUnmodifiedSince time.Time
}

func (c Conditions) stamp(k *call) {
	tags := func(name string, list []string) {
		if len(list) > 0 {
			k.set(name, joinETags(list))
		}
	}
	tags("If-Match", c.IfMatch)
	tags("If-None-Match", c.IfNoneMatch)
	if !c.IfModifiedSince.IsZero() {
		k.set("If-Modified-Since", c.IfModifiedSince.UTC().Format(TimeFormat))
	}
	if !c.IfUnmodifiedSince.IsZero() {
		k.set("If-Unmodified-Since", c.IfUnmodifiedSince.UTC().Format(TimeFormat))
	}
}

func joinETags(list []string) string {
	quoted := make([]string, len(list))
	for i, tag := range list {
		quoted[i] = tag
		if tag != "*" {
			quoted[i] = `"` + tag + `"`
		}
	}
	return strings.Join(quoted, ", ")
}

// PutOptions go with a whole-object write.
type PutOptions struct {
	// Size is the body's length when > 0; otherwise it is asked of the body, and
	// one that does not know is sent chunked.
	Size        int64
	ContentType string
	Meta        map[string]string // names without prefix; values in UTF-8
	Mode        uint32            // 0: the server's default
	UID, GID    uint32
	Mtime       time.Time // zero: now
	SHA256      []byte    // the body's digest, checked by the server before anything is stored
	Cond        Conditions
}

func (o PutOptions) stamp(k *call) {
	if o.ContentType != "" {
		k.set("Content-Type", o.ContentType)
	}
	for name, value := range o.Meta {
		k.set(HeaderMeta+name, value)
	}
	if o.Mode != 0 {
		k.set(HeaderMode, strconv.FormatUint(uint64(o.Mode), 8))
	}
	if o.UID != 0 || o.GID != 0 {
		k.set(HeaderUID, strconv.FormatUint(uint64(o.UID), 10))
		k.set(HeaderGID, strconv.FormatUint(uint64(o.GID), 10))
	}
	if !o.Mtime.IsZero() {
		k.set(HeaderMtime, strconv.FormatInt(o.Mtime.UnixNano(), 10))
	}
	if o.SHA256 != nil {
		k.set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(o.SHA256)+":")
	}
	o.Cond.stamp(k)
}

func objectPath(bucket, key string) string {
	return "/objects/" + EscapeKey(bucket) + "/" + EscapeKey(key)
}

func objectCall(op, method, bucket, key string, query url.Values) *call {
	return &call{op: op, bucket: bucket, key: key, method: method, path: objectPath(bucket, key), query: query,
		mutation: method != http.MethodGet && method != http.MethodHead}
}

// Buckets lists the buckets by name.
func (c *Client) Buckets(ctx context.Context) ([]Bucket, error) {
	var out BucketList
	err := c.doJSON(ctx, &call{op: "list buckets", method: "GET", path: "/buckets"}, &out)
	return out.Buckets, err
}

// Bucket describes one.
func (c *Client) Bucket(ctx context.Context, name string) (b Bucket, err error) {
	err = c.doJSON(ctx, &call{op: "bucket", bucket: name, method: "GET", path: "/buckets/" + EscapeKey(name)}, &b)
	return b, err
}

// CreateBucket makes a bucket with default settings; KindBucketExists when there is one.
func (c *Client) CreateBucket(ctx context.Context, name, owner string) (Bucket, error) {
	return c.MakeBucket(ctx, NewBucket{Name: Name(name), Owner: owner})
}

// MakeBucket makes a bucket; KindBucketExists when there is one, KindInvalid when the
// cluster cannot keep its data as it says.
func (c *Client) MakeBucket(ctx context.Context, in NewBucket) (b Bucket, err error) {
	k, err := (&call{op: "create bucket", bucket: string(in.Name), method: "POST", path: "/buckets", mutation: true}).withJSON(in)
	if err != nil {
		return b, err
	}
	return b, c.doJSON(ctx, k, &b)
}

// DeleteBucket removes an empty bucket; KindNotEmpty otherwise.
func (c *Client) DeleteBucket(ctx context.Context, name string) error {
	return c.doJSON(ctx, &call{op: "delete bucket", bucket: name, method: "DELETE", path: "/buckets/" + EscapeKey(name), mutation: true}, nil)
}

// Put stores the body as the whole object. The body is not closed. It is sent
// again after a failure only where it is an io.Seeker or was not read yet. A body
// whose Read blocks does not hold up the end of ctx: that Read is then left to
// itself, and is the last one.
func (c *Client) Put(ctx context.Context, bucket, key string, body io.Reader, o PutOptions) (obj Object, err error) {
	k := objectCall("put", "PUT", bucket, key, nil)
	k.body, k.size = body, o.Size
	o.stamp(k)
	return obj, c.doJSON(ctx, k, &obj)
}

// Head describes an object; it fails with KindNotModified or KindPrecondition
// as the conditions say.
func (c *Client) Head(ctx context.Context, bucket, key string, cond Conditions) (Object, error) {
	k := objectCall("head", "HEAD", bucket, key, nil)
	cond.stamp(k)
	resp, err := c.do(ctx, k)
	if err != nil {
		return Object{}, err
	}
	resp.Body.Close()
	return objectOfHeaders(bucket, key, resp)
}

// Delete removes an object; KindNotFound when there is none.
func (c *Client) Delete(ctx context.Context, bucket, key string, cond Conditions) error {
	k := objectCall("delete", "DELETE", bucket, key, nil)
	cond.stamp(k)
	return c.doJSON(ctx, k, nil)
}

// RenameObject moves an object or, with keys that end in "/", a directory.
func (c *Client) RenameObject(ctx context.Context, bucket, key string, to Target) error {
	return c.verb(ctx, "rename", bucket, key, to, Conditions{}, nil)
}

// Copy makes to a copy of an object; it shares the data and moves none. cond is
// about the target.
func (c *Client) Copy(ctx context.Context, bucket, key string, to Target, cond Conditions) (obj Object, err error) {
	return obj, c.verb(ctx, "copy", bucket, key, to, cond, &obj)
}

// LinkObject makes to another name of the same file.
func (c *Client) LinkObject(ctx context.Context, bucket, key string, to Target) error {
	return c.verb(ctx, "link", bucket, key, to, Conditions{}, nil)
}

func (c *Client) verb(ctx context.Context, verb, bucket, key string, to Target, cond Conditions, out any) error {
	k, err := objectCall(verb, "POST", bucket, key, url.Values{verb: {""}}).withJSON(to)
	if err != nil {
		return err
	}
	cond.stamp(k)
	k.slow = verb == "copy"
	return c.doJSON(ctx, k, out)
}

// Attributes is the record of the file behind a key.
func (c *Client) Attributes(ctx context.Context, bucket, key string) (*object.Inode, error) {
	var out Inode
	err := c.doJSON(ctx, objectCall("attributes", "GET", bucket, key, url.Values{"attributes": {""}}), &out)
	return out.Inode, err
}

// ListOptions select a page of a bucket's keys.
type ListOptions struct {
	Prefix    string
	Delimiter string
	Cursor    string // of the page before; "" for the first
	After     string // only keys behind it; an alternative to Cursor
	Limit     int    // 0: the server's default
}

// List returns one page of keys in byte order.
func (c *Client) List(ctx context.Context, bucket string, o ListOptions) (page ObjectList, err error) {
	q := url.Values{}
	for name, v := range map[string]string{"prefix": o.Prefix, "delimiter": o.Delimiter, "cursor": o.Cursor, "after": o.After} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	k := &call{op: "list", bucket: bucket, method: "GET", path: "/buckets/" + EscapeKey(bucket) + "/objects", query: q}
	return page, c.doJSON(ctx, k, &page)
}

// objectOfHeaders reads what GET and HEAD say about an object.
func objectOfHeaders(bucket, key string, resp *http.Response) (Object, error) {
	h := resp.Header
	obj := Object{Bucket: Name(bucket), Key: Name(key), Size: resp.ContentLength, ETag: strings.Trim(h.Get("Etag"), `"`),
		ContentType: h.Get("Content-Type")}
	if cr := h.Get("Content-Range"); cr != "" {
		_, total, ok := strings.Cut(cr, "/")
		size, err := strconv.ParseInt(total, 10, 64)
		if !ok || err != nil {
			return obj, object.Errorf(object.KindInternal, "the server's Content-Range %q is not understood", cr)
		}
		obj.Size = size
	}
	obj.Modified, _ = time.Parse(TimeFormat, h.Get("Last-Modified")) // replaced by the exact one below, where there is one
	if ns, err := strconv.ParseInt(h.Get(HeaderMtime), 10, 64); err == nil {
		obj.Modified = time.Unix(0, ns).UTC()
	}
	if id, err := object.ParseInodeID(h.Get(HeaderInode)); err == nil {
		obj.Inode = ID(id)
	}
	obj.Version, _ = strconv.ParseUint(h.Get(HeaderVersion), 10, 64) // 0 where a proxy dropped it
	if err := obj.SHA256.UnmarshalText([]byte(h.Get(HeaderSHA256))); err != nil {
		return obj, err
	}
	for name := range maps.Keys(h) {
		if meta, ok := strings.CutPrefix(name, HeaderMeta); ok {
			if obj.Meta == nil {
				obj.Meta = map[string]string{}
			}
			obj.Meta[strings.ToLower(meta)] = h.Get(name)
		}
	}
	return obj, nil
}
