package replication

import (
	"context"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// share stages, in a partition, a content that is the readers' contents one
// after another, and moves no data.
func (n *Node) share(ctx context.Context, sources []*Reader, part object.PartitionID) (namespace.Body, error) {
	body := namespace.Body{Content: newContentID()}
	for _, r := range sources {
		if err := n.shareOne(ctx, r, part, &body); err != nil {
			n.unstage(part, body)
			return body, err
		}
	}
	return body, nil
}

func (n *Node) shareOne(ctx context.Context, r *Reader, part object.PartitionID, body *namespace.Body) error {
	base := body.Size
	if base == 0 && r.inode.Content.IsZero() && r.inode.Size == int64(len(r.inline)) && len(r.inline) > 0 {
		body.Inline, body.Size = r.inline, r.inode.Size // of a single small source
		return nil
	}
	if len(body.Inline) > 0 {
		return object.Errorf(object.KindInternal, "a small part stands before another")
	}
	if err := n.sharePages(ctx, r, part, body, base, 0, r.inode.Size); err != nil {
		return err
	}
	body.Size += r.inode.Size
	return nil
}

// sharePages stages [off, end) of a reader's content, shifted by base.
func (n *Node) sharePages(ctx context.Context, r *Reader, part object.PartitionID, body *namespace.Body, base, off, end int64) error {
	for off < end {
		exts, reach, err := r.page(ctx, off, end)
		if err == nil {
			err = n.stageShared(ctx, part, body, base, exts)
		}
		if err != nil {
			return err
		}
		off = reach
	}
	return nil
}

// stageShared stages extents of committed chunks, shifted by base.
func (n *Node) stageShared(ctx context.Context, part object.PartitionID, body *namespace.Body, base int64, exts []object.Extent) error {
	if len(exts) == 0 {
		return nil
	}
	for i := range exts {
		exts[i].Offset += base
		body.Shares(&exts[i])
	}
	st := &namespace.Stage{Owner: n.incarnation, Body: namespace.Body{Content: body.Content, Extents: exts, Staged: body.Staged, Existing: true}}
	var err error
	if owners := foreignOwners(exts, part); len(owners) > 0 {
		_, err = n.transact(withoutToken(ctx), plan{halves: refHalves(exts, owners, false), decider: part, lazy: true,
			decide: func([]*namespace.Result) *namespace.Decide { return &namespace.Decide{Stage: st} }})
	} else {
		_, err = n.do(ctx, part, &namespace.Command{Stage: st})
	}
	if err == nil {
		body.Staged = true
	} else if uncertain(err) {
		n.leftovers.add(part, body.Content)
	}
	return err
}

// unstage gives a staged content up.
func (n *Node) unstage(part object.PartitionID, body namespace.Body) {
	if !body.Staged {
		return
	}
	ctx, cancel := n.detached()
	defer cancel()
	if _, err := n.propose(ctx, part, &namespace.Command{Unstage: &namespace.Unstage{Content: body.Content}}); err != nil {
		n.log.Warn("a staged content is left to the sweeper", "content", body.Content, "err", err)
	}
}
