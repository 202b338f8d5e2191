package copies

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What holders say to each other, over HTTP/1.1 between authenticated nodes.
//
//	PUT  /chunks/ID   body: the chunk; answers its SHA-256     X-Epoch, X-Crc32c
//	GET  /chunks/ID?off=N&len=N&sha=HEX                        answers X-Crc32c, X-Eof
//	POST /chunks      body: ids in binary; deletes them
//
// Errors carry X-Kind, and what went wrong as text.
const (
	headEpoch = "X-Epoch"
	headSum   = "X-Crc32c"
	headSHA   = "X-Sha256"
	headEOF   = "X-Eof"
	headKind  = "X-Kind"
	maxDelete = 4096 // ids in one request
)

// Handler serves this node's chunks to the other nodes.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /chunks/{id}", s.handle(s.servePut))
	mux.HandleFunc("GET /chunks/{id}", s.handle(s.serveRead))
	mux.HandleFunc("POST /chunks", s.handle(s.serveDelete))
	return mux
}

func (s *Store) handle(fn func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := fn(w, r); err != nil {
			w.Header().Set(headKind, object.KindOf(err).String())
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

func invalid(format string, args ...any) error {
	return object.Errorf(object.KindInvalid, format, args...)
}

func (s *Store) servePut(w http.ResponseWriter, r *http.Request) error {
	id, err := object.ParseChunkID(r.PathValue("id"))
	if err != nil {
		return err
	}
	epoch, err := strconv.ParseUint(r.Header.Get(headEpoch), 10, 64)
	if err != nil {
		return invalid("%s: %w", headEpoch, err)
	}
	want, err := strconv.ParseUint(r.Header.Get(headSum), 16, 32)
	if err != nil {
		return invalid("%s: %w", headSum, err)
	}
	if r.ContentLength <= 0 || r.ContentLength > chunk.MaxLength {
		return invalid("a chunk has 1 to %d bytes, not %d", chunk.MaxLength, r.ContentLength)
	}
	if err := s.o.Adopt(epoch); err != nil {
		return err
	}
	if err := s.serve.Acquire(r.Context(), r.ContentLength); err != nil {
		return err
	}
	defer s.serve.Release(r.ContentLength)
	data := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, data); err != nil {
		return object.Errorf(object.KindIncomplete, "the chunk did not arrive whole: %w", err)
	}
	if crc32.Checksum(data, castagnoli) != uint32(want) {
		return object.Errorf(object.KindDigest, "the chunk was damaged on its way")
	}
	ref, err := s.o.Local.Put(r.Context(), id, data)
	if err != nil {
		return err
	}
	w.Header().Set(headSHA, hex.EncodeToString(ref.SHA256[:]))
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Store) serveRead(w http.ResponseWriter, r *http.Request) error {
	id, err := object.ParseChunkID(r.PathValue("id"))
	if err != nil {
		return err
	}
	q := r.URL.Query()
	off, err1 := strconv.ParseInt(q.Get("off"), 10, 64)
	size, err2 := strconv.ParseInt(q.Get("len"), 10, 64)
	if err := errors.Join(err1, err2); err != nil || off < 0 || size <= 0 || size > chunk.MaxLength {
		return invalid("off=%q len=%q is no range of a chunk", q.Get("off"), q.Get("len"))
	}
	var want [32]byte
	if n, err := hex.Decode(want[:], []byte(q.Get("sha"))[:min(64, len(q.Get("sha")))]); err != nil || n != len(want) {
		return invalid("sha=%q is no SHA-256", q.Get("sha"))
	}
	if err := s.serve.Acquire(r.Context(), size); err != nil {
		return err
	}
	defer s.serve.Release(size)
	data := make([]byte, size)
	n, err := s.o.Local.ReadAt(r.Context(), id, want, off, data)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err != nil {
		w.Header().Set(headEOF, "1")
	}
	w.Header().Set(headSum, strconv.FormatUint(uint64(crc32.Checksum(data[:n], castagnoli)), 16))
	w.Header().Set("Content-Length", strconv.Itoa(n))
	_, err = w.Write(data[:n])
	if err != nil {
		s.o.Logger.Debug("a node went away while it read a chunk", "err", err)
	}
	return nil
}

func (s *Store) serveDelete(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelete*object.ChunkIDSize))
	if err != nil {
		return object.Errorf(object.KindIncomplete, "the list of chunks did not arrive whole: %w", err)
	}
	if len(body)%object.ChunkIDSize != 0 {
		return invalid("%d bytes are no list of chunks", len(body))
	}
	ids := make([]object.ChunkID, 0, len(body)/object.ChunkIDSize)
	for ; len(body) > 0; body = body[object.ChunkIDSize:] {
		id, err := object.ChunkIDFromBinary(body[:object.ChunkIDSize])
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	return s.o.Local.DeleteAll(r.Context(), ids)
}

// exchange sends a request, and turns what went wrong into an error with its kind.
func exchange(client *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := client.Do(req)
	if err != nil {
		if req.Context().Err() != nil {
			return nil, req.Context().Err()
		}
		return nil, object.Errorf(object.KindUnavailable, "%w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return nil, object.Errorf(object.KindUnavailable, "status %d: %w", resp.StatusCode, err)
	}
	kind := object.KindUnavailable // something else answered
	if k := resp.Header.Get(headKind); k != "" {
		kind = object.ParseKind(k)
	}
	return nil, object.Errorf(kind, "%s", bytes.TrimSpace(text))
}

// ask is exchange for a request with a body in memory, or none.
func (s *Store) ask(ctx context.Context, node, method, path string, body []byte) (*http.Response, error) {
	client, base := s.o.Peer(node)
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return exchange(client, req)
}

// upload makes bodies of a chunk's pieces, and knows when net/http has done with
// the last of them: it may read on after it answered.
type upload struct {
	pieces [][]byte
	open   sync.WaitGroup
}

type uploadBody struct {
	io.Reader
	once   sync.Once
	closed func()
}

func (b *uploadBody) Close() error {
	b.once.Do(b.closed)
	return nil
}

func (u *upload) body() (io.ReadCloser, error) {
	readers := make([]io.Reader, len(u.pieces))
	for i, p := range u.pieces {
		readers[i] = bytes.NewReader(p)
	}
	u.open.Add(1)
	return &uploadBody{Reader: io.MultiReader(readers...), closed: u.open.Done}, nil
}

func (s *Store) putAt(ctx context.Context, node string, p *put) (ref chunk.Ref, err error) {
	for _, b := range p.pieces {
		ref.Length += int64(len(b))
	}
	client, base := s.o.Peer(node)
	u := &upload{pieces: p.pieces}
	defer u.open.Wait()
	body, err := u.body()
	if err != nil {
		return ref, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, base+"/chunks/"+p.id.String(), body)
	if err != nil {
		return ref, errors.Join(err, body.Close())
	}
	req.ContentLength, req.GetBody = ref.Length, u.body // again, when a kept connection was dead
	req.Header.Set(headEpoch, strconv.FormatUint(p.place.Epoch, 10))
	req.Header.Set(headSum, strconv.FormatUint(uint64(p.sum), 16))
	resp, err := exchange(client, req)
	if err != nil {
		return ref, err
	}
	defer resp.Body.Close()
	if n, err := hex.Decode(ref.SHA256[:], []byte(resp.Header.Get(headSHA))); err != nil || n != len(ref.SHA256) {
		return ref, object.Errorf(object.KindInternal, "%s answered a put with the SHA-256 %q", node, resp.Header.Get(headSHA))
	}
	return ref, nil
}

func (s *Store) readAt(ctx context.Context, node string, r *read) ([]byte, error) {
	path := fmt.Sprintf("/chunks/%s?off=%d&len=%d&sha=%x", r.id, r.off, r.size, r.want)
	resp, err := s.ask(ctx, node, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.ContentLength < 0 || resp.ContentLength > int64(r.size) {
		return nil, object.Errorf(object.KindInternal, "%s answered a read of %d bytes with %d", node, r.size, resp.ContentLength)
	}
	data := make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, data); err != nil {
		return nil, object.Errorf(object.KindUnavailable, "%s stopped in the middle of a read: %w", node, err)
	}
	sum, err := strconv.ParseUint(resp.Header.Get(headSum), 16, 32)
	if err != nil || crc32.Checksum(data, castagnoli) != uint32(sum) {
		return nil, object.Errorf(object.KindUnavailable, "what %s answered was damaged on its way", node)
	}
	if resp.Header.Get(headEOF) != "" {
		return data, io.EOF
	}
	if len(data) != r.size {
		return nil, object.Errorf(object.KindInternal, "%s answered a read of %d bytes with %d", node, r.size, len(data))
	}
	return data, nil
}

func (s *Store) deleteAt(ctx context.Context, node string, ids []object.ChunkID) error {
	for len(ids) > 0 {
		n := min(len(ids), maxDelete)
		body := make([]byte, 0, n*object.ChunkIDSize)
		for _, id := range ids[:n] {
			body = id.AppendBinary(body)
		}
		resp, err := s.ask(ctx, node, http.MethodPost, "/chunks", body)
		if err != nil {
			return err
		}
		resp.Body.Close()
		ids = ids[n:]
	}
	return nil
}
