package chunk

import (
	"crypto/sha256"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// content is the logical bytes of a chunk, in memory.
type content struct {
	pieces [][]byte
	step   int // length of each piece but the last
	length int64
}

// newContent checks that pieces can be a chunk.
func newContent(pieces [][]byte) (c content, err error) {
	for _, p := range pieces {
		c.length += int64(len(p))
	}
	switch {
	case c.length == 0:
		return c, object.Errorf(object.KindInvalid, "a chunk has at least one byte")
	case c.length > MaxLength:
		return c, object.Errorf(object.KindTooLarge, "a chunk of %d bytes: at most %d are possible", c.length, MaxLength)
	}
	c.pieces, c.step = pieces, len(pieces[0])
	for i, p := range pieces[1:] {
		last := i == len(pieces)-2
		if c.step%FrameSize != 0 || len(p) > c.step || len(p) == 0 || len(p) < c.step && !last {
			return c, object.Errorf(object.KindInternal, "the pieces of a chunk are not of one length")
		}
	}
	return c, nil
}

// frame is the logical bytes of frame i.
func (c content) frame(i int) []byte {
	p, off := c.pieces[i*FrameSize/c.step], i*FrameSize%c.step
	return p[off:min(off+FrameSize, len(p))]
}

func (c content) sha256() (sum [32]byte) {
	h := sha256.New()
	for _, p := range c.pieces {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// hashing computes the SHA-256 of data beside the writing; the result waits for it.
func hashing(data content, known *[32]byte) func() [32]byte {
	if known != nil {
		return func() [32]byte { return *known }
	}
	const small = 256 << 10 // a goroutine costs more
	if data.length < small {
		sum := data.sha256()
		return func() [32]byte { return sum }
	}
	done := make(chan struct{})
	var sum [32]byte
	go func() { sum = data.sha256(); close(done) }()
	return func() [32]byte { <-done; return sum }
}

// packed is a chunk in the form in which its frames are stored.
type packed struct {
	header
	frames  []frame
	parts   [][]byte // the frames' stored bytes
	release func()   // gives parts back
}

// pack cuts data into frames and compresses them where that saves enough.
func (s *Store) pack(data content) (*packed, error) {
	p := &packed{release: func() {}}
	p.length = data.length
	p.frames = make([]frame, frameCount(p.length))
	if err := s.compressInto(p, data); err != nil {
		return nil, err
	}
	if p.compression == None {
		p.parts, p.stored = data.pieces, data.length
		for i := range p.frames {
			f := data.frame(i)
			p.frames[i] = frame{stored: int32(len(f)), crc: castagnoli(f)}
		}
		return p, nil
	}
	rest := p.parts[0]
	p.stored = int64(len(rest))
	for i := range p.frames {
		n := p.frames[i].stored
		p.frames[i].crc = castagnoli(rest[:n])
		rest = rest[n:]
	}
	return p, nil
}

// compressInto compresses data if the store does and the chunk as a whole gets smaller.
func (s *Store) compressInto(p *packed, data content) error {
	kind := s.opts.Compression
	if kind == None {
		return nil
	}
	scratch := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(scratch)
	if promising, err := s.promising(kind, *scratch, data); err != nil || !promising {
		return err
	}
	body := s.bodies.Get().(*[]byte)
	p.release = func() { s.bodies.Put(body) }
	out := (*body)[:0]
	defer func() { *body = out[:0] }() // it may have grown
	for i := range p.frames {
		src := data.frame(i)
		enc, ok, err := s.codec.compress(kind, *scratch, src)
		if err != nil {
			return err
		}
		if !ok {
			enc = src
		}
		if !worthwhile(len(out)+len(enc), int(data.length)) {
			return nil // too little is left to save
		}
		p.frames[i] = frame{stored: int32(len(enc)), compressed: ok}
		out = append(out, enc...)
	}
	p.compression, p.parts = kind, [][]byte{out}
	return nil
}

// promising tries a few frames of a long chunk, so that what is compressed
// already (video, archives) costs little.
func (s *Store) promising(kind Compression, scratch []byte, data content) (bool, error) {
	const samples = 4
	frames := frameCount(data.length)
	if frames <= 2*samples {
		return true, nil
	}
	for i := range samples {
		at := i * (frames - 1) / (samples - 1)
		_, ok, err := s.codec.compress(kind, scratch, data.frame(at))
		if err != nil || ok {
			return ok, err
		}
	}
	return false, nil
}

// writeTo writes the file: first the frames, so that the hash is ready by the
// time the header needs it.
func (p *packed) writeTo(f vfs.File, id object.ChunkID, sum func() [32]byte) error {
	off := p.dataOffset()
	begun := int64(firstPage) // the header dirties the page before it once more
	for _, part := range p.parts {
		for len(part) > 0 {
			n, err := f.WriteAt(part[:min(len(part), writeoutStep)], off)
			if err != nil {
				return err
			}
			off, part = off+int64(n), part[n:]
			if off-begun >= writeoutStep {
				beginWriteout(f, begun, off-begun)
				begun = off
			}
		}
	}
	p.id, p.sha = id, sum()
	_, err := f.WriteAt(appendHeader(nil, p.header, p.frames), 0)
	return err
}

const (
	firstPage = 4 << 10
	// writeoutStep is how many bytes are handed to the disk at a time.
	writeoutStep = 1 << 20
)

// beginWriteout has the kernel begin to write a range, so that the sync at the
// end has less to wait for. It promises nothing, and neither does its success:
// an error of the disk comes back from that sync.
func beginWriteout(f vfs.File, off, n int64) {
	c, ok := f.(syscall.Conn)
	if !ok {
		return // not a file of the operating system
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE) })
	}
}
