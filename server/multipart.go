package server

import (
	"encoding/base64"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

const maxParts = 10000

// createUpload is POST ?uploads: its headers describe the object to be.
func (s *Server) createUpload(c *gin.Context, bucket, key string) error {
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	o, err := putOptions(c.Request.Header, -1, replication.Conditions{})
	if err != nil {
		return err
	}
	u, err := s.node.CreateUpload(ctx, bucket, key, o)
	if err != nil {
		return object.WithOp(err, "create upload", bucket, key)
	}
	return s.writeJSON(c, http.StatusCreated, uploadOf(u))
}

func uploadOf(u replication.Upload) api.Upload {
	return api.Upload{ID: u.ID, Bucket: api.Name(u.Bucket), Key: api.Name(u.Key), Started: u.Started}
}

func partOf(p replication.Part) api.Part {
	return api.Part{Number: p.Number, Size: p.Size, ETag: p.ETag, SHA256: p.SHA256, Modified: p.Modified}
}

// putPart is PUT ?upload=ID&part=N.
func (s *Server) putPart(c *gin.Context, bucket, key string, q url.Values) error {
	number, err := intParam(q, "part", 0, 1, maxParts)
	if err != nil {
		return err
	}
	if number == 0 {
		return object.Errorf(object.KindInvalid, "a part needs part=NUMBER, from 1 to %d", maxParts)
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	r, size, err := s.openWhole(c)
	if err != nil {
		return err
	}
	digests, err := declaredDigests(c.Request.Header)
	if err != nil {
		return err
	}
	if r, err = verify(r, size, digests); err != nil {
		return err
	}
	p, err := s.node.PutPart(ctx, bucket, key, q.Get("upload"), int(number), r, size)
	if err != nil {
		return object.WithOp(err, "put part", bucket, key)
	}
	s.metrics.received.Add(float64(p.Size))
	c.Writer.Header()["Etag"] = []string{`"` + p.ETag + `"`}
	return s.writeJSON(c, http.StatusOK, partOf(p))
}

// listParts is GET ?upload=ID.
func (s *Server) listParts(c *gin.Context, bucket, key string, q url.Values) error {
	after, err := intParam(q, "after", 0, 0, maxParts)
	if err != nil {
		return err
	}
	limit, err := intParam(q, "limit", replication.DefaultListLimit, 1, maxParts)
	if err != nil {
		return err
	}
	parts, err := s.node.Parts(c.Request.Context(), bucket, key, q.Get("upload"), int(after), int(limit))
	if err != nil {
		return object.WithOp(err, "list parts", bucket, key)
	}
	out := api.PartList{Parts: make([]api.Part, len(parts))}
	for i, p := range parts {
		out.Parts[i] = partOf(p)
	}
	if len(parts) == int(limit) {
		out.Next = parts[len(parts)-1].Number
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// completeUpload is POST ?upload=ID: the body names the parts, in order.
func (s *Server) completeUpload(c *gin.Context, bucket, key, upload string) error {
	ctx, cond, err := change(c)
	if err != nil {
		return err
	}
	var in api.PartList
	if err := readJSON(c, s, &in); err != nil {
		return err
	}
	if len(in.Parts) == 0 || len(in.Parts) > maxParts {
		return object.Errorf(object.KindInvalid, "an upload is completed with 1 to %d parts, not %d", maxParts, len(in.Parts))
	}
	parts := make([]replication.Part, len(in.Parts))
	for i, p := range in.Parts {
		if i > 0 && p.Number <= in.Parts[i-1].Number {
			return object.Errorf(object.KindInvalid, "the parts are not in ascending order: %d stands before %d", in.Parts[i-1].Number, p.Number)
		}
		parts[i] = replication.Part{Number: p.Number, Size: p.Size, ETag: p.ETag, SHA256: p.SHA256, Modified: p.Modified}
	}
	obj, err := s.node.CompleteUpload(ctx, bucket, key, upload, parts, cond)
	if err != nil {
		return object.WithOp(err, "complete upload", bucket, key)
	}
	return s.stored(c, http.StatusCreated, bucket, key, obj.Inode)
}

// abortUpload is DELETE ?upload=ID.
func (s *Server) abortUpload(c *gin.Context, bucket, key, upload string) error {
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	if err := s.node.AbortUpload(ctx, bucket, key, upload); err != nil {
		return object.WithOp(err, "abort upload", bucket, key)
	}
	return s.noContent(c)
}

// encodeCursor makes a position, any bytes, fit for a URL.
func encodeCursor(after string) string { return base64.RawURLEncoding.EncodeToString([]byte(after)) }

func decodeCursor(s string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", object.Errorf(object.KindInvalid, "cursor %q is not one that this server gave", s)
	}
	return string(raw), nil
}
