// Package server is the HTTP face of one node: gin handlers for the contract of
// server/api over a replication.Node, and the lifecycle around them.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/skshohagmiah/bucketdb/replication"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// AnyHost in Options.AllowHosts stands for all names.
const AnyHost = "*"

// Defaults of Options.
const (
	DefaultMaxObjectSize = 5 << 30
	DefaultMaxInFlight   = 1024
	DefaultMaxStreams    = 1024
	DefaultIdleTimeout   = 30 * time.Second

	readHeaderTimeout = 10 * time.Second
	keepAliveTimeout  = 2 * time.Minute
	maxHeaderBytes    = 160 << 10 // user metadata of up to object.MaxXattrTotal travels in headers
	maxJSONBody       = 4 << 20
)

// Options configure a Server; the zero value is good.
type Options struct {
	// MaxObjectSize bounds one body, in bytes; 0: DefaultMaxObjectSize.
	MaxObjectSize int64
	// MaxInFlight bounds the requests that are served at once; more get
	// KindOverload. Event streams, and who waits for a lock, count by themselves, against
	// MaxStreams.
	MaxInFlight int
	MaxStreams  int
	// IdleTimeout ends a request whose body, or whose reader, makes no progress.
	// There is no limit on the whole time of a transfer that goes on.
	IdleTimeout time.Duration
	// AllowAnonymous serves addresses off loopback without credentials.
	AllowAnonymous bool
	// AllowHosts are host names by which clients may ask for this server, besides IP addresses and
	// loopback's names: whoever is not asked for credentials is refused under any other
	// (KindPermission), or a web page could rebind a name of its own to the server. A port is ignored. AnyHost
	// allows all of them; who does that must keep browsers away by other means.
	AllowHosts []string
	// Logger receives one line for each failed request, and at debug level one
	// for each other; nil: nothing is logged.
	Logger *slog.Logger
	// Version is shown in the Server header.
	Version string
	// Waiting says what a node that is not attached yet waits for, in words for people; "" or
	// nil: nothing that it knows of. Safe for concurrent use.
	Waiting func() string
}

func (o Options) complete() (Options, error) {
	if o.MaxObjectSize < 0 || o.MaxInFlight < 0 || o.MaxStreams < 0 || o.IdleTimeout < 0 {
		return o, object.Errorf(object.KindInvalid, "a limit of the server is negative; use 0 for its default")
	}
	if o.MaxObjectSize == 0 {
		o.MaxObjectSize = DefaultMaxObjectSize
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = DefaultMaxStreams
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = DefaultIdleTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Server serves one node. It is safe for concurrent use. It does not own the
// node: close that after Shutdown.
type Server struct {
	node *replication.Node // not to be touched before attached
	// attached: node and clusterID are there.
	attached atomic.Bool
	opts     Options
	log      *slog.Logger
	engine   *gin.Engine
	metrics  *metrics
	ids      requestIDs
	origins  *http.CrossOriginProtection
	header   []string        // value of the Server header
	names    map[string]bool // host names that clients may use
	// clusterID is the value of the header that names the cluster.
	clusterID []string

	contract []byte // the OpenAPI document

	checking chan struct{} // holds a token while a check runs

	inFlight atomic.Int64
	streams  atomic.Int64

	closing context.Context // ends when Shutdown begins
	close   context.CancelFunc

	mu   sync.Mutex // guards http
	http []*http.Server
}

// New makes a server of node. Without one (nil) it answers KindUnavailable, and says
// what the start waits for, until Attach: a node that waits for others for long should be
// told from one that hangs.
func New(node *replication.Node, opts Options) (*Server, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	s := &Server{node: node, opts: opts, log: opts.Logger.With("component", "server"), origins: http.NewCrossOriginProtection(),
		header: []string{strings.TrimSuffix("bucketdb/"+opts.Version, "/")}, clusterID: []string{""}, checking: make(chan struct{}, 1), names: map[string]bool{}}
	for _, name := range opts.AllowHosts {
		if name = hostOf(name); name != "" {
			s.names[name] = true
		}
	}
	if node != nil {
		s.Attach(node)
	}
	s.closing, s.close = context.WithCancel(context.Background())
	if s.ids, err = newRequestIDs(); err != nil {
		s.close()
		return nil, err
	}
	if s.contract, err = openapiJSON(); err != nil {
		s.close()
		return nil, err
	}
	s.metrics = newMetrics(s)
	s.engine = newEngine()
	s.routes()
	return s, nil
}

// Attach gives a server that was made without a node the one that it serves from now
// on. Call it once.
func (s *Server) Attach(node *replication.Node) {
	s.node, s.clusterID = node, []string{node.ClusterID()}
	s.attached.Store(true)
}

// starting is the error of a node that does not serve yet; nil once it is there.
func (s *Server) starting() error {
	if s.attached.Load() {
		return nil
	}
	if s.opts.Waiting != nil {
		if what := s.opts.Waiting(); what != "" {
			return object.Errorf(object.KindUnavailable, "the node is starting: %s", what)
		}
	}
	return object.Errorf(object.KindUnavailable, "the node is starting")
}

// newEngine is a gin engine that hands every path over exactly as it arrived.
func newEngine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.UseEscapedPath = true      // %2F is not a separator of ours
	e.UnescapePathValues = false // gin would read '+' as a space; see pathParam
	e.RedirectTrailingSlash = false
	e.RedirectFixedPath = false
	e.RemoveExtraSlash = false
	e.HandleMethodNotAllowed = true
	e.ContextWithFallback = false
	return e
}

// Handler serves all routes. Requests through it have no connection timeouts;
// Serve adds those.
func (s *Server) Handler() http.Handler { return s.engine }

// Serve answers on l until Shutdown, after which it returns nil, or until the
// listener fails. l is closed. It refuses an address off loopback as CheckListen does.
func (s *Server) Serve(l net.Listener) error {
	if err := CheckListen(l.Addr().String(), s.opts.AllowAnonymous); err != nil {
		return errors.Join(err, l.Close())
	}
	h := &http.Server{
		Handler:           s.engine,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       keepAliveTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		return errors.Join(object.Errorf(object.KindUnavailable, "the server was shut down"), l.Close())
	}
	s.http = append(s.http, h)
	s.mu.Unlock()
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return object.WithOp(err, "serve "+l.Addr().String(), "", "")
	}
	return nil
}

// Shutdown stops accepting, ends event streams, and waits for the requests in
// flight. When ctx ends first, their connections are cut and its error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.close()
	servers := s.http
	s.mu.Unlock()
	var errs []error
	for _, h := range servers {
		if err := h.Shutdown(ctx); err != nil {
			errs = append(errs, object.WithOp(err, "shutdown", "", ""), h.Close())
		}
	}
	return errors.Join(errs...)
}

// CheckListen refuses an address that is not on loopback unless anonymous
// access was allowed; "" or ":port" are all addresses, and so off loopback.
func CheckListen(addr string, allowAnonymous bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return object.Errorf(object.KindInvalid, "%q is not an address to listen on; write HOST:PORT, such as 127.0.0.1:9080", addr)
	}
	if allowAnonymous || isLoopback(host) {
		return nil
	}
	return object.Errorf(object.KindPermission,
		"%s is reachable from other machines, and everybody there could read and change everything: either configure users and access keys "+
			"(credentials come with a later version), or pass --allow-anonymous if that is what you want; 127.0.0.1:PORT needs neither", addr)
}

// isLoopback reports whether a host name or address means this machine alone.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
