package copies

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/chunk"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Repair makes sure that this node has its copy or shard of a chunk, sound and
// durable: it reads what is here from first byte to last, and, where that is
// missing, bad or another one, gets it from the other holders, checks the chunk's
// SHA-256, asks the owner whether the chunk is still wanted, and stores it. It may be called
// at any time, again, and by several; a crash leaves what was there, or a whole copy.
// SHA256 and Length may be zero: then the other holders are asked, and must agree.
//
// nil: the copy is good, or not this node's to have. KindNotFound: the owner does
// not want the chunk (yet); KindUnavailable: too few holders could be asked;
// KindCorrupt: there are not enough good copies or shards.
func (s *Store) Repair(ctx context.Context, c Chunk) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.tasks.Done()
	p, err := s.locate(c.ID, c.Scheme)
	if err != nil {
		return err
	}
	shard := -1
	for _, sp := range p.spots {
		if sp.node == s.o.Self {
			shard = sp.shard
		}
	}
	if shard < 0 {
		return nil
	}
	return object.WithOp(s.repair(ctx, p, c, shard), "chunk.repair", "", c.ID.String())
}

func (s *Store) repair(ctx context.Context, p place, c Chunk, shard int) error {
	err := s.o.Local.Verify(ctx, c.ID) // what is damaged goes to quarantine
	if err == nil && c.SHA256 != ([32]byte{}) {
		if _, err = s.open(ctx, c, shard); err == nil {
			return nil
		}
	}
	if err != nil && !gone(err) {
		return err
	}
	if c, err = s.describe(ctx, p, c); err != nil {
		return err
	}
	if _, err := s.open(ctx, c, shard); err == nil {
		return nil // it was only unknown what it has to be
	}
	room := c.Length
	if c.Scheme.Coded() { // the shards, the chunk, and what is stored
		room = min(3*c.keptLength()*int64(c.Scheme.Width()), codeBytes)
	}
	if err := s.code.Acquire(ctx, room); err != nil {
		return err
	}
	defer s.code.Release(room)
	mend := s.mends.begin(c.ID)
	defer mend.end()
	data, shards, err := s.whole(ctx, p, c)
	if err != nil {
		return err
	}
	s.stats.fetched.Add(c.keptLength() * int64(c.Scheme.Data))
	if c.Scheme.Coded() {
		data = trailer{scheme: c.Scheme, shard: shard, length: c.Length, whole: c.SHA256}.append(shards[shard])
	}
	return s.restore(ctx, p, c, data, mend)
}

// restore puts what was fetched in its place, unless the owner does not want it.
// A release that is logged before the owner is asked is in its answer; one that is
// logged later is sent to us after that, and marks the mend.
func (s *Store) restore(ctx context.Context, p place, c Chunk, data []byte, mend *mend) error {
	live, err := s.o.Live(ctx, c.ID)
	if err != nil {
		return err
	}
	if !live {
		return object.Errorf(object.KindNotFound, "the owner of the chunk does not reference it")
	}
	pieces := [][]byte{data}
	if err = s.take(ctx, c.ID, c.Scheme, p.since, pieces).err; object.IsKind(err, object.KindConflict) {
		reason := object.Errorf(object.KindCorrupt, "it is not what its owner references: that has SHA-256 %x", c.SHA256)
		if err = s.o.Local.Quarantine(ctx, c.ID, reason); err == nil {
			err = s.take(ctx, c.ID, c.Scheme, p.since, pieces).err
		}
	}
	if s.mends.deleted(mend) {
		return errors.Join(err, s.o.Local.Delete(ctx, c.ID))
	}
	if err == nil {
		s.stats.repaired.Add(1)
	}
	return err
}

// describe fills in what is not known of a chunk. The holders that answer must agree.
func (s *Store) describe(ctx context.Context, p place, c Chunk) (Chunk, error) {
	if c.SHA256 != ([32]byte{}) && c.Length > 0 {
		if c.Length > chunk.MaxLength {
			return c, invalid("a chunk of %d bytes", c.Length)
		}
		return c, nil
	}
	found := false
	var failures []failure
	for _, h := range s.survey(ctx, p, c, false) {
		switch {
		case h.Node == s.o.Self:
		case h.Err != nil:
			failures = append(failures, failure{h.Node, h.Err})
		case found && (h.kept.whole != c.SHA256 || h.kept.size != c.Length):
			return c, object.Errorf(object.KindConflict, "the holders of the chunk have different contents: its extent has to say which is right")
		default:
			found, c.SHA256, c.Length = true, h.kept.whole, h.kept.size
		}
	}
	if !found {
		return c, s.failed(c, failures)
	}
	return c, nil
}

// Push brings a chunk kept as copies, of which this node has a good one without being a holder
// (it was one), to the holders that lack it: they cannot fetch it here, since they ask
// each other. Who has it compares it. nil: a quorum of the holders has it, or the owner does not want it
// any more. KindNotSupported: shards, of which one alone makes no chunk. Else as PutPieces, or what
// is wrong with the copy here.
func (s *Store) Push(ctx context.Context, c Chunk) error {
	if c.Scheme.Coded() {
		return object.Errorf(object.KindNotSupported, "chunk %s is kept as shards", c.ID)
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.tasks.Done()
	p, err := s.locate(c.ID, c.Scheme)
	if err != nil {
		return err
	}
	if c, err = s.describe(ctx, p, c); err != nil {
		return err
	}
	if live, err := s.o.Live(ctx, c.ID); err != nil || !live {
		return err
	}
	if err := s.code.Acquire(ctx, c.Length); err != nil {
		return err
	}
	data := make([]byte, 0, c.Length)
	err = s.eachFrame(ctx, c.ID, c.SHA256, 0, c.Length, func(b []byte) error {
		data = append(data, b...)
		return nil
	})
	if err == nil && sha256.Sum256(data) != c.SHA256 {
		err = object.Errorf(object.KindCorrupt, "the copy here is not what the owner references")
	}
	if err != nil {
		s.code.Release(c.Length)
		return object.WithOp(err, "chunk.push", "", c.ID.String())
	}
	// It may be released meanwhile, before our bytes come to some: what they have then is the orphan
	// audit's, which knows when nothing is to be dropped (Hold).
	_, err = s.PutPieces(ctx, c.ID, c.Scheme, [][]byte{data}, func() { s.code.Release(c.Length) })
	return err
}

// Holding is one copy or shard as Survey found it.
type Holding struct {
	Node  string
	Shard int
	// Now and Next say whether it counts for today's quorum and for that of a move.
	Now, Next bool
	Err       error // nil: it is there, read from first byte to last, and right
	kept      kept
}

// Survey has every holder read and check its copy or shard, and says what they
// found. Quorum reports whether enough of it is good for the chunk to survive as
// a put promises, at its old and at its new place. SHA256 may be zero: then what
// they have is checked against their own headers only.
func (s *Store) Survey(ctx context.Context, c Chunk) (list []Holding, quorum bool, err error) {
	return s.look(ctx, c, nil, true)
}

// Look is Survey by names and headers alone, at those holders that ask picks: whether
// they have it, and not whether what they have can be read.
func (s *Store) Look(ctx context.Context, c Chunk, ask func(node string) bool) ([]Holding, error) {
	list, _, err := s.look(ctx, c, ask, false)
	return list, err
}

func (s *Store) look(ctx context.Context, c Chunk, ask func(node string) bool, verify bool) (list []Holding, quorum bool, err error) {
	if err := s.enter(); err != nil {
		return nil, false, err
	}
	defer s.tasks.Done()
	p, err := s.locate(c.ID, c.Scheme)
	if err != nil {
		return nil, false, err
	}
	if ask != nil {
		p.spots = slices.DeleteFunc(slices.Clone(p.spots), func(sp spot) bool { return !ask(sp.node) })
	}
	t := newTally(p)
	list = s.survey(ctx, p, c, verify)
	for i, h := range list {
		if h.Err == nil {
			t.good(p.spots[i])
		}
	}
	return list, t.reached(), nil
}

func (s *Store) survey(ctx context.Context, p place, c Chunk, verify bool) []Holding {
	list := make([]Holding, len(p.spots))
	var all sync.WaitGroup
	for i, sp := range p.spots {
		all.Go(func() {
			h := Holding{Node: sp.node, Shard: sp.shard, Now: sp.now, Next: sp.next}
			switch w := (want{chunk: c, shard: sp.shard}); {
			case sp.node != s.o.Self:
				h.kept, h.Err = s.statAt(ctx, sp.node, w, verify)
			default:
				if verify {
					h.Err = s.o.Local.Verify(ctx, c.ID)
				}
				if h.Err == nil {
					h.kept, h.Err = s.open(ctx, c, sp.shard)
				}
			}
			list[i] = h
		})
	}
	all.Wait()
	return list
}

// mends are the repairs under way, so that a delete that comes meanwhile counts.
type mends struct {
	mu sync.Mutex // guards of and the marks in it
	of map[object.ChunkID][]*mend
}

type mend struct {
	all  *mends
	id   object.ChunkID
	gone bool // it was deleted since the repair began
}

func (m *mends) begin(id object.ChunkID) *mend {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[object.ChunkID][]*mend{}
	}
	r := &mend{all: m, id: id}
	m.of[id] = append(m.of[id], r)
	return r
}

func (r *mend) end() {
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	list := r.all.of[r.id]
	for i, other := range list {
		if other == r {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if r.all.of[r.id] = list; len(list) == 0 {
		delete(r.all.of, r.id)
	}
}

func (m *mends) deleted(r *mend) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.gone
}

// mark tells the repairs of ids that their chunk was deleted.
func (m *mends) mark(ids []object.ChunkID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		for _, r := range m.of[id] {
			r.gone = true
		}
	}
}
