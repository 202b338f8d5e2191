package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// Labels of the file operations, for fault injection. Reads and writes carry the
// label of the open (vfs.WriteOp(opOpen), ...).
const (
	opMkdir        vfs.Op = "wal.dir.mkdir"
	opSyncParent   vfs.Op = "wal.dir.sync-parent"
	opList         vfs.Op = "wal.dir.list"
	opCreate       vfs.Op = "wal.segment.create"
	opCreateSize   vfs.Op = "wal.segment.header.truncate"
	opCreateSync   vfs.Op = "wal.segment.header.sync"
	opCreateRename vfs.Op = "wal.segment.rename"
	opCreateDir    vfs.Op = "wal.segment.syncdir"
	opOpen         vfs.Op = "wal.segment.open"
	opAppendSync   vfs.Op = "wal.append.sync"
	opMarkSync     vfs.Op = "wal.close.sync"
	opSealSync     vfs.Op = "wal.seal.sync"
	opSealTruncate vfs.Op = "wal.seal.truncate"
	opRepairSync   vfs.Op = "wal.repair.sync"
	opRemove       vfs.Op = "wal.segment.remove"
	opRemoveDir    vfs.Op = "wal.segment.remove.syncdir"
	opRemoveTemp   vfs.Op = "wal.temp.remove"
)

const (
	Suffix     = ".wal"      // of a segment's name
	HeaderSize = segmentHead // bytes that a segment begins with; see CheckFormat

	tempSuffix = ".tmp"

	segmentMagic   = "BKTDBWAL"
	formatVersion  = 1
	segmentHead    = 64 // bytes of the header; batches start here
	batchHead      = 32
	batchAlign     = 8
	batchMagic     = 0x48544142 // "BATH"
	maxSegmentSize = 1 << 31    // offsets are 32 bits in the index
)

// segment is one file of the log. Its header is written once, before the file
// gets its name, so a bad header is never a torn one.
type segment struct {
	id     uint64
	salt   uint64 // random; every CRC in the file is mixed with it
	size   int64  // the file's length while it is not sealed, in bytes
	oldest uint64 // the oldest segment needed when this one was made
	path   string
	file   vfs.File

	mu     sync.RWMutex // held shared while file is read, exclusively to close it
	closed bool

	end  int64 // where the next batch goes; only the leader writes it, under Log.mu
	live int64 // bytes of live records; guarded by Log.mu
}

// kind says what a batch header stands for. On disk: append only.
type kind uint8

const (
	kindBatch kind = 1 // records follow
	kindMark  kind = 2 // all before it is synced; the next batch overwrites it
	kindSeal  kind = 3 // the segment ends here, all before is synced, and the next segment exists
)

// header leads a batch: magic (4), crc (4), kind (1), zero (3), records (4),
// payload length (4), zero (4), oldest needed segment (8).
type header struct {
	kind    kind
	count   uint32
	length  uint32 // of the records, without padding, in bytes
	oldest  uint64
	padding int64 // zeros behind the records
}

// span is the length of header, records and padding, in bytes.
func (h header) span() int64 { return batchHead + int64(h.length) + h.padding }

func pad(n int64) int64 { return (batchAlign - n%batchAlign) % batchAlign }

func (h header) put(b []byte, salt uint64, off int64) {
	le := binary.LittleEndian
	clear(b[:batchHead])
	le.PutUint32(b, batchMagic)
	b[8] = byte(h.kind)
	le.PutUint32(b[12:], h.count)
	le.PutUint32(b[16:], h.length)
	le.PutUint64(b[24:], h.oldest)
	le.PutUint32(b[4:], checksum(b[8:batchHead])^placeMix(salt, off))
}

func parseHeader(b []byte, salt uint64, off int64) (h header, ok bool) {
	le := binary.LittleEndian
	if len(b) < batchHead || le.Uint32(b) != batchMagic || le.Uint32(b[4:]) != checksum(b[8:batchHead])^placeMix(salt, off) {
		return header{}, false
	}
	h = header{kind: kind(b[8]), count: le.Uint32(b[12:]), length: le.Uint32(b[16:]), oldest: le.Uint64(b[24:])}
	h.padding = pad(int64(h.length))
	return h, h.kind >= kindBatch && h.kind <= kindSeal && (h.kind == kindBatch || h.count == 0 && h.length == 0)
}

// segmentHeader is magic (8), version (4), zero (4), id, salt, size, oldest
// (8 each), zero (12), crc (4).
func (s *segment) header() []byte {
	le, b := binary.LittleEndian, make([]byte, segmentHead)
	copy(b, segmentMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint64(b[16:], s.id)
	le.PutUint64(b[24:], s.salt)
	le.PutUint64(b[32:], uint64(s.size))
	le.PutUint64(b[40:], s.oldest)
	le.PutUint32(b[segmentHead-4:], checksum(b[:segmentHead-4]))
	return b
}

// formatOf is the version of a segment with this header; false: it is damaged.
func formatOf(head []byte) (uint32, bool) {
	le := binary.LittleEndian
	if len(head) < segmentHead || string(head[:8]) != segmentMagic || le.Uint32(head[segmentHead-4:]) != checksum(head[:segmentHead-4]) {
		return 0, false
	}
	return le.Uint32(head[8:]), true
}

// CheckFormat refuses the segment at path, of which head is the header, when its
// format is another (KindVersion). A damaged header is for Open to judge.
func CheckFormat(path string, head []byte) error {
	if v, ok := formatOf(head); ok && v != formatVersion {
		return object.Errorf(object.KindVersion,
			"log segment %s has format version %d, this program knows %d: start the program version that wrote it", path, v, formatVersion)
	}
	return nil
}

func (s *segment) parseHeader(b []byte) error {
	if _, ok := formatOf(b); !ok {
		return s.corrupt(0, "its header fails the checksum")
	}
	if err := CheckFormat(s.path, b); err != nil {
		return err
	}
	le := binary.LittleEndian
	s.id, s.salt, s.size, s.oldest = le.Uint64(b[16:]), le.Uint64(b[24:]), int64(le.Uint64(b[32:])), le.Uint64(b[40:])
	if s.id == 0 || s.id >= 1<<32 || s.size < segmentHead || s.size > maxSegmentSize {
		return s.corrupt(0, "its header names impossible sizes")
	}
	return nil
}

// corrupt is the error for bytes at off that were acknowledged and are wrong.
func (s *segment) corrupt(off int64, what string) error {
	return object.Errorf(object.KindCorrupt,
		"log segment %s is damaged at offset %d: %s; acknowledged log entries are lost, and the replicas whose log it is "+
			"must not vote again: check the disk, and keep the file for diagnosis", s.path, off, what)
}

func segmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, Suffix) }

func parseSegmentName(name string) (id uint64, ok bool) {
	if _, err := fmt.Sscanf(name, "%016x", &id); err != nil {
		return 0, false
	}
	return id, name == segmentName(id)
}

// createSegment makes the file of a segment. When it fails before the file has
// its name, nothing has happened and the caller may try again (retry is true);
// later its fate is unknown.
func createSegment(fsys vfs.FS, dir string, s *segment) (retry bool, err error) {
	s.salt, s.end = rand.Uint64(), segmentHead
	s.path = filepath.Join(dir, segmentName(s.id))
	temp := s.path + tempSuffix
	if err := writeSegmentFile(fsys, temp, s); err != nil {
		if rerr := fsys.Remove(opRemoveTemp, temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return true, err
	}
	if err := fsys.Rename(opCreateRename, temp, s.path); err != nil {
		return false, err
	}
	if err := fsys.SyncDir(opCreateDir, dir); err != nil {
		return false, err
	}
	s.file, err = fsys.OpenFile(opOpen, s.path, os.O_RDWR, 0)
	return false, err
}

func writeSegmentFile(fsys vfs.FS, temp string, s *segment) (err error) {
	f, err := fsys.OpenFile(opCreate, temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(s.header(), 0); err != nil {
		return err
	}
	if err := f.Truncate(opCreateSize, s.size); err != nil {
		return err
	}
	return f.Sync(opCreateSync)
}

// openSegment opens an existing file and checks its header.
func openSegment(fsys vfs.FS, dir, name string) (*segment, error) {
	s := &segment{path: filepath.Join(dir, name), end: segmentHead}
	f, err := fsys.OpenFile(opOpen, s.path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s.file = f
	b := make([]byte, segmentHead)
	n, err := f.ReadAt(b, 0)
	if err == nil || errors.Is(err, io.EOF) {
		err = s.parseHeader(b[:n])
	}
	if want := strings.TrimSuffix(name, Suffix); err == nil && fmt.Sprintf("%016x", s.id) != want {
		err = s.corrupt(16, fmt.Sprintf("it says it is segment %016x", s.id))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// errSegmentClosed tells a reader that the segment was reclaimed meanwhile: what
// it held has moved.
var errSegmentClosed = errors.New("segment closed")

// readRecord reads and checks the record at l.
func (s *segment) readRecord(l loc) (record, []byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return record{}, nil, errSegmentClosed
	}
	b := make([]byte, l.len)
	if n, err := s.file.ReadAt(b, int64(l.off)); n < len(b) {
		if errors.Is(err, io.EOF) {
			return record{}, nil, s.corrupt(int64(l.off), "the file ends inside a record")
		}
		return record{}, nil, fmt.Errorf("reading log segment %s at offset %d: %w", s.path, l.off, err)
	}
	r, size, ok := decodeRecord(b, s.salt, int64(l.off))
	if !ok || size != len(b) {
		return record{}, nil, s.corrupt(int64(l.off), "a record fails its checksum")
	}
	return r, b, nil
}

// close closes the file once no reader uses it.
func (s *segment) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.file.Close()
}

// seal ends a segment durably at s.end. All before it must be synced, and the
// next segment must exist. The space behind is given back lazily.
func (s *segment) seal(oldest uint64) error {
	b := make([]byte, batchHead)
	header{kind: kindSeal, oldest: oldest}.put(b, s.salt, s.end)
	if _, err := s.file.WriteAt(b, s.end); err != nil {
		return err
	}
	if err := s.file.Sync(opSealSync); err != nil {
		return err
	}
	return s.file.Truncate(opSealTruncate, s.end+batchHead)
}
