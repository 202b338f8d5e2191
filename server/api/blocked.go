package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"
)

// net/http ends a request only when its write loop has ended, and that may stand
// in a Read of the caller's body. So a request whose body can block runs in a
// goroutine of its own, which is left behind when its time is over and a Read
// does not return. That costs the body no copy: the write loop keeps its buffer
// until the Read returns, and the guard lets it begin no other one.

// roundTrip is HTTPClient.Do, but it ends with req's context, and with the
// connection, also while the body's reader blocks. (A connection of the caller's
// own HTTPClient is not seen to end.)
func (c *Client) roundTrip(req *http.Request, k *call, p *payload) (*http.Response, error) {
	client := c.opts.HTTPClient
	if k.slow || req.Body != nil && p.large() {
		client = c.opts.slow // watchWrite knows how long the answer of a body may take
	}
	if req.Body == nil || p.memory {
		return client.Do(req)
	}
	g, ctx, conns := p.last, req.Context(), make(chan (<-chan struct{}), 1)
	done := make(chan outcome, 1)
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		select {
		case <-conns: // net/http left it for another one before anything was written
		default:
		}
		conns <- closedOf(info.Conn)
	}}))
	go func() {
		resp, err := client.Do(req)
		done <- outcome{resp, err}
	}()
	var cut <-chan struct{} // closed when the request's connection is; nil: not known
	for {
		select {
		case o := <-done:
			return o.resp, o.err
		case cut = <-conns:
			continue
		case <-ctx.Done():
		case <-cut:
		}
		// It ends by itself now, or goes on with another connection, unless a Read
		// holds it up.
		if o, ok := within(done, abandonAfter); ok {
			return o.resp, o.err
		}
		err := ctx.Err()
		if err == nil && g.busy() && len(conns) == 0 {
			err = errCut
		}
		if err != nil {
			g.seal()
			go drop(done)
			return nil, err
		}
	}
}

// outcome is what HTTPClient.Do returned.
type outcome struct {
	resp *http.Response
	err  error
}

func within(done <-chan outcome, d time.Duration) (outcome, bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case o := <-done:
		return o, true
	case <-t.C:
		return outcome{}, false
	}
}

// drop takes the answer of a request that was given up.
func drop(done <-chan outcome) {
	if o := <-done; o.resp != nil {
		o.resp.Body.Close()
	}
}

var errCut = errors.New("the connection ended while the request's body was read")

// closedOf is the channel that is closed with a connection; nil: there is none.
func closedOf(conn net.Conn) <-chan struct{} {
	for {
		t, ok := conn.(interface{ NetConn() net.Conn }) // *tls.Conn
		if !ok {
			break
		}
		conn = t.NetConn()
	}
	if w, ok := conn.(*watchedConn); ok {
		return w.closed
	}
	return nil
}

// watchedConn tells that it was closed, which net/http does as soon as the other
// side has ended it.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (w *watchedConn) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// ReadFrom keeps the system's way of copying, where the connection has one.
func (w *watchedConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(w.Conn, r) }

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func watchDial(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &watchedConn{Conn: conn, closed: make(chan struct{})}, nil
	}
}
