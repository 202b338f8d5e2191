package replication

import (
	"context"
	"slices"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/replication/placement"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// How chunks are kept is a setting of a bucket, handed down by its directories
// (namespace/scheme.go). A scheme's width needs a layout in the control state: it is
// there before any bucket names the scheme, and whoever meets it waits for its map.

const (
	// schemeWait is how long a coordinator waits until its map has a bucket's scheme,
	// which the cluster's has.
	schemeWait = 10 * time.Second
	// schemeTries is how often a layout is planned anew when nodes changed meanwhile.
	schemeTries = 10
)

// schemeOf is how new chunks of a file, or of what is made in a directory, are kept,
// once this node can place them. An inode that is gone gets the default: what is
// made for it comes to nothing.
func (n *Node) schemeOf(ctx context.Context, like object.InodeID) (object.Scheme, error) {
	ino, err := n.GetAttr(ctx, like)
	if object.IsKind(err, object.KindStale) {
		return object.DefaultScheme, nil
	}
	if err != nil {
		return 0, err
	}
	return ino.Scheme, n.awaitScheme(ctx, ino.Scheme)
}

// awaitScheme waits until this node's map has a scheme. Its layout alone would not do:
// that the scheme stands in it is what moves of chunks reckon with.
func (n *Node) awaitScheme(ctx context.Context, s object.Scheme) error {
	if s == object.DefaultScheme || has(n.state.Load(), s) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, schemeWait)
	defer cancel()
	tick := time.NewTicker(mapPoll)
	defer tick.Stop()
	for !has(n.state.Load(), s) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return object.Errorf(object.KindUnavailable, "this node's map does not say yet where data kept as %s goes: try again: %w", s, ctx.Err())
		}
	}
	return nil
}

// has reports whether chunks of a scheme may be written by a map.
func has(s *control.State, scheme object.Scheme) bool {
	l := (*control.Layout)(nil)
	if s != nil {
		l = s.Layout(scheme.Width())
	}
	return l != nil && slices.Contains(l.Schemes, dataOf(scheme))
}

// dataOf is the number of data shards as the control state counts them: 0 for copies.
func dataOf(s object.Scheme) int {
	if s.Copies() {
		return 0
	}
	data, _ := s.Split()
	return data
}

// provide makes the layout of a scheme, unless there is one. KindInvalid: the cluster
// cannot keep data so, and why.
func (n *Node) provide(ctx context.Context, scheme object.Scheme) error {
	if err := scheme.Check(); err != nil {
		return err
	}
	if scheme == object.DefaultScheme {
		return nil
	}
	for attempt := 0; ; attempt++ {
		s, err := n.Control(ctx)
		if err != nil {
			return err
		}
		if err := enoughNodes(s, scheme); err != nil {
			return err
		}
		if err := spreadOut(s, scheme); err != nil {
			return err
		}
		if has(s, scheme) {
			return n.awaitScheme(ctx, scheme)
		}
		c, err := control.NewWidth(s, scheme.Width(), dataOf(scheme))
		if err != nil {
			return err
		}
		r, err := n.propose0(ctx, c)
		if err != nil {
			return err
		}
		if err := r.Err(); !object.IsKind(err, object.KindConflict) || attempt == schemeTries {
			if err != nil {
				return err
			}
			return n.awaitScheme(ctx, scheme)
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// enoughNodes refuses what a cluster cannot keep on as many different nodes as it
// takes. Up to the default number of copies is always possible: those that have no
// node yet are made when nodes join.
func enoughNodes(s *control.State, scheme object.Scheme) error {
	nodes, need := 0, scheme.Width()
	for _, p := range s.Plannable() {
		if p.Weight > 0 {
			nodes++
		}
	}
	switch {
	case nodes >= need || scheme.Copies() && need <= object.DefaultScheme.Width():
		return nil
	case scheme.Copies():
		return object.Errorf(object.KindInvalid, "%d copies need %d nodes that take data, the cluster has %d: add nodes, or choose replicated:%d", need, need, nodes,
			max(nodes, object.DefaultScheme.Width()))
	case nodes < 3:
		return object.Errorf(object.KindInvalid, "%s needs %d nodes that take data, one for each shard, and the cluster has %d: add nodes, or choose copies (replicated:3)", scheme, need, nodes)
	}
	return object.Errorf(object.KindInvalid, "%s needs %d nodes that take data, one for each shard, and the cluster has %d: add nodes, choose copies (replicated:3), or fewer shards (rs:%d+1)",
		scheme, need, nodes, nodes-1)
}

// spreadOut refuses shards in a layout that copies or other shards have used since
// there were fewer nodes, until its groups have got as many holders as there are shards.
func spreadOut(s *control.State, scheme object.Scheme) error {
	l := s.Layout(scheme.Width())
	if scheme.Copies() || l == nil {
		return nil
	}
	short := 0
	for _, g := range l.Groups {
		if slices.Contains(g.Holders, placement.None) {
			short++
		}
	}
	if short == 0 {
		return nil
	}
	return object.Errorf(object.KindUnavailable, "data is still being moved to nodes that joined: %d of %d groups of chunks have not %d holders yet: try again when it is done, or choose copies",
		short, len(l.Groups), scheme.Width())
}

// inherit gives the record of a directory that is to be made the scheme of its parent.
// A parent that is gone is for the transaction to find.
func (n *Node) inherit(ctx context.Context, node *object.Inode, parent object.InodeID) error {
	if parent == object.RootInode {
		return nil // a bucket: it has its own
	}
	d, err := n.GetAttr(ctx, parent)
	switch {
	case object.IsKind(err, object.KindStale):
		return nil
	case err != nil:
		return err
	}
	node.Scheme = d.Scheme
	return nil
}

// inheritMode gives a new directory what it has of its parent's mode and ACL, as
// they are just before it is made.
func (n *Node) inheritMode(ctx context.Context, node *object.Inode, parent object.InodeID, umasked uint32) error {
	d, err := n.GetAttr(ctx, parent)
	if object.IsKind(err, object.KindStale) {
		return nil // what is made there is refused
	}
	if err == nil {
		node.Inherit(d, umasked)
	}
	return err
}

// BucketOptions are the settings of a bucket.
type BucketOptions struct {
	Owner  string
	Scheme object.Scheme // how its data is kept; zero: the default
}

// SetScheme changes how a bucket's data is kept: what is written from now on at once,
// what is there in the background (see Rewriting). KindInvalid: the cluster has too few
// nodes for it. The same setting once more has everything looked at again.
func (n *Node) SetScheme(ctx context.Context, bucket string, scheme object.Scheme) (Bucket, error) {
	b, err := n.Bucket(ctx, bucket)
	if err == nil {
		err = n.provide(ctx, scheme)
	}
	if err == nil {
		_, err = n.once(ctx, func(ctx context.Context) (*namespace.Result, error) {
			return n.do(ctx, b.Root.Partition(), &namespace.Command{Token: token(ctx), Rewrite: &namespace.Rewrite{Dir: b.Root, Scheme: scheme}})
		})
	}
	if err != nil {
		return Bucket{}, object.WithOp(err, "set storage", bucket, "")
	}
	b.Scheme = scheme
	return b, nil
}

// Rewriting is how far a bucket's data is with following its setting.
type Rewriting struct {
	Scheme  object.Scheme // the setting
	Started time.Time
	Pass    int    // over the bucket's names; the last one finds nothing to change
	Seen    uint64 // names and directories that this pass has seen
	Walked  bool   // the passes are over
	Left    uint64 // then: about the files of the cluster that are still to be rewritten
}

// Rewriting tells how far the rewriting of a bucket's data is; nil: it has ended.
func (n *Node) Rewriting(ctx context.Context, b Bucket) (*Rewriting, error) {
	var r *namespace.Rewrite
	err := n.inView(ctx, b.Root.Partition(), func(v *namespace.View) (err error) {
		r, err = v.Rewrite(b.Root)
		return err
	})
	if err != nil || r == nil {
		return nil, err
	}
	p := r.Progress
	return &Rewriting{Scheme: r.Scheme, Started: time.Unix(0, r.Started), Pass: p.Pass, Seen: p.Seen, Walked: p.Walked, Left: p.Left}, nil
}
