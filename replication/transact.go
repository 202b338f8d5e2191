package replication

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// liveTxs are the transactions that this node is driving right now: who meets
// one waits for it instead of refusing it.
type liveTxs struct {
	mu   sync.Mutex
	done map[namespace.TxID]chan struct{}
}

func (l *liveTxs) begin(id namespace.TxID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[id] = make(chan struct{})
}

func (l *liveTxs) end(id namespace.TxID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.done[id]; c != nil {
		close(c)
		delete(l.done, id)
	}
}

func (l *liveTxs) get(id namespace.TxID) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[id]
}

// half is one participant's part of a transaction.
type half struct {
	part object.PartitionID
	do   namespace.Half
}

// plan is a two-partition operation: the halves in the order they are
// prepared, then the entry that decides.
type plan struct {
	halves  []half
	decider object.PartitionID
	// decide gets the results of the participants' entries, in order.
	decide func(prepared []*namespace.Result) *namespace.Decide
	epoch  uint64
	// fence runs between the halves and the decision (a directory rename's epochs).
	fence func(ctx context.Context) error
	// lazy: the answer need not wait for the halves to be finished, since no
	// reader can tell.
	lazy bool
}

// byPartition gathers the halves of each partition, in the order of the first of each.
func (p *plan) byPartition() (parts []object.PartitionID, halves [][]namespace.Half) {
	for _, h := range p.halves {
		i := slices.Index(parts, h.part)
		if i < 0 {
			i = len(parts)
			parts, halves = append(parts, h.part), append(halves, nil)
		}
		halves[i] = append(halves[i], h.do)
	}
	return parts, halves
}

// transact runs a plan. It goes on to its end even when ctx ends; a crash
// leaves it to whoever settles it. errAgain: resolve anew.
func (n *Node) transact(ctx context.Context, p plan) (*namespace.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
	parts, halves := p.byPartition()
	others := parts[1:]
	var prepared []*namespace.Result
	ref := namespace.TxRef{Decider: p.decider}
	var mark uint64
	for i, part := range parts {
		cmd := &namespace.Command{Epoch: p.epoch, Prepare: &namespace.Prepare{Tx: ref.ID, Decider: p.decider, Halves: halves[i]}}
		var mine *namespace.TxID
		if i == 0 {
			cmd.Prepare.Others = others
		} else {
			mine = &ref.ID
		}
		r, err := n.doFor(ctx, part, cmd, mine)
		if err != nil {
			if i > 0 {
				n.giveUp(ref, others, cancel)
			} else {
				cancel()
			}
			return r, p.undecided(err)
		}
		if i == 0 {
			ref.ID, mark = r.Tx, r.Mark
			n.live.begin(ref.ID)
		}
		prepared = append(prepared, r)
	}
	r, err := n.decide(ctx, p, ref, mark, prepared)
	if err != nil {
		n.giveUp(ref, others, cancel)
		return r, err
	}
	if r.Recalled {
		// An earlier attempt of the same mutation happened: this one must not.
		n.giveUp(ref, others, cancel)
		return r, nil
	}
	finish := func() {
		defer cancel()
		n.finish(ctx, ref.ID, others, true)
	}
	if p.lazy {
		n.goWork(finish)
	} else {
		finish()
	}
	return r, nil
}

// undecided is the error of a plan whose halves did not all get prepared. An entry of unknown
// outcome may still come and leave a mark; but the step that decides was not sent, and is not, so
// whoever settles the mark undoes it: the operation did not happen, and never will. Not so for the
// caller of two kinds: halves that take references name chunks until they are undone, which
// may not be deleted; and a directory's rename keeps its record while a mark of it may come.
func (p *plan) undecided(err error) error {
	if !object.IsKind(err, object.KindTimeout) || p.fence != nil || slices.ContainsFunc(p.halves, func(h half) bool { return h.do.Refs != nil }) {
		return err
	}
	return object.Errorf(object.KindUnavailable, "nothing was changed, since a partition did not answer in time: try again: %w", err)
}

func (n *Node) decide(ctx context.Context, p plan, ref namespace.TxRef, mark uint64, prepared []*namespace.Result) (*namespace.Result, error) {
	if p.fence != nil {
		if err := p.fence(ctx); err != nil {
			return nil, err
		}
	}
	d := p.decide(prepared)
	d.Tx, d.Mark = ref.ID, mark
	return n.doFor(ctx, p.decider, &namespace.Command{Epoch: p.epoch, Token: token(ctx), Decide: d}, &ref.ID)
}

// giveUp ends a transaction that did not come about, or of which that is not
// known: the decider has the last word.
func (n *Node) giveUp(ref namespace.TxRef, others []object.PartitionID, cancel context.CancelFunc) {
	defer cancel()
	ctx, stop := n.detached()
	defer stop()
	r, err := n.propose(ctx, ref.Decider, &namespace.Command{RefuseTx: &namespace.RefuseTx{Tx: ref.ID}})
	if err != nil {
		n.live.end(ref.ID)
		n.log.Warn("a transaction is left to the sweeper", "tx", ref.ID, "err", err)
		return
	}
	n.finish(ctx, ref.ID, others, r.Outcome)
}

// finish finishes every participant, the first one last.
func (n *Node) finish(ctx context.Context, id namespace.TxID, others []object.PartitionID, committed bool) error {
	defer n.live.end(id)
	for _, part := range append(others[:len(others):len(others)], id.First) {
		r, err := n.propose(ctx, part, &namespace.Command{Finish: &namespace.Finish{Tx: id, Committed: committed}})
		if err != nil {
			n.log.Warn("a transaction is left to the sweeper", "tx", id, "err", err)
			return err
		}
		n.drive(r.Drive)
	}
	return nil
}

// maxMeets bounds how often one step waits for what is in its way.
const maxMeets = 100

// meet deals with a transaction that is in the way of an entry at a partition:
// it waits for one that is being driven here, and settles any other. mine
// gives way when it is the younger.
func (n *Node) meet(ctx context.Context, ref namespace.TxRef, at object.PartitionID, attempt int, mine *namespace.TxID) error {
	if attempt >= maxMeets { // a caller without a deadline waits no longer either
		return object.Errorf(object.KindConflict, "too many concurrent changes of the same names: try again")
	}
	if mine != nil {
		if older(ref.ID, *mine) {
			return again{object.Errorf(object.KindConflict, "an older operation on the same name goes first")}
		}
		return n.settle(ctx, ref, at)
	}
	if attempt < 3 {
		if c := n.live.get(ref.ID); c == nil {
			return pause(ctx, attempt)
		}
	}
	if c := n.live.get(ref.ID); c != nil {
		t := time.NewTimer(2 * time.Second)
		defer t.Stop()
		select {
		case <-c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return n.settle(ctx, ref, at)
}

// older orders transactions; any total order does, so long as all agree.
func older(a, b namespace.TxID) bool {
	if a.Seq != b.Seq {
		return a.Seq < b.Seq
	}
	return a.First < b.First
}

// settle brings a transaction to its end, whoever began it: the decider shows
// its outcome or refuses it for ever, and then the halves are finished. at is
// where its mark was met.
func (n *Node) settle(ctx context.Context, ref namespace.TxRef, at object.PartitionID) error {
	var rec *namespace.Transaction
	err := n.inView(ctx, ref.ID.First, func(v *namespace.View) (err error) {
		rec, err = v.Tx(ref.ID)
		return err
	})
	if err != nil {
		return err
	}
	if rec != nil && rec.Owed != nil {
		if done, err := n.forward(ctx, rec); done || err != nil {
			return err
		}
	}
	r, err := n.propose(ctx, ref.Decider, &namespace.Command{RefuseTx: &namespace.RefuseTx{Tx: ref.ID}})
	if err != nil {
		return err
	}
	if rec == nil {
		// The first participant has finished; a mark that is still there came late.
		_, err := n.propose(ctx, at, &namespace.Command{Finish: &namespace.Finish{Tx: ref.ID, Committed: r.Outcome}})
		return err
	}
	return n.finish(ctx, ref.ID, rec.Others, r.Outcome)
}

// forward sends the deciding step that a record carries. done: it was decided
// and finished; else it can only be refused.
func (n *Node) forward(ctx context.Context, rec *namespace.Transaction) (done bool, err error) {
	d := *rec.Owed
	d.Tx, d.Mark = rec.Ref.ID, rec.Mark
	r, err := n.doFor(ctx, rec.Ref.Decider, &namespace.Command{Decide: &d}, &rec.Ref.ID)
	if r == nil {
		return false, err
	}
	if err != nil && rec.Debt {
		return false, err
	}
	if err != nil {
		return false, nil
	}
	return true, n.finish(ctx, rec.Ref.ID, rec.Others, true)
}

// drive brings what an entry began to its end before the answer. What fails
// is left to the sweeper.
func (n *Node) drive(refs []namespace.TxRef) {
	for _, ref := range refs {
		n.live.begin(ref.ID)
		ctx, cancel := n.detached()
		if err := n.settle(ctx, ref, ref.ID.First); err != nil {
			n.log.Warn("a transaction is left to the sweeper", "tx", ref.ID, "err", err)
		}
		cancel()
		n.live.end(ref.ID)
	}
}

// goWork runs fn in the background; Close waits for it.
func (n *Node) goWork(fn func()) {
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		fn()
	}()
}
