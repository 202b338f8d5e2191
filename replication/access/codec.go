package access

import (
	"encoding/binary"
	"errors"

	"github.com/fxamacker/cbor/v2"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// codec is namespace's: CBOR (RFC 8949) whose text may be any bytes, as names are.
var codec = func() (c struct {
	enc cbor.EncMode
	dec cbor.DecMode
}) {
	var err error
	if c.enc, err = (cbor.EncOptions{Sort: cbor.SortBytewiseLexical}).EncMode(); err != nil {
		panic(err) // the options above are constant
	}
	if c.dec, err = (cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid}).DecMode(); err != nil {
		panic(err)
	}
	return c
}()

// state is what became of a request. It crosses the wire.
type state uint8

const (
	stateDone    state = iota + 1 // applied, with a result; or an index was read
	stateMore                     // a piece is kept: send the next
	stateRefused                  // certainly not done here; another node may
	stateFinal                    // certainly not done, and that is the answer
	stateUnknown                  // it may have been done
)

// answer is the answer to a proposal, a piece of one, or a read index.
type answer struct {
	State    state             `cbor:"1,keyasint"`
	Result   *namespace.Result `cbor:"2,keyasint,omitempty"`
	Recalled bool              `cbor:"3,keyasint,omitempty"` // the result's, which its own codec leaves out
	Index    uint64            `cbor:"4,keyasint,omitempty"`
	Kind     object.Kind       `cbor:"5,keyasint,omitempty"`
	Message  string            `cbor:"6,keyasint,omitempty"`
	Leader   string            `cbor:"7,keyasint,omitempty"` // the replica that leads, where this one does not
}

func (a *answer) encode() ([]byte, error) {
	if a.Result != nil {
		a.Recalled = a.Result.Recalled
	}
	return codec.enc.Marshal(a)
}

func decodeAnswer(b []byte) (a answer, err error) {
	if err := codec.dec.Unmarshal(b, &a); err != nil {
		return a, object.Errorf(object.KindInternal, "the answer of a partition cannot be read: %w", err)
	}
	if a.State < stateDone || a.State > stateUnknown {
		return a, object.Errorf(object.KindInternal, "an answer of a partition in state %d; is the node a newer release?", a.State)
	}
	if a.Result != nil {
		a.Result.Recalled = a.Recalled
	}
	return a, nil
}

// err is the error of an answer that is none.
func (a *answer) err() error {
	return &object.Error{Kind: a.Kind, Err: errors.New(a.Message)}
}

// piece is a proposal, or a part of one that is too large for one call:
//
//	flags(1) partition(2) total(4) offset(4) upload(16) data
//
// Pieces of one upload come in order; the one that completes it proposes it. A
// question for a read index is one without data.
type piece struct {
	relay     bool // a replica that does not lead may ask the one that does
	partition object.PartitionID
	total     int // bytes of the entry
	offset    int // of data in it
	upload    object.UploadID
	data      []byte
}

const (
	pieceHeader = 1 + 2 + 4 + 4 + 16
	flagRelay   = 1
	// pieceBytes is how much of an entry goes in one call.
	pieceBytes = transport.MaxCall - pieceHeader
)

func (p *piece) encode() []byte {
	b := make([]byte, 0, pieceHeader+len(p.data))
	flags := byte(0)
	if p.relay {
		flags = flagRelay
	}
	b = binary.BigEndian.AppendUint16(append(b, flags), uint16(p.partition))
	b = binary.BigEndian.AppendUint32(b, uint32(p.total))
	b = binary.BigEndian.AppendUint32(b, uint32(p.offset))
	b = append(b, p.upload[:]...)
	return append(b, p.data...)
}

// decodePiece reads what encode wrote; data shares b's memory.
func decodePiece(b []byte) (p piece, err error) {
	if len(b) < pieceHeader {
		return p, object.Errorf(object.KindInvalid, "a proposal of %d bytes is none", len(b))
	}
	if b[0] > flagRelay {
		return p, object.Errorf(object.KindNotSupported, "a proposal with flags %x; is the node a newer release?", b[0])
	}
	p.relay = b[0] == flagRelay
	p.partition = object.PartitionID(binary.BigEndian.Uint16(b[1:]))
	p.total, p.offset = int(binary.BigEndian.Uint32(b[3:])), int(binary.BigEndian.Uint32(b[7:]))
	copy(p.upload[:], b[11:])
	p.data = b[pieceHeader:]
	if p.total > group.MaxEntry || p.offset+len(p.data) > p.total || len(p.data) == 0 && p.total > 0 {
		return p, object.Errorf(object.KindInvalid, "%d bytes at %d are no piece of an entry of %d bytes", len(p.data), p.offset, p.total)
	}
	return p, nil
}

// whole reports whether the piece is all of the entry.
func (p *piece) whole() bool { return len(p.data) == p.total }
