package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A state on its way between replicas, and in the file where it waits to be
// restored: head, then frames of at most frameBytes of the machine's image, each
// with its length and CRC32C, then a frame of length 0. Integers are big-endian.
//
//	head: magic 8, version 4, applied index 8, length of the image 8, CRC 4
//	frame: length 4, CRC 4 of the length and the bytes, the bytes
const (
	imageMagic   = "BKTDBIMG"
	imageVersion = 1
	imageHead    = 8 + 4 + 8 + 8 + 4
	frameHead    = 4 + 4
	frameBytes   = 64 << 10
)

// imageSize is the length on the way of an image of n bytes.
func imageSize(n int64) int64 {
	frames := (n + frameBytes - 1) / frameBytes
	return imageHead + n + (frames+1)*frameHead
}

func imageCRC(parts ...[]byte) (sum uint32) {
	for _, b := range parts {
		sum = crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
	}
	return sum
}

// outgoing is a state that is being sent. For one goroutine.
type outgoing struct {
	g    *Group
	img  *Image
	snap snapshotRecord // what it amounts to
	size int64          // on the way

	buf   bytes.Buffer // framed and not read yet
	frame [frameBytes]byte
	left  int64 // of the image
	ended bool  // the last frame is in buf
}

// openImage opens the machine's state for a follower, and keeps the log behind it.
func (g *Group) openImage() (*outgoing, error) {
	m, ok := g.cfg.Machine.(Imager)
	if !ok {
		return nil, errOwnSnapshots
	}
	// The log is held from what is applied now; the image is that new at least.
	o := &outgoing{g: g}
	g.peers.hold(o, max(g.cfg.Machine.Applied(), 1))
	img, err := m.Image()
	if err != nil {
		g.peers.release(o)
		return nil, err
	}
	o.img, o.left, o.size = img, img.Size, imageSize(img.Size)
	if o.snap, err = g.recordOf(img.Applied); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	o.head()
	return o, nil
}

func (o *outgoing) head() {
	b := append([]byte(imageMagic), 0, 0, 0, imageVersion)
	b = binary.BigEndian.AppendUint64(b, o.img.Applied)
	b = binary.BigEndian.AppendUint64(b, uint64(o.img.Size))
	o.buf.Write(binary.BigEndian.AppendUint32(b, imageCRC(b)))
}

// recordOf is the snapshot record of the machine's state at applied.
func (g *Group) recordOf(applied uint64) (snapshotRecord, error) {
	snap, err := stored(g.cfg.Log)
	if err != nil {
		return snap, err
	}
	if applied <= snap.index { // what lies between has no effect on the machine
		snap.state = applied
		return snap, nil
	}
	var entry raft.Log
	if err := g.cfg.Log.GetLog(applied, &entry); err != nil {
		return snap, fmt.Errorf("reading entry %d: %w", applied, err)
	}
	conf, ok := g.now().fsm.look(applied)
	if !ok {
		return snap, fmt.Errorf("no configuration is known at entry %d", applied)
	}
	return snapshotRecord{index: applied, term: entry.Term, state: applied, conf: conf}, nil
}

// Read is io.Reader's.
func (o *outgoing) Read(p []byte) (int, error) {
	if o.buf.Len() == 0 {
		if o.ended {
			return 0, io.EOF
		}
		if err := o.fill(); err != nil {
			return 0, err
		}
	}
	return o.buf.Read(p)
}

func (o *outgoing) fill() error {
	o.buf.Reset()
	b := o.frame[:min(o.left, frameBytes)]
	if _, err := io.ReadFull(o.img.Data, b); err != nil {
		return fmt.Errorf("reading the state of partition %d: %w", o.g.cfg.ID, err)
	}
	o.left -= int64(len(b))
	o.ended = len(b) == 0
	head := binary.BigEndian.AppendUint32(o.buf.AvailableBuffer(), uint32(len(b)))
	o.buf.Write(binary.BigEndian.AppendUint32(head, imageCRC(head, b)))
	o.buf.Write(b)
	return nil
}

// Close ends the view. The log that a follower needs next is held by its progress.
func (o *outgoing) Close() error {
	o.g.peers.release(o)
	return o.img.Data.Close()
}

// incomingImage reads what outgoing wrote and checks it. An error of the bytes has
// KindCorrupt.
type incomingImage struct {
	r       io.Reader
	applied uint64
	left    int64
	frame   [frameBytes]byte
	rest    []byte // of frame, not read yet
	ended   bool
}

func readImage(r io.Reader) (*incomingImage, error) {
	var b [imageHead]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, badImage(err)
	}
	sum := binary.BigEndian.Uint32(b[imageHead-4:])
	if string(b[:8]) != imageMagic || sum != imageCRC(b[:imageHead-4]) {
		return nil, badImage(errors.New("its head is damaged"))
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != imageVersion {
		return nil, object.Errorf(object.KindVersion, "a state in format %d was received, this node knows %d: upgrade this node", v, imageVersion)
	}
	return &incomingImage{r: r, applied: binary.BigEndian.Uint64(b[12:]), left: int64(binary.BigEndian.Uint64(b[20:]))}, nil
}

// Read is io.Reader's; io.EOF comes only after a whole and valid image.
func (in *incomingImage) Read(p []byte) (int, error) {
	if len(in.rest) == 0 {
		if in.ended {
			return 0, io.EOF
		}
		if err := in.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	if n == 0 && in.ended {
		return 0, io.EOF
	}
	return n, nil
}

func (in *incomingImage) next() error {
	var head [frameHead]byte
	if _, err := io.ReadFull(in.r, head[:]); err != nil {
		return badImage(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) != min(in.left, frameBytes) {
		return badImage(errors.New("a frame has a wrong length"))
	}
	b := in.frame[:n]
	if _, err := io.ReadFull(in.r, b); err != nil {
		return badImage(err)
	}
	if imageCRC(head[:4], b) != binary.BigEndian.Uint32(head[4:]) {
		return badImage(errors.New("a frame fails its checksum"))
	}
	in.rest, in.left, in.ended = b, in.left-int64(n), n == 0
	if in.ended {
		if _, err := io.ReadFull(in.r, head[:1]); err != io.EOF {
			return badImage(errors.Join(errors.New("there are bytes behind its end"), err))
		}
	}
	return nil
}

func badImage(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return object.Errorf(object.KindCorrupt, "the state of a partition, as received, cannot be read: %w", err)
}
