package chunk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Info describes a stored chunk.
type Info struct {
	Ref
	Compression Compression
	Dir         string // the disk it is on
}

// Stat describes a chunk from its header; its frames are not read. A chunk that
// is not here is KindNotFound.
func (s *Store) Stat(ctx context.Context, id object.ChunkID) (info Info, err error) {
	err = s.reading(ctx, "chunk.stat", id, func(f *chunkFile) error {
		info = f.info()
		return nil
	})
	return info, err
}

func (f *chunkFile) info() Info {
	return Info{Ref{f.sha, f.length, f.stored}, f.compression, f.disk.dir}
}

// ReadAt fills dst with the chunk's bytes from off on, and checks every frame
// that it touches. want is the SHA-256 that the caller's extent names; zero
// compares nothing. At the end of the chunk it returns fewer bytes and io.EOF.
//
// The n bytes it returns are right, whatever the error; dst behind them is
// undefined. Damage is KindCorrupt, and the file is then in quarantine; another
// SHA-256 than want is KindCorrupt too, but the file stays: it is sound, and a
// mistaken caller must not take it from the others. No chunk: KindNotFound.
func (s *Store) ReadAt(ctx context.Context, id object.ChunkID, want [32]byte, off int64, dst []byte) (n int, err error) {
	if off < 0 {
		return 0, failed("chunk.read", id, object.Errorf(object.KindInvalid, "a negative offset: %d", off))
	}
	eof := false
	err = s.reading(ctx, "chunk.read", id, func(f *chunkFile) (err error) {
		if err := s.expect(f, want); err != nil {
			return err
		}
		size := int(min(int64(len(dst)), max(0, f.length-off)))
		eof = size < len(dst)
		n, err = s.readFrames(f, off, dst[:size])
		return err
	})
	s.stats.reads.Add(1)
	s.stats.readBytes.Add(int64(n))
	if err == nil && eof {
		err = io.EOF
	}
	return n, err
}

// ReadAll returns the whole chunk, checked against its SHA-256 (and want, as in ReadAt).
func (s *Store) ReadAll(ctx context.Context, id object.ChunkID, want [32]byte) (data []byte, err error) {
	err = s.reading(ctx, "chunk.read", id, func(f *chunkFile) error {
		if err := s.expect(f, want); err != nil {
			return err
		}
		data = make([]byte, f.length)
		if _, err := s.readFrames(f, 0, data); err != nil {
			return err
		}
		if sha256.Sum256(data) != f.sha {
			return damaged("the content fails its SHA-256")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.stats.reads.Add(1)
	s.stats.readBytes.Add(int64(len(data)))
	return data, nil
}

// Verify reads and checks the whole chunk, past the cache of open files, as a scrubber does.
func (s *Store) Verify(ctx context.Context, id object.ChunkID) error {
	found := false
	for _, d := range s.rank(id) {
		_, err := s.check(ctx, d, id)
		if err == nil {
			found = true
			continue
		}
		if object.IsKind(err, object.KindNotFound) {
			continue
		}
		if object.IsKind(err, object.KindCorrupt) {
			err = s.condemn(ctx, id, err)
		}
		if err != nil {
			return failed("chunk.verify", id, err)
		}
		found = true // it was sound when looked at again
	}
	if !found {
		return failed("chunk.verify", id, notHere())
	}
	return nil
}

func notHere() error { return object.Errorf(object.KindNotFound, "the chunk is not on this node") }

// expect compares the SHA-256 that the caller asked for.
func (s *Store) expect(f *chunkFile, want [32]byte) error {
	if want == ([32]byte{}) || want == f.sha {
		return nil
	}
	s.stats.mismatched.Add(1)
	return &mismatch{damaged("the chunk holds SHA-256 %x, asked for was %x", f.sha, want)}
}

// mismatch is a chunk that may well be sound, but is not the one asked for.
type mismatch struct{ error }

func (m *mismatch) Unwrap() error { return m.error }

// reading runs use on the open chunk. Damage sends the chunk to quarantine; if
// it turns out sound there (a bit that fell over in memory, a file that was
// replaced meanwhile), use runs once more.
func (s *Store) reading(ctx context.Context, op string, id object.ChunkID, use func(*chunkFile) error) error {
	err := s.readOnce(ctx, id, use)
	var m *mismatch
	if object.IsKind(err, object.KindCorrupt) && !errors.As(err, &m) {
		if err = s.condemn(ctx, id, err); err == nil {
			err = s.readOnce(ctx, id, use)
		}
	}
	return failed(op, id, err)
}

func (s *Store) readOnce(ctx context.Context, id object.ChunkID, use func(*chunkFile) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, mark := s.files.get(id)
	if f == nil {
		var err error
		if f, err = s.find(id); err != nil {
			return err
		}
		s.files.add(f, mark)
	}
	defer s.files.release(f)
	return use(f)
}

// find opens the chunk on whichever disk has it. A damaged or unreadable copy
// is reported only when no disk has a better one.
func (s *Store) find(id object.ChunkID) (*chunkFile, error) {
	worst := notHere()
	for _, d := range s.rank(id) {
		f, err := s.openOn(d, id)
		if err == nil {
			return f, nil
		}
		if !object.IsKind(err, object.KindNotFound) {
			worst = err
		}
	}
	return nil, worst
}

// openOn opens a chunk and parses its header.
func (s *Store) openOn(d *disk, id object.ChunkID) (_ *chunkFile, err error) {
	file, err := d.fs.OpenFile(OpRead, d.path(id), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notHere()
	}
	if err != nil {
		return nil, err
	}
	f := &chunkFile{File: file, disk: d, path: d.path(id)}
	if err := s.parse(f, id); err != nil {
		file.Close()
		return nil, err
	}
	return f, nil
}

// parse reads header and frame table of f, which is to be id.
func (s *Store) parse(f *chunkFile, id object.ChunkID) error {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	const usual = 4 << 10 // header and table of a chunk of up to 31 MiB
	b := (*buf)[:usual]
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if f.header, err = parseHeader(b[:n]); err != nil {
		return err
	}
	if f.id != id {
		return damaged("the file of this chunk holds chunk %s", f.id)
	}
	end := int(f.dataOffset())
	if b = (*buf)[:max(end, n)]; end > n {
		m, err := f.ReadAt(b[n:end], int64(n))
		if err != nil && err != io.EOF {
			return err
		}
		n += m
	}
	if f.frames, err = parseTable(f.header, b[headerSize:min(n, end)]); err != nil {
		return err
	}
	st, err := f.File.Stat()
	if err == nil && st.Size() != f.fileSize() {
		err = damaged("the file has %d bytes, its header says %d", st.Size(), f.fileSize())
	}
	return err
}

// readFrames fills dst (within the chunk) from off on, and returns how many
// bytes of it are checked.
func (s *Store) readFrames(f *chunkFile, off int64, dst []byte) (n int, err error) {
	for n < len(dst) {
		i := int((off + int64(n)) / FrameSize)
		skip := int((off + int64(n)) % FrameSize)
		m := 0
		if skip == 0 {
			if m, err = f.readRun(i, dst[n:]); err != nil {
				return n, err
			}
		}
		if m == 0 {
			if m, err = s.readPart(f, i, skip, dst[n:]); err != nil {
				return n, err
			}
		}
		n += m
	}
	return n, nil
}

// readRun reads as many whole uncompressed frames, from i on, as dst has room
// for, with one call and no copy.
func (f *chunkFile) readRun(i int, dst []byte) (n int, err error) {
	last := i
	for ; last < len(f.frames) && !f.frames[last].compressed; last++ {
		if n+int(f.frames[last].stored) > len(dst) {
			break
		}
		n += int(f.frames[last].stored)
	}
	if n == 0 {
		return 0, nil
	}
	if err := f.readStored(dst[:n], f.frames[i].offset); err != nil {
		return 0, err
	}
	for at := 0; i < last; i++ {
		size := int(f.frames[i].stored)
		if castagnoli(dst[at:at+size]) != f.frames[i].crc {
			return 0, damaged("frame %d fails its checksum", i)
		}
		at += size
	}
	return n, nil
}

// readPart reads frame i and copies what dst wants of it, after skip bytes.
func (s *Store) readPart(f *chunkFile, i, skip int, dst []byte) (n int, err error) {
	stored, plain := s.buffers.Get().(*[]byte), s.buffers.Get().(*[]byte)
	defer s.buffers.Put(stored)
	defer s.buffers.Put(plain)
	b := (*stored)[:f.frames[i].stored]
	if err := f.readStored(b, f.frames[i].offset); err != nil {
		return 0, err
	}
	if castagnoli(b) != f.frames[i].crc {
		return 0, damaged("frame %d fails its checksum", i)
	}
	if f.frames[i].compressed {
		full := frameLength(f.length, i)
		out := (*plain)[:full:full]
		if skip == 0 && len(dst) >= full {
			out = dst[:full:full]
		}
		if err := s.codec.decompress(f.compression, out, b); err != nil {
			return 0, err
		}
		b = out
	}
	return copy(dst, b[skip:]), nil
}

func (f *chunkFile) readStored(b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return damaged("the file ends at byte %d", off+int64(n))
	}
	return err
}

// check reads and checks the whole file of a chunk on d, past all caches.
func (s *Store) check(ctx context.Context, d *disk, id object.ChunkID) (Info, error) {
	f, err := s.openOn(d, id)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	sum := sha256.New()
	if err := s.hashInto(ctx, f, sum); err != nil {
		return Info{}, err
	}
	if !bytes.Equal(sum.Sum(nil), f.sha[:]) {
		return Info{}, damaged("the content fails its SHA-256")
	}
	return f.info(), nil
}

func (s *Store) hashInto(ctx context.Context, f *chunkFile, sum hash.Hash) error {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	for i := range f.frames {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := (*buf)[:frameLength(f.length, i)]
		if _, err := s.readFrames(f, int64(i)*FrameSize, b); err != nil {
			return err
		}
		sum.Write(b)
	}
	return nil
}
