package replication

import (
	"context"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// A replica that cannot be opened: a loss that others make good, something to wait for,
// or the end of the start.

// hopeless notes, while the node opens, that it never will.
func (n *Node) hopeless(err error) error {
	n.because(err)
	n.stopOpening()
	// Whatever it is, nobody could make it good: the replica is not given up.
	return object.Errorf(object.KindUnavailable, "%w", err)
}

// because notes why the node does not open, unless it still does.
func (n *Node) because(err error) {
	n.whyMu.Lock()
	defer n.whyMu.Unlock()
	if n.why == nil {
		n.why = err
	}
}

// soleWait bounds the question whether others have what a replica here has lost.
const soleWait = 5 * time.Second

// unopened is what to make of a replica that cannot be opened. KindCorrupt has it
// recorded as lost, which is right only while others have what it had: that is asked of the
// control group, for each partition, since what is here of the map may be old.
func (n *Node) unopened(ctx context.Context, p object.PartitionID, id control.ReplicaID, err error) error {
	if n.alone.Load() {
		return n.hopeless(err)
	}
	if !object.IsKind(err, object.KindCorrupt) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, soleWait)
	defer cancel()
	s, why := n.Control(ctx)
	switch {
	case why != nil:
		err = object.Errorf(object.KindUnavailable, "%w (whether another node has what it had cannot be asked now: %w)", err, why)
		n.because(err)
		return err
	case s.Irreplaceable(p, id):
		return n.hopeless(object.Errorf(object.KindCorrupt, "partition %d has no other replica in force: restore this node from a backup, or remove it from the cluster to give the partition up: %w", p, err))
	}
	return err
}

// failed0 is the error of a control group whose replica here has failed.
func (n *Node) failed0(err error) error {
	if n.alone.Load() {
		return n.hopeless(err)
	}
	return err
}
