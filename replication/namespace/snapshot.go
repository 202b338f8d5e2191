package namespace

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/storage/meta"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// The image of a partition: version (1 byte), applied index (8, big endian), then
// each record in key order as uvarint(1+len(key)), key, uvarint(len(value)),
// value; then uvarint(0) and uvarint(number of records). It has no checksum of its
// own: the group's frames have.
const (
	imageVersion = 1
	imageHeader  = 1 + 8
	// imagePage is how many bytes of records are read from the store at once.
	imagePage = 256 << 10
)

var _ group.Imager = (*Machine)(nil)

// Image opens the partition's state as it is now, for another replica.
func (m *Machine) Image() (*group.Image, error) { return ExportPartition(m.o.Store) }

// Restore replaces the partition's state by an image: see ImportPartition. What
// the Machine remembered of the state before is gone; after an error it remembers
// nothing until Restore succeeds.
func (m *Machine) Restore(ctx context.Context, r io.Reader) error {
	m.names.forget()
	// Another replica may have on record what was settled here: search from the start.
	m.txLow.Store(0)
	if err := ImportPartition(ctx, m.o.Store, r, m.o.MaxKeys/2, m.o.MaxBytes/2); err != nil {
		return err
	}
	m.names.end()
	return nil
}

// ExportPartition opens the state of a partition at one moment. The records are
// read twice: now, to learn the exact size, and while the image is read. Memory:
// one page. The image must be closed; until then the store keeps old versions.
func ExportPartition(p *meta.Partition) (*group.Image, error) {
	// While a transaction is open nothing is committed: index and view agree.
	tx := p.Begin()
	applied, view := p.Applied(), p.View()
	tx.Discard()
	e := &export{view: view}
	size, err := e.measure()
	if err != nil {
		return nil, errors.Join(err, view.Close())
	}
	e.page.WriteByte(imageVersion)
	e.page.Write(be64(nil, applied))
	return &group.Image{Applied: applied, Size: size, Data: e}, nil
}

// export reads the image. For one goroutine.
type export struct {
	view    *meta.Snapshot
	page    bytes.Buffer // encoded and not read yet
	next    []byte       // the key to go on from
	records uint64       // counted by measure
	done    bool         // the end is in page
}

func (e *export) measure() (size int64, err error) {
	err = e.view.Ascend(nil, nil, func(k, v []byte) (bool, error) {
		size += int64(uvarintLen(uint64(len(k))+1) + len(k) + uvarintLen(uint64(len(v))) + len(v))
		e.records++
		return true, nil
	})
	return imageHeader + size + 1 + int64(uvarintLen(e.records)), err
}

func uvarintLen(v uint64) int { return len(binary.AppendUvarint(nil, v)) }

// Read is io.Reader's.
func (e *export) Read(p []byte) (int, error) {
	for e.page.Len() == 0 {
		if e.done {
			return 0, io.EOF
		}
		if err := e.fill(); err != nil {
			return 0, err
		}
	}
	return e.page.Read(p)
}

// fill encodes the next page.
func (e *export) fill() error {
	e.page.Reset()
	full := false
	err := e.view.Ascend(e.next, nil, func(k, v []byte) (bool, error) {
		if full = e.page.Len() >= imagePage; full {
			e.next = append(e.next[:0], k...)
			return false, nil
		}
		b := binary.AppendUvarint(e.page.AvailableBuffer(), uint64(len(k))+1)
		b = binary.AppendUvarint(append(b, k...), uint64(len(v)))
		e.page.Write(append(b, v...))
		return true, nil
	})
	if err == nil && !full {
		e.done = true
		e.page.Write(binary.AppendUvarint([]byte{0}, e.records))
	}
	return err
}

// Close ends the view.
func (e *export) Close() error { return e.view.Close() }

// ImportPartition replaces the state of a partition by an image, in transactions
// of at most maxKeys records and maxBytes bytes. The applied index is written with
// the last of them: until then the partition says 0, whatever is in it, also
// after a crash; call it again then. It is not durable yet when it returns: see
// meta.Partition.Durable. KindCorrupt: no image; KindVersion: a newer one.
func ImportPartition(ctx context.Context, p *meta.Partition, r io.Reader, maxKeys, maxBytes int) error {
	in := bufio.NewReaderSize(r, imagePage)
	applied, err := readImageHeader(in)
	if err != nil {
		return err
	}
	if err := p.DropAll(ctx); err != nil {
		return err
	}
	tx := p.Begin()
	defer func() { tx.Discard() }()
	for count := uint64(0); ; count++ {
		k, v, err := readImageRecord(in)
		if err != nil {
			return err
		}
		if k == nil {
			if err := readImageEnd(in, count); err != nil {
				return err
			}
			return tx.Commit(applied)
		}
		keys, bytes := tx.Size()
		if keys >= maxKeys || keys > 0 && bytes+len(k)+len(v) > maxBytes {
			if err := errors.Join(ctx.Err(), tx.Commit(0)); err != nil {
				return err
			}
			tx = p.Begin()
		}
		if err := tx.Set(k, v); err != nil {
			return err
		}
	}
}

func readImageHeader(in *bufio.Reader) (applied uint64, err error) {
	var h [imageHeader]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return 0, badImage(err)
	}
	if h[0] != imageVersion {
		return 0, object.Errorf(object.KindVersion, "the leader sends a partition in format %d, this node knows %d: upgrade this node", h[0], imageVersion)
	}
	return binary.BigEndian.Uint64(h[1:]), nil
}

// readImageRecord reads one record; a nil key is the end.
func readImageRecord(in *bufio.Reader) (k, v []byte, err error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, nil, badImage(err)
	}
	if n == 0 {
		return nil, nil, nil
	}
	if k, err = readSized(in, n-1, meta.MaxKey); err != nil {
		return nil, nil, err
	}
	if n, err = binary.ReadUvarint(in); err != nil {
		return nil, nil, badImage(err)
	}
	v, err = readSized(in, n, meta.MaxValue)
	return k, v, err
}

func readSized(in *bufio.Reader, n uint64, limit int) ([]byte, error) {
	if n > uint64(limit) {
		return nil, badImage(errors.New("a record is too long"))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, badImage(err)
	}
	return b, nil
}

func readImageEnd(in *bufio.Reader, count uint64) error {
	want, err := binary.ReadUvarint(in)
	if err == nil && want != count {
		err = errors.New("records are missing")
	}
	if err == nil {
		if _, more := in.ReadByte(); more != io.EOF {
			err = errors.Join(errors.New("there are bytes behind its end"), more)
		}
	}
	if err != nil {
		return badImage(err)
	}
	return nil
}

// badImage keeps the kind of an error that is not about the bytes.
func badImage(err error) error {
	var ours *object.Error
	if errors.As(err, &ours) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return object.Errorf(object.KindCorrupt, "the image of a partition cannot be read: %w", err)
}
