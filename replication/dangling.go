package replication

import (
	"context"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A name that leads to an inode that is gone cannot come about: every operation
// drops the name first, and inode numbers are never used again. After damage (a
// partition restored without the other) it is there all the same. A single look
// cannot tell it from a name that is being replaced, but two can: the inode was
// found gone, and the name led there still *after* that.

// gone notes, over the attempts of an operation, the inode that was found gone.
type gone struct{ ino object.InodeID }

// again is the error for a name that led to ino, which was found gone just now:
// KindCorrupt where it had been before, otherwise an errAgain.
func (g *gone) again(ino object.InodeID, why error) error {
	if g.ino == ino {
		return errDangling(ino)
	}
	g.ino = ino
	return again{why}
}

func errDangling(ino object.InodeID) error {
	return object.Errorf(object.KindCorrupt, "the name leads to inode %s, which is gone: delete the name or write the object anew, without conditions, and let \"bucketdb cluster check\" look for more damage", ino)
}

// isGone reports whether an inode is gone for good, or has no name any more.
func (n *Node) isGone(ctx context.Context, ino object.InodeID) (bool, error) {
	rec, err := n.GetAttr(ctx, ino)
	if object.IsKind(err, object.KindStale) {
		return true, nil
	}
	return err == nil && rec.Nlink == 0, err
}
