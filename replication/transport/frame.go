package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A frame is length(4) type(1) id(8) payload, big-endian; the length is the payload's.
const frameHeader = 4 + 1 + 8

// frameMagic is the first byte of a connection of frames on plain TCP. No HTTP
// method begins with it, nor a TLS record.
const frameMagic = 0xBD

type frameType uint8

// The types of frames. Append-only: they cross the wire.
const (
	frameHello frameType = iota + 1
	frameWelcome
	framePing
	framePong
	frameCall
	frameAnswer // to a call or a raft request
	frameCancel
	frameRaft
	frameBeats
	frameBeatAnswers
	frameSnapshot
	frameSnapshotData
	frameSnapshotWorking
	frameSnapshotAnswer
)

// Limits of a frame's payload, by the connection's role.
const (
	limitHello  = 4 << 10
	limitUrgent = 1 << 20
	limitBulk   = 16 << 20
	limitCall   = MaxCall + 4<<10
	limitSnap   = 1 << 20
)

// role says what a connection carries. It crosses the wire.
type role uint8

const (
	roleUrgent role = iota + 1
	roleBulk
	roleCall
	roleSnapshot
	roleEnd
)

func (r role) String() string {
	switch r {
	case roleUrgent:
		return "urgent"
	case roleBulk:
		return "bulk"
	case roleCall:
		return "call"
	case roleSnapshot:
		return "snapshot"
	}
	return "unknown"
}

func (r role) limit() int {
	switch r {
	case roleUrgent:
		return limitUrgent
	case roleBulk:
		return limitBulk
	case roleCall:
		return limitCall
	}
	return limitSnap
}

// newFrame begins a frame with room for size bytes of payload; finish or
// setFrameID complete it.
func newFrame(t frameType, size int) []byte {
	b := make([]byte, frameHeader, frameHeader+size)
	b[4] = byte(t)
	return b
}

// finishFrame fills in length and id.
func finishFrame(b []byte, id uint64) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-frameHeader))
	binary.BigEndian.PutUint64(b[5:], id)
	return b
}

type frame struct {
	typ     frameType
	id      uint64
	payload []byte // the receiver's own
}

// readFrame reads one frame of at most limit bytes of payload. io.EOF only
// before its first byte.
func readFrame(r *bufio.Reader, limit int) (frame, error) {
	head, err := r.Peek(frameHeader)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head)
	f := frame{typ: frameType(head[4]), id: binary.BigEndian.Uint64(head[5:])}
	if uint64(n) > uint64(limit) {
		return frame{}, object.Errorf(object.KindInvalid, "a frame of %d bytes is larger than the %d allowed here", n, limit)
	}
	if _, err := r.Discard(frameHeader); err != nil {
		return frame{}, err
	}
	if n == 0 {
		return f, nil
	}
	f.payload = make([]byte, n)
	if _, err := io.ReadFull(r, f.payload); errors.Is(err, io.EOF) {
		return frame{}, io.ErrUnexpectedEOF
	} else if err != nil {
		return frame{}, err
	}
	return f, nil
}

// reader takes a payload apart. After the first error every read gives zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = object.Errorf(object.KindInvalid, "a malformed message from a peer")
	}
	r.b = nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// bytes shares the payload's memory; nil when empty.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string { return string(r.bytes()) }

// uint16 reads a number that must fit.
func (r *reader) uint16() uint16 {
	v := r.uvarint()
	if v > 1<<16-1 {
		r.fail()
		return 0
	}
	return uint16(v)
}

// end is the error, or one if bytes are left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	return r.err
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendString(b []byte, v string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// appendError writes an error in the form that crosses the wire; decodeError reads it.
func appendError(b []byte, err error) []byte {
	e := object.Error{Kind: object.KindOf(err)}
	msg := err.Error()
	var ours *object.Error
	if errors.As(err, &ours) {
		e = *ours
		if msg = ""; e.Err != nil {
			msg = e.Err.Error()
		}
	}
	b = binary.AppendUvarint(b, uint64(e.Kind))
	for _, s := range []string{e.Op, e.Bucket, e.Key, msg} {
		b = appendString(b, s[:min(len(s), 16<<10)])
	}
	return b
}

func (r *reader) error() error {
	k := object.Kind(r.uint16())
	// A kind this node does not know came from a newer one.
	e := &object.Error{Kind: object.ParseKind(k.String()), Op: r.string(), Bucket: r.string(), Key: r.string()}
	if msg := r.string(); msg != "" {
		e.Err = errors.New(msg)
	}
	if r.err != nil {
		return r.err
	}
	return e
}
