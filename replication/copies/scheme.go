package copies

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/erasure"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Scheme says how a chunk is kept: as 1+Parity copies when Data is 1, else as
// Data shards and Parity more of Reed-Solomon, of which any Data give it back.
type Scheme struct{ Data, Parity int }

// Copies is the scheme of n copies.
func Copies(n int) Scheme { return Scheme{1, n - 1} }

// SchemeOf is the scheme that an extent or a record names.
func SchemeOf(s object.Scheme) Scheme {
	data, parity := s.Split()
	return Scheme{data, parity}
}

// Coded reports whether holders keep shards, not copies.
func (s Scheme) Coded() bool { return s.Data > 1 }

// Width is the number of copies or shards: that of the layout that places them.
func (s Scheme) Width() int { return s.Data + s.Parity }

// String is "1+2" for three copies, "4+2" for Reed-Solomon.
func (s Scheme) String() string { return strconv.Itoa(s.Data) + "+" + strconv.Itoa(s.Parity) }

// ParseScheme reads what String wrote; anything else is KindInvalid.
func ParseScheme(text string) (Scheme, error) {
	data, parity, _ := strings.Cut(text, "+")
	k, err1 := strconv.Atoi(data)
	m, err2 := strconv.Atoi(parity)
	s := Scheme{k, m}
	if err1 != nil || err2 != nil || s.String() != text {
		return Scheme{}, object.Errorf(object.KindInvalid, "%q is no scheme: 1+2 stands for three copies, 4+2 for Reed-Solomon", text)
	}
	return s, s.check()
}

func (s Scheme) check() error {
	_, err := object.NewScheme(s.Data, s.Parity)
	return err
}

// spot is one copy or shard at one node.
type spot struct {
	node      string
	shard     int
	now, next bool // it counts for the quorum of the holders; of those that are to come
}

// place is where a chunk is, and how many spots a put needs.
type place struct {
	since             uint64 // the group's epoch
	spots             []spot // those that are to come first, then the others
	needNow, needNext int
}

// locate turns the map's answer into spots. Too few nodes for a quorum is no
// error here: reads may still succeed.
func (s *Store) locate(id object.ChunkID, scheme Scheme) (place, error) {
	if err := scheme.check(); err != nil {
		return place{}, err
	}
	site, err := s.o.Locate(id, scheme)
	if err != nil {
		return place{}, err
	}
	if site.Width() != scheme.Width() {
		return place{}, object.Errorf(object.KindInternal, "a chunk of scheme %v was placed in a layout of width %d", scheme, site.Width())
	}
	return placed(site, scheme), nil
}

func placed(site placement.Site, scheme Scheme) place {
	p := place{since: site.Since, spots: make([]spot, 0, site.Width())}
	now, next := 0, 0
	var old []spot
	for i := range site.Width() {
		a, b := site.Now(i), site.Next(i)
		if a != placement.None {
			now++
		}
		if b != placement.None {
			next++
			p.spots = append(p.spots, spot{node: string(b), shard: i, now: a == b, next: site.Joint})
		}
		if a != placement.None && a != b {
			old = append(old, spot{node: string(a), shard: i, now: true})
		}
	}
	p.spots = append(p.spots, old...)
	p.needNow = scheme.quorum(now)
	if site.Joint {
		p.needNext = scheme.quorum(next)
	}
	return p
}

// alone reports that this node is the only holder of a copy, now and later.
func (p place) alone(self string) bool {
	return len(p.spots) == 1 && p.spots[0].node == self
}

// quorum is how many of the holders in force must have a chunk durably before a
// put is acknowledged: a majority of the copies, or one shard more than any read needs.
func (s Scheme) quorum(holders int) int {
	if s.Coded() {
		return s.Data + 1
	}
	return holders/2 + 1
}

// tally counts the holders of a put.
type tally struct {
	place
	now, next         int // that have it
	openNow, openNext int // that have it or may get it
}

func newTally(p place) *tally {
	t := &tally{place: p}
	for _, sp := range p.spots {
		t.add(sp, &t.openNow, &t.openNext, 1)
	}
	return t
}

func (t *tally) add(sp spot, now, next *int, n int) {
	if sp.now {
		*now += n
	}
	if sp.next {
		*next += n
	}
}

func (t *tally) good(sp spot) { t.add(sp, &t.now, &t.next, 1) }
func (t *tally) bad(sp spot)  { t.add(sp, &t.openNow, &t.openNext, -1) }

// reached reports that enough have it, lost that it cannot come to that.
func (t *tally) reached() bool { return t.now >= t.needNow && t.next >= t.needNext }
func (t *tally) lost() bool    { return t.openNow < t.needNow || t.openNext < t.needNext }

func (t *tally) String() string {
	text := fmt.Sprintf("%d of %d needed holders", t.now, t.needNow)
	if t.needNext > 0 {
		text += fmt.Sprintf(", and %d of %d at the chunk's new place,", t.next, t.needNext)
	}
	return text
}

// codecs keeps one Reed-Solomon codec for each scheme in use: making one costs a matrix.
type codecs struct {
	mu sync.Mutex // guards of
	of map[Scheme]*erasure.Codec
}

func (c *codecs) get(s Scheme) (*erasure.Codec, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.of[s]; e != nil {
		return e, nil
	}
	e, err := erasure.New(s.Data, s.Parity)
	if err != nil {
		return nil, err
	}
	if c.of == nil {
		c.of = map[Scheme]*erasure.Codec{}
	}
	c.of[s] = e
	return e, nil
}
