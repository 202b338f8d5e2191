package pins

import (
	"context"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Partition is what this node knows of one partition: as a coordinator its pins,
// holds and lease, as the leader its contacts. Safe for concurrent use.
type Partition struct {
	t  *Table
	id object.PartitionID

	turn chan struct{} // holds a token while a lease is asked for

	mu    sync.Mutex                   // guards what follows; never held with contacts.mu
	pins  map[object.InodeID]*versions // none without a pin
	spare []*versions                  // to be used again
	holds map[object.InodeID]map[object.UploadID]hold
	lease lease
	used  bool // since the lease was last renewed

	contacts contacts
}

// versions is what is pinned of one file, with how many pins: one mostly.
type versions struct {
	first pinned
	more  []pinned
}

type pinned struct {
	at    uint64
	count int
}

// hold is one session's.
type hold struct {
	until time.Duration
	gen   uint64 // the lease that it was made under
	sure  bool   // the inode was seen after the hold was here
}

func newPartition(t *Table, id object.PartitionID) *Partition {
	return &Partition{t: t, id: id, turn: make(chan struct{}, 1),
		pins:  map[object.InodeID]*versions{},
		holds: map[object.InodeID]map[object.UploadID]hold{},
		contacts: contacts{
			start: t.start,
			nodes: map[string]time.Duration{},
		}}
}

// Pin keeps what a file was at an index and later, for as long as it is not
// lost. Move and Release are for one goroutine; Err for any. The zero Pin keeps nothing.
type Pin struct {
	p   *Partition
	v   *versions // of ino, while the pin is not released
	ino object.InodeID
	at  uint64
	gen uint64
}

// Pin pins every version of a file. It asks for a lease where there is none, and
// then fails with KindUnavailable when the leader cannot be reached, with ctx's
// error when that ends first. Look at the file after Pin has returned, in a
// linearizable view; what later views show counts if Err is nil after them.
func (p *Partition) Pin(ctx context.Context, ino object.InodeID) (Pin, error) {
	for {
		p.mu.Lock()
		if p.valid() {
			p.used = true
			pin := Pin{p: p, v: p.versions(ino), ino: ino, gen: p.lease.gen}
			pin.v.add(0)
			p.mu.Unlock()
			return pin, nil
		}
		p.mu.Unlock()
		if err := p.acquire(ctx); err != nil {
			return Pin{}, err
		}
	}
}

// Move changes the pin to what was not retired at or before an index, without a
// moment in between.
func (x *Pin) Move(at uint64) {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.v.move(x.at, at)
	x.at = at
}

// maxSpare bounds the spare versions of a partition.
const maxSpare = 64

// versions finds or makes those of an inode. The caller holds mu, and adds one.
func (p *Partition) versions(ino object.InodeID) *versions {
	v := p.pins[ino]
	if v == nil {
		if n := len(p.spare); n > 0 {
			v, p.spare = p.spare[n-1], p.spare[:n-1]
		} else {
			v = &versions{}
		}
		p.pins[ino] = v
	}
	return v
}

// Release ends the pin; a second time does nothing.
func (x *Pin) Release() {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	v := x.v
	if v == nil {
		return
	}
	x.v = nil
	if v.remove(x.at); v.first.count > 0 {
		return
	}
	delete(x.p.pins, x.ino)
	if v.more = nil; len(x.p.spare) < maxSpare {
		x.p.spare = append(x.p.spare, v)
	}
}

// Err is nil while the pin has kept its version from the beginning until now.
// KindUnavailable, for ever, once it may not have: begin anew.
func (x *Pin) Err() error {
	if x.p == nil || x.p.t.alone() {
		return nil
	}
	x.p.mu.Lock()
	ok := x.p.valid() && x.p.lease.gen == x.gen
	x.p.mu.Unlock()
	if ok {
		return nil
	}
	return x.p.lostLease()
}

func (p *Partition) lostLease() error {
	return object.Errorf(object.KindUnavailable, "node %s heard nothing from the leader of partition %d for %v, so this version may be gone: read it anew",
		p.t.o.Node, p.id, p.t.o.Period)
}

// Hold keeps an inode for a session, for a period from now. sure: it has held it
// all the time, nothing is to be done. Else look whether the inode is there: if it
// has no name any more, in a view after a Keep entry. Then call Sure. Errors as Pin's.
func (p *Partition) Hold(ctx context.Context, ino object.InodeID, session object.UploadID) (sure bool, err error) {
	for {
		p.mu.Lock()
		if p.valid() {
			sure = p.hold(ino, session)
			p.mu.Unlock()
			return sure, nil
		}
		p.mu.Unlock()
		if err := p.acquire(ctx); err != nil {
			return false, err
		}
	}
}

func (p *Partition) hold(ino object.InodeID, session object.UploadID) (sure bool) {
	p.used = true
	m := p.holds[ino]
	if m == nil {
		m = map[object.UploadID]hold{}
		p.holds[ino] = m
	}
	now := p.t.o.Clock()
	h := m[session]
	if h.gen != p.lease.gen || h.until <= now { // h may be no hold at all
		h = hold{gen: p.lease.gen}
	}
	h.until = now + p.t.o.Period
	m[session] = h
	return h.sure
}

// Sure notes that a held inode was seen after Hold. KindUnavailable: the hold was
// lost meanwhile; begin anew.
func (p *Partition) Sure(ino object.InodeID, session object.UploadID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.holds[ino][session]
	if !ok || !p.valid() || h.gen != p.lease.gen || h.until <= p.t.o.Clock() {
		return object.Errorf(object.KindUnavailable, "the hold on inode %s ran out while it was made: try again", ino)
	}
	h.sure = true
	p.holds[ino][session] = h
	return nil
}

// Release ends a hold.
func (p *Partition) Release(ino object.InodeID, session object.UploadID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.holds[ino]
	delete(m, session)
	if len(m) == 0 {
		delete(p.holds, ino)
	}
}

// Expire forgets the holds of sessions that did not renew them.
func (p *Partition) Expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.t.o.Clock()
	for ino := range p.holds {
		p.expire(ino, now)
	}
}

func (p *Partition) expire(ino object.InodeID, now time.Duration) {
	m := p.holds[ino]
	for s, h := range m {
		if h.until <= now {
			delete(m, s)
		}
	}
	if len(m) == 0 {
		delete(p.holds, ino)
	}
}

// Item is a piece of garbage: what was retired from a file at an index, or, whole,
// an inode without a name.
type Item struct {
	_     struct{} `cbor:",toarray"`
	Inode object.InodeID
	At    uint64
	Whole bool
}

// needed reports for each item whether somebody here needs it. For a period from
// the start every inode counts as held: the sessions of the process before renew.
func (p *Partition) needed(items []Item) []bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.t.o.Clock()
	young := now < p.t.start+p.t.o.Period
	out := make([]bool, len(items))
	for i, it := range items {
		if it.Whole {
			p.expire(it.Inode, now)
			out[i] = young || len(p.holds[it.Inode]) > 0
		}
		if v, ok := p.pins[it.Inode]; ok {
			out[i] = out[i] || it.Whole || v.before(it.At)
		}
	}
	return out
}

func (v *versions) add(at uint64) {
	if v.first.count == 0 {
		v.first = pinned{at: at, count: 1}
		return
	}
	if v.first.at == at {
		v.first.count++
		return
	}
	for i := range v.more {
		if v.more[i].at == at {
			v.more[i].count++
			return
		}
	}
	v.more = append(v.more, pinned{at: at, count: 1})
}

func (v *versions) move(from, to uint64) {
	if v.first == (pinned{at: from, count: 1}) && len(v.more) == 0 {
		v.first.at = to
		return
	}
	v.add(to)
	v.remove(from)
}

func (v *versions) remove(at uint64) {
	if v.first.at == at {
		if v.first.count--; v.first.count == 0 && len(v.more) > 0 {
			last := len(v.more) - 1
			v.first, v.more = v.more[last], v.more[:last]
		}
		return
	}
	for i := range v.more {
		if v.more[i].at != at {
			continue
		}
		if v.more[i].count--; v.more[i].count == 0 {
			v.more[i] = v.more[len(v.more)-1]
			v.more = v.more[:len(v.more)-1]
		}
		return
	}
}

// before reports whether a pin is older than an index.
func (v *versions) before(at uint64) bool {
	if v.first.at < at {
		return true
	}
	for _, m := range v.more {
		if m.at < at {
			return true
		}
	}
	return false
}
