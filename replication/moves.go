package replication

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/replication/steward"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// How a chunk group comes to this node: the control leader makes it joint, this node
// adopts that, lists what the old holders have, fetches and verifies it, and says so.
// CLUSTER.md, Moving a chunk group, has the argument.

const (
	// fetchers are the chunks that are fetched, or read through, side by side.
	fetchers = 4
	// fetchBound is for one chunk.
	fetchBound = 5 * time.Minute
	// ownerBatch is how many chunks an owner is asked about at once.
	ownerBatch = 256
	// readFactor is how much faster what is here may be read through than others fetched.
	readFactor = 4
	// copyRounds is how often one try lists a page anew.
	copyRounds = 3
	// pageChunks bounds the ids that a mover has in memory at a time, of all old holders
	// together; each takes 200 bytes or so. pageLeast is what one holder lists at least.
	pageChunks = 1 << 16
	pageLeast  = 256
)

// moves is a node's part in moving and mending chunks. Safe for concurrent use.
type moves struct {
	fetch *copies.Pacer // of what comes from other nodes because it moves
	mend  *copies.Pacer // of what comes because it is missing
	read  *copies.Pacer // of what is read here
	scrub *copies.Pacer // of what is read here though nobody asks for it

	rewrite *copies.Pacer // of what is rewritten because its bucket's scheme has changed

	epoch atomic.Uint64 // of the map whose layouts are adopted

	// placing is held while layouts are adopted, and while files are dropped because
	// they belong elsewhere: so what is verified after a group came here is not
	// dropped by who has looked at an older map.
	placing sync.Mutex

	mu       sync.Mutex // guards verified; a leaf
	verified map[control.GroupKey]bool

	page    int           // pageChunks, but in tests
	pages   atomic.Int64  // lists of pages so far
	most    atomic.Int64  // the ids in the largest of them
	compare chan struct{} // a token: this node may lack chunks
	drop    chan struct{} // a token: this node may have chunks that belong elsewhere
	audit   chan struct{} // a token: uploads are over that may have left chunks here
	counts  chunkCounts
}

func (m *moves) open(rate, rewrite int64, page int) {
	m.fetch, m.mend, m.read = copies.NewPacer(rate), copies.NewPacer(rate), copies.NewPacer(readFactor*rate)
	m.scrub = copies.NewPacer(rate / scrubShare)
	m.rewrite = copies.NewPacer(rewrite)
	m.verified, m.page = map[control.GroupKey]bool{}, cmp.Or(page, pageChunks)
	m.compare, m.drop, m.audit = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
}

// setRates takes the rates that the cluster's settings say, or else this node's own.
func (n *Node) setRates(s *control.State) {
	rate := cmp.Or(s.Settings.RepairRate, n.cfg.RepairRate)
	m := &n.moves
	m.fetch.SetRate(rate)
	m.mend.SetRate(rate)
	m.read.SetRate(readFactor * rate)
	m.scrub.SetRate(rate / scrubShare)
	n.copies.SetRepairRate(rate)
	m.rewrite.SetRate(cmp.Or(s.Settings.RewriteRate, n.cfg.rewriteRate))
}

// list is steward.Config.Verified.
func (m *moves) list() []control.GroupKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]control.GroupKey, 0, len(m.verified))
	for k := range m.verified {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b control.GroupKey) int {
		return cmp.Or(cmp.Compare(a.Width, b.Width), cmp.Compare(a.Group, b.Group))
	})
	return keys
}

func (m *moves) has(k control.GroupKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.verified[k]
}

func (m *moves) done(k control.GroupKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verified[k] = true
}

// forget drops the moves that have ended.
func (m *moves) forget(s *control.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.verified {
		l := s.Layout(k.Width)
		if l == nil || k.Group >= len(l.Groups) || l.Groups[k.Group].Next == nil || l.Groups[k.Group].Since != k.Since {
			delete(m.verified, k)
		}
	}
}

// poke puts a token into a channel that has room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// adopted is steward.Config.Adopted: the epoch that puts here are judged by. It outlives
// a crash, since nothing is taken before openPlaces.
func (n *Node) adopted() uint64 {
	if n.places.shut.Load() {
		return 0
	}
	return n.moves.epoch.Load()
}

// adoptLayouts takes the layouts of a newer map; old may be nil.
func (n *Node) adoptLayouts(old, s *control.State) {
	n.moves.placing.Lock()
	left := false
	for _, l := range s.Layouts {
		was := n.places.byWidth[l.Width].Load()
		n.places.adopt(l.Layout)
		left = left || leaves(placement.NodeID(n.cfg.NodeID), was, l.Layout)
	}
	n.moves.placing.Unlock()
	n.moves.epoch.Store(s.Epoch) // after them: takeMap's are in order
	n.moves.forget(s)
	if left {
		poke(n.moves.drop)
	}
	self := control.NodeID(n.cfg.NodeID)
	if uploadsOver(self, old, s) {
		poke(n.moves.audit)
	}
	if old != nil && old.Node(self) != nil && s.Node(self) != nil && old.Node(self).Gone && !s.Node(self).Gone {
		poke(n.moves.compare)
	}
}

// leaves reports whether a node holds less by the newer layout.
func leaves(id placement.NodeID, old, l *placement.Layout) bool {
	if old == nil || old == l || len(old.Groups) != len(l.Groups) {
		return old != nil && old != l
	}
	for i, g := range l.Groups {
		if old.Groups[i].Since != g.Since && holds(old.Groups[i], id) && !holds(g, id) {
			return true
		}
	}
	return false
}

// holds reports whether a node holds a slot of a group, now or after its move.
func holds(g placement.Group, id placement.NodeID) bool {
	return slices.Contains(g.Holders, id) || slices.Contains(g.Next, id)
}

// taking is a group that this node gets complete.
type taking struct {
	steward.CopyMove
	from []control.NodeID // the old holders
	open int              // chunks of the pages so far that could not be settled

	// Of the page that is being worked on:
	settled map[object.ChunkID]bool // verified here, or not to be had here
	fresh   map[object.ChunkID]bool // of the last lists, not settled yet
	said    int                     // old holders that gave their list in this round
}

// copyGroups is steward.Config.Copy. What it began and did not end is found here by
// the next call, also after a crash: a chunk that is whole is not fetched again.
func (n *Node) copyGroups(ctx context.Context, list []steward.CopyMove) error {
	byWidth := map[int]map[int]*taking{}
	for _, m := range list {
		k := m.Group
		l := n.places.byWidth[k.Width].Load()
		if l == nil || k.Group >= len(l.Groups) || n.moves.has(k) {
			continue
		}
		g := l.Groups[k.Group]
		if g.Next == nil || g.Since != k.Since || n.adopted() < k.Since {
			continue // the map moved on, or is adopted in a moment: that begins another round
		}
		if byWidth[k.Width] == nil {
			byWidth[k.Width] = map[int]*taking{}
		}
		byWidth[k.Width][k.Group] = &taking{CopyMove: m, from: g.Holders}
	}
	var errs []error
	for width, todo := range byWidth {
		errs = append(errs, n.copyWidth(ctx, n.places.byWidth[width].Load(), todo))
	}
	return errors.Join(errs...)
}

// copyWidth takes the groups over a page of chunks at a time, in the order of their ids.
// KindUnavailable: some groups wait, for nodes that do not answer or for chunks that are
// still being written.
func (n *Node) copyWidth(ctx context.Context, l *placement.Layout, todo map[int]*taking) error {
	var errs []error
	for p := (page{}); len(todo) > 0; p = (page{after: p.end}) {
		err, fatal := n.copyPage(ctx, l, todo, &p)
		if errs = append(errs, err); fatal {
			return errors.Join(errs...)
		}
		if p.last {
			break
		}
	}
	open := 0
	for _, t := range todo {
		if open += t.open; t.open == 0 {
			n.moves.done(t.Group)
		}
	}
	if open > 0 {
		errs = append(errs, object.Errorf(object.KindUnavailable, "%d chunks of groups that move here are not committed yet, or could not be fetched", open))
	}
	return errors.Join(errs...)
}

// page is a range of chunk ids: those behind after, up to end.
type page struct {
	after, end object.ChunkID
	last       bool // there is no end
}

// has reports whether an id that lies behind after is of the page.
func (p *page) has(id object.ChunkID) bool { return p.last || id.Compare(p.end) <= 0 }

// copyPage lists and fetches until the lists of one page have nothing new, and sets its
// end. Groups that cannot be listed leave todo. fatal: nothing can be taken over now.
func (n *Node) copyPage(ctx context.Context, l *placement.Layout, todo map[int]*taking, p *page) (err error, fatal bool) {
	p.last = true
	for _, t := range todo {
		t.settled = map[object.ChunkID]bool{}
	}
	var errs []error
	for range copyRounds {
		errs = append(errs, n.listOld(ctx, len(l.Groups), todo, p))
		fresh := 0
		for _, t := range todo {
			fresh += len(t.fresh)
		}
		if fresh == 0 || ctx.Err() != nil {
			break
		}
		silent, err := n.settleLists(ctx, l.Width, todo)
		if errs = append(errs, silent, err); err != nil {
			return errors.Join(errs...), true
		}
		if silent != nil {
			break // asking again at once gets no other answer
		}
	}
	for _, t := range todo {
		for id := range t.fresh {
			if p.has(id) && !t.settled[id] {
				t.open++
			}
		}
		t.settled, t.fresh = nil, nil
	}
	return errors.Join(append(errs, ctx.Err())...), ctx.Err() != nil
}

// listOld asks the old holders what they have of a page, at most n.moves.page chunks, and
// has the page end where the first of them could not list on. Groups of which too few say
// it leave todo.
func (n *Node) listOld(ctx context.Context, of int, todo map[int]*taking, p *page) error {
	groups, since := map[control.NodeID][]int{}, uint64(0)
	for i, t := range todo {
		since = max(since, t.Group.Since)
		t.fresh, t.said = map[object.ChunkID]bool{}, 0
		for _, id := range t.from {
			if id != placement.None {
				groups[id] = append(groups[id], i)
			}
		}
	}
	most := max(n.moves.page/max(len(groups), 1), min(pageLeast, n.moves.page))
	var mu sync.Mutex // guards what todo points to, the page's end, lists and errs
	var lists [][]object.ChunkID
	var errs []error
	var all sync.WaitGroup
	for node, list := range groups {
		all.Go(func() {
			var ids []object.ChunkID
			sel := copies.Selection{Of: of, Groups: list, Since: since, After: p.after, Max: most}
			err := n.copies.List(ctx, string(node), sel, func(id object.ChunkID) error {
				ids = append(ids, id)
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, object.Errorf(object.KindUnavailable, "node %s does not say which chunks it has: %w", node, err))
				return
			}
			for _, i := range list {
				todo[i].said++
			}
			lists = append(lists, ids)
			if len(ids) == most && p.has(ids[most-1]) {
				p.end, p.last = ids[most-1], false
			}
		})
	}
	all.Wait()
	total := 0
	for _, ids := range lists {
		total += len(ids)
		for _, id := range ids {
			if t := todo[int(placement.Hash(id)%uint64(of))]; p.has(id) && !t.settled[id] {
				t.fresh[id] = true
			}
		}
	}
	n.moves.pages.Add(1)
	n.moves.most.Store(max(n.moves.most.Load(), int64(total))) // movers come here one after the other
	few := false
	for i, t := range todo {
		if t.said < t.Lists {
			few = true
			delete(todo, i)
		}
	}
	if !few {
		return nil // one of them may be down
	}
	return errors.Join(errs...)
}

// settleLists fetches and verifies what the lists have. silent: owners that did not answer;
// what is theirs waits, and nothing else.
func (n *Node) settleLists(ctx context.Context, width int, todo map[int]*taking) (silent, fatal error) {
	var mu sync.Mutex // guards the takings' settled
	byOwner := map[object.PartitionID][]object.ChunkID{}
	of := map[object.ChunkID]*taking{}
	for _, t := range todo {
		for id := range t.fresh {
			byOwner[id.Owner] = append(byOwner[id.Owner], id)
			of[id] = t
		}
	}
	var errs []error
	for owner, ids := range byOwner {
		slices.SortFunc(ids, object.ChunkID.Compare)
		for some := range slices.Chunk(ids, ownerBatch) {
			refs, settled, err := n.lookUp(ctx, owner, some)
			if err == nil {
				settled, err = n.refuseOrphans(ctx, owner, some, refs, settled)
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
			g, gctx := errgroup.WithContext(ctx)
			g.SetLimit(fetchers)
			for _, c := range refs {
				if copies.SchemeOf(c.Scheme).Width() != width { // another layout's
					settled = append(settled, c.ID)
					continue
				}
				g.Go(func() error {
					ok, err := n.fetch(gctx, c, n.moves.fetch)
					if ok {
						mu.Lock()
						defer mu.Unlock()
						of[c.ID].settled[c.ID] = true
					}
					return err
				})
			}
			err = g.Wait()
			for _, id := range settled {
				of[id].settled[id] = true
			}
			if err != nil {
				return errors.Join(errs...), err
			}
		}
	}
	return errors.Join(errs...), nil
}

// lookUp asks an owner about chunks. refs are those that are live, gone those that are
// being dropped. What is in neither is not committed yet, was dropped, or is an orphan.
func (n *Node) lookUp(ctx context.Context, owner object.PartitionID, ids []object.ChunkID) (refs []namespace.ChunkRef, gone []object.ChunkID, err error) {
	if int(owner) >= len(n.parts) {
		return nil, ids, nil // of a store that this is not
	}
	err = n.inView(ctx, owner, func(v *namespace.View) error {
		for _, id := range ids {
			c, live, err := v.Chunk(id)
			if err != nil {
				return err
			}
			if live {
				refs = append(refs, c)
				continue
			}
			_, releasing, err := v.Knows(id)
			if err != nil {
				return err
			}
			if releasing {
				gone = append(gone, id)
			}
		}
		return nil
	})
	return refs, gone, err
}

// refuseOrphans adds to gone what no entry will ever name: of ids that are in neither refs nor
// gone, those of uploads that nobody has under way. As the orphan audit does, which drops
// their files, the owner refuses the upload first. The others are waited for.
func (n *Node) refuseOrphans(ctx context.Context, owner object.PartitionID, ids []object.ChunkID, refs []namespace.ChunkRef, gone []object.ChunkID) ([]object.ChunkID, error) {
	if len(refs)+len(gone) == len(ids) {
		return gone, nil
	}
	known := map[object.ChunkID]bool{}
	for _, c := range refs {
		known[c.ID] = true
	}
	for _, id := range gone {
		known[id] = true
	}
	orphans := map[object.UploadID][]object.ChunkID{}
	for _, id := range ids {
		if !known[id] {
			orphans[id.Upload] = append(orphans[id.Upload], id)
		}
	}
	spared, err := n.underway(ctx, slices.Collect(maps.Keys(orphans)))
	if err != nil {
		return gone, err
	}
	for upload, list := range orphans {
		if spared[upload] {
			continue
		}
		if n.keepsAll() { // the files stay where they are
			gone = append(gone, list...)
			continue
		}
		if _, err := n.do(ctx, owner, &namespace.Command{Refuse: &namespace.RefuseUpload{Upload: upload}}); err != nil {
			return gone, err
		}
		unknown, err := n.unknown(ctx, owner, list) // after it: what is committed by now is fetched in the next round
		if err != nil {
			return gone, err
		}
		gone = append(gone, unknown...)
	}
	return gone, nil
}

// fetch makes sure that this node has its copy or shard of a live chunk, whole. ok:
// it has, or the chunk is gone, or nobody has it any more. Otherwise it is to be tried again, and
// err says why that should not be at once.
func (n *Node) fetch(ctx context.Context, c namespace.ChunkRef, pace *copies.Pacer) (ok bool, err error) {
	here, err := n.chunks.Has(c.ID)
	if err != nil {
		return false, err
	}
	kept := asKept(c)
	if size := max(c.Length/int64(kept.Scheme.Data), 1); here {
		err = n.moves.read.Wait(ctx, size)
	} else {
		n.moves.counts.toGo.Add(size)
		defer n.moves.counts.toGo.Add(-size)
		err = pace.Wait(ctx, size)
	}
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchBound)
	defer cancel()
	switch err = n.copies.Repair(ctx, kept); {
	case err == nil:
		return true, nil
	case object.IsKind(err, object.KindNotFound), object.IsKind(err, object.KindCorrupt):
		live, werr := n.wanted(ctx, c.ID)
		if werr != nil {
			return false, werr
		}
		if live { // every holder was asked: moving on loses nothing more
			n.moves.counts.lost.Add(1)
			n.log.Error("a chunk is lost: no holder has a good copy; restore the object from a backup", "chunk", c.ID.String(), "err", err)
		}
		return true, nil
	case ctx.Err() != nil:
		return false, err
	}
	n.log.Debug("a chunk could not be fetched; it is tried again", "chunk", c.ID.String(), "err", err)
	return false, nil
}
