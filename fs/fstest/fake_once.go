package fstest

import (
	"context"

	"github.com/skshohagmiah/bucketdb/fs"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// kept is a token whose result is kept. The Fake's lock guards it.
type kept struct {
	f       *Fake
	settled bool // there is a result
	unheard bool // and its answer was lost
	n       *object.Inode
	at      int64
	err     error
}

type keptKey struct{}

// Keep is Backend's.
func (f *Fake) Keep(ctx context.Context) (context.Context, fs.Kept) {
	f.mu.Lock()
	f.tokens++
	f.mu.Unlock()
	k := &kept{f: f}
	return context.WithValue(ctx, keptKey{}, k), k
}

// Tokens tells how many tokens are kept that nobody was done with.
func (f *Fake) Tokens() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tokens
}

func (k *kept) Unheard() bool {
	k.f.mu.Lock()
	defer k.f.mu.Unlock()
	return k.unheard
}

func (k *kept) Done() {
	k.f.mu.Lock()
	defer k.f.mu.Unlock()
	k.f.tokens--
}

func (k *kept) Settle(ctx context.Context, _ object.InodeID) (*object.Inode, int64, bool, error) {
	unlock, err := k.f.begin(ctx, "settle")
	if err != nil {
		return nil, 0, false, err
	}
	defer unlock()
	if !k.settled {
		k.settled, k.err = true, fail(object.KindPrecondition)
	}
	return k.n, k.at, k.err == nil, nil
}

// once carries out a change of a file, unless its token has a result already.
func (f *Fake) once(ctx context.Context, op string, ino object.InodeID, do func(n *object.Inode) (at int64, err error)) (*object.Inode, int64, error) {
	n, unlock, err := f.get(ctx, op, ino)
	if err != nil {
		return nil, 0, err
	}
	k, _ := ctx.Value(keptKey{}).(*kept)
	if k == nil {
		k = &kept{f: f}
	}
	if !k.settled {
		k.settled = true
		if k.at, k.err = do(n); k.err == nil {
			k.n = copyOf(n)
		}
	}
	r := *k
	after := f.after
	unlock()
	if after != nil && r.err == nil {
		if err := after(ctx, op); err != nil {
			f.mu.Lock()
			k.unheard = true
			f.mu.Unlock()
			return nil, 0, err
		}
	}
	if r.err != nil {
		return nil, 0, r.err
	}
	return copyOf(r.n), r.at, nil
}
