package meta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/proto"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// maxBlock is more than any block, in bytes: it holds one value beyond 4 KiB at most.
const maxBlock = 2 * (MaxValue + MaxKey + 64<<10)

// Verify reads every block and every index of the tables against its checksum, and
// past the caches; KindCorrupt when one fails, KindCanceled or KindTimeout soon after
// ctx ends. It reads the whole database: what a request reads is checked on the way,
// so this is for a scrubber, which finds what nobody reads, and indexes that rot
// under an open database. In memory there is nothing to read.
func (db *DB) Verify(ctx context.Context) error {
	if db.dir == nil {
		return nil
	}
	for _, t := range db.badger.Tables() {
		name := table.NewFilename(t.ID, db.dir.data())
		err := verifyFile(ctx, name)
		if ctx.Err() != nil {
			return &object.Error{Op: "verify", Kind: object.KindOf(ctx.Err()), Err: ctx.Err()}
		}
		if err != nil && db.hasTable(t.ID) { // else compacted meanwhile: cut to nothing, then removed
			return corrupt(fmt.Errorf("%s: %w", name, err))
		}
	}
	return nil
}

func (db *DB) hasTable(id uint64) bool {
	return slices.ContainsFunc(db.badger.Tables(), func(t badger.TableInfo) bool { return t.ID == id })
}

// verifyFile reads a table without Badger, which maps it: that cannot be broken
// off, and a table cut under a mapping of ours would be the end of the process.
func verifyFile(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return verifyTable(ctx, f, info.Size())
}

func verifyTable(ctx context.Context, f io.ReaderAt, size int64) (err error) {
	data, end, err := readIndex(f, size)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	// An index of nonsense with a good checksum.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("index: %v", r)
		}
	}()
	index := fb.GetRootAsTableIndex(data, 0)
	for i := range index.OffsetsLength() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var at fb.BlockOffset
		if !index.Offsets(&at, i) || int64(at.Offset())+int64(at.Len()) > end {
			return fmt.Errorf("block %d is not within the file", i)
		}
		block := make([]byte, at.Len())
		if _, err := f.ReadAt(block, int64(at.Offset())); err != nil {
			return err
		}
		if err := verifyBlock(block); err != nil {
			return fmt.Errorf("block %d at %d: %w", i, at.Offset(), err)
		}
	}
	return nil
}

// readIndex reads a table's end, which is: index, its length, its checksum (a
// pb.Checksum), its length; lengths in 4 bytes, big endian. It returns the index,
// checked, and where it starts.
func readIndex(f io.ReaderAt, size int64) (index []byte, end int64, err error) {
	end = size
	tail := func() ([]byte, error) {
		var size [4]byte
		if _, err := f.ReadAt(size[:], end-4); err != nil {
			return nil, err
		}
		n := int64(binary.BigEndian.Uint32(size[:]))
		if end -= 4 + n; end < 0 {
			return nil, fmt.Errorf("a length of %d bytes is more than there is", n)
		}
		data := make([]byte, n)
		_, err := f.ReadAt(data, end)
		return data, err
	}
	sum, err := tail()
	if err != nil {
		return nil, 0, err
	}
	if index, err = tail(); err != nil {
		return nil, 0, err
	}
	if len(index) == 0 { // zeros, with a good checksum
		return nil, 0, errUnreadable
	}
	return index, end, verifySum(index, sum)
}

// verifyBlock checks a block as it is in the file: compressed; then its entries,
// their checksum (a pb.Checksum), and its length, 4 bytes big endian.
func verifyBlock(block []byte) error {
	if n, err := s2.DecodedLen(block); err != nil || n > maxBlock {
		return fmt.Errorf("compressed length %d: %w", n, errors.Join(err, errUnreadable))
	}
	data, err := s2.Decode(nil, block)
	if err != nil {
		return err
	}
	end := len(data) - 4
	if end < 0 {
		return errUnreadable
	}
	n := int64(binary.BigEndian.Uint32(data[end:]))
	if n > int64(end) {
		return errUnreadable
	}
	return verifySum(data[:end-int(n)], data[end-int(n):end])
}

var errUnreadable = errors.New("it makes no sense")

func verifySum(data, sum []byte) error {
	var want pb.Checksum
	if err := proto.Unmarshal(sum, &want); err != nil {
		return err
	}
	return y.VerifyChecksum(data, &want)
}
