package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// body is a request's body: bounded in size, ended when it makes no progress,
// and with errors that have kinds. Nothing is read, and so no "100 Continue"
// sent, before the first Read.
type body struct {
	r     io.Reader
	rc    *http.ResponseController
	idle  time.Duration
	limit int64 // bytes that may still come
	max   int64
	armed time.Time
	ended bool
}

// Close leaves the rest of the body to net/http.
func (b *body) Close() error { return nil }

// bodyOf puts a body in the request's place, for armAnswer to find it.
func (s *Server) bodyOf(c *gin.Context, limit int64) *body {
	b := &body{r: c.Request.Body, rc: http.NewResponseController(c.Writer), idle: s.opts.IdleTimeout, limit: limit, max: limit}
	c.Request.Body = b
	return b
}

// openBody checks the declared length against the limit and returns the body
// and its length, or -1 where that is unknown.
func (s *Server) openBody(c *gin.Context) (io.Reader, int64, error) {
	r := c.Request
	if err := refuseCoding(r.Header); err != nil {
		return nil, 0, err
	}
	if r.ContentLength > s.opts.MaxObjectSize {
		return nil, 0, tooLarge(s.opts.MaxObjectSize)
	}
	return s.bodyOf(c, s.opts.MaxObjectSize), r.ContentLength, nil
}

// openWhole is openBody where the body is the whole of what is stored.
func (s *Server) openWhole(c *gin.Context) (io.Reader, int64, error) {
	if err := refuseFragment(c.Request.Header); err != nil {
		return nil, 0, err
	}
	return s.openBody(c)
}

// refuseCoding refuses a body that would have to be decoded, now or by its readers.
func refuseCoding(h http.Header) error {
	if e := strings.Join(h["Content-Encoding"], ", "); e != "" && e != "identity" {
		return object.Errorf(object.KindNotSupported, "Content-Encoding %q is not kept; send the bytes as they are to be stored", e)
	}
	return nil
}

// refuseFragment refuses a body that is a part of something: stored as the whole
// it would destroy the rest (RFC 9110 section 14.5).
func refuseFragment(h http.Header) error {
	if len(h["Content-Range"]) > 0 {
		return object.Errorf(object.KindInvalid, "Content-Range says that the body is only a part, but this request stores the whole; PATCH /objects/BUCKET/KEY writes a range")
	}
	return nil
}

func tooLarge(limit int64) error {
	return object.Errorf(object.KindTooLarge, "the body is larger than %d bytes, the limit of one request", limit)
}

func (b *body) Read(p []byte) (int, error) {
	if now := time.Now(); !b.ended && now.Sub(b.armed) > b.idle/8 {
		b.armed = now
		_ = b.rc.SetReadDeadline(now.Add(b.idle)) // a handler without a connection (a test's) has no deadline to set
	}
	n, err := b.r.Read(p)
	if b.limit -= int64(n); b.limit < 0 {
		err = tooLarge(b.max)
		n = 0
	}
	if err == io.EOF {
		// net/http goes on reading, to notice a client that leaves: without an
		// end of the deadline it would take a slow commit for one.
		b.ended = true
		_ = b.rc.SetReadDeadline(time.Time{})
	} else if err != nil {
		err = bodyError(err, b.idle)
	}
	return n, err
}

// bodyError gives the error of a read its kind.
func bodyError(err error, idle time.Duration) error {
	var own *object.Error
	switch {
	case err == io.EOF, errors.As(err, &own):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &object.Error{Kind: object.KindIncomplete, Err: fmt.Errorf("no byte of the body came for %v", idle)}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &object.Error{Kind: object.KindIncomplete, Err: errors.New("the body ended before its declared length")}
	}
	return &object.Error{Kind: object.KindIncomplete, Err: fmt.Errorf("the body broke off: %w", err)}
}

// readSmall reads a body of up to limit bytes.
func (s *Server) readSmall(c *gin.Context, limit int64) ([]byte, error) {
	if c.Request.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	return io.ReadAll(s.bodyOf(c, limit))
}

// readVerified is readSmall for bytes that are stored: what the client declares
// of them is checked.
func (s *Server) readVerified(c *gin.Context, limit int64) ([]byte, error) {
	if err := refuseCoding(c.Request.Header); err != nil {
		return nil, err
	}
	digests, err := declaredDigests(c.Request.Header)
	if err != nil {
		return nil, err
	}
	value, err := s.readSmall(c, limit)
	if err != nil {
		return nil, err
	}
	checked, err := verify(bytes.NewReader(value), int64(len(value)), digests)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(checked)
}

// readJSON reads a small JSON body.
func readJSON(c *gin.Context, s *Server, out any) error {
	raw, err := s.readSmall(c, maxJSONBody)
	if err != nil {
		return err
	}
	return decodeJSON("body", raw, out)
}

func decodeJSON(what string, raw []byte, out any) error {
	if err := json.Unmarshal(raw, out); err != nil {
		return object.Errorf(object.KindInvalid, "the %s is not the JSON that belongs here: %w", what, err)
	}
	return nil
}

// writeJSON answers with a value. It must be the last thing a handler does.
func (s *Server) writeJSON(c *gin.Context, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return &object.Error{Kind: object.KindInternal, Err: fmt.Errorf("answer: %w", err)}
	}
	h := c.Writer.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(raw) + 1)}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	s.armAnswer(c)
	c.Status(status)
	c.Writer.WriteHeaderNow()
	_, err = c.Writer.Write(append(raw, '\n'))
	return gone(err)
}

// noContent answers 204.
func (s *Server) noContent(c *gin.Context) error {
	s.armAnswer(c)
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// gone gives the error of a write to the client its kind.
func gone(err error) error {
	if err == nil {
		return nil
	}
	return &object.Error{Kind: object.KindCanceled, Err: fmt.Errorf("the client went away: %w", err)}
}

// armWrite gives the client until IdleTimeout from now to take what is written
// next. Each request sets it when it starts and before each answer, so none
// inherits an old one.
func (s *Server) armWrite(c *gin.Context) {
	_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(s.opts.IdleTimeout)) // as in body.Read
}

// drainTimeout is how long net/http may wait for the rest of a body that no
// handler wants, before it writes the answer. It is shorter than the deadline of
// that answer.
const drainTimeout = time.Second

// armAnswer is armWrite for an answer that ends the request. A body that was
// read to its end gets no deadline: net/http watches the connection by then, and
// a deadline that passes there (when the machine stands still for a second) looks
// to it like a client that left: it ends the contexts of all later requests of
// the connection, though they still arrive.
func (s *Server) armAnswer(c *gin.Context) {
	s.armWrite(c)
	if b, ours := c.Request.Body.(*body); c.Request.ContentLength != 0 && !(ours && b.ended) {
		_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(min(drainTimeout, s.opts.IdleTimeout/2))) // as in body.Read
	}
}

// progress is a writer to a client that extends its deadline while bytes are taken.
type progress struct {
	w     io.Writer
	rc    *http.ResponseController
	idle  time.Duration
	armed time.Time
}

func (s *Server) progress(c *gin.Context) *progress {
	return &progress{w: c.Writer, rc: http.NewResponseController(c.Writer), idle: s.opts.IdleTimeout, armed: time.Now()}
}

func (p *progress) Write(b []byte) (int, error) {
	if now := time.Now(); now.Sub(p.armed) > p.idle/8 {
		p.armed = now
		_ = p.rc.SetWriteDeadline(now.Add(p.idle)) // as in body.Read
	}
	n, err := p.w.Write(b)
	return n, gone(err)
}

// token reads the mutation's token.
func token(h http.Header) (t replication.Token, err error) {
	id := h.Get(api.HeaderSession)
	if id == "" {
		return t, nil
	}
	if t.Session, err = object.ParseUploadID(id); err != nil {
		return t, object.Errorf(object.KindInvalid, "%s: %w", api.HeaderSession, err)
	}
	if t.Seq, err = strconv.ParseUint(h.Get(api.HeaderSeq), 10, 64); err != nil || t.Seq == 0 || t.Session.IsZero() {
		return t, object.Errorf(object.KindInvalid, "%s needs a session that is not zero and %s, a number from 1", api.HeaderSession, api.HeaderSeq)
	}
	if v := h.Get(api.HeaderAck); v != "" {
		if t.Ack, err = strconv.ParseUint(v, 10, 64); err != nil || t.Ack >= t.Seq {
			return t, object.Errorf(object.KindInvalid, "%s must be a number below %s", api.HeaderAck, api.HeaderSeq)
		}
	}
	t.Retry = h.Get(api.HeaderRetry) == "1"
	return t, nil
}
