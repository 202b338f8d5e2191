package replication

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/control"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// What a crash, a lost answer or a client that went away left behind: it is
// ended in batches of tidyBatch, until none is left.

// tidyBatch bounds what is looked at in one view of a partition.
const tidyBatch = 256

// seenTxs is since when this node has seen transactions open, by its own clock: when they
// began is told by the clocks of those who began them.
type seenTxs struct {
	mu    sync.Mutex
	since map[namespace.TxID]time.Time
}

// sweep settles transactions that this node does not drive and has seen open for some
// time. There is one sweep at a time.
func (n *Node) sweep(open time.Duration) error {
	n.seen.mu.Lock()
	defer n.seen.mu.Unlock()
	var errs []error
	still := map[namespace.TxID]time.Time{}
	for _, p := range n.parts {
		if r := p.led(); r != nil {
			errs = append(errs, n.sweepPartition(p.id, r, open, still))
		}
		if n.ctx.Err() != nil {
			break
		}
	}
	n.seen.since = still
	return errors.Join(errs...)
}

// sweepPartition sweeps one partition, and notes what stays open in still.
func (n *Node) sweepPartition(id object.PartitionID, r *replica, open time.Duration, still map[namespace.TxID]time.Time) error {
	var errs []error
	for after := (namespace.TxID{}); n.ctx.Err() == nil; {
		v, err := r.machine.Local()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		list, err := v.Open(after, tidyBatch)
		v.Close()
		if err != nil || len(list) == 0 {
			return errors.Join(append(errs, err)...)
		}
		for _, ref := range list {
			if n.live.get(ref.ID) != nil {
				continue
			}
			since, known := n.seen.since[ref.ID]
			if !known {
				since = time.Now()
			}
			still[ref.ID] = since
			if time.Since(since) < open {
				continue
			}
			if err := n.sweepOne(ref, id); err != nil && len(errs) < 10 { // a few tell enough
				errs = append(errs, err)
			}
		}
		after = list[len(list)-1].ID
	}
	return errors.Join(errs...)
}

func (n *Node) sweepOne(ref namespace.TxRef, at object.PartitionID) error {
	ctx, cancel := n.detached()
	defer cancel()
	var rec *namespace.Transaction
	err := n.inView(ctx, at, func(v *namespace.View) (err error) {
		rec, err = v.Tx(ref.ID)
		return err
	})
	if err != nil || rec == nil {
		return err
	}
	return n.settle(ctx, ref, at)
}

// dropStaged gives up what incarnations staged that have ended. Each is in the
// control state before it stages anything, so what belongs to none that is there, read
// after the list, belongs to nobody.
func (n *Node) dropStaged(alive func() (map[object.UploadID]bool, error)) error {
	var errs []error
	for _, p := range n.parts[1:] {
		r := p.led()
		for after, more := (object.ContentID{}), r != nil; more; {
			v, err := r.machine.Local()
			if err != nil {
				errs = append(errs, err)
				break
			}
			list, err := v.Staged(after, tidyBatch)
			v.Close()
			if err == nil && len(list) > 0 {
				err = n.dropStagedOf(p.id, list, alive)
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
			if more = len(list) == tidyBatch; more {
				after = list[len(list)-1].Content
			}
		}
	}
	return errors.Join(errs...)
}

// dropStagedOf gives up those contents of a list whose stagers have ended.
func (n *Node) dropStagedOf(part object.PartitionID, list []namespace.Staged, alive func() (map[object.UploadID]bool, error)) error {
	stagers, err := alive()
	if err != nil {
		return err
	}
	for _, s := range list {
		if stagers[s.Owner] {
			continue
		}
		if _, err := n.propose(n.ctx, part, &namespace.Command{Unstage: &namespace.Unstage{Content: s.Content}}); err != nil {
			return err
		}
	}
	return nil
}

// incarnations are those that may stage contents.
func (n *Node) incarnations() (map[object.UploadID]bool, error) {
	state, err := n.Control(n.ctx)
	if err != nil {
		return nil, err
	}
	alive := map[object.UploadID]bool{}
	for i := range state.Nodes {
		if c := &state.Nodes[i]; c.Life != control.NodeRemoved {
			alive[object.UploadID(c.Incarnation)] = true
		}
	}
	return alive, nil
}

// leftovers are staged contents that an entry in doubt may use or make. The
// sweeper gives them up once that entry is in the log or never will be; where it
// was applied there is nothing to give up.
type leftovers struct {
	mu   sync.Mutex
	list map[object.ContentID]leftover
}

type leftover struct {
	part  object.PartitionID
	since time.Time
}

// maxLeftovers bounds the memory; what is beyond waits for the next start.
const maxLeftovers = 1 << 16

func (l *leftovers) add(part object.PartitionID, c object.ContentID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		l.list = map[object.ContentID]leftover{}
	}
	if len(l.list) < maxLeftovers {
		l.list[c] = leftover{part, time.Now()}
	}
}

// take removes those that are there since before a time.
func (l *leftovers) take(before time.Time) map[object.ContentID]object.PartitionID {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[object.ContentID]object.PartitionID{}
	for c, o := range l.list {
		if !o.since.After(before) {
			out[c] = o.part
			delete(l.list, c)
		}
	}
	return out
}

func (n *Node) dropLeftovers(before time.Time) error {
	var errs []error
	silent := map[object.PartitionID]bool{} // a full wait for one of theirs is enough
	for c, part := range n.leftovers.take(before) {
		if silent[part] || n.ctx.Err() != nil {
			n.leftovers.add(part, c)
			continue
		}
		ctx, cancel := n.detached()
		_, err := n.propose(ctx, part, &namespace.Command{Unstage: &namespace.Unstage{Content: c}}) // back on the list if it fails
		cancel()
		silent[part] = object.IsKind(err, object.KindTimeout) || object.IsKind(err, object.KindUnavailable)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// endUploads gives up multipart uploads that ended half way, or whose bucket is gone.
func (n *Node) endUploads() error {
	for _, p := range n.parts[1:] {
		r := p.led()
		for after, more := (object.UploadID{}), r != nil; more; {
			var ids []object.UploadID
			var recs []namespace.UploadRec
			v, err := r.machine.Local()
			if err != nil {
				return err
			}
			err = v.Uploads(after, func(id object.UploadID, r namespace.UploadRec) bool {
				ids, recs = append(ids, id), append(recs, r)
				return len(ids) < tidyBatch
			})
			v.Close()
			if err != nil {
				return err
			}
			for i, id := range ids {
				if err := n.endUploadIfOver(p.id, id, &recs[i]); err != nil {
					return err
				}
			}
			if more = len(ids) == tidyBatch; more {
				after = ids[len(ids)-1]
			}
		}
	}
	return nil
}

func (n *Node) endUploadIfOver(part object.PartitionID, id object.UploadID, r *namespace.UploadRec) error {
	if !r.Ended {
		if _, err := n.GetAttr(n.ctx, r.Bucket); !object.IsKind(err, object.KindStale) {
			return err
		}
	}
	return n.endUpload(part, id)
}

// endIdleSessions forgets the sessions that were not seen since a time.
func (n *Node) endIdleSessions(since time.Time) error {
	for _, p := range n.parts {
		r := p.led()
		for after, more := (object.UploadID{}), r != nil; more; {
			v, err := r.machine.Local()
			if err != nil {
				return err
			}
			idle, last, err := v.IdleSessions(since.UnixNano(), after, tidyBatch)
			v.Close()
			if err != nil {
				return err
			}
			for _, s := range idle {
				if err := n.endSession(n.ctx, p.id, s, since); err != nil {
					return err
				}
			}
			after, more = last, !last.IsZero()
		}
	}
	return nil
}

// endSession forgets a session in one partition, unless it was seen since.
func (n *Node) endSession(ctx context.Context, part object.PartitionID, s object.UploadID, since time.Time) error {
	for {
		r, err := n.propose(ctx, part, &namespace.Command{EndSession: &namespace.EndSession{Session: s, Since: since.UnixNano()}})
		if err != nil || r.Done {
			return err
		}
	}
}
