package copies

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What nodes say to each other, over HTTP/1.1 on the transport's connections.
//
//	PUT  /chunks/ID?s=1+2          body: what to keep       X-Epoch, X-Crc32c; answers X-Sha256
//	GET  /chunks/ID?s&i&sha&off&len                         answers X-Length, frames
//	HEAD /chunks/ID?s&i&sha[&verify=1]                      answers X-Length, X-Sha256, X-Size
//	POST /chunks/ID/repair?s&sha&len                        "your copy is missing or bad"
//	POST /chunks/delete?s          body: ids in binary
//	POST /chunks/list?of           body: groups of the ids that are asked for; see list.go
//
// s is the scheme, i the shard (for copies any number), sha the SHA-256 of the chunk's
// bytes (zeros: any), off and len a range of the copy or shard. X-Length is the length of the
// whole copy or shard, without its trailer. Errors carry X-Kind, X-Epoch (the holder's, of the
// chunk's group) and what went wrong as text.
const (
	headEpoch  = "X-Epoch"
	headSum    = "X-Crc32c"
	headSHA    = "X-Sha256"
	headLength = "X-Length"
	headSize   = "X-Size" // of the chunk
	headKind   = "X-Kind"
	maxDelete  = 4096 // ids in one request
	maxText    = 4 << 10
)

// A read is answered in frames:
//
//	0  4  length, big-endian, 1 to chunk.FrameSize; the top bit: it is an error, and the last frame
//	4  4  CRC32C of what follows
//	8     bytes of the chunk; or a kind, a newline and a text
const (
	frameHead  = 8
	failureBit = 1 << 31
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once, by the library

func sumOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }

func writeFrame(w io.Writer, b []byte) error { return writeMarked(w, uint32(len(b)), b) }

func writeMarked(w io.Writer, mark uint32, b []byte) error {
	var head [frameHead]byte
	binary.BigEndian.PutUint32(head[:], mark)
	binary.BigEndian.PutUint32(head[4:], sumOf(b))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// writeFailure ends an answer that has begun.
func writeFailure(w io.Writer, err error) error {
	text := []byte(object.KindOf(err).String() + "\n" + err.Error())
	text = text[:min(len(text), maxText)]
	return writeMarked(w, failureBit|uint32(len(text)), text)
}

// readFrame reads a frame of at most most bytes into buf, which has room for
// chunk.FrameSize. Damage on the way and a peer that stops are KindUnavailable; an
// error that the other side sent keeps its kind.
func readFrame(r io.Reader, buf []byte, most int) ([]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, object.Errorf(object.KindUnavailable, "the answer ended in the middle: %w", err)
	}
	word := binary.BigEndian.Uint32(head[:])
	size, failure := int(word&^failureBit), word&failureBit != 0
	if failure {
		most = min(maxText, len(buf))
	}
	if size == 0 || size > most || size > len(buf) {
		return nil, object.Errorf(object.KindUnavailable, "a frame of %d bytes, where at most %d were to come", size, most)
	}
	b := buf[:size]
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, object.Errorf(object.KindUnavailable, "the answer ended in the middle: %w", err)
	}
	if sumOf(b) != binary.BigEndian.Uint32(head[4:]) {
		return nil, object.Errorf(object.KindUnavailable, "a frame was damaged on its way")
	}
	if failure {
		kind, text, _ := bytes.Cut(b, []byte("\n"))
		return nil, object.Errorf(object.ParseKind(string(kind)), "%s", text)
	}
	return b, nil
}

// wireLength is how many bytes the frames of [off, off+n) have on the wire: they
// end where the chunk's own frames do.
func wireLength(off, n int64) int64 {
	if n == 0 {
		return 0
	}
	first, last := off/chunk.FrameSize, (off+n-1)/chunk.FrameSize
	return n + frameHead*(last-first+1)
}

// want is what a request asks for.
type want struct {
	chunk    Chunk
	shard    int
	off, len int64
}

// path is the request's URL behind the host.
func (w want) path(rest string) string {
	return "/chunks/" + w.chunk.ID.String() + rest + "?" + w.query()
}

func (w want) query() string {
	return url.Values{"s": {w.chunk.Scheme.String()}, "i": {strconv.Itoa(w.shard)}, "sha": {hex.EncodeToString(w.chunk.SHA256[:])},
		"off": {strconv.FormatInt(w.off, 10)}, "len": {strconv.FormatInt(w.len, 10)}}.Encode()
}

// parseWant reads what query wrote; what the request does not name stays zero.
func parseWant(id string, q url.Values) (w want, err error) {
	if w.chunk.ID, err = object.ParseChunkID(id); err != nil {
		return w, err
	}
	if w.chunk.Scheme, err = ParseScheme(q.Get("s")); err != nil {
		return w, err
	}
	shard, err1 := number(q.Get("i"), int64(w.chunk.Scheme.Width())-1)
	off, err2 := number(q.Get("off"), chunk.MaxLength)
	length, err3 := number(q.Get("len"), chunk.MaxLength)
	if err := errors.Join(err1, err2, err3); err != nil {
		return w, err
	}
	if sha := q.Get("sha"); sha != "" {
		if w.chunk.SHA256, err = parseSHA(sha); err != nil {
			return w, err
		}
	}
	w.shard, w.off, w.len = int(shard), off, length
	return w, nil
}

func number(text string, most int64) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, invalid("%q is no number from 0 to %d", text, most)
	}
	return n, nil
}

func parseSHA(text string) (sum [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(sum) {
		return sum, invalid("%q is no SHA-256", text)
	}
	return [32]byte(b), nil
}

func invalid(format string, args ...any) error {
	return object.Errorf(object.KindInvalid, format, args...)
}

// parseIDs reads chunk ids that lie one behind another.
func parseIDs(b []byte) ([]object.ChunkID, error) {
	if len(b)%object.ChunkIDSize != 0 {
		return nil, invalid("%d bytes are no list of chunks", len(b))
	}
	ids := make([]object.ChunkID, 0, len(b)/object.ChunkIDSize)
	for ; len(b) > 0; b = b[object.ChunkIDSize:] {
		id, err := object.ChunkIDFromBinary(b[:object.ChunkIDSize])
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// newer is an error of a holder that knows an epoch of the chunk's group.
type newer struct {
	epoch uint64
	error
}

func (n *newer) Unwrap() error { return n.error }

// epochIn is the largest epoch that the errors name; 0 for none.
func epochIn(errs []failure) (epoch uint64) {
	for _, f := range errs {
		if n := (*newer)(nil); errors.As(f.err, &n) {
			epoch = max(epoch, n.epoch)
		}
	}
	return epoch
}

// failureOf is the error in an answer that is none.
func failureOf(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return object.Errorf(object.KindUnavailable, "status %d: %w", resp.StatusCode, err)
	}
	kind := object.KindUnavailable // something else answered
	if k := resp.Header.Get(headKind); k != "" {
		kind = object.ParseKind(k)
	}
	failed := object.Errorf(kind, "%s", bytes.TrimSpace(text))
	if epoch, err := strconv.ParseUint(resp.Header.Get(headEpoch), 10, 64); err == nil {
		return &newer{epoch, failed}
	}
	return failed
}
