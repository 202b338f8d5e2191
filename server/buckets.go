package server

import (
	"context"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func bucketOf(b replication.Bucket) api.Bucket {
	return api.Bucket{Name: api.Name(b.Name), Owner: b.Owner, Root: api.ID(b.Root), Created: b.Created, Storage: api.StorageOf(b.Scheme)}
}

// bucketNow is a bucket, and how far the rewriting of its data is.
func (s *Server) bucketNow(ctx context.Context, b replication.Bucket) (api.Bucket, error) {
	out := bucketOf(b)
	r, err := s.node.Rewriting(ctx, b)
	if err == nil && r != nil {
		out.Rewriting = &api.Rewriting{Started: r.Started.UTC(), Pass: r.Pass, Seen: r.Seen, Walked: r.Walked, Left: r.Left}
	}
	return out, err
}

// listBuckets is GET /buckets.
func (s *Server) listBuckets(c *gin.Context) error {
	buckets, err := s.node.Buckets(c.Request.Context())
	if err != nil {
		return object.WithOp(err, "list buckets", "", "")
	}
	out := api.BucketList{Buckets: make([]api.Bucket, len(buckets))}
	for i, b := range buckets {
		out.Buckets[i] = bucketOf(b)
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// createBucket is POST /buckets.
func (s *Server) createBucket(c *gin.Context) error {
	ctx, in, err := request[api.NewBucket](c, s)
	if err != nil {
		return err
	}
	o := replication.BucketOptions{Owner: in.Owner}
	if in.Storage != nil {
		if o.Scheme, err = in.Storage.Scheme(); err != nil {
			return object.WithOp(err, "create bucket", string(in.Name), "")
		}
	}
	b, err := s.node.MakeBucket(ctx, string(in.Name), o)
	if err != nil {
		return object.WithOp(err, "create bucket", string(in.Name), "")
	}
	c.Writer.Header()["Location"] = []string{"/buckets/" + api.EscapeKey(b.Name)}
	return s.writeJSON(c, http.StatusCreated, bucketOf(b))
}

// getBucket is GET /buckets/:bucket.
func (s *Server) getBucket(c *gin.Context) error {
	name, err := decodeName("bucket's name", c.Param("bucket"))
	if err != nil {
		return err
	}
	b, err := s.node.Bucket(c.Request.Context(), name)
	if err != nil {
		return object.WithOp(err, "bucket", name, "")
	}
	out, err := s.bucketNow(c.Request.Context(), b)
	if err != nil {
		return object.WithOp(err, "bucket", name, "")
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// patchBucket is PATCH /buckets/:bucket, which changes how its data is kept.
func (s *Server) patchBucket(c *gin.Context) error {
	name, err := decodeName("bucket's name", c.Param("bucket"))
	if err != nil {
		return err
	}
	ctx, in, err := request[api.BucketChange](c, s)
	if err == nil && in.Storage == nil {
		err = object.Errorf(object.KindInvalid, `nothing is to be changed: give {"storage": …}`)
	}
	var scheme object.Scheme
	if err == nil {
		scheme, err = in.Storage.Scheme()
	}
	var b replication.Bucket
	if err == nil {
		b, err = s.node.SetScheme(ctx, name, scheme)
	}
	var out api.Bucket
	if err == nil {
		out, err = s.bucketNow(ctx, b)
	}
	if err != nil {
		return object.WithOp(err, "set storage", name, "")
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// deleteBucket is DELETE /buckets/:bucket.
func (s *Server) deleteBucket(c *gin.Context) error {
	name, err := decodeName("bucket's name", c.Param("bucket"))
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	if err := s.node.DeleteBucket(ctx, name); err != nil {
		return object.WithOp(err, "delete bucket", name, "")
	}
	return s.noContent(c)
}

// listObjects is GET /buckets/:bucket/objects.
func (s *Server) listObjects(c *gin.Context) error {
	name, q, after, limit, err := page(c)
	if err != nil {
		return err
	}
	var list replication.ListPage
	err = bounded(limit, func(limit int) (count, bytes int, err error) {
		list, err = s.node.List(c.Request.Context(), name, replication.ListOptions{
			Prefix: q.Get("prefix"), Delimiter: q.Get("delimiter"), After: after, Limit: limit})
		return len(list.Objects) + len(list.Prefixes), listBytes(list), err
	})
	if err != nil {
		return object.WithOp(err, "list", name, "")
	}
	out := api.ObjectList{Objects: make([]api.Object, len(list.Objects)), Prefixes: make([]api.Name, len(list.Prefixes))}
	for i, o := range list.Objects {
		out.Objects[i] = api.ObjectOf(name, o.Key, o.Inode)
		if o.Inode.IsDir() {
			out.Objects[i].Size = 0
		}
	}
	for i, p := range list.Prefixes {
		out.Prefixes[i] = api.Name(p)
	}
	if list.Next != "" {
		out.Cursor = encodeCursor(list.Next)
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// listBytes is about what a listing takes as a page.
func listBytes(list replication.ListPage) (sum int) {
	for _, p := range list.Prefixes {
		sum += len(p)
	}
	for _, o := range list.Objects {
		sum += perEntry + len(o.Key) + len(o.Inode.ContentType)
		for name, value := range o.Inode.Meta {
			sum += len(name) + len(value)
		}
	}
	return sum
}

// listUploads is GET /buckets/:bucket/uploads.
func (s *Server) listUploads(c *gin.Context) error {
	name, q, after, limit, err := page(c)
	if err != nil {
		return err
	}
	uploads, err := s.node.Uploads(c.Request.Context(), name, q.Get("prefix"), after, limit)
	if err != nil {
		return object.WithOp(err, "list uploads", name, "")
	}
	full := len(uploads) == limit
	if full {
		uploads = wholeKeys(uploads)
	}
	out := api.UploadList{Uploads: make([]api.Upload, len(uploads))}
	for i, u := range uploads {
		out.Uploads[i] = uploadOf(u)
	}
	if full {
		out.Cursor = encodeCursor(uploads[len(uploads)-1].Key)
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// wholeKeys leaves the uploads of a full page's last key to the next page,
// which starts behind a key: there may be more of them. A page of one key stays.
func wholeKeys(uploads []replication.Upload) []replication.Upload {
	end := len(uploads)
	for end > 0 && uploads[end-1].Key == uploads[len(uploads)-1].Key {
		end--
	}
	if end == 0 {
		return uploads
	}
	return uploads[:end]
}

// page reads what the listings of a bucket have in common. A limit above the
// largest is cut to it.
func page(c *gin.Context) (bucket string, q url.Values, after string, limit int, err error) {
	if bucket, err = decodeName("bucket's name", c.Param("bucket")); err != nil {
		return
	}
	if q, err = query(c); err != nil {
		return
	}
	n, err := intParam(q, "limit", replication.DefaultListLimit, 1, 1<<31-1)
	if err != nil {
		return
	}
	limit = int(min(n, replication.MaxListLimit))
	after = q.Get("after")
	if q.Has("cursor") {
		after, err = decodeCursor(q.Get("cursor"))
	}
	return
}
