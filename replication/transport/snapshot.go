package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

const (
	// snapshotSilence is how long one side of a snapshot waits for a sign of the other.
	snapshotSilence = 10 * time.Second
	snapshotSign    = time.Second
	snapshotPiece   = 256 << 10
	// snapshotStall is how long the follower may take no data: its disk is busy,
	// but it gives signs.
	snapshotStall = time.Minute
)

// stream writes the frames of one side of a snapshot, and signs while there is
// nothing else to say.
type stream struct {
	w    *wire
	sign frameType
	mu   sync.Mutex // one frame at a time
}

func (s *stream) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.Write(finishFrame(b, 0))
	return err
}

// keepSigning shows that this side lives, until the connection breaks or ctx ends.
func (s *stream) keepSigning(ctx context.Context) {
	t := time.NewTicker(snapshotSign)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if s.write(newFrame(s.sign, 0)) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// sendSnapshot streams a snapshot over a connection of its own, when its turn comes.
func (g *Group) sendSnapshot(ctx context.Context, node string, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	end, err := g.n.pace.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	addr, err := g.n.opt.Resolve(node)
	if err != nil {
		return err
	}
	w, err := g.n.dialWire(ctx, addr, node, alpnFrames)
	if err != nil {
		return err
	}
	defer w.Close()
	w.patience = snapshotStall
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	br := newBuffered(w)
	if err := g.n.greet(w, br, roleSnapshot, node); err != nil {
		return err
	}
	s := &stream{w: w, sign: frameSnapshotData} // an empty piece
	if err := s.write(appendRequest(newFrame(frameSnapshot, 256), g.id, args)); err != nil {
		return err
	}
	go s.keepSigning(ctx)
	var got raft.InstallSnapshotResponse // not resp: on an error nobody waits for it
	answer := make(chan error, 1)
	go func() { answer <- readSnapshotAnswer(w, br, &got) }()
	if err := s.copy(ctx, g.n.pace, data, args.Size); err != nil {
		select {
		case why := <-answer: // the follower may have said why it stopped reading
			if why != nil {
				return snapshotLost(node, why)
			}
		case <-time.After(snapshotSign):
		}
		return snapshotLost(node, err)
	}
	if err := <-answer; err != nil { // comes: the follower signs, or the read deadline passes
		return snapshotLost(node, err)
	}
	*resp = got
	return nil
}

// snapshotLost is the error of a snapshot that was cut off: our own kinds stay.
func snapshotLost(node string, err error) error {
	var ours *object.Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	return unavailable("the connection to node %s was lost while a state was sent, which it has thrown away: %w", node, err)
}

// copy sends size bytes of data at the pace of the node.
func (s *stream) copy(ctx context.Context, p *pace, data io.Reader, size int64) error {
	buf := newFrame(frameSnapshotData, snapshotPiece)
	for left := size; left > 0; {
		b := buf[:frameHeader+min(left, snapshotPiece)]
		k, err := io.ReadFull(data, b[frameHeader:])
		left -= int64(k)
		if k > 0 {
			if werr := p.wait(ctx, k); werr != nil {
				return werr
			}
			if werr := s.write(b[:frameHeader+k]); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			// The follower would wait for the rest as long as this side lives.
			return object.Errorf(object.KindCorrupt, "a state to be sent ends %d bytes before the %d that it should have", left, size)
		case err != nil:
			return err
		}
	}
	return nil
}

func readSnapshotAnswer(w *wire, br *bufio.Reader, resp *raft.InstallSnapshotResponse) error {
	for {
		_ = w.SetReadDeadline(time.Now().Add(snapshotSilence))
		f, err := readFrame(br, limitSnap)
		if err != nil {
			return err
		}
		if f.typ == frameSnapshotAnswer {
			return settle(f, nil, resp)
		}
	}
}

// receiveSnapshot serves a snapshot connection.
func (n *Node) receiveSnapshot(w *wire, br *bufio.Reader) {
	w.patience = snapshotStall
	_ = w.SetReadDeadline(time.Now().Add(snapshotSilence))
	f, err := readFrame(br, limitSnap)
	if err != nil || f.typ != frameSnapshot {
		return
	}
	id, cmd, err := decodeRequest(f.payload)
	req, is := cmd.(*raft.InstallSnapshotRequest)
	if err != nil || !is {
		return
	}
	s := &stream{w: w, sign: frameSnapshotWorking}
	finish := func(resp any, err error) {
		_ = s.write(appendResponse(newFrame(frameSnapshotAnswer, 64), resp, err)) // lost: the leader sends anew
	}
	if err := n.verifySender(id, req.RPCHeader, w.peer); err != nil {
		finish(nil, err)
		return
	}
	g := n.group(id)
	if g == nil {
		finish(nil, n.noGroup(id))
		return
	}
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	go s.keepSigning(ctx)
	finish(g.in.pushSnapshot(req, io.LimitReader(&snapshotReader{w: w, br: br}, req.Size)))
	stop()
}

// snapshotReader gives the data of a snapshot's frames.
type snapshotReader struct {
	w    *wire
	br   *bufio.Reader
	rest []byte
}

func (r *snapshotReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		_ = r.w.SetReadDeadline(time.Now().Add(snapshotSilence))
		f, err := readFrame(r.br, limitSnap)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // an EOF would pass for the end of the snapshot
		}
		if err != nil {
			return 0, err
		}
		if f.typ != frameSnapshotData {
			return 0, object.Errorf(object.KindInvalid, "a frame of type %d in a snapshot", f.typ)
		}
		r.rest = f.payload
	}
	k := copy(b, r.rest)
	r.rest = r.rest[k:]
	return k, nil
}
