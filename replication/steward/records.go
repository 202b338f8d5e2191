package steward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// Labels of file operations.
const (
	opRecords  vfs.Op = "steward.records"
	opIdentity vfs.Op = "steward.identity"
	opDir      vfs.Op = "steward.dir"
	opDirSync  vfs.Op = "steward.dir.sync"
)

// life is where a replica on this node is in its life. The numbers are stored.
type life uint8

const (
	lifeJoining   life = iota + 1 // a group is being made; nobody was told
	lifeLive                      // durable, and reported
	lifeLost                      // its log or vote is gone: never opened again
	lifeDropping                  // being destroyed
	lifeDestroyed                 // nothing is left but this record
)

var lives = [...]string{lifeJoining: "joining", lifeLive: "live", lifeLost: "lost", lifeDropping: "being dropped", lifeDestroyed: "destroyed"}

func (l life) String() string { return lives[l] }

// record is the newest replica that this node had of a partition; the generations below count as destroyed.
type record struct {
	Generation uint64
	Life       life
}

const (
	// RecordsName is the file of the replica records.
	RecordsName  = "REPLICAS"
	recordsMagic = "bdbR\x01" // and the format
	// maxRecordsFile bounds what is read: every partition, with the longest numbers.
	maxRecordsFile = 1 << 20
)

// records are this node's replica records, durable. Safe for concurrent use.
type records struct {
	fs   vfs.FS
	name string

	mu sync.Mutex // guards all; held while the file is written
	m  map[object.PartitionID]record
}

// openRecords reads the file; none is no records. KindCorrupt when it is damaged,
// KindVersion when a later program wrote it.
func openRecords(fsys vfs.FS, dir string) (*records, error) {
	r := &records{fs: fsys, name: filepath.Join(dir, RecordsName), m: map[object.PartitionID]record{}}
	b, err := readFile(fsys, opRecords, r.name, maxRecordsFile)
	if err != nil || b == nil {
		return r, err
	}
	if r.m, err = decodeRecords(b); err != nil {
		return nil, object.Errorf(object.KindOf(err), "%s: %w", r.name, err)
	}
	return r, nil
}

// CheckRecords refuses replica records of a format that this program does not know
// (KindVersion). Damaged ones are for Open to judge.
func CheckRecords(fsys vfs.FS, dir string) error {
	_, err := openRecords(fsys, dir)
	if object.IsKind(err, object.KindCorrupt) {
		return nil
	}
	return err
}

// get is a partition's record; the zero record: never had one.
func (r *records) get(p object.PartitionID) record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.m[p]
}

func (r *records) all() map[object.PartitionID]record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.m)
}

// put makes records durable. After an error they may be so or not.
func (r *records) put(changes map[object.PartitionID]record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(r.m)
	maps.Copy(next, changes)
	if maps.Equal(next, r.m) {
		return nil
	}
	if err := vfs.WriteBytes(r.fs, opRecords, r.name, 0o600, encodeRecords(next)); err != nil {
		return object.Errorf(object.KindOf(err), "the replica records cannot be written (check the disk of %s): %w", filepath.Dir(r.name), err)
	}
	r.m = next
	return nil
}

func (r *records) set(p object.PartitionID, generation uint64, l life) error {
	return r.put(map[object.PartitionID]record{p: {generation, l}})
}

// encodeRecords: magic, number, then (partition, generation, life) ascending, all
// varints but the life; CRC32C of everything before.
func encodeRecords(m map[object.PartitionID]record) []byte {
	b := binary.AppendUvarint([]byte(recordsMagic), uint64(len(m)))
	for _, p := range slices.Sorted(maps.Keys(m)) {
		b = binary.AppendUvarint(b, uint64(p))
		b = binary.AppendUvarint(b, m[p].Generation)
		b = append(b, byte(m[p].Life))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeRecords(b []byte) (map[object.PartitionID]record, error) {
	damaged := func(what string) error {
		return object.Errorf(object.KindCorrupt, "the replica records are damaged (%s): restore the file from a backup of this very store, "+
			"or remove it: then all replicas of this node count as lost, and the others make new ones; where there are no other nodes, remove "+IdentityName+" as well: nothing is lost by that", what)
	}
	const magic = len(recordsMagic) - 1
	if len(b) < len(recordsMagic)+4 || string(b[:magic]) != recordsMagic[:magic] {
		return nil, damaged("it is another file, or cut off")
	}
	if v := b[magic]; v != recordsMagic[magic] {
		return nil, object.Errorf(object.KindVersion, "the replica records have format %d, this program knows %d: upgrade this program", v, recordsMagic[magic])
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != sum {
		return nil, damaged("the checksum is wrong")
	}
	rd := bytes.NewReader(body[len(recordsMagic):])
	n, err := binary.ReadUvarint(rd)
	if err != nil || n > uint64(rd.Len()) {
		return nil, damaged("the number of records")
	}
	m := make(map[object.PartitionID]record, n)
	last := -1
	for range n {
		p, err1 := binary.ReadUvarint(rd)
		g, err2 := binary.ReadUvarint(rd)
		l, err3 := rd.ReadByte()
		if errors.Join(err1, err2, err3) != nil || p >= object.MaxPartitions || int(p) <= last || l < byte(lifeJoining) || l > byte(lifeDestroyed) {
			return nil, damaged("a record")
		}
		last = int(p)
		m[object.PartitionID(p)] = record{g, life(l)}
	}
	if rd.Len() > 0 {
		return nil, damaged("it goes on behind its end")
	}
	return m, nil
}

// held is what a record is for the planner; 0: nothing yet.
func (r record) held() control.Held {
	switch r.Life {
	case lifeLive:
		return control.HeldLive
	case lifeLost:
		return control.HeldLost
	case lifeDestroyed:
		return control.HeldDestroyed
	}
	return 0
}

// readFile reads a small file; nil when there is none.
func readFile(fsys vfs.FS, op vfs.Op, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(op, name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return append([]byte{}, b...), errors.Join(err, f.Close())
}

// makeDir makes a directory and all above it durable.
func makeDir(fsys vfs.FS, dir string) error {
	if err := fsys.MkdirAll(opDir, dir, 0o700); err != nil {
		return err
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if err := fsys.SyncDir(opDirSync, filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}
