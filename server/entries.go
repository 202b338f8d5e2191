package server

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// unlink is DELETE /fs/dirs/:inode/entry?name=, and with &dir an rmdir.
func (s *Server) unlink(c *gin.Context) error {
	dir, name, q, err := dirAndName(c)
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	op, remove := "unlink", s.node.Unlink
	if q.Has("dir") {
		op, remove = "rmdir", s.node.Rmdir
	}
	if err := remove(ctx, dir, name); err != nil {
		return object.WithOp(err, op, "", name)
	}
	return s.noContent(c)
}

// link is POST /fs/dirs/:inode/link?name=.
func (s *Server) link(c *gin.Context) error {
	dir, name, _, err := dirAndName(c)
	if err != nil {
		return err
	}
	ctx, in, err := request[api.LinkRequest](c, s)
	if err != nil {
		return err
	}
	if in.Inode == 0 {
		return object.Errorf(object.KindInvalid, "a link needs the inode that gets the name")
	}
	n, err := s.node.Link(ctx, object.InodeID(in.Inode), dir, name)
	if err != nil {
		return object.WithOp(err, "link", "", name)
	}
	return s.writeJSON(c, http.StatusCreated, api.Inode{Inode: n})
}

// rename is POST /fs/dirs/:inode/rename.
func (s *Server) rename(c *gin.Context) error {
	dir, err := inodeParam(c)
	if err != nil {
		return err
	}
	ctx, in, err := request[api.RenameRequest](c, s)
	if err != nil {
		return err
	}
	for _, name := range []api.Name{in.Name, in.NewName} {
		if err := entryName(string(name)); err != nil {
			return err
		}
	}
	if in.NewDir == 0 {
		return object.Errorf(object.KindInvalid, "a rename needs new_dir, the inode of the directory it goes to")
	}
	err = s.node.Rename(ctx, dir, string(in.Name), object.InodeID(in.NewDir), string(in.NewName),
		replication.RenameFlags{NoReplace: in.NoReplace, Exchange: in.Exchange})
	if err != nil {
		return object.WithOp(err, "rename", "", string(in.Name))
	}
	return s.noContent(c)
}
