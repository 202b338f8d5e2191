package api

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Defaults of ClientOptions.
const (
	DefaultRetries        = 8
	DefaultRetryFor       = 30 * time.Second
	DefaultAnswerTimeout  = 30 * time.Second
	DefaultIdleTimeout    = 30 * time.Second
	DefaultConnectTimeout = 3 * time.Second

	// maxAnswerTimeout is the longest default with several nodes: a node that
	// hangs must leave time to ask the others.
	maxAnswerTimeout = 5 * time.Second
	// slowAnswer takes its place for calls whose work grows with an object's size, and that
	// begin anew when they are broken off.
	slowAnswer = 2 * time.Minute
	// bodyRate is the slowest rate, in bytes a second, at which a node has to make durable
	// what it was sent: a large body gives its answer so much more time.
	bodyRate = 2 << 20
)

// ClientOptions configure a Client; the zero value is good.
type ClientOptions struct {
	// HTTPClient replaces the one that the timeouts below would make. A copy of
	// it is used, which follows no redirect.
	HTTPClient *http.Client
	// Session names this client in the tokens of its mutations; zero: a random one.
	Session object.UploadID
	// Authorize adds credentials to each attempt of each request; nil: none.
	Authorize func(*http.Request) error
	// Logger receives retries at debug level; nil: nothing is logged.
	Logger *slog.Logger
	// UserAgent is sent with each request.
	UserAgent string

	Retries        int           // attempts after the first; 0: DefaultRetries for each node, negative: none
	RetryFor       time.Duration // no attempt starts when nothing got on for so long in all: no byte of a body was sent, no answer came
	ConnectTimeout time.Duration
	// AnswerTimeout is from the sent request to the first byte of the answer; 0:
	// DefaultAnswerTimeout, and with several nodes a part of RetryFor that lets
	// each be asked, 5 s at most. Where it is 0, a body adds what it takes at 2 MiB/s.
	AnswerTimeout time.Duration
	// IdleTimeout is without a byte of the answer's body, or of the request's that
	// the node takes; 0: DefaultIdleTimeout, and with several nodes twice the
	// AnswerTimeout if that is less.
	IdleTimeout time.Duration

	slow    *http.Client // of calls that take long
	patient bool         // slow waits longer than HTTPClient
}

func (o ClientOptions) complete(nodes int) (ClientOptions, error) {
	for name, d := range map[string]time.Duration{"RetryFor": o.RetryFor, "ConnectTimeout": o.ConnectTimeout, "AnswerTimeout": o.AnswerTimeout, "IdleTimeout": o.IdleTimeout} {
		if d < 0 {
			return o, object.Errorf(object.KindInvalid, "the client's %s is %v: give a time, or 0 for the default", name, d)
		}
	}
	if o.Session.IsZero() {
		if _, err := rand.Read(o.Session[:]); err != nil {
			return o, object.WithOp(err, "new client", "", "")
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	orElse := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	explicit := o.AnswerTimeout != 0
	orElse(&o.RetryFor, DefaultRetryFor)
	orElse(&o.ConnectTimeout, DefaultConnectTimeout)
	if nodes > 1 {
		orElse(&o.AnswerTimeout, min(o.RetryFor/time.Duration(2*nodes), maxAnswerTimeout))
		orElse(&o.IdleTimeout, min(2*o.AnswerTimeout, DefaultIdleTimeout)) // the next node has the rest
	}
	orElse(&o.AnswerTimeout, DefaultAnswerTimeout)
	orElse(&o.IdleTimeout, DefaultIdleTimeout)
	if o.Retries == 0 {
		o.Retries = DefaultRetries * nodes
	}
	if o.UserAgent == "" {
		o.UserAgent = "bucketdb"
	}
	if o.slow = o.HTTPClient; o.HTTPClient == nil {
		o.HTTPClient = &http.Client{Transport: newTransport(o)}
		if o.slow = o.HTTPClient; !explicit {
			patient := o
			patient.AnswerTimeout = slowAnswer
			o.patient = true
			o.slow = &http.Client{Transport: newTransport(patient)}
		}
	}
	o.HTTPClient, o.slow = direct(o.HTTPClient), direct(o.slow)
	return o, nil
}

// direct is a copy of a client that follows no redirect: one makes a GET of a DELETE, whose
// success would then be reported.
func direct(c *http.Client) *http.Client {
	d := *c
	d.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &d
}

func newTransport(o ClientOptions) *http.Transport {
	dialer := &net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           watchDial(dialer.DialContext),
		TLSHandshakeTimeout:   o.ConnectTimeout,
		MaxIdleConns:          512,
		MaxIdleConnsPerHost:   128,
		IdleConnTimeout:       60 * time.Second,
		ResponseHeaderTimeout: o.AnswerTimeout,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // bytes arrive as they are stored
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
}

// Client speaks to a cluster through any of its nodes: it stays with one while that
// answers, and goes on with the next when it does not. A node that did not answer is
// left alone for a while, a second at first. It is safe for concurrent use.
//
// Every mutation carries a token, and only an attempt that may not have
// happened, or whose token makes a second one harmless, is repeated: connection
// errors and the kinds Unavailable, Overload and Timeout, with jittered
// back-off. A request whose body was partly read and cannot be read again (no
// io.Seeker) is not repeated. Errors are *object.Error; their cause is a
// *Problem where the server sent one.
type Client struct {
	opts    ClientOptions
	nodes   *endpoints
	session atomic.Pointer[session]
}

// NewClient makes a client of the nodes at the given URLs, such as
// "http://127.0.0.1:9080"; "host:port" means http. It does not connect.
func NewClient(endpoints []string, opts ClientOptions) (*Client, error) {
	if len(endpoints) == 0 {
		return nil, object.Errorf(object.KindInvalid, "no endpoint given; name at least one, such as http://127.0.0.1:9080")
	}
	opts, err := opts.complete(len(endpoints))
	if err != nil {
		return nil, err
	}
	urls := make([]*url.URL, len(endpoints))
	for i, e := range endpoints {
		if urls[i], err = parseEndpoint(e); err != nil {
			return nil, err
		}
	}
	c := &Client{opts: opts, nodes: newEndpoints(urls)}
	c.session.Store(newSession(opts.Session))
	return c, nil
}

func parseEndpoint(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, object.Errorf(object.KindInvalid, "%q is not an endpoint; use a URL such as http://127.0.0.1:9080", s)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// Session is the id that this client's mutations, holds and locks carry now.
func (c *Client) Session() object.UploadID { return c.session.Load().uid }

// NewSession goes on under another session, after one was ended (KindSessionEnded). What
// was begun before, Kept and Locking included, stays with the old one, which does nothing
// more; its locks are lost, and its holds end with their lease: tell the cluster of open files anew.
func (c *Client) NewSession() error {
	var id object.UploadID
	if _, err := rand.Read(id[:]); err != nil {
		return object.WithOp(err, "new session", "", "")
	}
	c.session.Store(newSession(id))
	return nil
}

// Close drops idle connections. Calls under way are not disturbed.
func (c *Client) Close() {
	c.opts.HTTPClient.CloseIdleConnections()
	c.opts.slow.CloseIdleConnections()
}

// call is one operation, of one or several attempts.
type call struct {
	op       string
	bucket   string
	key      string
	method   string
	path     string // escaped
	query    url.Values
	header   http.Header
	body     io.Reader
	size     int64 // of body, when > 0
	mutation bool
	slow     bool // its answer takes as long as an object is large; the body is in memory
	stream   bool // its answer has no end: the idle timeout is the caller's

	// consume reads the answer as a part of the attempt, so that one that breaks
	// off is asked again; nil: the body is the caller's.
	consume func(*http.Response) error

	node int // that answered, once do has returned
}

func (k *call) set(name, value string) {
	if k.header == nil {
		k.header = http.Header{}
	}
	k.header.Set(name, value)
}

func (k *call) fail(err error) error { return object.WithOp(err, k.op, k.bucket, k.key) }

// request makes the HTTP request of one attempt at one node.
func (c *Client) request(ctx context.Context, k *call, node *url.URL, p *payload) (*http.Request, error) {
	u := *node
	decoded, err := url.PathUnescape(k.path)
	if err != nil {
		return nil, object.Errorf(object.KindInvalid, "path %q: %w", k.path, err)
	}
	u.Path, u.RawPath = node.Path+decoded, node.EscapedPath()+k.path
	u.RawQuery = k.query.Encode()
	req := (&http.Request{Method: k.method, URL: &u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	req.Header = k.header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	if id := c.nodes.expected(); id != "" {
		req.Header.Set(HeaderCluster, id)
	}
	if body := p.open(); body != nil {
		req.Body, req.ContentLength = body, p.size
		if p.size < 0 || p.size > expectOver {
			req.Header.Set("Expect", "100-continue")
		}
	}
	if c.opts.Authorize != nil {
		if err := c.opts.Authorize(req); err != nil {
			return nil, &object.Error{Kind: object.KindUnauthenticated, Err: err}
		}
	}
	return req, nil
}

// expectOver is the size from which a body waits for the server's word, so that
// a refusal costs no upload and leaves the body unread.
const expectOver = 1 << 20
