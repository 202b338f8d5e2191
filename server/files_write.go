package server

import (
	"context"
	"io"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// nodeOf checks a NewNode from the wire.
func nodeOf(in api.NewNode) (replication.NewNode, error) {
	out := replication.NewNode{Type: object.FileType(in.Type), Mode: in.Mode, UID: in.UID, GID: in.GID, Rdev: in.Rdev, Target: string(in.Target), Umasked: in.Umasked}
	switch {
	case in.Type == 0:
		return out, object.Errorf(object.KindInvalid, "a new node needs its type: file, dir, symlink, fifo, socket, char or block")
	case in.Umasked&^0o777 != 0:
		return out, object.Errorf(object.KindInvalid, "umasked %o has more than the bits 0777", in.Umasked)
	case in.Mode&^0o7777 != 0:
		return out, object.Errorf(object.KindInvalid, "mode %o has more than the bits 07777", in.Mode)
	case len(in.Target) > object.MaxSymlink:
		return out, object.Errorf(object.KindNameTooLong, "the link's target has %d bytes; up to %d are allowed", len(in.Target), object.MaxSymlink)
	}
	return out, nil
}

// create is POST /fs/dirs/:inode/entry?name=.
func (s *Server) create(c *gin.Context) error {
	dir, name, _, err := dirAndName(c)
	if err != nil {
		return err
	}
	ctx, in, err := request[api.NewNode](c, s)
	if err != nil {
		return err
	}
	node, err := nodeOf(in)
	if err != nil {
		return err
	}
	n, created, err := s.node.Create(ctx, dir, name, node, in.Exclusive)
	if err != nil {
		return object.WithOp(err, "create", "", name)
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return s.writeJSON(c, status, api.Created{Inode: api.Inode{Inode: n}, Created: created})
}

// content reads what a write by inode has in common: body, attributes that
// travel with it, digests, conditions.
func (s *Server) content(c *gin.Context) (ctx context.Context, r io.Reader, o replication.WriteOptions, err error) {
	if ctx, o.Cond, err = change(c); err != nil {
		return
	}
	if r, o.Size, err = s.openWhole(c); err != nil {
		return
	}
	if raw := c.GetHeader(api.HeaderAttr); raw != "" {
		var a api.SetAttr
		if err = decodeJSON(api.HeaderAttr+" header", []byte(raw), &a); err != nil {
			return
		}
		if a.Size != nil {
			err = object.Errorf(object.KindInvalid, "%s with a write carries no size; use ?truncate", api.HeaderAttr)
			return
		}
		if o.Attr, err = setAttrOf(a); err != nil {
			return
		}
	}
	digests, err := declaredDigests(c.Request.Header)
	if err != nil {
		return
	}
	r, err = verifyWhole(r, o.Size, digests)
	return
}

// createWith is PUT /fs/dirs/:inode/entry?name=: a file with its whole content.
func (s *Server) createWith(c *gin.Context) error {
	dir, name, _, err := dirAndName(c)
	if err != nil {
		return err
	}
	in := api.NewNode{Type: api.Type(object.TypeRegular), Mode: 0o644}
	if raw := c.GetHeader(api.HeaderNode); raw != "" {
		if err := decodeJSON(api.HeaderNode+" header", []byte(raw), &in); err != nil {
			return err
		}
	}
	node, err := nodeOf(in)
	if err != nil {
		return err
	}
	ctx, r, o, err := s.content(c)
	if err != nil {
		return err
	}
	n, err := s.node.CreateWith(ctx, dir, name, node, r, o)
	if err != nil {
		return object.WithOp(err, "create", "", name)
	}
	s.metrics.received.Add(float64(n.Size))
	return s.writeJSON(c, http.StatusCreated, api.Inode{Inode: n})
}

// writeContent is PUT /fs/inodes/:inode/content?offset=N|append[&truncate].
func (s *Server) writeContent(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	if q.Has("append") == q.Has("offset") {
		return object.Errorf(object.KindInvalid, "a write needs either offset=N or append")
	}
	offset, err := intParam(q, "offset", 0, 0, object.MaxFileSize)
	if err != nil {
		return err
	}
	ctx, r, o, err := s.content(c)
	if err != nil {
		return err
	}
	o.Append, o.Truncate = q.Has("append"), q.Has("truncate")
	n, at, err := s.node.Write(ctx, ino, offset, r, o)
	if err != nil {
		return object.WithOp(err, "write", "", "")
	}
	s.metrics.received.Add(float64(max(o.Size, 0)))
	return s.writeJSON(c, http.StatusOK, api.Written{Inode: api.Inode{Inode: n}, Offset: at})
}

// punch is DELETE /fs/inodes/:inode/content?offset=&length=[&grow].
func (s *Server) punch(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	if !q.Has("offset") || !q.Has("length") {
		return object.Errorf(object.KindInvalid, "a hole needs offset=N and length=N")
	}
	offset, err := intParam(q, "offset", 0, 0, object.MaxFileSize)
	if err != nil {
		return err
	}
	least := int64(1)
	if q.Has("grow") {
		least = 0
	}
	length, err := intParam(q, "length", 0, least, object.MaxFileSize)
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	n, err := s.node.Punch(ctx, ino, offset, length, q.Has("grow"))
	return s.attr(c, n, err, "punch", "")
}

// copyRange is POST /fs/inodes/:inode/copy.
func (s *Server) copyRange(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	ctx, in, err := request[api.CopyRange](c, s)
	if err != nil {
		return err
	}
	if in.Source == 0 || in.SourceOffset < 0 || in.Offset < 0 || in.Length < 0 ||
		in.Offset > object.MaxFileSize-in.Length || in.SourceOffset > object.MaxFileSize-in.Length {
		return object.Errorf(object.KindInvalid, "a copy needs a source, and offsets and a length that are not negative and inside the largest file")
	}
	n, copied, err := s.node.CopyRange(ctx, object.InodeID(in.Source), in.SourceOffset, ino, in.Offset, in.Length)
	if err != nil {
		return object.WithOp(err, "copy range", "", "")
	}
	return s.writeJSON(c, http.StatusOK, api.Written{Inode: api.Inode{Inode: n}, Offset: in.Offset, Length: copied})
}

// setXattr is PUT /fs/inodes/:inode/xattr?name=.
func (s *Server) setXattr(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	return s.writeXattr(ctx, c, ino, q.Get("name"), q)
}

// removeXattr is DELETE /fs/inodes/:inode/xattr?name=.
func (s *Server) removeXattr(c *gin.Context) error {
	ino, name, _, err := dirAndName(c)
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	if err := s.node.RemoveXattr(ctx, ino, name); err != nil {
		return object.WithOp(err, "remove xattr", "", name)
	}
	return s.noContent(c)
}

// holdOrRelease reads which files of which session are meant.
func (s *Server) holdOrRelease(c *gin.Context, op string, do func(context.Context, object.UploadID, []object.InodeID) error) error {
	ctx, in, err := request[api.HoldRequest](c, s)
	if err != nil {
		return err
	}
	session, err := object.ParseUploadID(in.Session)
	if err != nil {
		return err
	}
	inos := make([]object.InodeID, len(in.Inodes))
	for i, id := range in.Inodes {
		if id == 0 {
			return object.Errorf(object.KindInvalid, "an inode number is empty")
		}
		inos[i] = object.InodeID(id)
	}
	if err := do(ctx, session, inos); err != nil {
		return object.WithOp(err, op, "", "")
	}
	return s.noContent(c)
}
