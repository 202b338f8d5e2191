package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

func usageOf(u replication.Usage) api.Usage {
	return api.Usage{TotalBytes: u.TotalBytes, FreeBytes: u.FreeBytes, TotalInodes: u.TotalInodes, FreeInodes: u.FreeInodes}
}

// usage is GET /fs/usage.
func (s *Server) usage(c *gin.Context) error {
	u, err := s.node.Usage(c.Request.Context())
	if err != nil {
		return object.WithOp(err, "statfs", "", "")
	}
	return s.writeJSON(c, http.StatusOK, usageOf(u))
}

// healthz is GET /healthz: the process answers.
func (s *Server) healthz(c *gin.Context) error {
	return s.writeJSON(c, http.StatusOK, api.Health{Status: "ok"})
}

// readyz is GET /readyz: the node serves, and is not about to stop.
func (s *Server) readyz(c *gin.Context) error {
	if s.closing.Err() != nil {
		return object.Errorf(object.KindUnavailable, "the server is shutting down")
	}
	if err := s.starting(); err != nil {
		return err
	}
	if err := s.node.Ready(); err != nil {
		return object.WithOp(err, "ready", "", "")
	}
	return s.writeJSON(c, http.StatusOK, api.Health{Status: "ok"})
}

// events is GET /events?since=: one JSON object a line, a heartbeat first and
// whenever nothing else was sent for a while.
func (s *Server) events(c *gin.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	since, err := api.ParseSince(q.Get("since"))
	if err != nil {
		return err
	}
	sub := s.node.Subscribe(since)
	defer sub.Close()
	ctx, cancel := context.WithCancel(c.Request.Context())
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	h := c.Writer.Header()
	h["Content-Type"] = []string{"application/x-ndjson"}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	c.Status(http.StatusOK)
	// The subscription stands: what changes from here on will be told.
	if err := s.writeEvents(c, nil); err != nil {
		return err
	}
	for {
		events, err := nextEvents(ctx, sub)
		if ctx.Err() != nil {
			return nil // the client left, or the server is stopping: a stream has no other end
		}
		if err != nil {
			return object.WithOp(err, "events", "", "")
		}
		if err := s.writeEvents(c, events); err != nil {
			return err
		}
	}
}

// nextEvents waits for events, or for the time of a heartbeat.
func nextEvents(ctx context.Context, sub *replication.Subscription) ([]replication.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, api.HeartbeatEvery*4/5)
	defer cancel()
	events, err := sub.Next(ctx)
	if err != nil && (errors.Is(err, context.DeadlineExceeded) || object.IsKind(err, object.KindTimeout)) {
		return nil, nil
	}
	return events, err
}

// writeEvents sends a batch; an empty one is a heartbeat.
func (s *Server) writeEvents(c *gin.Context, events []replication.Event) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	if len(events) == 0 {
		if err := enc.Encode(api.Event{Kind: api.EventHeartbeat, Time: time.Now().UTC()}); err != nil {
			return object.WithOp(err, "events", "", "")
		}
	}
	for _, e := range events {
		err := enc.Encode(api.Event{Kind: string(e.Kind), Partition: e.Partition, Index: e.Index, Dir: api.ID(e.Dir), Name: api.Name(e.Name),
			Inode: api.ID(e.Inode), Version: e.Version, Time: e.Time})
		if err != nil {
			return object.WithOp(err, "events", "", "")
		}
	}
	s.armWrite(c)
	if _, err := c.Writer.Write(b.Bytes()); err != nil {
		return gone(err)
	}
	c.Writer.Flush()
	return nil
}
