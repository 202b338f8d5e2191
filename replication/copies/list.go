package copies

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A list of what a holder keeps is answered in frames, as a read is. The length of a
// frame tells what it is:
//
//	a multiple of 22   ids in binary, in order
//	8                  how many ids there were so far, big-endian; top bit: these are all
//
// The last frame is one of 8 with the bit: a list that breaks off is never taken for a whole one.
const (
	listMark  = 8
	listEnd   = 1 << 63
	listFrame = chunk.FrameSize / object.ChunkIDSize * object.ChunkIDSize
	// listBeat is how often a holder that finds nothing says that it still looks.
	listBeat = time.Second
)

// Selection picks chunks by the group that their ids hash to, of a layout with Of
// groups, whatever their scheme: a file does not say what it is of.
type Selection struct {
	Of     int
	Groups []int
	// Since is the map's epoch that the holder has to have adopted before it looks: what it
	// took under an older one and acknowledges later would be missing.
	Since uint64
}

func (l Selection) check() error {
	if l.Of < 1 || l.Of > placement.MaxGroups || len(l.Groups) > l.Of {
		return invalid("a list of %d of %d chunk groups", len(l.Groups), l.Of)
	}
	for _, g := range l.Groups {
		if g < 0 || g >= l.Of {
			return invalid("there is no chunk group %d of %d", g, l.Of)
		}
	}
	return nil
}

// picks is the groups that are wanted, by number.
func (l Selection) picks() []bool {
	list := make([]bool, l.Of)
	for _, g := range l.Groups {
		list[g] = true
	}
	return list
}

// body is the groups as a request carries them: four bytes each, big-endian.
func (l Selection) body() []byte {
	b := make([]byte, 0, 4*len(l.Groups))
	for _, g := range l.Groups {
		b = binary.BigEndian.AppendUint32(b, uint32(g))
	}
	return b
}

// parseSelection reads what body wrote; KindInvalid for anything else.
func parseSelection(of string, b []byte) (l Selection, err error) {
	n, err := number(of, placement.MaxGroups)
	if err != nil {
		return l, err
	}
	if len(b)%4 != 0 {
		return l, invalid("%d bytes are no list of chunk groups", len(b))
	}
	for l.Of = int(n); len(b) > 0; b = b[4:] {
		l.Groups = append(l.Groups, int(binary.BigEndian.Uint32(b)))
	}
	return l, l.check()
}

// List calls fn with the id of every chunk of the groups that a node, which may be
// this one, has a file of, in the order of the ids, until fn fails. What comes or goes meanwhile may be
// missing; what was there all the time is not, or there is an error. It reads
// names only: a file that is there may be damaged.
func (s *Store) List(ctx context.Context, node string, sel Selection, fn func(object.ChunkID) error) error {
	if err := sel.check(); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.tasks.Done()
	if node != s.o.Self {
		return s.listAt(ctx, node, sel, fn)
	}
	return s.listHere(ctx, sel, nil, fn)
}

// listHere is List of this node; beat, where set, is called now and then.
func (s *Store) listHere(ctx context.Context, sel Selection, beat func() error, fn func(object.ChunkID) error) error {
	owners, err := s.o.Local.Partitions()
	if err != nil {
		return err
	}
	want, last := sel.picks(), time.Now()
	for _, owner := range owners {
		err := s.o.Local.Each(ctx, owner, object.ChunkID{}, func(id object.ChunkID) error {
			if beat != nil && time.Since(last) >= listBeat {
				last = time.Now()
				if err := beat(); err != nil {
					return err
				}
			}
			if !want[placement.Hash(id)%uint64(sel.Of)] {
				return nil
			}
			return fn(id)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// serveList answers POST /chunks/list?of=N, body: the groups.
func (s *Store) serveList(w http.ResponseWriter, r *http.Request) {
	err := s.enter()
	if err == nil {
		defer s.tasks.Done()
		err = s.answerList(w, r)
	}
	if err != nil {
		w.Header().Set(headKind, object.KindOf(err).String())
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// answerList returns an error while nothing has been answered.
func (s *Store) answerList(w http.ResponseWriter, r *http.Request) error {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(s.o.Stall)); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4*placement.MaxGroups))
	if err != nil {
		return object.Errorf(object.KindIncomplete, "the list of chunk groups did not arrive whole: %w", err)
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	sel, err := parseSelection(r.URL.Query().Get("of"), body)
	if err != nil {
		return err
	}
	if text := r.URL.Query().Get("since"); text != "" && s.o.Newer != nil {
		since, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return invalid("an epoch: %w", err)
		}
		wait, cancel := context.WithTimeout(r.Context(), s.o.Stall/4)
		err = s.o.Newer(wait, since)
		if cancel(); err != nil {
			return err
		}
	}
	peer := peerOf(r)
	if err := s.gets.acquire(r.Context(), peer, 1, s.o.Stall/2); err != nil {
		return err
	}
	defer s.gets.release(peer, 1)
	l := &lister{w: w, buf: make([]byte, 0, listFrame)}
	err = s.listHere(r.Context(), sel, func() error { return l.mark(0, rc) }, l.add)
	if err == nil {
		err = l.mark(listEnd, rc)
	}
	if err != nil {
		_ = writeFailure(w, err) // whoever is gone does not mind
	}
	return nil
}

// lister writes a list.
type lister struct {
	w   io.Writer
	buf []byte
	n   uint64
}

func (l *lister) add(id object.ChunkID) error {
	l.buf = id.AppendBinary(l.buf)
	l.n++
	if len(l.buf) < listFrame {
		return nil
	}
	return l.flush()
}

func (l *lister) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	err := writeFrame(l.w, l.buf)
	l.buf = l.buf[:0]
	return err
}

// mark sends what there is, and how much it was.
func (l *lister) mark(end uint64, rc *http.ResponseController) error {
	if err := l.flush(); err != nil {
		return err
	}
	if err := writeFrame(l.w, mark(l.n|end)); err != nil {
		return err
	}
	return rc.Flush()
}

func mark(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// listAt is List of another node.
func (s *Store) listAt(ctx context.Context, node string, sel Selection, fn func(object.ChunkID) error) error {
	ctx, dog, stop := s.watch(ctx, node)
	defer stop()
	resp, err := s.ask(ctx, node, http.MethodPost, "/chunks/list?of="+strconv.Itoa(sel.Of)+"&since="+strconv.FormatUint(sel.Since, 10), sel.body())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buf := s.frames.Get().(*[]byte)
	defer s.frames.Put(buf)
	err = readList(resp.Body, *buf, dog.moved, fn)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// readList reads a list to its end: KindUnavailable where it breaks off or does not
// have as many ids as it says. buf has room for a frame.
func readList(r io.Reader, buf []byte, moved func(), fn func(object.ChunkID) error) error {
	for n := uint64(0); ; {
		b, err := readFrame(r, buf, chunk.FrameSize)
		if err != nil {
			return err
		}
		moved()
		if len(b) == listMark {
			said := binary.BigEndian.Uint64(b)
			if said&^listEnd != n {
				return object.Errorf(object.KindUnavailable, "a list of %d chunks arrived as %d", said&^listEnd, n)
			}
			if said&listEnd != 0 {
				return nil
			}
			continue
		}
		ids, err := parseIDs(b)
		if err != nil {
			return err
		}
		n += uint64(len(ids))
		for _, id := range ids {
			if err := fn(id); err != nil {
				return err
			}
		}
	}
}
