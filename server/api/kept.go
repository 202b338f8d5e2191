package api

import (
	"bytes"
	"context"
	"sync/atomic"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Kept is the token of one mutation, kept beyond its call. A call that ends
// without an answer leaves open whether the change was made, or is yet to be
// made by a request that is still on its way; sent again by another call, with
// another token, it may be made twice. Settle finds out, and makes sure. The
// cluster keeps the mutation's result until Done.
type Kept struct {
	c       *Client
	s       *session // that it is of
	seq     uint64
	sent    atomic.Bool // an attempt has begun
	unheard atomic.Bool // and one had no answer, or one that leaves open what came of it
	over    atomic.Bool
}

type keptKey struct{}

// Keep returns a context for one mutation of this client, and the token that
// it will carry. Give the context to one call only: a second mutation would be
// answered with the result of the first. Call Done in the end.
func (c *Client) Keep(ctx context.Context) (context.Context, *Kept) {
	s := c.session.Load()
	k := &Kept{c: c, s: s, seq: s.begin()}
	return context.WithValue(ctx, keptKey{}, k), k
}

// kept is the token that a call of this client is to carry, or nil.
func (c *Client) kept(ctx context.Context) *Kept {
	if k, _ := ctx.Value(keptKey{}).(*Kept); k != nil && k.c == c {
		return k
	}
	return nil
}

// Unheard reports whether the mutation may have been made, or may yet be,
// although its call failed.
func (k *Kept) Unheard() bool { return k.unheard.Load() }

// Done says that the mutation's result is not asked for any more. The first
// call counts.
func (k *Kept) Done() {
	if k.over.CompareAndSwap(false, true) {
		k.s.end(k.seq)
	}
}

// Settle decides what came of the mutation, which changed the file ino (by
// SetAttr, Write, Append, Punch or CopyRange). happened: it was made, once, and n
// and at are what its call would have returned. Otherwise it was not, and never
// will be: whatever is still on its way is refused. With an error that is still
// open; Settle again. It carries no content, so it works on a full disk.
func (k *Kept) Settle(ctx context.Context, ino object.InodeID) (n *object.Inode, at int64, happened bool, err error) {
	k.sent.Store(true)
	ctx = context.WithValue(ctx, keptKey{}, k)
	// A write under the same token whose conditions contradict each other: it is
	// answered with what the first attempt came to, or it fails, and that is then
	// the kept result.
	never := []string{"settle"}
	n, at, err = k.c.Write(ctx, ino, 0, bytes.NewReader(nil), WriteOptions{Cond: Conditions{IfMatch: never, IfNoneMatch: never}})
	switch object.KindOf(err) {
	case object.KindPrecondition, object.KindStale, object.KindSessionEnded:
		return nil, 0, false, nil
	}
	return n, at, err == nil, err
}

// note takes in how an attempt ended.
func (k *Kept) note(err error) {
	switch object.KindOf(err) {
	case object.KindUnavailable, object.KindTimeout, object.KindInternal, object.KindCanceled:
		k.unheard.Store(err != nil || k.unheard.Load())
	}
}
