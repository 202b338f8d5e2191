package pins

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// promise is how long a session that renews may count on its hold: it renews
// after a third of the period, by a clock that is right.
const promise = period * 3 / 10

// file is one inode of the model's log, as of its last entry.
type file struct {
	id                 object.InodeID
	named, there       bool
	change, gone, kept uint64
	garbage            []Item
}

type reader struct {
	node  *wnode
	table *Table // another one: the process is gone
	pin   Pin
	f     *file
	at    uint64
	named bool // when it was opened
}

type session struct {
	id    object.UploadID
	f     *file
	asked time.Duration // when it asked for what was answered last
	holds bool
}

// reclaimEntry is a proposal that may be applied now, later or never.
type reclaimEntry struct {
	items []Item
	seen  uint64
}

// model is a world with files, readers and sessions; it looks at every entry
// that reclaims whether anybody still needs what goes.
type model struct {
	*world
	t        *rapid.T
	index    uint64
	files    []*file
	readers  []*reader
	sessions []*session
	pending  []reclaimEntry
	depth    int
	wrong    string

	reclaimed, spared, lost int
}

func (m *model) failf(format string, args ...any) {
	if m.wrong == "" {
		m.wrong = fmt.Sprintf(format, args...)
	}
}

func (m *model) node(what string) *wnode {
	return m.nodes[rapid.IntRange(0, len(m.nodes)-1).Draw(m.t, what)]
}

func (m *model) file() *file {
	return m.files[rapid.IntRange(0, len(m.files)-1).Draw(m.t, "file")]
}

// meanwhile is what happens between two steps of a protocol.
func (m *model) meanwhile() {
	if m.depth >= 2 {
		return
	}
	m.depth++
	defer func() { m.depth-- }()
	for range rapid.IntRange(0, 2).Draw(m.t, "meanwhile") {
		acts := []func(){m.wait, m.apply, m.splice, m.unlink, m.link, m.lead, m.reboot, m.hold, m.renew, m.open, m.round}
		acts[rapid.IntRange(0, len(acts)-1).Draw(m.t, "act")]()
	}
}

func (m *model) wait() {
	m.tick(time.Duration(rapid.Int64Range(1, int64(period)*3/4).Draw(m.t, "wait")))
}

// rarely is true once in a while: what stops all reclaiming for two periods.
func (m *model) rarely(what string) bool { return rapid.IntRange(0, 7).Draw(m.t, what) == 0 }

func (m *model) lead() {
	if m.rarely("election") {
		m.elect(rapid.IntRange(0, len(m.nodes)-1).Draw(m.t, "leader"), func(*wnode) bool { return rapid.Bool().Draw(m.t, "behind") })
	}
}

func (m *model) link() {
	i := rapid.IntRange(0, len(m.nodes)-1).Draw(m.t, "cut")
	m.isolate(i, m.rarely("off"))
}

func (m *model) reboot() {
	if m.rarely("reboot") {
		m.node("node").boot()
	}
}

func (m *model) renew() { m.node("node").t.Renew(m.t.Context()) }

func (m *model) splice() {
	if f := m.file(); f.there {
		m.index++
		f.change = m.index
		f.garbage = append(f.garbage, Item{Inode: f.id, At: m.index})
	}
}

func (m *model) unlink() {
	if f := m.file(); f.there && f.named {
		m.index++
		f.change, f.named = m.index, false
		f.garbage = append(f.garbage, Item{Inode: f.id, At: m.index, Whole: true})
	}
}

// open opens a reader, step by step.
func (m *model) open() {
	n, f := m.node("reader"), m.file()
	t := n.t
	pin, err := t.Partition(0).Pin(m.t.Context(), f.id)
	if err != nil {
		return
	}
	m.step()
	if !f.there {
		pin.Release()
		return
	}
	pin.Move(f.change)
	m.readers = append(m.readers, &reader{node: n, table: t, pin: pin, f: f, at: f.change, named: f.named})
}

func (r *reader) live() bool { return r.node.t == r.table && r.pin.Err() == nil }

// needs reports whether a reader would miss an item.
func (r *reader) needs(it Item) bool {
	return r.f.id == it.Inode && (it.Whole && r.named || !it.Whole && r.at < it.At)
}

func (m *model) closeReader() {
	if len(m.readers) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.readers)-1).Draw(m.t, "reader")
	r := m.readers[i]
	if !r.live() {
		m.lost++
	}
	r.pin.Release()
	m.readers = append(m.readers[:i:i], m.readers[i+1:]...)
}

// hold is a session's request, as replication.Node.Hold does it.
func (m *model) hold() {
	s := m.sessions[rapid.IntRange(0, len(m.sessions)-1).Draw(m.t, "session")]
	asked, f := m.now, s.f
	p := m.node("holder").t.Partition(0)
	sure, err := p.Hold(m.t.Context(), f.id, s.id)
	if err != nil {
		return
	}
	if !sure {
		m.step()
		if f.there && !f.named {
			m.step()
			m.index++
			if f.there {
				f.kept = m.index
			}
			m.step()
		}
		if !f.there {
			if s.holds && m.now-s.asked <= promise {
				m.failf("session %x renewed in time, its file is gone", s.id[:1])
			}
			s.holds = false
			p.Release(f.id, s.id)
			return
		}
		if p.Sure(f.id, s.id) != nil {
			return
		}
	}
	if asked >= s.asked || !s.holds {
		s.asked, s.holds = asked, true
	}
}

// round is a leader's, or that of one which believes it is.
func (m *model) round() {
	n := m.nodes[m.leader]
	if m.rarely("deposed") {
		n = m.node("round")
	}
	p, seen := n.part(), m.index
	var items []Item
	for _, f := range m.files {
		items = append(items, f.garbage...)
	}
	m.step()
	free, err := p.Free(m.t.Context(), items)
	if err != nil {
		return
	}
	e := reclaimEntry{seen: seen}
	for i, it := range items {
		if free[i] {
			e.items = append(e.items, it)
		}
	}
	m.pending = append(m.pending, e)
	m.step()
}

// apply applies any proposal that was ever made and not applied yet.
func (m *model) apply() {
	if len(m.pending) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.pending)-1).Draw(m.t, "entry")
	e := m.pending[i]
	m.pending = append(m.pending[:i:i], m.pending[i+1:]...)
	m.index++
	for _, it := range e.items {
		f := m.files[it.Inode-1]
		if !f.drop(it) {
			continue // by another entry
		}
		if it.Whole && f.kept > e.seen {
			m.spared++
			f.garbage = append(f.garbage, it)
			continue
		}
		m.judge(it)
		m.reclaimed++
		if it.Whole {
			f.there = false
		} else {
			f.gone = max(f.gone, it.At)
		}
	}
}

func (f *file) drop(it Item) bool {
	for i, g := range f.garbage {
		if g == it {
			f.garbage = append(f.garbage[:i:i], f.garbage[i+1:]...)
			return true
		}
	}
	return false
}

// judge is called as an item goes.
func (m *model) judge(it Item) {
	for _, r := range m.readers {
		if r.needs(it) && r.live() {
			m.failf("%+v goes under a reader at %s that pinned %d", it, name(r.node.i), r.at)
		}
	}
	for _, s := range m.sessions {
		if it.Whole && s.f.id == it.Inode && s.holds && m.now-s.asked <= promise {
			m.failf("%+v goes, session %x asked %v ago", it, s.id[:1], m.now-s.asked)
		}
	}
	for _, n := range m.nodes {
		p := n.part()
		p.mu.Lock()
		for s, h := range p.holds[it.Inode] {
			if it.Whole && h.sure && h.gen == p.lease.gen && p.valid() && h.until > n.clock() {
				m.failf("%+v goes, %s holds it for session %x", it, name(n.i), s[:1])
			}
		}
		p.mu.Unlock()
	}
}

// TestModel: whatever pins, holds, changes, cuts, restarts, leaders and late
// entries there are, in any order, between any two messages: nothing is reclaimed
// while a reader whose pin is not lost, or a session that renews, has it.
func TestModel(t *testing.T) {
	var reclaimed, spared, lost int
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		step := func(fn func()) func(*rapid.T) {
			return func(rt *rapid.T) {
				m.t = rt
				fn()
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"wait": step(m.wait), "splice": step(m.splice), "unlink": step(m.unlink), "link": step(m.link),
			"open": step(m.open), "open2": step(m.open), "close": step(m.closeReader), "hold": step(m.hold), "hold2": step(m.hold),
			"round": step(m.round), "round2": step(m.round), "apply": step(m.apply), "lead": step(m.lead), "renew": step(m.renew), "reboot": step(m.reboot),
			"": func(rt *rapid.T) {
				if m.wrong != "" {
					rt.Fatal(m.wrong)
				}
			},
		})
		reclaimed, spared, lost = reclaimed+m.reclaimed, spared+m.spared, lost+m.lost
	})
	t.Logf("%d pieces reclaimed, %d spared by Keep, %d readers lost their lease", reclaimed, spared, lost)
	if !t.Failed() && (reclaimed == 0 || spared == 0 || lost == 0) {
		t.Error("the model did not get anywhere")
	}
}

func newModel(rt *rapid.T) *model {
	m := &model{world: newWorld(3), t: rt, index: 10}
	for _, n := range m.nodes {
		n.rate = rapid.SampledFrom([]float64{1, 0.8, 1.25}).Draw(rt, "rate")
		n.boot()
	}
	for i := range 2 {
		f := &file{id: object.InodeID(i + 1), named: true, there: true, change: 10}
		m.files = append(m.files, f)
		for j := range 2 {
			m.sessions = append(m.sessions, &session{id: object.UploadID{byte(1 + 2*i + j)}, f: f})
		}
	}
	// The first leader has led for long enough that there is something to see.
	m.nodes[0].part().Lead(1)
	m.tick(3 * period)
	m.between = m.meanwhile
	return m
}
