package copies

import (
	"context"
	"encoding/binary"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A holder keeps a shard as a chunk under the chunk's own id: the shard's bytes
// (the data, cut into Data pieces of one length, the last filled up with zeros; or a
// parity piece), and a trailer behind them, so that frames stay where they are:
//
//	 0  8  magic
//	 8  2  version
//	10  1  data shards
//	11  1  parity shards
//	12  1  number of this shard
//	13  7  zero
//	20  8  length of the chunk
//	28 32  SHA-256 of the chunk
//	60  4  CRC32C of the bytes before
const (
	trailerSize    = 64
	trailerMagic   = "BktShard"
	trailerVersion = 1
)

type trailer struct {
	scheme Scheme
	shard  int
	length int64
	whole  [32]byte
}

func (t trailer) append(b []byte) []byte {
	start := len(b)
	b = append(b, trailerMagic...)
	b = binary.BigEndian.AppendUint16(b, trailerVersion)
	b = append(b, byte(t.scheme.Data), byte(t.scheme.Parity), byte(t.shard), 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(t.length))
	b = append(b, t.whole[:]...)
	return binary.BigEndian.AppendUint32(b, sumOf(b[start:]))
}

// parseTrailer reads what append wrote. Anything else is KindCorrupt, a sound
// trailer of a newer version KindVersion.
func parseTrailer(b []byte) (t trailer, err error) {
	if len(b) != trailerSize || string(b[:8]) != trailerMagic || binary.BigEndian.Uint32(b[60:]) != sumOf(b[:60]) {
		return t, object.Errorf(object.KindCorrupt, "what is kept is no shard")
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != trailerVersion {
		return t, object.Errorf(object.KindVersion, "the shard is of version %d, this program reads version %d: start a newer bucketdb", v, trailerVersion)
	}
	t.scheme, t.shard = Scheme{int(b[10]), int(b[11])}, int(b[12])
	length := binary.BigEndian.Uint64(b[20:])
	t.whole = [32]byte(b[28:60])
	for _, zero := range b[13:20] {
		if zero != 0 {
			length = 0
		}
	}
	if t.scheme.check() != nil || !t.scheme.Coded() || t.shard >= t.scheme.Width() || length == 0 || length > chunk.MaxLength {
		return trailer{}, object.Errorf(object.KindCorrupt, "the shard's trailer makes no sense")
	}
	t.length = int64(length)
	return t, nil
}

// fits refuses a shard that is not the one asked for.
func (t trailer) fits(scheme Scheme, shard int) error {
	if t.scheme != scheme || t.shard != shard {
		return object.Errorf(object.KindCorrupt, "what is kept is shard %d of %v, asked for was %d of %v", t.shard, t.scheme, shard, scheme)
	}
	return nil
}

// trailer reads the trailer of the shard that this node keeps.
func (s *Store) trailer(ctx context.Context, id object.ChunkID, ref chunk.Ref) (t trailer, err error) {
	if ref.Length <= trailerSize {
		return t, object.Errorf(object.KindCorrupt, "what is kept is too short for a shard")
	}
	b := make([]byte, trailerSize)
	if _, err := s.o.Local.ReadAt(ctx, id, ref.SHA256, ref.Length-trailerSize, b); err != nil {
		return t, err
	}
	if t, err = parseTrailer(b); err != nil {
		return t, err
	}
	if want := (Chunk{Length: t.length, Scheme: t.scheme}).keptLength(); want != ref.Length-trailerSize {
		return t, object.Errorf(object.KindCorrupt, "the shard has %d bytes, not %d", ref.Length-trailerSize, want)
	}
	return t, nil
}

// encode cuts a load into shards. The caller's pieces go back at once, the shards'
// share of Store.code when the last holder is done with them.
func (s *Store) encode(ctx context.Context, l *load, release func()) error {
	codec, err := s.codecs.get(l.scheme)
	if err != nil {
		return err
	}
	size := l.whole.length
	shards := size + int64(l.scheme.Width()*trailerSize) + size*int64(l.scheme.Parity)/int64(l.scheme.Data)
	room := min(size+2*shards, codeBytes) // the data in one piece, and the shards twice for a moment
	if err := s.code.Acquire(ctx, room); err != nil {
		return err
	}
	parts, err := codec.Encode(joinPieces(l.whole.pieces))
	if err != nil {
		s.code.Release(room)
		return err
	}
	t := trailer{scheme: l.scheme, length: size, whole: l.whole.sha()}
	for i, b := range parts {
		t.shard = i
		l.contents = append(l.contents, newContent([][]byte{t.append(b)}))
	}
	l.release = func() { s.code.Release(room) }
	l.whole.pieces = nil // the SHA-256 is known, nobody reads them again
	release()
	return nil
}

func joinPieces(pieces [][]byte) []byte {
	if len(pieces) == 1 {
		return pieces[0]
	}
	var data []byte
	for _, p := range pieces {
		data = append(data, p...)
	}
	return data
}
