package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// hello is the first frame of a connection, and with an error or the version
// chosen also its answer. Fields may be appended; unknown ones are skipped.
type hello struct {
	min, max uint64 // versions of the protocol
	role     role
	peer     Peer
	release  string
	meant    string // the node the dialler means; "": any
	err      error  // of an answer: why the dialler is refused
}

func (h hello) encode(t frameType) []byte {
	b := newFrame(t, 256)
	b = binary.AppendUvarint(b, h.min)
	b = binary.AppendUvarint(b, h.max)
	b = append(b, byte(h.role))
	for _, s := range []string{h.peer.Cluster, h.peer.Node, h.peer.Address, h.release, h.meant} {
		b = appendString(b, s)
	}
	if h.err != nil {
		b = appendError(append(b, 1), h.err)
	} else {
		b = append(b, 0)
	}
	return finishFrame(b, 0)
}

func decodeHello(payload []byte) (hello, error) {
	r := &reader{b: payload}
	h := hello{min: r.uvarint(), max: r.uvarint(), role: role(r.byte())}
	h.peer = Peer{Cluster: r.string(), Node: r.string(), Address: r.string()}
	h.release, h.meant = r.string(), r.string()
	if r.byte() == 1 {
		h.err = r.error()
	}
	return h, r.err
}

func (n *Node) hello(r role, meant string) hello {
	return hello{
		min: n.opt.Versions[0], max: n.opt.Versions[1], role: r, meant: meant, release: n.opt.Release,
		peer: Peer{Cluster: n.id.clusterID(), Node: n.opt.Node, Address: n.opt.Advertise},
	}
}

// agree is the version to speak: the highest that both know.
func (n *Node) agree(other hello) (uint64, error) {
	mine := n.opt.Versions
	v := min(mine[1], other.max)
	if v >= mine[0] && v >= other.min {
		return v, nil
	}
	older := fmt.Sprintf("node %s", n.opt.Node)
	if other.max < mine[0] {
		older = fmt.Sprintf("node %s", other.peer.Node)
	}
	return 0, object.Errorf(object.KindVersion,
		"node %s (release %s) speaks versions %d to %d of the protocol between nodes, node %s (release %s) %d to %d: upgrade %s",
		n.opt.Node, known(n.opt.Release), mine[0], mine[1], other.peer.Node, known(other.release), other.min, other.max, older)
}

func known(release string) string {
	if release == "" {
		return "unknown"
	}
	return release
}

// greet is the dialler's side: it sends the greeting and reads the answer.
func (n *Node) greet(w *wire, br *bufio.Reader, r role, node string) error {
	addr := w.peer.Address
	_ = w.SetReadDeadline(time.Now().Add(handshakeTimeout))
	first := append([]byte{frameMagic}, n.hello(r, node).encode(frameHello)...)
	if _, err := w.Write(first); err != nil {
		return greetError(addr, err)
	}
	f, err := readFrame(br, limitHello)
	if err != nil {
		return greetError(addr, err)
	}
	answer, err := decodeHello(f.payload)
	if err != nil || f.typ != frameWelcome {
		return object.Errorf(object.KindVersion, "what listens at %s is not a node of BucketDB that this one understands", addr)
	}
	if object.IsKind(answer.err, object.KindPermission) { // of admit's refusals just that of wasCluster
		return &object.Error{Kind: object.KindPermission, Err: fmt.Errorf("%w: %w", ErrLeftOut, answer.err)}
	}
	if answer.err != nil {
		return answer.err
	}
	if _, err := n.agree(answer); err != nil {
		return err
	}
	if w.under == "" {
		w.peer = answer.peer
	} else if answer.peer.Node != w.peer.Node || answer.peer.Cluster != w.peer.Cluster {
		return object.Errorf(object.KindUnauthenticated, "the node at %s gives another name than its certificate", addr)
	}
	w.peer.Address = answer.peer.Address
	if err := n.expect(w.peer, addr, node); err != nil {
		return err
	}
	return w.SetReadDeadline(time.Time{})
}

func greetError(addr string, err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return unavailable("no greeting from %s: %w", addr, err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return unavailable("%s closed the connection without a greeting; is it shutting down, or has it a cluster secret and this node none?", addr)
	}
	return handshakeError(addr, err)
}

// welcome is the acceptor's side: it reads the greeting, whose first byte is
// still in br, and answers. Who is refused is told why: it holds the secret.
func (n *Node) welcome(w *wire, br *bufio.Reader) (hello, error) {
	_ = w.SetReadDeadline(time.Now().Add(handshakeTimeout))
	if b, err := br.ReadByte(); err != nil || b != frameMagic {
		return hello{}, errors.Join(object.Errorf(object.KindInvalid, "no greeting"), err)
	}
	f, err := readFrame(br, limitHello)
	if err != nil {
		return hello{}, err
	}
	h, err := decodeHello(f.payload)
	if err != nil || f.typ != frameHello {
		return hello{}, object.Errorf(object.KindInvalid, "no greeting")
	}
	answer := n.hello(h.role, "")
	answer.err = n.admit(w, h)
	if _, err := w.Write(answer.encode(frameWelcome)); err != nil || answer.err != nil {
		return hello{}, errors.Join(answer.err, err)
	}
	w.peer = h.peer
	return h, w.SetReadDeadline(time.Time{})
}

// admit decides whether the dialler may stay.
func (n *Node) admit(w *wire, h hello) error {
	if _, err := n.agree(h); err != nil {
		return err
	}
	if w.under != "" && (h.peer.Node != w.peer.Node || h.peer.Cluster != w.peer.Cluster) {
		return object.Errorf(object.KindUnauthenticated, "the greeting names another node than the certificate")
	}
	if h.meant != "" && h.meant != n.opt.Node {
		return object.Errorf(object.KindUnauthenticated, "this is node %s, not %s; correct the address of node %s", n.opt.Node, h.meant, h.meant)
	}
	mine := n.id.clusterID()
	switch {
	case h.peer.Node == "" || len(h.peer.Node) > 64:
		return object.Errorf(object.KindInvalid, "the greeting names no node")
	case h.role == 0 || h.role >= roleEnd:
		return object.Errorf(object.KindNotSupported, "node %s knows no connections of role %d; upgrade it", n.opt.Node, h.role)
	case h.peer.Cluster == mine && mine != "":
		return nil
	case n.id.wasCluster(h.peer.Cluster):
		return leftOut(h.peer, mine)
	case h.role != roleCall || (h.peer.Cluster != "" && mine != ""):
		return object.Errorf(object.KindUnauthenticated, "node %s belongs to cluster %q, node %s to %q", n.opt.Node, mine, h.peer.Node, h.peer.Cluster)
	}
	return nil // a guest, or we are one
}

// ErrLeftOut is in the error of a call to a node whose cluster was recovered without this one.
var ErrLeftOut = errors.New("the cluster goes on without this node")

// leftOut refuses a node of what this cluster was before it lost a majority.
func leftOut(who Peer, mine string) error {
	return object.Errorf(object.KindPermission, "cluster %s lost a majority and was recovered without node %s; it is cluster %s now, and what node %s has is not in it: "+
		"to join again, start node %s on empty directories", who.Cluster, who.Node, mine, who.Node, who.Node)
}
