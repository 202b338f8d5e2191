package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// change is what every mutation starts with: its context, which carries the
// token, and its conditions.
func change(c *gin.Context) (context.Context, replication.Conditions, error) {
	t, err := token(c.Request.Header)
	if err != nil {
		return nil, replication.Conditions{}, err
	}
	cond, err := conditionsOf(c.Request.Header)
	if err != nil {
		return nil, cond, err
	}
	if err := checkDates(c.Request.Header, cond); err != nil {
		return nil, cond, err
	}
	if !cond.IfModifiedSince.IsZero() {
		return nil, cond, object.Errorf(object.KindInvalid, "If-Modified-Since is for reads; use If-Match or If-Unmodified-Since")
	}
	ctx := c.Request.Context()
	if !t.Session.IsZero() {
		ctx = replication.WithToken(ctx, t)
	}
	return ctx, cond, nil
}

// unconditional is change for operations that know no conditions: ignoring one
// would do what the client did not ask for.
func unconditional(c *gin.Context) (context.Context, error) {
	ctx, cond, err := change(c)
	if err == nil && !isUnconditional(cond) {
		err = object.Errorf(object.KindNotSupported, "conditional headers are not judged by this operation; leave them out")
	}
	return ctx, err
}

// request is how a change whose body is a JSON document begins: no conditions,
// the client's token, the document.
func request[T any](c *gin.Context, s *Server) (ctx context.Context, in T, err error) {
	if ctx, err = unconditional(c); err == nil {
		err = readJSON(c, s, &in)
	}
	return ctx, in, err
}

// putOptions reads the headers that describe the object to be stored.
func putOptions(h http.Header, size int64, cond replication.Conditions) (o replication.PutOptions, err error) {
	o = replication.PutOptions{Size: size, ContentType: h.Get("Content-Type"), Cond: cond}
	if o.Meta, err = metaOf(h); err != nil {
		return o, err
	}
	if !utf8.ValidString(o.ContentType) {
		return o, object.Errorf(object.KindInvalid, "Content-Type is not valid UTF-8")
	}
	number := func(name string, base, bits int) uint64 {
		v := h.Get(name)
		if v == "" || err != nil {
			return 0
		}
		n, bad := strconv.ParseUint(v, base, bits)
		if bad != nil {
			err = object.Errorf(object.KindInvalid, "%s: %q is not a number in base %d", name, v, base)
		}
		return n
	}
	o.Mode = uint32(number(api.HeaderMode, 8, 12))
	o.UID = uint32(number(api.HeaderUID, 10, 32))
	o.GID = uint32(number(api.HeaderGID, 10, 32))
	if ns := number(api.HeaderMtime, 10, 63); ns > 0 {
		o.Mtime = time.Unix(0, int64(ns))
	}
	return o, err
}

// metaOf reads the headers of user metadata.
func metaOf(h http.Header) (map[string]string, error) {
	var meta map[string]string
	for name, values := range h {
		if len(name) <= len(api.HeaderMeta) || name[:len(api.HeaderMeta)] != api.HeaderMeta {
			continue
		}
		value := strings.Join(values, ",")
		if !utf8.ValidString(value) {
			return nil, object.Errorf(object.KindInvalid, "%s is not valid UTF-8", name)
		}
		if meta == nil {
			meta = map[string]string{}
		}
		meta[strings.ToLower(name[len(api.HeaderMeta):])] = value
	}
	return meta, nil
}

// putObject is PUT /objects/:bucket/*key, and its variants ?xattr= and ?upload=&part=.
func (s *Server) putObject(c *gin.Context) error {
	bucket, key, err := bucketAndKey(c)
	if err != nil {
		return err
	}
	verb, q, err := verbOf(c, "xattr create replace", "upload part")
	if err != nil {
		return err
	}
	switch verb {
	case "xattr":
		return s.putXattr(c, bucket, key, q)
	case "upload":
		return s.putPart(c, bucket, key, q)
	}
	return s.store(c, bucket, key)
}

// store is the PUT of a whole object. Everything that can refuse it is judged
// before the first byte of the body is asked for.
func (s *Server) store(c *gin.Context, bucket, key string) error {
	ctx, cond, err := change(c)
	if err != nil {
		return err
	}
	r, size, err := s.openWhole(c)
	if err != nil {
		return err
	}
	o, err := putOptions(c.Request.Header, size, cond)
	if err != nil {
		return err
	}
	digests, err := declaredDigests(c.Request.Header)
	if err != nil {
		return err
	}
	if r, err = verifyWhole(r, size, digests); err != nil {
		return err
	}
	obj, err := s.node.Put(ctx, bucket, key, r, o)
	if err != nil {
		return object.WithOp(err, "put", bucket, key)
	}
	s.metrics.received.Add(float64(obj.Inode.Size))
	return s.stored(c, http.StatusCreated, bucket, key, obj.Inode)
}

// stored answers with an object's description.
func (s *Server) stored(c *gin.Context, status int, bucket, key string, n *object.Inode) error {
	h := c.Writer.Header()
	h["Etag"] = []string{`"` + n.ETag() + `"`}
	if status == http.StatusCreated {
		h["Location"] = []string{"/objects/" + api.EscapeKey(bucket) + "/" + api.EscapeKey(key)}
	}
	return s.writeJSON(c, status, api.ObjectOf(bucket, key, n))
}

// postObject is POST /objects/:bucket/*key: the verbs ?rename, ?copy and ?link,
// multipart's ?uploads and ?upload=, and without any of them a PUT.
func (s *Server) postObject(c *gin.Context) error {
	bucket, key, err := bucketAndKey(c)
	if err != nil {
		return err
	}
	verb, q, err := verbOf(c, "rename", "copy", "link", "uploads", "upload")
	if err != nil {
		return err
	}
	switch verb {
	case "rename", "copy", "link":
		return s.verb(c, bucket, key, verb)
	case "uploads":
		return s.createUpload(c, bucket, key)
	case "upload":
		return s.completeUpload(c, bucket, key, q.Get("upload"))
	}
	return s.store(c, bucket, key)
}

// verb is a rename, copy or link to the target that the body names.
func (s *Server) verb(c *gin.Context, bucket, key, verb string) error {
	var to api.Target
	if err := readJSON(c, s, &to); err != nil {
		return err
	}
	if to.Bucket == "" {
		to.Bucket = api.Name(bucket)
	}
	if err := checkKey(string(to.Key)); err != nil {
		return object.Errorf(object.KindOf(err), "the target: %w", err)
	}
	if verb == "copy" {
		return s.copyObject(c, bucket, key, to)
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	if verb == "link" {
		err = s.node.LinkObject(ctx, bucket, key, string(to.Bucket), string(to.Key))
		err = object.WithOp(err, "link", bucket, key)
	} else {
		f := replication.RenameFlags{NoReplace: to.NoReplace, Exchange: to.Exchange}
		err = s.node.RenameObject(ctx, bucket, key, string(to.Bucket), string(to.Key), f)
		err = object.WithOp(err, "rename", bucket, key)
	}
	if err != nil {
		return err
	}
	return s.noContent(c)
}

// copyObject makes the target a copy; the conditional headers are about the target.
func (s *Server) copyObject(c *gin.Context, bucket, key string, to api.Target) error {
	ctx, cond, err := change(c)
	if err != nil {
		return err
	}
	obj, err := s.node.Copy(ctx, bucket, key, string(to.Bucket), string(to.Key), replication.CopyOptions{
		SourceCond: replication.Conditions{IfMatch: to.SourceMatch}, Cond: cond,
		Replace: to.Replace, ContentType: to.ContentType, Meta: to.Meta})
	if err != nil {
		return object.WithOp(err, "copy", bucket, key)
	}
	return s.stored(c, http.StatusCreated, string(to.Bucket), string(to.Key), obj.Inode)
}

// deleteObject is DELETE /objects/:bucket/*key, and its variants ?xattr= and ?upload=.
func (s *Server) deleteObject(c *gin.Context) error {
	bucket, key, err := bucketAndKey(c)
	if err != nil {
		return err
	}
	verb, q, err := verbOf(c, "xattr", "upload")
	if err != nil {
		return err
	}
	switch verb {
	case "xattr":
		return s.deleteXattr(c, bucket, key, q.Get("xattr"))
	case "upload":
		return s.abortUpload(c, bucket, key, q.Get("upload"))
	}
	ctx, cond, err := change(c)
	if err != nil {
		return err
	}
	if err := s.node.Delete(ctx, bucket, key, cond); err != nil {
		return object.WithOp(err, "delete", bucket, key)
	}
	return s.noContent(c)
}
