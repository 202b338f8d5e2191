package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// handler answers one request, or returns the error that answers it. An error
// after the answer has begun cuts the connection: a client must never take a
// part for the whole.
type handler func(c *gin.Context) error

// traffic says how a route counts against the limits.
type traffic int

const (
	counted   traffic = iota // against MaxInFlight
	streaming                // against MaxStreams: what waits for news
	exempt                   // never refused for load: health and metrics
)

// routes declares every route there is. openapi.yaml documents each of them.
func (s *Server) routes() {
	s.handle("GET", "/objects/:bucket/*key", counted, s.getObject)
	s.handle("HEAD", "/objects/:bucket/*key", counted, s.headObject)
	s.handle("PUT", "/objects/:bucket/*key", counted, s.putObject)
	s.handle("POST", "/objects/:bucket/*key", counted, s.postObject)
	s.handle("PATCH", "/objects/:bucket/*key", counted, s.patchObject)
	s.handle("DELETE", "/objects/:bucket/*key", counted, s.deleteObject)

	s.handle("GET", "/buckets", counted, s.listBuckets)
	s.handle("POST", "/buckets", counted, s.createBucket)
	s.handle("GET", "/buckets/:bucket", counted, s.getBucket)
	s.handle("PATCH", "/buckets/:bucket", counted, s.patchBucket)
	s.handle("DELETE", "/buckets/:bucket", counted, s.deleteBucket)
	s.handle("GET", "/buckets/:bucket/objects", counted, s.listObjects)
	s.handle("GET", "/buckets/:bucket/uploads", counted, s.listUploads)

	s.handle("GET", "/fs/resolve", counted, s.resolve)
	s.handle("GET", "/fs/inodes/:inode", counted, s.getAttr)
	s.handle("PATCH", "/fs/inodes/:inode", counted, s.setAttr)
	s.handle("GET", "/fs/inodes/:inode/content", counted, s.readContent)
	s.handle("PUT", "/fs/inodes/:inode/content", counted, s.writeContent)
	s.handle("DELETE", "/fs/inodes/:inode/content", counted, s.punch)
	s.handle("POST", "/fs/inodes/:inode/copy", counted, s.copyRange)
	s.handle("GET", "/fs/inodes/:inode/seek", counted, s.seek)
	s.handle("PUT", "/fs/inodes/:inode/xattr", counted, s.setXattr)
	s.handle("DELETE", "/fs/inodes/:inode/xattr", counted, s.removeXattr)
	s.handle("GET", "/fs/dirs/:inode/entries", counted, s.readDir)
	s.handle("GET", "/fs/dirs/:inode/entry", counted, s.lookup)
	s.handle("POST", "/fs/dirs/:inode/entry", counted, s.create)
	s.handle("PUT", "/fs/dirs/:inode/entry", counted, s.createWith)
	s.handle("DELETE", "/fs/dirs/:inode/entry", counted, s.unlink)
	s.handle("POST", "/fs/dirs/:inode/link", counted, s.link)
	s.handle("POST", "/fs/dirs/:inode/rename", counted, s.rename)
	s.handle("POST", "/fs/inodes/:inode/locks", counted, s.lock)
	s.handle("POST", "/fs/inodes/:inode/locks/wait", streaming, s.waitForLock)
	s.handle("POST", "/fs/inodes/:inode/locks/cancel", counted, s.cancelLock)
	s.handle("GET", "/fs/inodes/:inode/locks", counted, s.testLock)
	s.handle("DELETE", "/fs/inodes/:inode/locks", counted, s.unlock)
	s.handle("POST", "/fs/sessions/:session", counted, s.openLease)
	s.handle("PUT", "/fs/sessions/:session", counted, s.renewLease)
	s.handle("DELETE", "/fs/sessions/:session", counted, s.closeLease)
	s.handle("POST", "/fs/hold", counted, s.hold)
	s.handle("POST", "/fs/release", counted, s.release)
	s.handle("GET", "/fs/usage", counted, s.usage)

	s.handle("GET", "/events", streaming, s.events)
	s.handle("GET", "/cluster", counted, s.cluster)
	s.handle("GET", "/cluster/check", counted, s.check)
	s.handle("GET", "/cluster/nodes", counted, s.clusterNodes)
	s.handle("PATCH", "/cluster/nodes/:node", counted, s.changeNode)
	s.handle("DELETE", "/cluster/nodes/:node", counted, s.removeNode)
	s.handle("POST", "/cluster/nodes/:node/drain", counted, s.drain)
	s.handle("DELETE", "/cluster/nodes/:node/drain", counted, s.undrain)
	s.handle("GET", "/cluster/partitions", counted, s.clusterPartitions)
	s.handle("POST", "/cluster/partitions/:partition/transfer", counted, s.transfer)
	s.handle("GET", "/cluster/settings", counted, s.settings)
	s.handle("PATCH", "/cluster/settings", counted, s.configure)
	s.handle("GET", "/healthz", exempt, s.healthz)
	s.handle("GET", "/readyz", exempt, s.readyz)
	s.handle("GET", "/metrics", exempt, s.metricsPage())
	s.handle("GET", "/openapi.json", exempt, s.openapi)

	s.engine.NoRoute(s.wrap(s.metrics.route("", "none"), exempt, func(c *gin.Context) error {
		return object.Errorf(object.KindNotFound, "there is nothing at %s; GET /openapi.json lists what there is", c.Request.URL.EscapedPath())
	}))
	s.engine.NoMethod(s.wrap(s.metrics.route("", "method"), exempt, s.noMethod))
}

func (s *Server) handle(method, path string, t traffic, h handler) {
	s.engine.Handle(method, path, s.wrap(s.metrics.route(method, path), t, h))
}

// noMethod answers 405; gin has set Allow.
func (s *Server) noMethod(c *gin.Context) error {
	kind := object.KindNotSupported
	c.Header(api.HeaderError, kind.String())
	return s.writeJSON(c, http.StatusMethodNotAllowed, api.Problem{Kind: kind.String(), Hint: api.Hint(kind), RequestID: c.Writer.Header().Get(api.HeaderRequestID),
		Message: fmt.Sprintf("%s is not done on %s; %s is", c.Request.Method, c.Request.URL.EscapedPath(), c.Writer.Header().Get("Allow"))})
}

// wrap is what happens around every handler: limits, request id, the error
// answer, counters and the log line.
func (s *Server) wrap(m *routeMetrics, t traffic, h handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		id := s.ids.of(c.Request)
		header := c.Writer.Header()
		header[api.HeaderRequestID] = id
		header["Server"] = s.header
		if s.attached.Load() {
			header[api.HeaderCluster] = s.clusterID
		}
		s.metrics.inFlight.Inc()
		err := s.admit(c, t, h)
		s.metrics.inFlight.Dec()
		aborted := err != nil && !s.answerError(c, err, id[0])
		took := time.Since(start)
		m.observe(c.Writer.Status(), took, c.Writer.Size())
		s.logRequest(c, id[0], err, took)
		if aborted {
			panic(http.ErrAbortHandler) // net/http cuts the connection and logs nothing
		}
	}
}

// admit runs the handler if the limits and the origin allow it.
func (s *Server) admit(c *gin.Context, t traffic, h handler) (err error) {
	load, limit := &s.inFlight, s.opts.MaxInFlight
	if t == streaming {
		load, limit = &s.streams, s.opts.MaxStreams
	}
	if t != exempt {
		defer load.Add(-1)
		if load.Add(1) > int64(limit) {
			return object.Errorf(object.KindOverload, "the server has %d requests in flight, its limit", limit)
		}
	}
	if err := s.checkOrigin(c.Request); err != nil {
		return err
	}
	if t != exempt {
		if err := s.starting(); err != nil {
			return err
		}
	}
	if v := c.Request.Header[api.HeaderCluster]; s.attached.Load() && len(v) > 0 && v[0] != s.clusterID[0] {
		return object.Errorf(object.KindUnavailable, "this node is of cluster %s, and the client's other nodes are of %s: give it the endpoints of one cluster", s.clusterID[0], v[0])
	}
	s.armWrite(c)
	defer recoverInto(&err)
	return h(c)
}

// panicError is a handler's panic on its way to the log.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string {
	return fmt.Sprintf("the server failed unexpectedly: %v", p.value)
}

func recoverInto(err *error) {
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler {
			panic(v)
		}
		*err = &panicError{v, debug.Stack()}
	}
}

// checkOrigin keeps a web page in somebody's browser from using a server that asks for no
// credentials: by a form or a script of another site (CSRF), or through a name of the
// page's own that resolves to the server (DNS rebinding).
func (s *Server) checkOrigin(r *http.Request) error {
	if err := s.origins.Check(r); err != nil {
		return object.Errorf(object.KindPermission, "a page of another site may not change anything here: %w", err)
	}
	host := hostOf(r.Host)
	if s.names[AnyHost] || s.names[host] || knownHost(host) {
		return nil
	}
	return object.Errorf(object.KindPermission, "the host name %q is none of this server's, and a web page could have given it that name: use an IP address or localhost, "+
		"or start the server with --allow-host %s if the name is yours", host, host)
}

// hostOf is the name in a Host header, without port, brackets and the root's dot.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// knownHost reports whether nobody else can own a name: IP addresses, and loopback's
// (RFC 6761, section 6.3, has resolvers and browsers keep all below "localhost" to the machine). A browser
// always sends a name; HTTP/1.0 sends none.
func knownHost(host string) bool {
	return host == "" || net.ParseIP(host) != nil || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// answerError writes the error answer; false: an answer has begun already.
func (s *Server) answerError(c *gin.Context, err error, id string) bool {
	if c.Writer.Written() {
		return false
	}
	kind := object.KindOf(err)
	header := c.Writer.Header()
	header[api.HeaderError] = []string{kind.String()}
	if kind == object.KindNotModified {
		c.Status(http.StatusNotModified)
		c.Writer.WriteHeaderNow()
		return true
	}
	for _, name := range []string{"Content-Length", "Content-Range", "Etag", "Last-Modified", "Accept-Ranges"} {
		if name != "Content-Range" || kind != object.KindRange {
			delete(header, name)
		}
	}
	header["Cache-Control"] = []string{"no-store"}
	if kind == object.KindUnavailable || kind == object.KindOverload {
		header["Retry-After"] = []string{"1"}
	}
	p := api.Problem{Kind: kind.String(), Message: err.Error(), Hint: api.Hint(kind), RequestID: id}
	return s.writeJSON(c, api.Status(kind), p) == nil
}

// logRequest writes the request's line: errors of ours as errors, refusals as
// warnings where they tell of trouble, everything else at debug level.
func (s *Server) logRequest(c *gin.Context, id string, err error, took time.Duration) {
	level, p := slog.LevelDebug, (*panicError)(nil)
	if err != nil {
		level, p = severity(err)
	}
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{slog.String("request_id", id), slog.String("method", c.Request.Method), slog.String("path", c.Request.URL.EscapedPath()),
		slog.Int("status", c.Writer.Status()), slog.Int("bytes", max(c.Writer.Size(), 0)), slog.Duration("took", took),
		slog.String("remote", c.Request.RemoteAddr)}
	if err != nil {
		attrs = append(attrs, slog.String("kind", object.KindOf(err).String()), slog.String("error", err.Error()))
	}
	if p != nil {
		attrs = append(attrs, slog.String("stack", string(p.stack)))
	}
	s.log.LogAttrs(context.Background(), level, "request", attrs...)
}

// severity is the level at which an error is logged, and the panic that it is, if any.
func severity(err error) (level slog.Level, p *panicError) {
	switch {
	case errors.As(err, &p), object.IsKind(err, object.KindInternal), object.IsKind(err, object.KindCorrupt):
		return slog.LevelError, p
	case api.Status(object.KindOf(err)) >= 500:
		return slog.LevelWarn, nil
	}
	return slog.LevelDebug, nil
}

// requestIDs makes request ids: the server's random start and a count.
type requestIDs struct {
	prefix string
	next   *atomic.Uint64
}

func newRequestIDs() (requestIDs, error) {
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		return requestIDs{}, object.WithOp(err, "request ids", "", "")
	}
	return requestIDs{hex.EncodeToString(b[:]) + "-", new(atomic.Uint64)}, nil
}

// of is the id of a request, as the value of its header: the client's where it
// is fit to print, else a new one.
func (i requestIDs) of(r *http.Request) []string {
	if v := r.Header[api.HeaderRequestID]; len(v) == 1 && fitID(v[0]) {
		return v
	}
	return []string{i.prefix + strconv.FormatUint(i.next.Add(1), 16)}
}

func fitID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
