package transport

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// httpConns bounds the connections of bulk streams to one peer.
const httpConns = 128

// httpStall is how long the other end of a bulk stream may read nothing: it may
// be passing the stream on to a slow client.
const httpStall = time.Minute

// peeked is a wire whose first bytes have been looked at.
type peeked struct {
	*wire
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func newBuffered(w *wire) *bufio.Reader { return bufio.NewReaderSize(w, linkBuffer) }

// connQueue is the net.Listener that accepted HTTP connections are given to.
type connQueue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (q *connQueue) push(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		_ = c.Close()
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr says nothing: there may be several listeners, or none.
func (q *connQueue) Addr() net.Addr { return &net.TCPAddr{} }

type peerKey struct{}

// PeerOf is the node that a request to the handler of HandleHTTP came from. On
// plain TCP nobody is authenticated, and Node is "".
func PeerOf(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

func (n *Node) startHTTP() {
	n.httpIn = &connQueue{conns: make(chan net.Conn), done: make(chan struct{})}
	var current atomic.Pointer[http.Handler]
	n.httpHandler = &current
	n.http = &http.Server{
		ReadHeaderTimeout: handshakeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			// On plain TCP a page in somebody's browser could ask, through a name that resolves
			// to loopback (DNS rebinding); nodes name each other by id.
			if p, _ := PeerOf(r.Context()); p.Node == "" && r.Host != n.opt.Node {
				http.Error(rw, "this port is for the nodes of the cluster", http.StatusForbidden)
				return
			}
			h := current.Load()
			if h == nil {
				http.Error(rw, "this node is starting", http.StatusServiceUnavailable)
				return
			}
			(*h).ServeHTTP(rw, r)
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if p, ok := c.(*peeked); ok {
				ctx = context.WithValue(ctx, peerKey{}, p.peer)
			}
			return ctx
		},
		BaseContext: func(net.Listener) context.Context { return n.ctx },
	}
	n.tasks.Go(func() {
		if err := n.http.Serve(n.httpIn); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("bulk streams are not served any more; restart this node", "error", err)
		}
	})
}

// HandleHTTP serves the bulk streams of the nodes of this cluster. On plain TCP
// everybody on this machine can send requests too. A write to a peer that reads
// nothing fails after a minute; reads have the deadlines that the handler sets with
// http.ResponseController.
func (n *Node) HandleHTTP(h http.Handler) { n.httpHandler.Store(&h) }

// HTTPClient is a client for bulk streams to one node, whatever host its URLs
// name: use http://NODE/path, the connection is encrypted below that. Requests
// fail at once while the node is known to be down. Give each a context: the
// client has no deadline of its own.
func (n *Node) HTTPClient(node string) *http.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.clients[node]; c != nil {
		return c
	}
	c := &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return n.dialHTTP(ctx, node)
			},
			MaxConnsPerHost:     httpConns,
			MaxIdleConns:        httpConns,
			MaxIdleConnsPerHost: 32,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
			WriteBufferSize:     linkBuffer,
			ReadBufferSize:      linkBuffer,
		},
		// A peer is asked what it is asked; it does not send us elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	n.clients[node] = c
	return c
}

func (n *Node) dialHTTP(ctx context.Context, node string) (net.Conn, error) {
	p, err := n.peer(node)
	if err != nil {
		return nil, err
	}
	for _, l := range []*lane{p.urgent, p.call, p.bulk} {
		l.mu.Lock()
		state, why := l.state, l.err
		l.mu.Unlock()
		if state == laneDown {
			return nil, l.down(why)
		}
	}
	addr, err := n.opt.Resolve(node)
	if err != nil {
		return nil, object.WithOp(err, "dial", "", "")
	}
	w, err := n.dialWire(ctx, addr, node, alpnHTTP)
	if err != nil {
		return nil, err
	}
	w.patience = httpStall
	return w, nil
}
