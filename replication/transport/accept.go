package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Listen accepts connections at addr, host:port, until Close, and returns the
// address in use. Open the raft groups first: a peer that asks for a group that
// is not there has to try again. KindPermission: without a secret only a
// loopback address will do.
func (n *Node) Listen(addr string) (net.Addr, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, object.Errorf(object.KindUnavailable, "cannot listen on %s (another process may use the port): %w", addr, err)
	}
	return l.Addr(), n.Serve(l)
}

// Serve is Listen with a listener that is open already; it closes it, at the latest
// with the node.
func (n *Node) Serve(l net.Listener) error {
	if len(n.id.names()) == 0 && !loopback(l.Addr()) {
		_ = l.Close()
		return object.Errorf(object.KindPermission,
			"%s is reachable from other machines, and this node has no cluster secret: give one (--cluster-secret-file), or listen on 127.0.0.1", l.Addr())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = l.Close()
		return errClosed()
	}
	n.listeners = append(n.listeners, l)
	n.tasks.Go(func() { n.accept(l) })
	return nil
}

func (n *Node) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // such as too many open files: others will be closed
			n.log.Warn("cannot accept a connection", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-n.ctx.Done():
				return
			}
			continue
		}
		select {
		case n.handshakes <- struct{}{}:
			n.tasks.Go(func() { n.receive(c) })
		default:
			_ = c.Close() // more strangers than we care for
		}
	}
}

// receive authenticates one connection and serves it.
func (n *Node) receive(c net.Conn) {
	tune(c)
	w, br, alpn, err := n.authenticate(c)
	if err != nil {
		<-n.handshakes
		_ = c.Close()
		n.logRefused(c, err)
		return
	}
	if alpn == alpnHTTP {
		<-n.handshakes
		w.patience = httpStall
		n.httpIn.push(&peeked{wire: w, r: br})
		return
	}
	h, err := n.welcome(w, br)
	<-n.handshakes
	if err != nil {
		_ = w.Close()
		n.logRefused(c, err)
		return
	}
	n.serve(w, br, h)
}

// logRefused logs at most one refusal a second: anybody can cause them.
func (n *Node) logRefused(c net.Conn, err error) {
	now, last := n.clock(), n.refused.Load()
	if n.ctx.Err() != nil || errors.Is(err, io.EOF) || (last != 0 && now-last < int64(time.Second)) || !n.refused.CompareAndSwap(last, now) {
		return
	}
	n.log.Warn("refused a connection", "from", c.RemoteAddr().String(), "error", err)
}

// authenticate makes a wire of an accepted connection and tells what it speaks.
// On plain TCP the peer's name comes with the greeting.
func (n *Node) authenticate(c net.Conn) (*wire, *bufio.Reader, string, error) {
	w := &wire{Conn: c, raw: c, patience: writeTimeout, n: n}
	alpn := ""
	if len(n.id.names()) > 0 {
		state, err := n.shakeServer(c, w)
		if err != nil {
			return nil, nil, "", err
		}
		alpn = state.NegotiatedProtocol
	} else if !loopback(c.RemoteAddr()) {
		return nil, nil, "", object.Errorf(object.KindPermission, "not a loopback address")
	}
	w.heard.Store(n.clock())
	if !n.register(w) {
		_ = c.Close()
		return nil, nil, "", errClosed()
	}
	br := newBuffered(w)
	if w.under == "" {
		_ = w.SetReadDeadline(time.Now().Add(handshakeTimeout))
		first, err := br.Peek(1)
		if err != nil {
			_ = w.Close()
			return nil, nil, "", err
		}
		if alpn = alpnHTTP; first[0] == frameMagic {
			alpn = alpnFrames
		}
		_ = w.SetReadDeadline(time.Time{})
	}
	return w, br, alpn, nil
}

func (n *Node) shakeServer(c net.Conn, w *wire) (tls.ConnectionState, error) {
	conn := tls.Server(c, n.id.serverConfig())
	ctx, cancel := context.WithTimeout(n.ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	state := conn.ConnectionState()
	a, _, err := n.id.under(state.ServerName)
	if err != nil {
		return state, err
	}
	who, err := n.id.verify(a, state)
	if err != nil {
		return state, err
	}
	if state.NegotiatedProtocol == "" {
		return state, object.Errorf(object.KindInvalid, "the peer named no protocol")
	}
	if mine := n.id.clusterID(); state.NegotiatedProtocol == alpnHTTP && n.id.wasCluster(who.Cluster) {
		return state, leftOut(who, mine)
	} else if state.NegotiatedProtocol == alpnHTTP && (who.Cluster != mine || mine == "") {
		return state, object.Errorf(object.KindUnauthenticated, "node %s belongs to cluster %q, this one to %q", who.Node, who.Cluster, mine)
	}
	w.Conn, w.under, w.peer = conn, state.ServerName, who
	return state, nil
}

// serve answers an admitted peer until the connection ends.
func (n *Node) serve(w *wire, br *bufio.Reader, h hello) {
	n.mu.RLock()
	p := n.peers[h.peer.Node]
	n.mu.RUnlock()
	if p != nil && h.peer.Cluster == n.id.clusterID() {
		p.saw(h.peer)
		p.alive()
	}
	if h.role == roleSnapshot {
		n.receiveSnapshot(w, br)
		_ = w.Close()
		return
	}
	l := newLink(w, br, h.role)
	check := l.watchdog
	w.onTick.Store(&check)
	s := &session{n: n, l: l, role: h.role, peer: h.peer, running: map[uint64]context.CancelFunc{}}
	s.ctx, s.cancel = context.WithCancel(n.ctx)
	err := l.read(s.handle)
	s.cancel()
	n.log.Debug("an accepted connection ended", "node", h.peer.Node, "connection", h.role.String(), "error", err)
}

// handle deals with one request; it must not block.
func (s *session) handle(f frame) error {
	switch {
	case s.role == roleCall && f.typ == frameCall:
		return s.call(f)
	case s.role == roleCall && f.typ == frameCancel:
		s.mu.Lock()
		cancel := s.running[f.id]
		s.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return nil
	case s.role == roleUrgent && f.typ == frameBeats:
		return s.n.receiveBeats(s.l, s.peer, f)
	case s.role != roleCall && f.typ == frameRaft:
		return s.n.receiveRaft(s.l, s.peer, f)
	}
	return object.Errorf(object.KindInvalid, "a frame of type %d has no place on a connection for %s", f.typ, s.role)
}
