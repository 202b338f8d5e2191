package server

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// defaultDirLimit is the page of a directory when none is asked for.
const defaultDirLimit = 1000

// dirAndName are the directory and the ?name= of an entry.
func dirAndName(c *gin.Context) (dir object.InodeID, name string, q url.Values, err error) {
	if dir, err = inodeParam(c); err != nil {
		return
	}
	if q, err = query(c); err != nil {
		return
	}
	name = q.Get("name")
	return dir, name, q, entryName(name)
}

// attr answers with an inode's record, or with the error that stood in its way.
func (s *Server) attr(c *gin.Context, n *object.Inode, err error, op, name string) error {
	if err != nil {
		return object.WithOp(err, op, "", name)
	}
	return s.writeJSON(c, http.StatusOK, api.Inode{Inode: n})
}

// lookup is GET /fs/dirs/:inode/entry?name=.
func (s *Server) lookup(c *gin.Context) error {
	dir, name, _, err := dirAndName(c)
	if err != nil {
		return err
	}
	n, err := s.node.Lookup(c.Request.Context(), dir, name)
	return s.attr(c, n, err, "lookup", name)
}

// resolve is GET /fs/resolve?bucket=&path=.
func (s *Server) resolve(c *gin.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	n, err := s.node.Resolve(c.Request.Context(), q.Get("bucket"), q.Get("path"))
	if err != nil {
		return object.WithOp(err, "resolve", q.Get("bucket"), q.Get("path"))
	}
	return s.writeJSON(c, http.StatusOK, api.Inode{Inode: n})
}

// getAttr is GET /fs/inodes/:inode.
func (s *Server) getAttr(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	n, err := s.node.GetAttr(c.Request.Context(), ino)
	return s.attr(c, n, err, "getattr", "")
}

// setAttr is PATCH /fs/inodes/:inode.
func (s *Server) setAttr(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	ctx, in, err := request[api.SetAttr](c, s)
	if err != nil {
		return err
	}
	set, err := setAttrOf(in)
	if err != nil {
		return err
	}
	n, err := s.node.SetAttr(ctx, ino, set)
	return s.attr(c, n, err, "setattr", "")
}

// readDir is GET /fs/dirs/:inode/entries?cursor=&limit=&plus.
func (s *Server) readDir(c *gin.Context) error {
	dir, err := inodeParam(c)
	if err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	limit, err := intParam(q, "limit", defaultDirLimit, 1, 1<<31-1)
	if err != nil {
		return err
	}
	var (
		entries []object.DirEntry
		next    string
	)
	err = bounded(int(min(limit, replication.MaxListLimit)), func(limit int) (count, bytes int, err error) {
		entries, next, err = s.node.ReadDir(c.Request.Context(), dir, q.Get("cursor"), limit, q.Has("plus"))
		return len(entries), entryBytes(entries), err
	})
	if err != nil {
		return object.WithOp(err, "readdir", "", "")
	}
	out := api.DirPage{Entries: make([]api.DirEntry, len(entries)), Cursor: api.Name(next)}
	for i, e := range entries {
		out.Entries[i] = api.DirEntry{Name: api.Name(e.Name), ID: api.ID(e.Inode), Type: api.Type(e.Type), Inode: api.Inode{Inode: listed(e.Attr)},
			Plain: e.Attr != nil && len(e.Attr.Xattrs) == 0}
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// listed is a record as directory listings show it: without extended attributes
// and user metadata, which may be larger than everything else in the page.
func listed(n *object.Inode) *object.Inode {
	if n == nil || (n.Xattrs == nil && n.Meta == nil) {
		return n
	}
	short := *n // the engine's record stays as it is
	short.Xattrs, short.Meta = nil, nil
	return &short
}

// maxPageBytes is about what a page of a listing may hold, before it is encoded.
const maxPageBytes = 4 << 20

// perEntry is about what a record takes without the parts of unknown length.
const perEntry = 400

// bounded asks for a page with fewer and fewer entries until it is small enough
// to be sent and read in one piece; the page's cursor leads to the others.
func bounded(limit int, ask func(limit int) (count, bytes int, err error)) error {
	for {
		count, bytes, err := ask(limit)
		if err != nil || bytes <= maxPageBytes || count <= 1 {
			return err
		}
		// Half of what would fit on average, so that few rounds are enough.
		limit = max(1, count*(maxPageBytes/2)/bytes)
	}
}

// entryBytes is about what a directory's entries take as a page.
func entryBytes(entries []object.DirEntry) (sum int) {
	for _, e := range entries {
		sum += len(e.Name)
		if e.Attr != nil {
			sum += perEntry + len(e.Attr.Target) + len(e.Attr.ContentType)
		}
	}
	return sum
}

// readContent is GET /fs/inodes/:inode/content, with Range and ?version=.
func (s *Server) readContent(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	r, err := s.node.OpenInode(c.Request.Context(), ino)
	if err != nil {
		return object.WithOp(err, "read", "", "")
	}
	defer r.Close()
	if q.Has("version") {
		want, err := strconv.ParseUint(q.Get("version"), 10, 64)
		if err != nil {
			return object.Errorf(object.KindInvalid, "version=%q is not a number", q.Get("version"))
		}
		if got := r.Inode().Version; got != want {
			return object.Errorf(object.KindPrecondition, "the content is of version %d, not %d", got, want)
		}
	}
	return s.serve(c, r)
}

// seek is GET /fs/inodes/:inode/seek?offset=[&hole].
func (s *Server) seek(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	offset, err := intParam(q, "offset", 0, 0, object.MaxFileSize)
	if err != nil {
		return err
	}
	at, err := s.node.Seek(c.Request.Context(), ino, offset, q.Has("hole"))
	if err != nil {
		return object.WithOp(err, "seek", "", "")
	}
	return s.writeJSON(c, http.StatusOK, api.Place{Offset: at})
}

// hold is POST /fs/hold.
func (s *Server) hold(c *gin.Context) error { return s.holdOrRelease(c, "hold", s.node.Hold) }

// release is POST /fs/release.
func (s *Server) release(c *gin.Context) error { return s.holdOrRelease(c, "release", s.node.Release) }
