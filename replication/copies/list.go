package copies

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
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
	// After and Max make a list one page of it: at most Max ids (0: all) behind After
	// (zero: from the first on), in their order.
	After object.ChunkID
	Max   int
}

// errPage ends a list that has its Max.
var errPage = errors.New("the page is full")

// page hands on the ids of one page; a list of what was not asked for is an error.
func (l Selection) page(fn func(object.ChunkID) error) func(object.ChunkID) error {
	last, n := l.After, 0
	return func(id object.ChunkID) error {
		if (l.Max > 0 || l.After != object.ChunkID{}) && id.Compare(last) <= 0 || l.Max > 0 && n == l.Max {
			return object.Errorf(object.KindVersion, "a list of chunks has what was not asked for: run the same version on all nodes")
		}
		last = id
		n++
		return fn(id)
	}
}

func (l Selection) check() error {
	if l.Max < 0 {
		return invalid("a page of %d chunks", l.Max)
	}
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

// query is the rest of it.
func (l Selection) query() string {
	q := "of=" + strconv.Itoa(l.Of) + "&since=" + strconv.FormatUint(l.Since, 10)
	if l.After != (object.ChunkID{}) {
		q += "&after=" + hex.EncodeToString(l.After.AppendBinary(nil))
	}
	if l.Max > 0 {
		q += "&max=" + strconv.Itoa(l.Max)
	}
	return q
}

// parseSelection reads what query and body wrote; KindInvalid for anything else.
func parseSelection(q url.Values, b []byte) (l Selection, err error) {
	n, err := number(q.Get("of"), placement.MaxGroups)
	if err != nil {
		return l, err
	}
	if text := q.Get("since"); text != "" {
		if l.Since, err = strconv.ParseUint(text, 10, 64); err != nil {
			return l, invalid("an epoch: %w", err)
		}
	}
	if text := q.Get("max"); text != "" {
		most, err := number(text, math.MaxInt32)
		if err != nil {
			return l, err
		}
		l.Max = int(most)
	}
	if text := q.Get("after"); text != "" {
		raw, err := hex.DecodeString(text)
		if err != nil {
			return l, invalid("a chunk to begin behind: %w", err)
		}
		if l.After, err = object.ChunkIDFromBinary(raw); err != nil {
			return l, invalid("a chunk to begin behind: %w", err)
		}
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
// this one, has a file of, in the order of the ids, until fn fails; of one page of them, if
// sel says so: who gets Max asks for the next. What comes or goes meanwhile may be
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
		return s.listAt(ctx, node, sel, sel.page(fn))
	}
	return s.listHere(ctx, sel, nil, fn)
}

// listHere is List of this node; beat, where set, is called now and then.
func (s *Store) listHere(ctx context.Context, sel Selection, beat func() error, fn func(object.ChunkID) error) error {
	owners, err := s.o.Local.Partitions()
	if err != nil {
		return err
	}
	want, last, left := sel.picks(), time.Now(), sel.Max
	for _, owner := range owners {
		err := s.o.Local.Each(ctx, owner, sel.After, func(id object.ChunkID) error {
			if beat != nil && time.Since(last) >= listBeat {
				last = time.Now()
				if err := beat(); err != nil {
					return err
				}
			}
			if !want[placement.Hash(id)%uint64(sel.Of)] {
				return nil
			}
			if err := fn(id); err != nil {
				return err
			}
			if left--; left == 0 {
				return errPage
			}
			return nil
		})
		if errors.Is(err, errPage) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// serveList answers POST /chunks/list?of=N&since=EPOCH&after=ID&max=N, body: the groups.
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
	sel, err := parseSelection(r.URL.Query(), body)
	if err != nil {
		return err
	}
	if sel.Since > 0 && s.o.Newer != nil {
		wait, cancel := context.WithTimeout(r.Context(), s.o.Stall/4)
		err = s.o.Newer(wait, sel.Since)
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
	resp, err := s.ask(ctx, node, http.MethodPost, "/chunks/list?"+sel.query(), sel.body())
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
