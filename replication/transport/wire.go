package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Times within which a connection must do something.
const (
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	writeTimeout     = 5 * time.Second // without progress
	pongTimeout      = 3 * time.Second
	silentTimeout    = 10 * time.Second // of an accepted connection of frames
	writePiece       = 256 << 10
)

// wire is an authenticated connection: it knows who is at the other end, under
// which secret it stands, and when it was last heard.
type wire struct {
	net.Conn
	n     *Node
	under string // server name of the secret; "" plain
	raw   net.Conn
	// patience is how long a write may make no progress.
	patience time.Duration
	peer     Peer   // Cluster and Node by certificate (on plain TCP: by greeting)
	dialled  string // the address, if this node dialled; else ""
	bulk     bool   // it was dialled for HTTP; then peer never changes

	heard  atomic.Int64 // the clock at the last byte received
	onTick atomic.Pointer[func(now int64)]
	once   sync.Once
}

// Read notes that the peer lives.
func (w *wire) Read(b []byte) (int, error) {
	k, err := w.Conn.Read(b)
	if k > 0 {
		w.heard.Store(w.n.clock())
	}
	return k, err
}

// Write allows each piece some time, so that a peer that reads nothing is noticed.
func (w *wire) Write(b []byte) (int, error) {
	done := 0
	for {
		piece := b[done:min(len(b), done+writePiece)]
		if err := w.Conn.SetWriteDeadline(time.Now().Add(w.patience)); err != nil {
			return done, err
		}
		k, err := w.Conn.Write(piece)
		if done += k; err != nil || done == len(b) {
			return done, err
		}
	}
}

// Close closes it and forgets it.
func (w *wire) Close() error {
	var err error
	w.once.Do(func() {
		w.n.unregister(w)
		// A TLS close first waits to send an alert, up to 5 s; the peer may be gone.
		err = w.raw.Close()
	})
	return err
}

func (w *wire) tick(now int64) {
	if f := w.onTick.Load(); f != nil {
		(*f)(now)
	}
}

// tune asks the kernel to notice an idle peer that was cut off.
func tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 3})
}

// hasten asks the kernel to give up soon on bytes that are not acknowledged. Not
// for bulk streams: a reader who takes a rest counts as that too.
func (w *wire) hasten() {
	tcp, ok := w.raw.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds()))
		})
	}
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// dialWire connects to addr and authenticates. node is who must answer there;
// "": anybody who holds the secret. On plain TCP who answers is known only
// after the greeting.
func (n *Node) dialWire(ctx context.Context, addr, node, alpn string) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	names := n.id.names()
	if len(names) == 0 {
		return n.dialUnder(ctx, addr, node, alpn, "")
	}
	var err error
	for _, name := range names { // the current one first
		var w *wire
		if w, err = n.dialUnder(ctx, addr, node, alpn, name); err == nil {
			return w, nil
		}
		if !object.IsKind(err, object.KindUnauthenticated) {
			break
		}
	}
	return nil, err
}

func (n *Node) dialUnder(ctx context.Context, addr, node, alpn, name string) (*wire, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, unavailable("cannot reach %s: %w", addr, err)
	}
	tune(raw)
	w := &wire{Conn: raw, raw: raw, patience: writeTimeout, n: n, under: name, peer: Peer{Node: node, Address: addr}, dialled: addr, bulk: alpn == alpnHTTP}
	if name == "" {
		if !loopback(raw.RemoteAddr()) {
			_ = raw.Close()
			return nil, object.Errorf(object.KindPermission,
				"%s is not a loopback address, and this node has no cluster secret; give all nodes the same one (--cluster-secret-file)", addr)
		}
	} else if err := w.shake(ctx, raw, addr, node, alpn); err != nil {
		_ = raw.Close()
		return nil, err
	}
	w.heard.Store(w.n.clock())
	if !n.register(w) {
		_ = raw.Close()
		return nil, errClosed()
	}
	return w, nil
}

// shake makes the TLS connection of a dialled wire.
func (w *wire) shake(ctx context.Context, raw net.Conn, addr, node, alpn string) error {
	cfg, err := w.n.id.clientConfig(w.under, alpn)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return handshakeError(addr, err)
	}
	a, _, err := w.n.id.under(w.under)
	if err != nil {
		return err
	}
	who, err := w.n.id.verify(a, conn.ConnectionState())
	if err != nil {
		return err
	}
	// On other connections the greeting follows: who refuses us there says more about why.
	if alpn == alpnHTTP {
		err = w.n.expect(who, addr, node)
	} else {
		err = expectNode(who, addr, node)
	}
	if err != nil {
		return err
	}
	who.Address = addr
	w.Conn, w.peer = conn, who
	return nil
}

// expect checks that who answers at addr is the node that was meant.
func (n *Node) expect(who Peer, addr, node string) error {
	if mine := n.id.clusterID(); mine != "" && who.Cluster != mine && (who.Cluster != "" || node != "") {
		return object.Errorf(object.KindUnauthenticated, "at %s answers node %s of cluster %q; this node belongs to cluster %q", addr, who.Node, who.Cluster, mine)
	}
	return expectNode(who, addr, node)
}

func expectNode(who Peer, addr, node string) error {
	if node != "" && who.Node != node {
		return object.Errorf(object.KindUnauthenticated, "at %s answers node %s, not %s; correct the address of node %s", addr, who.Node, node, node)
	}
	return nil
}

// handshakeError says what a failed handshake means.
func handshakeError(addr string, err error) error {
	var alert *net.OpError // crypto/tls has no type for an alert received
	var record tls.RecordHeaderError
	var ours *object.Error
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &alert) && alert.Op == "remote error", errors.As(err, &record), errors.Is(err, io.EOF):
		return object.Errorf(object.KindUnauthenticated,
			"%s refused this node (%w): the cluster secrets differ, or one of the two has none; compare them with `bucketdb cluster secret`", addr, err)
	}
	return unavailable("no answer from %s: %w", addr, err)
}

func unavailable(format string, args ...any) error {
	return object.Errorf(object.KindUnavailable, format, args...)
}
