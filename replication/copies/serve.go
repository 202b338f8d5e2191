package copies

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/transport"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Handler serves this node's chunks to the other nodes; give it to
// transport.Node.HandleHTTP.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /chunks/{id}", s.handle(s.servePut))
	mux.HandleFunc("GET /chunks/{id}", s.handle(s.serveRead)) // HEAD too
	mux.HandleFunc("POST /chunks/{id}/repair", s.handle(s.serveRepair))
	mux.HandleFunc("POST /chunks/delete", s.handle(s.serveDelete))
	mux.HandleFunc("POST /chunks/list", s.serveList)
	return mux
}

func (s *Store) handle(fn func(http.ResponseWriter, *http.Request, want) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := s.enter()
		var ask want
		if err == nil {
			defer s.tasks.Done()
			id := r.PathValue("id")
			if id == "" { // a list of chunks
				id = object.ChunkID{}.String()
			}
			ask, err = parseWant(id, r.URL.Query())
		}
		if err == nil {
			err = fn(w, r, ask)
		}
		if err == nil {
			return
		}
		w.Header().Set(headKind, object.KindOf(err).String())
		if place, perr := s.locate(ask.chunk.ID, ask.chunk.Scheme); perr == nil {
			w.Header().Set(headEpoch, strconv.FormatUint(place.since, 10))
		}
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func peerOf(r *http.Request) string {
	p, _ := transport.PeerOf(r.Context())
	return p.Node
}

func (s *Store) servePut(w http.ResponseWriter, r *http.Request, ask want) error {
	epoch, err := strconv.ParseUint(r.Header.Get(headEpoch), 10, 64)
	if err != nil {
		return invalid("%s: %w", headEpoch, err)
	}
	sum, err := strconv.ParseUint(r.Header.Get(headSum), 16, 32)
	if err != nil {
		return invalid("%s: %w", headSum, err)
	}
	n := r.ContentLength
	if n <= 0 || n > chunk.MaxLength {
		return invalid("a chunk has 1 to %d bytes, not %d", chunk.MaxLength, n)
	}
	peer := peerOf(r)
	if err := s.admit(r.Context(), peer, ask, epoch, n); err != nil {
		// Who is sent away in the middle of a body may not get to read why.
		return errors.Join(err, s.receive(w, r, n, nil))
	}
	defer s.served.release(peer, n)
	data := make([]byte, n)
	if err := s.receive(w, r, n, data); err != nil {
		return err
	}
	if sumOf(data) != uint32(sum) {
		return object.Errorf(object.KindDigest, "the chunk was damaged on its way")
	}
	t := s.takeFor(w, r, ask, epoch, data)
	if t.err != nil {
		return t.err
	}
	w.Header().Set(headSHA, hex.EncodeToString(t.ref.SHA256[:]))
	w.WriteHeader(http.StatusCreated)
	return nil
}

// takeFor is take that tells the client now and then, by an interim answer, that
// the disks are busy but move. It waits for a disk that hangs: so does the memory.
func (s *Store) takeFor(w http.ResponseWriter, r *http.Request, ask want, epoch uint64, data []byte) taken {
	began, done := time.Now(), make(chan taken, 1)
	s.background(func() { done <- s.take(r.Context(), ask.chunk.ID, ask.chunk.Scheme, epoch, [][]byte{data}) })
	tick := time.NewTicker(s.o.Stall / beats)
	defer tick.Stop()
	for {
		select {
		case t := <-done:
			return t
		case <-tick.C:
			if s.diskMoves(began) {
				w.WriteHeader(http.StatusProcessing)
			}
		}
	}
}

// admit takes room for an upload, unless it comes under an old map. While a body
// is unread, the server does not notice that the client left: the wait has a
// deadline of its own.
func (s *Store) admit(ctx context.Context, peer string, ask want, epoch uint64, n int64) error {
	err := s.current(ask.chunk.ID, ask.chunk.Scheme, epoch)
	if object.IsKind(err, object.KindUnavailable) && s.o.Newer != nil {
		// A bucket is the first of its width: our map lags.
		wait, cancel := context.WithTimeout(ctx, s.o.Stall/2)
		if err = s.o.Newer(wait, epoch); err == nil {
			err = s.current(ask.chunk.ID, ask.chunk.Scheme, epoch)
		}
		cancel()
	}
	if err != nil {
		return err
	}
	return s.served.acquire(ctx, peer, n, s.o.Stall/2)
}

// receive reads a body of n bytes, whose sender has to keep moving, into data, or
// throws it away.
func (s *Store) receive(w http.ResponseWriter, r *http.Request, n int64, data []byte) error {
	const step = 64 << 10
	var waste []byte
	if data == nil {
		waste = make([]byte, step)
	}
	rc, end := http.NewResponseController(w), time.Now().Add(attemptBound)
	for done := int64(0); done < n; {
		deadline := time.Now().Add(s.o.Stall)
		if deadline.After(end) {
			deadline = end
		}
		if err := rc.SetReadDeadline(deadline); err != nil {
			return err
		}
		into := waste
		if data != nil {
			into = data[done:]
		}
		k, err := io.ReadFull(r.Body, into[:min(n-done, step)])
		if done += int64(k); err != nil {
			return object.Errorf(object.KindIncomplete, "the chunk did not arrive whole: %w", err)
		}
	}
	// A deadline left behind would look like a client that left, once it passes.
	return rc.SetReadDeadline(time.Time{})
}

// current refuses an epoch older than that of the chunk's group here.
func (s *Store) current(id object.ChunkID, scheme Scheme, epoch uint64) error {
	site, err := s.o.Locate(id, scheme)
	if err != nil {
		return err
	}
	if epoch < site.Since {
		return &newer{site.Since, object.Errorf(object.KindStale, "the chunk was placed by the map of epoch %d, its group changed at %d", epoch, site.Since)}
	}
	return nil
}

// taken is what take answers.
type taken struct {
	ref chunk.Ref
	err error
}

// take makes a copy or shard durable here, unless it was placed under an old map.
// That is looked at again once it is durable: who adopts a new epoch lists its
// chunks after that, and what is acknowledged under the old one must be in the list.
func (s *Store) take(ctx context.Context, id object.ChunkID, scheme Scheme, epoch uint64, pieces [][]byte) (t taken) {
	if t.err = s.current(id, scheme, epoch); t.err != nil {
		return t
	}
	if t.ref, t.err = s.o.Local.PutPieces(ctx, id, pieces); t.err == nil {
		s.lastPut.Store(time.Now().UnixMilli())
		t.err = s.current(id, scheme, epoch)
	}
	return t
}

func (s *Store) serveRead(w http.ResponseWriter, r *http.Request, ask want) error {
	peer := peerOf(r)
	if err := s.gets.acquire(r.Context(), peer, 1, s.o.Stall/2); err != nil {
		return err
	}
	defer s.gets.release(peer, 1)
	if r.URL.Query().Get("verify") != "" {
		if err := s.o.Local.Verify(r.Context(), ask.chunk.ID); err != nil {
			return err
		}
	}
	k, err := s.open(r.Context(), ask.chunk, ask.shard)
	if err != nil {
		return err
	}
	w.Header().Set(headLength, strconv.FormatInt(k.length, 10))
	w.Header().Set(headSHA, hex.EncodeToString(k.whole[:]))
	if r.Method == http.MethodHead {
		w.Header().Set(headSize, strconv.FormatInt(k.size, 10))
		return nil
	}
	n := max(0, min(ask.len, k.length-ask.off))
	w.Header().Set("Content-Length", strconv.FormatInt(wireLength(ask.off, n), 10))
	var gone error
	err = s.eachFrame(r.Context(), ask.chunk.ID, k.sha, ask.off, n, func(b []byte) error {
		gone = writeFrame(w, b)
		return gone
	})
	if err != nil && gone == nil {
		gone = writeFailure(w, err) // shorter than was declared: the connection ends behind it
	}
	if gone != nil {
		s.log.Debug("a node went away while it read a chunk", "node", peer, "err", gone)
	}
	return nil
}

// kept is what this node keeps of a chunk.
type kept struct {
	sha    [32]byte // of what is in the local store
	length int64    // of it, without the trailer of a shard
	whole  [32]byte // SHA-256 of the chunk
	size   int64    // length of the chunk
}

// open finds this node's copy or shard, and refuses one that is not what is
// asked for: KindCorrupt. Its frames are not read.
func (s *Store) open(ctx context.Context, c Chunk, shard int) (kept, error) {
	info, err := s.o.Local.Stat(ctx, c.ID)
	if err != nil {
		return kept{}, err
	}
	k := kept{sha: info.SHA256, length: info.Length, whole: info.SHA256, size: info.Length}
	if c.Scheme.Coded() {
		t, err := s.trailer(ctx, c.ID, info.Ref)
		if err == nil {
			err = t.fits(c.Scheme, shard)
		}
		if err != nil {
			return kept{}, err
		}
		k.length, k.whole, k.size = info.Length-trailerSize, t.whole, t.length
	}
	if c.SHA256 != ([32]byte{}) && c.SHA256 != k.whole {
		return kept{}, object.Errorf(object.KindCorrupt, "what is kept is of SHA-256 %x, asked for was %x", k.whole, c.SHA256)
	}
	return k, nil
}

// eachFrame gives fn the checked bytes [off, off+n) of a chunk in this node's
// store, cut where its frames end. The bytes are fn's until it returns.
func (s *Store) eachFrame(ctx context.Context, id object.ChunkID, sha [32]byte, off, n int64, fn func([]byte) error) error {
	buf := s.frames.Get().(*[]byte)
	defer s.frames.Put(buf)
	for n > 0 {
		b := (*buf)[:min(n, chunk.FrameSize-off%chunk.FrameSize)]
		if _, err := s.o.Local.ReadAt(ctx, id, sha, off, b); err != nil {
			return err
		}
		if err := fn(b); err != nil {
			return err
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// serveRepair takes a report about this node's copy; Run looks into it.
func (s *Store) serveRepair(w http.ResponseWriter, _ *http.Request, ask want) error {
	c := ask.chunk
	c.Length = ask.len
	s.hints.add(hint{chunk: c, node: s.o.Self})
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (s *Store) serveDelete(w http.ResponseWriter, r *http.Request, _ want) error {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.o.Stall)); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelete*object.ChunkIDSize))
	if err != nil {
		return object.Errorf(object.KindIncomplete, "the list of chunks did not arrive whole: %w", err)
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ids, err := parseIDs(body)
	if err != nil {
		return err
	}
	return s.deleteHere(r.Context(), ids)
}
