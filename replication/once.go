package replication

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Exactly once: DESIGN.md has the argument.

// token is the client's token of a mutation, for the entry that decides it.
func token(ctx context.Context) *namespace.Token {
	t, ok := ctx.Value(tokenKey{}).(Token)
	if !ok || t.Session.IsZero() {
		return nil
	}
	out := &namespace.Token{Session: t.Session, Seq: t.Seq, Ack: t.Ack}
	if !t.fence.IsZero() {
		out.Fence = t.fence[:]
	}
	return out
}

// withoutToken keeps a step that is not the mutation itself from taking its token.
func withoutToken(ctx context.Context) context.Context {
	return context.WithValue(ctx, tokenKey{}, Token{})
}

// retried is the token of a mutation that may have been sent before.
func retried(ctx context.Context) (Token, bool) {
	t, ok := ctx.Value(tokenKey{}).(Token)
	return t, ok && t.Retry && !t.Session.IsZero()
}

// recalled is the kept result of a token that may have been sent before. A
// retry may resolve to other partitions than the first attempt did, so all are asked.
func (n *Node) recalled(ctx context.Context) (*namespace.Result, error) {
	t, ok := retried(ctx)
	if !ok {
		return nil, nil
	}
	for id := range n.ids(object.Control) {
		var r *namespace.Result
		err := n.inView(ctx, id, func(v *namespace.View) (err error) {
			r, err = v.Result(namespace.Token{Session: t.Session, Seq: t.Seq})
			return err
		})
		if err != nil || r != nil {
			return r, err
		}
	}
	return nil, nil
}

// orKept is what a step before the mutation failed with, unless an earlier
// attempt of the mutation happened: then its result.
func (n *Node) orKept(ctx context.Context, err error) (*namespace.Result, error) {
	if r, rerr := n.recalled(ctx); rerr == nil && r != nil {
		return r, r.Err()
	}
	return nil, err
}

// fence makes every partition refuse the entries of earlier attempts that are
// still on their way, or finds the result of one that got through. KindSessionEnded
// says that the session is being ended and that nothing is on its way any more: no
// earlier attempt happened, and none will.
func (n *Node) fence(ctx context.Context, t Token) (context.Context, *namespace.Result, error) {
	t.fence = newUploadID()
	ctx = WithToken(ctx, t)
	kept := make([]*namespace.Result, 1+n.cfg.Partitions)
	ended := make([]error, 1+n.cfg.Partitions)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(64)
	for id := range n.ids(object.Control) {
		g.Go(func() error {
			r, err := n.propose(gctx, id, &namespace.Command{Token: token(ctx), Fence: &namespace.Fence{}})
			switch {
			case err != nil:
				return err
			case r.Recalled:
				kept[id] = r
				return nil
			case r.Fenced:
				return again{r.Err()} // with another number
			case r.Failed && r.Kind == object.KindSessionEnded:
				ended[id] = r.Err() // of this partition alone: the others have yet to say so, or to take the fence
				return nil
			}
			return r.Err()
		})
	}
	err := g.Wait()
	for _, r := range kept {
		if r != nil {
			return ctx, r, nil
		}
	}
	for _, e := range ended {
		if err == nil {
			err = e
		}
	}
	return ctx, nil, err
}

// doubts are the partitions in which an entry of a mutation may still be applied
// although the mutation went on: an attempt of unknown outcome, and after it an answer
// that is not kept for the token (a transaction was in the way, the path has to be resolved
// anew). A kept result, of any entry of the token in that partition, ends the doubt.
type doubts struct {
	mu sync.Mutex
	in map[object.PartitionID]bool
}

type doubtsKey struct{}

// noteDoubt notes what the result of an entry with a token says of those before it.
func noteDoubt(ctx context.Context, id object.PartitionID, cmd *namespace.Command, r *namespace.Result) {
	d, ok := ctx.Value(doubtsKey{}).(*doubts)
	if !ok || cmd.Token == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case r.Kept():
		delete(d.in, id)
	case r.Doubtful:
		if d.in == nil {
			d.in = map[object.PartitionID]bool{}
		}
		d.in[id] = true
	}
}

// unless is err, or, while there are doubts, an error that says that the outcome is unknown.
func (d *doubts) unless(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil || len(d.in) == 0 || uncertain(err) {
		return err
	}
	return object.Errorf(object.KindTimeout, "whether the change was made is unknown; look, or retry it with the same token: %w", err)
}

// once runs a mutation, or answers with what an earlier attempt of the same
// token came to. An error of a retry is answered only after another look: the
// first attempt may have been on its way.
func (n *Node) once(ctx context.Context, op func(ctx context.Context) (*namespace.Result, error)) (*namespace.Result, error) {
	if r, err := n.recalled(ctx); err != nil || r != nil {
		if err != nil {
			return nil, err
		}
		return r, r.Err()
	}
	t, second := retried(ctx)
	d := &doubts{}
	ctx = context.WithValue(ctx, doubtsKey{}, d)
	var r *namespace.Result
	err := n.retry(ctx, func() (err error) {
		ctx := ctx
		if second {
			var kept *namespace.Result
			if ctx, kept, err = n.fence(ctx, t); err != nil || kept != nil {
				r = kept
				return err
			}
		}
		r, err = op(ctx)
		if second && err != nil && r != nil && r.Fenced {
			return again{err} // another retry came between
		}
		return err
	})
	err = d.unless(err)
	switch {
	case err != nil && second:
		return n.orKept(ctx, err)
	case err == nil && r != nil && r.Recalled:
		return r, r.Err()
	}
	return r, err
}
