package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// lease is how the session of a path is registered or renewed.
func (s *Server) lease(c *gin.Context, op string, do func(context.Context, object.UploadID) (time.Duration, error)) error {
	session, err := object.ParseUploadID(c.Param("session"))
	if err != nil {
		return err
	}
	d, err := do(c.Request.Context(), session)
	if err != nil {
		return object.WithOp(err, op, "", "")
	}
	return s.writeJSON(c, http.StatusOK, api.Lease{LeaseMS: d.Milliseconds()})
}

// openLease is POST /fs/sessions/:session.
func (s *Server) openLease(c *gin.Context) error {
	return s.lease(c, "register session", s.node.OpenLease)
}

// renewLease is PUT /fs/sessions/:session.
func (s *Server) renewLease(c *gin.Context) error {
	return s.lease(c, "renew session", s.node.RenewLease)
}

// closeLease is DELETE /fs/sessions/:session.
func (s *Server) closeLease(c *gin.Context) error {
	session, err := object.ParseUploadID(c.Param("session"))
	if err != nil {
		return err
	}
	if err := s.node.CloseLease(c.Request.Context(), session); err != nil {
		return object.WithOp(err, "close session", "", "")
	}
	return s.noContent(c)
}

// lockRequest reads what POST .../locks and .../locks/wait ask for.
func (s *Server) lockRequest(c *gin.Context) (ctx context.Context, ino object.InodeID, l object.Lock, wait time.Duration, err error) {
	if ino, err = inodeParam(c); err != nil {
		return
	}
	var in api.LockRequest
	if ctx, in, err = request[api.LockRequest](c, s); err != nil {
		return
	}
	if in.WaitMS < 0 || in.WaitMS > replication.MaxLockWait.Milliseconds() {
		err = object.Errorf(object.KindInvalid, "wait_ms is %d: give up to %d, and ask again", in.WaitMS, replication.MaxLockWait.Milliseconds())
		return
	}
	l, err = in.Object()
	return ctx, ino, l, time.Duration(in.WaitMS) * time.Millisecond, err
}

// lock is POST /fs/inodes/:inode/locks.
func (s *Server) lock(c *gin.Context) error {
	ctx, ino, l, wait, err := s.lockRequest(c)
	if err == nil && wait > 0 {
		err = object.Errorf(object.KindInvalid, "wait_ms is for /locks/wait")
	}
	if err != nil {
		return err
	}
	a, err := s.node.Lock(ctx, ino, l, 0)
	return s.lockAnswer(c, a, err, "lock")
}

// waitForLock is POST /fs/inodes/:inode/locks/wait.
func (s *Server) waitForLock(c *gin.Context) error {
	ctx, ino, l, wait, err := s.lockRequest(c)
	if err == nil && wait == 0 {
		err = object.Errorf(object.KindInvalid, "wait_ms is missing: give 1 to %d", replication.MaxLockWait.Milliseconds())
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	a, err := s.node.Lock(ctx, ino, l, wait)
	if err != nil && s.closing.Err() != nil {
		err = object.Errorf(object.KindUnavailable, "the node is stopping: ask another one")
	}
	return s.lockAnswer(c, a, err, "lock")
}

func (s *Server) lockAnswer(c *gin.Context, a replication.LockAnswer, err error, op string) error {
	if err != nil {
		return object.WithOp(err, op, "", "")
	}
	out := api.LockAnswer{Granted: a.Granted}
	if a.Conflict != nil {
		l := api.LockOf(*a.Conflict)
		out.Conflict = &l
	}
	return s.writeJSON(c, http.StatusOK, out)
}

// cancelLock is POST /fs/inodes/:inode/locks/cancel.
func (s *Server) cancelLock(c *gin.Context) error {
	ino, err := inodeParam(c)
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	granted, err := s.node.CancelLock(ctx, ino)
	return s.lockAnswer(c, replication.LockAnswer{Granted: granted}, err, "cancel lock")
}

// lockInQuery reads the inode and the lock of a path and a query.
func lockInQuery(c *gin.Context) (ino object.InodeID, l object.Lock, err error) {
	if ino, err = inodeParam(c); err != nil {
		return
	}
	q, err := query(c)
	if err != nil {
		return
	}
	var in api.Lock
	if err = in.Class.UnmarshalText([]byte(q.Get("class"))); err != nil {
		return
	}
	if in.Owner, err = strconv.ParseUint(q.Get("owner"), 10, 64); err != nil {
		return ino, l, object.Errorf(object.KindInvalid, "owner=%q is not a number of 64 bits", q.Get("owner"))
	}
	if in.First, err = intParam(q, "first", 0, 0, object.LastByte); err != nil {
		return
	}
	if in.Last, err = intParam(q, "last", object.LastByte, 0, object.LastByte); err != nil {
		return
	}
	if in.Exclusive, err = boolParam(q, "exclusive"); err != nil {
		return
	}
	in.Session = q.Get("session")
	l, err = in.Object()
	return ino, l, err
}

// testLock is GET /fs/inodes/:inode/locks.
func (s *Server) testLock(c *gin.Context) error {
	ino, l, err := lockInQuery(c)
	if err != nil {
		return err
	}
	conflict, err := s.node.TestLock(c.Request.Context(), ino, l)
	return s.lockAnswer(c, replication.LockAnswer{Granted: conflict == nil, Conflict: conflict}, err, "test lock")
}

// unlock is DELETE /fs/inodes/:inode/locks.
func (s *Server) unlock(c *gin.Context) error {
	ino, l, err := lockInQuery(c)
	if err != nil {
		return err
	}
	ctx, err := unconditional(c)
	if err != nil {
		return err
	}
	if err := s.node.Unlock(ctx, ino, l); err != nil {
		return object.WithOp(err, "unlock", "", "")
	}
	return s.noContent(c)
}
