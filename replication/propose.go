package replication

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// errAgain asks the caller to resolve its path anew and try again.
var errAgain = errors.New("resolve again")

// again is an errAgain that says why.
type again struct{ why error }

func (a again) Error() string        { return a.why.Error() }
func (a again) Unwrap() error        { return a.why }
func (a again) Is(target error) bool { return target == errAgain }

// stepTimeout bounds each step of a transaction that goes on without its caller.
const stepTimeout = 30 * time.Second

// proposeTimeout bounds the wait for one entry, or for a partition to be
// readable, whoever asks: a disk that hangs fails its callers, it does not hold
// them. KindTimeout then: whether the entry is applied is not known.
const proposeTimeout = 20 * time.Second

// propose applies one command; the result's own error is not looked at.
func (n *Node) propose(ctx context.Context, id object.PartitionID, cmd *namespace.Command) (*namespace.Result, error) {
	p, err := n.partition(id)
	if err != nil {
		return nil, err
	}
	if n.full.Load() && p.here.Load() != nil && cmd.Grows() {
		return nil, n.errFull(n.cfg.NodeID) // whoever leads: what grows there grows here
	}
	if f := n.step.Load(); f != nil {
		if err := (*f)(id); err != nil {
			return nil, err
		}
	}
	cmd.Now = n.now().UnixNano()
	data, err := cmd.Encode()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.patience.Load()))
	defer cancel()
	send := n.access.Propose
	if cmd.Repeatable() {
		send = n.access.ProposeRepeatable
	}
	if f := n.sender.Load(); f != nil {
		send = *f
	}
	r, err := send(ctx, id, data)
	if err != nil && cmd.Unstage != nil {
		n.leftovers.add(id, cmd.Unstage.Content)
	}
	return r, err
}

// do applies a command, waits out or settles what is in its way, and drives
// what it began. errAgain means: resolve anew. A result comes with most errors.
func (n *Node) do(ctx context.Context, id object.PartitionID, cmd *namespace.Command) (*namespace.Result, error) {
	return n.doFor(ctx, id, cmd, nil)
}

// doFor is do on behalf of a transaction (mine), which gives way to an older one.
func (n *Node) doFor(ctx context.Context, id object.PartitionID, cmd *namespace.Command, mine *namespace.TxID) (r *namespace.Result, err error) {
	defer func() { n.settleRestaged(id, cmd, r, err) }()
	for attempt, scattered := 0, 0; ; attempt++ {
		r, err = n.propose(ctx, id, cmd)
		if err == nil {
			noteDoubt(ctx, id, cmd, r)
		}
		switch {
		case err != nil:
			return nil, err
		case r.Meet != nil:
			if err := n.meet(ctx, *r.Meet, id, attempt, mine); err != nil {
				return r, err
			}
		case r.Scattered && scattered < maxScattered:
			if err := n.gather(ctx, id, cmd, r, scattered); err != nil {
				return r, err
			}
			scattered++
		case r.Again && r.Kind == object.KindStale && cmd.Epoch == 0:
			return r, r.Err() // the directory was named by number: there is nothing to resolve
		case r.Again:
			return r, again{r.Err()}
		default:
			n.drive(r.Drive)
			return r, r.Err()
		}
	}
}

// retry runs op until it ends with something else than errAgain.
func (n *Node) retry(ctx context.Context, op func() error) error {
	for attempt := 0; ; attempt++ {
		err := op()
		if !errors.Is(err, errAgain) {
			return err
		}
		if attempt >= 100 {
			return object.Errorf(object.KindConflict, "too many concurrent changes of the same names: try again (%w)", errors.Unwrap(err))
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// pause waits a moment that grows with the attempts, with jitter.
func pause(ctx context.Context, attempt int) error {
	d := time.Millisecond << min(attempt, 6)
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// current is a partition's machine on this node once it has everything that was
// acknowledged before the call. It is nil, without an error, where the partition is to be
// read elsewhere: look into a view.
func (n *Node) current(ctx context.Context, id object.PartitionID) (*namespace.Machine, error) {
	limit := &deadline{Context: ctx, after: time.Duration(n.patience.Load())}
	defer limit.end()
	return n.access.Here(limit, id)
}

// deadline is context.WithTimeout for a wait that hardly ever happens: there is
// no timer before somebody asks for it.
type deadline struct {
	context.Context
	after  time.Duration
	once   sync.Once
	armed  context.Context
	cancel context.CancelFunc
}

func (d *deadline) arm() context.Context {
	d.once.Do(func() { d.armed, d.cancel = context.WithTimeout(d.Context, d.after) })
	return d.armed
}

func (d *deadline) Deadline() (time.Time, bool) { return d.arm().Deadline() }
func (d *deadline) Done() <-chan struct{}       { return d.arm().Done() }
func (d *deadline) Err() error                  { return d.arm().Err() }

// end frees what arm made.
func (d *deadline) end() {
	d.once.Do(func() { d.armed = d.Context })
	if d.cancel != nil {
		d.cancel()
	}
}

// view opens a linearizable view of a partition, wherever it is. Close it before
// ctx ends, if that has an end.
func (n *Node) view(ctx context.Context, id object.PartitionID) (*namespace.View, error) {
	limit := &deadline{Context: ctx, after: time.Duration(n.patience.Load())}
	v, err := n.access.View(limit, id)
	if err != nil {
		limit.end()
		return nil, err
	}
	v.OnClose(limit.end) // a view of another node reads until then
	return v, nil
}

// inView runs fn on a linearizable view of a partition.
func (n *Node) inView(ctx context.Context, id object.PartitionID, fn func(v *namespace.View) error) error {
	v, err := n.view(ctx, id)
	if err != nil {
		return err
	}
	defer v.Close()
	return fn(v)
}

// detached is a context that outlives its caller, for steps that must not be
// left half way.
func (n *Node) detached() (context.Context, context.CancelFunc) {
	return context.WithTimeout(n.ctx, stepTimeout)
}
