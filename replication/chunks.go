package replication

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/copies"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// chunkNet is how a node keeps chunks at others: the map that says where, and the
// way there. A node alone has the one that aloneNet makes.
type chunkNet struct {
	places *places
	client func(node string) *http.Client
	newer  func(ctx context.Context, epoch uint64) error
}

// aloneNet is of a cluster of one node: it holds every chunk, whatever the scheme,
// by layouts that have room for the nodes to come. They are of epoch 0, so that any
// of the control group's takes their place.
func aloneNet(self string) (*chunkNet, error) {
	p := &places{}
	for width := 1; width <= object.MaxWidth; width++ {
		l, err := placement.NewLayout([]placement.Node{{ID: placement.NodeID(self), Weight: 1}}, width, 1, 0)
		if err != nil {
			return nil, err
		}
		p.adopt(l)
	}
	none := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, object.Errorf(object.KindUnavailable, "this node is the only one of its cluster")
	})}
	return &chunkNet{places: p, client: func(string) *http.Client { return none }}, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// places is where chunks belong by the newest map that this node has adopted: one
// layout for each width. It is safe for concurrent use, and never blocks.
type places struct {
	// shut: what is here may be older than what this node adopted before it was
	// started, so nothing is located by it yet.
	shut    atomic.Bool
	byWidth [object.MaxWidth + 1]atomic.Pointer[placement.Layout]
}

// adopt takes a layout in place of that of its width, unless it is older.
func (p *places) adopt(l *placement.Layout) {
	for at := &p.byWidth[l.Width]; ; {
		old := at.Load()
		if old != nil && old.Epoch >= l.Epoch || at.CompareAndSwap(old, l) {
			return
		}
	}
}

// epoch is that of the last change of a layout. Nodes that have the same agree on them all.
func (p *places) epoch() (epoch uint64) {
	for i := range p.byWidth {
		if l := p.byWidth[i].Load(); l != nil {
			epoch = max(epoch, l.Epoch)
		}
	}
	return epoch
}

// locate is copies.Options.Locate.
func (p *places) locate(id object.ChunkID, s copies.Scheme) (placement.Site, error) {
	if p.shut.Load() {
		return placement.Site{}, object.Errorf(object.KindUnavailable, "this node is starting, and has not heard of the newest map yet: try again")
	}
	l := p.byWidth[s.Width()].Load()
	if l == nil {
		return placement.Site{}, object.Errorf(object.KindUnavailable, "this node's map does not say where chunks kept as %v are: try again", s)
	}
	return l.Locate(id), nil
}

func (n *Node) openCopies() (err error) {
	net := n.cfg.net
	if net == nil {
		if net, err = n.clusterNet(); err != nil {
			return err
		}
	}
	n.places = net.places
	n.copies, err = copies.New(copies.Options{
		Self: n.cfg.NodeID, Local: n.chunks, Locate: net.places.locate, Client: net.client, Newer: net.newer, Live: n.wanted,
		Late: min(copies.DefaultLate, n.cfg.BufferMemory/2), RepairRate: n.cfg.RepairRate, Logger: n.log,
	})
	return err
}

// clusterNet is how this node's cluster keeps chunks. Until the control state says
// where, a store that founds its cluster holds them all; one that joins knows nothing.
func (n *Node) clusterNet() (*chunkNet, error) {
	net := &chunkNet{places: &places{}}
	if len(n.cfg.Join) == 0 {
		var err error
		if net, err = aloneNet(n.cfg.NodeID); err != nil {
			return nil, err
		}
	}
	net.client = func(node string) *http.Client { return n.net.HTTPClient(node) }
	net.newer = n.newer
	net.places.shut.Store(true)
	return net, nil
}

// newer waits until this node has adopted a map of at least that epoch.
func (n *Node) newer(ctx context.Context, epoch uint64) error {
	tick := time.NewTicker(mapPoll)
	defer tick.Stop()
	for {
		if s := n.state.Load(); s != nil && s.Epoch >= epoch {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return object.Errorf(object.KindUnavailable, "this node has not heard of epoch %d of the map yet: try again: %w", epoch, ctx.Err())
		}
	}
}

// mapPoll is how often somebody who waits for a map looks for it.
const mapPoll = 20 * time.Millisecond

// wanted asks the owner of a chunk whether anything references it.
func (n *Node) wanted(ctx context.Context, id object.ChunkID) (live bool, err error) {
	err = n.inView(ctx, id.Owner, func(v *namespace.View) error {
		_, live, err = v.Chunk(id)
		return err
	})
	return live, err
}

// maxDamaged bounds the chunks in quarantine whose owners were not asked yet. What
// does not fit is found by who reads it, or by the comparison with the owner's list.
const maxDamaged = 1024

// damage notes a chunk of this node that went to quarantine. It does not block.
func (n *Node) damage(id object.ChunkID, _ error) {
	n.moves.counts.corrupt.Add(1)
	poke(n.suspect)
	select {
	case n.damaged <- id:
	default:
	}
}

// mender has what went to quarantine fetched from the other holders. Whoever met the
// damage may be gone: a read that another holder answered, the scrub.
func (n *Node) mender() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case id := <-n.damaged:
			n.logged("damaged chunk", n.inView(n.ctx, id.Owner, func(v *namespace.View) error {
				c, live, err := v.Chunk(id)
				if live {
					n.copies.Report(asKept(c))
				}
				return err
			}))
		}
	}
}

// asKept is a chunk as its owner knows it, for those who keep it.
func asKept(r namespace.ChunkRef) copies.Chunk {
	c := copies.Chunk{ID: r.ID, Length: r.Length, Scheme: copies.SchemeOf(r.Scheme)}
	copy(c.SHA256[:], r.SHA256)
	return c
}

// chunkOf is the chunk that an extent names, for those who keep it.
func chunkOf(e *object.Extent) copies.Chunk {
	return copies.Chunk{ID: e.Chunk, SHA256: e.SHA256, Length: e.ChunkLength, Scheme: copies.SchemeOf(e.Scheme)}
}

// deleteReleased has the holders of chunks drop them; of refs, ids and schemes count.
func (n *Node) deleteReleased(ctx context.Context, refs []namespace.ChunkRef) error {
	byScheme := map[object.Scheme][]object.ChunkID{}
	for _, r := range refs {
		byScheme[r.Scheme] = append(byScheme[r.Scheme], r.ID)
	}
	for scheme, ids := range byScheme {
		if err := n.copies.DeleteAll(ctx, copies.SchemeOf(scheme), ids); err != nil {
			return err
		}
	}
	return nil
}
