package server

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// patchObject is PATCH /objects/:bucket/*key, which changes an object in place
// in one of four ways: Content-Range writes a range, ?append writes at the end,
// ?truncate=N sets the size, ?attributes changes attributes.
func (s *Server) patchObject(c *gin.Context) error {
	bucket, key, err := bucketAndKey(c)
	if err != nil {
		return err
	}
	verb, q, err := verbOf(c, "append", "truncate", "attributes")
	if err != nil {
		return err
	}
	contentRange := c.GetHeader("Content-Range")
	if (contentRange != "") == (verb != "") {
		return object.Errorf(object.KindInvalid, "PATCH needs exactly one of: a Content-Range header (bytes FIRST-LAST/*), ?append, ?truncate=SIZE, ?attributes")
	}
	ctx, cond, err := change(c)
	if err != nil {
		return err
	}
	n, err := s.inodeAt(ctx, bucket, key)
	if err != nil {
		return err
	}
	switch verb {
	case "attributes":
		n, err = s.patchAttributes(ctx, c, n, cond)
	case "truncate":
		n, err = s.truncate(ctx, n, q, cond)
	default:
		n, err = s.patchBytes(ctx, c, n, contentRange, cond)
	}
	if object.IsKind(err, object.KindStale) {
		err = object.Errorf(object.KindConflict, "the object was replaced or removed meanwhile")
	}
	if err != nil {
		return object.WithOp(err, "patch", bucket, key)
	}
	return s.stored(c, http.StatusOK, bucket, key, n)
}

// inodeAt is the file behind a key now; a change that follows names its inode,
// so it reaches this file or none: also where it has another name by then, or none
// and is not collected yet, since the partition that applies it need not hold the name.
func (s *Server) inodeAt(ctx context.Context, bucket, key string) (*object.Inode, error) {
	obj, err := s.node.Stat(ctx, bucket, key)
	if err != nil {
		return nil, object.WithOp(err, "patch", bucket, key)
	}
	return obj.Inode, nil
}

func (s *Server) patchBytes(ctx context.Context, c *gin.Context, n *object.Inode, contentRange string, cond replication.Conditions) (*object.Inode, error) {
	r, size, err := s.openBody(c)
	if err != nil {
		return nil, err
	}
	o := replication.WriteOptions{Size: size, Append: contentRange == "", Cond: cond}
	var offset int64
	if contentRange != "" {
		sp, err := parseContentRange(contentRange)
		if err != nil {
			return nil, err
		}
		if size >= 0 && size != sp.length {
			return nil, object.Errorf(object.KindInvalid, "Content-Range names %d bytes, but the body has %d", sp.length, size)
		}
		offset, o.Size = sp.offset, sp.length
	}
	digests, err := declaredDigests(c.Request.Header)
	if err != nil {
		return nil, err
	}
	if r, err = verifyWhole(r, o.Size, digests); err != nil {
		return nil, err
	}
	n, _, err = s.node.Write(ctx, n.ID, offset, r, o)
	return n, err
}

// truncate is an empty write that ends the file where it stands: so its
// conditions are judged where it is applied.
func (s *Server) truncate(ctx context.Context, n *object.Inode, q url.Values, cond replication.Conditions) (*object.Inode, error) {
	size, err := intParam(q, "truncate", 0, 0, object.MaxFileSize)
	if err != nil {
		return nil, err
	}
	n, _, err = s.node.Write(ctx, n.ID, size, strings.NewReader(""), replication.WriteOptions{Size: 0, Truncate: true, Cond: cond})
	return n, err
}

func (s *Server) patchAttributes(ctx context.Context, c *gin.Context, n *object.Inode, cond replication.Conditions) (*object.Inode, error) {
	if !isUnconditional(cond) {
		return nil, object.Errorf(object.KindNotSupported, "conditional headers are not judged by ?attributes; leave them out")
	}
	var a api.SetAttr
	if err := readJSON(c, s, &a); err != nil {
		return nil, err
	}
	set, err := setAttrOf(a)
	if err != nil {
		return nil, err
	}
	return s.node.SetAttr(ctx, n.ID, set)
}

// setAttrOf checks a SetAttr from the wire.
func setAttrOf(a api.SetAttr) (replication.SetAttr, error) {
	out := replication.SetAttr{Mode: a.Mode, UID: a.UID, GID: a.GID, Size: a.Size, Atime: a.Atime, Mtime: a.Mtime, ContentType: a.ContentType}
	if a.Mode != nil && *a.Mode&^0o7777 != 0 {
		return out, object.Errorf(object.KindInvalid, "mode %o has more than the bits 07777", *a.Mode)
	}
	if a.Size != nil && (*a.Size < 0 || *a.Size > object.MaxFileSize) {
		return out, object.Errorf(object.KindInvalid, "size %d is not from 0 to %d", *a.Size, int64(object.MaxFileSize))
	}
	if a.Meta != nil {
		out.Meta = make(map[string]string, len(a.Meta))
		for name, value := range a.Meta {
			if !isToken(name) || strings.ContainsAny(value, "\r\n\x00") {
				return out, object.Errorf(object.KindInvalid, "user metadata %q: a name is made of letters, digits and -_., a value has no line breaks", name)
			}
			out.Meta[strings.ToLower(name)] = value
		}
	}
	return out, nil
}

// isToken reports whether a name can be the end of a header's name.
func isToken(s string) bool { return fitID(s) }

// getAttributes is GET ?attributes.
func (s *Server) getAttributes(c *gin.Context, bucket, key string) error {
	obj, err := s.node.Stat(c.Request.Context(), bucket, key)
	if err != nil {
		return object.WithOp(err, "attributes", bucket, key)
	}
	return s.writeJSON(c, http.StatusOK, api.Inode{Inode: obj.Inode})
}

// getXattr is GET ?xattr=NAME: the value's bytes.
func (s *Server) getXattr(c *gin.Context, bucket, key, name string) error {
	obj, err := s.node.Stat(c.Request.Context(), bucket, key)
	if err != nil {
		return object.WithOp(err, "get xattr", bucket, key)
	}
	value, ok := obj.Inode.Xattrs[name]
	if !ok {
		return object.WithOp(object.Errorf(object.KindNoAttr, "there is no extended attribute %q", name), "get xattr", bucket, key)
	}
	h := c.Writer.Header()
	h["Content-Type"] = []string{"application/octet-stream"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	s.begin(c, http.StatusOK, int64(len(value)))
	_, err = c.Writer.Write(value)
	return gone(err)
}

// putXattr is PUT ?xattr=NAME: the body is the value.
func (s *Server) putXattr(c *gin.Context, bucket, key string, q url.Values) error {
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	n, err := s.inodeAt(ctx, bucket, key)
	if err != nil {
		return err
	}
	return s.writeXattr(ctx, c, n.ID, q.Get("xattr"), q)
}

// writeXattr sets an attribute to the request's body.
func (s *Server) writeXattr(ctx context.Context, c *gin.Context, ino object.InodeID, name string, q url.Values) error {
	if name == "" || len(name) > object.MaxName || strings.IndexByte(name, 0) >= 0 {
		return object.Errorf(object.KindInvalid, "an attribute's name has 1 to %d bytes and no NUL", object.MaxName)
	}
	if err := refuseFragment(c.Request.Header); err != nil {
		return err
	}
	value, err := s.readVerified(c, object.MaxXattrValue)
	if err != nil {
		return err
	}
	if err := s.node.SetXattr(ctx, ino, name, value, q.Has("create"), q.Has("replace")); err != nil {
		return object.WithOp(err, "set xattr", "", name)
	}
	return s.noContent(c)
}

// deleteXattr is DELETE ?xattr=NAME.
func (s *Server) deleteXattr(c *gin.Context, bucket, key, name string) error {
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	n, err := s.inodeAt(ctx, bucket, key)
	if err != nil {
		return err
	}
	if err := s.node.RemoveXattr(ctx, n.ID, name); err != nil {
		return object.WithOp(err, "remove xattr", bucket, key)
	}
	return s.noContent(c)
}
