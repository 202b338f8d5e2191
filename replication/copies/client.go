package copies

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// exchange sends a request to a node, and turns what went wrong into an error with its kind.
func (s *Store) exchange(node string, req *http.Request) (*http.Response, error) {
	// All our requests may be repeated: net/http does so when a kept connection
	// turns out to be dead. Without a value this is not sent.
	req.Header["Idempotency-Key"] = nil
	resp, err := s.o.Client(node).Do(req)
	if err != nil {
		if req.Context().Err() != nil {
			return nil, context.Cause(req.Context())
		}
		return nil, object.Errorf(object.KindUnavailable, "%w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, failureOf(resp)
}

// ask is exchange for a request with a small body, or none.
func (s *Store) ask(ctx context.Context, node, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+node+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return s.exchange(node, req)
}

// upload makes bodies of pieces, and knows when net/http has done with the last
// of them: it may read on after it answered.
type upload struct {
	pieces [][]byte
	moved  func()
	open   sync.WaitGroup
}

type uploadBody struct {
	io.Reader
	once sync.Once
	u    *upload
}

func (b *uploadBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.u.moved()
	return n, err
}

func (b *uploadBody) Close() error {
	b.once.Do(b.u.open.Done)
	return nil
}

func (u *upload) body() (io.ReadCloser, error) {
	readers := make([]io.Reader, len(u.pieces))
	for i, p := range u.pieces {
		readers[i] = bytes.NewReader(p)
	}
	u.open.Add(1)
	return &uploadBody{Reader: io.MultiReader(readers...), u: u}, nil
}

// putAt sends a copy or shard to another node, and returns the SHA-256 of what it
// stored. Nobody reads the content any more when it returns.
func (s *Store) putAt(ctx context.Context, node string, l *load, c *content, epoch uint64) (sum [32]byte, err error) {
	ctx, dog, stop := s.watch(ctx, node)
	defer stop()
	u := &upload{pieces: c.pieces, moved: dog.moved}
	defer u.open.Wait()
	body, err := u.body()
	if err != nil {
		return sum, err
	}
	path := want{chunk: Chunk{ID: l.id, Scheme: l.scheme}}.path("")
	// A holder whose disks are busy, but move, says so.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { dog.moved(); return nil }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+node+path, body)
	if err != nil {
		return sum, errors.Join(err, body.Close())
	}
	req.ContentLength, req.GetBody = c.length, u.body // again, when a kept connection was dead
	req.Header.Set(headEpoch, strconv.FormatUint(epoch, 10))
	req.Header.Set(headSum, strconv.FormatUint(uint64(c.crc()), 16))
	resp, err := s.exchange(node, req)
	if err != nil {
		return sum, err
	}
	defer resp.Body.Close()
	if sum, err = parseSHA(resp.Header.Get(headSHA)); err != nil {
		return sum, object.Errorf(object.KindInternal, "%s answered a put without a SHA-256", node)
	}
	return sum, nil
}

// readAt reads [w.off, w.off+w.len) of another node's copy or shard, as far as it
// goes: begin hears the length of the whole, fn gets the checked bytes in order.
func (s *Store) readAt(ctx context.Context, node string, w want, begin func(int64) error, fn func([]byte) error) error {
	ctx, dog, stop := s.watch(ctx, node)
	defer stop()
	resp, err := s.ask(ctx, node, http.MethodGet, w.path(""), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	length, err := strconv.ParseInt(resp.Header.Get(headLength), 10, 64)
	if err != nil || length < 1 || length > chunk.MaxLength {
		return object.Errorf(object.KindInternal, "%s answered a read with the length %q", node, resp.Header.Get(headLength))
	}
	if err := begin(length); err != nil {
		return err
	}
	buf := s.frames.Get().(*[]byte)
	defer s.frames.Put(buf)
	for off, end := w.off, min(w.off+w.len, length); off < end; {
		b, err := readFrame(resp.Body, *buf, int(min(end-off, chunk.FrameSize)))
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}
		dog.moved()
		if err := fn(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// statAt describes another node's copy or shard; verify has it read and checked first.
func (s *Store) statAt(ctx context.Context, node string, w want, verify bool) (k kept, err error) {
	ctx, _, stop := s.watch(ctx, node)
	defer stop()
	path := w.path("")
	if verify {
		path += "&verify=1"
	}
	resp, err := s.ask(ctx, node, http.MethodHead, path, nil)
	if err != nil {
		return k, err
	}
	defer resp.Body.Close()
	length, err1 := strconv.ParseInt(resp.Header.Get(headLength), 10, 64)
	size, err2 := strconv.ParseInt(resp.Header.Get(headSize), 10, 64)
	sum, err3 := parseSHA(resp.Header.Get(headSHA))
	if err := errors.Join(err1, err2, err3); err != nil || size < 1 || size > chunk.MaxLength || length < 1 || length > size {
		return k, object.Errorf(object.KindInternal, "%s described a chunk as %q bytes of %q", node, resp.Header.Get(headLength), resp.Header.Get(headSize))
	}
	return kept{length: length, whole: sum, size: size}, nil
}

// report tells a holder that its copy is missing or bad.
func (s *Store) report(ctx context.Context, node string, c Chunk) error {
	ctx, _, stop := s.watch(ctx, node)
	defer stop()
	resp, err := s.ask(ctx, node, http.MethodPost, want{chunk: c, len: c.Length}.path("/repair"), nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// deleteAt has another node delete chunks.
func (s *Store) deleteAt(ctx context.Context, node string, scheme Scheme, ids []object.ChunkID) error {
	for len(ids) > 0 {
		n := min(len(ids), maxDelete)
		body := make([]byte, 0, n*object.ChunkIDSize)
		for _, id := range ids[:n] {
			body = id.AppendBinary(body)
		}
		dctx, _, stop := s.watch(ctx, node)
		resp, err := s.ask(dctx, node, http.MethodPost, "/chunks/delete?"+want{chunk: Chunk{Scheme: scheme}}.query(), body)
		if err == nil {
			err = resp.Body.Close()
		}
		stop()
		if err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}
