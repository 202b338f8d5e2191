package replication

import (
	"context"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A change that would replace more extents than one entry may: where they lie
// one behind another, the file is compacted first. Where holes are between them
// that does not help; then what the change leaves of the content is staged as a new one in
// bounded entries, sharing chunks, and the change itself exchanges the contents.

// maxScattered bounds how often a file that is changed all the time is tried.
const maxScattered = 8

// gather makes a file ready for a command that was refused as r says.
func (n *Node) gather(ctx context.Context, part object.PartitionID, cmd *namespace.Command, r *namespace.Result, attempt int) error {
	if attempt == 0 && !r.Pieces {
		if err := n.compactFile(ctx, cmd.Target()); err != nil && !object.IsKind(err, object.KindPrecondition) {
			return err
		}
		return nil
	}
	change := cmd.Change()
	if change == nil {
		return r.Err()
	}
	n.settleRestaged(part, cmd, r, r.Err()) // of the attempt before
	over, err := n.restage(ctx, cmd)
	change.Over = over
	return err
}

// restage stages what a command leaves of a file's content.
func (n *Node) restage(ctx context.Context, cmd *namespace.Command) (*namespace.Restaged, error) {
	r, err := n.OpenInode(ctx, cmd.Target())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	from, to := cmd.Range(r.inode.Size)
	body := namespace.Body{Content: newContentID()}
	for _, rest := range []namespace.Piece{{From: 0, To: min(from, r.inode.Size)}, {From: to, To: r.inode.Size}} {
		if err := n.sharePages(ctx, r, r.part.id, &body, 0, rest.From, rest.To); err != nil {
			n.unstage(r.part.id, body)
			return nil, err
		}
	}
	return &namespace.Restaged{Content: body.Content, Empty: !body.Staged, Was: r.inode.Content, Version: r.inode.Version}, nil
}

// settleRestaged ends what was staged for a command, unless the command took it.
func (n *Node) settleRestaged(part object.PartitionID, cmd *namespace.Command, r *namespace.Result, err error) {
	change := cmd.Change()
	if change == nil || change.Over == nil {
		return
	}
	over := *change.Over
	change.Over = nil
	switch {
	case over.Empty || err == nil && !r.Recalled:
	case err != nil && uncertain(err):
		n.leftovers.add(part, over.Content)
	default:
		n.unstage(part, namespace.Body{Content: over.Content, Staged: true})
	}
}
