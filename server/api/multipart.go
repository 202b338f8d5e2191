package api

import (
	"context"
	"io"
	"net/url"
	"strconv"
)

// CreateUpload starts a multipart upload; the options' Size and SHA256 are not used.
func (c *Client) CreateUpload(ctx context.Context, bucket, key string, o PutOptions) (u Upload, err error) {
	k := objectCall("create upload", "POST", bucket, key, url.Values{"uploads": {""}})
	o.SHA256 = nil
	o.stamp(k)
	return u, c.doJSON(ctx, k, &u)
}

// PutPart stores one part (1 to 10000); a second one of the same number
// replaces the first. size as in PutOptions.Size.
func (c *Client) PutPart(ctx context.Context, bucket, key, upload string, number int, body io.Reader, size int64) (p Part, err error) {
	k := objectCall("put part", "PUT", bucket, key, url.Values{"upload": {upload}, "part": {strconv.Itoa(number)}})
	k.body, k.size = body, size
	return p, c.doJSON(ctx, k, &p)
}

// Parts lists the parts stored so far, those with numbers behind after.
func (c *Client) Parts(ctx context.Context, bucket, key, upload string, after, limit int) (l PartList, err error) {
	q := url.Values{"upload": {upload}, "after": {strconv.Itoa(after)}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return l, c.doJSON(ctx, objectCall("list parts", "GET", bucket, key, q), &l)
}

// CompleteUpload makes the parts, in the order given, the object's content.
func (c *Client) CompleteUpload(ctx context.Context, bucket, key, upload string, parts []Part, cond Conditions) (obj Object, err error) {
	k, err := objectCall("complete upload", "POST", bucket, key, url.Values{"upload": {upload}}).withJSON(PartList{Parts: parts})
	if err != nil {
		return obj, err
	}
	cond.stamp(k)
	k.slow = true
	return obj, c.doJSON(ctx, k, &obj)
}

// AbortUpload drops an upload and its parts.
func (c *Client) AbortUpload(ctx context.Context, bucket, key, upload string) error {
	return c.doJSON(ctx, objectCall("abort upload", "DELETE", bucket, key, url.Values{"upload": {upload}}), nil)
}

// Uploads lists the uploads under way in a bucket.
func (c *Client) Uploads(ctx context.Context, bucket, prefix, cursor string, limit int) (l UploadList, err error) {
	q := url.Values{}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	k := &call{op: "list uploads", bucket: bucket, method: "GET", path: "/buckets/" + EscapeKey(bucket) + "/uploads", query: q}
	return l, c.doJSON(ctx, k, &l)
}
